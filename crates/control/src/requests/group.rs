//! The consumer group that a request is about.

use std::str::FromStr;

use cart::contract::{READ_MODELS, STAGES, Stage};
use kafka::Error;

use crate::ControlTopic;

/// A group of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Without the installation's prefix: the stage's, or that of a later generation of its read model.
    pub name: String,
    pub stage: Stage,
}

impl Group {
    /// The number of partitions of the topic that it reads. Blocks.
    ///
    /// # Errors
    /// If the brokers do not respond, or there is no such topic.
    pub fn partitions(&self, control: &ControlTopic) -> Result<i32, Error> {
        control.admin().partitions(&control.kafka().prefixed(self.stage.topic))
    }
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

/// The offset before which a partition is to pause; as a text `partition=offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCut {
    pub partition: i32,
    pub offset: i64,
}

impl FromStr for PartitionCut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("'{text}' is not of the form partition=offset");
        let (partition, offset) = text.split_once('=').ok_or_else(error)?;
        let partition = partition.parse().ok().filter(|partition| *partition >= 0).ok_or_else(error)?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0).ok_or_else(error)?;
        Ok(Self { partition, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_cuts_are_parsed() {
        assert_eq!("popular-items".parse::<Group>().map(|group| group.stage.topic), Ok("item-purchased"));
        let later = "popular-items-g2".parse::<Group>().map(|group| (group.name, group.stage.group));
        assert_eq!(later, Ok((String::from("popular-items-g2"), "popular-items")));
        assert!("cart-processor-g2".parse::<Group>().is_err());
        assert!("popular".parse::<Group>().is_err_and(|error| error.contains("popular-items")));
        assert_eq!("3=120".parse(), Ok(PartitionCut { partition: 3, offset: 120 }));
        for text in ["3", "3=x", "-1=3"] {
            assert!(text.parse::<PartitionCut>().is_err(), "{text}");
        }
    }
}
