//! The HTTP interface from outside: the real `ingest` and `cart-processor`, and a plain HTTP client.
//!
//! * [`refusals`]: invalid requests are rejected with their reason, and never appended; the table is in [`refused`].
//! * [`outcomes`]: the outcomes of the rules.
//! * [`browsers`]: cross-origin requests.
//! * [`reads`]: a GET after a 200 shows that write.
//! * [`idempotency`]: a repeat gets the first outcome, also after crashes.
//! * [`in_flight`]: requests above the limit are rejected and never executed.
//! * [`late`]: a command without a known outcome is never appended after the client's next command.
//! * [`ending`]: after SIGTERM requests in flight get their answers.
//! * [`pending`]: commands without an outcome in time, and the outcome that a retry gets.

pub(crate) mod api;
pub(crate) mod browsers;
pub(crate) mod ending;
pub(crate) mod idempotency;
pub(crate) mod in_flight;
pub(crate) mod late;
pub(crate) mod outcomes;
pub(crate) mod pending;
pub(crate) mod reads;
pub(crate) mod refusals;
pub(crate) mod refused;
