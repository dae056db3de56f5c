//! The thread that publishes outboxes, one transaction each, while its worker goes on deciding.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kafka::{ConsumerGroupMetadata, KafkaArgs, Recovery, TransactionalProducer};
use rdkafka::TopicPartitionList;
use service::{Readiness, Shutdown};

use crate::outbox::Outbox;

/// Between two attempts to get a new producer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Fenced this often without one commit between: another process runs under our name, and both would go on
/// fencing each other for ever.
const FENCED_MAX: u32 = 5;

/// An outbox with what commits it.
pub(crate) struct Parcel {
    pub(crate) outbox: Outbox,
    pub(crate) offsets: TopicPartitionList,
    /// Taken on the worker's thread after its last poll: see [`kafka::GroupConsumer::group_metadata`].
    pub(crate) group: ConsumerGroupMetadata,
}

/// Where to publish.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kafka: KafkaArgs,
    pub(crate) transactional_id: String,
    pub(crate) events: String,
    pub(crate) dead_letters: String,
}

/// The worker's end of the thread. At most one parcel is under way.
#[derive(Debug)]
pub(crate) struct Publisher {
    parcels: Option<SyncSender<Parcel>>,
    results: Receiver<Result<Duration, kafka::Error>>,
    is_busy: bool,
    took: Duration,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects, which settles what a predecessor under the same id left open, and starts the thread. Blocks.
    pub(crate) fn start(target: Target, readiness: Readiness, shutdown: Shutdown) -> Result<Self, kafka::Error> {
        let producer = TransactionalProducer::connect(&target.kafka, &target.transactional_id)?;
        let (parcels, incoming) = sync_channel(1);
        let (outgoing, results) = sync_channel(1);
        let work = move || publish_all(&target, producer, &incoming, &outgoing, &readiness, &shutdown);
        let thread = std::thread::Builder::new()
            .name(String::from("publisher"))
            .spawn(work)
            .map_err(|error| kafka::Error::fatal("starting the publisher's thread", error))?;
        Ok(Self { parcels: Some(parcels), results, is_busy: false, took: Duration::ZERO, thread: Some(thread) })
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// How long the last transaction took.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    /// Hands a parcel over. Only when not busy.
    pub(crate) fn submit(&mut self, parcel: Parcel) {
        // A thread that is gone is noticed when its result is asked for.
        self.is_busy = self.parcels.as_ref().is_some_and(|parcels| parcels.send(parcel).is_ok());
    }

    /// Waits at most `timeout` for the parcel under way; false while it is still so.
    ///
    /// On an error nothing of the parcel is visible, or all of it: ask Kafka for the committed offsets. A new
    /// producer is in place already, so the answer is final.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<bool, kafka::Error> {
        if !self.is_busy {
            return Ok(true);
        }
        let result = match timeout {
            Duration::ZERO => self.results.try_recv().map_err(|error| error == TryRecvError::Empty),
            timeout => self.results.recv_timeout(timeout).map_err(|error| error == RecvTimeoutError::Timeout),
        };
        match result {
            Err(true) => Ok(false),
            Err(false) => Err(kafka::Error::fatal("publishing", "the publisher's thread has ended")),
            Ok(result) => {
                self.is_busy = false;
                self.took = result?;
                Ok(true)
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.parcels.take());
        if let Some(thread) = self.thread.take() {
            // It panicked or it did not: its worker is ending either way.
            drop(thread.join());
        }
    }
}

fn publish_all(
    target: &Target,
    mut producer: TransactionalProducer,
    parcels: &Receiver<Parcel>,
    results: &SyncSender<Result<Duration, kafka::Error>>,
    readiness: &Readiness,
    shutdown: &Shutdown,
) {
    let mut fenced = 0;
    while let Ok(parcel) = parcels.recv() {
        let started_at = std::time::Instant::now();
        let mut result = publish(target, &mut producer, parcel).map(|()| started_at.elapsed());
        metrics::histogram!("processor_transaction_seconds").record(started_at.elapsed());
        if let Err(error) = result {
            fenced = if error.is_fenced() { fenced + 1 } else { fenced };
            metrics::counter!("processor_transactions_failed_total").increment(1);
            result = Err(if fenced >= FENCED_MAX { fenced_for_good(target, error) } else { error });
            if let Some(new) = reconnect(target, readiness, shutdown) {
                producer = new;
            }
        } else {
            fenced = 0;
        }
        if results.send(result).is_err() {
            return;
        }
    }
}

fn publish(target: &Target, producer: &mut TransactionalProducer, parcel: Parcel) -> Result<(), kafka::Error> {
    fail_points::crash_point("processor-before-transaction");
    let mut transaction = producer.begin()?;
    for share in parcel.outbox.shares() {
        for event in &share.events {
            transaction.send(&target.events, event)?;
        }
        for letter in &share.dead_letters {
            transaction.send(&target.dead_letters, letter)?;
        }
    }
    transaction.deliver()?;
    fail_points::crash_point("processor-in-transaction");
    // A crash before this leaves the transaction open: our successor under the same id, or the broker's time-out,
    // aborts it, and the commands are read again. A crash after it leaves nothing to do. Either way committed
    // readers see each event once. Shown by crates/e2e/tests/e2e/crash.rs.
    transaction.commit(parcel.offsets, parcel.group)?;
    fail_points::crash_point("processor-after-commit");
    Ok(())
}

/// A new producer under the same id: aborts or finishes what the old one left open. `None` at the shutdown.
fn reconnect(target: &Target, readiness: &Readiness, shutdown: &Shutdown) -> Option<TransactionalProducer> {
    while !shutdown.is_requested() {
        match TransactionalProducer::connect(&target.kafka, &target.transactional_id) {
            Ok(producer) => {
                readiness.up(&target.transactional_id);
                return Some(producer);
            }
            Err(error) => {
                readiness.down(&target.transactional_id, anyhow::Error::new(error));
                std::thread::sleep(RECONNECT_PAUSE);
            }
        }
    }
    None
}

fn fenced_for_good(target: &Target, error: kafka::Error) -> kafka::Error {
    debug_assert_eq!(error.recovery(), Recovery::AbortTransaction);
    kafka::Error::fatal(
        format!(
            "publishing as {} (another process with the same --instance keeps fencing this one; give each its own \
             name)",
            target.transactional_id
        ),
        error,
    )
}
