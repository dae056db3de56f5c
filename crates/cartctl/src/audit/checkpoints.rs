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
    are_carts_parked: bool,
}

impl Exceptions {
    /// Parked carts get events before the cut of a checkpoint. A skip may be of a record before it.
    pub(super) fn of(skips: &[SkippedRecord], parked: &HashMap<CartId, Position>) -> Self {
        Self { skips: of_skips(skips), are_carts_parked: !parked.is_empty() }
    }

    /// Why an audit does not go on from a checkpoint.
    fn to(&self, checkpoint: &Checkpoint) -> Option<&'static str> {
        if self.are_carts_parked {
            return Some("carts are parked");
        }
        (checkpoint.skips != self.skips).then_some("skips have changed since the checkpoint")
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
    if let Some((why, is_compared)) = why_all(&checkpoint, &system, checkpoints.is_full, exceptions) {
        return all(is_compared.then_some(checkpoint), why);
    }
    spawn_blocking({
        let checkpoint = checkpoint.clone();
        move || goes_on(&kafka, &checkpoint)
    })
    .await??;
    let since = Some(checkpoint.seal());
    Ok(Start { scope: Some(Scope::Since(checkpoint)), system, since, note: None })
}

/// Why an audit does not go on from a checkpoint of this installation, and whether the records before it are compared with its hashes.
fn why_all(
    checkpoint: &Checkpoint,
    system: &System,
    is_full: bool,
    exceptions: &Exceptions,
) -> Option<(&'static str, bool)> {
    if checkpoint.system != *system {
        return Some(("the checkpoint is of an earlier log: a topic was replaced since", false));
    }
    let why = if is_full { Some("--full") } else { exceptions.to(checkpoint) };
    why.map(|why| (why, true))
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
        let others = Some("skips have changed since the checkpoint");
        assert_eq!((why(&garbage, &[]), why(&[], &garbage)), (others, others));
        assert_eq!(why(&[skip(3, false), skip(4, false)], &garbage), others);
        assert_eq!(why(&[skip(3, true)], &garbage), others, "it can be read now");
        let another = SkippedRecord { found: Some(String::from("cd")), ..skip(3, false) };
        assert_eq!(why(std::slice::from_ref(&another), &[]), None, "it skips nothing");
        assert_eq!(why(&[another], &garbage), others, "and skipped something before");
    }

    #[test]
    fn a_checkpoint_of_topics_that_were_made_again_is_not_used() {
        let system = |topic_id: &str| System {
            installation: String::from("topics '*', keyspace cart"),
            logs: vec![format!("cart-commands {topic_id} of cluster, 12 partitions")],
        };
        let checkpoint = Checkpoint { system: system("A"), skips: of_skips(&[]), ..Checkpoint::default() };
        let exceptions = Exceptions::of(&[], &HashMap::new());
        let why = |topic_id, is_full| why_all(&checkpoint, &system(topic_id), is_full, &exceptions);
        assert_eq!((why("A", false), why("A", true)), (None, Some(("--full", true))));
        for is_full in [false, true] {
            let earlier = Some(("the checkpoint is of an earlier log: a topic was replaced since", false));
            assert_eq!(why("B", is_full), earlier);
        }
    }

    #[test]
    fn parked_carts_need_a_look_at_everything() {
        let parked = HashMap::from([(CartId::from(Uuid::from_u128(1)), Position::from(5))]);
        let checkpoint = Checkpoint { skips: of_skips(&[]), ..Checkpoint::default() };
        assert_eq!(Exceptions::of(&[], &parked).to(&checkpoint), Some("carts are parked"));
    }
}
