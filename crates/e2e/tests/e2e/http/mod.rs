//! The HTTP interface from outside: the real `ingest` and `cart-processor`, and a plain HTTP client.
//!
//! * [`refusals`]: what is no command is refused for its reason, and never comes into the log; the table is in
//!   [`refused`].
//! * [`outcomes`]: what the rules say, and what is told of it.
//! * [`browsers`]: which pages may use the API.
//! * [`reads`]: a GET after a 200 shows that write.
//! * [`idempotency`]: a repeat gets the first outcome, also after crashes.
//! * [`in_flight`]: too much at a time is not taken, and never carried out.
//! * [`late`]: what a client was told to be unknown does not happen after what it did next.
//! * [`ending`]: SIGTERM costs nobody an answer.
//! * [`pending`]: no outcome in time; and whose outcome a retry is told.

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
