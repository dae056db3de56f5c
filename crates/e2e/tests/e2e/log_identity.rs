//! All services that store positions reject a log that is not the recorded one, until an operator accepts it. Then its first
//! commands are new ones, and not taken for repeats. Lost offsets are not guessed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, READ_MODELS, ReadModel};
use cart::{CartCommand, CartEvent, LogEpoch, Position, PurchasedItem};
use cartctl::journal::{self, journal_equals_topic};
use cartctl::reconcile::{Comparison, Differences, read_sent, read_table, wait_for_rest};
use cartctl::totals::{Labels, Totals};
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{Admin, GroupConsumer, Instance, KafkaArgs, OffsetReset};
use sqlx::PgPool;

const DEADLINE: Duration = Duration::from_secs(180);

/// A crashed member is removed from its group after this.
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

const WRITE_SIDE: [(Service, &str, &[&str]); 2] =
    [(Service::CartProcessor, "0", &SESSION), (Service::Ingest, "0", &["--allow-client-time"])];

/// The shop and the idempotency keys are the same each time, so that commands of earlier runs are repeats and change nothing.
const SHOP: &str =
    "--concurrency 16 --commands 600 --members 30 --products 40 --refused-share 0 --run-id again --expect-intended";

/// Sends the shop's first commands. All must get their intended outcomes.
async fn replay(installation: &Installation, write_side: &[Process], limit: &str) -> anyhow::Result<PathBuf> {
    let url = format!("http://{}", write_side[1].address().context("ingest has an address")?);
    let sent = installation.folder().join(format!("sent-{limit}.csv.gz"));
    let sent_text = sent.display().to_string();
    let args = ["--url", &url, "--limit", limit, "--sent", &sent_text];
    installation.run("replay", "replay", args.into_iter().chain(SHOP.split(' ')), DEADLINE).await?;
    Ok(sent)
}

async fn rest(installation: &Installation) -> anyhow::Result<()> {
    let database = PgPool::connect(installation.database_url()).await?;
    Ok(wait_for_rest(installation.kafka(), installation.cassandra(), &database, DEADLINE).await?)
}

/// Checks that every table has everything that was sent, and that journal and topic are equal byte for byte.
async fn check(installation: &Installation, sent: &Path) -> anyhow::Result<()> {
    let args =
        [OsStr::new("reconcile"), OsStr::new("--sent"), sent.as_os_str(), OsStr::new("--timeout-s"), OsStr::new("60")];
    let report = installation.run("reconcile", "cartctl", args, 2 * DEADLINE).await?;
    ensure!(report.contains("0 differences"), "{report}");
    let differences = journal_equals_topic(installation.kafka(), installation.cassandra()).await?;
    ensure!(differences.is_empty(), "journal and topic differ: {differences:?}");
    Ok(())
}

async fn terminate(processes: &mut [Process]) -> anyhow::Result<()> {
    for process in processes {
        process.terminate(DEADLINE).await?;
    }
    Ok(())
}

/// Waits for the end of a program, which must fail with this message.
async fn refuses(mut process: Process, words: &[&str]) -> anyhow::Result<()> {
    let status = process.ended(DEADLINE).await?;
    let log = process.log();
    ensure!(!status.success(), "it ended well: {log}");
    for word in words {
        ensure!(log.contains(word), "it does not say '{word}': {log}");
    }
    Ok(())
}

async fn remove_topic(kafka: &KafkaArgs, topic: &str) -> anyhow::Result<()> {
    let admin = Admin::new(kafka)?;
    admin.remove_topics(&[topic]).await?;
    let gone = wait_until("the topic to go", DEADLINE, async || {
        match tokio::task::block_in_place(|| admin.partitions(topic)) {
            Ok(partitions) => Err(format!("it has {partitions} partitions")),
            Err(_) => Ok(()),
        }
    });
    gone.await
}

/// The epoch and the offset of a position.
fn epoch_of(position: i64) -> Option<LogEpoch> {
    let offset = Position::from(position).offset();
    (1..=3).filter_map(LogEpoch::new).find(|epoch| Position::new(*epoch, offset).get() == position)
}

pub(crate) async fn commands_of_an_accepted_log_are_new() -> anyhow::Result<()> {
    let installation = Installation::new("identity")?;
    let kafka = installation.kafka();
    let topic = kafka.prefixed(CartCommand::TOPIC);
    installation.setup().await?;
    let projectors = Service::PROJECTORS.map(|projector| (projector, "0", &[][..]));
    let mut projectors = installation.start_all(&projectors).await?;
    let mut write_side = installation.start_all(&WRITE_SIDE).await?;
    replay(&installation, &write_side, "300").await?;
    rest(&installation).await?;
    terminate(&mut write_side).await?;
    let session = cassandra::connect(installation.cassandra()).await?;
    let before = journal::read(&session).await?;

    remove_topic(kafka, &topic).await?;
    let words = [topic.as_str(), "is not the log that this keyspace was built from", "setup --accept-new-log"];
    // It creates the topic, but does not accept it as the recorded log.
    refuses(installation.spawn("setup-refusing", "cart-processor", ["setup"])?, &words).await?;
    refuses(installation.start(Service::CartProcessor, "refusing", &SESSION)?, &words).await?;
    refuses(installation.start(Service::Ingest, "refusing", &[])?, &words).await?;
    // Now it is the recorded log.
    for _ in 0..2 {
        installation.run("setup-accepting", "cart-processor", ["setup", "--accept-new-log"], DEADLINE).await?;
    }
    installation.run("setup-again", "cart-processor", ["setup"], DEADLINE).await?;

    let mut write_side = installation.start_all(&WRITE_SIDE).await?;
    let sent = replay(&installation, &write_side, "600").await?;
    check(&installation, &sent).await?;
    let mut continued = 0;
    for (cart_id, rows) in journal::read(&session).await? {
        let old = before.get(&cart_id).map_or(&[][..], Vec::as_slice);
        assert_eq!(&rows[..old.len()], old, "what was journalled of cart {cart_id} has changed");
        let (old, new) = rows.split_at(old.len());
        continued += usize::from(!old.is_empty() && !new.is_empty());
        for (rows, epoch) in [(old, 1), (new, 2)] {
            let all = rows.iter().all(|row| epoch_of(row.position) == LogEpoch::new(epoch));
            assert!(all, "cart {cart_id} has events of another log than number {epoch} among {rows:?}");
        }
    }
    assert!(continued > 10, "only {continued} carts have got events from both logs");
    terminate(&mut write_side).await?;
    terminate(&mut projectors).await?;
    installation.remove().await
}

/// Compares every row of every read table with the totals.
async fn check_tables(installation: &Installation, expected: &Totals) -> anyhow::Result<()> {
    let session = cassandra::connect(installation.cassandra()).await?;
    let database = PgPool::connect(installation.database_url()).await?;
    let comparison = Comparison { expected, labels: &Labels::default(), more_rows_allowed: false };
    let mut differences = Differences::new(10);
    for ReadModel { table, .. } in READ_MODELS {
        comparison.rows(table.name(), &read_table(table, &session, &database).await?, &mut differences);
    }
    ensure!(differences.count() == 0, "{:#?}", differences.kept());
    Ok(())
}

pub(crate) async fn purchases_of_an_accepted_log_are_added() -> anyhow::Result<()> {
    let installation = Installation::new("identity")?;
    let kafka = installation.kafka();
    let topic = kafka.prefixed(PurchasedItem::TOPIC);
    installation.setup().await?;
    let services = Service::PROJECTORS.map(|projector| (projector, "0", &SESSION[..]));
    let mut write_side = installation.start_all(&WRITE_SIDE).await?;
    let mut projectors = installation.start_all(&services).await?;
    replay(&installation, &write_side, "300").await?;
    rest(&installation).await?;
    terminate(&mut projectors).await?;

    remove_topic(kafka, &topic).await?;
    let words = [topic.as_str(), "is not the log that this", "setup --accept-new-log"];
    refuses(installation.spawn("setup-refusing", "projectors", ["setup"])?, &words).await?;
    for table in READ_MODELS {
        refuses(installation.start(Service::Projector(table.group), "refusing", &[])?, &words).await?;
    }
    for _ in 0..2 {
        installation.run("setup-accepting", "projectors", ["setup", "--accept-new-log"], DEADLINE).await?;
    }

    let mut projectors = installation.start_all(&services).await?;
    let sent = replay(&installation, &write_side, "600").await?;
    rest(&installation).await?;
    check_tables(&installation, &read_sent(&sent)?.totals).await?;
    terminate(&mut projectors).await?;
    terminate(&mut write_side).await?;
    installation.remove().await
}

/// The groups that write to Kafka, whose `setup` commits their first offsets, with their topics.
const GROUPS: [(&str, &str, &str); 2] = [
    ("cart-processor", "cart-processor", CartCommand::TOPIC),
    ("item-purchased-events", "projectors", CartEvent::TOPIC),
];

/// Removes a group. Returns a function that restores its offsets, as an operator would.
async fn lose(kafka: &KafkaArgs, group: &str, topic: &str) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()>> {
    let (kafka, group, topic) = (kafka.clone(), kafka.prefixed(group), kafka.prefixed(topic));
    let admin = Admin::new(&kafka)?;
    let offsets = tokio::task::block_in_place(|| admin.committed(&group, &topic))?;
    let offsets: Option<Vec<_>> = offsets.into_iter().collect();
    let offsets = offsets.with_context(|| format!("group {group} has not been everywhere"))?;
    admin.remove_groups(&[&group]).await?;
    Ok(move || {
        let instance = Instance::named("test", group.clone(), Duration::from_secs(10));
        let member = GroupConsumer::join(&kafka, &instance, 0, &topic, OffsetReset::CommittedOrBeginning)?;
        let end = Instant::now() + DEADLINE;
        while member.assignment_events().is_empty() {
            ensure!(Instant::now() < end, "group {group} got no partitions in {} s", DEADLINE.as_secs());
            member.poll(Duration::from_millis(50))?;
        }
        Ok(member.commit(&member.offsets((0..).zip(offsets))?)?)
    })
}

pub(crate) async fn lost_offsets_are_not_guessed() -> anyhow::Result<()> {
    let installation = Installation::new("identity")?;
    let kafka = installation.kafka();
    installation.setup().await?;
    let purchases = (Service::Projector("item-purchased-events"), "0", &SESSION[..]);
    let mut processes = installation.start_all(&[WRITE_SIDE[0], WRITE_SIDE[1], purchases]).await?;
    replay(&installation, &processes, "300").await?;
    terminate(&mut processes).await?;

    for (group, binary, topic) in GROUPS {
        let put_back = lose(kafka, group, topic).await?;
        let (group_name, topic_name) = (kafka.prefixed(group), kafka.prefixed(topic));
        let words = [group_name.as_str(), &topic_name, "--reset-offsets"];
        // The log is the recorded one, so it needs no acceptance.
        for (name, args) in [("setup", &["setup"][..]), ("setup-accepting", &["setup", "--accept-new-log"])] {
            refuses(installation.spawn(&format!("{group}-{name}"), binary, args)?, &words).await?;
        }
        let service = if group == "cart-processor" { Service::CartProcessor } else { purchases.0 };
        refuses(installation.start(service, "refusing", &SESSION)?, &[&topic_name, "`setup` shows"]).await?;
        tokio::task::block_in_place(put_back)?;
    }

    let mut processes = installation.start_all(&[WRITE_SIDE[0], WRITE_SIDE[1]]).await?;
    let services = Service::PROJECTORS.map(|projector| (projector, "0", &SESSION[..]));
    let mut projectors = installation.start_all(&services).await?;
    let sent = replay(&installation, &processes, "600").await?;
    check(&installation, &sent).await?;
    terminate(&mut projectors).await?;
    terminate(&mut processes).await?;
    installation.remove().await
}
