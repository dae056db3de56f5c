//! The one loop: poll, apply, commit. All retries are here.

mod assignment;
mod stop;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use control::{Changes, MemberControl};
use kafka::{BorrowedMessage, Codec, DecodeError, GroupConsumer, Message as _, Recovery};
use rdkafka::Offset;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Backoff, Readiness, Shutdown};
use tokio::runtime::Handle;
use trace::names::{OUTCOME, outcome};
use trace::{Place, Span, Trace, Work};

use crate::error::Error;
use crate::metrics::{APPLY_SECONDS, BATCH_RECORDS, RECORDS, RECOVERIES};

/// How long a poll waits for a record. A shutdown waits for it too.
const POLL: Duration = Duration::from_millis(100);

/// How long it waits at least: the wrapper counts in milliseconds, and spins for what is less than one.
const POLL_MIN: Duration = Duration::from_millis(5);

/// A partition that was just assigned takes no seek until librdkafka reads it: a moment. One that went meanwhile never does,
/// and a thread that waits for it does not hear of that.
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);

/// A record as a projector sees it.
#[derive(Debug)]
pub(crate) struct Received<E> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) event: E,
    pub(crate) trace: Trace,
}

/// Records in the order of their partitions, and where each partition goes on behind them.
#[derive(Debug)]
pub(crate) struct Batch<E> {
    pub(crate) records: Vec<Received<E>>,
    pub(crate) next_offsets: BTreeMap<i32, i64>,
}

impl<E> Batch<E> {
    /// The spans of its records, as far as they are recorded.
    fn spans(&self) -> impl Iterator<Item = &Span> + Clone {
        self.records.iter().filter_map(|record| record.trace.span())
    }

    /// Begins the work for it, as traces show it.
    pub(crate) fn work(&self, topic: &str) -> Work {
        Work::begin("process", topic, self.records.len(), self.spans())
    }
}

/// A read model.
pub(crate) trait Projector {
    /// Whether records follow from those that it reads, which carry their traces on.
    const CARRIES_TRACES: bool = false;

    /// What it reads.
    type Event: Serialize + DeserializeOwned;

    /// Takes a batch, and writes and commits what is due. Called with an empty batch when no record comes.
    fn apply(&mut self, batch: Batch<Self::Event>, consumer: &GroupConsumer) -> Result<(), Error>;

    /// Goes on with what is done beside the batches. Called after each; nothing is to be applied in partitions that are held.
    fn tend(&mut self, _consumer: &GroupConsumer, _wishes: &Wishes<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// How long until [`Projector::apply`] has something to do without a new record; `None` while it has not.
    fn due_in(&self) -> Option<Duration>;

    /// Writes and commits what waits now, without waiting for more.
    fn flush(&mut self, consumer: &GroupConsumer) -> Result<(), Error> {
        self.finish(consumer)
    }

    /// Writes and commits what waits, before the member leaves its group.
    fn finish(&mut self, consumer: &GroupConsumer) -> Result<(), Error>;

    /// Where to go on in these partitions, if that is not for Kafka to say.
    fn start_offsets(&mut self, partitions: &[i32]) -> Result<Vec<(i32, i64)>, Error>;

    /// Partitions that must be stopped, of those that [`Projector::start_offsets`] was asked for, and why. Each is returned once.
    fn take_refused(&mut self) -> Vec<(i32, Error)> {
        Vec::new()
    }

    /// Forgets what is in memory: something failed, and everything is read again from where it is committed.
    fn forget(&mut self);

    /// Forgets what belongs to partitions that went. The others go on where they are.
    fn forget_partitions(&mut self, partitions: &[i32]);
}

/// What operators want of partitions.
pub(crate) struct Wishes<'a> {
    control: &'a MemberControl,
    stopped: &'a BTreeMap<i32, Unreadable>,
}

impl Wishes<'_> {
    /// Whether nothing of a partition is to be applied now. A partition that is stopped since too many of its rows are parked is not held:
    /// tries of these rows are how it becomes free.
    pub(crate) fn hold(&self, partition: i32) -> bool {
        self.control.is_paused(partition) || self.stopped.get(&partition).is_some_and(Unreadable::is_unreadable)
    }

    /// The records of a partition that are skipped: offsets and hashes.
    pub(crate) fn skips(&self, partition: i32) -> BTreeMap<i64, String> {
        self.control.skipped(partition)
    }
}

/// One instance of one projector. For one thread.
pub(crate) struct Runner<P: Projector> {
    /// As its group is called, without a prefix.
    pub(crate) name: String,
    pub(crate) projector: P,
    pub(crate) consumer: GroupConsumer,
    /// The topic's name, without a prefix.
    pub(crate) topic: String,
    /// The group's full name.
    pub(crate) group: String,
    pub(crate) codec: Codec<P::Event>,
    pub(crate) control: MemberControl,
    pub(crate) batch_len_max: usize,
    /// Most records per second; `None`: as many as it can apply.
    pub(crate) rate_max: Option<NonZeroU32>,
    pub(crate) runtime: Handle,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) stopped: BTreeMap<i32, Unreadable>,
}

/// A record at which a partition is stopped.
#[derive(Debug)]
pub(crate) struct Unreadable {
    offset: i64,
    /// Empty for one that can be read, and that no row has room for: it is never skipped.
    sha256: String,
}

impl Unreadable {
    fn is_unreadable(&self) -> bool {
        !self.sha256.is_empty()
    }
}

/// What a record is to its projector.
enum Read<E> {
    Event(E),
    /// An operator has it skipped.
    Skipped {
        by: String,
        reason: String,
        trace_id: Option<String>,
    },
    Unreadable {
        sha256: String,
        error: DecodeError,
        trace_id: Option<String>,
    },
}

/// The id of a record's trace, for its log line: also of a trace that is not recorded.
fn trace_id(message: &BorrowedMessage<'_>) -> Option<String> {
    kafka::trace_headers(message.headers()).trace_id().map(str::to_owned)
}

const CONDITION: &str = "projector";

fn offsets(starts: Vec<(i32, i64)>) -> impl Iterator<Item = (i32, Offset)> {
    starts.into_iter().map(|(partition, next)| (partition, Offset::Offset(next)))
}

impl<P: Projector> Runner<P> {
    /// Runs until the shutdown, then leaves the group. Ends earlier only with a fatal error.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        self.readiness.expect_heartbeat(CONDITION);
        while !self.shutdown.is_requested() {
            match self.step() {
                Ok(()) => {
                    backoff.succeeded();
                    self.readiness.set_ready(CONDITION);
                }
                Err(error) => self.recover(error, &mut backoff)?,
            }
        }
        if let Err(error) = self.projector.finish(&self.consumer) {
            // The next owner of the partitions reads the records again.
            tracing::info!(reason = format!("{:#}", anyhow::Error::new(error)), "the last records were not committed");
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Error> {
        self.consumer.rejoin_if_lost()?;
        self.follow_control()?;
        let batch = self.poll()?;
        let next_offsets = batch.next_offsets.clone();
        let started_at = Instant::now();
        let len = batch.records.len();
        let spans: Vec<Span> = batch.spans().cloned().collect();
        self.projector.apply(batch, &self.consumer)?;
        self.control.went_on(next_offsets);
        let wishes = Wishes { control: &self.control, stopped: &self.stopped };
        self.projector.tend(&self.consumer, &wishes)?;
        for span in spans {
            span.end();
        }
        if len > 0 {
            RECORDS.with(&[&self.name]).increment(len as u64);
            BATCH_RECORDS.with(&[&self.name]).record(f64::from(u32::try_from(len).unwrap_or(u32::MAX)));
            APPLY_SECONDS.with(&[&self.name]).record(started_at.elapsed());
            self.keep_rate(len as u64, started_at);
        }
        Ok(())
    }

    /// Waits until so many records may have been applied. A batch has at most those of a second, so the wait is shorter.
    fn keep_rate(&self, len: u64, started_at: Instant) {
        if let Some(rate) = self.rate_max {
            let due = Duration::from_micros(len * 1_000_000 / u64::from(rate.get()));
            std::thread::sleep(due.saturating_sub(started_at.elapsed()));
        }
    }

    /// Pauses and resumes what operators want, and goes past records that they want to be skipped. Between two batches: what
    /// was read is applied and committed before a partition is paused.
    fn follow_control(&mut self) -> Result<(), Error> {
        let Changes { pause, resume } = self.control.changes(&self.consumer)?;
        if !pause.is_empty() {
            self.projector.flush(&self.consumer)?;
            self.control.pause(&self.consumer, &pause)?;
        }
        let skipped = self.stopped.iter().filter(|(partition, record)| {
            self.control.skips_stopped(**partition, record.offset, &record.sha256)
                && !self.control.is_paused(**partition)
        });
        let go_on: Vec<i32> = resume.into_iter().chain(skipped.map(|(partition, _)| *partition)).collect();
        if !go_on.is_empty() { self.go_on(&go_on) } else { Ok(()) }
    }

    /// Reads partitions again from where they are committed. One that is stopped meets its record again.
    fn go_on(&mut self, partitions: &[i32]) -> Result<(), Error> {
        if fail_points::fails("resume-fails") {
            return Err(kafka::Error::retry("resuming partitions", "a test lets it fail").into());
        }
        // A stopped partition that waits for nothing else may have records that are applied and not committed.
        self.projector.flush(&self.consumer)?;
        let committed = self.consumer.committed(partitions)?;
        for partition in partitions {
            let start = self.consumer.start(*partition, committed.get(partition).copied().flatten())?;
            self.ends_stop(*partition);
            self.consumer.resume(*partition)?;
            self.seek([(*partition, start)])?;
        }
        let starts = self.projector.start_offsets(partitions)?;
        self.seek(offsets(starts))?;
        self.control.resumed(partitions);
        self.stop_refused()
    }

    /// What is there now, up to the limit.
    fn poll(&mut self) -> Result<Batch<P::Event>, Error> {
        let mut batch = Batch { records: Vec::new(), next_offsets: BTreeMap::new() };
        let mut wait = self.projector.due_in().unwrap_or(POLL).clamp(POLL_MIN, POLL);
        while batch.records.len() < self.batch_len_max {
            let read = match self.consumer.poll(wait) {
                Ok(Some(message)) => {
                    let trace = self.trace(&message);
                    Some((message.partition(), message.offset(), self.read(&message)?, trace))
                }
                Ok(None) => None,
                // librdkafka reconnects by itself, and reports each failure.
                Err(error) if error.recovery() == Recovery::Retry => None,
                Err(error) => return Err(error.into()),
            };
            let place = read.as_ref().map(|(partition, offset, ..)| (*partition, *offset));
            let is_dropped = self.follow_assignment(&mut batch, place)?;
            let Some((partition, offset, read, trace)) = read else { break };
            wait = Duration::ZERO;
            if is_dropped || self.stopped.contains_key(&partition) || self.control.holds(partition, offset) {
                continue;
            }
            match read {
                Read::Event(event) => batch.records.push(Received { partition, offset, event, trace }),
                Read::Skipped { by, reason, trace_id } => {
                    let place = Place { topic: self.consumer.topic(), partition, offset };
                    tracing::warn!(position = %place, trace_id, by, reason, "skipping a record (cartctl skip)");
                    if let Some(span) = trace.span() {
                        span.set(OUTCOME, outcome::SKIPPED);
                        span.end();
                    }
                }
                Read::Unreadable { sha256, error, trace_id } => {
                    self.stop(partition, offset, sha256, &error, trace_id)?;
                    continue;
                }
            }
            batch.next_offsets.insert(partition, offset + 1);
        }
        Ok(batch)
    }

    /// Begins the span of a record, if it is recorded.
    fn trace(&self, message: &BorrowedMessage<'_>) -> Trace {
        if !P::CARRIES_TRACES && !trace::is_on() {
            return Trace::None;
        }
        let headers = kafka::trace_headers(message.headers());
        if !P::CARRIES_TRACES && !headers.may_be_recorded() {
            return Trace::None;
        }
        let place = Place { topic: message.topic(), partition: message.partition(), offset: message.offset() };
        trace::process(headers, place, &self.group)
    }

    fn read(&self, message: &BorrowedMessage<'_>) -> Result<Read<P::Event>, Error> {
        // A record that a newer program can read stays skipped: a table that is built again is the same.
        if let Some((by, reason)) = self.control.skips(message.partition(), message.offset(), message.payload()) {
            let trace_id = trace_id(message);
            return Ok(Read::Skipped { by: by.to_owned(), reason: reason.to_owned(), trace_id });
        }
        let value = message.payload().unwrap_or_default();
        Ok(match self.codec.decode_or_fetch_blocking(value, &self.runtime)? {
            Ok(event) => Read::Event(event),
            Err(error) => {
                Read::Unreadable { sha256: control::sha256(message.payload()), error, trace_id: trace_id(message) }
            }
        })
    }

    fn seek(&self, starts: impl IntoIterator<Item = (i32, Offset)>) -> Result<(), Error> {
        let started_at = Instant::now();
        for (partition, offset) in starts {
            while let Err(error) = self.consumer.seek(partition, offset) {
                if started_at.elapsed() >= SEEK_TIMEOUT {
                    return Err(error.into());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Goes back to what is committed. Nothing is ever dropped.
    fn recover(&mut self, error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        let recovery = error.recovery();
        if recovery == Recovery::Fatal {
            return Err(error);
        }
        let kind = if recovery == Recovery::Retry { "retry" } else { "rewind" };
        RECOVERIES.with(&[&self.name, kind]).increment(1);
        let pause = backoff.failed();
        if let Some((partition, offset)) = error.stops() {
            self.stop_full(partition, offset, error)?;
        } else if recovery == Recovery::Retry {
            self.readiness.set_unready(CONDITION, anyhow::Error::new(error));
            std::thread::sleep(pause);
        } else {
            tracing::info!(reason = format!("{:#}", anyhow::Error::new(error)), "rewinding to the committed offsets");
        }
        self.projector.forget();
        while !self.shutdown.is_requested() {
            let ours = self.consumer.rejoin_if_lost().and_then(|()| self.consumer.rewind());
            let rewound = ours.map_err(Error::from).and_then(|partitions| {
                let starts = self.projector.start_offsets(&partitions)?;
                self.seek(offsets(starts))?;
                self.control.hold_again(&self.consumer, &partitions)?;
                self.stop_refused()
            });
            match rewound {
                Ok(()) => break,
                // The committed offsets are lost, for example: waiting does not bring them back.
                Err(error) if error.recovery() == Recovery::Fatal => return Err(error),
                Err(error) => self.readiness.set_unready(CONDITION, anyhow::Error::new(error)),
            }
            self.consumer.follow();
        }
        Ok(())
    }
}
