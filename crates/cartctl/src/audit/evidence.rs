//! All that an audit looks at, as plain values: what [`super::check()`] takes, and what a test can put defects into.

use std::collections::{BTreeMap, HashMap};

use cart::{CartCommand, CartEvent, LogEpoch, Position, PurchasedItem};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::client_view::SentCommand;
use super::cut::{Cut, UpToCut};
use super::rules::Kept;
use crate::journal::JournalRow;
use crate::totals::{DayKey, MonthKey};

/// Everything at once.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Partitions of `cart-commands` and `cart-events`.
    pub partitions: i32,
    /// Partitions of `item-purchased`.
    pub purchase_partitions: i32,
    /// The epoch of `cart-commands`, which is in its positions. Events of earlier ones are taken as they are: their commands
    /// are gone.
    pub commands_epoch: i32,
    /// Up to where everything downstream must have followed.
    pub cut: Cut,
    /// `cart-commands`, each partition in its order.
    pub commands: Vec<LogRecord>,
    /// `cart-commands-dead-letter`.
    pub dead_letters: Vec<DeadLetter>,
    /// `cart-events`, committed records, each partition in its order.
    pub events: Vec<Record<CartEvent>>,
    /// The events of `cart_journal`.
    pub journal: BTreeMap<Uuid, Vec<JournalRow>>,
    /// What `cart_journal` and `cart_unchanged` say of each request beside its events, by position.
    pub requests: BTreeMap<Uuid, BTreeMap<Position, Kept>>,
    /// `item-purchased`, committed records, each partition in its order.
    pub purchases: Vec<Record<PurchasedItem>>,
    /// The read tables.
    pub tables: Tables,
    /// What clients sent and were told.
    pub sent: Vec<SentCommand>,
}

impl Evidence {
    /// Whether everything that the command at a position made must be everywhere.
    pub(crate) fn is_due(&self, partition: i32, position: Position) -> bool {
        self.is_of_earlier_epoch(position) || Cut::is_before(&self.cut.commands, partition, position.offset())
    }

    /// How much of it is before the cut.
    pub(crate) fn up_to_cut(&self) -> UpToCut {
        let count = |records: &mut dyn Iterator<Item = bool>| records.filter(|is_before| *is_before).count() as u64;
        let mut commands = self.commands.iter().map(|record| {
            matches!(record.content, Content::Command(_))
                && Cut::is_before(&self.cut.commands, record.partition, record.offset)
        });
        let mut events = self
            .events
            .iter()
            .map(|record| record.value.as_ref().is_ok_and(|event| self.is_due(record.partition, event.position)));
        let mut journal_events = self.journal.iter().flat_map(|(cart_id, rows)| {
            let partition = kafka::partition_of(cart_id.to_string().as_bytes(), self.partitions);
            rows.iter().map(move |row| self.is_due(partition, row.position.into()))
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

    /// Whether a position is of a log that is gone.
    pub(crate) fn is_of_earlier_epoch(&self, position: Position) -> bool {
        let epoch = LogEpoch::new(self.commands_epoch).unwrap_or(LogEpoch::FIRST);
        position < Position::new(epoch, 0)
    }
}

/// A record of `cart-commands`.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// In which partition.
    pub partition: i32,
    /// Where in it.
    pub offset: i64,
    /// What it is.
    pub content: Content,
}

/// What a record of `cart-commands` is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A command that belongs there.
    Command(Box<CartCommand>),
    /// Garbage, or a command that is not where its cart's commands are.
    Undecidable {
        /// Why.
        reason: String,
        /// The record's key.
        key: Option<Vec<u8>>,
        /// The record's value.
        value: Option<Vec<u8>>,
    },
}

/// A record of `cart-commands-dead-letter`.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// In which partition.
    pub partition: i32,
    /// Where in it.
    pub offset: i64,
    /// Partition and offset on `cart-commands`, by its headers.
    pub origin: Option<(i32, i64)>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// A record of a topic that we write ourselves.
#[derive(Debug, Clone)]
pub struct Record<T> {
    /// In which partition.
    pub partition: i32,
    /// Where in it.
    pub offset: i64,
    /// Its key as text; empty if it has none.
    pub key: String,
    /// Its bytes. Only kept where they are compared.
    pub bytes: Vec<u8>,
    /// What it says, or why it can't be read.
    pub value: Result<T, String>,
}

/// A total and the offset on `item-purchased` of the newest record that it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// The total.
    pub total: T,
    /// The offset; before all of them for a record of an earlier log epoch.
    pub offset: i64,
}

/// The rows of the read tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Cassandra's `balance_by_vendor`.
    pub cassandra_months: HashMap<MonthKey, Row<Decimal>>,
    /// Cassandra's `item_quantity_by_day`: pieces and name.
    pub cassandra_days: HashMap<DayKey, Row<(i64, String)>>,
    /// PostgreSQL's `vendor_billing`.
    pub postgres_months: HashMap<MonthKey, Decimal>,
    /// How far PostgreSQL's table is, by partition of `item-purchased`: of the same snapshot as the table.
    pub postgres_next: HashMap<i32, i64>,
}
