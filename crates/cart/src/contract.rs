//! The topics and their schemas: the contract with other programs, in any language.

use std::fmt;
use std::str::FromStr;

pub use crate::group;
use crate::{Aggregate, CartCommand, CartEvent, CartParked, CartReply, ControlRecord, Generation, PurchasedItem};

/// Accepts records of producers whose clocks are ahead, since a record's time has no meaning here. Kafka's default limit is an
/// hour.
const ANY_TIME: (&str, &str) = ("message.timestamp.after.max.ms", "9223372036854775807");

/// Kept for ever, since everything else can be rebuilt from these topics.
const UNLIMITED: &[(&str, &str)] = &[("retention.ms", "-1"), ("retention.bytes", "-1"), ANY_TIME];

/// Replies are needed for seconds. The reply to a checkout has every line: 1,000 lines of 900 bytes fit.
const REPLY_SETTINGS: &[(&str, &str)] =
    &[("retention.ms", "600000"), ("segment.ms", "600000"), ("max.message.bytes", "8388608"), ANY_TIME];

/// The newest record of each cart is the state. Small segments: only closed ones are compacted, and the topic is read from its
/// beginning at each assignment.
const PARKED_SETTINGS: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1"), ANY_TIME];

/// The settings of [`DEAD_LETTER_TOPIC`]: kept, with room for the largest command and its headers.
pub const DEAD_LETTER_SETTINGS: &[(&str, &str)] =
    &[("retention.ms", "-1"), ("retention.bytes", "-1"), ("max.message.bytes", "2097152"), ANY_TIME];

/// A consumer group of the pipeline, and the topic that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// One of [`group`], without the installation's prefix.
    pub group: &'static str,
    /// Without the installation's prefix.
    pub topic: &'static str,
}

impl Stage {
    /// Whether the group keeps its offsets in PostgreSQL, and Kafka has only a copy.
    #[must_use]
    pub fn has_offsets_in_postgres(&self) -> bool {
        READ_MODELS.iter().any(|model| model.group == self.group && model.store == Store::Postgres)
    }
}

/// Where a read model's table is, and with it the offsets that it includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Offsets are committed to Kafka.
    Cassandra,
    /// Offsets are in PostgreSQL (`projection_offset`), in the transaction that changes the table.
    Postgres,
}

/// The tables for queries. What reads or checks them matches on this, so that a new table that it lacks is a compiler error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadTable {
    /// The pieces sold of each product on each day, with the product's name.
    ItemQuantityByDay,
    /// Each vendor's balance in each month.
    BalanceByVendor,
    /// As `BalanceByVendor`.
    VendorBilling,
}

impl ReadTable {
    /// The name in its store. In PostgreSQL it is a view of the active generation's table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ItemQuantityByDay => "item_quantity_by_day",
            Self::BalanceByVendor => "balance_by_vendor",
            Self::VendorBilling => "vendor_billing",
        }
    }

    /// The model that it is the table of.
    #[must_use]
    pub const fn model(self) -> ReadModel {
        match self {
            Self::ItemQuantityByDay => POPULAR_ITEMS,
            Self::BalanceByVendor => VENDOR_BILLING,
            Self::VendorBilling => VENDOR_BILLING_JDBC,
        }
    }
}

/// A table for queries, which a projector keeps from `item-purchased`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadModel {
    /// The consumer group of the first generation, and the subcommand of `projectors`. Names the model.
    pub group: &'static str,
    /// The table's store.
    pub store: Store,
    pub table: ReadTable,
}

impl ReadModel {
    /// The table of a generation. In Cassandra the first one has the name that all readers know; in PostgreSQL that is the view.
    #[must_use]
    pub fn table_name(&self, generation: Generation) -> String {
        let name = self.table.name();
        if self.store == Store::Cassandra && generation == Generation::FIRST {
            name.to_owned()
        } else {
            format!("{name}_g{generation}")
        }
    }

    /// The generation whose table has this name, if it is one of this model's.
    #[must_use]
    pub fn generation_of_table(&self, name: &str) -> Option<Generation> {
        let number = match name.strip_prefix(self.table.name())? {
            "" => Some(Generation::FIRST),
            rest => rest.strip_prefix("_g")?.parse().ok(),
        };
        number.filter(|generation| self.table_name(*generation) == name)
    }

    /// The generation that this consumer group keeps, if it is one of this model's.
    #[must_use]
    pub fn generation_of_group(&self, group: &str) -> Option<Generation> {
        let number = match group.strip_prefix(self.group)? {
            "" => Some(Generation::FIRST),
            rest => rest.strip_prefix("-g")?.parse().ok(),
        };
        number.filter(|generation| self.group_name(*generation) == group)
    }

    /// The consumer group that keeps a generation, without the installation's prefix. In PostgreSQL also the projection of its
    /// offsets.
    #[must_use]
    pub fn group_name(&self, generation: Generation) -> String {
        if generation == Generation::FIRST {
            self.group.to_owned()
        } else {
            format!("{}{generation}", self.later_groups())
        }
    }

    /// How the names of all groups of later generations begin.
    #[must_use]
    pub fn later_groups(&self) -> String {
        format!("{}-g", self.group)
    }
}

/// The table's name with its store: `Cassandra balance_by_vendor`.
impl fmt::Display for ReadModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = match self.store {
            Store::Cassandra => "Cassandra",
            Store::Postgres => "PostgreSQL",
        };
        write!(f, "{store} {}", self.table.name())
    }
}

/// Not the name of a read model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it must be one of {}", READ_MODELS.map(|model| model.group).join(", "))]
pub struct UnknownReadModel;

/// By the name of its projector, which is the group of its first generation.
impl FromStr for ReadModel {
    type Err = UnknownReadModel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        READ_MODELS.into_iter().find(|model| model.group == text).ok_or(UnknownReadModel)
    }
}

/// All tables for queries. The harness, `audit`, `reconcile`, `uninstall`, the bench and tests start, wait for, check and delete by this
/// list.
pub const READ_MODELS: [ReadModel; 3] = [POPULAR_ITEMS, VENDOR_BILLING, VENDOR_BILLING_JDBC];

const POPULAR_ITEMS: ReadModel =
    ReadModel { group: group::POPULAR_ITEMS, store: Store::Cassandra, table: ReadTable::ItemQuantityByDay };
const VENDOR_BILLING: ReadModel =
    ReadModel { group: group::VENDOR_BILLING, store: Store::Cassandra, table: ReadTable::BalanceByVendor };
const VENDOR_BILLING_JDBC: ReadModel =
    ReadModel { group: group::VENDOR_BILLING_JDBC, store: Store::Postgres, table: ReadTable::VendorBilling };

/// All consumer groups, from the front of the pipeline to its end: once one is idle and no commands arrive, the topic of the next
/// gets no more records.
pub const STAGES: [Stage; 2 + READ_MODELS.len()] = {
    let events = Stage { group: group::ITEM_PURCHASED_EVENTS, topic: CartEvent::TOPIC };
    let mut stages = [events; 2 + READ_MODELS.len()];
    stages[0] = Stage { group: group::CART_PROCESSOR, topic: CartCommand::TOPIC };
    let mut index = 0;
    while index < READ_MODELS.len() {
        stages[2 + index] = Stage { group: READ_MODELS[index].group, topic: PurchasedItem::TOPIC };
        index += 1;
    }
    stages
};

/// The names of record headers.
pub mod header {
    /// The encoding of the value, for readers that go by headers.
    pub const CONTENT_TYPE: &str = "content-type";
    /// The value of [`CONTENT_TYPE`].
    pub const AVRO: &str = "avro/binary";
    /// On `cart-commands`: the partition of `cart-replies` that the sender reads, in decimal digits.
    pub const REPLY_PARTITION: &str = "reply-partition";
    /// The W3C trace context of what the record follows from: of the sender's span if it is recorded, else as the client sent it.
    pub const TRACE_PARENT: &str = "traceparent";
    /// What tracing systems add to [`TRACE_PARENT`].
    pub const TRACE_STATE: &str = "tracestate";
}

/// A type that has an Avro schema in `schemas/`.
pub trait Contract {
    /// The name of the topic, without the installation's prefix. With `-value` behind it, it is the subject in the registry
    /// (TopicNameStrategy).
    const TOPIC: &'static str;
    /// The schema's text.
    const SCHEMA: &'static str;
    /// The topic's settings that differ from the broker's defaults.
    const SETTINGS: &'static [(&'static str, &'static str)];
}

impl Contract for CartCommand {
    const TOPIC: &'static str = "cart-commands";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-commands-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = UNLIMITED;
}

impl Contract for CartEvent {
    const TOPIC: &'static str = "cart-events";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-events-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = UNLIMITED;
}

impl Contract for CartReply {
    const TOPIC: &'static str = "cart-replies";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-replies-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = REPLY_SETTINGS;
}

impl Contract for CartParked {
    const TOPIC: &'static str = "cart-parked";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-parked-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = PARKED_SETTINGS;
}

impl Contract for PurchasedItem {
    const TOPIC: &'static str = "item-purchased";
    const SCHEMA: &'static str = include_str!("../../../schemas/item-purchased-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = UNLIMITED;
}

/// The topic has one partition ([`CONTROL_PARTITIONS`]), and each record is kept, so that who did what stays known.
impl Contract for ControlRecord {
    const TOPIC: &'static str = "cart-control";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-control-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = UNLIMITED;
}

/// What operators do has one order.
pub const CONTROL_PARTITIONS: i32 = 1;

/// Snapshots are on no topic, but their schema is registered like the others, so that it can change like them.
impl Contract for Aggregate {
    const TOPIC: &'static str = "cart-snapshot";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-snapshot-value.avsc");
    const SETTINGS: &'static [(&'static str, &'static str)] = &[];
}

/// The topic of records that can't be decided: the original bytes, with the reason and the origin as headers.
pub const DEAD_LETTER_TOPIC: &str = "cart-commands-dead-letter";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_generation_has_the_names_that_readers_know() {
        let names = READ_MODELS.map(|model| {
            let of = |number| {
                let generation = Generation::new(number).expect("a generation");
                (model.table_name(generation), model.group_name(generation))
            };
            [of(1), of(12)]
        });
        let expected = [
            [("item_quantity_by_day", "popular-items"), ("item_quantity_by_day_g12", "popular-items-g12")],
            [("balance_by_vendor", "vendor-billing"), ("balance_by_vendor_g12", "vendor-billing-g12")],
            [("vendor_billing_g1", "vendor-billing-jdbc"), ("vendor_billing_g12", "vendor-billing-jdbc-g12")],
        ];
        for (model, names) in READ_MODELS.iter().zip(&names) {
            for (number, (table, group)) in [1, 12].into_iter().zip(names) {
                assert_eq!(model.generation_of_table(table).map(Generation::get), Some(number), "{table}");
                assert_eq!(model.generation_of_group(group).map(Generation::get), Some(number), "{group}");
            }
            for other in ["item_quantity_by_day_g1", "balance_by_vendor_g01", "vendor_billing", "read_model"] {
                assert_eq!(model.generation_of_table(other), None, "{other}");
            }
            assert_eq!(model.generation_of_group("vendor-billing-jdbc-g1"), None);
        }
        assert_eq!(names, expected.map(|names| names.map(|(table, group)| (table.to_owned(), group.to_owned()))));
        assert!(READ_MODELS.iter().all(|model| model.table.model() == *model));
    }

    #[test]
    fn a_groups_name_says_which_generation_it_keeps() {
        for (name, generation) in
            [("vendor-billing", Some(1)), ("vendor-billing-g2", Some(2)), ("vendor-billing-g999", Some(999))]
        {
            assert_eq!(VENDOR_BILLING.generation_of_group(name).map(Generation::get), generation, "{name}");
        }
        let others = [
            "vendor-billing-jdbc",
            "vendor-billing-g1",
            "vendor-billing-g02",
            "vendor-billing-g+2",
            "vendor-billing-g1000",
        ];
        for name in others {
            assert_eq!(VENDOR_BILLING.generation_of_group(name), None, "{name}");
        }
    }
}
