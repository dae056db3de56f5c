//! The threads that follow the topics: committed records, by assignment, without a consumer group. They read while somebody
//! looks at the page.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use cart::contract::{Contract, STAGES};
use cart::{CartCommand, CartEvent, CartReply, PurchasedItem};
use kafka::{
    Admin, BorrowedMessage, Codec, GroupProgress, KafkaArgs, Message as _, Registry, TopicReader, trace_headers,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Backoff, Shutdown};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::board::{Board, CatchingUp, GROUP_TOPICS};
use crate::clock::now_ms;
use crate::health::Server;
use crate::journeys::Hop;
use crate::traffic::{Kind, WINDOW_SECONDS};

/// Offsets by partition.
type Offsets = BTreeMap<i32, i64>;

/// How long a wait for the next record blocks, and so how late a thread notices that the last viewer has left.
const POLL_TIME: Duration = Duration::from_millis(250);

/// How far back the reading of a partition begins at most. Only purchases are read from the beginning.
const BACK_MAX: i64 = 50_000;

/// How many of the newest records of a partition are read in any case, so that a page of an idle system shows something.
const BACK_MIN: i64 = 50;

/// What all threads share.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) kafka: KafkaArgs,
    pub(crate) board: Arc<Board>,
    pub(crate) watched: watch::Receiver<bool>,
    pub(crate) shutdown: Shutdown,
    pub(crate) runtime: Handle,
}

impl Context {
    /// Waits until somebody looks; false at the shutdown.
    pub(crate) fn wait(&mut self) -> bool {
        let (watched, shutdown) = (&mut self.watched, &mut self.shutdown);
        let wait = async {
            tokio::select! {
                seen = watched.wait_for(|watched| *watched) => seen.is_ok(),
                () = shutdown.requested() => false,
            }
        };
        self.runtime.block_on(wait)
    }

    pub(crate) fn is_watched(&self) -> bool {
        *self.watched.borrow() && !self.shutdown.is_requested()
    }
}

/// A record, with the time that counts for it.
struct Arrived<T> {
    value: T,
    hop: Hop,
    /// For a record that was there before: its own time; for a new one the time of its arrival.
    counted_at_ms: i64,
    trace_id: Option<String>,
}

/// Starts the four threads.
pub(crate) fn start(context: &Context) -> std::io::Result<()> {
    spawn::<CartCommand>(context, command)?;
    spawn::<CartReply>(context, reply)?;
    spawn::<CartEvent>(context, event)?;
    spawn::<PurchasedItem>(context, purchase)
}

fn command(board: &Board, arrived: Arrived<CartCommand>) {
    board.traffic().add(Kind::Command, arrived.counted_at_ms);
    board.journeys().command(&arrived.value, arrived.hop, arrived.trace_id);
}

fn reply(board: &Board, arrived: Arrived<CartReply>) {
    let replied_at = arrived.hop.at_ms;
    // A repeated reply counts once.
    let Ok(asked_at) = board.journeys().reply(&arrived.value, replied_at) else { return };
    let is_refused = crate::words::is_refused(&arrived.value.outcome);
    board.traffic().add(if is_refused { Kind::Refused } else { Kind::Accepted }, arrived.counted_at_ms);
    if let Some(asked_at) = asked_at {
        board.steps().outcome.add(asked_at, replied_at);
    }
}

fn event(board: &Board, arrived: Arrived<CartEvent>) {
    board.traffic().add(Kind::Event, arrived.counted_at_ms);
    let asked_at = board.journeys().event(&arrived.value, arrived.hop);
    if let Some(asked_at) = asked_at {
        board.steps().event.add(asked_at, arrived.hop.at_ms);
    }
}

fn purchase(board: &Board, arrived: Arrived<PurchasedItem>) {
    let Hop { partition, offset, at_ms } = arrived.hop;
    if !board.ledger().add(&arrived.value, partition, offset) {
        return;
    }
    board.sales().add(&arrived.value, arrived.counted_at_ms, now_ms());
    board.traffic().add(Kind::Purchase, arrived.counted_at_ms);
    let window_ms = i64::try_from(WINDOW_SECONDS).unwrap_or(i64::MAX) * 1_000;
    if now_ms() - at_ms > window_ms {
        // Its command is too old to be shown.
        return;
    }
    let happened_at = board.journeys().purchase(arrived.value, arrived.hop);
    if let Some(happened_at) = happened_at {
        board.steps().purchase.add(happened_at, at_ms);
    }
}

fn spawn<T>(context: &Context, show: fn(&Board, Arrived<T>)) -> std::io::Result<()>
where
    T: Contract + Serialize + DeserializeOwned + Clone + 'static,
{
    let mut follower = Follower::<T> { context: context.clone(), codec: None, next: BTreeMap::new(), show };
    std::thread::Builder::new().name(T::TOPIC.to_owned()).spawn(move || follower.run())?;
    Ok(())
}

/// Follows one topic.
struct Follower<T> {
    context: Context,
    codec: Option<Codec<T>>,
    /// Where to go on, by partition: nothing is counted twice.
    next: BTreeMap<i32, i64>,
    /// Puts a record on the board.
    show: fn(&Board, Arrived<T>),
}

/// Why the reading ended early.
struct Failed(Server, anyhow::Error);

impl<T> Follower<T>
where
    T: Contract + Serialize + DeserializeOwned + Clone + 'static,
{
    fn run(&mut self) {
        let mut backoff = Backoff::default();
        while self.context.wait() {
            match self.read(&mut backoff) {
                Ok(()) => backoff.succeeded(),
                Err(Failed(server, error)) => {
                    self.context.board.health.away(server, error);
                    std::thread::sleep(backoff.failed());
                }
            }
        }
    }

    /// Reads for as long as somebody looks.
    fn read(&mut self, backoff: &mut Backoff) -> Result<(), Failed> {
        let of_kafka = |error: kafka::Error| Failed(Server::Kafka, error.into());
        let codec = match &self.codec {
            Some(codec) => codec.clone(),
            None => self.codec.insert(self.register()?).clone(),
        };
        let topic = self.context.kafka.prefixed(T::TOPIC);
        let (starts, ends) = self.starts(&topic).map_err(of_kafka)?;
        let board = self.context.board.clone();
        if GROUP_TOPICS.contains(&T::TOPIC) {
            board.groups().topics.entry(T::TOPIC).or_default().start(&starts);
        }
        let of: i64 = starts
            .iter()
            .map(|(partition, start)| (ends.get(partition).copied().unwrap_or_default() - start).max(0))
            .sum();
        let mut done = 0;
        board.reading().insert(T::TOPIC, CatchingUp { done, of });
        let mut reader = TopicReader::open_to_follow(&self.context.kafka, &topic, starts).map_err(of_kafka)?;
        let mut behind = ends.clone();
        while self.context.is_watched() {
            let message = reader.follow(POLL_TIME).map_err(of_kafka)?;
            if let Some(message) = message {
                let (partition, next) = (message.partition(), message.offset() + 1);
                let is_new = ends.get(&partition).is_none_or(|end| next > *end);
                self.note(&codec, &message, is_new)?;
                behind.retain(|other, end| *other != partition || next < *end);
                done += 1;
                if done % 1_000 == 0 {
                    board.reading().entry(T::TOPIC).and_modify(|reading| reading.done = done.min(of));
                }
            }
            behind.retain(|partition, _| !reader.has_reached_end(*partition));
            if behind.is_empty() && board.reading().remove(T::TOPIC).is_some() {
                backoff.succeeded();
                if let Some(backlog) = board.groups().topics.get_mut(T::TOPIC) {
                    backlog.complete();
                }
            }
        }
        Ok(())
    }

    fn register(&self) -> Result<Codec<T>, Failed> {
        let failed = |error: kafka::Error| Failed(Server::Registry, error.into());
        let registry = Registry::new(&self.context.kafka).map_err(failed)?;
        self.context.runtime.block_on(Codec::register(&registry, T::TOPIC, T::SCHEMA)).map_err(failed)
    }

    /// Where to start in each partition, and the ends now.
    fn starts(&self, topic: &str) -> Result<(Offsets, Offsets), kafka::Error> {
        let admin = Admin::new(&self.context.kafka)?;
        let watermarks = admin.watermarks(topic)?;
        let ends = (0..).zip(watermarks.iter().map(|(_, end)| *end)).collect();
        let partitions = i32::try_from(watermarks.len()).unwrap_or(i32::MAX);
        if [CartCommand::TOPIC, CartReply::TOPIC].contains(&T::TOPIC) {
            // Each of these threads may be the first: a reply has the offset of its command, but not the partition.
            let commands = admin.partitions(&self.context.kafka.prefixed(CartCommand::TOPIC))?;
            self.context.board.journeys().set_partitions(commands);
        }
        if T::TOPIC == PurchasedItem::TOPIC {
            let firsts: Vec<i64> = watermarks.iter().map(|(first, _)| *first).collect();
            let mut ledger = self.context.board.ledger();
            ledger.start(&firsts);
            return Ok((ledger.next(), ends));
        }
        let window_ms = i64::try_from(WINDOW_SECONDS).unwrap_or(i64::MAX) * 1_000;
        let mut starts = admin.offsets_at(topic, now_ms() - window_ms)?;
        // A group that is behind is shown with all that waits.
        for stage in STAGES.iter().filter(|stage| stage.topic == T::TOPIC) {
            let group = self.context.kafka.prefixed(&self.context.board.group(stage));
            let committed = GroupProgress::new(&self.context.kafka, &group, topic)?.committed(0..partitions)?;
            for (partition, start) in (0..).zip(&mut starts) {
                *start = committed.get(&partition).copied().unwrap_or_default().min(*start);
            }
        }
        let clamp = |(partition, (start, (first, end))): (i32, (i64, &(i64, i64)))| {
            let latest = (end - BACK_MIN).max(*first);
            let start = i64::max(end - BACK_MAX, i64::min(start, latest)).max(*first);
            (partition, self.next.get(&partition).copied().unwrap_or_default().max(start))
        };
        Ok(((0..).zip(starts.into_iter().zip(&watermarks)).map(clamp).collect(), ends))
    }

    fn note(&mut self, codec: &Codec<T>, message: &BorrowedMessage<'_>, is_new: bool) -> Result<(), Failed> {
        let now = now_ms();
        let at_ms = message.timestamp().to_millis().unwrap_or(now);
        let hop = Hop { partition: message.partition(), offset: message.offset(), at_ms };
        let payload = message.payload().unwrap_or_default();
        let decoded = codec.decode_or_fetch_blocking(payload, &self.context.runtime);
        let arrived = |value| {
            let trace_id = trace_headers(message.headers()).trace_id().map(str::to_owned);
            Arrived { value, hop, counted_at_ms: if is_new { now } else { at_ms }, trace_id }
        };
        self.take(hop, decoded.map(|decoded| decoded.map(arrived)))
    }

    /// Takes a record, unless the registry does not answer: then it is read again.
    fn take(
        &mut self,
        hop: Hop,
        decoded: Result<Result<Arrived<T>, impl Display>, impl Into<anyhow::Error>>,
    ) -> Result<(), Failed> {
        let Hop { partition, offset, at_ms } = hop;
        let decoded = decoded.map_err(|error| Failed(Server::Registry, error.into()))?;
        self.next.insert(partition, offset + 1);
        if let Some(backlog) = self.context.board.groups().topics.get_mut(T::TOPIC) {
            backlog.add(partition, offset, at_ms);
        }
        match decoded {
            Ok(arrived) => (self.show)(&self.context.board, arrived),
            // A dead letter, or a record that stops its projector: their panels are those of the lag.
            Err(error) => tracing::warn!(topic = T::TOPIC, partition, offset, %error, "a record cannot be shown"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;
    use crate::audience::Audience;

    #[tokio::test]
    async fn a_record_that_could_not_be_decoded_for_lack_of_the_registry_is_read_again() {
        let (_stop, shutdown) = Shutdown::channel();
        let board = Arc::new(Board::default());
        board.groups().topics.entry(CartCommand::TOPIC).or_default().start(&BTreeMap::from([(0, 7)]));
        let context = Context {
            kafka: Args::parse_from(["cart-console"]).kafka,
            board: board.clone(),
            watched: Audience::new().watched(),
            shutdown,
            runtime: Handle::current(),
        };
        let mut follower = Follower::<CartCommand> { context, codec: None, next: BTreeMap::new(), show: command };
        let hop = Hop { partition: 0, offset: 7, at_ms: 1_000 };
        let read = || board.groups().topics[CartCommand::TOPIC].read();

        let away = Err::<Result<_, String>, _>(anyhow::anyhow!("connection refused"));
        assert!(matches!(follower.take(hop, away), Err(Failed(Server::Registry, _))));
        assert_eq!((follower.next.get(&0), read()), (None, 0));

        let unreadable = Ok::<_, anyhow::Error>(Err("not Avro"));
        assert!(follower.take(hop, unreadable).is_ok());
        assert_eq!((follower.next.get(&0), read()), (Some(&8), 1));
    }
}
