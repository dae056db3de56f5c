//! What every traced service exports.

service::define_metrics! {
    SPANS_DROPPED: Counter = Counter::new("otel_spans_dropped_total", "Spans that the trace collector did not get");
}
