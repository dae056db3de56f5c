//! Cassandra's `decimal`: an unscaled integer of any size, big-endian, and a scale. Ours have at most 28 digits.

use rust_decimal::Decimal;
use scylla::value::CqlDecimal;

/// Cassandra's form of a decimal.
#[must_use]
pub fn decimal_to_cql(decimal: Decimal) -> CqlDecimal {
    let scale = decimal.scale().cast_signed();
    CqlDecimal::from_signed_be_bytes_and_exponent(decimal.mantissa().to_be_bytes().to_vec(), scale)
}

/// The decimal, exactly; `None` where it has more than 28 digits, or a negative scale.
#[must_use]
pub fn decimal_from_cql(decimal: &CqlDecimal) -> Option<Decimal> {
    let (bytes, scale) = decimal.as_signed_be_bytes_slice_and_exponent();
    let padding = size_of::<i128>().checked_sub(bytes.len())?;
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [sign; size_of::<i128>()];
    wide[padding..].copy_from_slice(bytes);
    Decimal::try_from_i128_with_scale(i128::from_be_bytes(wide), u32::try_from(scale).ok()?).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_survives_cassandra() {
        for text in ["0", "4385506.892", "-0.0001", "79228162514264337593543950335", "255.5", "128"] {
            let decimal: Decimal = text.parse().unwrap();
            assert_eq!(decimal_from_cql(&decimal_to_cql(decimal)), Some(decimal), "{text}");
        }
    }
}
