//! `cartctl skip`.

use std::fmt;

use cart::Control;
use control::{SkipRequest, signed};
use serde::Serialize;
use tokio::task::block_in_place;

use super::args::SkipArgs;
use super::place::Place;
use super::{Kafka, Outcome};

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
    let request = SkipRequest { group: &args.group, partition, offset };
    let controls = block_in_place(|| kafka.control.controls())?;
    let was_there = request.recorded(&controls) == args.expect.as_deref();
    if let Some(expected) = args.expect.as_deref().filter(|_| !was_there)
        && let Some(reason) = block_in_place(|| request.refusal(&kafka.control, &controls, expected))?
    {
        return Ok(Outcome::Refused(reason));
    }
    if !was_there && !args.dry_run {
        let control = match &args.expect {
            Some(sha256) => Control::Skip { sha256: sha256.clone() },
            None => Control::Withdraw {},
        };
        let record = signed(&args.signed.by, &args.signed.reason, control);
        kafka.control.send(&request.key(), Some(&record)).await?;
    }
    Ok(Outcome::Done(Skipped {
        group: stage.group,
        record: request.place(),
        sha256: args.expect.clone(),
        is_dry_run: args.dry_run,
        was_there,
    }))
}
