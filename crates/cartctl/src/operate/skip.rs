//! `cartctl skip`.

use std::collections::BTreeSet;
use std::fmt;

use cart::contract::{READ_MODELS, ReadModel, group};
use cart::{Control, ControlKey, Generation};
use control::Controls;
use kafka::{GroupProgress, Message as _, TopicReader};
use serde::Serialize;
use tokio::task::block_in_place;

use super::args::SkipArgs;
use super::group::{Group, Place};
use super::{Kafka, Outcome, record, time};
use crate::topic::SILENCE_MAX;

/// What was recorded.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    group: &'static str,
    /// As topic/partition/offset, without the installation's prefix.
    record: String,
    /// `None`: the skip was withdrawn.
    sha256: Option<String>,
    is_dry_run: bool,
    /// Whether it was recorded before.
    was_there: bool,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, record, .. } = self;
        match (&self.sha256, self.was_there, self.is_dry_run) {
            (Some(_), true, _) => write!(f, "{group} skips {record} already"),
            (None, true, _) => write!(f, "{group} does not skip {record}"),
            (Some(_), _, true) => write!(f, "{group} would skip {record}; nothing was recorded (--dry-run)"),
            (None, _, true) => write!(f, "{group} would skip {record} no more; nothing was recorded (--dry-run)"),
            (Some(_), ..) => write!(f, "{group} skips {record}, and goes on behind it"),
            (None, ..) => write!(f, "{group} skips {record} no more"),
        }
    }
}

/// Records a skip, or its withdrawal.
///
/// # Errors
/// Kafka or the registry does not respond.
pub async fn skip(args: &SkipArgs) -> anyhow::Result<Outcome<Skipped>> {
    let kafka = Kafka::connect(&args.kafka).await?;
    let stage = args.group.stage;
    let Place { topic, partition, offset } = args.record.clone();
    if topic != stage.topic && topic != args.kafka.prefixed(stage.topic) {
        return Ok(Outcome::Refused(format!("{} reads {}, not {topic}", stage.group, stage.topic)));
    }
    let controls = block_in_place(|| kafka.control.controls())?;
    let key = ControlKey::Skip { group: stage.group.to_owned(), topic: stage.topic.to_owned(), partition, offset };
    let known = controls.skips().find(|skip| {
        (skip.group, skip.topic, skip.partition, skip.offset) == (stage.group, stage.topic, partition, offset)
    });
    let was_there = known.map(|skip| skip.sha256) == args.expect.as_deref();
    if let Some(expected) = args.expect.as_deref().filter(|_| !was_there)
        && let Some(reason) = block_in_place(|| refusal(args, &kafka, &controls, expected))?
    {
        return Ok(Outcome::Refused(reason));
    }
    if !was_there && !args.dry_run {
        let control = match &args.expect {
            Some(sha256) => Control::Skip { sha256: sha256.clone() },
            None => Control::Withdraw {},
        };
        kafka.control.send(&key, Some(&record(&args.signed.by, &args.signed.reason, control))).await?;
    }
    Ok(Outcome::Done(Skipped {
        group: stage.group,
        record: format!("{}/{partition}/{offset}", stage.topic),
        sha256: args.expect.clone(),
        is_dry_run: args.dry_run,
        was_there,
    }))
}

/// Compares with where the partition is stopped, and with the record itself.
fn refusal(args: &SkipArgs, kafka: &Kafka, controls: &Controls, expected: &str) -> anyhow::Result<Option<String>> {
    let Group { name, stage } = &args.group;
    let Place { partition, offset, .. } = args.record;
    if stage.group == group::CART_PROCESSOR {
        return Ok(Some(String::from(
            "a command is not skipped: one that cannot be read becomes a dead letter, and one that is too new waits for an upgrade",
        )));
    }
    let of = format!("partition {partition} of {name}");
    let Some(stop) = controls.stop(name, partition) else {
        return Ok(Some(format!("{of} is not stopped")));
    };
    if stop.offset != offset {
        let at = time(stop.entry.record.at);
        return Ok(Some(format!("{of} is stopped at {}, not at {offset} (since {at})", stop.offset)));
    }
    let (group, topic) = (args.kafka.prefixed(name), args.kafka.prefixed(stage.topic));
    let next = GroupProgress::new(&kafka.args, &group, &topic)?.committed([partition])?.remove(&partition);
    if let Some(next) = next.filter(|next| *next > offset) {
        return Ok(Some(format!("{of} has gone on, and is at {next}")));
    }
    let mut reader = TopicReader::open(&kafka.args, &topic, [(partition, offset)])?;
    let found = reader.next(SILENCE_MAX)?.filter(|message| message.offset() == offset);
    let Some(found) = found.map(|message| control::sha256(message.payload())) else {
        return Ok(Some(format!("there is no record {topic}/{partition}/{offset}")));
    };
    if found != expected {
        return Ok(Some(format!("the record there has sha256:{found}, not sha256:{expected}")));
    }
    let Some(model) = READ_MODELS.into_iter().find(|model| model.group == stage.group) else { return Ok(None) };
    let others = generations(model, &kafka.admin.groups()?, &args.kafka.prefixed(""));
    let mut committed = Vec::new();
    for other in others.into_iter().filter(|other| model.group_name(*other) != *name) {
        let group = args.kafka.prefixed(&model.group_name(other));
        let next = GroupProgress::new(&kafka.args, &group, &topic)?.committed([partition])?.remove(&partition);
        committed.extend(next.map(|next| (other, next)));
    }
    Ok(applied_by_another(model, name, offset, &committed))
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
