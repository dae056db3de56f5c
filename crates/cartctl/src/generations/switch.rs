//! `cartctl switch`.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{Write as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use cart::contract::{ReadModel, Store};
use cart::{Generation, GenerationSwitch};
use cassandra::read_models::READERS_FOLLOW;
use chrono::{SubsecRound as _, Utc};
use serde::Serialize;
use service::shutdown_signal;
use uuid::Uuid;

use super::args::{Accepted, SwitchArgs};
use super::claim::{Claim, others_ended, waiting};
use super::diff::compare_generations;
use super::freeze::{Freezer, Run, Target, pauses};
use super::guards::{Unfit, refusal};
use super::report::Diff;
use super::store::ModelStore;
use crate::operate::{Kafka, Outcome, time};

/// How long a generation may need to become current again, for example after the pauses of another switch.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Attempts to let the groups go on: the members wait for it.
const THAW_ATTEMPTS: u32 = 5;

/// What was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Switched {
    model: &'static str,
    /// The generation that readers saw before.
    from: i32,
    /// The generation that readers see now.
    to: i32,
    /// The digest of the differences between the two.
    accepted_diff: String,
    is_dry_run: bool,
    /// Whether readers saw it already.
    was_active: bool,
    /// The last switch before.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_switch: Option<LastSwitch>,
    /// Whether pauses of an earlier switch, which has died, were ended.
    ended_earlier_pauses: bool,
    /// How long both groups stood still.
    paused_ms: u64,
    /// Partitions in which the first generation does not run, and was further back than the second one.
    was_behind: Vec<i32>,
}

/// Who has switched, and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastSwitch {
    at: String,
    by: String,
    reason: String,
    accepted_diff: String,
}

impl LastSwitch {
    fn of(switch: &GenerationSwitch) -> Self {
        let GenerationSwitch { at, by, reason, accepted_diff } = switch.clone();
        Self { at: time(at), by, reason, accepted_diff }
    }
}

impl fmt::Display for LastSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, by, reason, accepted_diff } = self;
        write!(f, "since {at}, by {by}, diff {accepted_diff}")?;
        if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
    }
}

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, from, to, accepted_diff, .. } = self;
        if self.ended_earlier_pauses {
            writeln!(f, "pauses of an earlier switch were ended")?;
        }
        if self.was_active {
            write!(f, "{model}: readers see generation {to} already")?;
            return self.last_switch.as_ref().map_or(Ok(()), |last| write!(f, "\n  {last}"));
        }
        if self.is_dry_run {
            return write!(
                f,
                "{model}: readers would see generation {to} after {from}, diff {accepted_diff}; nothing was changed (--dry-run)"
            );
        }
        write!(f, "{model}: readers see generation {to} after {from}, diff {accepted_diff}")?;
        write!(f, "\n  both stood still for {} ms", self.paused_ms)?;
        if !self.was_behind.is_empty() {
            write!(f, "\n  generation {from} does not run in partitions {:?}, and was behind there", self.was_behind)?;
        }
        write!(
            f,
            "\n  generation {from} is kept; `cartctl switch {model} --back` returns to it while its projector runs"
        )
    }
}

/// What became of the change.
enum Change {
    Done { was_behind: Vec<i32> },
    Refused(String),
}

/// What is to be changed.
struct Plan<'a> {
    args: &'a SwitchArgs,
    store: &'a Arc<ModelStore>,
    kafka: &'a Kafka,
    from: Generation,
    to: Generation,
    /// Whether the generation that readers see has a table.
    has_from: bool,
}

/// Lets readers see another generation.
///
/// # Errors
/// If a server does not respond, or a signal has interrupted it.
pub async fn switch(args: &SwitchArgs) -> anyhow::Result<Outcome<Switched>> {
    let model = args.model;
    if args.accept_diff == Some(Accepted::Any) && !args.back {
        return Ok(Outcome::Refused(String::from("`--accept-diff any` goes with --back only")));
    }
    let kafka = Kafka::connect(&args.system.kafka).await?;
    let store = Arc::new(ModelStore::open(&args.system, model).await?);
    let seen = if args.dry_run { store.decided_pointer().await? } else { others_ended(&store).await? };
    let existing = store.generations().await?;
    let known: BTreeSet<Generation> =
        existing.iter().copied().chain([seen.active]).chain(seen.previous).chain(args.to).collect();
    let known: Vec<String> = known.into_iter().map(|generation| model.group_name(generation)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let is_interrupted = seen.claim.is_some() || !pauses(&kafka, &known, Run::All)?.is_empty();
    let taken_over = if is_interrupted && !args.dry_run {
        let Some(claim) = Claim::take(&store, seen.claim.map(|claim| claim.run)).await? else {
            return Ok(Outcome::Refused(other_run(model)));
        };
        Some(claim)
    } else {
        None
    };
    // What the other run has left undecided is done by now, or never will be.
    let pointer = store.decided_pointer().await?;
    let from = pointer.active;
    let earlier = pauses(&kafka, &known, Run::All)?;
    // A `--back` that has died may have changed the pointer before: its repeat must not change it back. A `--back` after another
    // switch is to undo that.
    let back_here = Target { model: model.group, to: from, is_back: true };
    let is_completed = earlier.iter().any(|(_, record)| back_here.is_of(&record.reason));
    let to = if args.back && is_completed { Some(from) } else { args.to.or(pointer.previous) };
    let target = Target { model: model.group, to: to.unwrap_or(from), is_back: args.back };
    let ended_earlier_pauses = taken_over.is_some() && !earlier.is_empty();
    // Without its pauses it is not known what the run that died was to do.
    let is_unclear = args.back && taken_over.is_some() && earlier.is_empty();
    if let Some(claim) = taken_over {
        let freezer = freezer(args, &kafka, &store, target.reason(claim.run, &args.reason));
        settle(&store).await;
        freezer.thaw(&known, Run::All).await?;
        claim.release().await?;
    }
    if is_unclear {
        return Ok(Outcome::Refused(format!(
            "a run has died, and its pauses were ended by hand: readers of {} see generation {from}. Run it again if they are to leave it",
            model.group
        )));
    }
    let Some(to) = to else {
        return Ok(Outcome::Refused(format!("readers have not seen another generation of {} before", model.group)));
    };
    let switched = Switched {
        model: model.group,
        from: from.get(),
        to: to.get(),
        accepted_diff: String::new(),
        is_dry_run: args.dry_run,
        was_active: from == to,
        last_switch: pointer.last_switch.as_ref().map(LastSwitch::of),
        ended_earlier_pauses,
        paused_ms: 0,
        was_behind: Vec::new(),
    };
    if from == to {
        return Ok(Outcome::Done(switched));
    }
    if !existing.contains(&to) {
        return Ok(Outcome::Refused(format!("{} has no generation {to}", model.group)));
    }
    let plan = Plan { args, store: &store, kafka: &kafka, from, to, has_from: existing.contains(&from) };
    plan.carry_out(target, switched).await
}

impl Plan<'_> {
    /// Checks, compares and changes.
    async fn carry_out(&self, target: Target, switched: Switched) -> anyhow::Result<Outcome<Switched>> {
        let Self { args, store, kafka, from, to, has_from } = *self;
        if !has_from && args.accept_diff != Some(Accepted::Any) {
            return Ok(Outcome::Refused(format!(
                "generation {from}, which readers see, has no table: only `--back --accept-diff any` leaves it"
            )));
        }
        if let Some(reason) = self.unfit().await? {
            return Ok(Outcome::Refused(reason));
        }
        // While both go on: a switch that is refused delays no record.
        let compared = self.compare().await?;
        if let Some(reason) = compared.as_ref().and_then(|diff| not_accepted(args.accept_diff.as_ref(), diff)) {
            return Ok(Outcome::Refused(reason));
        }
        let mut switched = Switched { accepted_diff: digest(compared.as_ref()), ..switched };
        if args.dry_run {
            return Ok(Outcome::Done(switched));
        }
        // The comparison takes minutes where there are many rows.
        if let Some(reason) = self.unfit().await? {
            return Ok(Outcome::Refused(reason));
        }
        let mut signal = shutdown_signal()?;
        signal.started();
        let Some(claim) = Claim::take(store, None).await? else {
            return Ok(Outcome::Refused(other_run(args.model)));
        };
        let run = claim.run;
        let freezer = freezer(args, kafka, store, target.reason(run, &args.reason));
        let started_at = Instant::now();
        let changed = tokio::select! {
            changed = self.change(&freezer, run) => changed,
            () = signal.requested() => Err(anyhow!("interrupted")),
        };
        let (claim, changed) = match changed {
            Ok(changed) => (Some(claim), Ok(changed)),
            Err(error) => self.after_error(claim, error).await?,
        };
        // A change that was refused was not made.
        if !matches!(changed, Ok(Change::Refused(_))) {
            settle(store).await;
        }
        let groups = [from, to].map(|generation| args.model.group_name(generation));
        if let Err(error) = thaw(&freezer, groups.each_ref().map(String::as_str), run).await {
            return Err(error.context(match changed {
                Ok(Change::Done { .. }) => format!("readers see generation {to} now"),
                Ok(Change::Refused(reason)) => format!("refused: {reason}"),
                Err(failed) => format!("{failed:#}"),
            }));
        }
        if let Some(claim) = claim {
            claim.release().await?;
        }
        switched.paused_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(match changed? {
            Change::Done { was_behind } => Outcome::Done(Switched { was_behind, ..switched }),
            Change::Refused(reason) => Outcome::Refused(reason),
        })
    }

    /// Why readers must not see the generation; after some time, if it is only behind.
    async fn unfit(&self) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + if self.args.dry_run { Duration::ZERO } else { CATCH_UP };
        let mut is_said = false;
        loop {
            match refusal(self.kafka, self.store, self.from, self.to)? {
                Some(Unfit::Behind(reason)) if Instant::now() < deadline => {
                    if !is_said {
                        waiting(&format!("{reason}; refused after {} s", CATCH_UP.as_secs()));
                        is_said = true;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                unfit => return Ok(unfit.map(Unfit::reason)),
            }
        }
    }

    /// `None` where there is nothing to compare with.
    async fn compare(&self) -> anyhow::Result<Option<Diff>> {
        if !self.has_from {
            return Ok(None);
        }
        Ok(Some(compare_generations(self.store, &self.kafka.args, [self.from, self.to]).await?))
    }

    /// Compares at one offset a partition, and changes the pointer.
    async fn change(&self, freezer: &Freezer<'_>, run: Uuid) -> anyhow::Result<Change> {
        let Self { args, store, from, to, .. } = *self;
        let groups = [from, to].map(|generation| args.model.group_name(generation));
        let groups = groups.each_ref().map(String::as_str);
        let frozen = freezer.freeze(groups).await?;
        fail_points::crash_point("switch-frozen");
        let compared = self.compare().await?;
        if let Some(diff) = &compared {
            if let Some(reason) = not_accepted(args.accept_diff.as_ref(), diff) {
                return Ok(Change::Refused(reason));
            }
            if let Some(reason) = apart(diff, &frozen.behind) {
                bail!(reason);
            }
        }
        if !freezer.still_holds(groups, &frozen)? {
            bail!("the pauses were ended meanwhile");
        }
        let switch = GenerationSwitch {
            // The stores have milliseconds and microseconds.
            at: Utc::now().trunc_subsecs(3),
            by: args.by.clone(),
            reason: args.reason.clone(),
            accepted_diff: digest(compared.as_ref()),
        };
        let pointer = store.switch(from, to, &switch, run).await?;
        fail_points::crash_point("switch-changed");
        if pointer.active == to {
            return Ok(Change::Done { was_behind: frozen.behind });
        }
        Ok(Change::Refused(if pointer.claim.is_some_and(|claim| claim.run == run) {
            format!("readers see generation {} by now: somebody else has switched", pointer.active)
        } else {
            other_run(args.model)
        }))
    }

    /// Finds out what holds after an error: the pointer may have been changed, or may still be. Where that is not found out, the
    /// groups stay paused, so that no reader sees two generations that differ.
    async fn after_error(
        &self,
        claim: Claim,
        error: anyhow::Error,
    ) -> anyhow::Result<(Option<Claim>, anyhow::Result<Change>)> {
        let stays_paused = || {
            let [first, second] = [self.from, self.to].map(|generation| self.args.model.group_name(generation));
            format!(
                "after: {error:#}. What readers see is not known, so {first} and {second} stay paused: run it again"
            )
        };
        // A pause that was on its way when the change was interrupted arrives, and is ended with the others.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let claim = claim.fence().await.with_context(stays_paused)?;
        let active = self.store.decided_pointer().await.with_context(stays_paused)?.active;
        if active == self.to {
            writeln!(stderr().lock(), "after the change: {error:#}").unwrap_or_default();
            return Ok((claim, Ok(Change::Done { was_behind: Vec::new() })));
        }
        let holds = match claim {
            Some(_) => format!("readers see generation {active}, as before: run it again"),
            None => format!("readers see generation {active}; another run has taken over"),
        };
        Ok((claim, Err(error.context(holds))))
    }
}

fn freezer<'a>(args: &'a SwitchArgs, kafka: &'a Kafka, store: &ModelStore, reason: String) -> Freezer<'a> {
    Freezer { kafka, partitions: store.identity.partitions, by: &args.by, reason }
}

fn other_run(model: ReadModel) -> String {
    format!("another run of `cartctl switch` or `drop` changes {} now", model.group)
}

/// Waits until every reader of the tables in Cassandra goes by the active generation. The view in PostgreSQL changes for all at once.
async fn settle(store: &ModelStore) {
    if store.model.store == Store::Cassandra {
        tokio::time::sleep(READERS_FOLLOW).await;
    }
}

/// The digest of a diff. Where there was nothing to compare with, any is accepted.
fn digest(diff: Option<&Diff>) -> String {
    diff.map_or_else(|| String::from("any"), |diff| diff.digest.clone())
}

/// Why these differences are not accepted; `None`: they are.
fn not_accepted(accepted: Option<&Accepted>, diff: &Diff) -> Option<String> {
    let accepted = match accepted {
        Some(Accepted::Any) => return None,
        Some(Accepted::Digest(digest)) => digest.as_str(),
        Some(Accepted::Equal) | None => "none",
    };
    if accepted == diff.digest {
        return None;
    }
    Some(if diff.digest == "none" {
        String::from("there is no difference: --accept-diff none")
    } else {
        format!("the difference is not the accepted one ({accepted}):\n{diff}")
    })
}

/// Whether the tables do not stand at one offset although both are paused; `behind` are the partitions in which the first generation
/// may stand further back. Readers of the second one must not miss what rows of the first one include.
fn apart(diff: &Diff, behind: &[i32]) -> Option<String> {
    let [from, to] = diff.generations;
    let [of_from, of_to] = &diff.added;
    if let Some((partition, records)) = of_to.first_key_value() {
        return Some(format!(
            "generation {to} lacks {records} records of partition {partition} that generation {from} shows"
        ));
    }
    let (partition, records) = of_from.iter().find(|(partition, _)| !behind.contains(partition))?;
    Some(format!("generation {from} lacks {records} records of partition {partition}, although both are paused"))
}

async fn thaw(freezer: &Freezer<'_>, groups: [&str; 2], run: Uuid) -> anyhow::Result<()> {
    let mut last = freezer.thaw(&groups, Run::Only(run)).await;
    for _ in 1..THAW_ATTEMPTS {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        last = freezer.thaw(&groups, Run::Only(run)).await;
    }
    let [first, second] = groups;
    last.with_context(|| {
        format!("{first} and {second} stay paused: run `cartctl resume {first}` and `cartctl resume {second}`, or this again")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cart::contract::READ_MODELS;

    use super::*;
    use crate::generations::compare::Comparison;

    fn compared(comparison: &Comparison) -> Diff {
        let generations = [1, 2].map(|number| Generation::new(number).expect("a generation"));
        Diff::new(READ_MODELS[0], generations, comparison, 0)
    }

    #[test]
    fn only_the_digest_of_the_current_diff_is_accepted() {
        let equal = compared(&Comparison::default());
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let different = Diff { digest: digest("a"), ..equal.clone() };
        let accepted = |text: &str| text.parse::<Accepted>().ok();
        let is_refused = |text: &str, diff: &Diff| not_accepted(accepted(text).as_ref(), diff).is_some();
        assert!(!is_refused("none", &equal) && !is_refused(&digest("a"), &different));
        assert!(
            is_refused("none", &different) && is_refused(&digest("b"), &different) && is_refused(&digest("a"), &equal)
        );
        assert!(!is_refused("any", &equal) && !is_refused("any", &different));
        assert!(not_accepted(None, &equal).is_none() && not_accepted(None, &different).is_some());
    }

    #[test]
    fn only_the_first_generation_may_stand_back_and_only_where_it_does_not_run() {
        let added = |of_from: &[(i32, u64)], of_to: &[(i32, u64)]| {
            let added = [of_from, of_to].map(|of| of.iter().copied().collect::<BTreeMap<_, _>>());
            compared(&Comparison { added, ..Comparison::default() })
        };
        assert_eq!(apart(&added(&[], &[]), &[]), None);
        assert_eq!(apart(&added(&[(3, 7)], &[]), &[3]), None);
        assert!(apart(&added(&[(3, 7), (4, 1)], &[]), &[3]).is_some_and(|text| text.contains("partition 4")));
        // Its member wrote them and died before it committed: readers have seen them.
        assert!(apart(&added(&[], &[(3, 20)]), &[3]).is_some_and(|text| text.contains("generation 2 lacks 20")));
    }
}
