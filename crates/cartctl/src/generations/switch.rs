//! `cartctl switch`.

use std::collections::BTreeSet;
use std::io::{Write as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use cart::{Generation, GenerationSwitch};
use chrono::{SubsecRound as _, Utc};
use service::shutdown_signal;
use uuid::Uuid;

use super::args::{Accepted, SwitchArgs};
use super::claim::{Claim, holder, other_run, others_ended, waiting};
use super::compared::Compared;
use super::freeze::{Freezer, Frozen, PausedByOther, Target, pauses, run_of};
use super::guards::{Unfit, parked, refusal};
use super::store::ModelStore;
use super::switched::{LastSwitch, Switched};
use super::verdict::{apart, not_accepted};
use crate::operate::{Kafka, Outcome};

/// How long a generation may need to become current again, for example after the pauses of another switch.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Attempts to let the groups go on: the members wait for it.
const THAW_ATTEMPTS: u32 = 5;

/// Comparisons of the rows that have changed meanwhile, before the groups are paused. Each one leaves fewer for the next.
const ROUNDS_MAX: u32 = 3;

/// So few rows are read again within a fraction of a second.
const FEW_ROWS: usize = 500;

/// What became of the change.
enum Change {
    /// `None`: it was interrupted in the moment of the change.
    Done {
        frozen: Option<Frozen>,
        rows: u64,
    },
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
    let seen = if args.dry_run { Ok(store.decided_pointer().await?) } else { others_ended(&store).await? };
    let seen = match seen {
        Ok(seen) => seen,
        Err(at_work) => return Ok(Outcome::Refused(at_work)),
    };
    let existing = store.generations().await?;
    let known: BTreeSet<Generation> =
        existing.iter().copied().chain([seen.active]).chain(seen.previous).chain(args.to).collect();
    let known: Vec<String> = known.into_iter().map(|generation| model.group_name(generation)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let died = seen.claim.map(|claim| claim.run);
    let is_interrupted = died.is_some() || !pauses(&kafka, &known)?.is_empty();
    let taken_over = if is_interrupted && !args.dry_run {
        let Some(claim) = Claim::take(&store, died, &by(args)).await? else {
            return Ok(Outcome::Refused(other_run(&store).await?));
        };
        Some(claim)
    } else {
        None
    };
    // What the other run has left undecided is done by now, or never will be.
    let pointer = store.decided_pointer().await?;
    let from = pointer.active;
    let earlier = pauses(&kafka, &known)?;
    // A `--back` that has died may have changed the pointer before: its repeat must not change it back. A `--back` after another
    // switch is to undo that.
    let back_here = Target { model: model.group, to: from, is_back: true };
    let is_completed = earlier.iter().any(|reason| back_here.is_of(reason));
    let to = if args.back && is_completed { Some(from) } else { args.to.or(pointer.previous) };
    let target = Target { model: model.group, to: to.unwrap_or(from), is_back: args.back };
    let ended_earlier_pauses = taken_over.is_some() && !earlier.is_empty();
    // Without pauses it is not known what the run that died was to do: it had made none yet, had ended them, or an operator has.
    let is_unclear = args.back && taken_over.is_some() && earlier.is_empty();
    if let Some(claim) = taken_over {
        let runs = earlier.iter().filter_map(|reason| run_of(reason)).chain(died).chain([claim.run]).collect();
        let freezer = freezer(args, &kafka, &store, target.reason(claim.run, &args.reason), runs);
        store.settle().await;
        freezer.thaw(&known).await?;
        claim.release().await;
    }
    if is_unclear {
        return Ok(Outcome::Refused(format!(
            "a run has died, and no pause shows what it was to do: readers of {} see generation {from}. Run it again if they are to leave it",
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
        rows_compared_paused: 0,
        was_behind: Vec::new(),
        left_paused: Vec::new(),
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
        let mut compared = self.compare().await?;
        if let Some(reason) = self.not_accepted(compared.as_ref()) {
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
        if let Some(compared) = &mut compared {
            self.follow(compared).await;
        }
        let mut signal = shutdown_signal()?;
        signal.started();
        let Some(claim) = Claim::take(store, None, &by(args)).await? else {
            return Ok(Outcome::Refused(other_run(store).await?));
        };
        let run = claim.run;
        let freezer = freezer(args, kafka, store, target.reason(run, &args.reason), BTreeSet::from([run]));
        fail_points::crash_point("switch-claimed");
        let started_at = Instant::now();
        let changed = tokio::select! {
            changed = self.change(&freezer, run, compared) => changed,
            () = signal.requested() => Err(anyhow!("interrupted")),
        };
        let (claim, changed) = match changed {
            Ok(changed) => (Some(claim), Ok(changed)),
            Err(error) => self.after_error(claim, error).await?,
        };
        // A change that was refused was not made.
        if !matches!(changed, Ok(Change::Refused(_))) {
            store.settle().await;
        }
        if let Ok(Change::Done { frozen: Some(frozen), .. }) = &changed {
            self.report_early_end(&freezer, frozen);
        }
        match self.thaw(&freezer).await {
            Ok(left) => switched.left_paused = left,
            Err(error) => {
                return Err(error.context(match changed {
                    Ok(Change::Done { .. }) => format!("readers see generation {to} now"),
                    Ok(Change::Refused(reason)) => format!("refused: {reason}"),
                    Err(failed) => format!("{failed:#}"),
                }));
            }
        }
        if let Some(claim) = claim {
            claim.release().await;
        }
        switched.paused_ms = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(match changed? {
            Change::Done { frozen, rows } => {
                let was_behind = frozen.map(|frozen| frozen.behind).unwrap_or_default();
                Outcome::Done(Switched { was_behind, rows_compared_paused: rows, ..switched })
            }
            Change::Refused(reason) => Outcome::Refused(reason),
        })
    }

    /// Why readers must not see the generation; after some time, if it is only behind.
    async fn unfit(&self) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + if self.args.dry_run { Duration::ZERO } else { CATCH_UP };
        let mut is_said = false;
        loop {
            if let Some(reason) = self.parked().await? {
                return Ok(Some(reason));
            }
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

    /// Why readers must not see the generation: rows of it are parked. Those of the generation that they leave are in the digest of the
    /// differences: the switch may be their repair.
    async fn parked(&self) -> anyhow::Result<Option<String>> {
        Ok(parked(&self.store.model.group_name(self.to), &self.store.parked(self.to).await?))
    }

    /// `None` where there is nothing to compare with.
    async fn compare(&self) -> anyhow::Result<Option<Compared>> {
        if !self.has_from {
            return Ok(None);
        }
        Ok(Some(Compared::whole(self.store, &self.kafka.args, [self.from, self.to]).await?))
    }

    /// Brings the comparison up to date while both go on, so that little is left for the time in which they stand still.
    async fn follow(&self, compared: &mut Compared) {
        for _ in 0..ROUNDS_MAX {
            match compared.follow(self.store, &self.kafka.args).await {
                Ok(rows) if rows > FEW_ROWS => {}
                // After an error it is tried again while both stand still, and then all rows are read.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Compares while both stand still: the rows that have changed since, or all of them where that cannot be found out. Also how many
    /// were compared.
    async fn compare_frozen(&self, compared: Option<Compared>) -> anyhow::Result<(Option<Compared>, u64)> {
        let Some(mut compared) = compared else { return Ok((None, 0)) };
        let failed = match compared.follow_to_end(self.store, &self.kafka.args).await {
            Ok(rows) => return Ok((Some(compared), u64::try_from(rows).unwrap_or(u64::MAX))),
            Err(error) => error,
        };
        writeln!(stderr().lock(), "both tables are read whole once more: {failed:#}").unwrap_or_default();
        drop(compared);
        let compared = self.compare().await?;
        let rows = compared.as_ref().map_or(0, Compared::rows);
        Ok((compared, rows))
    }

    /// Why the differences are not accepted; `None`: they are, or there was nothing to compare with.
    fn not_accepted(&self, compared: Option<&Compared>) -> Option<String> {
        not_accepted(self.args.accept_diff.as_ref(), &compared?.diff())
    }

    /// Compares at one offset a partition, and changes the pointer.
    async fn change(&self, freezer: &Freezer<'_>, run: Uuid, compared: Option<Compared>) -> anyhow::Result<Change> {
        let Self { args, store, from, to, .. } = *self;
        let groups = [from, to].map(|generation| args.model.group_name(generation));
        let groups = groups.each_ref().map(String::as_str);
        let frozen = match freezer.freeze(groups).await {
            Err(error) if error.is::<PausedByOther>() => return Ok(Change::Refused(error.to_string())),
            frozen => frozen?,
        };
        fail_points::crash_point("switch-frozen");
        // While both stand still no row is tried again. Of a row that is parked since the comparison this says more than its digest.
        if let Some(reason) = self.parked().await? {
            return Ok(Change::Refused(reason));
        }
        let (compared, rows) = self.compare_frozen(compared).await?;
        if let Some(reason) = self.not_accepted(compared.as_ref()) {
            return Ok(Change::Refused(reason));
        }
        if let Some(reason) = compared.as_ref().and_then(|compared| apart(&compared.diff(), &frozen.behind)) {
            bail!(reason);
        }
        match freezer.still_holds(groups, &frozen) {
            Err(error) if error.is::<PausedByOther>() => return Ok(Change::Refused(error.to_string())),
            still_holds => ensure!(still_holds?, "the pauses were ended meanwhile"),
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
            return Ok(Change::Done { frozen: Some(frozen), rows });
        }
        Ok(Change::Refused(match pointer.claim {
            Some(claim) if claim.run != run => holder(args.model, &claim),
            Some(_) | None => {
                format!("readers see generation {} by now: somebody else has switched", pointer.active)
            }
        }))
    }

    /// Reports that others have let a group go on before all readers had followed. An operator's pause holds, so it is no such end.
    fn report_early_end(&self, freezer: &Freezer<'_>, frozen: &Frozen) {
        let groups = [self.from, self.to].map(|generation| self.args.model.group_name(generation));
        if matches!(freezer.still_holds(groups.each_ref().map(String::as_str), frozen), Ok(false)) {
            let text = "others have ended the pauses before all readers had followed: some may have seen a total fall";
            writeln!(stderr().lock(), "{text}").unwrap_or_default();
        }
    }

    /// Lets both groups go on. Returns what operators have paused meanwhile, which holds.
    async fn thaw(&self, freezer: &Freezer<'_>) -> anyhow::Result<Vec<String>> {
        let groups = [self.from, self.to].map(|generation| self.args.model.group_name(generation));
        let [first, second] = groups.each_ref().map(String::as_str);
        let mut last = freezer.thaw(&[first, second]).await;
        for _ in 1..THAW_ATTEMPTS {
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            last = freezer.thaw(&[first, second]).await;
        }
        last.with_context(|| {
            format!("{first} and {second} stay paused: run it again, which ends that and keeps the pauses of operators")
        })
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
            return Ok((claim, Ok(Change::Done { frozen: None, rows: 0 })));
        }
        let holds = match claim {
            Some(_) => format!("readers see generation {active}, as before: run it again"),
            None => format!("readers see generation {active}; another run has taken over"),
        };
        Ok((claim, Err(error.context(holds))))
    }
}

fn freezer<'a>(
    args: &'a SwitchArgs,
    kafka: &'a Kafka,
    store: &ModelStore,
    reason: String,
    runs: BTreeSet<Uuid>,
) -> Freezer<'a> {
    Freezer { kafka, partitions: store.identity.partitions, by: &args.by, reason, runs }
}

/// What others read of a claim.
fn by(args: &SwitchArgs) -> String {
    format!("{} with `cartctl switch`", args.by)
}

/// The digest of a diff. Where there was nothing to compare with, any is accepted.
fn digest(compared: Option<&Compared>) -> String {
    compared.map_or_else(|| String::from("any"), |compared| compared.diff().digest)
}
