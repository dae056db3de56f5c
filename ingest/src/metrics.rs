//! What ingest exports, beside the metrics of its stores.

use crate::problem::Kind;
use crate::route::{METHODS, ROUTES};

const METHOD: Label = Label::any("method");
const ROUTE: Label = Label::any("route");

service::define_metrics! {
    CONNECTIONS_REFUSED: Counter = Counter::new(
        "ingest_connections_refused_total",
        "Connections that were closed because their address had too many (--connections-per-address-max)",
    );
    EVENT_STREAMS: Gauge = Gauge::new("ingest_event_streams", "Event streams that are open (at most --event-streams-max)");
    HANDLER_PANICS: Counter =
        Counter::new("ingest_handler_panics_total", "Panics of a request handler; the client got a 500");
    JWKS_FAILURES: Counter = Counter::new(
        "ingest_jwks_failures_total",
        "Attempts to reload the keys of the token issuer that failed; the previous keys stay in use",
    );
    READ_AFTER_SECONDS: Histogram = Histogram::seconds(
        "ingest_read_after_seconds",
        "Wait of a read with Read-After until its table included the command; without those that gave up",
    );
    REPLY_WAIT_SECONDS: Histogram = Histogram::seconds(
        "ingest_reply_wait_seconds",
        "Time from the append of a reply to its arrival here, by the clocks of both machines",
    );
    REQUESTS: Counter = Counter::new(
        "ingest_requests_total",
        "Requests, by the path's template (other: no such path) and the status of the answer (cancelled: the client left \
         before there was one)",
    )
    .labels(&[METHOD, ROUTE, Label::any("status")]);
    REQUEST_SECONDS: Histogram = Histogram::seconds(
        "ingest_request_seconds",
        "Time of a request, from its head to the head of its answer: succeeded below status 400, rejected below 500, else \
         failed",
    )
    .labels(&[METHOD, ROUTE, Label::one_of("outcome", &["failed", "rejected", "succeeded"])]);
    REQUESTS_IN_FLIGHT: Gauge =
        Gauge::new("ingest_requests_in_flight", "Requests of all paths that are not answered yet");
    TLS_EXPIRY: Gauge = Gauge::new(
        "ingest_tls_certificate_expiry_timestamp_seconds",
        "When the certificate in use expires, as Unix time; only with --tls-cert",
    );
    TLS_FAILURES: Counter = Counter::new(
        "ingest_tls_failures_total",
        "Attempts to reload the certificate that failed; the previous certificate stays in use",
    );
}

/// Statuses that are not problems.
const SUCCEEDED: [&str; 3] = ["200", "202", "304"];

/// In place of a status: the client left before there was one.
pub(crate) const CANCELLED: &str = "cancelled";

/// Makes the series of the API's operations exist, with each status that the API documents.
pub(crate) fn start() {
    REQUESTS_IN_FLIGHT.with(&[]).set(0.0);
    let problems = Kind::ALL.iter().map(|kind| kind.status().as_u16().to_string());
    let statuses: Vec<String> = SUCCEEDED.into_iter().chain([CANCELLED]).map(String::from).chain(problems).collect();
    for (route, methods) in ROUTES {
        for method in *methods {
            debug_assert!(METHODS.contains(method), "{method}");
            REQUEST_SECONDS.start(&[method, route]);
            for status in &statuses {
                REQUESTS.start(&[method, route, status]);
            }
        }
    }
}
