//! W3C Trace Context as headers carry it (<https://www.w3.org/TR/trace-context/>). `baggage` is neither read nor passed on: it
//! may have personal data.

use std::str::FromStr as _;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Bytes of a `traceparent` of version 00: version, trace id, span id and flags in hexadecimal digits, with dashes between them.
const PARENT_LEN: usize = 55;

/// Most bytes of a `tracestate`: what the specification asks everyone to carry at least. A longer one is dropped.
const STATE_LEN_MAX: usize = 512;

/// The two headers of a request or record. Made by [`TraceHeaders::new`], it has a `tracestate` only with a `traceparent`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceHeaders<'a> {
    parent: Option<&'a [u8]>,
    state: Option<&'a [u8]>,
}

impl<'a> TraceHeaders<'a> {
    /// The name of the header with the context of the sender's span.
    pub const PARENT: &'static str = "traceparent";

    /// The name of the header with what tracing systems add to it.
    pub const STATE: &'static str = "tracestate";

    /// From the headers' values. What has not the form of a `traceparent` counts as absent; the digits are looked at when they are
    /// used, and by [`TraceHeaders::is_valid`].
    #[must_use]
    pub fn new(parent: Option<&'a [u8]>, state: Option<&'a [u8]>) -> Self {
        let has_form = |parent: &&[u8]| parent.len() == PARENT_LEN && [2, 35, 52].iter().all(|at| parent[*at] == b'-');
        let parent = parent.filter(has_form);
        let state = state.filter(|state| parent.is_some() && (1..=STATE_LEN_MAX).contains(&state.len()));
        Self { parent, state }
    }

    /// The value of [`TraceHeaders::PARENT`].
    #[must_use]
    pub fn parent(self) -> Option<&'a [u8]> {
        self.parent
    }

    /// The value of [`TraceHeaders::STATE`].
    #[must_use]
    pub fn state(self) -> Option<&'a [u8]> {
        self.state
    }

    /// The trace's id, if the header is valid.
    #[must_use]
    pub fn trace_id(self) -> Option<&'a str> {
        let parent = self.parent.filter(|_| self.is_valid())?;
        str::from_utf8(&parent[3..35]).ok()
    }

    /// Whether the `traceparent` is one, to the last digit.
    #[must_use]
    pub fn is_valid(self) -> bool {
        let is_hex = |digits: &[u8]| digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let is_id = |digits: &[u8]| is_hex(digits) && digits.iter().any(|digit| *digit != b'0');
        self.parent.is_some_and(|parent| {
            let version = &parent[..2];
            is_hex(version)
                && version != b"ff"
                && is_id(&parent[3..35])
                && is_id(&parent[36..52])
                && is_hex(&parent[53..])
        })
    }

    /// Whether the sender recorded its span: the lowest bit of the last digit.
    pub(crate) fn is_sampled(self) -> bool {
        // The lowest bit of `0` to `9` is that of their code, that of `a` to `f` is the opposite.
        self.parent.is_some_and(|parent| {
            let digit = parent[PARENT_LEN - 1];
            (digit & 1 == 1) != (digit > b'9')
        })
    }

    /// The sender's span; `None` without a valid one.
    #[doc(hidden)]
    #[must_use]
    pub fn context(self) -> Option<SpanContext> {
        let parent = self.parent.filter(|_| self.is_valid()).and_then(|parent| str::from_utf8(parent).ok())?;
        let (trace, span) = (TraceId::from_hex(&parent[3..35]).ok()?, SpanId::from_hex(&parent[36..52]).ok()?);
        let flags = TraceFlags::default().with_sampled(self.is_sampled());
        let state = self.state.and_then(|state| str::from_utf8(state).ok());
        // An invalid `tracestate` does not make the `traceparent` wrong.
        let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
        Some(SpanContext::new(trace, span, flags, true, state))
    }
}

/// Headers that are kept: the `traceparent`, and the `tracestate` behind it. One allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept(Box<[u8]>);

impl Kept {
    /// A copy; `None` without a `traceparent`.
    pub(crate) fn of(headers: TraceHeaders<'_>) -> Option<Self> {
        let parent = headers.parent?;
        let state = headers.state.unwrap_or_default();
        let mut bytes = Vec::with_capacity(parent.len() + state.len());
        bytes.extend_from_slice(parent);
        bytes.extend_from_slice(state);
        Some(Self(bytes.into_boxed_slice()))
    }

    /// The headers of what a span causes.
    pub(crate) fn of_span(span: &SpanContext) -> Self {
        let flags = span.trace_flags() & TraceFlags::SAMPLED;
        let mut text = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        let state = span.trace_state().header();
        if state.len() <= STATE_LEN_MAX {
            text.push_str(&state);
        }
        Self(text.into_bytes().into_boxed_slice())
    }

    pub(crate) fn headers(&self) -> TraceHeaders<'_> {
        let (parent, state) = self.0.split_at(PARENT_LEN.min(self.0.len()));
        TraceHeaders { parent: Some(parent), state: Some(state).filter(|state| !state.is_empty()) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const VALID: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with(at: usize, byte: u8) -> Vec<u8> {
        let mut parent = VALID.to_vec();
        parent[at] = byte;
        parent
    }

    fn of(parent: &[u8]) -> TraceHeaders<'_> {
        TraceHeaders::new(Some(parent), None)
    }

    #[test]
    fn a_malformed_parent_has_no_context() {
        assert!(of(VALID).context().is_some());
        for malformed in [&b""[..], b"00", &VALID[1..], b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"] {
            assert_eq!(of(malformed), TraceHeaders::default());
        }
        let zero_trace = b"00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_span = b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        for malformed in [&with(5, b'G'), &with(40, b'+'), &with(5, b'A'), &with(54, 0xc3), &zero_trace.to_vec()] {
            assert!(!of(malformed).is_valid() && of(malformed).context().is_none());
        }
        assert!(of(zero_span).context().is_none());
        let forbidden_version = [b"ff", &VALID[2..]].concat();
        assert!(of(&forbidden_version).context().is_none());
        assert!(of(&with(1, b'1')).context().is_some(), "a later version begins like this one");
    }

    #[test]
    fn the_flag_is_the_lowest_bit_of_the_last_digit() {
        for digit in b"0123456789abcdef" {
            let sampled = char::from(*digit).to_digit(16).unwrap() & 1 == 1;
            assert_eq!(of(&with(54, *digit)).is_sampled(), sampled, "{}", char::from(*digit));
        }
        assert!(!TraceHeaders::default().is_sampled());
    }

    #[test]
    fn headers_are_kept_as_they_came() {
        let state = b"vendor=1,other=2".as_slice();
        for headers in [of(VALID), TraceHeaders::new(Some(VALID), Some(state))] {
            assert_eq!(Kept::of(headers).unwrap().headers(), headers);
            assert_eq!(Kept::of_span(&headers.context().unwrap()).headers(), headers);
        }
        assert_eq!(TraceHeaders::new(None, Some(state)), TraceHeaders::default());
        let long = [b'x'; STATE_LEN_MAX + 1];
        assert_eq!(TraceHeaders::new(Some(VALID), Some(&long)).state(), None);
        let no_state = TraceHeaders::new(Some(VALID), Some(b"no list".as_slice()));
        assert!(no_state.context().is_some_and(|context| context.trace_state().header().is_empty()));
    }
}
