//! What the console exports.

service::define_metrics! {
    JWKS_FAILURES: Counter = Counter::new(
        "console_jwks_failures_total",
        "Attempts to reload the keys of the token issuer that failed; the previous keys stay in use",
    );
    VIEWERS: Gauge = Gauge::new("console_viewers", "Viewers of the live page");
    VIEWERS_STALLED: Counter = Counter::new(
        "console_viewers_stalled_total",
        "Viewers that were dropped because they did not read what was sent to them",
    );
}
