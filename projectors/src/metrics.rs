//! What a projector exports, beside the metrics of its group and of its stores.

const PROJECTOR: Label = Label::any("projector");

service::define_metrics! {
    APPLY_SECONDS: Histogram = Histogram::seconds(
        "projector_apply_seconds",
        "Time to apply a batch; of item-purchased-events without the transaction, if that is not due yet",
    )
    .labels(&[PROJECTOR]);
    BATCH_RECORDS: Histogram =
        Histogram::new("projector_batch_records", Histogram::RECORDS, "Records in a batch").labels(&[PROJECTOR]);
    PARKED_ROWS: Gauge = Gauge::new(
        "projector_parked_rows",
        "Rows of the read table that lack records which they cannot take; of the partitions that this process owns",
    )
    .labels(&[PROJECTOR]);
    RECORDS: Counter = Counter::new("projector_records_total", "Records that were applied; repeats after a restart count again")
        .labels(&[PROJECTOR]);
    RECOVERIES: Counter = Counter::new(
        "projector_recoveries_total",
        "Failures after which the projector went back to its committed offsets: retry after an error of a server, \
         rewind after a lost partition or an aborted transaction",
    )
    .labels(&[PROJECTOR, Label::one_of("kind", &["retry", "rewind"])]);
}

/// Makes the series of a projector exist.
pub(crate) fn start(projector: &str) {
    RECORDS.start(&[projector]);
    RECOVERIES.start(&[projector]);
    APPLY_SECONDS.start(&[projector]);
    BATCH_RECORDS.start(&[projector]);
}
