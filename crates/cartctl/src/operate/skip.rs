//! `cartctl skip`.

use std::fmt;

use cart::contract::group;
use cart::{Control, ControlKey};
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
    let Group(stage) = args.group;
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
    let Group(stage) = args.group;
    let Place { partition, offset, .. } = args.record;
    if stage.group == group::CART_PROCESSOR {
        return Ok(Some(String::from(
            "a command is not skipped: one that cannot be read becomes a dead letter, and one that is too new waits for an upgrade",
        )));
    }
    let of = format!("partition {partition} of {}", stage.group);
    let Some(stop) = controls.stop(stage.group, partition) else {
        return Ok(Some(format!("{of} is not stopped")));
    };
    if stop.offset != offset {
        let at = time(stop.entry.record.at);
        return Ok(Some(format!("{of} is stopped at {}, not at {offset} (since {at})", stop.offset)));
    }
    let (group, topic) = (args.kafka.prefixed(stage.group), args.kafka.prefixed(stage.topic));
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
    Ok(None)
}
