//! The input of an audit as plain values: [`super::check()`] takes it, and a test can put defects into it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cart::contract::ReadTable;
use cart::{CartCommand, CartEvent, CartId, EventId, LogEpoch, ParkedRow, Position, PurchasedItem};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Marks, mark};
use super::client_view::SentCommand;
use super::cut::{Cut, UpToCut};
use super::rules::Kept;
use crate::intake::DeadLetter;
use crate::journal::JournalRow;
use crate::totals::{DayKey, MonthKey};
use crate::{DiscardedCommand, SkippedRecord};

/// The contents of all topics and stores.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Partitions of `cart-commands` and `cart-events`.
    pub partitions: i32,
    /// Partitions of `item-purchased`.
    pub purchase_partitions: i32,
    /// The epoch of `cart-commands`, which its positions contain. Events of earlier epochs are not checked: their commands no
    /// longer exist.
    pub commands_epoch: i32,
    /// The offsets that all consumers have reached.
    pub cut: Cut,
    /// The parked carts, each with the position before which its commands are decided.
    pub parked: HashMap<CartId, Position>,
    /// `cart-commands`, each partition in its order.
    pub commands: Vec<LogRecord>,
    /// `cart-commands-dead-letter`.
    pub dead_letters: Vec<DeadLetter>,
    /// `cart-events`, committed records, each partition in its order.
    pub events: Vec<Record<CartEvent>>,
    /// The events of `cart_journal`.
    pub journal: BTreeMap<Uuid, Vec<JournalRow>>,
    /// The requests in `cart_journal` and `cart_unchanged`, without their events, by position.
    pub requests: BTreeMap<Uuid, BTreeMap<Position, Kept>>,
    /// `item-purchased`, committed records, each partition in its order.
    pub purchases: Vec<Record<PurchasedItem>>,
    /// The read tables.
    pub tables: Tables,
    /// The clients' requests and answers.
    pub sent: Vec<SentCommand>,
    /// Up to where an earlier audit has looked at everything. Then the topics have only what came since, and the journal only the
    /// carts that were touched since.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// With a checkpoint: the journalled events up to it of each cart that was touched since, oldest first, or why they cannot be
    /// decoded.
    pub sealed: BTreeMap<Uuid, Result<Vec<CartEvent>, String>>,
    /// The rolling hashes of the topics at the cut.
    pub marks: Marks,
    /// Partitions whose records before the last checkpoint are no longer those that were audited. Only a full audit reads them.
    pub changed: Vec<String>,
    /// The records that groups skip.
    pub skips: Vec<SkippedRecord>,
    /// The commands that operators have given up.
    pub discards: Vec<DiscardedCommand>,
}

impl Evidence {
    /// Whether the command at a position waits because its cart is parked.
    pub(crate) fn is_parked(&self, cart_id: CartId, position: Position) -> bool {
        self.parked.get(&cart_id).is_some_and(|next| position >= *next)
    }

    /// Whether the journal has a cart's request at a position.
    pub(crate) fn has_request(&self, cart_id: CartId, position: Position) -> bool {
        self.requests.get(&cart_id.as_uuid()).is_some_and(|requests| requests.contains_key(&position))
    }

    /// Whether all effects of a cart's command at a position must be in all stores.
    pub(crate) fn is_due(&self, cart_id: CartId, partition: i32, position: Position) -> bool {
        !self.is_parked(cart_id, position) && self.is_before_cut(partition, position)
    }

    fn is_before_cut(&self, partition: i32, position: Position) -> bool {
        self.is_of_earlier_epoch(position) || Cut::is_before(&self.cut.commands, partition, position.offset())
    }

    /// Whether a command was before the checkpoint, so that its effects were looked at.
    pub(crate) fn is_sealed(&self, partition: i32, position: Position) -> bool {
        let Some(checkpoint) = &self.checkpoint else { return false };
        let next = mark(&checkpoint.marks.commands, partition).map_or(0, |mark| mark.next);
        self.is_of_earlier_epoch(position) || position.offset() < next
    }

    /// The event of a purchase that was looked at before the checkpoint, if its cart was touched since.
    pub(crate) fn sealed_event(&self, cart_id: CartId, event_id: EventId) -> Option<&CartEvent> {
        let events = self.sealed.get(&cart_id.as_uuid())?.as_ref().ok()?;
        events.iter().find(|event| event.event_id == event_id)
    }

    /// The partition of a cart on `cart-commands` and `cart-events`.
    pub(crate) fn partition(&self, cart_id: Uuid) -> i32 {
        kafka::partition_of(cart_id.to_string().as_bytes(), self.partitions)
    }

    /// Counts what is before the cut, and after the checkpoint.
    pub(crate) fn up_to_cut(&self) -> UpToCut {
        let count = |records: &mut dyn Iterator<Item = bool>| records.filter(|is_before| *is_before).count() as u64;
        let mut commands = self.commands.iter().map(|record| {
            matches!(record.content, Content::Command(_) | Content::TooNew { .. })
                && Cut::is_before(&self.cut.commands, record.partition, record.offset)
        });
        let is_new =
            |partition, position| self.is_before_cut(partition, position) && !self.is_sealed(partition, position);
        let mut events = self
            .events
            .iter()
            .map(|record| record.value.as_ref().is_ok_and(|event| is_new(record.partition, event.position)));
        let mut journal_events = self.journal.iter().flat_map(|(cart_id, rows)| {
            let partition = self.partition(*cart_id);
            rows.iter().map(move |row| is_new(partition, row.position.into()))
        });
        let mut purchases =
            self.purchases.iter().map(|record| Cut::is_before(&self.cut.purchases, record.partition, record.offset));
        UpToCut {
            commands: count(&mut commands),
            events: count(&mut events),
            journal_events: count(&mut journal_events),
            purchases: count(&mut purchases),
            cut: self.cut.clone(),
        }
    }

    /// Whether a position is of an earlier log, which no longer exists.
    pub(crate) fn is_of_earlier_epoch(&self, position: Position) -> bool {
        let epoch = LogEpoch::new(self.commands_epoch).unwrap_or(LogEpoch::FIRST);
        position < Position::new(epoch, 0)
    }
}

/// A record of `cart-commands`.
#[derive(Debug, Clone)]
pub struct LogRecord {
    pub partition: i32,
    pub offset: i64,
    pub content: Content,
}

impl LogRecord {
    /// Where it is, for a finding.
    pub(crate) fn place(&self) -> String {
        format!("cart-commands {}/{}", self.partition, self.offset)
    }
}

/// The content of a record of `cart-commands`.
#[derive(Debug, Clone)]
pub enum Content {
    /// A command in its cart's partition.
    Command(Box<CartCommand>),
    /// Garbage, or a command in another cart's partition.
    Undecidable {
        /// Why.
        reason: String,
        /// The record's key.
        key: Option<Vec<u8>>,
        /// The record's value.
        value: Option<Vec<u8>>,
    },
    /// A command that is newer than this program. It waits, since the cart of its key is parked.
    TooNew {
        /// The cart.
        cart_id: CartId,
    },
}

/// A record of a topic that only our services write.
#[derive(Debug, Clone)]
pub struct Record<T> {
    pub partition: i32,
    pub offset: i64,
    /// The key as text; empty if it has none.
    pub key: String,
    /// The value's bytes; empty if they are not compared.
    pub bytes: Vec<u8>,
    /// The decoded value, or why it can't be decoded.
    pub value: Result<T, String>,
}

/// A total and the offset on `item-purchased` of the newest record that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    pub total: T,
    /// The offset; -1 for a record of an earlier log epoch.
    pub offset: i64,
}

/// A store names a generation of a read table that readers cannot see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongGeneration {
    pub table: ReadTable,
    pub expected: String,
    pub found: String,
}

/// The rows of the read tables, each of the generation that readers see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Cassandra's `balance_by_vendor`.
    pub cassandra_months: HashMap<MonthKey, Row<Decimal>>,
    /// Cassandra's `item_quantity_by_day`: quantity and name.
    pub cassandra_days: HashMap<DayKey, Row<(i64, String)>>,
    /// PostgreSQL's `vendor_billing`.
    pub postgres_months: HashMap<MonthKey, Decimal>,
    /// PostgreSQL's next offsets by partition of `item-purchased`, read in the same snapshot as the table.
    pub postgres_next: HashMap<i32, i64>,
    /// The tables that were not read, because their generation is not there.
    pub wrong_generations: Vec<WrongGeneration>,
    /// The parked rows of the tables.
    pub parked: Vec<(ReadTable, ParkedRow)>,
}

impl Tables {
    /// The parked row of a table, if this row is parked. Its marker was read before the row, or in one snapshot with it.
    pub(crate) fn parked(&self, table: ReadTable, vendor: Uuid, row_key: impl Fn() -> String) -> Option<&ParkedRow> {
        let mut of_vendor =
            self.parked.iter().filter(|(of, row)| *of == table && row.vendor_id.as_uuid() == vendor).peekable();
        of_vendor.peek()?;
        let row_key = row_key();
        of_vendor.map(|(_, row)| row).find(|row| row.row_key == row_key)
    }

    /// Whether the table that readers see was read.
    pub(crate) fn has(&self, table: ReadTable) -> bool {
        self.wrong_generations.iter().all(|wrong| wrong.table != table)
    }
}
