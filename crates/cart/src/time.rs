//! Parses times of clients, and checks that every downstream reader can represent them.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, NaiveDate, SubsecRound, Timelike, Utc};

/// The years that all readers can represent: Avro's libraries, Python's `datetime`, Cassandra and PostgreSQL.
const YEARS: RangeInclusive<i32> = 1..=9_999;

/// The decimal places of a second in Avro.
const SUBSECOND_DIGITS: u16 = 6;

/// The days that ended with a leap second, as year, month and day (IERS, `Leap_Second.dat`). No further one is planned; a new
/// one has to be added here.
const LEAP_SECOND_DAYS: [(i32, u32, u32); 27] = [
    (1972, 6, 30),
    (1972, 12, 31),
    (1973, 12, 31),
    (1974, 12, 31),
    (1975, 12, 31),
    (1976, 12, 31),
    (1977, 12, 31),
    (1978, 12, 31),
    (1979, 12, 31),
    (1981, 6, 30),
    (1982, 6, 30),
    (1983, 6, 30),
    (1985, 6, 30),
    (1987, 12, 31),
    (1989, 12, 31),
    (1990, 12, 31),
    (1992, 6, 30),
    (1993, 6, 30),
    (1994, 6, 30),
    (1995, 12, 31),
    (1997, 6, 30),
    (1998, 12, 31),
    (2005, 12, 31),
    (2008, 12, 31),
    (2012, 6, 30),
    (2015, 6, 30),
    (2016, 12, 31),
];

/// Why a text is not a time of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTime {
    /// It is not RFC 3339, or not in the calendar.
    #[error("it is not a time such as 2010-12-01T08:25:53Z (RFC 3339)")]
    Malformed,
    /// Its year is not one that [`is_representable`] accepts.
    #[error("it is not in the years {} to {} in UTC", YEARS.start(), YEARS.end())]
    OutOfRange,
    /// It is a leap second that did not exist.
    #[error("there was no leap second at that time")]
    NoLeapSecond,
}

/// Parses an RFC 3339 time, truncated to microseconds, which events have.
///
/// A leap second becomes the last microsecond before the next day, so that it counts for its own day and month.
///
/// # Errors
/// The text is not RFC 3339, is outside the years 1 to 9999 in UTC, or names a leap second that did not exist.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, InvalidTime> {
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| InvalidTime::Malformed)?.with_timezone(&Utc);
    if !is_representable(at) {
        return Err(InvalidTime::OutOfRange);
    }
    // chrono represents the second 60 as the second 59 with more than 10^9 nanoseconds.
    if at.nanosecond() < NANOS_PER_SECOND {
        return Ok(at.trunc_subsecs(SUBSECOND_DIGITS));
    }
    if !ends_with_leap_second(at) {
        return Err(InvalidTime::NoLeapSecond);
    }
    at.with_nanosecond(NANOS_PER_SECOND - NANOS_PER_MICROSECOND).ok_or(InvalidTime::Malformed)
}

/// Whether every downstream reader can represent a time: it is in the years 1 to 9999 in UTC.
#[must_use]
pub fn is_representable(at: DateTime<Utc>) -> bool {
    YEARS.contains(&at.year())
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;
const NANOS_PER_MICROSECOND: u32 = 1_000;

fn ends_with_leap_second(at: DateTime<Utc>) -> bool {
    let is_last_second = (at.hour(), at.minute(), at.second()) == (23, 59, 59);
    let days = LEAP_SECOND_DAYS.into_iter().filter_map(|(year, month, day)| NaiveDate::from_ymd_opt(year, month, day));
    is_last_second && days.into_iter().any(|day| day == at.date_naive())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, InvalidTime> {
        parse_time(text).map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    }

    #[test]
    fn parses_a_time_in_utc() {
        for (text, at) in [
            ("2010-12-01T08:25:53Z", "2010-12-01T08:25:53Z"),
            ("2010-12-01T08:25:53.123456+01:00", "2010-12-01T07:25:53.123456Z"),
            ("2010-12-01T08:25:53.1234569Z", "2010-12-01T08:25:53.123456Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-12-31T23:59:00-00:01", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(at), "{text}");
        }
    }

    #[test]
    fn the_year_counts_after_the_offset() {
        for text in [
            "9999-12-31T23:59:59-00:01",
            "9999-12-31T01:00:00-23:59",
            "0000-01-01T00:00:00+00:01",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
        ] {
            assert_eq!(read(text), Err(InvalidTime::OutOfRange), "{text}");
        }
    }

    #[test]
    fn a_leap_second_that_existed_counts_for_its_own_day() {
        for (text, at) in [
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z"),
            ("2016-12-31T23:59:60.5Z", "2016-12-31T23:59:59.999999Z"),
            ("2017-01-01T05:29:60+05:30", "2016-12-31T23:59:59.999999Z"),
            ("1972-06-30T23:59:60.999999999Z", "1972-06-30T23:59:59.999999Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(at), "{text}");
        }
        for (year, month, day) in LEAP_SECOND_DAYS {
            let day = NaiveDate::from_ymd_opt(year, month, day).unwrap();
            let at = parse_time(&format!("{day}T23:59:60Z")).unwrap();
            assert_eq!(at.date_naive(), day);
            assert_eq!(DateTime::from_timestamp_micros(at.timestamp_micros()), Some(at), "the wire keeps it");
        }
    }

    #[test]
    fn rejects_a_leap_second_that_did_not_exist() {
        for text in [
            "2017-12-31T23:59:60Z",
            "2016-12-30T23:59:60Z",
            "2016-12-31T22:59:60Z",
            "2016-12-31T23:59:60+01:00",
            "2016-06-30T23:59:60Z",
            "1971-12-31T23:59:60Z",
            "9999-12-31T23:59:60Z",
        ] {
            assert_eq!(read(text), Err(InvalidTime::NoLeapSecond), "{text}");
        }
    }

    #[test]
    fn rejects_other_texts() {
        for text in [
            "",
            "2010-12-01",
            "2010-12-01T08:25:53",
            "2010-13-01T08:25:53Z",
            "2010-02-29T08:25:53Z",
            "2010-12-01T24:00:00Z",
            "2010-12-01T08:25:61Z",
            "2010-12-01T08:25:53.Z",
            "10000-01-01T00:00:00Z",
            "+2010-12-01T08:25:53Z",
            "-0001-01-01T00:00:00Z",
            "2010-12-01T08:25:53+24:00",
            "1291191953",
            " 2010-12-01T08:25:53Z",
        ] {
            assert_eq!(read(text), Err(InvalidTime::Malformed), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_parsed_time_survives_avro(text in r"[0-9]{4}-(0[1-9]|1[0-2])-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-5][0-9])") {
            if let Ok(at) = parse_time(&text) {
                proptest::prop_assert!(is_representable(at));
                proptest::prop_assert_eq!(DateTime::from_timestamp_micros(at.timestamp_micros()), Some(at));
            }
        }
    }
}
