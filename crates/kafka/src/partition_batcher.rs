//! Sends each partition one batch at a time. Meanwhile the next batch collects here, so batches grow with the load.
//!
//! The records do not collect in librdkafka, because an idempotent producer busy-loops there while five requests of a partition
//! are in flight and another record waits (<https://github.com/confluentinc/librdkafka/issues/3692>). That takes a whole core, for
//! seconds after a broker has died, when the other processes need it most.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::{Error, Producer, Record, partition_of};

/// Most records of a batch. A batch is bounded by bytes too, by librdkafka: what does not fit follows at once.
const BATCH_LEN_MAX: usize = 1_024;

/// Under load the batches of all partitions leave on the same ticks. Consumers then fetch many records at a time, and most of
/// a command's cost under load is the requests that it causes (docs/performance.md). A record that comes alone does not wait.
const TICK: Duration = Duration::from_millis(10);

/// Ticks from one batch of a partition to its next, at most; see [`rest`]. Three made 64 clients wait for ticks while half of
/// the machine was idle (docs/performance.md).
const TICKS_MAX: usize = 2;

/// Most records that wait for a partition.
const WAITING_MAX: usize = 100_000;

/// A producer that sends each partition one batch at a time. Clones share it.
#[derive(Debug, Clone)]
pub struct PartitionBatcher {
    topic: String,
    queues: Vec<mpsc::Sender<Job>>,
}

#[derive(Debug)]
enum Job {
    Send {
        record: Record,
        since: Instant,
        delivered: oneshot::Sender<Result<i64, Error>>,
    },
    /// Everything before this has been delivered, or has failed.
    Flush(oneshot::Sender<()>),
}

impl PartitionBatcher {
    /// Starts a task for each of the topic's partitions, on the current runtime.
    #[must_use]
    pub fn start(producer: &Producer, partitions: i32) -> Self {
        let clock = Instant::now();
        let queue = |_| {
            let (jobs, incoming) = mpsc::channel(WAITING_MAX);
            tokio::spawn(work(producer.clone(), incoming, clock));
            jobs
        };
        Self { topic: producer.topic().to_owned(), queues: (0..partitions).map(queue).collect() }
    }

    /// The topic's full name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition that a record belongs to.
    #[must_use]
    pub fn partition(&self, record: &Record) -> i32 {
        record.partition.unwrap_or_else(|| {
            let partitions = i32::try_from(self.queues.len()).unwrap_or(i32::MAX);
            partition_of(record.key.as_deref().unwrap_or_default(), partitions)
        })
    }

    /// Queues a record and returns at once. The future completes when the record is in the log, with its offset. Records of a
    /// partition keep the order of these calls.
    ///
    /// # Errors
    /// At once when too many wait (nothing was sent); from the future when delivery failed, in which case the
    /// record may still be in the log.
    pub fn send(&self, record: Record) -> Result<impl Future<Output = Result<i64, Error>> + Send + use<>, Error> {
        let partition = self.partition(&record);
        let failed = |topic: &str, reason: &'static str| Error::retry(format!("producing to {topic}"), reason);
        let queue = usize::try_from(partition).ok().and_then(|partition| self.queues.get(partition));
        let queue = queue.ok_or_else(|| {
            Error::fatal(format!("producing to {}/{partition}", self.topic), "there is no such partition")
        })?;
        let (delivered, delivery) = oneshot::channel();
        queue
            .try_send(Job::Send {
                record: Record { partition: Some(partition), ..record },
                since: Instant::now(),
                delivered,
            })
            .map_err(|_| failed(&self.topic, "the queue of the producer is full"))?;
        let topic = self.topic.clone();
        Ok(async move { delivery.await.unwrap_or_else(|_| Err(failed(&topic, "the producer was closed"))) })
    }

    /// Waits until everything is delivered or given up.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub async fn flush(&self, timeout: Duration) -> Result<(), Error> {
        let failed = |reason: String| Error::retry(format!("delivering the queued records of {}", self.topic), reason);
        let all = async {
            let mut flushed = Vec::with_capacity(self.queues.len());
            for queue in &self.queues {
                let (sender, receiver) = oneshot::channel();
                // A queue that is gone has nothing left.
                if queue.send(Job::Flush(sender)).await.is_ok() {
                    flushed.push(receiver);
                }
            }
            for one in flushed {
                one.await.unwrap_or_default();
            }
        };
        tokio::time::timeout(timeout, all)
            .await
            .map_err(|_| failed(format!("it timed out after {} s", timeout.as_secs())))
    }
}

/// Sends a partition's batches until all senders are dropped. Ticks are counted from `clock`.
async fn work(producer: Producer, mut incoming: mpsc::Receiver<Job>, clock: Instant) {
    let mut batch = Vec::new();
    while incoming.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
        let batch_len = batch.len();
        let mut under_way = Vec::with_capacity(batch.len());
        let mut flushed = Vec::new();
        for job in batch.drain(..) {
            match job {
                Job::Send { record, since, delivered } => match produce(&producer, &record, since) {
                    Ok(delivery) => under_way.push((delivery, delivered)),
                    // An error means that the caller waits no longer; so below.
                    Err(error) => drop(delivered.send(Err(error))),
                },
                Job::Flush(done) => flushed.push(done),
            }
        }
        for (delivery, delivered) in under_way {
            drop(delivered.send(delivery.await));
        }
        for done in flushed {
            done.send(()).unwrap_or_default();
        }
        let rest = rest(batch_len, clock.elapsed());
        // A sleep of nothing takes up to a millisecond.
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

/// How long a partition rests at `time` after a batch: not at all after one record, until a tick after two, until the second
/// tick after more. So the busier a partition is, the more records share a request.
fn rest(batch_len: usize, time: Duration) -> Duration {
    let ticks = u64::try_from(batch_len.saturating_sub(1).min(TICKS_MAX)).unwrap_or_default();
    let interval_ns = ticks * u64::try_from(TICK.as_nanos()).unwrap_or_default();
    let past_ns = u64::try_from(time.as_nanos()).unwrap_or_default().checked_rem(interval_ns);
    Duration::from_nanos(interval_ns - past_ns.unwrap_or_default())
}

fn produce(
    producer: &Producer,
    record: &Record,
    since: Instant,
) -> Result<impl Future<Output = Result<i64, Error>> + Send + use<>, Error> {
    // It waits here as long as delivery may take, and for its delivery as long again: then its fate is known.
    fail_points::crash_point("batch-before-send");
    if since.elapsed() >= producer.delivery_timeout() {
        let reason = "it timed out in the queue of the producer and was not sent";
        return Err(Error::retry(format!("producing to {}", producer.topic()), reason));
    }
    producer.send(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_leave_on_the_same_ticks_for_all_partitions() {
        let ms = Duration::from_millis;
        for (batch_len, past_ms, rest_ms) in
            [(0, 3, 0), (1, 3, 0), (2, 0, 10), (2, 3, 7), (2, 10_009, 1), (3, 3, 17), (4, 3, 17), (1_024, 33, 7)]
        {
            assert_eq!(rest(batch_len, ms(past_ms)), ms(rest_ms), "{batch_len} at {past_ms} ms");
        }
    }
}
