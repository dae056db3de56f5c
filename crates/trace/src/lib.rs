//! Traces: OpenTelemetry spans of what happens to a request, from HTTP to the row, across Kafka.
//!
//! ```text
//! POST /cart/{cartId}/checkout          SERVER    ingest
//! └ send cart-commands                  PRODUCER
//!   └ process cart-commands             CONSUMER  cart-processor
//!     ├ send cart-replies               PRODUCER
//!     └ send cart-events                PRODUCER
//!       └ process cart-events           CONSUMER  item-purchased-events
//!         └ send item-purchased         PRODUCER
//!           └ process item-purchased    CONSUMER  once a read model
//! ```
//!
//! What is done for many records at once (a journal write, a transaction) is a trace of its own ([`Work`]), with links from and
//! to the spans of the records. So it is neither hidden nor shown once for each record.
//!
//! A context travels as W3C Trace Context in record headers. Without a collector ([`TraceArgs`]) nothing is recorded, and what
//! the client sent is passed on as it came. With one, a context that its sender did not sample costs the look at one byte.

mod args;
mod export;
mod headers;
mod metrics;
pub mod names;
mod sampler;
mod span;
mod spans;
#[cfg(test)]
mod tests;
mod work;

pub use args::{TraceArgs, Tracing};
pub use headers::TraceHeaders;
pub use metrics::ALL as METRICS;
pub use span::{Span, Trace, is_on};
pub use spans::{Place, RequestHead, append, process, serve};
pub use work::Work;
