//! What members of groups and producers of transactions export.

use std::time::Instant;

const PARTITION: &[Label] = &[Label::any("group"), Label::any("topic"), Label::any("partition")];

service::define_metrics! {
    ASSIGNED_PARTITIONS: Gauge = Gauge::new(
        "cart_assigned_partitions",
        "Partitions of the topic that this process has as a member of the group",
    )
    .labels(&[Label::any("group"), Label::any("topic")]);
    TOPIC_PARTITIONS: Gauge = Gauge::new(
        "cart_topic_partitions",
        "All partitions of the topic that the group reads, as this process knows it",
    )
    .labels(&[Label::any("group"), Label::any("topic")]);
    LAG_RECORDS: Gauge = Gauge::new(
        "cart_lag_records",
        "Offsets from the first record that is not applied to the last stable offset; 0 exactly when no committed record is \
         left. Otherwise an upper bound, since markers of transactions have offsets too, and of the end that was known last",
    )
    .labels(PARTITION);
    LAG_SECONDS: Gauge = Gauge::new(
        "cart_lag_seconds",
        "Age of the first record that was read and is not applied, by the clock of its producer; 0 when there is none",
    )
    .labels(PARTITION);
    POSITION: Gauge = Gauge::new(
        "cart_position",
        "The next offset to apply: the effects of all records before it are durable",
    )
    .labels(PARTITION);
    PARTITION_STOPPED: Gauge = Gauge::new(
        "cart_partition_stopped",
        "1 when the partition is stopped at a record that cannot be processed, else 0",
    )
    .labels(PARTITION);
    PARTITION_PAUSED: Gauge = Gauge::new(
        "cart_partition_paused",
        "1 when an operator has paused the partition (cartctl pause), else 0. Meanwhile it is not read, so its lag is that of the \
         beginning of the pause; `cartctl status` asks the brokers",
    )
    .labels(PARTITION);
    TRANSACTION_SECONDS: Histogram = Histogram::seconds(
        "cart_transaction_seconds",
        "Time of a Kafka transaction, from its begin to the answer to its commit",
    )
    .labels(&[Label::any("group"), Label::one_of("outcome", &["committed", "failed"])]);
}

/// Makes the series of a group's transactions exist.
pub fn start_transactions(group: &str) {
    TRANSACTION_SECONDS.start(&[group]);
}

/// Counts a transaction that commits offsets of `group`, with its time.
pub fn count_transaction<T, E>(group: &str, started_at: Instant, result: &Result<T, E>) {
    let outcome = if result.is_ok() { "committed" } else { "failed" };
    TRANSACTION_SECONDS.with(&[group, outcome]).record(started_at.elapsed());
}
