//! Query strings: named numbers, each at most once. Unknown names are rejected.

use std::ops::RangeInclusive;

use cart::{CommandId, SequenceNumber};
use warp::http::{HeaderMap, HeaderName};

use crate::problem::Problem;
use crate::reads::{Page, Start};

/// The last event that a client of an event stream has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Latest accepted time: milliseconds of 13 digits, up to the year 2286.
pub(super) const SINCE_MAX: u64 = 9_999_999_999_999;

/// The years that a command's time can be in.
const YEARS: RangeInclusive<i32> = 1..=9_999;

/// The time from which the log is searched for a command, in milliseconds since 1970: the parameter `since`, or the time in
/// the command's id.
pub(super) fn since(command_id: CommandId, query: &str) -> Result<u64, Problem> {
    if let Some(since) = Query::read(query, &["since"])?.number("since", 0..=SINCE_MAX)? {
        return Ok(since);
    }
    let at = command_id.as_uuid().get_timestamp().ok_or_else(|| {
        let detail = "since: is missing: send the time at which the command was sent, in milliseconds since 1970, as \
            in Location";
        Problem::invalid_parameter(detail)
    })?;
    let (seconds, nanos) = at.to_unix();
    Ok(seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000)))
}

/// The page of a cart's events.
pub(super) fn page(query: &str, headers: &HeaderMap) -> Result<Page, Problem> {
    let query = Query::read(query, &["after", "limit"])?;
    let Start { after, .. } = start(&query, headers)?;
    Ok(Page { after, limit: query.number("limit", 1..=Page::LIMIT_MAX)?.unwrap_or(Page::LIMIT_DEFAULT) })
}

/// Where a stream of a cart's events starts.
pub(super) fn stream_start(query: &str, headers: &HeaderMap) -> Result<Start, Problem> {
    start(&Query::read(query, &["after"])?, headers)
}

/// The header comes before the parameter: a browser that reconnects sends it with the address of its first request.
fn start(query: &Query, headers: &HeaderMap) -> Result<Start, Problem> {
    let after: SequenceNumber = query.number("after", 0..=i64::MAX)?.unwrap_or_default().into();
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else {
        let reject = |detail| Problem::invalid_parameter(format!("after: {detail}"));
        return Ok(Start { after, reject });
    };
    let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<i64> = text.filter(|_| values.next().is_none()).and_then(|text| text.parse().ok());
    let reject = |detail| Problem::invalid_header(format!("Last-Event-ID: {detail}"));
    let invalid = || reject(format!("must be the id of an event of the stream, once: 0 to {}", i64::MAX));
    Ok(Start { after: number.ok_or_else(invalid)?.into(), reject })
}

pub(super) fn year(query: &str) -> Result<i32, Problem> {
    Query::read(query, &["year"])?.required("year", YEARS)
}

pub(super) fn year_and_month(query: &str) -> Result<(i32, i32), Problem> {
    let query = Query::read(query, &["year", "month"])?;
    Ok((query.required("year", YEARS)?, query.required("month", 1..=12)?))
}

/// The parameters of a request.
#[derive(Debug)]
struct Query {
    parameters: Vec<(&'static str, String)>,
}

impl Query {
    /// Reads a query string; rejects names that are not `known`.
    fn read(text: &str, known: &[&'static str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let Some(name) = known.iter().find(|known| **known == name) else {
                let name: String = name.chars().take(64).collect();
                let detail = format!("{name}: unknown parameter; this path has {}", known.join(", "));
                return Err(Problem::invalid_parameter(detail));
            };
            if parameters.iter().any(|(other, _)| other == name) {
                return Err(Problem::invalid_parameter(format!("{name}: is given more than once")));
            }
            parameters.push((name, value.into_owned()));
        }
        Ok(Self { parameters })
    }

    /// An optional number within a range.
    fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let Some((_, text)) = self.parameters.iter().find(|(other, _)| *other == name) else { return Ok(None) };
        // Digits only: Rust would also read a sign.
        let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|text| text.parse().ok()).and_then(|number| T::try_from(number).ok());
        number.filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let (start, end) = range.into_inner();
            Problem::invalid_parameter(format!("{name}: must be a whole number from {start} to {end}"))
        })
    }

    /// A required number within a range.
    fn required<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<T, Problem>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let number = self.number(name, range)?;
        number.ok_or_else(|| Problem::invalid_parameter(format!("{name}: is missing")))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::problem::Kind;

    fn year_of(text: &str) -> Result<i32, String> {
        let query = Query::read(text, &["year", "month"]).and_then(|query| query.required("year", YEARS));
        query.map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn numbers_are_read_by_name() {
        assert_eq!(year_of("year=2026"), Ok(2026));
        assert_eq!(year_of("month=3&year=%32026"), Ok(2026));
        let query = Query::read("", &["after"]).unwrap();
        assert_eq!(query.number("after", 0..=i64::MAX).unwrap(), None);
        let query = Query::read("after=9223372036854775807", &["after"]).unwrap();
        assert_eq!(query.number("after", 0..=i64::MAX).unwrap(), Some(i64::MAX));
    }

    #[test]
    fn rejections_name_the_parameter() {
        for (text, reason) in [
            ("", "year: is missing"),
            ("year=", "year: must be a whole number from 1 to 9999"),
            ("year=0", "from 1 to 9999"),
            ("year=10000", "from 1 to 9999"),
            ("year=-5", "from 1 to 9999"),
            ("year=%2B5", "from 1 to 9999"),
            ("year=2026.0", "from 1 to 9999"),
            ("year=99999999999999999999", "from 1 to 9999"),
            ("year=2026&year=2026", "year: is given more than once"),
            ("year=2026&day=1", "day: unknown parameter; this path has year, month"),
            ("year=2026&=", ": unknown parameter"),
        ] {
            let error = year_of(text).unwrap_err();
            assert!(error.contains("InvalidParameter") && error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn since_is_the_parameter_or_the_time_in_the_command_id() {
        let timed = CommandId::from(Uuid::parse_str("01a7bc0e-5d3f-7c2a-8e41-9f60d2b7a415").unwrap());
        assert_eq!(since(timed, "since=1790000000000").unwrap(), 1_790_000_000_000);
        assert_eq!(since(timed, "since=%31790000000000").unwrap(), 1_790_000_000_000);
        assert_eq!(since(timed, "").unwrap(), 0x01a7_bc0e_5d3f);
        let untimed = CommandId::from(Uuid::parse_str("7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff").unwrap());
        for (id, query) in
            [(untimed, ""), (timed, "since=+5"), (timed, "since=x"), (timed, "since=9999999999999999"), (timed, "x=1")]
        {
            assert_eq!(since(id, query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }

    #[test]
    fn a_page_is_the_first_hundred_unless_the_query_says_otherwise() {
        let expected = |after: i64, limit| Page { after: after.into(), limit };
        let page = |query: &str| page(query, &HeaderMap::new());
        assert_eq!(page("").unwrap(), expected(0, 100));
        assert_eq!(page("after=7&limit=1000").unwrap(), expected(7, 1_000));
        for bad in ["after=-1", "limit=0", "limit=1001", "before=3", "after=", "after=9223372036854775808"] {
            assert!(page(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stream_starts_behind_the_last_event_id() {
        let start = |query: &str, ids: &[&str]| {
            let value = |id: &&str| (LAST_EVENT_ID, warp::http::HeaderValue::from_bytes(id.as_bytes()).unwrap());
            let start = stream_start(query, &ids.iter().map(value).collect());
            start.map(|start| (start.after.get(), (start.reject)(String::new()).kind())).map_err(|error| error.kind())
        };
        assert_eq!(start("", &[]), Ok((0, Kind::InvalidParameter)));
        assert_eq!(start("after=7", &[]), Ok((7, Kind::InvalidParameter)));
        assert_eq!(start("after=7", &["12"]), Ok((12, Kind::InvalidHeader)));
        for bad in ["", "-1", "+1", "1.0", " 1 2", "x", "\u{e9}", "9223372036854775808"] {
            assert_eq!(start("", &[bad]), Err(Kind::InvalidHeader), "{bad}");
        }
        assert_eq!(start("", &["1", "1"]), Err(Kind::InvalidHeader));
        assert_eq!(start("limit=3", &[]), Err(Kind::InvalidParameter));
    }
}
