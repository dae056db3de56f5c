//! A trace context is rejected, or it is the one that OpenTelemetry's SDK reads, and is passed on as it came.
//!
//! An input is a `traceparent` and, behind a line feed, a `tracestate`.

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use trace::{Place, TraceHeaders, process};

struct Texts<'a>(TraceHeaders<'a>);

impl Extractor for Texts<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let bytes = if key == TraceHeaders::PARENT { self.0.parent() } else { self.0.state() };
        bytes.and_then(|bytes| str::from_utf8(bytes).ok())
    }

    fn keys(&self) -> Vec<&str> {
        vec![TraceHeaders::PARENT, TraceHeaders::STATE]
    }
}

/// Reads the headers, and passes them on as a service without a collector does.
///
/// # Panics
/// If they are read differently from the SDK, or change.
pub fn run(input: &[u8]) -> bool {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let headers = TraceHeaders::new(parts.next(), parts.next());
    let place = Place { topic: "topic", partition: 0, offset: 0 };
    assert_eq!(process(headers, place, "group").headers(), headers);
    let context = headers.context();
    assert_eq!(context.is_some(), headers.is_valid());
    let Some(context) = context else { return false };
    let by_sdk = TraceContextPropagator::new().extract(&Texts(headers));
    assert_eq!(context, *by_sdk.span().span_context());
    assert_eq!(headers.trace_id(), Some(context.trace_id().to_string().as_str()));
    true
}
