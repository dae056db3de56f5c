//! The audit of a real system: while it works, at its end, and with defects in its stores and topics.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, READ_MODELS, ReadModel, Store};
use cart::{CartCommand, PurchasedItem};
use cartctl::audit::{Checkpoints, Kind, Report, Target, Watcher, audit, audit_since, audit_with};
use e2e::harness::{Installation, Process, Service, binary, free_address, wait_until};
use kafka::{Producer, Record, TopicReader};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::console::Console;
use crate::metrics::{documented, nothing_is_left};

const DEADLINE: Duration = Duration::from_secs(180);

fn target(installation: &Installation) -> Target {
    let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
    Target::new(kafka, cassandra, installation.database())
}

fn replay(installation: &Installation, url: &str, record: &str) -> anyhow::Result<Process> {
    let shop =
        ["--commands", "1200", "--members", "40", "--products", "30", "--vendors", "5", "--refused-share", "0.1"];
    let run = ["--url", url, "--concurrency", "32", "--record", record, "--expect-intended"];
    installation.spawn("replay", "replay", run.into_iter().chain(shop))
}

fn found(report: &Report, kinds: &[Kind]) -> anyhow::Result<()> {
    let found: Vec<_> = report.findings_by_kind.keys().copied().collect();
    ensure!(found == kinds, "expected {kinds:?}, found:\n{report}");
    Ok(())
}

pub(crate) async fn audits_a_running_system_its_end_and_its_defects() -> anyhow::Result<()> {
    let installation = Installation::new("audit")?;
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> = vec![
        (Service::Ingest, "a", &["--allow-client-time", "--reply-timeout-ms", "30000"]),
        (Service::CartProcessor, "a", &[]),
    ];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "a", &[][..])));
    let processes = installation.start_all(&services).await?;
    let target = target(&installation);
    let url = format!("http://{}", processes[0].address().context("ingest has an address")?);
    let record = installation.folder().join("record.jsonl.gz");

    let watcher = Watcher::start(&target);
    let mut replay = replay(&installation, &url, &record.display().to_string())?;
    // While the system works, and with garbage in the log.
    garbage(&installation)?;
    let checkpoints = Checkpoints { folder: installation.folder().join("checkpoint"), is_full: false };
    let first = audit_since(&target, &checkpoints, DEADLINE).await?;
    found(&first, &[])?;
    replay.succeeded(DEADLINE).await?;

    let seen = watcher.stop().await?;
    let records = [record];
    let report = audit_with(&target, &records, DEADLINE, Some(&seen)).await?;
    found(&report, &[])?;
    let (counts, client) = (&report.counts, &report.client);
    ensure!(counts.dead_letters == 2 && counts.purchases > 100 && counts.rows > 20, "{report}");
    ensure!(client.commands == 1_200 && client.acknowledged + client.refused == 1_200, "{report}");
    ensure!(counts.accepted == client.acknowledged && client.refused > 50, "{report}");
    let due = &report.up_to_cut;
    ensure!((due.commands, due.events) == (1_200, counts.events) && due.events == due.journal_events, "{report}");
    ensure!(seen.looks().0 > 1 && seen.falls().is_empty(), "{seen:?}");

    goes_on_from_its_checkpoint(&target, &checkpoints, &first).await?;

    the_binary_reports_the_same(&installation, &records, 0)?;
    let service = start_watching(&installation)?;
    wait_until("the first look of audit --watch", DEADLINE, async || metric(&service, "audit_commands", 1_200).await)
        .await?;
    let url = service.metrics_url()?;
    let status = installation.run("status", "cartctl", ["status", "--audit-url", &url], DEADLINE).await?;
    ensure!(status.contains("last audit: 0 findings in 1,200 commands, ended "), "{status}");
    let page = Console::start(&installation, "console", &["--audit-url", &url]).await?;
    let last = |frame: &Value| json!([frame["audit"]["findings"], frame["audit"]["commands"]]);
    page.shows("the last audit", last, &json!([0, 1_200])).await?;
    drop(page);
    // A kind without findings is exported as 0, so that an alert sees the first finding.
    metric(&service, "kind=\"purchaseDoubled\"", 0).await.map_err(anyhow::Error::msg)?;
    for (process, name) in [
        (&service, "audit_runs_total{outcome=\"failed\"} "),
        (&processes[0], "ingest_requests_total{method=\"POST\",route=\"/cart/{cartId}\",status=\"504\"} "),
        (&processes[2], "projector_recoveries_total{projector=\"item-purchased-events\",kind=\"retry\"} "),
    ] {
        let text = metrics(process).await.map_err(anyhow::Error::msg)?;
        ensure!(text.lines().any(|line| line.starts_with(name)), "there is no {name}in {text}");
    }
    nothing_is_left(&installation, &processes[1..]).await?;
    documented(processes.iter().chain([&service])).await?;
    seed(&installation).await?;
    let report = audit_since(&target, &checkpoints, DEADLINE).await?;
    // The journal has a cart that had nothing at the checkpoint.
    for kind in [Kind::SealBroken, Kind::PurchaseDoubled, Kind::TotalWrong, Kind::RowTooMany] {
        ensure!(report.has(kind), "from the checkpoint on, {kind:?}:\n{report}");
    }
    ensure!(report.span.as_ref().is_some_and(|span| span.sealed.is_none()), "sealed with findings: {report}");
    let report = audit(&target, &records, DEADLINE).await?;
    // The doubled purchase is also in the tables by now, which agrees with the topic.
    for kind in [Kind::JournalOnly, Kind::PurchaseDoubled, Kind::TotalWrong, Kind::RowTooMany] {
        ensure!(report.has(kind), "{kind:?}:\n{report}");
    }
    the_binary_reports_the_same(&installation, &[], 1)?;
    each_read_model_is_checked(&installation).await?;
    wait_until("audit --watch to find it", DEADLINE, async || metric(&service, "kind=\"purchaseDoubled\"", 1).await)
        .await?;
    drop((processes, service));
    installation.remove().await
}

/// Goes on from the checkpoint that was sealed under load, and seals a new one. An audit of everything has the same hashes.
async fn goes_on_from_its_checkpoint(target: &Target, checkpoints: &Checkpoints, first: &Report) -> anyhow::Result<()> {
    let sealed =
        |report: &Report| report.span.as_ref().and_then(|span| span.sealed.clone()).context("nothing is sealed");
    let first = sealed(first)?;
    let second = audit_since(target, checkpoints, DEADLINE).await?;
    found(&second, &[])?;
    let since = second.span.as_ref().and_then(|span| span.since.as_ref());
    ensure!(since == Some(&first) && second.counts.commands + first.commands == 1_200, "after {first}: {second}");
    let full = Checkpoints { is_full: true, ..checkpoints.clone() };
    let full = audit_since(target, &full, DEADLINE).await?;
    found(&full, &[])?;
    let (second, full) = (sealed(&second)?, sealed(&full)?);
    ensure!((second.commands, second.hash) == (1_200, full.hash.clone()), "{full}");
    let third = audit_since(target, checkpoints, DEADLINE).await?;
    found(&third, &[])?;
    ensure!(third.counts.commands == 0 && sealed(&third)?.hash == full.hash, "nothing has come since: {third}");
    Ok(())
}

/// A key or a value.
type Bytes = Option<Vec<u8>>;

/// Records that can't be decided, without a key and with one.
fn garbage(installation: &Installation) -> anyhow::Result<()> {
    let topic = installation.kafka().prefixed(CartCommand::TOPIC);
    produce(installation, &topic, vec![(None, Some(b"garbage".to_vec())), (Some(b"key".to_vec()), None)])
}

fn produce(installation: &Installation, topic: &str, records: Vec<(Bytes, Bytes)>) -> anyhow::Result<()> {
    let producer = Producer::transient(installation.kafka(), topic)?;
    for (key, value) in records {
        drop(producer.send(&Record { partition: None, key, value, headers: None })?);
    }
    Ok(producer.flush(DEADLINE)?)
}

/// A doubled purchase, a wrong cent, an unexpected row and a row of the journal that was not published.
async fn seed(installation: &Installation) -> anyhow::Result<()> {
    let topic = installation.kafka().prefixed(PurchasedItem::TOPIC);
    let partitions = (0..i32::from(installation.partitions())).map(|partition| (partition, 0));
    let mut reader = TopicReader::open(installation.kafka(), &topic, partitions)?;
    let first = reader.next(DEADLINE)?.context("nothing was bought")?;
    let again = (kafka::Message::key(&first).map(<[u8]>::to_vec), kafka::Message::payload(&first).map(<[u8]>::to_vec));
    produce(installation, &topic, vec![again])?;
    let database = PgPool::connect(installation.database_url()).await?;
    let cent = "UPDATE vendor_billing_g1 SET balance = balance + 0.01 \
        WHERE ctid IN (SELECT ctid FROM vendor_billing_g1 LIMIT 1)";
    let changed = sqlx::query(cent).execute(&database).await?;
    ensure!(changed.rows_affected() == 1, "there are no rows");
    let more = "INSERT INTO vendor_billing VALUES (gen_random_uuid(), 2026, 1, 0)";
    sqlx::query(more).execute(&database).await?;
    database.close().await;
    let session = cassandra::connect(installation.cassandra()).await?;
    let lost = "INSERT INTO cart_journal (cart_id, sequence_number, position, command_id, events) \
        VALUES (uuid(), 1, 281474976710656, uuid(), [0x00])";
    session.query_unpaged(lost, ()).await?;
    Ok(())
}

/// Empties one read table after the other. The audit reports each.
async fn each_read_model_is_checked(installation: &Installation) -> anyhow::Result<()> {
    let session = cassandra::connect(&installation.cassandra().patient()).await?;
    let database = PgPool::connect(installation.database_url()).await?;
    // The report keeps the first hundred findings of each kind: the table with the most rows comes last.
    for ReadModel { table, store, .. } in READ_MODELS.into_iter().rev() {
        let table = table.name();
        match store {
            Store::Cassandra => drop(session.query_unpaged(format!("TRUNCATE {table}"), ()).await?),
            Store::Postgres => {
                sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&database).await?;
            }
        }
        let report = audit(&target(installation), &[], DEADLINE).await?;
        let is_reported = report.findings.iter().any(|finding| finding.place.contains(table));
        ensure!(is_reported, "{table} was emptied, and the audit does not report it:\n{report}");
    }
    database.close().await;
    Ok(())
}

/// Runs the binary as an operator would.
fn the_binary_reports_the_same(installation: &Installation, records: &[PathBuf], exit_code: i32) -> anyhow::Result<()> {
    let mut command = Command::new(binary("cartctl")?);
    command.args(["audit", "--json"]).envs(installation.environment());
    for record in records {
        command.arg("--record").arg(record);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(exit_code), "exit code {:?}: {text}", output.status);
    let report: Value = serde_json::from_str(&text).context("reading the JSON report")?;
    let is_clean = report["findings"].as_array().is_some_and(Vec::is_empty);
    ensure!(is_clean == (exit_code == 0) && report["counts"]["commands"].as_u64() == Some(1_200), "{report:#}");
    Ok(())
}

fn start_watching(installation: &Installation) -> anyhow::Result<Process> {
    let address = free_address()?;
    let listen = address.to_string();
    let folder = installation.folder().join("watched").display().to_string();
    let args = ["audit", "--watch", "--checkpoint", &folder, "--interval-s", "1", "--admin-listen", &listen];
    installation.spawn_listening("audit-watch", "cartctl", args, address)
}

async fn metrics(service: &Process) -> Result<String, String> {
    let url = service.metrics_url().map_err(|error| error.to_string())?;
    let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
    answer.text().await.map_err(|error| error.to_string())
}

/// Whether the service's metrics have this line with this value.
async fn metric(service: &Process, name: &str, value: u64) -> Result<(), String> {
    let text = metrics(service).await?;
    let wanted = |line: &&str| line.contains(name) && line.ends_with(&format!(" {value}"));
    if text.lines().any(|line| wanted(&line)) { Ok(()) } else { Err(text) }
}
