//! What `audit --watch` exports.

service::define_metrics! {
    AUDIT_SECONDS: Histogram = Histogram::new(
        "audit_seconds",
        &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0],
        "Time of an audit, also of one that failed",
    );
    COMMANDS: Gauge = Gauge::new("audit_commands", "Commands that the last completed audit looked at, with those before its checkpoint");
    FINDINGS: Gauge = Gauge::new("audit_findings", "Findings of the last completed audit, by kind; 0 is right")
        .labels(&[Label::any("kind")]);
    INTERVAL_SECONDS: Gauge =
        Gauge::new("audit_interval_seconds", "Pause between two audits (--interval-s)");
    LAST_COMPLETED: Gauge = Gauge::new(
        "audit_last_completed_timestamp_seconds",
        "When the last audit was completed, as Unix time; before the first, when the service was started",
    );
    RUNS: Counter = Counter::new(
        "audit_runs_total",
        "Audits: completed, with or without findings, or failed, for example because a consumer was too far behind",
    )
    .labels(&[Label::one_of("outcome", &["completed", "failed"])]);
}
