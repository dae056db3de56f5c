//! A skip.

use std::collections::BTreeSet;

use cart::contract::{READ_MODELS, ReadModel, group};
use cart::{ControlKey, Generation};
use chrono::SecondsFormat;
use kafka::{Error, GroupProgress, Message as _, TopicReader};

use super::group::Group;
use crate::topic::SILENCE_MAX;
use crate::{ControlTopic, Controls, Stop};

/// A skip that an operator wants: of the record at which a partition is stopped.
#[derive(Debug, Clone, Copy)]
pub struct SkipRequest<'a> {
    pub group: &'a Group,
    pub partition: i32,
    pub offset: i64,
}

impl SkipRequest<'_> {
    /// The key of its record: it holds for all generations.
    #[must_use]
    pub fn key(&self) -> ControlKey {
        let (group, topic) = (self.group.stage.group.to_owned(), self.group.stage.topic.to_owned());
        ControlKey::Skip { group, topic, partition: self.partition, offset: self.offset }
    }

    /// The record, as `topic/partition/offset`, without the installation's prefix.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.group.stage.topic, self.partition, self.offset)
    }

    /// The hash of the record that is skipped already.
    #[must_use]
    pub fn recorded<'a>(&self, controls: &'a Controls) -> Option<&'a str> {
        let wanted = (self.group.stage.group, self.group.stage.topic, self.partition, self.offset);
        let known = controls.skips().find(|skip| (skip.group, skip.topic, skip.partition, skip.offset) == wanted);
        known.map(|skip| skip.sha256)
    }

    /// Why it is refused; `None`: it is not. The record must be the one at which the partition is stopped, and have the `expected` hash.
    /// Blocks.
    ///
    /// # Errors
    /// If the brokers do not respond.
    pub fn refusal(
        &self,
        control: &ControlTopic,
        controls: &Controls,
        expected: &str,
    ) -> Result<Option<String>, Error> {
        let Group { name, stage } = self.group;
        let Self { partition, offset, .. } = *self;
        if stage.group == group::CART_PROCESSOR {
            return Ok(Some(String::from(
                "a command is not skipped: one that cannot be read becomes a dead letter, and one that is too new waits for an upgrade",
            )));
        }
        if let Some(reason) = self.stands_elsewhere(controls.stop(name, partition)) {
            return Ok(Some(reason));
        }
        let kafka = control.kafka();
        let topic = kafka.prefixed(stage.topic);
        let committed = |group: &str| -> Result<Option<i64>, Error> {
            let progress = GroupProgress::new(kafka, &kafka.prefixed(group), &topic)?;
            Ok(progress.committed([partition])?.remove(&partition))
        };
        if let Some(next) = committed(name.as_str())?.filter(|next| *next > offset) {
            return Ok(Some(format!("partition {partition} of {name} has gone on, and is at {next}")));
        }
        let mut reader = TopicReader::open(kafka, &topic, [(partition, offset)])?;
        let found = reader.next(SILENCE_MAX)?.filter(|message| message.offset() == offset);
        let Some(found) = found.map(|message| crate::sha256(message.payload())) else {
            return Ok(Some(format!("there is no record {topic}/{partition}/{offset}")));
        };
        if found != expected {
            return Ok(Some(format!("the record there has sha256:{found}, not sha256:{expected}")));
        }
        let Some(model) = READ_MODELS.into_iter().find(|model| model.group == stage.group) else { return Ok(None) };
        let others = generations(model, &control.admin().groups()?, &kafka.prefixed(""));
        let mut positions = Vec::new();
        for other in others.into_iter().filter(|other| model.group_name(*other) != *name) {
            positions.extend(committed(&model.group_name(other))?.map(|next| (other, next)));
        }
        Ok(applied_by_another(model, name, offset, &positions))
    }

    /// Why it is not for the record at which the partition is stopped.
    fn stands_elsewhere(&self, stop: Option<Stop<'_>>) -> Option<String> {
        let of = format!("partition {} of {}", self.partition, self.group.name);
        let Some(stop) = stop else { return Some(format!("{of} is not stopped")) };
        if stop.sha256.is_empty() {
            return Some(format!("{of} is not stopped at a record that cannot be read: {}", stop.entry.record.reason));
        }
        let at = stop.entry.record.at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let is_elsewhere = stop.offset != self.offset;
        is_elsewhere.then(|| format!("{of} is stopped at {}, not at {} (since {at})", stop.offset, self.offset))
    }
}

/// The generations of a model that have a consumer group, in the installation with this prefix.
fn generations(model: ReadModel, groups: &BTreeSet<String>, prefix: &str) -> BTreeSet<Generation> {
    let names = groups.iter().filter_map(|group| group.strip_prefix(prefix));
    names.filter_map(|name| model.generation_of_group(name)).collect()
}

/// Why the record at which `stopped` is stopped must not be skipped, if another generation is behind it: a skip holds for all
/// generations, and the audit does not expect the record in any table then.
fn applied_by_another(model: ReadModel, stopped: &str, offset: i64, committed: &[(Generation, i64)]) -> Option<String> {
    let (other, next) = committed.iter().find(|(_, next)| *next > offset)?;
    let (of, group) = (model.group, model.group_name(*other));
    Some(format!(
        "{group} has applied the record, and is at {next}. A skip holds for all generations of {of}, so the audit and \
         `cartctl reconcile` would report the table of generation {other}. Upgrade the program of {stopped}, so that it can read the \
         record; or delete one of the two generations (`cartctl drop {of} --generation NUMBER`)"
    ))
}

#[cfg(test)]
mod tests {
    use cart::contract::ReadTable;

    use super::*;

    const MODEL: ReadModel = ReadTable::ItemQuantityByDay.model();

    fn generation(number: i32) -> Generation {
        Generation::new(number).expect("a generation")
    }

    #[test]
    fn a_record_that_another_generation_has_applied_is_not_skipped() {
        let refusal = |next| applied_by_another(MODEL, "popular-items-g2", 7, &[(generation(1), next)]);
        assert_eq!(refusal(7), None, "it is stopped at the record, too");
        assert_eq!(applied_by_another(MODEL, "popular-items-g2", 7, &[]), None);
        let text = refusal(8).expect("generation 1 has applied it");
        assert!(text.starts_with("popular-items has applied the record, and is at 8"), "{text}");
        assert!(text.contains("Upgrade the program of popular-items-g2"), "{text}");
        let committed = [(generation(1), 3), (generation(2), 7), (generation(12), 9)];
        let text = applied_by_another(MODEL, "popular-items", 7, &committed).expect("generation 12 has applied it");
        assert!(text.starts_with("popular-items-g12 has applied"), "{text}");
    }

    #[test]
    fn the_generations_are_those_of_the_installation() {
        let groups = ["shop-popular-items", "shop-popular-items-g12", "popular-items-g2", "shop-vendor-billing-g3"];
        let groups = BTreeSet::from(groups.map(String::from));
        assert_eq!(generations(MODEL, &groups, "shop-"), BTreeSet::from([generation(1), generation(12)]));
        assert_eq!(generations(MODEL, &groups, ""), BTreeSet::from([generation(2)]));
    }
}
