//! Decides what an audit reads: everything, or what has come since the checkpoint of its folder.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cart::{CartId, Position};
use kafka::{Admin, KafkaArgs};
use scylla::client::session::Session;
use tokio::task::spawn_blocking;

use super::args::{Checkpoints, Target};
use super::checkpoint::{Checkpoint, System, TOPICS};
use super::checkpoint_file::{Found, load};
use super::digest::{Hash, of_skips};
use super::read::{Epochs, Scope};
use super::report::Seal;
use crate::SkippedRecord;

/// What is read, and why.
pub(super) struct Start {
    /// Taken when it is read: the checkpoint is large.
    pub(super) scope: Option<Scope>,
    pub(super) system: System,
    pub(super) since: Option<Seal>,
    /// Why there is no checkpoint to start from.
    pub(super) note: Option<String>,
}

/// What makes only a look at everything right.
pub(super) struct Exceptions {
    /// As in [`Checkpoint`].
    skips: Hash,
    /// Whatever the checkpoint has.
    always: Option<&'static str>,
}

impl Exceptions {
    /// A table that lacks a skipped purchase does not follow from the totals of a checkpoint, nor does a journal whose carts get events
    /// before its cut. `parked` are the parked carts.
    pub(super) fn of(skips: &[SkippedRecord], parked: &HashMap<CartId, Position>) -> Self {
        let always = if skips.iter().any(SkippedRecord::leaves_out_purchase) {
            Some("operators have skipped purchases that can be read")
        } else if parked.is_empty() {
            None
        } else {
            Some("carts are parked")
        };
        Self { skips: of_skips(skips), always }
    }

    /// Why an audit does not go on from a checkpoint.
    fn to(&self, checkpoint: &Checkpoint) -> Option<&'static str> {
        let are_others = checkpoint.skips != self.skips;
        self.always.or(are_others.then_some("skips were recorded or withdrawn since the checkpoint"))
    }
}

/// Chooses.
///
/// # Errors
/// The checkpoint was changed, is of another installation, or the log does not go on where it ends.
pub(super) async fn start(
    target: &Target,
    session: &Session,
    epochs: Epochs,
    checkpoints: &Checkpoints,
    exceptions: &Exceptions,
) -> anyhow::Result<Start> {
    let (kafka, keyspace) = (target.kafka.clone(), session.get_keyspace().map(|name| name.to_string()));
    let kept = spawn_blocking({
        let kafka = kafka.clone();
        move || system(&kafka, epochs, keyspace.unwrap_or_default())
    });
    let system = kept.await??;
    let all = |former, note: &str| {
        let note = Some(note.to_owned());
        Ok(Start { scope: Some(Scope::All(former)), system: system.clone(), since: None, note })
    };
    let found = match load_in_background(&checkpoints.folder).await {
        Err(error) if checkpoints.is_full => return all(None, &format!("{error:#}")),
        found => found?,
    };
    let checkpoint = match found {
        Found::Nothing => return all(None, "there is no checkpoint yet"),
        Found::OtherFormat(format) => {
            return all(None, &format!("the checkpoint has format {format}, of another version of this program"));
        }
        Found::Checkpoint(checkpoint) => Arc::new(*checkpoint),
    };
    ensure!(
        checkpoint.system.installation == system.installation,
        "the checkpoint in {} is of another installation ({}); this one is {}. Give each its own --checkpoint",
        checkpoints.folder.display(),
        checkpoint.system.installation,
        system.installation
    );
    if checkpoint.system != system {
        return all(None, "the checkpoint is of an earlier log: a topic was replaced since");
    }
    if checkpoints.is_full {
        return all(Some(checkpoint), "--full");
    }
    if let Some(exception) = exceptions.to(&checkpoint) {
        return all(Some(checkpoint), exception);
    }
    spawn_blocking({
        let checkpoint = checkpoint.clone();
        move || goes_on(&kafka, &checkpoint)
    })
    .await??;
    let since = Some(checkpoint.seal());
    Ok(Start { scope: Some(Scope::Since(checkpoint)), system, since, note: None })
}

async fn load_in_background(folder: &Path) -> anyhow::Result<Found> {
    let folder = folder.to_owned();
    spawn_blocking(move || load(&folder)).await?
}

/// Identifies the logs.
fn system(kafka: &KafkaArgs, epochs: Epochs, keyspace: String) -> anyhow::Result<System> {
    let admin = Admin::new(kafka)?;
    let mut logs = Vec::new();
    for topic in TOPICS {
        let identity = admin.identity(&kafka.prefixed(topic))?;
        logs.push(format!(
            "{topic} {} of {}, {} partitions",
            identity.topic_id, identity.cluster_id, identity.partitions
        ));
    }
    logs.push(format!("log epochs {} and {}", epochs.commands.get(), epochs.purchases.get()));
    let installation = format!("topics '{}*', keyspace {keyspace}", kafka.topic_prefix);
    Ok(System { installation, logs })
}

/// Whether each log has the records from the checkpoint on.
fn goes_on(kafka: &KafkaArgs, checkpoint: &Checkpoint) -> anyhow::Result<()> {
    let admin = Admin::new(kafka)?;
    for (topic, marks) in TOPICS.iter().zip(checkpoint.marks.all()) {
        let watermarks = admin.watermarks(&kafka.prefixed(topic)).context("reading the ends of the topics")?;
        for (partition, (mark, (first, end))) in (0_i32..).zip(marks.iter().zip(watermarks)) {
            ensure!(
                first <= mark.start() && mark.next <= end,
                "{topic}/{partition} has the offsets from {first} to {end}, and the checkpoint ends at {}: records were deleted, \
                 or the topic was restored from a backup. Find out why; `cartctl audit --full` checks what is there",
                mark.next
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cart::PurchasedItem;
    use cart::contract::Contract as _;
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn skip(offset: i64, is_readable: bool) -> SkippedRecord {
        SkippedRecord {
            group: String::from("popular-items"),
            topic: PurchasedItem::TOPIC.to_owned(),
            partition: 0,
            offset,
            sha256: String::from("ab"),
            found: Some(String::from("ab")),
            is_readable,
            by: String::from("ops"),
            at: DateTime::UNIX_EPOCH,
            reason: String::from("a test"),
        }
    }

    #[test]
    fn an_audit_goes_on_from_a_checkpoint_with_the_same_skips_only() {
        let parked = HashMap::new();
        let sealed_with = |skips: &[SkippedRecord]| Checkpoint { skips: of_skips(skips), ..Checkpoint::default() };
        let why =
            |now: &[SkippedRecord], sealed: &[SkippedRecord]| Exceptions::of(now, &parked).to(&sealed_with(sealed));
        let garbage = [skip(3, false)];
        assert_eq!((why(&[], &[]), why(&garbage, &garbage)), (None, None));
        let others = Some("skips were recorded or withdrawn since the checkpoint");
        assert_eq!((why(&garbage, &[]), why(&[], &garbage)), (others, others));
        assert_eq!(why(&[skip(3, false), skip(4, false)], &garbage), others);
        let another = SkippedRecord { found: Some(String::from("cd")), ..skip(3, false) };
        assert_eq!(why(std::slice::from_ref(&another), &[]), None, "it skips nothing");
        assert_eq!(why(&[another], &garbage), others, "and skipped something before");
    }

    #[test]
    fn skipped_purchases_and_parked_carts_need_a_look_at_everything() {
        let readable = [skip(3, true)];
        let checkpoint = Checkpoint { skips: of_skips(&readable), ..Checkpoint::default() };
        let why = Exceptions::of(&readable, &HashMap::new()).to(&checkpoint);
        assert_eq!(why, Some("operators have skipped purchases that can be read"));
        let parked = HashMap::from([(CartId::from(Uuid::from_u128(1)), Position::from(5))]);
        let checkpoint = Checkpoint { skips: of_skips(&[]), ..Checkpoint::default() };
        assert_eq!(Exceptions::of(&[], &parked).to(&checkpoint), Some("carts are parked"));
    }
}
