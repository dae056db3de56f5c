//! The thread that publishes outboxes, one transaction each, while its worker goes on deciding.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kafka::{ConsumerGroupMetadata, FencedGuard, KafkaArgs, TransactionalProducer};
use rdkafka::TopicPartitionList;
use service::{Readiness, Shutdown};
use trace::{Place, Work};

use crate::outbox::{Outbox, SendSpan};

/// Between two attempts to get a new producer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// An outbox with what commits it.
pub(crate) struct PendingTransaction {
    pub(crate) outbox: Outbox,
    pub(crate) offsets: TopicPartitionList,
    /// Taken on the worker's thread after its last poll: see [`kafka::GroupConsumer::group_metadata`].
    pub(crate) group: ConsumerGroupMetadata,
}

/// Where to publish.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) kafka: KafkaArgs,
    pub(crate) group: String,
    pub(crate) transactional_id: String,
    pub(crate) events: String,
    pub(crate) dead_letters: String,
    pub(crate) parked: String,
}

/// The worker's handle of the thread. At most one transaction is in progress.
#[derive(Debug)]
pub(crate) struct Publisher {
    transactions: Option<SyncSender<PendingTransaction>>,
    results: Receiver<Result<(), kafka::Error>>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects, which settles what a predecessor under the same id left open, and starts the thread. Blocks.
    pub(crate) fn start(target: Target, readiness: Readiness, shutdown: Shutdown) -> Result<Self, kafka::Error> {
        let producer = TransactionalProducer::connect(&target.kafka, &target.transactional_id)?;
        let (transactions, incoming) = sync_channel(1);
        let (outgoing, results) = sync_channel(1);
        let work = move || publish_all(&target, producer, &incoming, &outgoing, &readiness, &shutdown);
        let thread = std::thread::Builder::new()
            .name(String::from("publisher"))
            .spawn(work)
            .map_err(|error| kafka::Error::fatal("starting the publisher's thread", error))?;
        Ok(Self { transactions: Some(transactions), results, is_busy: false, thread: Some(thread) })
    }

    /// Begins a transaction. Only when none is in progress.
    pub(crate) fn begin(&mut self, pending: PendingTransaction) {
        // `wait` reports a thread that has ended.
        self.is_busy = self.transactions.as_ref().is_some_and(|transactions| transactions.send(pending).is_ok());
    }

    /// Waits at most `timeout` for the transaction in progress; false while it is.
    ///
    /// After an error all of the transaction is visible, or nothing: the committed offsets show which. A new producer is in
    /// place already, so they are final.
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
                result.map(|()| true)
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.transactions.take());
        if let Some(thread) = self.thread.take() {
            // Also if it panicked: its worker is ending either way.
            drop(thread.join());
        }
    }
}

fn publish_all(
    target: &Target,
    mut producer: TransactionalProducer,
    transactions: &Receiver<PendingTransaction>,
    results: &SyncSender<Result<(), kafka::Error>>,
    readiness: &Readiness,
    shutdown: &Shutdown,
) {
    let mut fenced = FencedGuard::new(&target.transactional_id);
    while let Ok(pending) = transactions.recv() {
        let started_at = std::time::Instant::now();
        let mut result = publish(target, &mut producer, pending);
        kafka::count_transaction(&target.group, started_at, &result);
        if let Err(error) = result {
            result = Err(fenced.failed(error));
            if let Some(new) = reconnect(target, readiness, shutdown) {
                producer = new;
            }
        } else {
            fenced.committed();
        }
        if results.send(result).is_err() {
            return;
        }
    }
}

fn publish(
    target: &Target,
    producer: &mut TransactionalProducer,
    pending: PendingTransaction,
) -> Result<(), kafka::Error> {
    fail_points::crash_point("processor-before-transaction");
    let sends: Vec<&SendSpan> = pending.outbox.partitions().flat_map(|partition| &partition.sends).collect();
    let mut work = Work::begin("commit", &target.events, pending.outbox.len(), sends.iter().map(|send| &send.span));
    let mut transaction = producer.begin()?;
    let mut watched = 0;
    for partition in pending.outbox.partitions() {
        let mut sends = partition.sends.iter().peekable();
        for (index, event) in partition.events.iter().enumerate() {
            if sends.next_if(|send| send.first == index).is_some() {
                watched += 1;
                transaction.send_watched(&target.events, event, watched)?;
            } else {
                transaction.send(&target.events, event)?;
            }
        }
        for letter in &partition.dead_letters {
            transaction.send(&target.dead_letters, letter)?;
        }
    }
    let parked: Vec<_> = pending.outbox.partitions().flat_map(|partition| &partition.parked).collect();
    let has_parked = !parked.is_empty();
    if has_parked {
        fail_points::crash_point("parking-before-transaction");
    }
    // A marker that is not in the transaction of its offsets would be lost in a crash, and the commands with it.
    let is_apart = fail_points::is_off("guard-parked-marker");
    for record in parked.iter().filter(|_| !is_apart) {
        transaction.send(&target.parked, record)?;
    }
    transaction.deliver()?;
    work.step("deliver the records");
    let places = transaction.watched();
    fail_points::crash_point("processor-in-transaction");
    if has_parked {
        fail_points::crash_point("parking-in-transaction");
    }
    // A crash before this leaves the transaction open: our successor under the same id, or the broker's time-out,
    // aborts it, and the commands are read again. A crash after it leaves nothing to do. Either way committed
    // readers see each event once. Shown by crates/e2e/tests/e2e/crash.rs.
    transaction.commit(pending.offsets, pending.group)?;
    work.step("commit the transaction");
    work.end();
    for place in places {
        let (partition, offset) = (place.partition, place.offset);
        if let Some(send) = sends.get(place.number - 1) {
            send.span.sent(Place { topic: &target.events, partition, offset }, send.len);
        }
    }
    fail_points::crash_point("processor-after-commit");
    if has_parked {
        fail_points::crash_point("parking-after-commit");
    }
    if is_apart && has_parked {
        let mut apart = producer.begin()?;
        for record in parked {
            apart.send(&target.parked, record)?;
        }
        apart.commit_records()?;
    }
    Ok(())
}

/// A new producer under the same id: aborts or finishes what the old one left open. `None` at the shutdown.
fn reconnect(target: &Target, readiness: &Readiness, shutdown: &Shutdown) -> Option<TransactionalProducer> {
    while !shutdown.is_requested() {
        match TransactionalProducer::connect(&target.kafka, &target.transactional_id) {
            Ok(producer) => {
                readiness.set_ready(&target.transactional_id);
                return Some(producer);
            }
            Err(error) => {
                readiness.set_unready(&target.transactional_id, anyhow::Error::new(error));
                std::thread::sleep(RECONNECT_PAUSE);
            }
        }
    }
    None
}
