//! `cartctl doctor`: on the usual servers all checks hold, and nothing is left behind; each thing that is wrong on purpose is
//! named, with what to do.

pub(crate) mod own_servers;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, PurchasedItem};
use e2e::harness::{Installation, binary};
use kafka::{Admin, Registry, TopicSpec};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::block_in_place;

const DEADLINE: Duration = Duration::from_secs(180);

/// What a run has found.
struct Findings {
    exit_code: Option<i32>,
    /// By the name of the check.
    checks: BTreeMap<String, Value>,
}

impl Findings {
    fn of(&self, state: &str) -> Vec<&str> {
        self.checks.iter().filter(|(_, finding)| finding["state"] == state).map(|(name, _)| name.as_str()).collect()
    }

    /// A check must have this state, and say these words of what it found and of what to do.
    fn expect(&self, check: &str, state: &str, words: &[&str]) -> anyhow::Result<()> {
        let finding = self.checks.get(check).with_context(|| format!("there is no check {check}"))?;
        ensure!(finding["state"] == state, "{check} is not {state}: {finding:#}");
        ensure!(finding["withoutIt"].as_str().is_some_and(|text| text.len() > 10), "{finding:#}");
        for word in words {
            let is_said =
                ["found", "change"].iter().any(|key| finding[key].as_str().is_some_and(|text| text.contains(word)));
            ensure!(is_said, "{check} does not say '{word}': {finding:#}");
        }
        Ok(())
    }
}

fn run(installation: &Installation, args: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Output> {
    let mut doctor = Command::new(binary("cartctl")?);
    doctor.arg("doctor").args(args).envs(installation.environment()).envs(environment.iter().copied());
    block_in_place(|| doctor.output()).context("running the doctor")
}

/// Runs the doctor with more environment variables.
fn examine(installation: &Installation, environment: &[(&str, &str)]) -> anyhow::Result<Findings> {
    let output = run(installation, &["--json"], environment)?;
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).with_context(said)?;
    let all = report["checks"].as_array().with_context(said)?;
    let named = |finding: &Value| Some((finding["check"].as_str()?.to_owned(), finding.clone()));
    let checks: BTreeMap<_, _> = all.iter().filter_map(named).collect();
    ensure!(checks.len() == all.len(), "a check is there twice: {}", said());
    Ok(Findings { exit_code: output.status.code(), checks })
}

/// What one copy of everything means, and brokers that know no users.
const PLAIN: [&str; 5] = ["authorizer", "keyspace-copies", "offset-copies", "topic-copies", "transaction-state-copies"];

/// Servers that do not restrict their clients, or know none of the services' users.
const WITHOUT_USERS: [&str; 3] = ["cassandra-grants", "kafka-grants", "postgres-grants"];

/// Of an installation: what is not there before its `setup`.
const SET_UP: [&str; 14] = [
    "cassandra-grants",
    "clean-elections",
    "journal-of-this-log",
    "kafka-grants",
    "keyspace-copies",
    "migrations",
    "partitions",
    "postgres-grants",
    "rows-are-kept",
    "schemas-registered",
    "subject-compatibility",
    "tables",
    "topic-copies",
    "topic-settings",
];

/// A name as of a doctor that was killed long ago.
const LEFT: &str = "cart_doctor_1000_";

/// Of the doctor's subject.
const SUBJECT: &str = "cart_doctor";

/// What doctors have left under the installation's names: topics, subjects, keyspaces and schemas.
async fn left(installation: &Installation) -> anyhow::Result<Vec<String>> {
    let kafka = installation.kafka();
    let partitions = block_in_place(|| Admin::new(kafka)?.copies())?;
    let mut all: Vec<_> = partitions.into_iter().map(|partition| partition.topic).collect();
    all.retain(|name| name.starts_with(&kafka.prefixed("cart_doctor_")));
    if Registry::new(kafka)?.is_registered(SUBJECT, CartEvent::SCHEMA).await?.is_some() {
        all.push(String::from(SUBJECT));
    }
    let session = cassandra::open(installation.cassandra()).await?;
    let cluster = session.get_cluster_state();
    all.extend(cluster.keyspaces_iter().map(|(name, _)| name.to_owned()).filter(|name| name.starts_with(LEFT)));
    let database = PgPool::connect(installation.database_url()).await?;
    let schemas = "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'cart_doctor_%'";
    all.extend(sqlx::query_scalar::<_, String>(schemas).fetch_all(&database).await?);
    Ok(all)
}

pub(crate) async fn all_checks_hold_and_nothing_is_left() -> anyhow::Result<()> {
    let installation = Installation::new("doctor")?;
    installation.create_database().await?;
    let kafka = installation.kafka();

    // Before `setup`, and with what a killed doctor has left.
    let topic = TopicSpec { name: kafka.prefixed(&format!("{LEFT}a-log")), partitions: 1, replication: 1, config: &[] };
    Admin::new(kafka)?.ensure_topics(&[topic]).await?;
    Registry::new(kafka)?.register(SUBJECT, CartEvent::SCHEMA).await?;
    let session = cassandra::open(&installation.cassandra().patient()).await?;
    let create = format!(
        "CREATE KEYSPACE {LEFT}{} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}",
        installation.name()
    );
    session.query_unpaged(create, ()).await?;
    let database = PgPool::connect(installation.database_url()).await?;
    sqlx::query("CREATE SCHEMA cart_doctor_1000_a").execute(&database).await?;
    ensure!(left(&installation).await?.len() == 4, "{:?}", left(&installation).await?);
    let findings = examine(&installation, &[])?;
    ensure!(findings.exit_code == Some(0), "{:?}", findings.checks);
    ensure!(findings.of("notSetUp") == SET_UP, "{:?}", findings.of("notSetUp"));
    ensure!(left(&installation).await?.is_empty(), "{:?}", left(&installation).await?);

    // The database is there already.
    for binary in ["cart-processor", "ingest", "projectors"] {
        installation.run(&format!("{binary}-setup"), binary, ["setup"], DEADLINE).await?;
    }
    let findings = examine(&installation, &[])?;
    ensure!(findings.exit_code == Some(0), "{:?}", findings.checks);
    ensure!(findings.of("warning") == PLAIN, "{:?}", findings.checks);
    ensure!(findings.checks.len() == cartctl::doctor::checks().count(), "{:?}", findings.checks.keys());
    ensure!(findings.of("notSetUp") == WITHOUT_USERS, "{:?}", findings.checks);
    findings.expect("kafka-grants", "notSetUp", &["no authorizer", "every client may do everything"])?;
    findings.expect("cassandra-grants", "notSetUp", &["AllowAllAuthorizer", "every client may do everything"])?;
    findings.expect("postgres-grants", "notSetUp", &["none of the services' users exists"])?;
    let others = ["failed", "unknown"].map(|state| findings.of(state));
    ensure!(others.iter().all(Vec::is_empty), "{others:?}");
    ensure!(left(&installation).await?.is_empty(), "{:?}", left(&installation).await?);

    let text = String::from_utf8(run(&installation, &[], &[])?.stdout)?;
    for words in
        ["ok         fenced-producers: ", "warning    topic-copies: ", "without it: ", "to do: ", "0 failed, 0 unknown"]
    {
        ensure!(text.contains(words), "the text does not say '{words}': {text}");
    }
    installation.remove().await
}

pub(crate) async fn servers_that_do_not_answer_are_named() -> anyhow::Result<()> {
    const NOWHERE: [(&str, &str); 4] = [
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"),
        ("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1"),
        ("CASSANDRA_NODES", "127.0.0.1:1"),
        ("DATABASE_URL", "postgres://cart:cart@127.0.0.1:1/cart"),
    ];
    let installation = Installation::new("doctor_away")?;
    let findings = examine(&installation, &NOWHERE)?;
    ensure!(findings.exit_code == Some(2), "{:?}", findings.exit_code);
    for server in ["kafka", "registry", "cassandra", "postgres"] {
        findings.expect(&format!("{server}-reachable"), "unknown", &["could not be found out", "127.0.0.1:1"])?;
    }
    Ok(std::fs::remove_dir_all(installation.folder())?)
}

/// Sets the compatibility of a subject.
async fn set_compatibility(installation: &Installation, topic: &str, level: &str) -> anyhow::Result<()> {
    let kafka = installation.kafka();
    let url = format!("{}/config/{}-value", kafka.schema_registry_url, kafka.prefixed(topic));
    let body = serde_json::json!({ "compatibility": level });
    reqwest::Client::new().put(url).json(&body).send().await?.error_for_status()?;
    Ok(())
}

pub(crate) async fn each_misconfiguration_is_named_with_what_to_do() -> anyhow::Result<()> {
    let installation = Installation::new("doctor_ill")?;
    let kafka = installation.kafka();
    let topic =
        |name: &str, partitions, config| TopicSpec { name: kafka.prefixed(name), partitions, replication: 1, config };
    Admin::new(kafka)?
        .ensure_topics(&[
            topic(CartCommand::TOPIC, 4, &[("retention.ms", "86400000")]),
            topic(CartEvent::TOPIC, 3, &[("unclean.leader.election.enable", "true"), ("retention.ms", "-1")]),
            topic(PurchasedItem::TOPIC, 4, &[("min.insync.replicas", "2"), ("cleanup.policy", "compact")]),
        ])
        .await?;
    installation.setup().await?;
    set_compatibility(&installation, CartEvent::TOPIC, "NONE").await?;
    let session = cassandra::connect(&installation.cassandra().patient()).await?;
    for statement in [
        format!("ALTER KEYSPACE {} WITH durable_writes = false", installation.name()),
        String::from("DROP TABLE balance_by_vendor"),
        String::from("ALTER TABLE item_quantity_by_day WITH default_time_to_live = 3600"),
        // Another log than the topic's.
        format!("UPDATE log_epoch SET topic_id = 'another' WHERE topic = '{}'", kafka.prefixed(CartCommand::TOPIC)),
    ] {
        session.query_unpaged(statement, ()).await?;
    }
    let database = PgPool::connect(installation.database_url()).await?;
    sqlx::query(r"UPDATE _sqlx_migrations SET checksum = '\x00'").execute(&database).await?;
    sqlx::query("DROP TABLE projection_offset").execute(&database).await?;
    let set = format!("ALTER DATABASE {} SET synchronous_commit = off", installation.name());
    sqlx::query(sqlx::AssertSqlSafe(set)).execute(&database).await?;

    let findings = examine(&installation, &[("FAILPOINTS", "clock=return(3600)")])?;
    ensure!(findings.exit_code == Some(1), "{:?}", findings.exit_code);
    let events = kafka.prefixed(CartEvent::TOPIC);
    let in_sync = format!("{} has copies: 1, min.insync.replicas: 2", kafka.prefixed(PurchasedItem::TOPIC));
    let url = format!("{}/config/{events}-value", kafka.schema_registry_url);
    for (check, words) in [
        ("topic-settings", ["retention.ms=86400000, not -1", "--add-config retention.ms=-1"]),
        ("partitions", ["has 4 partitions", "has 3"]),
        ("topic-copies", [in_sync.as_str(), "--add-config min.insync.replicas=1"]),
        ("clean-elections", [events.as_str(), "--add-config unclean.leader.election.enable=false"]),
        ("subject-compatibility", ["is NONE, not BACKWARD_TRANSITIVE", &url]),
        ("keyspace-copies", ["durable_writes=false", "WITH durable_writes = true"]),
        ("tables", ["missing: balance_by_vendor", "Recover after a loss"]),
        ("rows-are-kept", ["item_quantity_by_day deletes rows after 3600 s", "default_time_to_live = 0"]),
        ("journal-of-this-log", ["is not the log that this keyspace was built from", "When a topic was replaced"]),
        ("migrations", ["is another one than this program's", "table projection_offset does not exist"]),
        ("kafka-clock", ["behind this machine's", "NTP"]),
        ("cassandra-clocks", ["behind this machine's", "NTP"]),
        ("postgres-clock", ["behind this machine's", "NTP"]),
    ] {
        findings.expect(check, "failed", &words)?;
    }
    findings.expect("topic-settings", "failed", &["cleanup.policy=compact, not delete"])?;
    findings.expect("durable-commits", "warning", &["synchronous_commit=off"])?;
    ensure!(findings.of("failed").len() == 13 && findings.of("unknown").is_empty(), "{:?}", findings.checks);
    installation.remove().await
}
