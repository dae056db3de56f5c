//! The serde forms of decimals, times and compact ids: Avro's logical types, and readable text in JSON.

/// A price: Avro `bytes` with logical type `decimal`, scale 4; text in JSON. Four places are [`crate::Price::SCALE_MAX`].
mod decimal {
    use std::fmt;

    use rust_decimal::Decimal;
    use serde::de::{Error as _, Visitor};
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Price;

    const SCALE: u32 = Price::SCALE_MAX;

    impl Serialize for Price {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serialize(&self.get(), serializer)
        }
    }

    impl<'de> Deserialize<'de> for Price {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserialize(deserializer)?.try_into().map_err(D::Error::custom)
        }
    }

    fn serialize<S: Serializer>(value: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(&value.normalize());
        }
        let mut scaled = *value;
        scaled.rescale(SCALE);
        if scaled.scale() != SCALE {
            return Err(S::Error::custom(format!("{value} does not fit {SCALE} decimal places")));
        }
        // Avro needs the shortest two's complement: drop leading bytes that only repeat the sign.
        let bytes = scaled.mantissa().to_be_bytes();
        let redundant = bytes
            .windows(2)
            .take_while(|pair| (pair[0] == 0 && pair[1] < 0x80) || (pair[0] == 0xff && pair[1] >= 0x80))
            .count();
        serializer.serialize_bytes(&bytes[redundant..])
    }

    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(DecimalVisitor)
        } else {
            deserializer.deserialize_bytes(DecimalVisitor)
        }
    }

    struct DecimalVisitor;

    impl Visitor<'_> for DecimalVisitor {
        type Value = Decimal;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a decimal number")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
            text.parse().map(Price::get).map_err(E::custom)
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Decimal, E> {
            const LEN: usize = size_of::<i128>();
            let Some(padding) = LEN.checked_sub(bytes.len()) else {
                return Err(E::custom("the decimal has more digits than any price"));
            };
            let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
            let mut wide = [sign; LEN];
            wide[padding..].copy_from_slice(bytes);
            Decimal::try_from_i128_with_scale(i128::from_be_bytes(wide), SCALE)
                .map(|decimal| decimal.normalize())
                .map_err(E::custom)
        }
    }
}

/// Avro `long` with logical type `timestamp-micros`; RFC 3339 text in JSON.
pub(crate) mod timestamp {
    use chrono::{DateTime, Utc};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            at.serialize(serializer)
        } else {
            serializer.serialize_i64(at.timestamp_micros())
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        if deserializer.is_human_readable() {
            return DateTime::deserialize(deserializer);
        }
        let micros = i64::deserialize(deserializer)?;
        DateTime::from_timestamp_micros(micros)
            .ok_or_else(|| D::Error::custom(format!("{micros} microseconds are not a time of the calendar")))
    }
}

/// Avro `fixed` of 16 bytes, for the snapshot: only the processor reads it, and text would double its size.
pub(crate) mod compact_id {
    use std::fmt;

    use serde::{Deserializer, Serializer};
    use uuid::Uuid;

    use crate::CommandId;

    pub(crate) fn serialize<S: Serializer>(id: &CommandId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(id.as_uuid().as_bytes())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandId, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }

    struct BytesVisitor;

    impl serde::de::Visitor<'_> for BytesVisitor {
        type Value = CommandId;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("16 bytes")
        }

        fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<CommandId, E> {
            Uuid::from_slice(bytes).map(CommandId::from).map_err(E::custom)
        }
    }
}
