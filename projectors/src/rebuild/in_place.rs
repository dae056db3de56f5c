//! Empties the active generation's table and lets its projector begin at the beginning.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use cart::contract::{Contract as _, Store};
use cart::{Generation, PurchasedItem};
use cassandra::parked_rows;
use cassandra::read_models::READERS_FORGET;
use kafka::Admin;
use scylla::client::session::Session;
use service::{Shutdown, shutdown_signal};
use sqlx::AssertSqlSafe;

use super::args::RebuildArgs;
use super::beside::ensure_unclaimed;
use super::claim::{Claim, died};
use super::refused::ensure_idle;
use super::result::{Done, Rebuilt};
use super::size::Size;
use crate::setup::create_in_cassandra;

pub(super) async fn rebuild(args: &RebuildArgs) -> anyhow::Result<Rebuilt> {
    let active = match args.model.store {
        Store::Cassandra => in_cassandra(args).await?,
        Store::Postgres => in_postgres(args).await?,
    };
    let done = if args.dry_run { Done::Nothing } else { Done::Emptied };
    Ok(Rebuilt::new(args.model, active, done, false, Size::default()))
}

/// The offsets come before the table: after a crash in between, the rows' positions make the second time harmless. And a reader with
/// `Read-After` sees that the group is at the beginning before the table is empty.
fn reset(args: &RebuildArgs, group: &str) -> anyhow::Result<()> {
    let admin = Admin::new(&args.kafka)?;
    let (group, topic) = (args.kafka.prefixed(group), args.kafka.prefixed(PurchasedItem::TOPIC));
    tokio::task::block_in_place(|| {
        ensure_idle(&admin, &group)?;
        let starts: Vec<_> = admin.watermarks(&topic)?.into_iter().map(|(start, _)| start).collect();
        if !args.dry_run {
            admin.set_offsets(&group, &topic, starts)?;
        }
        Ok(())
    })
}

fn report(args: &RebuildArgs, group: &str, table: &str) {
    if args.dry_run {
        tracing::info!(group, table, "the table would be emptied, and its group reset to the beginning (--dry-run)");
    } else {
        tracing::info!(group, table, "the table is empty; start its projector, which reads item-purchased anew");
    }
}

/// Returns the generation whose table is empty.
async fn in_cassandra(args: &RebuildArgs) -> anyhow::Result<Generation> {
    let model = args.model;
    let session = Arc::new(cassandra::connect(&args.cassandra.patient()).await?);
    let died = died(args, &session).await?;
    if args.dry_run {
        let active = cassandra::read_models::active(&session, model).await?;
        let group = model.group_name(active);
        reset(args, &group)?;
        report(args, &group, &model.table_name(active));
        return Ok(active);
    }
    let signal = shutdown_signal()?;
    // What was begun is ended: a statement that is on its way may empty the table after the claim has ended.
    signal.started();
    cassandra::read_models::create_table(&session).await?;
    let claim = Claim::take(&session, model, died).await?;
    fail_points::crash_point("emptying-claimed");
    let emptied = empty(args, &session, &claim, signal).await;
    claim.release().await;
    let active = emptied?;
    report(args, &model.group_name(active), &model.table_name(active));
    Ok(active)
}

/// Empties the table that readers see. Until the claim ends no other run does, and readers see no other generation.
async fn empty(
    args: &RebuildArgs,
    session: &Session,
    claim: &Claim,
    mut signal: Shutdown,
) -> anyhow::Result<Generation> {
    let model = args.model;
    let active = claim.ensure_held(args).await?.active;
    let (group, table) = (model.group_name(active), model.table_name(active));
    reset(args, &group)?;
    tracing::info!(seconds = READERS_FORGET.as_secs(), "waiting until no ingest takes the table for complete");
    tokio::select! {
        () = tokio::time::sleep(READERS_FORGET) => {}
        () = signal.requested() => bail!("interrupted: the table was not emptied, run it again"),
    }
    // A projector that was started meanwhile would lose what it has applied.
    reset(args, &group)?;
    create_in_cassandra(session, model, active).await?;
    fail_points::crash_point("emptying-reset");
    parked_rows::forget_requests(session, &group).await?;
    // This process may have been stopped for so long that another run has taken it for dead.
    claim.ensure_held(args).await?;
    // No deletes: their timestamps would be newer than every position, and hide all that is written afterwards. The parked rows come
    // first: after a crash in between, a row that still is there has no room for the same record, and is parked again.
    for table in [parked_rows::table_name(&table), table.clone()] {
        session.query_unpaged(format!("TRUNCATE {table}"), ()).await.with_context(|| format!("emptying {table}"))?;
        fail_points::crash_point("emptying-truncated");
    }
    Ok(active)
}

/// The balances and their offsets in one transaction. So no claim is needed: a projector that was started meanwhile begins anew.
async fn in_postgres(args: &RebuildArgs) -> anyhow::Result<Generation> {
    let model = args.model;
    let pool = args.database.connect().await?;
    let pointer = postgres::read_models::pointer(&pool, model).await?;
    ensure_unclaimed(args, &pointer)?;
    let active = pointer.active;
    let (group, table) = (model.group_name(active), model.table_name(active));
    reset(args, &group)?;
    if !args.dry_run {
        fail_points::crash_point("emptying-reset");
        let failed = || format!("emptying {table} (`projectors setup` creates it)");
        let mut transaction = pool.begin().await.with_context(failed)?;
        let truncate = AssertSqlSafe(format!("TRUNCATE {table}"));
        sqlx::query(truncate).execute(&mut *transaction).await.with_context(failed)?;
        sqlx::query("DELETE FROM projection_offset WHERE projection = $1 AND topic = $2")
            .bind(&group)
            .bind(args.kafka.prefixed(PurchasedItem::TOPIC))
            .execute(&mut *transaction)
            .await
            .with_context(failed)?;
        let topic = args.kafka.prefixed(PurchasedItem::TOPIC);
        postgres::parked_rows::forget(&mut transaction, &group, &topic).await.with_context(failed)?;
        transaction.commit().await.with_context(failed)?;
    }
    report(args, &group, &table);
    Ok(active)
}
