//! The projectors' part of an installation: its topics, its tables, and the progress of each projector.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cart::contract::{Contract as _, READ_MODELS, ReadModel, Store, group};
use cart::{CartEvent, EventId, Generation, LogEpoch, Position, PurchasedItem};
use cartctl::topic::{RawRecord, read_all};
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{
    Admin, AssignmentEvent, Codec, GroupConsumer, GroupProgress, Instance, OffsetReset, Registry, partition_of,
};
use scylla::client::session::Session;
use sqlx::PgPool;

use super::oracle::{Rows, differences};
use super::shop::Line;
use super::tables;
use super::writer::{Load, Target, Writer};

pub(crate) const EVENTS: &str = group::ITEM_PURCHASED_EVENTS;
pub(crate) const BILLING: &str = group::VENDOR_BILLING;
pub(crate) const JDBC: &str = group::VENDOR_BILLING_JDBC;

/// The projectors that keep tables.
pub(crate) const TABLES: [&str; READ_MODELS.len()] = {
    let mut groups = [""; READ_MODELS.len()];
    let mut index = 0;
    while index < READ_MODELS.len() {
        groups[index] = READ_MODELS[index].group;
        index += 1;
    }
    groups
};

/// Whether a projector keeps its offsets in PostgreSQL; also one of a later generation.
fn has_offsets_in_postgres(projector: &str) -> bool {
    let is_it = |model: &ReadModel| model.generation_of_group(projector).is_some();
    READ_MODELS.iter().any(|model| is_it(model) && model.store == Store::Postgres)
}

/// A read model by its first group.
fn model(group: &str) -> anyhow::Result<ReadModel> {
    READ_MODELS.into_iter().find(|model| model.group == group).with_context(|| format!("{group} is not a read model"))
}

/// The timeout of every wait, with other tests at the same time on two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// The session timeout of [`ARGS`].
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

/// A crashed member's partitions are soon reassigned, and batches are small, so that a load has many.
const ARGS: [&str; 4] = ["--session-timeout-ms", "2000", "--batch-len-max", "10"];

/// An installation whose topics only the test writes.
pub(crate) struct ReadSide {
    pub(crate) installation: Installation,
    pub(crate) database: PgPool,
    session: Session,
    events: Codec<CartEvent>,
    purchases: Codec<PurchasedItem>,
    /// The purchases so far.
    pub(crate) sent: Vec<Line>,
}

impl ReadSide {
    /// Creates the projectors' topics and tables. There are no other services.
    pub(crate) async fn set_up(name: &str) -> anyhow::Result<Self> {
        let installation = Installation::new(name)?;
        set_up(&installation).await?;
        Self::open(installation).await
    }

    /// An installation that is set up.
    pub(crate) async fn open(installation: Installation) -> anyhow::Result<Self> {
        let registry = Registry::new(installation.kafka())?;
        Ok(Self {
            database: PgPool::connect(installation.database_url()).await?,
            session: cassandra::connect(installation.cassandra()).await?,
            events: Codec::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA).await?,
            purchases: Codec::register(&registry, PurchasedItem::TOPIC, PurchasedItem::SCHEMA).await?,
            sent: Vec::new(),
            installation,
        })
    }

    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        drop(self.session);
        self.database.close().await;
        self.installation.remove().await
    }

    /// The full name of the purchases' topic.
    pub(crate) fn purchases_topic(&self) -> String {
        self.installation.kafka().prefixed(PurchasedItem::TOPIC)
    }

    /// The purchase in a record.
    pub(crate) fn purchase(&self, value: &[u8]) -> anyhow::Result<PurchasedItem> {
        Ok(self.purchases.decode(value)?)
    }

    pub(crate) fn purchases(&self) -> Target {
        Target::Purchases(self.purchases.clone())
    }

    pub(crate) fn events(&self) -> Target {
        Target::Events(self.events.clone())
    }

    /// The writer of the carts' other events.
    pub(crate) fn other_events(&self) -> Target {
        Target::OtherEvents(self.events.clone())
    }

    /// This many new lines.
    pub(crate) fn lines(&self, count: usize) -> Vec<Line> {
        let sent = self.sent.len() as u64;
        (sent..sent + count as u64).map(Line::of).collect()
    }

    /// Writes lines in one transaction.
    pub(crate) fn send(&mut self, target: Target, lines: Vec<Line>) -> anyhow::Result<()> {
        let kafka = self.installation.kafka();
        tokio::task::block_in_place(|| Writer::connect(kafka, "writer", target)?.commit(&lines))?;
        self.sent.extend(lines);
        Ok(())
    }

    /// Starts a continuous load.
    pub(crate) fn start_load(&self, target: Target) -> Load {
        Load::start(self.installation.kafka(), target, self.sent.len() as u64)
    }

    pub(crate) async fn finish(&mut self, load: Load) -> anyhow::Result<()> {
        self.sent.extend(load.finish().await?);
        Ok(())
    }

    /// Starts an instance of each of these.
    pub(crate) async fn start(&self, projectors: &[&'static str], instance: &str) -> anyhow::Result<Vec<Process>> {
        let services: Vec<_> =
            projectors.iter().map(|projector| (Service::Projector(projector), instance, &ARGS[..])).collect();
        self.installation.start_all(&services).await
    }

    /// Starts an instance with fail points.
    pub(crate) fn start_with(
        &self,
        projector: &'static str,
        instance: &str,
        fail_points: &str,
    ) -> anyhow::Result<Process> {
        self.installation.start_at(Service::Projector(projector), instance, &ARGS, None, Some(fail_points))
    }

    fn topic_of(&self, projector: &str) -> String {
        self.installation.kafka().prefixed(if projector == EVENTS { CartEvent::TOPIC } else { PurchasedItem::TOPIC })
    }

    /// The next offset of a projector in each partition.
    pub(crate) async fn next_offsets(&self, projector: &str) -> anyhow::Result<Vec<i64>> {
        let kafka = self.installation.kafka();
        if has_offsets_in_postgres(projector) {
            let stored = tables::stored_offsets(&self.database, projector).await?;
            let partitions = tokio::task::block_in_place(|| Admin::new(kafka)?.partitions(&self.topic_of(projector)))?;
            return Ok((0..partitions).map(|partition| stored.get(&partition).copied().unwrap_or_default()).collect());
        }
        let group = kafka.prefixed(projector);
        let committed =
            tokio::task::block_in_place(|| Admin::new(kafka)?.committed(&group, &self.topic_of(projector)))?;
        Ok(committed.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Waits until each of these has advanced by this many records, in all its partitions together.
    pub(crate) async fn progress(&self, projectors: &[&str], by: i64) -> anyhow::Result<()> {
        let mut starts = Vec::new();
        for projector in projectors {
            starts.push(self.next_offsets(projector).await?.iter().sum::<i64>());
        }
        for (projector, start) in projectors.iter().zip(starts) {
            wait_until(&format!("{projector} to come on by {by}"), DEADLINE, async || {
                match self.next_offsets(projector).await {
                    Ok(next) if next.iter().sum::<i64>() >= start + by => Ok(()),
                    Ok(next) => Err(format!("it went from {start} to {next:?}")),
                    Err(error) => Err(format!("{error:#}")),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until each of these has advanced in every partition, in any instance.
    pub(crate) async fn progress_everywhere(&self, projectors: &[&str]) -> anyhow::Result<()> {
        let mut starts = Vec::new();
        for projector in projectors {
            starts.push(self.next_offsets(projector).await?);
        }
        for (projector, start) in projectors.iter().zip(starts) {
            wait_until(&format!("{projector} to come on in every partition"), DEADLINE, async || {
                match self.next_offsets(projector).await {
                    Ok(next) if next.iter().zip(&start).all(|(next, start)| next > start) => Ok(()),
                    Ok(next) => Err(format!("it went from {start:?} to {next:?}")),
                    Err(error) => Err(format!("{error:#}")),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until each of these has processed its topic.
    pub(crate) async fn rest(&self, projectors: &[&str]) -> anyhow::Result<()> {
        for projector in projectors {
            let mut ends = BTreeMap::new();
            for record in read_all(self.installation.kafka(), &self.topic_of(projector)).await? {
                ends.insert(record.partition, record.offset + 1);
            }
            self.rest_at(projector, &ends).await?;
        }
        Ok(())
    }

    /// Waits until a projector has reached these offsets. After a partition's last record there may be a transaction's marker.
    pub(crate) async fn rest_at(&self, projector: &str, ends: &BTreeMap<i32, i64>) -> anyhow::Result<()> {
        wait_until(&format!("{projector} to be at rest"), DEADLINE, async || {
            let next = self.next_offsets(projector).await.map_err(|error| format!("{error:#}"))?;
            let next: BTreeMap<_, _> = (0..).zip(next).collect();
            if ends.iter().all(|(partition, end)| next[partition] >= *end) {
                Ok(())
            } else {
                Err(format!("it is at {next:?}, to be at {ends:?}"))
            }
        })
        .await
    }

    /// Makes the test a member of a projector's group; it gets partitions when it polls.
    pub(crate) fn join_group(&self, projector: &str) -> anyhow::Result<GroupConsumer> {
        let (kafka, session_timeout) = (self.installation.kafka(), Duration::from_secs(10));
        let instance = Instance::named("test", kafka.prefixed(projector), session_timeout);
        let topic = self.topic_of(projector);
        Ok(GroupConsumer::join(kafka, &instance, 0, &topic, OffsetReset::CommittedOrBeginning)?)
    }

    /// Waits until a member has partitions. Blocks.
    pub(crate) fn assigned(&self, member: &GroupConsumer) -> anyhow::Result<()> {
        let start = Instant::now();
        let has_some = |event| matches!(event, AssignmentEvent::Assigned(partitions) if !partitions.is_empty());
        while !member.assignment_events().into_iter().any(has_some) {
            member.poll(Duration::from_millis(50))?;
            ensure!(start.elapsed() < DEADLINE, "the group of {} gave the test no partitions", member.topic());
        }
        Ok(())
    }

    /// Commits the beginning of the topic for a group without other members.
    pub(crate) fn reset_group(&self, projector: &str) -> anyhow::Result<()> {
        tokio::task::block_in_place(|| {
            let member = self.join_group(projector)?;
            self.assigned(&member)?;
            let partitions = Admin::new(self.installation.kafka())?.partitions(member.topic())?;
            Ok(member.commit(&member.offsets((0..partitions).map(|partition| (partition, 0)))?)?)
        })
    }

    /// The generation that readers of a model see.
    pub(crate) async fn active(&self, group: &str) -> anyhow::Result<Generation> {
        let model = model(group)?;
        Ok(match model.store {
            Store::Cassandra => cassandra::read_models::active(&self.session, model).await?,
            Store::Postgres => postgres::read_models::active(&self.database, model).await?,
        })
    }

    /// The generations of a model that have a table.
    pub(crate) async fn generations(&self, group: &str) -> anyhow::Result<Vec<Generation>> {
        let model = model(group)?;
        Ok(match model.store {
            Store::Cassandra => cassandra::read_models::generations(&self.session, model).await?,
            Store::Postgres => postgres::read_models::generations(&self.database, model).await?,
        })
    }

    /// All rows in the tables.
    pub(crate) async fn rows(&self) -> anyhow::Result<Rows> {
        tables::read(&self.session, &self.database).await
    }

    /// All expected rows.
    pub(crate) async fn expected(&self) -> anyhow::Result<Rows> {
        self.expected_of(&self.sent).await
    }

    /// The expected rows if a projector could only reach these lines.
    pub(crate) async fn expected_of(&self, lines: &[Line]) -> anyhow::Result<Rows> {
        let mut positions = BTreeMap::new();
        for record in self.purchase_records().await? {
            // Only purchases are in the tables.
            if let Ok(purchase) = self.purchases.decode(record.value.as_deref().unwrap_or_default()) {
                positions.insert(purchase.event_id, Position::new(LogEpoch::FIRST, record.offset).get());
            }
        }
        Ok(Rows::expected(lines, &positions))
    }

    /// Compares all rows of the tables with what was sent.
    pub(crate) async fn check_tables(&self) -> anyhow::Result<()> {
        let differences = self.expected().await?.differences(&self.rows().await?);
        ensure!(
            differences.is_empty(),
            "the tables are not what {} lines make:\n{}",
            self.sent.len(),
            differences.join("\n")
        );
        Ok(())
    }

    async fn purchase_records(&self) -> anyhow::Result<Vec<RawRecord>> {
        read_all(self.installation.kafka(), &self.purchases_topic()).await
    }

    /// Waits until no transaction is open on the purchases' topic. That of a killed instance hides all that comes after it until it
    /// times out, also if it has brought no offsets yet and so delays no progress.
    async fn no_open_purchases(&self, partitions: i32) -> anyhow::Result<()> {
        let (kafka, topic) = (self.installation.kafka(), self.purchases_topic());
        let progress = GroupProgress::new(kafka, &kafka.prefixed("test"), &topic)?;
        let hidden = || {
            let hidden = (0..partitions).map(|partition| {
                Ok::<_, kafka::Error>(progress.bounds(partition)?.1 - progress.last_stable_offset(partition)?)
            });
            hidden.collect::<Result<Vec<_>, _>>()
        };
        wait_until("the transactions of the purchases to end", DEADLINE, async || {
            match tokio::task::block_in_place(hidden) {
                Ok(hidden) if hidden.iter().all(|&records| records == 0) => Ok(()),
                Ok(hidden) => Err(format!("{hidden:?} offsets of the partitions are not readable yet")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Compares the purchases on their topic with what was sent: each once, keyed by vendor, a cart's in their order.
    pub(crate) async fn check_topic(&self) -> anyhow::Result<()> {
        let expected: anyhow::Result<BTreeMap<EventId, PurchasedItem>> =
            self.sent.iter().map(|line| Ok((line.event_id(), line.purchase()?))).collect();
        let numbers: BTreeMap<_, _> = self.sent.iter().map(|line| (line.event_id(), line.number)).collect();
        let kafka = self.installation.kafka();
        let partitions = tokio::task::block_in_place(|| Admin::new(kafka)?.partitions(&self.purchases_topic()))?;
        self.no_open_purchases(partitions).await?;
        let (mut found, mut newest) = (BTreeMap::new(), BTreeMap::new());
        for RawRecord { partition, offset, key, value } in self.purchase_records().await? {
            let place = format!("record {partition}/{offset}");
            let purchase = self.purchases.decode(&value.unwrap_or_default()).with_context(|| place.clone())?;
            let vendor = purchase.vendor_id.to_string().into_bytes();
            ensure!(key.as_ref() == Some(&vendor), "{place} has the key {key:?}");
            ensure!(partition == partition_of(&vendor, partitions), "{place} is in the wrong partition");
            let number = numbers.get(&purchase.event_id).copied();
            let before = newest.insert((partition, purchase.cart_id), number);
            ensure!(before.is_none_or(|before| before <= number), "{place} is before an earlier one of its cart");
            let twice = found.insert(purchase.event_id, purchase);
            ensure!(twice.is_none(), "{place} is there once more: {twice:?}");
        }
        let differences = differences("purchase", &expected?, &found);
        ensure!(differences.is_empty(), "of {} purchases:\n{}", self.sent.len(), differences.join("\n"));
        Ok(())
    }
}

/// Creates topics, groups and tables.
pub(crate) async fn set_up(installation: &Installation) -> anyhow::Result<()> {
    installation.run("projectors-setup", "projectors", ["setup"], 2 * DEADLINE).await.map(|_| ())
}

/// An instance's answer at a path.
pub(crate) async fn get(process: &Process, path: &str) -> anyhow::Result<String> {
    let address = process.address().context("it has no address")?;
    let answer = reqwest::Client::new().get(format!("http://{address}{path}")).timeout(DEADLINE).send().await?;
    Ok(answer.text().await?)
}

/// A counter of an instance, its series added up.
pub(crate) async fn metric(process: &Process, name: &str) -> anyhow::Result<u64> {
    let metrics = reqwest::get(process.metrics_url()?).await?.error_for_status()?.text().await?;
    let samples = metrics.lines().filter_map(|line| line.rsplit_once(' '));
    let series = samples.filter(|(series, _)| series.split('{').next() == Some(name));
    series.map(|(_, value)| Ok(value.parse::<u64>()?)).sum()
}

/// Waits until each of these instances has applied this many records.
pub(crate) async fn work(processes: &[Process], records: u64) -> anyhow::Result<()> {
    for process in processes {
        wait_until("an instance to have partitions and to work", DEADLINE, async || {
            match metric(process, "projector_records_total").await {
                Ok(applied) if applied >= records => Ok(()),
                Ok(applied) => Err(format!("it has applied {applied} records")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
    }
    Ok(())
}
