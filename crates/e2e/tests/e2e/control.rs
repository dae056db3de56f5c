//! What an operator does with `cartctl` on the whole system: `status` shows what each group does, a paused processor decides
//! nothing, also after a crash, and a record that cannot be read is skipped, which the audit and `reconcile` report. The audit
//! still goes on from its checkpoint, also after a kill while it writes one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::group::{CART_PROCESSOR, ITEM_PURCHASED_EVENTS, VENDOR_BILLING, VENDOR_BILLING_JDBC};
use cart::contract::{Contract as _, READ_MODELS, STAGES};
use cart::{CartCommand, CartParked, PurchasedItem};
use chrono::Utc;
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{Admin, Producer, Record, TransactionalProducer, partition_of};
use reqwest::Method;
use serde_json::{Value, json};

use super::http::api::{Api, Cart, item};
use super::projectors::control::has_all_partitions_paused;
use super::projectors::read_side::metric;

const DEADLINE: Duration = Duration::from_secs(180);
/// `cartctl status` has nothing to finish.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// A look waits 2 s for an open transaction and 2 s for a store; the services wait 20 s for an open transaction.
const LOOKS_WITHIN: Duration = Duration::from_secs(20);
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

struct System {
    installation: Installation,
    processes: Vec<Process>,
}

impl System {
    async fn start() -> anyhow::Result<Self> {
        let installation = Installation::new("operate")?;
        installation.setup().await?;
        let mut services =
            vec![(Service::Ingest, "0", &["--allow-client-time"][..]), (Service::CartProcessor, "0", &SESSION[..])];
        services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &SESSION[..])));
        let processes = installation.start_all(&services).await?;
        Ok(Self { installation, processes })
    }

    /// Sends commands whose outcomes are not waited for. Returns each cart with the path of its command's status.
    async fn send(&self, count: usize) -> anyhow::Result<Vec<(Cart, String)>> {
        let api = Api::new(&self.processes[0]);
        let mut sent = Vec::with_capacity(count);
        for _ in 0..count {
            let cart = api.cart();
            let headers = [("prefer", "respond-async")];
            let answer = cart.send(Method::POST, "", &headers, Some(item(1, 1).to_string())).await?;
            ensure!(answer.status == 202, "{answer:?}");
            let command = answer.json()["commandId"].as_str().context("a command has an id")?.to_owned();
            sent.push((cart, format!("/commands/{command}")));
        }
        Ok(sent)
    }

    /// Sends commands until this is dropped, or one cannot be sent.
    async fn keep_sending(&self) -> anyhow::Error {
        loop {
            if let Err(error) = self.send(10).await {
                return error;
            }
        }
    }

    async fn cartctl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.installation.run(&format!("cartctl-{}", args[0]), "cartctl", args, DEADLINE).await
    }

    async fn status(&self) -> anyhow::Result<Value> {
        let text = self.cartctl(&["status", "--json"]).await?;
        // Behind what earlier runs have written.
        let start = text.rfind("\n{").map(|start| start + 1).or_else(|| text.find('{'));
        let json = start.map(|start| &text[start..]).with_context(|| text.clone())?;
        serde_json::from_str(json).with_context(|| text.clone())
    }

    /// Waits until the status shows what is wanted of the partitions of a group.
    async fn shows(&self, what: &str, group: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<Value>> {
        wait_until(&format!("{group} {what}"), DEADLINE, async || {
            let partitions = self.partitions(group).await.map_err(|error| format!("{error:#}"))?;
            if !partitions.is_empty() && partitions.iter().all(&is_so) {
                Ok(partitions)
            } else {
                Err(Value::from(partitions).to_string())
            }
        })
        .await
    }

    /// The folder of the audit's checkpoint.
    fn checkpoints(&self) -> PathBuf {
        self.installation.folder().join("checkpoint")
    }

    /// The partitions of a group as the status shows them now.
    async fn partitions(&self, group: &str) -> anyhow::Result<Vec<Value>> {
        let status = self.status().await?;
        let partitions = status["partitions"].as_array().with_context(|| status.to_string())?;
        Ok(partitions.iter().filter(|partition| partition["group"] == group).cloned().collect())
    }

    /// Audits from a checkpoint on, if there is one, and seals a new one. The report, in a log of this name, says what was read.
    async fn audit_since(&self, name: &str, read: &str) -> anyhow::Result<String> {
        let folder = self.checkpoints().display().to_string();
        let args = ["audit", "--timeout-s", "60", "--checkpoint", &folder];
        let report = self.installation.run(name, "cartctl", args, DEADLINE).await?;
        ensure!(report.contains(read) && report.contains("sealed: the checkpoint of"), "{report}");
        Ok(report)
    }

    async fn load(&self) -> anyhow::Result<()> {
        let url = format!("http://{}", self.processes[0].address().context("ingest has an address")?);
        let shop = ["--commands", "300", "--members", "30", "--products", "12", "--vendors", "3"];
        let args = ["--url", &url, "--concurrency", "16"].into_iter().chain(shop);
        self.installation.run("replay", "replay", args, DEADLINE).await.map(drop)
    }
}

/// While commands come, the processor has a rate.
async fn a_load_has_a_rate(system: &System) -> anyhow::Result<()> {
    let has_rate = |partition: &Value| partition["rate"].as_f64().is_some_and(|rate| rate > 0.0);
    let seen = wait_until("a rate above 0", DEADLINE, async || match system.partitions(CART_PROCESSOR).await {
        Ok(partitions) if partitions.iter().any(has_rate) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    tokio::select! {
        error = system.keep_sending() => Err(error),
        seen = seen => seen,
    }
}

/// After a load nothing is behind, although transactions' markers are behind the committed offsets. No record waits, and the
/// rate falls to 0.
async fn nothing_is_behind(system: &System) -> anyhow::Result<()> {
    system.load().await?;
    let mut markers = 0;
    for stage in STAGES {
        let rests = |partition: &Value| partition["behind"] == 0 && partition["rate"] == 0.0;
        let partitions = system.shows("to have nothing left", stage.group, rests).await?;
        ensure!(partitions.iter().all(|partition| partition["oldestWaitingMs"].is_null()), "{partitions:?}");
        ensure!(partitions.iter().all(|partition| partition["state"]["is"] == "running"), "{partitions:?}");
        ensure!(partitions.iter().all(|partition| partition["owner"].is_string()), "{partitions:?}");
        let kafka = system.installation.kafka();
        let ends = tokio::task::block_in_place(|| Admin::new(kafka)?.watermarks(&kafka.prefixed(stage.topic)))?;
        let next: i64 = partitions.iter().filter_map(|partition| partition["next"].as_i64()).sum();
        markers += ends.iter().map(|(_, end)| end).sum::<i64>() - next;
    }
    ensure!(markers > 0, "the usual figure, end minus committed, is 0 too: the test shows nothing");
    Ok(())
}

/// The whole lines that a process has printed, once there are so many.
async fn printed(process: &Process, count: usize) -> anyhow::Result<Vec<String>> {
    wait_until(&format!("{count} lines of a watch"), DEADLINE, async || {
        let log = process.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        if lines.len() < count { Err(log) } else { Ok(lines) }
    })
    .await
}

/// `status --watch` prints a line a look, also after one that has failed, and ends when it is asked to.
async fn a_watch_goes_on_until_it_is_ended(system: &System) -> anyhow::Result<()> {
    let args = ["status", "--watch", "--json"];
    let mut watch = system.installation.spawn("watch", "cartctl", args)?;
    // Nothing listens there, from the first look on.
    let away = [("SCHEMA_REGISTRY_URL", String::from("http://127.0.0.1:1"))];
    let mut waits = system.installation.spawn_as("watch-away", "cartctl", args, &away, None)?;
    let lines = printed(&watch, 2).await?;
    let looks = lines.iter().map(|line| serde_json::from_str::<Value>(line).with_context(|| line.clone()));
    let looks: Vec<Value> = looks.collect::<anyhow::Result<_>>()?;
    ensure!(looks[0]["at"] != looks[1]["at"], "{lines:?}");
    for look in &looks {
        let partitions = look["partitions"].as_array().context("the partitions")?;
        ensure!(partitions.len() == STAGES.len() * usize::from(system.installation.partitions()), "{look}");
        ensure!(look["parkedCarts"] == json!([]) && look["audit"].is_null(), "{look}");
    }
    for reason in printed(&waits, 2).await? {
        let is_told = reason.contains("http://127.0.0.1:1") && reason.ends_with("; the next look is in 2 s");
        ensure!(is_told, "{reason}");
    }
    for process in [&mut watch, &mut waits] {
        process.interrupt()?;
        process.ended(ENDS_WITHIN).await?;
    }
    Ok(())
}

/// A transaction that is open on cart-parked hides the parked carts, a store that is away its parked rows, and neither hides more.
async fn what_is_not_known_hides_nothing_else(system: &System) -> anyhow::Result<()> {
    let kafka = system.installation.kafka();
    let (topic, id) = (kafka.prefixed(CartParked::TOPIC), kafka.prefixed("not-a-processor"));
    let connect = || tokio::task::block_in_place(|| TransactionalProducer::connect(kafka, &id));
    let mut open = connect()?;
    let record = Record { partition: Some(0), key: Some(b"no cart".to_vec()), value: None, headers: None };
    tokio::task::block_in_place(|| {
        let mut transaction = open.begin()?;
        transaction.send(&topic, &record)?;
        transaction.deliver()
    })?;
    let away = [("DATABASE_URL", String::from("postgres://cart@127.0.0.1:1/cart"))];
    let ended = system.installation.cartctl(&["status", "--json"], &away, LOOKS_WITHIN).await?;
    // A successor aborts the transaction of its predecessor.
    drop((connect()?, open));
    let status = ended.with(0, "one stays open; `kafka-transactions.sh find-hanging")?.json()?;
    let unknown: Vec<&str> = status["unknown"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let of_rows = format!("the parked rows of {VENDOR_BILLING_JDBC} are not known: ");
    let is_said = unknown.iter().any(|why| why.starts_with("the parked carts are not known: "))
        && unknown.iter().any(|why| why.starts_with(&of_rows));
    ensure!(is_said && unknown.len() == 2 && status["parkedCarts"].is_null(), "{status}");
    let partitions = STAGES.len() * usize::from(system.installation.partitions());
    ensure!(status["partitions"].as_array().map(Vec::len) == Some(partitions), "{status}");
    Ok(())
}

/// The commands that are sent while the processor is paused.
const SENT: usize = 8;

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

/// The commands that were sent between two times wait, in partitions whose members have recorded the pause. The age of the first one of
/// each partition is right.
async fn all_sent_wait(system: &System, (first_ms, last_ms): (i64, i64)) -> anyhow::Result<()> {
    let asked_ms = now_ms();
    let state = |partition: &Value| partition["state"]["is"] == "paused" && partition["state"]["isFollowed"] == true;
    let partitions = system.shows("to be paused", CART_PROCESSOR, state).await?;
    let waiting: u64 = partitions.iter().filter_map(|partition| partition["behind"].as_u64()).sum();
    ensure!(waiting == SENT as u64, "{partitions:?}");
    let ages = asked_ms - last_ms..=now_ms() - first_ms;
    for partition in &partitions {
        let age = partition["oldestWaitingMs"].as_i64();
        let is_right = age.map_or(partition["behind"] == 0, |age| partition["behind"] != 0 && ages.contains(&age));
        ensure!(is_right, "the age is not one of {ages:?} ms: {partition}");
    }
    Ok(())
}

/// Also not after a crash: the processor that is started then reads the pause before it decides a command.
async fn a_paused_processor_decides_nothing(system: &mut System) -> anyhow::Result<()> {
    let paused =
        system.cartctl(&["pause", CART_PROCESSOR, "--reason", "maintenance", "--by", "ops", "--wait", "60s"]).await?;
    ensure!(paused.contains("cart-processor is paused"), "{paused}");
    let before_ms = now_ms();
    let pending = system.send(SENT).await?;
    let sent_ms = (before_ms, now_ms());
    all_sent_wait(system, sent_ms).await?;
    system.processes[1].kill9()?;
    // A broker does not answer when it is to go on.
    let fails = "resume-fails=1*return";
    let mut successor = system.installation.start_to_crash(Service::CartProcessor, "0", &SESSION, fails)?;
    successor.ready(DEADLINE).await?;
    has_all_partitions_paused(&system.installation, &successor).await?;
    all_sent_wait(system, sent_ms).await?;
    let decided_by_successor = metric(&successor, "processor_commands_total").await?;
    ensure!(decided_by_successor == 0, "it has decided {decided_by_successor} commands while it was to be paused");
    system.processes[1] = successor;
    system.cartctl(&["resume", CART_PROCESSOR, "--wait", "60s"]).await?;
    for (cart, path) in pending {
        decided(&cart, &path).await?;
    }
    Ok(())
}

async fn decided(cart: &Cart, path: &str) -> anyhow::Result<()> {
    wait_until("a command to be decided", DEADLINE, async || match cart.send(Method::GET, path, &[], None).await {
        Ok(answer) if answer.status == 200 && answer.json()["status"] == "accepted" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Commands of each partition that are before the offset of its pause.
const BEFORE: i64 = 3;

/// An operator withdraws a pause when the processor has read behind its offset and has not paused yet. What it has dropped comes
/// again; what it has decided, and not yet published, is published once.
async fn a_pause_that_is_withdrawn_at_its_offset_drops_nothing(system: &mut System) -> anyhow::Result<()> {
    system.processes[1].terminate(DEADLINE).await?;
    // Behind two transactions the next ones wait.
    let args = [&SESSION[..], &["--workers", "1", "--commit-interval-ms", "5000"]].concat();
    let late = "pause-late=return";
    let mut processor = system.installation.start_to_crash(Service::CartProcessor, "0", &args, late)?;
    processor.ready(DEADLINE).await?;
    system.processes[1] = processor;
    let kafka = system.installation.kafka();
    let (group, topic) = (kafka.prefixed(CART_PROCESSOR), kafka.prefixed(CartCommand::TOPIC));
    let committed = tokio::task::block_in_place(|| Admin::new(kafka)?.committed(&group, &topic))?;
    let mut pause: Vec<String> = ["pause", CART_PROCESSOR, "--reason", "a cut"].map(String::from).into();
    for (partition, next) in committed.iter().enumerate() {
        let next = next.with_context(|| format!("{committed:?}"))?;
        pause.push(format!("--at-offset={partition}={}", next + BEFORE));
    }
    system.cartctl(&pause.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let mut left = vec![BEFORE; committed.len()];
    let count = i32::from(system.installation.partitions());
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    for (cart, path) in system.send(10 * committed.len()).await? {
        let left = &mut left[usize::try_from(partition_of(cart.id.to_string().as_bytes(), count))?];
        *left -= 1;
        if *left < 0 { behind.push((cart, path)) } else { before.push((cart, path)) }
    }
    ensure!(!behind.is_empty(), "no command is behind a cut");
    for (cart, path) in &before {
        decided(cart, path).await?;
    }
    system.cartctl(&["resume", CART_PROCESSOR]).await?;
    for (cart, path) in &behind {
        decided(cart, path).await?;
    }
    system.cartctl(&["audit", "--timeout-s", "60"]).await.map(drop)
}

async fn a_skip_is_reported(system: &mut System) -> anyhow::Result<()> {
    system.audit_since("audit-before", "there is no checkpoint yet").await?;
    let kafka = system.installation.kafka();
    let topic = kafka.prefixed(PurchasedItem::TOPIC);
    let garbage = Record { partition: Some(1), key: None, value: Some(b"garbage".to_vec()), headers: None };
    let offset = Producer::durable(kafka, &topic)?.send(&garbage)?.await?;
    let record = format!("{}/1/{offset}", PurchasedItem::TOPIC);
    for model in READ_MODELS {
        let is_stopped = |partition: &Value| partition["partition"] != 1 || partition["state"]["is"] == "stopped";
        let partitions = system.shows("to be stopped", model.group, is_stopped).await?;
        let state = &partitions[1]["state"];
        ensure!(state["offset"] == offset, "{state}");
        let expected = format!("sha256:{}", state["sha256"].as_str().context("a hash")?);
        let skip =
            ["skip", model.group, &record, "--expect", &expected, "--reason", "written by a test", "--by", "ops"];
        system.cartctl(&skip).await?;
    }
    system.load().await?;
    let skipped = system.cartctl(&["skipped"]).await?;
    ensure!(skipped.lines().filter(|line| line.contains(&record)).count() == READ_MODELS.len(), "{skipped}");
    reported(system, offset, ("audit-skipped", "skips have changed since the checkpoint")).await?;

    // A table that is built again goes past it, too.
    let place = 2 + Service::PROJECTORS
        .iter()
        .position(|projector| *projector == Service::Projector(VENDOR_BILLING))
        .context("it is one of the projectors")?;
    system.processes[place].terminate(DEADLINE).await?;
    system.cartctl(&["rebuild", VENDOR_BILLING, "--in-place"]).await?;
    system.processes[place] =
        system.installation.start_all(&[(Service::Projector(VENDOR_BILLING), "0", &SESSION)]).await?.remove(0);
    reported(system, offset, ("audit-rebuilt", "read: what has come since the checkpoint")).await
}

/// The audit and `reconcile` find nothing, and name the skips. The audit says what it has read.
async fn reported(system: &System, offset: i64, (name, read): (&str, &str)) -> anyhow::Result<()> {
    let audited = system.audit_since(name, read).await?;
    let reconciled = system.cartctl(&["reconcile", "--timeout-s", "60"]).await?;
    for report in [audited, reconciled] {
        let line = format!("skipped: {} 1/{offset} by {VENDOR_BILLING} (ops, ", PurchasedItem::TOPIC);
        ensure!(report.contains(&line) && report.contains("\"written by a test\""), "{report}");
    }
    Ok(())
}

/// Where an audit dies that writes its checkpoint, and whether that is the new one then: in the middle of a file of another name, when
/// that is whole, and when it has the name.
const KILLS: [(&str, bool); 3] = [
    ("checkpoint-unfinished=return", false),
    ("checkpoint-written=return", false),
    ("checkpoint-renamed=return", true),
];

/// The next audit goes on from the checkpoint that is there.
async fn a_killed_audit_leaves_a_checkpoint(system: &System) -> anyhow::Result<()> {
    let folder = system.checkpoints();
    let (path, folder) = (folder.join("audit-checkpoint.jsonl.gz"), folder.display().to_string());
    let files = || anyhow::Ok(fs::read_dir(&folder)?.count());
    for (round, (fail_point, is_new)) in KILLS.into_iter().enumerate() {
        system.load().await?;
        let (former, count) = (fs::read(&path)?, files()?);
        let audit = ["audit", "--timeout-s", "60", "--checkpoint", &folder];
        system.installation.cartctl_dies(&audit, fail_point, DEADLINE).await?;
        ensure!((fs::read(&path)? != former) == is_new, "after {fail_point} it is not the checkpoint that is expected");
        ensure!(files()? == count + usize::from(!is_new), "after {fail_point} there are {} files", files()?);
        let since = "read: what has come since the checkpoint";
        system.audit_since(&format!("audit-killed-{round}"), since).await?;
    }
    Ok(())
}

pub(crate) async fn operators_pause_skip_and_see_what_groups_do() -> anyhow::Result<()> {
    let mut system = System::start().await?;
    a_load_has_a_rate(&system).await?;
    nothing_is_behind(&system).await?;
    a_watch_goes_on_until_it_is_ended(&system).await?;
    what_is_not_known_hides_nothing_else(&system).await?;
    a_paused_processor_decides_nothing(&mut system).await?;
    a_skip_is_reported(&mut system).await?;
    a_killed_audit_leaves_a_checkpoint(&system).await?;
    a_pause_that_is_withdrawn_at_its_offset_drops_nothing(&mut system).await?;
    let log = system.cartctl(&["log"]).await?;
    for expected in [
        format!("pause/{CART_PROCESSOR}: pause, by ops: maintenance"),
        format!("pause/{CART_PROCESSOR}: resume"),
        format!("ack/{CART_PROCESSOR}/0: paused, next offset"),
        format!("stopped/{VENDOR_BILLING}/1: stopped at"),
        String::from("by ops: written by a test"),
    ] {
        ensure!(log.contains(&expected), "'{expected}' is not in:\n{log}");
    }
    ensure!(!log.contains(&format!("stopped/{ITEM_PURCHASED_EVENTS}")), "{log}");
    drop(system.processes);
    system.installation.remove().await
}
