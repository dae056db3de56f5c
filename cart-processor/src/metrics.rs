//! What the processor exports, beside the metrics of its group and of its stores.

service::define_metrics! {
    BATCH_RECORDS: Histogram = Histogram::new(
        "processor_batch_records",
        Histogram::RECORDS,
        "Records of cart-commands in a batch, which is decided and journalled together",
    );
    BATCH_SECONDS: Histogram =
        Histogram::seconds("processor_batch_seconds", "Time of a batch, from its last record to its events in the outbox");
    CARTS_REDELIVERED: Counter = Counter::new(
        "processor_carts_redelivered_total",
        "Carts of batches whose first command was decided before: normal after a restart or rebalance",
    );
    COMMANDS: Counter =
        Counter::new("processor_commands_total", "Records of cart-commands that were processed, dead letters among them");
    COMMANDS_REJECTED: Counter =
        Counter::new("processor_commands_rejected_total", "Commands that a rule of the cart rejected");
    COMMAND_WAIT_SECONDS: Histogram = Histogram::seconds(
        "processor_command_wait_seconds",
        "Time from the append of a command to its arrival here, by the clocks of both machines",
    );
    DEAD_LETTERS: Counter = Counter::new(
        "processor_dead_letters_total",
        "Records of cart-commands that cannot be decided and go to cart-commands-dead-letter; repeats after a restart count again",
    );
    PARKED_CARTS: Gauge = Gauge::new(
        "processor_parked_carts",
        "Carts of a partition whose commands wait, because they cannot be read or decided, or are tried again",
    )
    .labels(&[Label::any("partition")]);
    RECOVERIES: Counter = Counter::new(
        "processor_recoveries_total",
        "Failures after which a worker went back to its committed offsets: retry after an error of a server or of a \
         record, rewind after a lost partition or an aborted transaction",
    )
    .labels(&[Label::one_of("kind", &["retry", "rewind"])]);
    REPLIES_LOST: Counter =
        Counter::new("processor_replies_lost_total", "Replies that could not be sent; their clients get 202");
    STEP_SECONDS: Histogram = Histogram::seconds("processor_step_seconds", "Time of a step of a batch")
        .labels(&[Label::one_of("step", &["poll", "load", "decide", "journal", "reply", "enqueue"])]);
}
