//! `Accept` and `Accept-Encoding` (RFC 9110, section 12.5), for what has two forms.

use warp::http::{HeaderMap, HeaderName, header};

/// Whether a client prefers an event stream to JSON: it names the type, and gives JSON a lower quality. So a client without
/// preference gets JSON.
pub(super) fn prefers_event_stream(headers: &HeaderMap) -> bool {
    let quality = |name| quality(headers, &header::ACCEPT, name).unwrap_or_default();
    quality("text/event-stream") > quality("application/json")
}

/// Whether a client takes gzip. One without the header gets the plain form, which every client can read.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let quality = |name| quality(headers, &header::ACCEPT_ENCODING, name);
    quality("gzip").or_else(|| quality("*")).is_some_and(|quality| quality > 0)
}

/// The quality of a range that a header names, in thousandths.
fn quality(headers: &HeaderMap, header: &HeaderName, name: &str) -> Option<u16> {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).filter_map(range);
    ranges.filter(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, quality)| quality).max()
}

/// A range and its quality in thousandths; `None` if the quality is malformed.
fn range(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((range, quality.map_or(Some(1_000), thousandths)?))
}

/// A number from 0 to 1 with at most three decimal places.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_quality =
        matches!(whole, "0" | "1") && decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    is_quality.then(|| format!("{whole}{decimals:0<3}").parse().ok())?.filter(|quality| *quality <= 1_000)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    #[test]
    fn an_event_stream_is_for_clients_that_prefer_it() {
        let prefers = |accept: &[&str]| {
            let values = accept.iter().map(|value| (header::ACCEPT, HeaderValue::from_str(value).unwrap()));
            prefers_event_stream(&values.collect())
        };
        for accept in [
            &["text/event-stream"][..],
            &["Text/Event-Stream; charset=utf-8"],
            &["text/event-stream, */*;q=0.1"],
            &["text/event-stream, */*"],
            &["application/json;q=0.5, text/event-stream;q=0.501"],
            &["application/json;q=0", "text/event-stream;q=0.001"],
        ] {
            assert!(prefers(accept), "{accept:?}");
        }
        for accept in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/*"],
            &["application/json"],
            // As clients of MCP send it.
            &["application/json, text/event-stream"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=1.001"],
            &["text/event-stream;q=0.0001"],
            &["text/event-stream;q=x"],
            &["text/event-streams"],
        ] {
            assert!(!prefers(accept), "{accept:?}");
        }
    }

    #[test]
    fn gzip_is_for_clients_that_take_it() {
        let takes = |accept: &str| {
            let value = HeaderValue::from_str(accept).unwrap();
            takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]))
        };
        for accept in ["gzip", "gzip, deflate, br", "br;q=1.0, gzip;q=0.8, *;q=0.1", "*"] {
            assert!(takes(accept), "{accept}");
        }
        for accept in ["", "identity", "br", "gzip;q=0, *", "*;q=0"] {
            assert!(!takes(accept), "{accept}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
