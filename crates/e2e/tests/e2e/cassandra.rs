//! crates/cassandra on a real node, without the services: grouped writes, decimals, and the recorded identity of a log.

use anyhow::{Context as _, ensure};
use cart::LogEpoch;
use cassandra::{KeyspaceArgs, LogNotRecorded};
use e2e::harness::Installation;
use futures::future::try_join_all;
use kafka::LogIdentity;
use rust_decimal::Decimal;
use scylla::client::session::Session;
use scylla::value::CqlDecimal;

/// An installation with an empty keyspace, and a session on it.
async fn keyspace(name: &str) -> anyhow::Result<(Installation, Session)> {
    let installation = Installation::new(name)?;
    let args = installation.cassandra();
    let missing = cassandra::connect(args).await.err().context("a keyspace exists before it is created")?;
    let missing = format!("{:#}", anyhow::Error::from(missing));
    ensure!(missing.contains(&args.cassandra_keyspace) && missing.contains("`setup` creates it"), "{missing}");
    cassandra::ensure_keyspace(args, &KeyspaceArgs { cassandra_replication: 1 }).await?;
    let session = cassandra::connect(&args.patient()).await?;
    Ok((installation, session))
}

async fn remove(installation: Installation, session: Session) -> anyhow::Result<()> {
    session.query_unpaged(format!("DROP KEYSPACE {}", installation.name()), ()).await?;
    Ok(std::fs::remove_dir(installation.folder())?)
}

/// A row: partition key, clustering key, value, timestamp.
type Written = (i32, i32, CqlDecimal, i64);

async fn write(session: &Session, rows: Vec<Written>) -> anyhow::Result<usize> {
    let insert = "INSERT INTO amounts (vendor, day, amount) VALUES (?, ?, ?) USING TIMESTAMP ?";
    let mut insert = session.prepare(insert).await?;
    insert.set_is_idempotent(true);
    let groups = cassandra::groups(session, "amounts", rows, |row| ((row.0,), 100));
    try_join_all(groups.iter().map(|rows| cassandra::write_rows(session, &insert, rows.clone()))).await?;
    Ok(groups.len())
}

async fn read(session: &Session) -> anyhow::Result<Vec<(i32, i32, Decimal)>> {
    let rows = session.query_unpaged("SELECT vendor, day, amount FROM amounts", ()).await?.into_rows_result()?;
    let mut all = Vec::new();
    for row in rows.rows::<(i32, i32, CqlDecimal)>()? {
        let (vendor, day, amount) = row?;
        all.push((vendor, day, cassandra::decimal_from_cql(&amount).context("an amount has too many digits")?));
    }
    all.sort_unstable();
    Ok(all)
}

/// 60 vendors of ten days each: more partitions and more bytes than one request may have.
fn rows(amount: impl Fn(i32) -> Decimal, timestamp: i64) -> Vec<Written> {
    let row = |number| (number / 10, number % 10, cassandra::decimal_to_cql(amount(number)), timestamp);
    (0..600).map(row).collect()
}

pub(crate) async fn grouped_rows_are_all_written_and_a_late_write_changes_nothing() -> anyhow::Result<()> {
    let (installation, session) = keyspace("amounts").await?;
    let table = "CREATE TABLE amounts (vendor int, day int, amount decimal, PRIMARY KEY (vendor, day))";
    session.query_unpaged(table, ()).await?;
    session.await_schema_agreement().await?;

    // Of both signs, and up to the most digits that a decimal has.
    let amount = |number: i32| match number {
        0 => Decimal::MAX,
        1 => Decimal::MIN,
        _ => Decimal::new(i64::from(number - 300) * 1_001, 3),
    };
    let requests = write(&session, rows(amount, 20)).await?;
    ensure!(requests > 1 && requests < 60, "600 rows of 60 partitions were {requests} requests");
    let expected: Vec<_> = (0..600).map(|number| (number / 10, number % 10, amount(number))).collect();
    ensure!(read(&session).await? == expected, "other rows than were written");
    write(&session, rows(|_| Decimal::ONE, 19)).await?;
    ensure!(read(&session).await? == expected, "an older write has replaced a newer one");
    remove(installation, session).await
}

pub(crate) async fn a_log_has_one_epoch_until_another_log_is_accepted() -> anyhow::Result<()> {
    let (installation, session) = keyspace("logs").await?;
    cassandra::create_log_table(&session).await?;
    let log = |topic_id: &str| LogIdentity { cluster_id: "c".into(), topic_id: topic_id.into(), partitions: 4 };
    let (first, second) = (log("first"), log("second"));
    let epoch = |number| LogEpoch::new(number).context("a log epoch");

    let unknown = cassandra::log_epoch(&session, "topic", &first).await;
    ensure!(matches!(unknown, Err(LogNotRecorded::Unknown { .. })), "before setup: {unknown:?}");
    ensure!(cassandra::ensure_log(&session, "topic", &first).await? == LogEpoch::FIRST);
    ensure!(cassandra::accept_new_log(&session, "topic", &first).await? == LogEpoch::FIRST, "the same log is not new");
    for other in [&second, &LogIdentity { partitions: 5, ..first.clone() }] {
        let rejected = cassandra::ensure_log(&session, "topic", other).await;
        ensure!(matches!(rejected, Err(LogNotRecorded::Another { .. })), "{other:?}: {rejected:?}");
    }
    // Two operators at once: the log is accepted once.
    let both = try_join_all([1, 2].map(|_| cassandra::accept_new_log(&session, "topic", &second))).await?;
    ensure!(both == [epoch(2)?; 2], "accepted twice: {both:?}");
    ensure!(cassandra::log_epoch(&session, "topic", &second).await? == epoch(2)?);
    let former = cassandra::log_epoch(&session, "topic", &first).await;
    ensure!(matches!(former, Err(LogNotRecorded::Another { .. })), "the former log: {former:?}");

    // A keyspace that was lost: what it held was of a later epoch.
    ensure!(cassandra::restore_log(&session, "other", &first, epoch(3)?).await? == epoch(3)?);
    ensure!(cassandra::ensure_log(&session, "other", &first).await? == epoch(3)?);
    remove(installation, session).await
}
