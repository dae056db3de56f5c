//! What can be wrong with a whole server, on servers of its own: brokers, nodes and a database whose settings are not those that
//! this system needs. Takes a minute, and the ports of the fault tests: `scripts/test --own-servers` runs it, alone.

use anyhow::ensure;
use e2e::harness::{Installation, OwnServers};
use sqlx::Connection as _;
use tokio::task::block_in_place;

use super::examine;

const KAFKA: &str = "unclean.leader.election.enable=true auto.create.topics.enable=true offsets.retention.minutes=10080 \
    message.max.bytes=950000 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer \
    allow.everyone.if.no.acl.found=true";

/// Cassandra's defaults.
const CASSANDRA: &str = "commitlog_sync=periodic commitlog_sync_period=10000ms batch_size_fail_threshold=50KiB";

/// As whom brokers without authentication know each client.
const ANYBODY: &str = "User:ANONYMOUS";

/// The id of a client with a quota, in bytes a second. The doctor sends more within the ten seconds over which the brokers average.
const SLOW: &str = "client.id=slow-client";
const QUOTA: &str = "producer_byte_rate=1000000";

pub(crate) async fn settings_of_whole_servers_are_named_with_what_to_do() -> anyhow::Result<()> {
    let settings = [("KAFKA_SETTINGS", KAFKA), ("CASSANDRA_SETTINGS", CASSANDRA)];
    let servers = block_in_place(|| OwnServers::start_with_settings("doctor-servers", &settings))?;
    let installation = Installation::on("doctor_servers", &servers)?;
    let mut database = servers.database().await?;
    for statement in ["ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut database).await?;
    }
    database.close().await?;
    installation.create_database().await?;
    let session = cassandra::open(&installation.cassandra().patient()).await?;
    let select = "SELECT value FROM system_views.settings WHERE name = 'batch_size_fail_threshold'";
    let (limit,) = session.query_unpaged(select, ()).await?.into_rows_result()?.first_row::<(String,)>()?;
    ensure!(limit == "50KiB", "batch_size_fail_threshold is {limit}");

    let findings = examine(&installation, &[])?;
    ensure!(findings.exit_code == Some(1), "{:?}", findings.exit_code);
    for (check, state, words) in [
        ("clean-elections-by-default", "failed", ["unclean.leader.election.enable=true", "in the brokers' settings"]),
        ("record-sizes", "failed", ["a command or event of 998976 bytes", "message.max.bytes"]),
        ("offset-retention", "warning", ["for 7 days", "offsets.retention.minutes"]),
        ("no-automatic-topics", "warning", ["auto.create.topics.enable=true", "auto.create.topics.enable=false"]),
        ("commit-log", "failed", ["periodic", "commitlog_sync: batch"]),
        // Cassandra's limit is for batches of several partitions.
        ("large-batches", "ok", ["1800000 bytes", "is accepted"]),
        ("durable-commits", "failed", ["fsync=off", "fsync = on"]),
        ("no-quota", "ok", ["not slowed down", "MiB"]),
        ("authorizer", "ok", ["authorizer.class.name", "StandardAuthorizer"]),
        ("kafka-grants", "warning", ["the brokers list no ACL", "cartctl grants --for kafka "]),
    ] {
        findings.expect(check, state, &words)?;
    }
    ensure!(findings.of("unknown").is_empty(), "{:?}", findings.checks);

    // A quota of one client id, and then grants that are taken away from every client.
    let quota = ["--alter", "--entity-type", "clients", "--entity-name", "slow-client", "--add-config", QUOTA];
    block_in_place(|| servers.kafka_tool("kafka.admin.ConfigCommand", &quota))?;
    let findings = examine(&installation, &[("KAFKA_PROPERTIES", SLOW)])?;
    findings.expect("no-quota", "warning", &["producing by", "raise the quotas"])?;

    let acl = |words: &[&str]| -> anyhow::Result<()> {
        let args = [&["--add", "--force"], words].concat();
        block_in_place(|| servers.kafka_tool("org.apache.kafka.tools.AclCommand", &args)).map(drop)
    };
    // Where a resource has a grant, what is not granted is refused.
    let all = ["--topic", "*", "--group", "*", "--transactional-id", "*", "--cluster"];
    acl(&[&["--allow-principal", ANYBODY, "--operation", "All"], &all[..]].concat())?;
    for (operation, resource) in
        [("Write", &["--transactional-id", "*"][..]), ("DescribeConfigs", &["--cluster"]), ("Read", &["--group", "*"])]
    {
        acl(&[&["--deny-principal", ANYBODY, "--operation", operation], resource].concat())?;
    }
    let findings = examine(&installation, &[])?;
    for (check, words) in [
        ("fenced-producers", ["a permission is missing", "Write on the transactional id"]),
        ("offsets-in-transactions", ["a permission is missing", "Read on the group"]),
        ("offset-retention", ["a permission is missing", "DescribeConfigs on the cluster"]),
        ("kafka-grants", ["a permission is missing", "DescribeConfigs on the cluster"]),
    ] {
        findings.expect(check, "unknown", &words)?;
    }

    // With one copy no write of a transaction's state is acknowledged by two.
    let state = ["--alter", "--entity-type", "topics", "--entity-name", "__transaction_state"];
    let state = [&state[..], &["--add-config", "min.insync.replicas=2"]].concat();
    block_in_place(|| servers.kafka_tool("kafka.admin.ConfigCommand", &state))?;
    let findings = examine(&installation, &[])?;
    let words = ["copies: 1, min.insync.replicas: 2", "nothing can be written", "min.insync.replicas=1"];
    findings.expect("transaction-state-copies", "failed", &words)?;
    Ok(std::fs::remove_dir_all(installation.folder())?)
}
