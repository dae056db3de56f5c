//! `If-Match` and `If-None-Match` (RFC 9110, section 13.1): honoured or rejected, never ignored.

use cart::SequenceNumber;
use warp::Reply as _;
use warp::http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use warp::http::{HeaderMap, HeaderValue, StatusCode};
use warp::reply::Response;

use crate::problem::Problem;

/// The value of one of the two headers.
#[derive(Debug, PartialEq, Eq)]
enum Tags<'a> {
    /// `*`
    Any,
    /// At least one.
    Listed(Vec<Tag<'a>>),
}

/// An entity tag. Its text is between the quotes.
#[derive(Debug, PartialEq, Eq)]
struct Tag<'a> {
    is_weak: bool,
    text: &'a [u8],
}

/// The response to a read of a cart whose conditions hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The cart.
    Show,
    /// 304: the client has this version.
    NotModified,
}

impl Tag<'_> {
    /// Compares with the spelling of a GET: `01` is another tag than `1`.
    fn is(&self, version: SequenceNumber) -> bool {
        self.text == version.to_string().as_bytes()
    }

    /// The version, if the tag has the spelling of a GET.
    fn version(&self) -> Option<SequenceNumber> {
        let version: i64 = str::from_utf8(self.text).ok()?.parse().ok()?;
        Some(SequenceNumber::from(version)).filter(|version| *version >= SequenceNumber::ZERO && self.is(*version))
    }
}

/// The version that a command expects. `If-None-Match: *` expects a cart without events.
///
/// `If-Match: *` always matches: a cart without events counts as existing.
pub(super) fn expected_version(headers: &HeaderMap) -> Result<Option<SequenceNumber>, Problem> {
    let matched = match tags(headers, &IF_MATCH)? {
        None | Some(Tags::Any) => None,
        Some(Tags::Listed(mut listed)) => {
            let tag = listed.pop().filter(|_| listed.is_empty());
            let detail = "If-Match of a command must be one ETag, or *, because a command expects one version";
            Some(tag.ok_or_else(|| Problem::invalid_header(detail))?)
        }
    };
    let is_new = match tags(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::Listed(_)) => {
            let detail = "If-None-Match of a command must be *, for a cart without events; send a version in If-Match";
            return Err(Problem::invalid_header(detail));
        }
    };
    let Some(tag) = matched else { return Ok(is_new.then_some(SequenceNumber::ZERO)) };
    if is_new && !tag.is(SequenceNumber::ZERO) {
        let detail =
            "If-Match and If-None-Match contradict each other: If-None-Match: * expects version 0; send one of them";
        return Err(Problem::invalid_header(detail));
    }
    // A weak tag never matches here (section 13.1.1).
    let version = tag.version().filter(|_| !tag.is_weak).ok_or_else(Problem::matches_no_version)?;
    Ok(Some(version))
}

/// Whether a cart at this version is shown. `If-Match` is evaluated first.
pub(super) fn of_cart(headers: &HeaderMap, version: SequenceNumber) -> Result<Read, Problem> {
    let matches = match tags(headers, &IF_MATCH)? {
        None | Some(Tags::Any) => true,
        Some(Tags::Listed(listed)) => listed.iter().any(|tag| tag.is(version) && !tag.is_weak),
    };
    let is_known = match tags(headers, &IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        Some(Tags::Listed(listed)) => listed.iter().any(|tag| tag.is(version)),
    };
    if !matches {
        return Err(Problem::version_mismatch(version));
    }
    Ok(if is_known { Read::NotModified } else { Read::Show })
}

pub(super) fn not_modified(version: SequenceNumber) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// Rejects conditions that a read without an `ETag` can't honour. A tag in `If-None-Match` never matches, so it changes
/// nothing.
pub(super) fn of_untagged(headers: &HeaderMap) -> Result<(), Problem> {
    let has_version = matches!(tags(headers, &IF_MATCH)?, Some(Tags::Listed(_)));
    if has_version || tags(headers, &IF_NONE_MATCH)? == Some(Tags::Any) {
        let detail = "If-Match and If-None-Match: this path has no ETag to compare; send the request without them";
        return Err(Problem::invalid_header(detail));
    }
    Ok(())
}

/// The value of a header; `None` if it is absent.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Tags<'a>>, Problem> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).map(<[u8]>::trim_ascii).collect();
    match values[..] {
        [] => Ok(None),
        [b"*"] => Ok(Some(Tags::Any)),
        _ => {
            let listed: Option<Vec<_>> = values.into_iter().map(list).collect();
            let listed = listed.map(|all| all.into_iter().flatten().collect::<Vec<_>>()).filter(|all| !all.is_empty());
            let name = if *name == IF_MATCH { "If-Match" } else { "If-None-Match" };
            let detail = format!("{name} must be an ETag from a GET of the cart, such as \"12\", or *");
            listed.map(|listed| Some(Tags::Listed(listed))).ok_or_else(|| Problem::invalid_header(detail))
        }
    }
}

/// Comma-separated entity tags; `None` if one is malformed.
fn list(mut rest: &[u8]) -> Option<Vec<Tag<'_>>> {
    let mut tags = Vec::new();
    loop {
        // Empty elements of a list mean nothing (section 5.6.1.2).
        while let [b' ' | b'\t' | b',', more @ ..] = rest {
            rest = more;
        }
        if rest.is_empty() {
            return Some(tags);
        }
        let (is_weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let quoted = quoted.strip_prefix(b"\"")?;
        let (text, after) = quoted.split_at(quoted.iter().position(|byte| *byte == b'"')?);
        if !text.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags.push(Tag { is_weak, text });
        rest = after[1..].trim_ascii_start();
        if !matches!(rest, [] | [b',', ..]) {
            return None;
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    fn expected(all: &[(&str, &str)]) -> Result<Option<SequenceNumber>, u16> {
        expected_version(&headers(all)).map_err(|problem| problem.status().as_u16())
    }

    fn shown(all: &[(&str, &str)]) -> Result<Read, u16> {
        of_cart(&headers(all), 12.into()).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn a_command_expects_the_version_of_a_get() {
        assert_eq!(expected(&[]), Ok(None));
        assert_eq!(expected(&[("if-match", "*")]), Ok(None));
        for (value, version) in [("\"12\"", 12), ("\"0\"", 0), (" \"12\" ", 12), (", \"12\",", 12)] {
            assert_eq!(expected(&[("if-match", value)]), Ok(Some(version.into())), "{value}");
        }
    }

    #[test]
    fn another_spelling_of_a_version_matches_nothing() {
        let spellings = ["+1", "01", "-1", "-0", "1.0", "1e0", "x", "", "*", "1,2", "9223372036854775808", "१", "0x1"];
        let tags = spellings.into_iter().map(|text| format!("\"{text}\"")).chain(["W/\"1\"".to_owned()]);
        for value in tags {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let status = expected_version(&HeaderMap::from_iter([(IF_MATCH, value.clone())])).unwrap_err().status();
            assert_eq!(status, 412, "{value:?}");
        }
    }

    #[test]
    fn rejects_malformed_and_repeated_conditions() {
        for value in
            ["1", "", ",", "\"1", "1\"", "w/\"1\"", "W/1", "\"1\" \"2\"", "\"1\"x", "\"a b\"", "\"1\", *", "*, *"]
        {
            assert_eq!(expected(&[("if-match", value)]), Err(400), "{value}");
            assert_eq!(expected(&[("if-none-match", value)]), Err(400), "{value}");
            assert_eq!(shown(&[("if-match", value)]), Err(400), "{value}");
            assert_eq!(shown(&[("if-none-match", value)]), Err(400), "{value}");
        }
        assert_eq!(expected(&[("if-match", "\"1\", \"2\"")]), Err(400));
        assert_eq!(expected(&[("if-match", "\"1\""), ("if-match", "\"1\"")]), Err(400));
        assert_eq!(expected(&[("if-match", "*"), ("if-match", "*")]), Err(400));
    }

    #[test]
    fn if_none_match_any_expects_a_cart_without_events() {
        assert_eq!(expected(&[("if-none-match", "*")]), Ok(Some(SequenceNumber::ZERO)));
        assert_eq!(expected(&[("if-none-match", "*"), ("if-match", "*")]), Ok(Some(SequenceNumber::ZERO)));
        assert_eq!(expected(&[("if-none-match", "*"), ("if-match", "\"0\"")]), Ok(Some(SequenceNumber::ZERO)));
        for other in ["\"1\"", "\"00\"", "W/\"1\""] {
            assert_eq!(expected(&[("if-none-match", "*"), ("if-match", other)]), Err(400), "{other}");
        }
        for value in ["\"0\"", "\"1\", \"2\"", "W/\"1\""] {
            assert_eq!(expected(&[("if-none-match", value)]), Err(400), "{value}");
        }
    }

    #[test]
    fn if_none_match_with_the_current_version_is_not_modified() {
        for value in ["\"12\"", "W/\"12\"", "*", "\"1\", \"12\"", "\"1\" ,\tW/\"12\"", "\"a,b\",\"12\""] {
            assert_eq!(shown(&[("if-none-match", value)]), Ok(Read::NotModified), "{value}");
        }
        for value in ["\"1\"", "W/\"1\"", "\"012\"", "\"1\", \"2\"", "\"12,1\""] {
            assert_eq!(shown(&[("if-none-match", value)]), Ok(Read::Show), "{value}");
        }
        assert_eq!(shown(&[("if-none-match", "\"1\""), ("if-none-match", "\"12\"")]), Ok(Read::NotModified));
    }

    #[test]
    fn if_match_shows_only_the_listed_versions() {
        for value in ["\"12\"", "*", "\"1\", \"12\""] {
            assert_eq!(shown(&[("if-match", value)]), Ok(Read::Show), "{value}");
        }
        for value in ["\"1\"", "W/\"12\"", "\"012\"", "\"+12\""] {
            assert_eq!(shown(&[("if-match", value)]), Err(412), "{value}");
        }
        // If-Match comes first.
        assert_eq!(shown(&[("if-match", "\"1\""), ("if-none-match", "*")]), Err(412));
        assert_eq!(shown(&[("if-match", "\"12\""), ("if-none-match", "\"12\"")]), Ok(Read::NotModified));
    }

    #[test]
    fn a_read_without_an_etag_rejects_versions() {
        let untagged =
            |name, value| of_untagged(&headers(&[(name, value)])).map_err(|problem| problem.status().as_u16());
        assert_eq!(untagged("if-match", "*"), Ok(()));
        assert_eq!(untagged("if-none-match", "\"12\""), Ok(()));
        for (name, value) in
            [("if-match", "\"12\""), ("if-none-match", "*"), ("if-match", "12"), ("if-none-match", "12")]
        {
            assert_eq!(untagged(name, value), Err(400), "{name}: {value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_headers_do_not_panic(value in r#"[W/"*, \t0-9a-z+-]{0,20}"#) {
            let Ok(value) = HeaderValue::from_str(&value) else { return Ok(()) };
            let matched = HeaderMap::from_iter([(IF_MATCH, value.clone())]);
            if let Ok(Some(version)) = expected_version(&matched) {
                proptest::prop_assert_eq!(of_cart(&matched, version).unwrap(), Read::Show, "{:?}", value);
            }
            drop(of_cart(&HeaderMap::from_iter([(IF_NONE_MATCH, value)]), 1.into()));
        }
    }
}
