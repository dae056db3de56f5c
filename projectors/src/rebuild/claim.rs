//! The right to change a read model in Cassandra, for `cartctl rebuild --in-place`; as `cartctl switch` and `drop` have it.
//!
//! Two runs at once would both find the group idle. A projector that is started when the first one has ended would lose the rows that the
//! second one deletes, behind offsets that it has committed. PostgreSQL needs no claim: rows and offsets are deleted in one transaction,
//! after which the transaction of a projector fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cart::contract::ReadModel;
use cart::{GenerationClaim, GenerationPointer};
use cassandra::read_models;
use scylla::client::session::Session;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::args::RebuildArgs;
use super::beside::ensure_unclaimed;
use super::refused::refuse;

/// What other operators read. Of runs that have died only those with these words are taken over here: one of `switch` may have left pauses,
/// which only `switch` ends.
const BY: &str = "`cartctl rebuild --in-place`";

/// Between two looks at another run's claim.
const PAUSE: Duration = Duration::from_secs(1);

/// The claim of this run, which is renewed until it is dropped.
pub(super) struct Claim {
    session: Arc<Session>,
    model: ReadModel,
    run: Uuid,
    renewal: JoinHandle<()>,
}

impl Claim {
    /// Takes the claim, if `seen` still has it.
    pub(super) async fn take(session: &Arc<Session>, model: ReadModel, seen: Option<Uuid>) -> anyhow::Result<Self> {
        let run = Uuid::new_v4();
        if !read_models::claim(session, model, seen, run, BY).await? {
            return refuse(format!(
                "another run changes {} since this moment: run it again when that has ended",
                model.group
            ));
        }
        let renewal = tokio::spawn(renew(session.clone(), model, run));
        Ok(Self { session: session.clone(), model, run, renewal })
    }

    /// Returns the pointer. Refuses if another run has taken over, as it does when this process was stopped for some time.
    pub(super) async fn ensure_held(&self, args: &RebuildArgs) -> anyhow::Result<GenerationPointer> {
        let pointer = read_models::decided_pointer(&self.session, self.model).await?;
        if pointer.claim.as_ref().is_some_and(|claim| claim.run == self.run) {
            return Ok(pointer);
        }
        ensure_unclaimed(args, &pointer)?;
        refuse(format!("another run has changed {} meanwhile: run it again", self.model.group))
    }

    /// Ends the claim. That it fails is only logged, since it changes nothing of what was done: the next run takes it over.
    pub(super) async fn release(self) {
        self.renewal.abort();
        if let Err(error) = read_models::release(&self.session, self.model, self.run).await {
            let error = format!("{:#}", anyhow::Error::new(error));
            let seconds = GenerationClaim::DIED_AFTER.as_secs();
            tracing::warn!(run = %self.run, seconds, error, "ending the claim failed; the next run waits for it");
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// An error is no end: the next renewal may succeed.
async fn renew(session: Arc<Session>, model: ReadModel, run: Uuid) {
    for renewals in 1..i32::MAX {
        tokio::time::sleep(GenerationClaim::RENEWAL_INTERVAL).await;
        if matches!(read_models::renew(&session, model, run, renewals).await, Ok(false)) {
            break;
        }
    }
}

/// Returns the run of this command that has died and left its claim. Refuses while another run has the claim, and when it has just ended.
pub(super) async fn died(args: &RebuildArgs, session: &Session) -> anyhow::Result<Option<Uuid>> {
    let pointer = read_models::decided_pointer(session, args.model).await?;
    let Some(claim) = pointer.claim.as_ref().filter(|claim| claim.by == BY) else {
        ensure_unclaimed(args, &pointer)?;
        return Ok(None);
    };
    let seconds = GenerationClaim::DIED_AFTER.as_secs();
    tracing::info!(run = %claim.run, seconds, "waiting: another run has the claim; it is taken over if it is not renewed");
    let since = Instant::now();
    while since.elapsed() < GenerationClaim::DIED_AFTER {
        tokio::time::sleep(PAUSE).await;
        let now = read_models::decided_pointer(session, args.model).await?;
        if now.claim.as_ref() != Some(claim) {
            return refuse(format!(
                "{} is emptied by another {BY}, run {}, which is at work or has just ended: see what it says",
                args.model.group, claim.run
            ));
        }
    }
    Ok(Some(claim.run))
}
