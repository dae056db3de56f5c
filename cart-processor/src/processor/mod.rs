//! The loop of one worker: poll, load, decide, journal, reply, enqueue, publish. All retries and all commits of deciding are here.

mod changes;
mod control;
mod error;
mod load;
mod parked;
mod publish;
mod steps;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use ::control::MemberControl;
use journal::{Content, Journal};
use kafka::{AssignmentEvent, GroupConsumer, Message as _, Recovery};
use service::{Backoff, Readiness, Shutdown, Store};
use tokio::runtime::Handle;
use trace::{Place, Work};

use self::changes::Changes;
pub(crate) use self::error::Error;
use self::steps::Steps;
use crate::batch::{self, CartBatch};
use crate::cart_cache::CartCache;
use crate::commit_pacing::CommitPacing;
use crate::intake::{CommandDecoder, Incoming};
use crate::metrics::{BATCH_RECORDS, BATCH_SECONDS, COMMANDS, RECOVERIES, REPLIES_LOST};
use crate::outbox::Outbox;
use crate::parking::retry::{Reader as RetryReader, Reading};
use crate::parking::{Lots, ParkedTopic, read_guarded};
use crate::publisher::Publisher;
use crate::reply::Replies;

/// How long a poll waits for a record when there is nothing else to do. A shutdown waits for it too.
const IDLE_POLL: Duration = Duration::from_millis(100);

/// How long a poll waits when a transaction is due and the last one is not done.
const BUSY_POLL: Duration = Duration::from_millis(10);

/// Records of one batch. A batch takes what has arrived, up to this; the bound limits how long its first command waits for
/// the others.
const BATCH_LEN_MAX: usize = 1_024;

/// A worker: one member of the group, with its share of the partitions. For one thread.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) consumer: GroupConsumer,
    pub(crate) control: MemberControl,
    pub(crate) publisher: Publisher,
    pub(crate) reader: CommandDecoder,
    pub(crate) journal: Journal,
    pub(crate) replies: Replies,
    pub(crate) parked: ParkedTopic,
    pub(crate) retries: RetryReader,
    /// Its full name.
    pub(crate) events_topic: String,
    /// The memory for carts, in bytes.
    pub(crate) cart_cache_len: usize,
    pub(crate) pacing: CommitPacing,
    pub(crate) runtime: Handle,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) state: State,
}

/// What a worker has in memory. All of it can be read again from the log and the journal.
#[derive(Debug)]
pub(crate) struct State {
    partitions: HashMap<i32, CartCache>,
    lots: Lots,
    /// The try of a parked cart that is reading.
    trying: Option<Reading>,
    outbox: Outbox,
    /// The offsets of the transaction in progress.
    publishing: Vec<(i32, i64)>,
    /// Partitions whose log was rewritten, or is too new for this program. They stay stopped until a restart.
    stopped: HashSet<i32>,
    backoff: Backoff,
}

impl State {
    pub(crate) fn new(lots: Lots) -> Self {
        Self {
            partitions: HashMap::new(),
            lots,
            trying: None,
            outbox: Outbox::default(),
            publishing: Vec::new(),
            stopped: HashSet::new(),
            backoff: Backoff::default(),
        }
    }
}

impl Worker {
    /// Runs until the shutdown, then publishes what is decided and returns the consumer, so that all workers leave the group
    /// together. Ends earlier only with a fatal error.
    pub(crate) fn run(mut self) -> Result<GroupConsumer, Error> {
        self.readiness.expect_heartbeat(&self.name);
        while !self.shutdown.is_requested() {
            match self.step() {
                Ok(()) => {
                    self.state.backoff.succeeded();
                    self.readiness.set_ready(&self.name);
                }
                Err(error) => self.recover(error)?,
            }
        }
        self.finish()
    }

    fn step(&mut self) -> Result<(), Error> {
        self.consumer.rejoin_if_lost()?;
        self.follow_control()?;
        let mut steps = Steps::begin();
        let batch = self.poll()?;
        if !batch.is_empty() {
            steps.ended("poll");
            self.process(batch, steps)?;
        }
        self.tend_parked()?;
        self.publish()
    }

    /// Until the next transaction is due, if one is to come.
    fn poll_wait(&self) -> Duration {
        if self.state.trying.is_some() {
            return BUSY_POLL;
        }
        if self.state.outbox.is_empty() {
            return IDLE_POLL;
        }
        self.pacing.due_in(SystemTime::now()).clamp(BUSY_POLL, IDLE_POLL)
    }

    /// Takes the records that have arrived, up to the limit.
    fn poll(&mut self) -> Result<Vec<Incoming>, Error> {
        let mut wait = self.poll_wait();
        let mut batch: Vec<Incoming> = Vec::new();
        while batch.len() < BATCH_LEN_MAX {
            let read = match self.consumer.poll(wait) {
                Ok(message) => {
                    message.map(|message| ((message.partition(), message.offset()), self.reader.read(&message)))
                }
                // librdkafka reconnects by itself, and reports each failure.
                Err(error) if error.recovery() == Recovery::Retry => None,
                Err(error) => return Err(error.into()),
            };
            self.follow_assignment(&mut batch)?;
            let Some(((partition, offset), intake)) = read else { break };
            wait = Duration::ZERO;
            // Also a command that is too new for this program waits behind a pause.
            if !self.control.holds(partition, offset) {
                batch.push(intake?);
            }
        }
        Ok(batch)
    }

    /// Drops what belongs to revoked partitions before the batch is processed.
    fn follow_assignment(&mut self, batch: &mut Vec<Incoming>) -> Result<(), Error> {
        // All of them count, also those behind one that cannot be followed now: a rewind repeats what that lacks.
        let mut followed = Ok(());
        for event in self.consumer.assignment_events() {
            match event {
                AssignmentEvent::Assigned(partitions) => {
                    let begun = self.begin_partitions(&partitions);
                    followed = followed.and(begun);
                }
                AssignmentEvent::Revoked(partitions) => {
                    batch.retain(|intake| !partitions.contains(&intake.origin().0));
                    self.control.revoked(&partitions);
                    for partition in partitions {
                        self.state.partitions.remove(&partition);
                        self.state.outbox.forget(partition);
                        self.forget_parked(partition);
                    }
                }
            }
        }
        followed
    }

    fn begin_partitions(&mut self, partitions: &[i32]) -> Result<(), Error> {
        for partition in partitions {
            self.state.partitions.insert(*partition, CartCache::default());
        }
        self.control.assigned(&self.consumer, partitions)?;
        for partition in partitions.iter().filter(|partition| self.state.stopped.contains(partition)) {
            self.consumer.stop(*partition)?;
        }
        self.restore_parked(partitions)
    }

    fn process(&mut self, batch: Vec<Incoming>, mut steps: Steps) -> Result<(), Error> {
        let started_at = Instant::now();
        let next: HashMap<i32, i64> = batch
            .iter()
            .map(Incoming::origin)
            .filter(|(partition, _)| !self.state.stopped.contains(partition))
            .map(|(partition, offset)| (partition, offset + 1))
            .collect();
        BATCH_RECORDS.with(&[]).record(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        COMMANDS.with(&[]).increment(batch.len() as u64);
        let (mut commands, mut too_new) = (Vec::with_capacity(batch.len()), Vec::new());
        for intake in batch {
            match intake {
                Incoming::Command(received) if next.contains_key(&received.partition) => commands.push(*received),
                Incoming::DeadLetter { partition, letter, .. } if next.contains_key(&partition) => {
                    self.state.outbox.push_dead_letter(partition, letter);
                }
                Incoming::TooNew(command) if next.contains_key(&command.partition) => too_new.push(command),
                Incoming::Command(_) | Incoming::DeadLetter { .. } | Incoming::TooNew(_) => {}
            }
        }
        let spans = commands.iter().filter_map(|received| received.trace.span());
        steps.work = Work::begin("process", self.consumer.topic(), commands.len(), spans);
        let mut changes = Changes::default();
        let carts = self.pass_parked(batch::by_cart(commands))?;
        let carts = self.set_too_new_aside(carts, too_new, &mut changes)?;
        let runtime = self.runtime.clone();
        let (loaded, unreadable) = runtime.block_on(self.load(&carts))?;
        let carts = self.set_unreadable_aside(carts, loaded, unreadable, &mut changes)?;
        let (redelivered_rows, unreadable) = runtime.block_on(self.redelivered_rows(&carts))?;
        let carts = self.set_unreadable_aside(carts, redelivered_rows.len(), unreadable, &mut changes)?;
        steps.ended("load");
        let (mut batches, panicked) = self.decide_carts(carts, redelivered_rows)?;
        self.set_panicked_aside(panicked, batches.len(), &mut changes)?;
        self.state.lots.succeeded(loaded, batches.len());
        steps.ended("decide");
        fail_points::crash_point("processor-before-journal");
        runtime.block_on(self.journal_and_reply(&mut batches, &mut steps))?;
        fail_points::crash_point("processor-after-journal");
        for batch in batches {
            self.enqueue_events(batch);
        }
        for (partition, offset) in next {
            self.state.outbox.advance(partition, offset);
            self.state.lots.advance(partition, offset);
        }
        self.enqueue_changes(changes)?;
        let share = self.cart_cache_len / self.state.partitions.len().max(1);
        for partition in self.state.partitions.values_mut() {
            partition.trim(share);
        }
        steps.ended("enqueue");
        steps.work.end();
        BATCH_SECONDS.with(&[]).record(started_at.elapsed());
        Ok(())
    }

    /// Journals all carts, then sends all replies: so the replies, and the commands that the clients send next, come in few
    /// requests.
    ///
    /// After a crash before an append the commands are decided again. After a crash behind it the journal has their events,
    /// which are published from there ([`crate::redelivery`]). Shown by crates/e2e/tests/e2e/crash.rs.
    async fn journal_and_reply(&self, batches: &mut [CartBatch], steps: &mut Steps) -> Result<(), journal::Error> {
        let append = self.journal.append(batches.iter().map(CartBatch::rows_to_append));
        Store::Cassandra.time("journal_append", append).await?;
        steps.journalled(batches.iter().map(|batch| batch.rows.len() - batch.journalled).sum());
        fail_points::crash_point("processor-before-replies");
        for batch in batches {
            // The command is decided; only its client does not hear of it.
            let replies = std::mem::take(&mut batch.replies);
            if let Err(unread) = read_guarded(self.replies.send(batch.cart_id, replies)).await? {
                REPLIES_LOST.with(&[]).increment(1);
                let error = format!("{:#}", anyhow::Error::new(unread));
                tracing::warn!(error, "replies were not sent: an earlier request of the cart cannot be read");
            }
        }
        steps.ended("reply");
        Ok(())
    }

    fn enqueue_events(&mut self, batch: CartBatch) {
        let key = batch.cart_id.to_string();
        for letter in batch.letters {
            self.state.outbox.push_dead_letter(batch.partition, letter);
        }
        for (row, trace) in batch.rows.into_iter().zip(batch.traces) {
            let Content::Events(events) = row.content else { continue };
            let trace = trace.send(&self.events_topic);
            self.state.outbox.push_events(batch.partition, key.as_bytes(), events, &trace);
        }
        for span in &batch.spans {
            span.end();
        }
    }

    /// Drops everything in memory and rewinds to the committed offsets. Normal after a rebalance.
    fn recover(&mut self, error: Error) -> Result<(), Error> {
        let recovery = error.recovery();
        if recovery == Recovery::Fatal {
            return Err(error);
        }
        if let Some((partition, offset)) = error.stops() {
            let error = anyhow::Error::new(error);
            if self.state.stopped.insert(partition) {
                // Without a hash: a command is never skipped.
                self.control.stopped(partition, offset, "", &format!("{error:#}"));
                let (position, reason) =
                    (Place { topic: self.consumer.topic(), partition, offset }, format!("{error:#}"));
                tracing::error!(worker = self.name, %position, reason, "a partition is stopped");
            }
            self.readiness.set_unready(&format!("partition {partition}"), error);
        } else if recovery == Recovery::Retry {
            self.readiness.set_unready(&self.name, anyhow::Error::new(error));
        } else {
            tracing::info!(
                worker = self.name,
                reason = format!("{:#}", anyhow::Error::new(error)),
                "rewinding to the committed offsets"
            );
        }
        let kind = if recovery == Recovery::Retry { "retry" } else { "rewind" };
        RECOVERIES.with(&[kind]).increment(1);
        let pause = self.state.backoff.failed();
        if recovery == Recovery::Retry {
            std::thread::sleep(pause);
        }
        self.rewind()
    }

    fn rewind(&mut self) -> Result<(), Error> {
        self.state.outbox = Outbox::default();
        self.state.lots.clear();
        self.state.trying = None;
        for partition in self.state.partitions.values_mut() {
            *partition = CartCache::default();
        }
        while !self.shutdown.is_requested() {
            // Whether a transaction in progress was committed, the committed offsets will show.
            match self.wait_for_transaction(IDLE_POLL) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) if error.recovery() == Recovery::Fatal => return Err(error.into()),
                Err(_) => {}
            }
            let ours = self.consumer.rejoin_if_lost().and_then(|()| self.consumer.rewind());
            let rewound = ours.map_err(Error::from).and_then(|assigned| {
                self.pause_stopped()?;
                self.control.hold_again(&self.consumer, &assigned)?;
                self.restore_parked(&assigned)
            });
            match rewound {
                Ok(()) => return Ok(()),
                // The committed offsets are lost, for example: waiting does not bring them back.
                Err(error) if error.recovery() == Recovery::Fatal => return Err(error),
                Err(error) => self.readiness.set_unready(&self.name, anyhow::Error::new(error)),
            }
            self.consumer.follow();
            if let Err(error) = self.follow_assignment(&mut Vec::new()) {
                self.readiness.set_unready(&self.name, anyhow::Error::new(error));
            }
        }
        Ok(())
    }

    fn pause_stopped(&self) -> Result<(), Error> {
        for partition in &self.state.stopped {
            if self.state.partitions.contains_key(partition) {
                self.consumer.stop(*partition)?;
            }
        }
        Ok(())
    }

    /// Publishes what is decided. If that fails, the next owner of the partitions decides it again: during a rebalance the
    /// broker rejects the offsets of a member that has not rejoined yet.
    fn finish(mut self) -> Result<GroupConsumer, Error> {
        match self.publish_rest() {
            Err(error) if error.recovery() != Recovery::Fatal => {
                let reason = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(
                    worker = self.name,
                    reason,
                    "the last decisions were not published; the next owner of the partition decides them again"
                );
            }
            result => result?,
        }
        Ok(self.consumer)
    }
}
