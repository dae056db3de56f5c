//! Numbers as clients write them.

/// A whole number, read exactly: an optional minus, digits, and the fraction and exponent that JSON allows, as long as the
/// value is whole and fits. `2`, `2.0` and `2e0` are two; `0.99999999999999999`, `+1`, `1_000` and `1.` are no whole numbers.
///
/// The one parser for quantities: HTTP bodies, command lines and CSV files use it.
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

/// As many digits as the largest whole number has: more zeros make none that fits.
const DIGITS_MAX: usize = 19;

/// A number as it was written, exactly: its digits times ten to a power.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) is_negative: bool,
    /// Without zeros at either end; empty for zero.
    pub(crate) digits: String,
    pub(crate) power: i64,
}

impl Number {
    /// The one grammar of numbers: that of JSON, with leading zeros. An optional minus, digits, optionally a point and digits,
    /// optionally an exponent.
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
        // An exponent that does not fit stays beyond every bound.
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
    // A larger one than any text of digits can make up for.
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
    fn a_whole_number_is_read_exactly() {
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
    fn anything_else_is_refused() {
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
        fn what_is_written_is_read(number: i64, zeros in 0_usize..5) {
            proptest::prop_assert_eq!(whole_number(&number.to_string()), Some(number));
            let fraction = format!("{number}.{}", "0".repeat(zeros + 1));
            proptest::prop_assert_eq!(whole_number(&fraction), Some(number));
        }

        #[test]
        fn no_text_is_a_panic(text in "[-+0-9.eE_]{0,40}") {
            if let Some(number) = whole_number(&text) {
                proptest::prop_assert_eq!(whole_number(&number.to_string()), Some(number));
            }
        }
    }
}
