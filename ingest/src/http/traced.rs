//! The trace of a request. In `traceparent` and `tracestate` its handler finds what a command is to carry: the context of the
//! request's span, or the client's own if the request is not recorded.

use trace::{RequestHead, Trace, TraceHeaders};
use warp::http::{HeaderMap, HeaderValue, Request, Version};

use crate::{auth, route};

/// Begins the span of a request, and sets its headers.
pub(super) fn begin<B>(request: &mut Request<B>, scheme: &'static str, request_id: &str) -> Trace {
    let path = request.uri().path();
    // Probes and scrapes come every few seconds, and say nothing.
    if auth::is_public(path) {
        return Trace::None;
    }
    let route = Some(route::template(path)).filter(|route| *route != route::OTHER);
    let states = states(request.headers());
    let sent = TraceHeaders::new(parent(request.headers()), states.as_deref().map(str::as_bytes));
    let given = if sent.is_valid() { sent } else { TraceHeaders::default() };
    let head = RequestHead { method: request.method().as_str(), route, scheme, version: version(request), request_id };
    let trace = trace::serve(given, head);
    let (parent, state) = (value(trace.headers().parent()), value(trace.headers().state()));
    for (name, value) in [(TraceHeaders::PARENT, parent), (TraceHeaders::STATE, state)] {
        match value {
            Some(value) => drop(request.headers_mut().insert(name, value)),
            None => drop(request.headers_mut().remove(name)),
        }
    }
    trace
}

/// The context in a request's headers, once [`begin`] has set them.
pub(crate) fn headers(headers: &HeaderMap) -> TraceHeaders<'_> {
    let bytes = |name| headers.get(name).map(HeaderValue::as_bytes);
    TraceHeaders::new(bytes(TraceHeaders::PARENT), bytes(TraceHeaders::STATE))
}

/// Several are none: it is unknown which is right.
fn parent(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(TraceHeaders::PARENT).iter();
    values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
}

/// Several are one list, in their order.
fn states(headers: &HeaderMap) -> Option<String> {
    let states: Vec<_> = headers.get_all(TraceHeaders::STATE).iter().filter_map(|value| value.to_str().ok()).collect();
    (!states.is_empty()).then(|| states.join(","))
}

fn value(bytes: Option<&[u8]>) -> Option<HeaderValue> {
    bytes.and_then(|bytes| HeaderValue::from_bytes(bytes).ok())
}

fn version<B>(request: &Request<B>) -> &'static str {
    match request.version() {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cart::contract::header::{TRACE_PARENT, TRACE_STATE};

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// What the handler finds when nothing is recorded.
    fn found(sent: &[(&str, &str)]) -> (Option<String>, Option<String>) {
        let mut request = Request::builder().uri("/cart/7/checkout");
        for (name, value) in sent {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        begin(&mut request, "http", "id");
        let found = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let headers = headers(request.headers());
        (found(headers.parent()), found(headers.state()))
    }

    #[test]
    fn a_clients_context_is_passed_on_and_a_malformed_one_is_not() {
        let parent = Some(String::from(PARENT));
        let states = [(TRACE_PARENT, PARENT), (TRACE_STATE, "a=1"), (TRACE_STATE, "b=2")];
        assert_eq!(found(&states), (parent.clone(), Some(String::from("a=1,b=2"))));
        assert_eq!(found(&states[..1]), (parent, None));
        assert_eq!(found(&states[1..]), (None, None), "a state belongs to a parent");
        for malformed in [&[(TRACE_PARENT, &PARENT[1..])][..], &[(TRACE_PARENT, PARENT), (TRACE_PARENT, PARENT)]] {
            assert_eq!(found(malformed), (None, None));
        }
    }
}
