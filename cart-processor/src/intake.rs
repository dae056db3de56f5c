//! Turns a record of `cart-commands` into a command, or into a dead letter with the reason.

use std::time::Duration;

use cart::contract::header::REPLY_PARTITION;
use cart::{CartCommand, CartId, LogEpoch, Position, Undecidable};
use control::Follower;
use kafka::{BorrowedMessage, Codec, DecodeError, Header, Headers as _, Message as _, OwnedHeaders, Record};
use tokio::runtime::Handle;
use trace::names::{OUTCOME, outcome};
use trace::{Place, Trace};

use crate::args::TooNew;
use crate::metrics::DEAD_LETTERS;

/// The longest time that a client waits for a reply. A redelivered command that is older is not decided again only for its
/// reply. A command whose outcome is known without that gets its reply at any age: its producer's clock may be wrong.
const ANSWER_HORIZON: Duration = Duration::from_secs(60);

/// A record that was read.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A command in its partition.
    Command(Box<ConsumedCommand>),
    /// A record that cannot be decided.
    DeadLetter {
        /// Where it was read.
        partition: i32,
        offset: i64,
        /// The original with its reason and origin, for the dead-letter topic.
        letter: Record,
    },
    /// A command that is newer than this program, and whose cart is to wait.
    TooNew(TooNewCommand),
}

/// A command that is newer than this program. Its id is not known.
#[derive(Debug)]
pub(crate) struct TooNewCommand {
    pub(crate) partition: i32,
    pub(crate) position: Position,
    /// The record's key.
    pub(crate) cart_id: CartId,
    /// Why it cannot be decoded.
    pub(crate) reason: String,
}

/// A command with its place in the log.
#[derive(Debug)]
pub(crate) struct ConsumedCommand {
    pub(crate) partition: i32,
    pub(crate) position: Position,
    pub(crate) command: CartCommand,
    /// The partition of `cart-replies` on which a client waits, or has waited.
    pub(crate) reply_to: Option<i32>,
    /// By its producer's clock the client's wait has ended.
    pub(crate) is_old: bool,
    pub(crate) trace: Trace,
    /// The dead letter that it becomes unless it was decided before: an operator has discarded it, or it is from before version 0.2
    /// and today's checks reject it.
    pub(crate) letter: Option<Record>,
}

impl Incoming {
    /// The partition and offset that it was read from.
    pub(crate) fn origin(&self) -> (i32, i64) {
        match self {
            Self::Command(received) => (received.partition, received.position.offset()),
            Self::DeadLetter { partition, offset, .. } => (*partition, *offset),
            Self::TooNew(command) => (command.partition, command.position.offset()),
        }
    }
}

/// Why a record becomes a dead letter.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the value is null")]
    NoValue,
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Undecidable(#[from] Undecidable),
    #[error("the key is not the cart id of the command")]
    ForeignKey,
    #[error("the cart belongs to partition {belongs}: the producer does not use the partitioner of Java's clients")]
    Misplaced { belongs: i32 },
}

/// Why a record cannot be read now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    #[error(
        "partition {partition} is stopped at offset {offset}: upgrade this program, or stop the producers that are \
         newer"
    )]
    TooNew {
        partition: i32,
        offset: i64,
        #[source]
        source: DecodeError,
    },
}

/// Decodes the records of one log.
#[derive(Debug, Clone)]
pub(crate) struct CommandDecoder {
    /// The consumer group, for traces.
    pub(crate) group: String,
    pub(crate) commands: Codec<CartCommand>,
    pub(crate) epoch: LogEpoch,
    pub(crate) partitions: i32,
    pub(crate) reply_partitions: i32,
    pub(crate) runtime: Handle,
    /// [`crate::metrics::COMMAND_WAIT_SECONDS`]: once a record.
    pub(crate) command_wait: metrics::Histogram,
    /// What becomes of a command that is newer than this program.
    pub(crate) too_new: TooNew,
    /// Has the discards; `None`: there is no control topic.
    pub(crate) control: Option<Follower>,
}

impl CommandDecoder {
    /// Decodes and checks a record. Fails when the registry does not respond and the schema is not known yet, or when the
    /// command is from a newer version and is to stop its partition.
    pub(crate) fn read(&self, message: &BorrowedMessage<'_>) -> Result<Incoming, Error> {
        let (partition, offset) = (message.partition(), message.offset());
        let place = Place { topic: message.topic(), partition, offset };
        let trace = trace::process(kafka::trace_headers(message.headers()), place, &self.group);
        let letter = |reason: &dyn std::fmt::Display| dead_letter(message, &reason.to_string());
        let command = match self.command(message) {
            Err(error) => return self.too_new(message, error, &trace),
            Ok(command) => command,
        };
        let command = match command {
            Ok(command) => command,
            Err(refusal) => {
                DEAD_LETTERS.with(&[]).increment(1);
                let trace_id = trace.headers().trace_id();
                tracing::warn!(position = %place, trace_id, reason = %refusal, "dead letter");
                if let Some(span) = trace.span() {
                    span.set(OUTCOME, outcome::DEAD_LETTER);
                    span.end();
                }
                return Ok(Incoming::DeadLetter { partition, offset, letter: letter(&refusal) });
            }
        };
        let position = Position::new(self.epoch, offset);
        let sha256 = || control::sha256(message.payload());
        let discarded = || self.control.as_ref()?.discarded(partition, position, &command, sha256);
        let doubt = command.check().err().map(|reason| reason.to_string()).or_else(discarded);
        let age = kafka::record_age(message);
        self.command_wait.record(age.unwrap_or_default());
        Ok(Incoming::Command(Box::new(ConsumedCommand {
            partition,
            position,
            command,
            reply_to: self.reply_to(message),
            is_old: age.is_none_or(|age| age >= ANSWER_HORIZON),
            trace,
            letter: doubt.map(|reason| letter(&reason)),
        })))
    }

    fn command(&self, message: &BorrowedMessage<'_>) -> Result<Result<CartCommand, Refusal>, Error> {
        let Some(value) = message.payload() else { return Ok(Err(Refusal::NoValue)) };
        let command = self.commands.decode_or_fetch_blocking(value, &self.runtime)?;
        if let Err(source @ DecodeError::Newer { .. }) = command {
            return Err(Error::TooNew { partition: message.partition(), offset: message.offset(), source });
        }
        Ok(command.map_err(Refusal::from).and_then(|command| self.belongs_here(message, command)))
    }

    /// A command that is too new, if its cart is to wait and the key says which cart that is; any other error stays one.
    fn too_new(&self, message: &BorrowedMessage<'_>, error: Error, trace: &Trace) -> Result<Incoming, Error> {
        let Error::TooNew { partition, offset, source } = &error else { return Err(error) };
        let Some(cart_id) = self.cart_of_key(message).filter(|_| self.too_new == TooNew::Park) else {
            return Err(error);
        };
        if let Some(span) = trace.span() {
            span.set(OUTCOME, "parked");
            span.end();
        }
        let (partition, position) = (*partition, Position::new(self.epoch, *offset));
        Ok(Incoming::TooNew(TooNewCommand { partition, position, cart_id, reason: source.to_string() }))
    }

    /// The cart of a record's key, if it belongs to the record's partition.
    fn cart_of_key(&self, message: &BorrowedMessage<'_>) -> Option<CartId> {
        let key = message.key()?;
        let cart_id: CartId = std::str::from_utf8(key).ok()?.parse().ok()?;
        let mut text = [0; uuid_text::LEN];
        let is_here = key == uuid_text::encode(cart_id, &mut text)
            && kafka::partition_of(key, self.partitions) == message.partition();
        is_here.then_some(cart_id)
    }

    // Two partitions for one cart would be two orders of its commands.
    fn belongs_here(&self, message: &BorrowedMessage<'_>, command: CartCommand) -> Result<CartCommand, Refusal> {
        let cart_id = command.cart_id;
        if command.keyed.is_some() {
            command.check()?;
        }
        let mut text = [0; uuid_text::LEN];
        let key = uuid_text::encode(cart_id, &mut text);
        if message.key() != Some(key) {
            return Err(Refusal::ForeignKey);
        }
        let belongs = kafka::partition_of(key, self.partitions);
        if belongs != message.partition() {
            return Err(Refusal::Misplaced { belongs });
        }
        Ok(command)
    }

    fn reply_to(&self, message: &BorrowedMessage<'_>) -> Option<i32> {
        let partition: i32 = std::str::from_utf8(header(message, REPLY_PARTITION)?).ok()?.parse().ok()?;
        (0..self.reply_partitions).contains(&partition).then_some(partition)
    }
}

/// Ids as text on the stack: this runs once a record.
mod uuid_text {
    pub(super) const LEN: usize = 36;

    pub(super) fn encode(cart_id: cart::CartId, buffer: &mut [u8; LEN]) -> &[u8] {
        cart_id.as_uuid().hyphenated().encode_lower(buffer).as_bytes()
    }
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == name)?.value
}

/// The original record with its own headers and, behind them, why it is here and where it was.
fn dead_letter(message: &BorrowedMessage<'_>, reason: &str) -> Record {
    let timestamp = message.timestamp().to_millis().unwrap_or(-1);
    let headers = message.headers().map_or_else(OwnedHeaders::new, kafka::BorrowedHeaders::detach);
    let headers = [
        ("dead-letter-reason", reason.to_owned()),
        ("dead-letter-topic", message.topic().to_owned()),
        ("dead-letter-partition", message.partition().to_string()),
        ("dead-letter-offset", message.offset().to_string()),
        ("dead-letter-timestamp", timestamp.to_string()),
    ]
    .iter()
    .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
    Record {
        partition: None,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: Some(headers),
    }
}
