//! The settings of `rehearse`.

use std::str::FromStr;

use cassandra::CassandraArgs;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use kafka::KafkaArgs;

/// Decide the log again with the rules of this program, and show what would differ
///
/// Run it with the `cartctl` of a new version before that version is deployed. Each command that the cart-processors have
/// decided is decided again on the cart as the journal has it before that command, and compared with the journal: outcome,
/// events, ids and bytes. It writes nothing, also no schema. The services keep running.
///
/// Prints the first 100 differences and the number of all; --json has the first 10,000. It needs about 1 KB of memory per
/// cart, for at most 200,000 carts at a time, and nothing per command.
///
/// Exit code 0: no differences. 1: differences. 2: that could not be found out, for example because a server is unavailable.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl rehearse --since 30d")]
pub struct Args {
    /// Only commands since this time: a duration back from now such as 30d, 12h or 90m, or a date such as 2026-11-03 (UTC). The
    /// carts before it are loaded from the journal, as a cart-processor loads them [default: all commands]
    #[arg(long, value_name = "DURATION|DATE")]
    pub(super) since: Option<Since>,

    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
    #[command(flatten)]
    pub(super) cassandra: CassandraArgs,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The time of the first command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    Ago(TimeDelta),
    At(DateTime<Utc>),
}

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither a duration such as 30d, 12h or 90m, nor a date such as 2026-11-03 or 2026-11-03T10:00:00Z")]
pub(super) struct InvalidSince;

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(at.to_utc()));
        }
        if let Ok(day) = NaiveDate::from_str(text) {
            return Ok(Self::At(day.and_time(chrono::NaiveTime::MIN).and_utc()));
        }
        let unit: fn(i64) -> Option<TimeDelta> = match text.as_bytes().last() {
            Some(b'd') => TimeDelta::try_days,
            Some(b'h') => TimeDelta::try_hours,
            Some(b'm') => TimeDelta::try_minutes,
            _ => return Err(InvalidSince),
        };
        let number: u32 = text[..text.len() - 1].parse().map_err(|_| InvalidSince)?;
        unit(number.into()).map(Self::Ago).ok_or(InvalidSince)
    }
}

impl Since {
    /// The time, in milliseconds since 1970.
    pub(super) fn at_ms(self, now: DateTime<Utc>) -> i64 {
        let at = match self {
            Self::Ago(ago) => now.checked_sub_signed(ago).unwrap_or(DateTime::UNIX_EPOCH),
            Self::At(at) => at,
        };
        at.timestamp_millis().max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_duration_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-30T12:00:00Z").expect("a time").to_utc();
        for (text, expected) in [
            ("30d", "2026-10-31T12:00:00Z"),
            ("12h", "2026-11-30T00:00:00Z"),
            ("90m", "2026-11-30T10:30:00Z"),
            ("2026-11-03", "2026-11-03T00:00:00Z"),
            ("2026-11-03T10:00:00+01:00", "2026-11-03T09:00:00Z"),
            ("4000000000d", "1970-01-01T00:00:00Z"),
        ] {
            let since: Since = text.parse().expect(text);
            let expected = DateTime::parse_from_rfc3339(expected).expect("a time");
            assert_eq!(since.at_ms(now), expected.timestamp_millis(), "{text}");
        }
        for text in ["", "d", "-1d", "30", "30s", "2026-13-01", "yesterday", "1é"] {
            assert_eq!(text.parse::<Since>(), Err(InvalidSince), "{text}");
        }
    }
}
