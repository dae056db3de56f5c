//! The right to change which generation readers see. Of all runs of `switch`, `drop` and `rebuild --in-place` one
//! has it at a time.
//!
//! It is a random number in the table `read_model`, taken by compare-and-set. A run renews it while it is at work. Another run takes over
//! when it has seen no renewal for some time by its own clock, which never goes back. After that the first one can change nothing,
//! not even by a statement that it sent before.

use std::collections::BTreeSet;
use std::io::{Write as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cart::contract::ReadModel;
use cart::{Generation, GenerationClaim, GenerationPointer};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::freeze::pauses;
use super::store::ModelStore;
use crate::operate::Kafka;

/// Between two looks at another run's claim, and between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Attempts to get an answer from the store.
const ATTEMPTS: u32 = 10;

/// The claim of this run, which is renewed until it is dropped.
pub(super) struct Claim {
    store: Arc<ModelStore>,
    pub(super) run: Uuid,
    /// Who, and with what, for another operator to read.
    by: String,
    renewal: JoinHandle<()>,
}

impl Claim {
    /// Takes the claim, if `seen` still has it; `None`: another run has taken it.
    pub(super) async fn take(store: &Arc<ModelStore>, seen: Option<Uuid>, by: &str) -> anyhow::Result<Option<Self>> {
        let run = Uuid::new_v4();
        if !store.claim(seen, run, by).await? {
            return Ok(None);
        }
        Ok(Some(Self::renewed(store, run, by)))
    }

    fn renewed(store: &Arc<ModelStore>, run: Uuid, by: &str) -> Self {
        let renewal = tokio::spawn(renew(store.clone(), run));
        Self { store: store.clone(), run, by: by.to_owned(), renewal }
    }

    /// Takes the claim under another number, so that no statement of this run can be done any more. `None`: another run has taken
    /// over, with the same effect.
    pub(super) async fn fence(self) -> anyhow::Result<Option<Self>> {
        // Each attempt has a number of its own: of one without an answer it is not known whether it was taken.
        let mut own = BTreeSet::from([self.run]);
        let mut attempt = 1;
        loop {
            let failed = match Self::retake(&self.store, &mut own, &self.by).await {
                Ok(claim) => return Ok(claim),
                Err(error) => error,
            };
            if attempt >= ATTEMPTS {
                return Err(failed);
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn retake(store: &Arc<ModelStore>, own: &mut BTreeSet<Uuid>, by: &str) -> anyhow::Result<Option<Self>> {
        let Some(found) = store.decided_pointer().await?.claim.filter(|claim| own.contains(&claim.run)) else {
            return Ok(None);
        };
        let run = Uuid::new_v4();
        own.insert(run);
        ensure!(store.claim(Some(found.run), run, by).await?, "the claim has changed meanwhile");
        Ok(Some(Self::renewed(store, run, by)))
    }

    /// Ends the claim. That it fails is only reported, since it changes nothing of what the run has done: the next run takes it over.
    pub(super) async fn release(self) {
        self.renewal.abort();
        if let Err(error) = self.store.release(self.run).await {
            let (run, after) = (self.run, GenerationClaim::DIED_AFTER.as_secs());
            let text =
                format!("ending the claim of run {run} failed, so the next run waits {after} s for it: {error:#}");
            // A closed standard error is no reason to fail.
            writeln!(stderr().lock(), "{text}").unwrap_or_default();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// An error is no end: the next renewal may succeed.
async fn renew(store: Arc<ModelStore>, run: Uuid) {
    for renewals in 1..i32::MAX {
        tokio::time::sleep(GenerationClaim::RENEWAL_INTERVAL).await;
        if matches!(store.renew(run, renewals).await, Ok(false)) {
            break;
        }
    }
}

/// Says on standard error what a command waits for: its output may be read by a program.
pub(super) fn waiting(for_what: &str) {
    // A closed standard error is no reason to fail.
    writeln!(stderr().lock(), "waiting: {for_what}").unwrap_or_default();
}

/// Who has a claim, and with what.
pub(super) fn holder(model: ReadModel, claim: &GenerationClaim) -> String {
    format!("{} is changed by {}, run {}", model.group, claim.by, claim.run)
}

/// Who has taken the claim before this run could.
pub(super) async fn other_run(store: &ModelStore) -> anyhow::Result<String> {
    Ok(match store.decided_pointer().await?.claim {
        Some(claim) => format!("{}: run it again when that has ended", holder(store.model, &claim)),
        None => format!("another run has changed {} in this moment: run it again", store.model.group),
    })
}

/// Waits until the run that has the claim has ended, has died or has shown that it is at work. The error: it is at work.
pub(super) async fn others_ended(store: &ModelStore) -> anyhow::Result<Result<GenerationPointer, String>> {
    let mut pointer = store.decided_pointer().await?;
    let Some(claim) = pointer.claim.clone() else { return Ok(Ok(pointer)) };
    let (holder, after) = (holder(store.model, &claim), GenerationClaim::DIED_AFTER.as_secs());
    waiting(&format!("{holder}; it is taken over after {after} s without a sign of life"));
    let since = Instant::now();
    while since.elapsed() < GenerationClaim::DIED_AFTER {
        tokio::time::sleep(PAUSE).await;
        pointer = store.decided_pointer().await?;
        match &pointer.claim {
            None => break,
            Some(now) if *now == claim => {}
            Some(_) => return Ok(Err(format!("{holder}, which is at work: run it again when that has ended"))),
        }
    }
    Ok(Ok(pointer))
}

/// As [`others_ended`], for a run that is no switch. It may take over the claim of one that has died, except where that has left pauses:
/// only `switch` ends those. The error: why it may not.
pub(super) async fn others_ended_unpaused(
    kafka: &Kafka,
    store: &ModelStore,
) -> anyhow::Result<Result<GenerationPointer, String>> {
    // At once, where there are pauses already.
    if let Some(standing) = pauses_of_holder(kafka, store, &store.decided_pointer().await?).await? {
        return Ok(Err(standing));
    }
    let pointer = match others_ended(store).await? {
        Ok(pointer) => pointer,
        Err(at_work) => return Ok(Err(at_work)),
    };
    Ok(match pauses_of_holder(kafka, store, &pointer).await? {
        Some(standing) => Err(standing),
        None => Ok(pointer),
    })
}

/// Says what to do where a claim is held and pauses of a switch are standing.
async fn pauses_of_holder(
    kafka: &Kafka,
    store: &ModelStore,
    pointer: &GenerationPointer,
) -> anyhow::Result<Option<String>> {
    let Some(claim) = &pointer.claim else { return Ok(None) };
    let existing = store.generations().await?;
    let known: BTreeSet<Generation> = existing.into_iter().chain([pointer.active]).chain(pointer.previous).collect();
    let groups: Vec<String> = known.into_iter().map(|generation| store.model.group_name(generation)).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    if pauses(kafka, &groups)?.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{}, which is at work or has died: see what it says, or run `cartctl switch {} --to {} --accept-diff none`, which waits for it and \
         ends what it has left",
        holder(store.model, claim),
        store.model.group,
        pointer.active
    )))
}
