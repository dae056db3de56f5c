//! A cart's events as they happen, as Server-Sent Events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! ```text
//! cart-events ─▶ wakeups ─▶ one task per stream ─▶ one chunk ─▶ response body
//!                               ▲ page after the last event
//!                            journal
//! ```
//!
//! Every event comes from the journal, read by sequence number after the last one that was sent. So a stream has neither a gap
//! nor a double, and it does not matter which instance a client reconnects to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cart::{CartId, SequenceNumber};
use journal::{Entry, Journal};
use kafka::KafkaArgs;
use service::{LogLimit, Shutdown, Store};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::events::EventBody;
use super::unavailable::journal_unavailable;
use super::wakeups::{Listener, NoListener, Wakeups};
use crate::metrics::EVENT_STREAMS;
use crate::problem::Problem;

/// Maximum number of events of a chunk: at about 400 bytes an event, 20 kB. A client that reads nothing holds two chunks.
const CHUNK_EVENTS_MAX: i32 = 50;

/// Longest interval of heartbeats: proxies close connections that are silent for a minute.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Shortest interval of a stream's reads, so that a busy cart does not cost a read per event.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// Pause after a failed read of the journal.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// How long clients wait before they reconnect, in milliseconds; a random part is added, because all streams of an instance end
/// together.
const RETRY_MS: u128 = 1_000;
const RETRY_SPREAD_MS: u128 = 2_000;

/// What the last read found behind the events that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// This event is missing, and later ones are there. Rows of a cart become visible in their order, so it is most likely lost.
    Gap(SequenceNumber),
    /// The journal could not be read.
    Unavailable,
}

impl Rest {
    /// A heartbeat. A comment is for people and proxies; clients skip it.
    fn comment(self) -> String {
        match self {
            Self::Nothing => String::from(": up to date\n\n"),
            Self::Gap(missing) => {
                format!(": event {missing} is missing in the journal; it and later ones follow when it is there\n\n")
            }
            Self::Unavailable => String::from(": the journal is unavailable; events follow later\n\n"),
        }
    }
}

/// Opens event streams. Clones share the limit.
#[derive(Debug, Clone)]
pub(crate) struct EventStreams {
    journal: Journal,
    wakeups: Wakeups,
    permits: Arc<Semaphore>,
    heartbeat: Duration,
    stall_timeout: Duration,
}

/// A part of the body of a stream.
pub(crate) type Chunk = Result<Bytes, std::convert::Infallible>;

/// The event after which a client wants to continue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) after: SequenceNumber,
    /// Rejects what named the event: a header or a parameter.
    pub(crate) reject: fn(String) -> Problem,
}

impl EventStreams {
    /// At most `max` streams at a time. One whose client takes nothing for `stall_timeout` ends. `topic` is the full name of
    /// `cart-events`.
    pub(crate) fn new(
        kafka: &KafkaArgs,
        (topic, partitions): (String, i32),
        journal: Journal,
        max: u32,
        stall_timeout: Duration,
        end: Shutdown,
    ) -> Self {
        EVENT_STREAMS.with(&[]).set(0.0);
        Self {
            journal,
            wakeups: Wakeups::new(kafka, topic, partitions, end),
            permits: Arc::new(Semaphore::new(max as usize)),
            // A connection on which nothing is sent for the stall timeout is idle.
            heartbeat: HEARTBEAT_INTERVAL.min(stall_timeout / 3),
            stall_timeout,
        }
    }

    /// Starts a stream. It goes on until the receiver is dropped.
    pub(crate) async fn open(&self, cart_id: CartId, start: Start) -> Result<Receiver<Chunk>, Problem> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            Problem::unavailable(
                "too many event streams are open (--event-streams-max); retry later, or read the pages",
            )
        })?;
        let listener = self.wakeups.listen(cart_id).map_err(|error| match error {
            NoListener::TooMany => Problem::unavailable(format!("{error}; close others, or read the pages")),
            NoListener::Thread(_) => {
                tracing::error!(error = format!("{:#}", anyhow::Error::new(error)), "an event stream was refused");
                Problem::unavailable("the service is overloaded; retry later")
            }
        })?;
        self.check(cart_id, start).await?;
        let (sender, receiver) = channel(1);
        let stream =
            Stream { journal: self.journal.clone(), cart_id, after: start.after, listener, rest: Rest::Nothing };
        let (heartbeat, stall_timeout) = (self.heartbeat, self.stall_timeout);
        tokio::spawn(async move {
            let _open = Open::new(permit);
            stream.run(&sender, heartbeat, stall_timeout).await;
        });
        Ok(receiver)
    }

    /// A client that has seen more events than the journal has would miss those that follow.
    async fn check(&self, cart_id: CartId, Start { after, reject }: Start) -> Result<(), Problem> {
        let before = SequenceNumber::from((after.get() - 1).max(0));
        let page = self.journal.page(cart_id, before, 1);
        let entries = Store::Cassandra.time("journal_read", page).await.map_err(journal_unavailable)?;
        if after == SequenceNumber::ZERO || entries.first().is_some_and(|entry| entry.sequence_number == after) {
            return Ok(());
        }
        Err(reject(format!("the cart has no event {after} yet; start without it, to get all events")))
    }
}

/// Counts an open stream.
struct Open {
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        EVENT_STREAMS.with(&[]).increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        EVENT_STREAMS.with(&[]).decrement(1.0);
    }
}

struct Stream {
    journal: Journal,
    cart_id: CartId,
    /// The last event that was sent.
    after: SequenceNumber,
    listener: Listener,
    rest: Rest,
}

impl Stream {
    /// Runs until the client has left, or takes nothing for the stall timeout.
    async fn run(mut self, sender: &Sender<Chunk>, heartbeat: Duration, stall_timeout: Duration) {
        let retry_ms = RETRY_MS + Uuid::new_v4().as_u128() % RETRY_SPREAD_MS;
        let mut chunk = format!("retry: {retry_ms}\n\n");
        loop {
            // Room first: a client that does not read holds no further chunk.
            let Ok(Ok(room)) = timeout(stall_timeout, sender.reserve()).await else { return };
            if chunk.is_empty() {
                chunk = tokio::select! {
                    chunk = self.next(heartbeat) => chunk,
                    () = sender.closed() => return,
                };
            }
            room.send(Ok(Bytes::from(std::mem::take(&mut chunk))));
        }
    }

    /// The next events, or a heartbeat if there are none for so long.
    async fn next(&mut self, heartbeat: Duration) -> String {
        let beats_at = Instant::now() + heartbeat;
        loop {
            let read_at = Instant::now();
            let chunk = self.read().await;
            if !chunk.is_empty() {
                return chunk;
            }
            let is_due = Instant::now() >= beats_at;
            if is_due {
                return self.rest.comment();
            }
            if self.rest == Rest::Unavailable {
                sleep(FAILURE_PAUSE.min(heartbeat)).await;
            } else {
                tokio::select! {
                    () = self.listener.woken() => sleep_until(read_at + READ_INTERVAL).await,
                    () = sleep_until(beats_at) => {}
                }
            }
        }
    }

    /// The events behind the last one; empty if there are none, or if they cannot be read now.
    async fn read(&mut self) -> String {
        static UNAVAILABLE: LogLimit = LogLimit::new();
        static GAPS: LogLimit = LogLimit::new();
        let (chunk, rest) = match self.try_read().await {
            Ok(read) => read,
            Err(error) => {
                // Once per outage and stream, not per attempt.
                if self.rest != Rest::Unavailable
                    && let Some(left_out) = UNAVAILABLE.admit()
                {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(error, left_out, "an event stream cannot read the journal; it is retried");
                }
                (String::new(), Rest::Unavailable)
            }
        };
        if let Rest::Gap(missing) = rest
            && self.rest != rest
            && let Some(left_out) = GAPS.admit()
        {
            tracing::error!(%missing, left_out, "a journal lacks an event before later ones; run `cartctl audit`");
            tracing::debug!(cart_id = %self.cart_id, "the cart of the journal");
        }
        self.rest = rest;
        chunk
    }

    async fn try_read(&mut self) -> Result<(String, Rest), journal::Error> {
        let page = self.journal.page(self.cart_id, self.after, CHUNK_EVENTS_MAX);
        let entries = Store::Cassandra.time("journal_read", page).await?;
        let (mut chunk, mut sent) = (String::new(), 0);
        let mut last = self.after;
        for entry in without_gap(&entries, self.after) {
            let event = EventBody::from(self.journal.event(entry).await?);
            (last, sent) = (entry.sequence_number, sent + 1);
            let json = serde_json::to_string(&event).unwrap_or_default();
            chunk.push_str(&format!("id: {last}\ndata: {json}\n\n"));
        }
        self.after = last;
        let rest = if sent < entries.len() { Rest::Gap(last.next()) } else { Rest::Nothing };
        Ok((chunk, rest))
    }
}

/// The entries up to the first gap. What is behind it is read again, since a client that has it would not get what is missing.
fn without_gap(entries: &[Entry], after: SequenceNumber) -> impl Iterator<Item = &Entry> {
    let mut last = after;
    entries.iter().take_while(move |entry| {
        last = last.next();
        entry.sequence_number == last
    })
}

#[cfg(test)]
mod tests {
    use cart::Position;

    use super::*;

    #[test]
    fn nothing_is_sent_from_behind_a_gap() {
        let sent = |after: i64, numbers: &[i64]| {
            let entry =
                |number: &i64| Entry { sequence_number: (*number).into(), position: Position::NONE, bytes: Vec::new() };
            let entries: Vec<_> = numbers.iter().map(entry).collect();
            without_gap(&entries, after.into()).map(|entry| entry.sequence_number.get()).collect::<Vec<_>>()
        };
        assert_eq!(sent(0, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(sent(4, &[5, 6, 8, 9]), [5, 6]);
        assert!(sent(4, &[6, 7]).is_empty() && sent(0, &[]).is_empty());
    }
}
