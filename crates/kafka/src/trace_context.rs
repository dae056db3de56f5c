//! Trace contexts in record headers.

use rdkafka::message::{Header, Headers, OwnedHeaders};
use trace::TraceHeaders;

/// The trace context in a record's headers.
pub fn trace_headers<H: Headers>(headers: Option<&H>) -> TraceHeaders<'_> {
    let (mut parent, mut state) = (None, None);
    for header in headers.into_iter().flat_map(Headers::iter) {
        match header.key {
            TraceHeaders::PARENT => parent = header.value,
            TraceHeaders::STATE => state = header.value,
            _ => {}
        }
    }
    TraceHeaders::new(parent, state)
}

/// Adds a trace context to a record's headers, if there is one.
#[must_use]
pub fn with_trace(headers: OwnedHeaders, trace: TraceHeaders<'_>) -> OwnedHeaders {
    let Some(parent) = trace.parent() else { return headers };
    let headers = headers.insert(Header { key: TraceHeaders::PARENT, value: Some(parent) });
    match trace.state() {
        Some(state) => headers.insert(Header { key: TraceHeaders::STATE, value: Some(state) }),
        None => headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_carries_a_context() {
        let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".as_slice();
        let other = OwnedHeaders::new().insert(Header { key: "content-type", value: Some("avro/binary") });
        for (trace, count) in [
            (TraceHeaders::default(), 1),
            (TraceHeaders::new(Some(parent), None), 2),
            (TraceHeaders::new(Some(parent), Some(b"vendor=1".as_slice())), 3),
        ] {
            let headers = with_trace(other.clone(), trace);
            assert_eq!((trace_headers(Some(&headers)), headers.count()), (trace, count));
        }
        assert_eq!(trace_headers(None::<&OwnedHeaders>), TraceHeaders::default());
    }
}
