//! A try of a parked row: reads its records from the log, while the loop goes on.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cart::PurchasedItem;
use kafka::{Codec, Error, GroupProgress, KafkaArgs, Message, TopicReader};
use tokio::runtime::Handle;

use super::lots::{Job, Passed, Read};

/// Records that are added together: bounds the memory of a try.
const CHUNK_LEN_MAX: usize = 10_000;

/// How long the log may go without a record.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Between two looks at the operators' requests, and after a try whose log could not be read.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The records of a partition, in their order.
trait Log {
    /// The next record. `None`: the log ends here, as far as the broker knows.
    fn next(&mut self, timeout: Duration) -> Result<Option<impl Message>, Error>;
}

impl Log for TopicReader {
    fn next(&mut self, timeout: Duration) -> Result<Option<impl Message>, Error> {
        // The method of the type itself.
        TopicReader::next(self, timeout)
    }
}

/// Reads the log of a projector's records.
#[derive(Debug, Clone)]
pub(crate) struct LogReader {
    pub(crate) kafka: KafkaArgs,
    /// `item-purchased`, its full name.
    pub(crate) topic: String,
    pub(crate) codec: Codec<PurchasedItem>,
    pub(crate) runtime: Handle,
    /// The key of the row that a purchase belongs to.
    pub(crate) row_key: fn(&PurchasedItem) -> String,
}

#[derive(Debug)]
struct Reading {
    job: Job,
    thread: JoinHandle<Result<Read, Error>>,
}

/// Follows requests and reads for tries, one at a time.
#[derive(Debug)]
pub(crate) struct Retries {
    reader: LogReader,
    reading: Option<Reading>,
    looked_at: Option<Instant>,
    failed_at: Option<Instant>,
}

impl Retries {
    pub(crate) fn new(reader: LogReader) -> Self {
        Self { reader, reading: None, looked_at: None, failed_at: None }
    }

    /// Whether it is time to look at the operators' requests again. Counts as a look.
    pub(crate) fn is_look_due(&mut self) -> bool {
        let is_due = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL);
        if is_due {
            self.looked_at = Some(Instant::now());
        }
        is_due
    }

    /// Whether a try may begin.
    pub(crate) fn is_idle(&self) -> bool {
        self.reading.is_none() && self.failed_at.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL)
    }

    /// Begins to read. `skips` are the records of the partition that operators have skipped: offsets and hashes.
    pub(crate) fn begin(&mut self, job: Job, skips: BTreeMap<i64, String>) -> std::io::Result<()> {
        let (reader, of) = (self.reader.clone(), job.clone());
        let thread = std::thread::Builder::new().name(String::from("parked row"));
        let thread = thread.spawn(move || reader.read(&of, &skips))?;
        self.reading = Some(Reading { job, thread });
        Ok(())
    }

    /// What has been read, once, or why the log could not be read.
    pub(crate) fn finished(&mut self) -> Option<(Job, Result<Read, String>)> {
        let Reading { job, thread } = self.reading.take_if(|reading| reading.thread.is_finished())?;
        let error = match thread.join() {
            Ok(Ok(read)) => return Some((job, Ok(read))),
            Ok(Err(error)) => format!("{:#}", anyhow::Error::new(error)),
            Err(_) => String::from("its thread has panicked"),
        };
        self.failed_at = Some(Instant::now());
        let partition = job.partition;
        tracing::warn!(partition, error, "the records of a parked row were not read; they are read again");
        Some((job, Err(error)))
    }
}

impl LogReader {
    /// Decodes a record that the loop has passed over. One that cannot be read is an error: another program could read it, or its skip was
    /// withdrawn since. Without it the row would be live and incomplete.
    fn decode(&self, partition: i32, offset: i64, value: &[u8]) -> Result<PurchasedItem, Error> {
        let decoded = self.codec.decode_or_fetch_blocking(value, &self.runtime)?;
        decoded.map_err(|error| {
            let operation = format!("reading {}/{partition}/{offset}", self.topic);
            let reason = format!("{error}: upgrade this program, or skip the record again (`cartctl skip`)");
            Error::retry(operation, reason)
        })
    }

    fn read(&self, job: &Job, skips: &BTreeMap<i64, String>) -> Result<Read, Error> {
        // No offsets are committed under the name.
        let progress = GroupProgress::new(&self.kafka, &format!("{}-reader", self.topic), &self.topic)?;
        let (start, _) = progress.bounds(job.partition)?;
        if start > job.from {
            let operation = format!("reading {}/{} from offset {}", self.topic, job.partition, job.from);
            let reason = format!("the log begins at {start}: build the read model anew (`cartctl rebuild`)");
            return Err(Error::retry(operation, reason));
        }
        let log = TopicReader::open(&self.kafka, &self.topic, [(job.partition, job.from)])?;
        let read = self.collect(job, skips, log)?;
        fail_points::crash_point("parked-row-read");
        Ok(read)
    }

    /// Collects the records of a job from its log, which starts where the job does.
    fn collect(&self, job: &Job, skips: &BTreeMap<i64, String>, mut log: impl Log) -> Result<Read, Error> {
        let mut read = Read { records: Vec::new(), read_to: job.until };
        let vendor = job.id.vendor_id.to_string();
        let mut next = job.from;
        while next < job.until {
            let Some(message) = log.next(SILENCE_MAX)? else {
                // The loop has read the record before `until`. A broker that has just become the leader may know less of the log for a moment.
                let operation = format!("reading {}/{} to offset {}", self.topic, job.partition, job.until);
                return Err(Error::retry(operation, format!("the log ends at {next}")));
            };
            let offset = message.offset();
            if offset >= job.until {
                break;
            }
            next = offset + 1;
            let is_skipped = || skips.get(&offset).is_some_and(|hash| *hash == control::sha256(message.payload()));
            if message.key() != Some(vendor.as_bytes()) || is_skipped() {
                continue;
            }
            let value = message.payload().unwrap_or_default();
            let purchase = self.decode(job.partition, offset, value)?;
            if (self.row_key)(&purchase) != job.id.row_key {
                continue;
            }
            read.records.push(Passed { offset, purchase });
            if read.records.len() == CHUNK_LEN_MAX {
                read.read_to = next;
                break;
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cart::contract::Contract as _;
    use kafka::{Recovery, Registry};
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    use super::*;
    use crate::parking::RowId;
    use crate::parking::tests::purchase;

    fn reader() -> LogReader {
        let registry = Registry::new(&KafkaArgs::plain("", "http://127.0.0.1:1")).unwrap();
        let topic = String::from(PurchasedItem::TOPIC);
        let codec = Codec::registered(&registry, &topic, PurchasedItem::SCHEMA, 1).unwrap();
        let kafka = KafkaArgs::plain("127.0.0.1:1", "");
        LogReader { kafka, topic, codec, runtime: Handle::current(), row_key: |_| String::new() }
    }

    /// A log of which a broker knows these records.
    struct Known<'a>(std::slice::Iter<'a, OwnedMessage>);

    impl Log for Known<'_> {
        fn next(&mut self, _: Duration) -> Result<Option<impl Message>, Error> {
            Ok(self.0.next().cloned())
        }
    }

    fn record(offset: i64, key: &str, value: &[u8]) -> OwnedMessage {
        let (key, topic) = (key.as_bytes().to_vec(), String::from(PurchasedItem::TOPIC));
        OwnedMessage::new(Some(value.to_vec()), Some(key), topic, Timestamp::NotAvailable, 0, offset, None)
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_ends_the_try() {
        let error = anyhow::Error::new(reader().decode(3, 77, b"garbage").unwrap_err());
        assert!(format!("{error:#}").contains("item-purchased/3/77"), "{error:#}");
    }

    #[tokio::test]
    async fn a_log_that_ends_before_what_the_loop_has_read_ends_the_try() {
        let (reader, purchase, skips) = (reader(), purchase(1, 1), BTreeMap::new());
        let (vendor, value) = (purchase.vendor_id.to_string(), reader.codec.encode(&purchase).unwrap());
        let all = [
            record(5, &vendor, &value),
            record(6, "another vendor", b""),
            record(7, &vendor, &value),
            record(8, &vendor, &value),
        ];
        let id = RowId { vendor_id: purchase.vendor_id, row_key: String::new() };
        let job = Job { partition: 0, id, from: 5, until: 8, requested_at: 1 };
        let collect = |known: &[OwnedMessage]| reader.collect(&job, &skips, Known(known.iter()));
        for known in [&all[..], &all[..3]] {
            let read = collect(known).unwrap();
            assert_eq!(read.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [5, 7]);
            assert_eq!(read.read_to, 8);
        }
        // The leader is new, and does not know yet that the last of them were committed.
        for (known, end) in [(&all[..0], 5), (&all[..1], 6), (&all[..2], 7)] {
            let error = collect(known).unwrap_err();
            assert_eq!(error.recovery(), Recovery::Retry);
            let error = format!("{:#}", anyhow::Error::new(error));
            assert!(error.contains("to offset 8") && error.contains(&format!("the log ends at {end}")), "{error}");
        }
    }
}
