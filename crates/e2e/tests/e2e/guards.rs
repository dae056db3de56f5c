//! What the guards are for: each in the situation for which it is there, once with it and once switched off. With all guards
//! the audit finds nothing; without the one it finds what goes wrong, so both the guard and the audit do their work.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them): they stop themselves at a named place, as a
//! pause of the machine would stop them, and go without a guard where they are told to.

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

const DEADLINE: Duration = Duration::from_secs(180);

/// A stopped member's partitions are given away after this.
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

const BILLING: Service = Service::Projector("vendor-billing");
const JDBC: Service = Service::Projector("vendor-billing-jdbc");
const RE_KEYING: Service = Service::Projector("item-purchased-events");

/// Once with the guard, and then without it until it is shown: a machine that halts for seconds may take the connection
/// away over which the harm would have been done.
const ROUNDS: [bool; 4] = [true, false, false, false];

/// What goes wrong without a guard is there when everything is at its end, or soon after.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);

/// One worker: when a process stops at a place of one, nothing else of it stops in the middle of something. Transactions
/// follow each other closely, so that a short load has many.
const WORKER: [&str; 6] = ["--session-timeout-ms", "2000", "--workers", "1", "--commit-interval-ms", "25"];

fn options(service: Service) -> &'static [&'static str] {
    match service {
        Service::Ingest => &["--allow-client-time"],
        Service::CartProcessor => &WORKER,
        Service::Projector(_) => &SESSION,
    }
}

/// A system of which one service is started by the test.
struct System {
    installation: Installation,
    target: Target,
    url: String,
    /// Everything else; it ends with the test.
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
        let target = Target::new(kafka, cassandra, installation.database_url().to_owned());
        Ok(Self { installation, target, url, others, loads: 0 })
    }

    /// The same carts are used again and again: some commands are refused, and every row of the tables is changed.
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

    /// With the guard: nothing is wrong.
    async fn is_clean(&self, situation: &str) -> anyhow::Result<()> {
        let report = self.audit().await?;
        ensure!(report.is_clean(), "{situation}, with all guards:\n{report}");
        Ok(())
    }

    /// Without it: whether this is what goes wrong.
    async fn has(&self, kind: Kind) -> anyhow::Result<bool> {
        let what = format!("the audit to find {}", kind.name());
        let look = wait_until(&what, LOOK_DEADLINE, async || match self.audit().await {
            Ok(report) if report.has(kind) => Ok(()),
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

/// Waits until a process has stopped itself.
async fn stopped(process: &Process) -> anyhow::Result<()> {
    wait_until("the process to stop at its fail point", DEADLINE, async || match process.state() {
        Some('T') => Ok(()),
        state => Err(format!("state {state:?}")),
    })
    .await
}

/// Waits until a process was given partitions: a rebalance that gives it nothing is told too.
async fn has_partitions(process: &Process) -> anyhow::Result<()> {
    let is_given = |line: &str| line.contains("partitions assigned") && !line.ends_with("[]");
    wait_until("the process to be given partitions", DEADLINE, async || {
        let log = process.log();
        if log.lines().any(is_given) { Ok(()) } else { Err(log) }
    })
    .await
}

/// Lets it go on, and waits until it has done what it was about to do and has noticed that it is not what it was.
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

/// Two instances of a projector that keeps totals: one is stopped with a batch in its hands, the other takes over.
async fn stale_projector(name: &str, service: Service, stop_at: &str, guard: &str) -> anyhow::Result<()> {
    let mut system = System::start(name, service).await?;
    let mut is_shown = false;
    for (number, is_on) in ROUNDS.into_iter().enumerate() {
        if is_shown {
            break;
        }
        let flags = if is_on { String::new() } else { format!(";{guard}=return") };
        system.load("300")?.succeeded(DEADLINE).await?;
        let stop = format!("{stop_at}=1*return(stop)->off{flags}");
        let first = system.installation.start_to_crash(service, &format!("a{number}"), &SESSION, &stop)?;
        stopped(&first).await?;
        // More for the same rows: what the first one has in its hands is old now.
        system.load("300")?.succeeded(DEADLINE).await?;
        let second = system.start_one(service, &format!("b{number}"), flags.trim_start_matches(';')).await?;
        system.is_clean("another instance has taken over").await?;
        resume(&first).await?;
        if is_on {
            system.is_clean("the stopped instance has gone on").await?;
        } else {
            let kind = if service == JDBC { Kind::TotalWrong } else { Kind::TotalStale };
            is_shown = system.has(kind).await?;
        }
        drop((first, second));
    }
    ensure!(is_shown, "without the guard nothing went wrong: is it still there for that?");
    system.remove().await
}

pub(crate) async fn timestamps_by_position_keep_a_late_writer_out() -> anyhow::Result<()> {
    stale_projector("guard_time", BILLING, "totals-before-write", "guard-timestamps").await
}

/// Of a cart that nobody has used yet.
async fn add(url: &str, cart: Uuid, preference: &str) -> anyhow::Result<u16> {
    let item =
        json!({"productId": Uuid::new_v4(), "vendorId": Uuid::new_v4(), "name": "mug", "price": "1", "quantity": 1});
    let sent = reqwest::Client::new().post(format!("{url}/cart/{cart}")).header("prefer", preference).json(&item);
    Ok(sent.send().await?.status().as_u16())
}

/// The log is lost while a processor stands with what it has decided in its hands, and goes on as another; whoever was
/// overlooked when the services were stopped must not write into the new one's journal.
async fn new_log(system: &mut System) -> anyhow::Result<()> {
    let installation = &system.installation;
    let (kafka, topic) = (installation.kafka(), installation.kafka().prefixed(CartCommand::TOPIC));
    let mut ingest = system.others.remove(0);
    ingest.terminate(DEADLINE).await?;
    let admin = Admin::new(kafka)?;
    admin.remove_topics(&[&topic]).await?;
    // Refused until the topic has gone, and the stopped processor was missed.
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
    let mut system = System::start("guard_journal", Service::CartProcessor).await?;
    let mut is_shown = false;
    for (number, is_on) in ROUNDS.into_iter().enumerate() {
        if is_shown {
            break;
        }
        let flags = if is_on { "" } else { ";guard-journal-timestamps=return" };
        // It writes, and ends.
        let stop = format!("processor-before-journal=1*return(stop)->off;processor-after-journal=return{flags}");
        let mut first = system.start_one(Service::CartProcessor, &format!("a{number}"), &stop).await?;
        let cart = Uuid::new_v4();
        ensure!(add(&system.url, cart, "respond-async").await? == 202, "the command was not taken");
        stopped(&first).await?;
        new_log(&mut system).await?;
        let second =
            system.start_one(Service::CartProcessor, &format!("b{number}"), flags.trim_start_matches(';')).await?;
        for _ in 0..3 {
            // 202 on a machine that is slow; the audit waits for it.
            let status = add(&system.url, cart, "wait=30").await?;
            ensure!([200, 202].contains(&status), "the new log's command was answered with {status}");
        }
        system.is_clean("the log goes on as another").await?;
        first.resume()?;
        first.ended(DEADLINE).await?;
        if is_on {
            system.is_clean("the old log's processor has gone on").await?;
        } else {
            is_shown = system.has(Kind::JournalDiffers).await?;
        }
        drop((first, second));
    }
    ensure!(is_shown, "without the guard nothing went wrong: is it still there for that?");
    system.remove().await
}

pub(crate) async fn the_offset_in_the_database_keeps_a_stale_instance_out() -> anyhow::Result<()> {
    stale_projector("guard_sql", JDBC, "jdbc-before-transaction", "guard-sql-offset").await
}

pub(crate) async fn what_was_journalled_is_published_by_the_successor() -> anyhow::Result<()> {
    let mut system = System::start("guard_again", Service::CartProcessor).await?;
    let mut is_shown = false;
    for (number, is_on) in ROUNDS.into_iter().enumerate() {
        if is_shown {
            break;
        }
        let crash = "processor-after-journal=5*off->return";
        let mut first = system.start_one(Service::CartProcessor, &format!("a{number}"), crash).await?;
        let mut load = system.load("300")?;
        ensure!(!first.ended(DEADLINE).await?.success(), "the processor was to crash, but ended well");
        let flags = if is_on { "" } else { "guard-redelivery=return" };
        let second = system.start_one(Service::CartProcessor, &format!("b{number}"), flags).await?;
        load.succeeded(DEADLINE).await?;
        if is_on {
            system.is_clean("a processor has died between journal and transaction").await?;
        } else {
            is_shown = system.has(Kind::EventLost).await?;
            ensure!(
                !is_shown || system.audit().await?.has(Kind::JournalOnly),
                "the lost events are not in the journal"
            );
        }
        drop((first, second));
    }
    ensure!(is_shown, "without the guard nothing went wrong: is it still there for that?");
    system.remove().await
}

pub(crate) async fn who_is_no_member_any_more_commits_nothing() -> anyhow::Result<()> {
    let mut system = System::start("guard_fence", Service::CartProcessor).await?;
    let mut is_shown = false;
    for (number, is_on) in ROUNDS.into_iter().enumerate() {
        if is_shown {
            break;
        }
        let flags = if is_on { "" } else { ";guard-group-metadata=return" };
        let stop = format!("processor-in-transaction=1*return(stop)->off{flags}");
        let first = system.start_one(Service::CartProcessor, &format!("a{number}"), &stop).await?;
        has_partitions(&first).await?;
        let mut second = system.start_one(Service::CartProcessor, &format!("b{number}"), "").await?;
        // Then the first one has given some away, and keeps the others.
        has_partitions(&second).await?;
        let mut load = system.load("200")?;
        stopped(&first).await?;
        // Only when the second one has everything can it answer everything. The first one's transaction is still open.
        load.succeeded(DEADLINE).await?;
        resume(&first).await?;
        drop(first);
        second.terminate(DEADLINE).await?;
        // Without the guard the committed offsets have gone back, so that this one begins there.
        let third = system.start_one(Service::CartProcessor, &format!("c{number}"), "").await?;
        if is_on {
            system.is_clean("a processor has gone on inside its transaction").await?;
        } else {
            is_shown = system.has(Kind::EventDoubled).await?;
        }
        drop((second, third));
    }
    ensure!(is_shown, "without the guard nothing went wrong: is it still there for that?");
    system.remove().await
}

pub(crate) async fn what_was_aborted_is_not_read() -> anyhow::Result<()> {
    let mut system = System::start("guard_read", RE_KEYING).await?;
    let mut is_shown = false;
    for (number, is_on) in ROUNDS.into_iter().enumerate() {
        if is_shown {
            break;
        }
        let flags = if is_on { "" } else { "guard-read-committed=return" };
        let process = system.start_one(RE_KEYING, &number.to_string(), flags).await?;
        abort_a_purchase(&system.installation).await?;
        system.load("200")?.succeeded(DEADLINE).await?;
        if is_on {
            system.is_clean("a purchase was aborted").await?;
        } else {
            is_shown = system.has(Kind::PurchaseUnexpected).await?;
        }
        drop(process);
    }
    ensure!(is_shown, "without the guard nothing went wrong: is it still there for that?");
    system.remove().await
}

/// A purchase on each partition of `cart-events` in a transaction that is aborted, as a processor that dies inside leaves it.
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
        // A successor under the same id aborts what its predecessor left open.
        TransactionalProducer::connect(&kafka, &id).map(drop)
    });
    match written.await? {
        Ok(()) => Ok(()),
        Err(error) => bail!("{:#}", anyhow::Error::from(error)),
    }
}
