//! What the console exports.

service::define_metrics! {
    VIEWERS: Gauge = Gauge::new("console_viewers", "Viewers of the live page");
    VIEWERS_STALLED: Counter = Counter::new(
        "console_viewers_stalled_total",
        "Viewers that were dropped because they did not read what was sent to them",
    );
}
