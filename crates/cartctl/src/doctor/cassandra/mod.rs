//! Cassandra: what its nodes do with the doctor's own rows, how they are set, and how this installation's keyspace is.

mod grants;
mod judge;
mod node;
mod trials;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use cart::CartCommand;
use cart::contract::{Contract as _, READ_MODELS, Store};
use cassandra::CassandraArgs;
use journal::{Journal, is_another_version};
use kafka::{Admin, KafkaArgs};
use scylla::client::session::Session;
use scylla::cluster::Node;
use scylla::value::CqlTimestamp;
use tokio::task::block_in_place;

use self::grants::GRANTS;
use self::judge::Keyspace;
use self::node::at;
use super::clock;
use super::report::{Check, Finding, Server, Verdict};
use crate::grants::Users;

const REACHABLE: Check =
    check("cassandra-reachable", "no service but item-purchased-events and vendor-billing-jdbc starts", "LOGIN");
const CLOCKS: Check = check(
    "cassandra-clocks",
    "if it is this machine's clock that is wrong, and an ingest runs here: purchases are booked on the wrong day, and keys are forgotten too early or too late",
    "SELECT on system.local",
);
const COMMIT_LOG: Check = check(
    "commit-log",
    "a crash of the node loses journal rows whose commands were answered with 200",
    "SELECT on system_views.settings",
);
const KEYSPACE: Check = check(
    "keyspace-copies",
    "the loss of one node loses journal rows, or makes carts unavailable",
    "SELECT on system_schema.keyspaces",
);
const TABLES: Check =
    check("tables", "the services that read or write the missing table do not start", "SELECT on its keyspace");
const KEPT: Check = check(
    "rows-are-kept",
    "journal rows or totals disappear: carts forget their items",
    "SELECT on system_schema.tables",
);
const LOG: Check = check(
    "journal-of-this-log",
    "the services that use positions do not start",
    "SELECT on its keyspace, and Describe on the topic cart-commands",
);

const fn check(name: &'static str, without_it: &'static str, needs: &'static str) -> Check {
    Check { server: Server::Cassandra, name, without_it, needs }
}

/// All checks of this server.
pub(super) fn checks() -> impl Iterator<Item = &'static Check> {
    let own = [&CLOCKS, &COMMIT_LOG, &KEYSPACE, &TABLES, &KEPT, &LOG, &GRANTS];
    [&REACHABLE].into_iter().chain(trials::CHECKS).chain(own)
}

/// Makes all of them.
pub(super) async fn check_all(args: &CassandraArgs, kafka: &KafkaArgs, users: &Users) -> Vec<Finding> {
    // With time for changes of the schema.
    let session = match cassandra::open(&args.patient()).await {
        Ok(session) => session,
        Err(error) => return vec![Finding::unknown(&REACHABLE, &error.into())],
    };
    let nodes = nodes(&session, args);
    let found = format!("nodes of data centre {} that answer: {}", args.cassandra_datacenter, nodes.len());
    let reached = async {
        anyhow::ensure!(
            !nodes.is_empty(),
            "no node of data centre {} is connected: {}",
            args.cassandra_datacenter,
            others(&session)
        );
        trials::remove_left(&session).await?;
        Ok(Verdict::holds(found))
    };
    let reached = reached.await;
    let is_reached = reached.is_ok();
    let mut findings = vec![Finding::new(&REACHABLE, reached)];
    if !is_reached {
        return findings;
    }
    findings.extend(trials::run(args, &session, nodes.len()).await);
    findings.push(Finding::new(&CLOCKS, clocks(&session, &nodes).await));
    findings.extend(installation(args, kafka, users, &session, &nodes).await);
    findings
}

/// The connected nodes of the data centre that is used.
fn nodes(session: &Session, args: &CassandraArgs) -> Vec<Arc<Node>> {
    let cluster = session.get_cluster_state();
    let is_ours =
        |node: &&Arc<Node>| node.datacenter.as_deref() == Some(&args.cassandra_datacenter) && node.is_connected();
    cluster.get_nodes_info().iter().filter(is_ours).cloned().collect()
}

/// The data centres that the cluster has.
fn others(session: &Session) -> String {
    let cluster = session.get_cluster_state();
    let names: std::collections::BTreeSet<_> =
        cluster.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    format!("the cluster's data centres are {}", names.into_iter().collect::<Vec<_>>().join(", "))
}

/// The clock that differs most decides.
async fn clocks(session: &Session, nodes: &[Arc<Node>]) -> anyhow::Result<Verdict> {
    let mut verdicts = Vec::new();
    for node in nodes {
        let before = clock::now_ms();
        let rows = session.query_unpaged(at(node, "SELECT toTimestamp(now()) FROM system.local"), ()).await?;
        let after = clock::now_ms();
        let (CqlTimestamp(now),) = rows.into_rows_result()?.first_row::<(CqlTimestamp,)>()?;
        verdicts.push(clock::judge(before, now, after));
    }
    let worst = verdicts.iter().position(|verdict| matches!(verdict, Verdict::Fails { .. }));
    let worst = worst.or_else(|| verdicts.iter().position(|verdict| !matches!(verdict, Verdict::Holds { .. })));
    verdicts.into_iter().nth(worst.unwrap_or_default()).context("no node was asked")
}

/// The installation's keyspace; without one the nodes' settings are judged for as many copies as there can be.
async fn installation(
    args: &CassandraArgs,
    kafka: &KafkaArgs,
    users: &Users,
    session: &Session,
    nodes: &[Arc<Node>],
) -> Vec<Finding> {
    let datacenter = &args.cassandra_datacenter;
    let keyspace = match keyspace(session, &args.cassandra_keyspace).await {
        Ok(keyspace) => keyspace,
        Err(error) => return [&COMMIT_LOG, &KEYSPACE].map(|check| Finding::unknown(check, &error)).into(),
    };
    let copies = keyspace.as_ref().map_or(nodes.len(), |keyspace| keyspace.copies(datacenter));
    let mut findings = vec![Finding::new(&COMMIT_LOG, commit_log(session, nodes, copies).await)];
    let Some(keyspace) = keyspace else {
        let verdict =
            Verdict::not_set_up(format!("there is no keyspace {}: run the three `setup`s", args.cassandra_keyspace));
        findings
            .extend([&KEYSPACE, &TABLES, &KEPT, &LOG, &GRANTS].map(|check| Finding::new(check, Ok(verdict.clone()))));
        return findings;
    };
    findings.push(Finding::new(&KEYSPACE, Ok(judge::keyspace(&keyspace, datacenter, nodes.len()))));
    findings.push(Finding::new(&KEPT, kept(session, &keyspace.name).await));
    findings.push(Finding::new(&GRANTS, grants::look(session, nodes, &keyspace.name, users).await));
    match cassandra::connect(args).await {
        Ok(session) => {
            findings.push(Finding::new(&TABLES, tables(&session).await));
            findings.push(Finding::new(&LOG, log(kafka, &session).await));
        }
        Err(error) => {
            let error = error.into();
            findings.extend([&TABLES, &LOG].map(|check| Finding::unknown(check, &error)));
        }
    }
    findings
}

async fn keyspace(session: &Session, name: &str) -> anyhow::Result<Option<Keyspace>> {
    let select = "SELECT durable_writes, replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let rows = session.query_unpaged(select, (name,)).await?.into_rows_result()?;
    let row = rows.maybe_first_row::<(bool, HashMap<String, String>)>()?;
    Ok(row.map(|(durable_writes, replication)| Keyspace { name: name.to_owned(), replication, durable_writes }))
}

async fn commit_log(session: &Session, nodes: &[Arc<Node>], copies: usize) -> anyhow::Result<Verdict> {
    let mut settings = Vec::new();
    for node in nodes {
        let select = at(node, "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'");
        let rows = session.query_unpaged(select, ()).await?.into_rows_result()?;
        let row = rows.maybe_first_row::<(String,)>()?;
        let (value,) = row.with_context(|| format!("{} has no setting commitlog_sync", node.address))?;
        settings.push((node.address.to_string(), value));
    }
    Ok(judge::commit_log(&settings, copies))
}

async fn kept(session: &Session, keyspace: &str) -> anyhow::Result<Verdict> {
    let select = "SELECT table_name, default_time_to_live FROM system_schema.tables WHERE keyspace_name = ?";
    let rows = session.query_unpaged(select, (keyspace,)).await?.into_rows_result()?;
    let tables = rows.rows::<(String, i32)>()?.map(|row| row.map(|(table, ttl)| (format!("{keyspace}.{table}"), ttl)));
    Ok(judge::time_to_live(&tables.collect::<Result<Vec<_>, _>>()?))
}

/// Reads a row of each table at the consistency level of the services; of the read tables those that readers see.
async fn tables(session: &Session) -> anyhow::Result<Verdict> {
    let existing = |table: &str| {
        let keyspace = session.get_keyspace().map(|name| name.to_string()).unwrap_or_default();
        session.get_cluster_state().get_keyspace(keyspace).is_some_and(|of| of.tables.contains_key(table))
    };
    let mut all: Vec<String> = TABLES_OF_ALL.iter().map(|table| (*table).to_owned()).collect();
    for model in READ_MODELS.into_iter().filter(|model| model.store == Store::Cassandra) {
        let table = model.table_name(cassandra::read_models::active(session, model).await?);
        let parked = cassandra::parked_rows::table_name(&table);
        all.extend([table, parked]);
    }
    let missing: Vec<_> = all.iter().filter(|table| !existing(table)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Ok(Verdict::fails(
            format!("missing: {}", missing.join(", ")),
            "if this is a new installation or a new version, run the three `setup`s; else follow docs/operations.md, \"Recover after a loss\"",
        ));
    }
    match Journal::check(session).await {
        Ok(()) => {}
        Err(error) if is_another_version(&error) => {
            return Ok(Verdict::fails(
                format!("{:#}", anyhow::Error::from(error)),
                "run `cart-processor setup` of this version",
            ));
        }
        Err(error) => return Err(error.into()),
    }
    for table in &all {
        session
            .query_unpaged(format!("SELECT * FROM {table} LIMIT 1"), ())
            .await
            .with_context(|| format!("reading {table}"))?;
    }
    Ok(Verdict::holds(format!("{} can be read at LOCAL_QUORUM", all.join(", "))))
}

/// The journal's tables, that of the logs, that of the generations of the read tables, and that of the requests to try their parked rows
/// again.
const TABLES_OF_ALL: [&str; 5] = ["cart_journal", "cart_unchanged", "log_epoch", "read_model", "parked_row_retry"];

async fn log(kafka: &KafkaArgs, session: &Session) -> anyhow::Result<Verdict> {
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let identity = Admin::new(kafka).and_then(|admin| block_in_place(|| admin.identity(&topic)))?;
    match cassandra::log_epoch(session, &topic, &identity).await {
        Ok(epoch) => Ok(Verdict::holds(format!("the journal is of this {topic}, log epoch {}", epoch.get()))),
        Err(cassandra::LogNotRecorded::Cassandra(error)) => Err(error.into()),
        Err(error) => Ok(Verdict::fails(error.to_string(), "docs/operations.md, \"When a topic was replaced\"")),
    }
}
