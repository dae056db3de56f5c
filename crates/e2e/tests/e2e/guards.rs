//! Each guard in the situation for which it is there, once with it and then without it. With all guards the audit finds
//! nothing. Without the guard the audit finds the expected defect, which shows that both the guard and the audit work.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them). They stop at a named place, as in a pause of
//! the machine, and can run without a guard.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, Event, Item, LogEpoch, Position};
use cartctl::audit::{Kind, Report, Target, audit};
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{Admin, Codec, Record, Registry, TransactionalProducer};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

use super::projectors::read_side::metric;

const DEADLINE: Duration = Duration::from_secs(180);

/// A stopped member loses its partitions after this.
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

const BILLING: Service = Service::Projector("vendor-billing");
const JDBC: Service = Service::Projector("vendor-billing-jdbc");
const RE_KEYING: Service = Service::Projector("item-purchased-events");

/// How often a situation is tried without the guard: a machine that halts for seconds may lose the connection over which the
/// defect would have come.
const TRIES_WITHOUT: usize = 3;

/// How long the audit may take to find the defect after the last command.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);

/// One worker: a process that stops at a fail point has no other worker that stops in the middle of its work. Transactions
/// follow each other closely, so that a short load has many.
const WORKER: [&str; 6] = ["--session-timeout-ms", "2000", "--workers", "1", "--commit-interval-ms", "25"];

fn options(service: Service) -> &'static [&'static str] {
    match service {
        Service::Ingest | Service::LimitedIngest => &["--allow-client-time"],
        Service::CartProcessor => &WORKER,
        Service::Projector(_) => &SESSION,
    }
}

/// A system without one service, which the test starts.
struct System {
    installation: Installation,
    target: Target,
    url: String,
    /// All other services.
    others: Vec<Process>,
    loads: u32,
}

impl System {
    async fn start(name: &str, without: Service) -> anyhow::Result<Self> {
        let installation = Installation::new(name)?;
        installation.setup().await?;
        let all = [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS);
        let services: Vec<_> = all.filter(|service| *service != without).map(|s| (s, "0", options(s))).collect();
        let others = installation.start_all(&services).await?;
        let url = format!("http://{}", others[0].address().context("ingest has an address")?);
        let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
        let target = Target::new(kafka, cassandra, installation.database());
        Ok(Self { installation, target, url, others, loads: 0 })
    }

    /// Uses the same carts each time: some commands are rejected, and every row of the tables is changed.
    fn load(&mut self, commands: &str) -> anyhow::Result<Process> {
        self.loads += 1;
        let seed = self.loads.to_string();
        let shop = ["--commands", commands, "--members", "30", "--products", "12", "--vendors", "3", "--seed", &seed];
        let run = ["--url", &self.url, "--concurrency", "16"];
        self.installation.spawn(&format!("replay-{seed}"), "replay", run.into_iter().chain(shop))
    }

    async fn start_one(&self, service: Service, instance: &str, fail_points: &str) -> anyhow::Result<Process> {
        let mut process = self.installation.start_to_crash(service, instance, options(service), fail_points)?;
        process.ready(DEADLINE).await?;
        Ok(process)
    }

    async fn audit(&self) -> anyhow::Result<Report> {
        audit(&self.target, &[], DEADLINE).await
    }

    /// Fails unless the audit finds nothing.
    async fn is_clean(&self, situation: &str) -> anyhow::Result<()> {
        let report = self.audit().await?;
        ensure!(report.is_clean(), "{situation}, with all guards:\n{report}");
        Ok(())
    }

    /// Whether the audit finds all of these.
    async fn has(&self, kinds: &[Kind]) -> anyhow::Result<bool> {
        let what = format!("the audit to find {kinds:?}");
        let look = wait_until(&what, LOOK_DEADLINE, async || match self.audit().await {
            Ok(report) if kinds.iter().all(|kind| report.has(*kind)) => Ok(()),
            Ok(report) => Err(report.to_string()),
            Err(error) => Err(format!("{error:#}")),
        });
        Ok(look.await.is_ok())
    }

    async fn remove(self) -> anyhow::Result<()> {
        drop(self.others);
        self.installation.remove().await
    }
}

/// A guard, and how its absence shows.
struct Guard {
    /// The fail point that switches it off.
    switch: &'static str,
    /// What the audit finds without it.
    defects: &'static [Kind],
    /// The situation, for a failure with the guard.
    situation: &'static str,
}

/// One try of a situation.
struct Round {
    number: usize,
    /// The fail point that switches the guard off; empty if it is on.
    off: String,
}

impl Round {
    /// Fail points, and behind them the one that switches the guard off.
    fn fail_points(&self, first: &str) -> String {
        [first, &self.off].into_iter().filter(|points| !points.is_empty()).collect::<Vec<_>>().join(";")
    }
}

impl Guard {
    /// Tries the situation with the guard and then without it, until the defect shows. `round` returns the processes that run
    /// until the audit is done.
    async fn matters(
        &self,
        name: &str,
        service: Service,
        mut round: impl AsyncFnMut(&mut System, &Round) -> anyhow::Result<Vec<Process>>,
    ) -> anyhow::Result<()> {
        let mut system = System::start(name, service).await?;
        let processes = round(&mut system, &Round { number: 0, off: String::new() }).await?;
        system.is_clean(self.situation).await?;
        drop(processes);
        for number in 1..=TRIES_WITHOUT {
            let processes = round(&mut system, &Round { number, off: format!("{}=return", self.switch) }).await?;
            if system.has(self.defects).await? {
                drop(processes);
                return system.remove().await;
            }
        }
        bail!("without the guard {} the audit has not found {:?}", self.switch, self.defects)
    }
}

/// Waits until a process has stopped itself.
async fn stopped(process: &Process) -> anyhow::Result<()> {
    wait_until("the process to stop at its fail point", DEADLINE, async || match process.state() {
        Some('T') => Ok(()),
        state => Err(format!("state {state:?}")),
    })
    .await
}

/// Waits until a process has partitions.
async fn has_partitions(process: &Process) -> anyhow::Result<()> {
    wait_until("the process to be given partitions", DEADLINE, async || {
        match metric(process, "cart_assigned_partitions").await {
            Ok(0) => Err(String::from("it has none")),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// Resumes a stopped process, and waits until it has done its pending work and rejoined its group. Its log shows that: its metrics
/// cannot be read while it is stopped, so there is nothing to compare later ones with.
async fn resume(process: &Process) -> anyhow::Result<()> {
    let before = process.log().lines().count();
    process.resume()?;
    wait_until("the process to notice that it was away", DEADLINE, async || {
        let log = process.log();
        let news: Vec<_> = log.lines().skip(before).collect();
        if news.iter().any(|line| line.contains("partitions assigned")) { Ok(()) } else { Err(news.join("\n")) }
    })
    .await
}

/// Two instances of a projector that keeps totals: one stops with a batch in its hands, and the other takes over.
async fn stale_projector(name: &str, service: Service, stop_at: &str, guard: Guard) -> anyhow::Result<()> {
    let round = async |system: &mut System, round: &Round| {
        system.load("300")?.succeeded(DEADLINE).await?;
        let stop = round.fail_points(&format!("{stop_at}=1*return(stop)->off"));
        let first = system.installation.start_to_crash(service, &format!("a{}", round.number), &SESSION, &stop)?;
        stopped(&first).await?;
        // More purchases for the same rows, so that the batch of the first one is stale.
        system.load("300")?.succeeded(DEADLINE).await?;
        let second = system.start_one(service, &format!("b{}", round.number), &round.off).await?;
        system.is_clean("another instance has taken over").await?;
        resume(&first).await?;
        anyhow::Ok(vec![first, second])
    };
    guard.matters(name, service, round).await
}

pub(crate) async fn timestamps_by_position_keep_a_late_writer_out() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-timestamps",
        defects: &[Kind::TotalStale],
        situation: "the stopped instance has gone on",
    };
    stale_projector("guard_time", BILLING, "totals-before-write", guard).await
}

/// Adds an item to a new cart.
async fn add(url: &str, cart: Uuid, preference: &str) -> anyhow::Result<u16> {
    let item =
        json!({"productId": Uuid::new_v4(), "vendorId": Uuid::new_v4(), "name": "mug", "price": "1", "quantity": 1});
    let sent = reqwest::Client::new().post(format!("{url}/cart/{cart}")).header("prefer", preference).json(&item);
    Ok(sent.send().await?.status().as_u16())
}

/// Replaces the log while a processor is stopped between a decision and its write. A processor of the old log that still runs
/// must not write into the journal of the new one.
async fn new_log(system: &mut System) -> anyhow::Result<()> {
    let installation = &system.installation;
    let (kafka, topic) = (installation.kafka(), installation.kafka().prefixed(CartCommand::TOPIC));
    let mut ingest = system.others.remove(0);
    ingest.terminate(DEADLINE).await?;
    let admin = Admin::new(kafka)?;
    admin.remove_topics(&[&topic]).await?;
    // Rejected until the topic is deleted and the stopped processor's session has timed out.
    wait_until("the new log to be accepted", DEADLINE, async || {
        let setup = ["setup", "--accept-new-log"];
        installation.run("accept", "cart-processor", setup, DEADLINE).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    let mut ingest = installation.start(Service::Ingest, "0", options(Service::Ingest))?;
    ingest.ready(DEADLINE).await?;
    system.url = format!("http://{}", ingest.address().context("ingest has an address")?);
    system.others.insert(0, ingest);
    Ok(())
}

pub(crate) async fn timestamps_by_position_keep_an_old_logs_processor_out_of_the_journal() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-journal-timestamps",
        defects: &[Kind::JournalDiffers],
        situation: "the old log's processor has gone on",
    };
    let round = async |system: &mut System, round: &Round| {
        // It writes, and ends.
        let stop = round.fail_points("processor-before-journal=1*return(stop)->off;processor-after-journal=return");
        let mut first = system.start_one(Service::CartProcessor, &format!("a{}", round.number), &stop).await?;
        let cart = Uuid::new_v4();
        ensure!(add(&system.url, cart, "respond-async").await? == 202, "the command was not accepted");
        stopped(&first).await?;
        new_log(system).await?;
        let second = system.start_one(Service::CartProcessor, &format!("b{}", round.number), &round.off).await?;
        for _ in 0..3 {
            // 202 on a slow machine; the audit waits for the outcome.
            let status = add(&system.url, cart, "wait=30").await?;
            ensure!([200, 202].contains(&status), "the new log's command was answered with {status}");
        }
        system.is_clean("there is a new log").await?;
        first.resume()?;
        first.ended(DEADLINE).await?;
        anyhow::Ok(vec![first, second])
    };
    guard.matters("guard_journal", Service::CartProcessor, round).await
}

pub(crate) async fn the_offset_in_the_database_keeps_a_stale_instance_out() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-sql-offset",
        defects: &[Kind::TotalWrong],
        situation: "the stopped instance has gone on",
    };
    stale_projector("guard_sql", JDBC, "jdbc-before-transaction", guard).await
}

pub(crate) async fn a_successor_publishes_what_was_journalled() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-redelivery",
        defects: &[Kind::EventLost, Kind::JournalOnly],
        situation: "a processor has crashed between journal and transaction",
    };
    let round = async |system: &mut System, round: &Round| {
        let crash = "processor-after-journal=5*off->return";
        let mut first = system.start_one(Service::CartProcessor, &format!("a{}", round.number), crash).await?;
        let mut load = system.load("300")?;
        ensure!(!first.ended(DEADLINE).await?.success(), "the processor was to crash, but ended well");
        let second = system.start_one(Service::CartProcessor, &format!("b{}", round.number), &round.off).await?;
        load.succeeded(DEADLINE).await?;
        anyhow::Ok(vec![first, second])
    };
    guard.matters("guard_again", Service::CartProcessor, round).await
}

/// A process dies right behind the transaction that passes over the command of a parked cart.
pub(crate) async fn a_marker_is_in_the_transaction_that_passes_its_command() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-parked-marker",
        defects: &[Kind::EventLost],
        situation: "a processor has crashed behind the transaction that parked a cart",
    };
    let round = async |system: &mut System, round: &Round| {
        let cart = Uuid::new_v4();
        let crash = round.fail_points(&format!("decide-panics=return({cart});parking-after-commit=return"));
        let mut first = system.start_one(Service::CartProcessor, &format!("a{}", round.number), &crash).await?;
        ensure!(add(&system.url, cart, "respond-async").await? == 202, "the command was not accepted");
        ensure!(!first.ended(DEADLINE).await?.success(), "the processor was to crash, but ended well");
        let second = system.start_one(Service::CartProcessor, &format!("b{}", round.number), &round.off).await?;
        system.installation.run("retry", "cartctl", ["parked", "retry", "--all"], DEADLINE).await?;
        anyhow::Ok(vec![first, second])
    };
    guard.matters("guard_parked", Service::CartProcessor, round).await
}

pub(crate) async fn a_former_member_cannot_commit() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-group-metadata",
        defects: &[Kind::EventDoubled],
        situation: "a processor has gone on inside its transaction",
    };
    let round = async |system: &mut System, round: &Round| {
        let stop = round.fail_points("processor-in-transaction=1*return(stop)->off");
        let first = system.start_one(Service::CartProcessor, &format!("a{}", round.number), &stop).await?;
        has_partitions(&first).await?;
        let mut second = system.start_one(Service::CartProcessor, &format!("b{}", round.number), "").await?;
        // Now the first one has lost some of its partitions, and keeps the others.
        has_partitions(&second).await?;
        let mut load = system.load("200")?;
        stopped(&first).await?;
        // The load succeeds only once the second one has all partitions. The first one's transaction is still open.
        load.succeeded(DEADLINE).await?;
        resume(&first).await?;
        drop(first);
        second.terminate(DEADLINE).await?;
        // Without the guard the committed offsets have gone back, and this one starts there.
        let third = system.start_one(Service::CartProcessor, &format!("c{}", round.number), "").await?;
        anyhow::Ok(vec![second, third])
    };
    guard.matters("guard_fence", Service::CartProcessor, round).await
}

pub(crate) async fn aborted_records_are_not_read() -> anyhow::Result<()> {
    let guard = Guard {
        switch: "guard-read-committed",
        defects: &[Kind::PurchaseUnexpected],
        situation: "a purchase was aborted",
    };
    let round = async |system: &mut System, round: &Round| {
        let process = system.start_one(RE_KEYING, &round.number.to_string(), &round.off).await?;
        abort_a_purchase(&system.installation).await?;
        system.load("200")?.succeeded(DEADLINE).await?;
        anyhow::Ok(vec![process])
    };
    guard.matters("guard_read", RE_KEYING, round).await
}

/// Writes a purchase to each partition of `cart-events` in a transaction that is aborted, as after a crash of a processor.
async fn abort_a_purchase(installation: &Installation) -> anyhow::Result<()> {
    let (kafka, topic) = (installation.kafka().clone(), installation.kafka().prefixed(CartEvent::TOPIC));
    let codec = Codec::register(&Registry::new(&kafka)?, CartEvent::TOPIC, CartEvent::SCHEMA).await?;
    let cart_id = Uuid::new_v4();
    let event = CartEvent {
        event_id: Uuid::new_v4().into(),
        cart_id: cart_id.into(),
        session_id: Uuid::new_v4().into(),
        sequence_number: 1.into(),
        position: Position::new(LogEpoch::FIRST, 0),
        command_id: Uuid::new_v4().into(),
        command_digest: 0,
        occurred_at: chrono::DateTime::UNIX_EPOCH,
        event: Event::ItemPurchased {
            item: Item {
                product_id: Uuid::new_v4().into(),
                vendor_id: Uuid::new_v4().into(),
                name: String::from("NEVER SOLD").try_into()?,
                price: Decimal::ONE.try_into()?,
                quantity: 1.try_into().context("one is a quantity")?,
            },
        },
    };
    let (key, value) = (Some(cart_id.to_string().into_bytes()), Some(codec.encode(&event)?));
    let partitions = i32::from(installation.partitions());
    let written = tokio::task::spawn_blocking(move || {
        let id = kafka.prefixed("test-aborted");
        let mut producer = TransactionalProducer::connect(&kafka, &id)?;
        let mut transaction = producer.begin()?;
        for partition in 0..partitions {
            let (key, value) = (key.clone(), value.clone());
            transaction.send(&topic, &Record { partition: Some(partition), key, value, headers: None })?;
        }
        transaction.deliver()?;
        // A producer with the same id aborts the open transaction of its predecessor.
        TransactionalProducer::connect(&kafka, &id).map(drop)
    });
    match written.await? {
        Ok(()) => Ok(()),
        Err(error) => bail!("{:#}", anyhow::Error::from(error)),
    }
}
