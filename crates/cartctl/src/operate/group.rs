//! The consumer group that a verb is about.

use std::str::FromStr;

use cart::contract::{READ_MODELS, STAGES, Stage};

/// A group of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Without the installation's prefix: the stage's, or that of a later generation of its read model.
    pub(crate) name: String,
    pub(crate) stage: Stage,
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let model = READ_MODELS.iter().find(|model| model.generation_of_group(text).is_some());
        let stage = model.map_or(text, |model| model.group);
        let stage = STAGES.iter().find(|of| of.group == stage).copied();
        stage.map(|stage| Self { name: text.to_owned(), stage }).ok_or_else(|| {
            let groups: Vec<_> = STAGES.iter().map(|stage| stage.group).collect();
            format!(
                "there is no such group; the groups are {}, and with -g and a number behind them those of later generations of a read model",
                groups.join(", ")
            )
        })
    }
}

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

/// `partition=offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("'{text}' is not of the form partition=offset");
        let (partition, offset) = text.split_once('=').ok_or_else(error)?;
        let partition = partition.parse().ok().filter(|partition| *partition >= 0).ok_or_else(error)?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0).ok_or_else(error)?;
        Ok(Self { partition, offset })
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
    fn groups_records_and_hashes_are_parsed() {
        assert_eq!("popular-items".parse::<Group>().map(|group| group.stage.topic), Ok("item-purchased"));
        let later = "popular-items-g2".parse::<Group>().map(|group| (group.name, group.stage.group));
        assert_eq!(later, Ok((String::from("popular-items-g2"), "popular-items")));
        assert!("cart-processor-g2".parse::<Group>().is_err());
        assert!("popular".parse::<Group>().is_err_and(|error| error.contains("popular-items")));
        let place = Place { topic: String::from("item-purchased"), partition: 3, offset: 77 };
        assert_eq!("item-purchased/3/77".parse(), Ok(place));
        for text in ["item-purchased/3", "/3/7", "t/x/7", "t/3/-7"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!("3=120".parse(), Ok(Cut { partition: 3, offset: 120 }));
        assert!("3".parse::<Cut>().is_err() && "3=x".parse::<Cut>().is_err() && "-1=3".parse::<Cut>().is_err());
        assert_eq!(sha256(&format!("sha256:{}", "AB".repeat(32))), Ok("ab".repeat(32)));
        assert!(sha256(&"ab".repeat(32)).is_err() && sha256("sha256:ab").is_err());
    }
}
