//! The right to change which generation readers see. Of all runs of `switch` and `drop` one has it at a time.
//!
//! It is a random number in the table `read_model`, taken by compare-and-set. A run renews it while it is at work. Another run takes over
//! when it has seen no renewal for some time by its own clock, which never goes back. After that the first one can change nothing,
//! not even by a statement that it sent before.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use cart::GenerationPointer;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::store::ModelStore;

/// Between two renewals.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(2);

/// A run that has not renewed its claim for so long has died.
const DIED_AFTER: Duration = Duration::from_secs(10);

/// Between two looks at another run's claim, and between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Attempts to get an answer from the store.
const ATTEMPTS: u32 = 10;

/// The claim of this run, which is renewed until it is dropped.
pub(super) struct Claim {
    store: Arc<ModelStore>,
    pub(super) run: Uuid,
    renewal: JoinHandle<()>,
}

impl Claim {
    /// Takes the claim, if `seen` still has it; `None`: another run has taken it.
    pub(super) async fn take(store: &Arc<ModelStore>, seen: Option<Uuid>) -> anyhow::Result<Option<Self>> {
        let run = Uuid::new_v4();
        if !store.claim(seen, run).await? {
            return Ok(None);
        }
        let renewal = tokio::spawn(renew(store.clone(), run));
        Ok(Some(Self { store: store.clone(), run, renewal }))
    }

    /// Takes the claim under another number, so that no statement of this run can be done any more. `None`: another run has taken
    /// over, with the same effect.
    pub(super) async fn fence(self) -> anyhow::Result<Option<Self>> {
        // Each attempt has a number of its own: of one without an answer it is not known whether it was taken.
        let mut own = BTreeSet::from([self.run]);
        let mut attempt = 1;
        loop {
            let failed = match Self::retake(&self.store, &mut own).await {
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

    async fn retake(store: &Arc<ModelStore>, own: &mut BTreeSet<Uuid>) -> anyhow::Result<Option<Self>> {
        let Some(found) = store.decided_pointer().await?.claim.filter(|claim| own.contains(&claim.run)) else {
            return Ok(None);
        };
        let run = Uuid::new_v4();
        own.insert(run);
        ensure!(store.claim(Some(found.run), run).await?, "the claim has changed meanwhile");
        let renewal = tokio::spawn(renew(store.clone(), run));
        Ok(Some(Self { store: store.clone(), run, renewal }))
    }

    /// Ends the claim.
    pub(super) async fn release(self) -> anyhow::Result<()> {
        self.renewal.abort();
        self.store.release(self.run).await
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
        tokio::time::sleep(RENEWAL_INTERVAL).await;
        if matches!(store.renew(run, renewals).await, Ok(false)) {
            break;
        }
    }
}

/// Says on standard error what a command waits for: its output may be read by a program.
pub(super) fn waiting(for_what: &str) {
    // A closed standard error is no reason to fail.
    writeln!(std::io::stderr().lock(), "waiting: {for_what}").unwrap_or_default();
}

/// Waits until no run has the claim, or the one that has it has died.
pub(super) async fn others_ended(store: &ModelStore) -> anyhow::Result<GenerationPointer> {
    let mut pointer = store.decided_pointer().await?;
    let mut renewed_at = Instant::now();
    let mut waits_for = None;
    while let Some(claim) = pointer.claim {
        if waits_for.replace(claim.run) != Some(claim.run) {
            let (run, group) = (claim.run, store.model.group);
            let after = DIED_AFTER.as_secs();
            waiting(&format!(
                "run {run} of `cartctl switch` or `drop` changes {group}; it is taken over after {after} s without a sign of life"
            ));
        }
        if renewed_at.elapsed() >= DIED_AFTER {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let now = store.decided_pointer().await?;
        if now.claim != pointer.claim {
            renewed_at = Instant::now();
        }
        pointer = now;
    }
    Ok(pointer)
}
