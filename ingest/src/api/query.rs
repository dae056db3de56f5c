//! Query strings: numbers with names, each at most once, and no others.

use std::ops::RangeInclusive;

use crate::problem::Problem;

/// The parameters of a request.
#[derive(Debug)]
pub(crate) struct Query {
    parameters: Vec<(&'static str, String)>,
}

impl Query {
    /// Reads a query string; only the `known` names may be in it.
    pub(crate) fn read(text: &str, known: &[&'static str]) -> Result<Self, Problem> {
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

    /// A number within a range, if it is given.
    pub(crate) fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Problem>
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

    /// A number within a range, which must be given.
    pub(crate) fn required<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<T, Problem>
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
    use super::*;

    fn year(text: &str) -> Result<i32, String> {
        let query = Query::read(text, &["year", "month"]).and_then(|query| query.required("year", 1..=9_999));
        query.map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn numbers_are_read_by_name() {
        assert_eq!(year("year=2026"), Ok(2026));
        assert_eq!(year("month=3&year=%32026"), Ok(2026));
        let query = Query::read("", &["after"]).unwrap();
        assert_eq!(query.number("after", 0..=i64::MAX).unwrap(), None);
        let query = Query::read("after=9223372036854775807", &["after"]).unwrap();
        assert_eq!(query.number("after", 0..=i64::MAX).unwrap(), Some(i64::MAX));
    }

    #[test]
    fn what_is_wrong_is_named() {
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
            let error = year(text).unwrap_err();
            assert!(error.contains("InvalidParameter") && error.contains(reason), "{text}: {error}");
        }
    }
}
