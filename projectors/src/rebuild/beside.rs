//! Builds the next generation, with the loop of the projectors in this process.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cart::contract::{Contract as _, Store};
use cart::{Generation, GenerationPointer, PurchasedItem};
use cassandra::read_models as in_cassandra;
use kafka::Admin;
use postgres::read_models as in_postgres;
use scylla::client::session::Session;
use service::{Shutdown, StartupArgs, shutdown_signal};
use sqlx::PgPool;
use tokio::task::block_in_place;

use super::args::RebuildArgs;
use super::progress::{LOOK_INTERVAL, Progress};
use super::refused::{ensure_idle, refuse};
use super::result::{Done, Rebuilt};
use super::size::{self, Size};
use crate::base::{Base, Settings};
use crate::run::{keep_in_cassandra, keep_in_postgres};
use crate::setup::create_in_cassandra;

/// As the projectors' defaults.
const BATCH_LEN_MAX: u32 = 20_000;
const ROWS_MAX: u32 = 200_000;
const STARTUP: StartupArgs = StartupArgs { startup_timeout_s: 60 };

/// After the session timeout a builder that has died is a member no more, and its coordinator has noticed.
const MEMBER_GONE: Duration = Duration::from_secs(3);

/// The generation to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    New(Generation),
    /// An earlier run has begun it.
    Begun(Generation),
}

pub(super) async fn rebuild(args: &RebuildArgs) -> anyhow::Result<Rebuilt> {
    let model = args.model;
    let (target, size) = prepare(args).await?;
    let (Target::New(generation) | Target::Begun(generation)) = target;
    let (group, table) = (model.group_name(generation), model.table_name(generation));
    let was_begun = target == Target::Begun(generation);
    let rebuilt = |done| Rebuilt::new(model, generation, done, was_begun, size);
    let keeper = format!("projectors {} --generation {generation}", model.group);
    if was_begun {
        // Another program would not build it otherwise than the one that has.
        if block_in_place(|| Progress::new(&args.kafka, &group)?.look())? {
            return refuse(format!(
                "generation {generation} is built: `{keeper}` keeps it current; `cartctl drop {} --generation {generation}` deletes it, \
                 and the next rebuild begins anew",
                model.group
            ));
        }
        tracing::info!(generation = generation.get(), group, table, "going on with a generation that was begun");
    }
    if args.dry_run {
        tracing::info!(generation = generation.get(), group, table, "it would be built (--dry-run)");
        return Ok(rebuilt(Done::Nothing));
    }
    if args.create_only {
        tracing::info!(generation = generation.get(), group, table, "created; `{keeper}` builds it");
        return Ok(rebuilt(Done::Created));
    }
    ensure_alone(args, &group).await?;
    tracing::info!(generation = generation.get(), group, table, "building a generation");
    let is_complete = build(args, generation).await?;
    if !is_complete {
        bail!("ended before generation {generation} had caught up: run it again, or `{keeper}`, which goes on");
    }
    tracing::info!(
        generation = generation.get(),
        "the generation had caught up; run `{keeper}`, which keeps it current, then `cartctl diff {}`",
        model.group
    );
    Ok(rebuilt(Done::Built))
}

/// Waits until a builder that has died is no member any more. Refuses while another process is one.
async fn ensure_alone(args: &RebuildArgs, group: &str) -> anyhow::Result<()> {
    let (full_name, topic) = (args.kafka.prefixed(group), args.kafka.prefixed(PurchasedItem::TOPIC));
    let admin = Admin::new(&args.kafka)?;
    let deadline = Instant::now() + args.member.session_timeout() + MEMBER_GONE;
    while block_in_place(|| admin.has_members(&full_name))? {
        if Instant::now() >= deadline {
            let owners: BTreeSet<String> = block_in_place(|| admin.owners(&full_name, &topic))?.into_values().collect();
            let owners: Vec<String> = owners.into_iter().collect();
            return refuse(format!(
                "group {group} has members ({}): another process builds this generation, or keeps it. Stop it first, or let it go on",
                owners.join(", ")
            ));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// The generation to build, with its table and its group's offsets: one that is beside the active one already, or a new one. And how
/// much room it takes.
async fn prepare(args: &RebuildArgs) -> anyhow::Result<(Target, Size)> {
    match args.model.store {
        Store::Cassandra => {
            let session = cassandra::connect(&args.cassandra.patient()).await?;
            prepare_in_cassandra(args, &session).await
        }
        Store::Postgres => prepare_in_postgres(args, &args.database.connect().await?).await,
    }
}

/// Refuses while another operator switches or drops: what is read here changes meanwhile.
pub(super) fn ensure_unclaimed(args: &RebuildArgs, pointer: &GenerationPointer) -> anyhow::Result<()> {
    let Some(claim) = &pointer.claim else { return Ok(()) };
    let (model, active) = (args.model.group, pointer.active);
    refuse(format!(
        "{model} is changed by {}, run {}: run it again when that has ended. If it has died, `cartctl switch {model} --to {active} \
         --accept-diff none` ends what it has left",
        claim.by, claim.run
    ))
}

/// The newest generation, if it is not the active one and has a table; `None`: the next one is to be made.
fn unfinished(pointer: &GenerationPointer, existing: &[Generation]) -> Option<Target> {
    let is_begun = pointer.newest != pointer.active && existing.contains(&pointer.newest);
    is_begun.then_some(Target::Begun(pointer.newest))
}

fn next(pointer: &GenerationPointer, existing: &[Generation]) -> anyhow::Result<Target> {
    Ok(Target::New(pointer.next(existing).context("all numbers of generations are used up")?))
}

async fn prepare_in_cassandra(args: &RebuildArgs, session: &Session) -> anyhow::Result<(Target, Size)> {
    let model = args.model;
    let pointer = in_cassandra::pointer(session, model).await?;
    ensure_unclaimed(args, &pointer)?;
    let bytes = size::in_cassandra(session, &model.table_name(pointer.active)).await;
    let size = Size::new(bytes, args.disk_free_mib);
    let existing = in_cassandra::generations(session, model).await?;
    if let Some(target) = unfinished(&pointer, &existing) {
        return Ok((target, size));
    }
    size.log();
    size.check(args.yes)?;
    if args.dry_run {
        return Ok((next(&pointer, &existing)?, size));
    }
    in_cassandra::create_table(session).await?;
    let generation = in_cassandra::reserve(session, model, &pointer, &existing).await?;
    start_at_beginning(args, generation)?;
    cassandra::parked_rows::create_retries(session).await?;
    create_in_cassandra(session, model, generation).await?;
    Ok((Target::New(generation), size))
}

async fn prepare_in_postgres(args: &RebuildArgs, pool: &PgPool) -> anyhow::Result<(Target, Size)> {
    let model = args.model;
    let pointer = in_postgres::pointer(pool, model).await?;
    ensure_unclaimed(args, &pointer)?;
    let bytes = size::in_postgres(pool, &model.table_name(pointer.active)).await;
    let size = Size::new(bytes, args.disk_free_mib);
    let existing = in_postgres::generations(pool, model).await?;
    if let Some(target) = unfinished(&pointer, &existing) {
        return Ok((target, size));
    }
    size.log();
    size.check(args.yes)?;
    if args.dry_run {
        return Ok((next(&pointer, &existing)?, size));
    }
    let generation = in_postgres::reserve(pool, model, &pointer, &existing).await?;
    start_at_beginning(args, generation)?;
    in_postgres::create_generation(pool, model, generation).await?;
    Ok((Target::New(generation), size))
}

/// Before the table is made: a generation with a table has its offsets. A group may have some from a time whose record of
/// generations was lost.
fn start_at_beginning(args: &RebuildArgs, generation: Generation) -> anyhow::Result<()> {
    let kafka = &args.kafka;
    let (group, topic) = (kafka.prefixed(&args.model.group_name(generation)), kafka.prefixed(PurchasedItem::TOPIC));
    block_in_place(|| {
        let admin = Admin::new(kafka)?;
        ensure_idle(&admin, &group)?;
        let starts: Vec<_> = admin.watermarks(&topic)?.into_iter().map(|(start, _)| start).collect();
        Ok(admin.set_offsets(&group, &topic, starts)?)
    })
}

/// Runs the projector until it has caught up, or a signal. Returns whether it had caught up.
async fn build(args: &RebuildArgs, generation: Generation) -> anyhow::Result<bool> {
    let model = args.model;
    let mut signal = shutdown_signal()?;
    // The first signal lets the projector commit what it has.
    signal.started();
    let (stop, shutdown) = Shutdown::channel();
    let settings = Settings {
        kafka: args.kafka.clone(),
        member: args.member.clone(),
        batch_len_max: BATCH_LEN_MAX,
        rows_max: ROWS_MAX,
        rate_max: args.rate_max,
    };
    let base = Base::within(settings, &STARTUP, shutdown, model, generation)?;
    let work = async {
        match model.store {
            Store::Cassandra => keep_in_cassandra(base, &args.cassandra, model, generation).await,
            Store::Postgres => keep_in_postgres(base, &args.database, model, generation).await,
        }
    };
    tokio::pin!(work);
    let mut progress = block_in_place(|| Progress::new(&args.kafka, &model.group_name(generation)))?;
    let mut has_caught_up = false;
    while !has_caught_up || args.keep_running {
        tokio::select! {
            ended = &mut work => {
                ended?;
                bail!("the projector has ended before generation {generation} had caught up");
            }
            () = signal.requested() => break,
            () = tokio::time::sleep(LOOK_INTERVAL), if !has_caught_up => match block_in_place(|| progress.look()) {
                Ok(is_current) => has_caught_up = is_current,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(error, "how far the generation is could not be found out");
                }
            }
        }
        if has_caught_up && args.keep_running {
            tracing::info!("caught up; it is kept current until a signal");
            tokio::select! {
                ended = &mut work => return ended.map(|()| true),
                () = signal.requested() => break,
            }
        }
    }
    stop.send_replace(true);
    work.await?;
    Ok(has_caught_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_goes_on_and_a_number_is_never_used_again() {
        let generation = |number| Generation::new(number).expect("a generation");
        let pointer = |active, newest| GenerationPointer {
            active: generation(active),
            newest: generation(newest),
            ..GenerationPointer::FIRST
        };
        let both = [generation(1), generation(2)];
        assert_eq!(unfinished(&pointer(1, 2), &both), Some(Target::Begun(generation(2))));
        assert_eq!(unfinished(&pointer(2, 2), &both), None, "readers see it");
        assert_eq!(unfinished(&pointer(1, 2), &both[..1]), None, "it was dropped");
        assert_eq!(next(&pointer(1, 2), &both[..1]).expect("there are more"), Target::New(generation(3)));
        // The record of it was lost.
        assert_eq!(next(&pointer(1, 1), &both).expect("there are more"), Target::New(generation(3)));
        assert!(next(&pointer(1, 999), &both).is_err());
    }
}
