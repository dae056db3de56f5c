//! The headers of commands.

use std::borrow::Cow;
use std::time::Duration;

use cart::{CartId, CommandId, InvalidTime, SequenceNumber, parse_time};
use chrono::{DateTime, Utc};
use uuid::Uuid;
use warp::http::{HeaderMap, HeaderValue};

use super::conditions;
use crate::commands::Preference;
use crate::problem::{Kind, Problem};

/// Maximum number of characters of an idempotency key.
const IDEMPOTENCY_KEY_LEN_MAX: usize = 200;

#[derive(Debug)]
pub(super) struct CommandHeaders {
    pub(super) cart_id: CartId,
    pub(super) command_id: CommandId,
    /// Whether the id is computed from an `Idempotency-Key`.
    pub(super) is_keyed: bool,
    pub(super) issued_at: DateTime<Utc>,
    /// The version that the command expects, or why it matches none: that is reported after everything else.
    pub(super) expected_version: Result<Option<SequenceNumber>, Problem>,
    pub(super) preference: Preference,
}

impl CommandHeaders {
    /// Reads the headers. Without `Idempotency-Key` and `Command-Time` the command gets a new id and the current time.
    pub(super) fn read(headers: &HeaderMap, cart_id: CartId, allow_client_time: bool) -> Result<Self, Problem> {
        let key = single(headers, "idempotency-key")?;
        let command_id = match key {
            // A UUIDv7: a lookup searches the log from the time in it.
            None => CommandId::from(Uuid::now_v7()),
            Some(key) => {
                let key = text(key);
                if !(1..=IDEMPOTENCY_KEY_LEN_MAX).contains(&key.chars().count()) {
                    let detail = format!("Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_LEN_MAX} characters");
                    return Err(Problem::invalid_header(detail));
                }
                CommandId::of_idempotency_key(cart_id, &key)
            }
        };
        let issued_at = match single(headers, "command-time")? {
            None => fail_points::now().into(),
            Some(_) if !allow_client_time => {
                let detail = "Command-Time is accepted only by an ingest with --allow-client-time";
                return Err(Problem::invalid_header(detail));
            }
            Some(time) => {
                let at = time.to_str().map_err(|_| InvalidTime::Malformed).and_then(parse_time);
                at.map_err(|error| Problem::invalid_header(format!("Command-Time: {error}")))?
            }
        };
        let expected_version = match conditions::expected_version(headers) {
            // A precondition comes after the other checks of a request (RFC 9110, section 13.2.1).
            Err(problem) if matches!(problem.kind(), Kind::VersionMismatch) => Err(problem),
            other => Ok(other?),
        };
        let preference = preference(headers)?;
        let is_keyed = key.is_some();
        Ok(Self { cart_id, command_id, is_keyed, issued_at, expected_version, preference })
    }
}

/// A header's text: UTF-8, or ISO 8859-1 if it is not valid UTF-8, as early versions of HTTP had it.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    let bytes = value.as_bytes();
    str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), Cow::Borrowed)
}

/// A header's only value; rejects a repeated header.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Problem::invalid_header(format!("{name} is given more than once"))),
    }
}

/// Ignores unknown preferences, as RFC 7240 requires.
fn preference(headers: &HeaderMap) -> Result<Preference, Problem> {
    let mut preference = Preference::Default;
    let all = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    for one in all.flat_map(|value| value.split([',', ';'])).map(str::trim) {
        let (name, value) = one.split_once('=').unwrap_or((one, ""));
        if name.trim().eq_ignore_ascii_case("respond-async") {
            return Ok(Preference::RespondAsync);
        }
        if name.trim().eq_ignore_ascii_case("wait") {
            let seconds: u32 = value.trim().trim_matches('"').parse().map_err(|_| {
                Problem::invalid_header("Prefer: wait must be a number of whole seconds, such as wait=2")
            })?;
            preference = match seconds {
                0 => Preference::RespondAsync,
                _ => Preference::Wait(Duration::from_secs(seconds.into())),
            };
        }
    }
    Ok(preference)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<CommandHeaders, Problem> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        CommandHeaders::read(&HeaderMap::from_iter(headers), CartId::from(Uuid::nil()), true)
    }

    #[test]
    fn prefer_sets_the_wait() {
        let preference = |value| read(&[("prefer", value)]).map(|headers| headers.preference);
        assert_eq!(preference("respond-async").unwrap(), Preference::RespondAsync);
        assert_eq!(preference("wait=3, Respond-Async").unwrap(), Preference::RespondAsync);
        assert_eq!(preference("handling=lenient; wait=3").unwrap(), Preference::Wait(Duration::from_secs(3)));
        // Without a wait for the outcome, the response still waits until the log has the command.
        assert_eq!(preference("wait=0").unwrap(), Preference::RespondAsync);
        assert_eq!(preference("return=minimal").unwrap(), Preference::Default);
        assert!(preference("wait=soon").is_err());
    }

    #[test]
    fn an_id_without_a_key_contains_the_time() {
        let now = u64::try_from(Utc::now().timestamp()).unwrap();
        let id = read(&[]).unwrap().command_id.as_uuid();
        assert!(id.get_timestamp().unwrap().to_unix().0.abs_diff(now) <= 1);
        let keyed = |key| read(&[("idempotency-key", key)]).unwrap().command_id;
        assert_eq!(keyed("a"), keyed("a"));
        assert_ne!(keyed("a"), keyed("b"));
    }

    #[test]
    fn an_idempotency_key_is_any_string() {
        let id = |key: &[u8]| {
            let key = HeaderValue::from_bytes(key).unwrap();
            let headers = HeaderMap::from_iter([("idempotency-key".parse().unwrap(), key)]);
            CommandHeaders::read(&headers, CartId::from(Uuid::nil()), true).map(|headers| headers.command_id)
        };
        assert_eq!(id("schlüssel".as_bytes()).unwrap(), id(b"schl\xfcssel").unwrap());
        assert_ne!(id("schlüssel".as_bytes()).unwrap(), id(b"schlussel").unwrap());
        assert!(id("鍵".repeat(200).as_bytes()).is_ok() && id("鍵".repeat(201).as_bytes()).is_err());
        assert!(id(b"two words").is_ok() && id(b"").is_err());
    }

    #[test]
    fn rejects_repeated_headers() {
        for name in ["idempotency-key", "if-match", "command-time"] {
            assert!(read(&[(name, "*"), (name, "*")]).is_err(), "{name}");
        }
    }

    #[test]
    fn rejects_command_time_unless_allowed() {
        let given = |time: &str, allowed| {
            let headers = HeaderMap::from_iter([("command-time".parse().unwrap(), time.parse().unwrap())]);
            let headers = CommandHeaders::read(&headers, CartId::from(Uuid::nil()), allowed);
            headers.map(|headers| headers.issued_at.to_rfc3339()).map_err(|problem| format!("{problem:?}"))
        };
        assert!(given("2010-12-01T08:25:53Z", false).unwrap_err().contains("--allow-client-time"));
        assert_eq!(given("2010-12-01T08:25:53Z", true).unwrap(), "2010-12-01T08:25:53+00:00");
        assert_eq!(given("2016-12-31T23:59:60Z", true).unwrap(), "2016-12-31T23:59:59.999999+00:00");
        for (time, reason) in [
            ("yesterday", "Command-Time: it is not a time such as"),
            ("9999-12-31T23:59:59-00:01", "Command-Time: it is not in the years 1 to 9999"),
            ("0000-01-01T00:00:00+00:01", "Command-Time: it is not in the years 1 to 9999"),
            ("2015-12-31T23:59:60Z", "Command-Time: there was no leap second"),
        ] {
            assert!(given(time, true).unwrap_err().contains(reason), "{time}");
        }
    }
}
