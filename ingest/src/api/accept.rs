//! `Accept` (RFC 9110, section 12.5.1), for the one path that has two forms.

use warp::http::{HeaderMap, header};

/// Whether a client prefers an event stream to JSON: it names the type, and gives JSON a lower quality. So a client without
/// preference gets JSON.
pub(super) fn prefers_event_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values.flat_map(|value| value.split(',')).filter_map(range).collect();
    // In thousandths; zero if it is not named.
    let quality = |name: &str| {
        ranges.iter().filter(|(range, _)| range.eq_ignore_ascii_case(name)).map(|(_, quality)| *quality).max()
    };
    let stream = quality("text/event-stream").unwrap_or_default();
    stream > quality("application/json").unwrap_or_default()
}

/// A media range and its quality in thousandths; `None` if the quality is malformed.
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
}
