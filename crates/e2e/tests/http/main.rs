//! The HTTP interface from outside: the real `ingest` and `cart-processor`, and a plain HTTP client.
//!
//! * [`refusals`]: what is no command is refused for its reason, and never comes into the log; the table is in
//!   [`refused`].
//! * [`outcomes`]: what the rules say, and what is told of it.
//! * [`reads`]: a GET after a 200 shows that write.
//! * [`idempotency`]: a repeat gets the first outcome, also after crashes.
//! * [`in_flight`]: too much at a time is not taken, and never carried out.
//! * [`late`]: what a client was told to be unknown does not happen after what it did next.
//! * [`ending`]: SIGTERM costs nobody an answer.
//! * [`pending`]: no outcome in time; and whose outcome a retry is told.

mod api;
mod ending;
mod idempotency;
mod in_flight;
mod late;
mod outcomes;
mod pending;
mod reads;
mod refusals;
mod refused;
