//! Parses numbers of clients.

/// Parses a whole number exactly: an optional minus, digits, and the fraction and exponent that JSON allows, if the value is
/// whole and fits. `2`, `2.0` and `2e0` are two; `0.99999999999999999`, `+1`, `1_000` and `1.` are rejected.
///
/// The only parser for quantities: HTTP bodies, command lines and CSV files use it.
#[must_use]
pub fn whole_number(text: &str) -> Option<i64> {
    let Number { is_negative, digits, power } = Number::read(text)?;
    if digits.is_empty() {
        return Some(0);
    }
    let zeros = usize::try_from(power).ok().filter(|zeros| *zeros < DIGITS_MAX)?;
    let sign = if is_negative { "-" } else { "" };
    format!("{sign}{digits}{}", "0".repeat(zeros)).parse().ok()
}

/// The number of digits of the largest whole number; a number with more zeros does not fit.
const DIGITS_MAX: usize = 19;

/// A number, exactly: its digits times a power of ten.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) is_negative: bool,
    /// Without zeros at either end; empty for zero.
    pub(crate) digits: String,
    pub(crate) power: i64,
}

impl Number {
    /// Parses the only grammar of numbers: that of JSON, with leading zeros. An optional minus, digits, optionally a point
    /// and digits, optionally an exponent.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (unsigned, is_negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, self::exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        if !is_digits(whole) || !fraction.is_none_or(is_digits) {
            return None;
        }
        let fraction = fraction.unwrap_or_default();
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
        let trailing = all.len() - all.trim_end_matches('0').len();
        // An exponent that does not fit is replaced by one beyond every bound.
        let power =
            exponent.saturating_add(i64::try_from(trailing).ok()?).saturating_sub(i64::try_from(fraction.len()).ok()?);
        Some(Self { is_negative, digits, power })
    }
}

fn exponent(text: &str) -> Option<i64> {
    let (digits, is_negative) = match text.as_bytes().first()? {
        b'-' => (&text[1..], true),
        b'+' => (&text[1..], false),
        _ => (text, false),
    };
    if !is_digits(digits) {
        return None;
    }
    // Larger than the number of digits of any text.
    let exponent = digits.parse::<i64>().unwrap_or(i64::MAX);
    Some(if is_negative { -exponent } else { exponent })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_whole_number_exactly() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("7", 7),
            ("-7", -7),
            ("007", 7),
            ("2.0", 2),
            ("20e-1", 2),
            ("1.50e2", 150),
            ("0.2E+1", 2),
            ("1e6", 1_000_000),
            ("0e999999999999999999999", 0),
            ("0.000e-5", 0),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
    }

    #[test]
    fn rejects_anything_else() {
        for text in [
            "",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e+",
            "--1",
            "1_000",
            "1e1_0",
            "1,0",
            " 1",
            "1 ",
            "0x1",
            "٣",
            "NaN",
            "inf",
            "0.5",
            "1e-1",
            "0.99999999999999999",
            "999999.99999999999",
            "9223372036854775808",
            "1e19",
            "1e400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
        ] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parses_any_whole_number(number: i64, zeros in 0_usize..5) {
            proptest::prop_assert_eq!(whole_number(&number.to_string()), Some(number));
            let fraction = format!("{number}.{}", "0".repeat(zeros + 1));
            proptest::prop_assert_eq!(whole_number(&fraction), Some(number));
        }

        #[test]
        fn does_not_panic(text in "[-+0-9.eE_]{0,40}") {
            if let Some(number) = whole_number(&text) {
                proptest::prop_assert_eq!(whole_number(&number.to_string()), Some(number));
            }
        }
    }
}
