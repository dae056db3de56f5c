//! The record that `skip` is about: its place, and its hash.

use std::str::FromStr;

/// A record, as `topic/partition/offset`; the topic with or without the installation's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("'{text}' is not of the form topic/partition/offset");
        let mut parts = text.rsplitn(3, '/');
        let offset = parts.next().and_then(|part| part.parse().ok()).filter(|offset| *offset >= 0).ok_or_else(error)?;
        let partition = parts.next().and_then(|part| part.parse().ok()).filter(|p| *p >= 0).ok_or_else(error)?;
        let topic = parts.next().filter(|topic| !topic.is_empty()).ok_or_else(error)?.to_owned();
        Ok(Self { topic, partition, offset })
    }
}

/// `sha256:` and 64 hexadecimal digits. Returns the digits.
pub(crate) fn sha256(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or_default().to_ascii_lowercase();
    let is_hash = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash {
        Ok(digits)
    } else {
        Err("it must be sha256: and 64 hexadecimal digits, as `cartctl status` prints it".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_hashes_are_parsed() {
        let place = Place { topic: String::from("item-purchased"), partition: 3, offset: 77 };
        assert_eq!("item-purchased/3/77".parse(), Ok(place));
        for text in ["item-purchased/3", "/3/7", "t/x/7", "t/3/-7"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!(sha256(&format!("sha256:{}", "AB".repeat(32))), Ok("ab".repeat(32)));
        assert!(sha256(&"ab".repeat(32)).is_err() && sha256("sha256:ab").is_err());
    }
}
