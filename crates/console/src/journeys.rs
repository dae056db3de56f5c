//! The newest commands, and the way of each: when it reached each topic, and which tables include it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use cart::contract::READ_MODELS;
use cart::{CartCommand, CartEvent, CartId, CartReply, CommandId, EventId, PurchasedItem, VendorId};
use kafka::partition_of;
use rust_decimal::Decimal;
use serde::Serialize;

use crate::words;

#[cfg(test)]
mod tests;

/// The commands that are kept, in the order of their arrival.
const KEPT_MAX: usize = 2_000;

/// The events of a command that are kept. A checkout may have a thousand.
const EVENTS_MAX: usize = 20;

/// The newest commands in each frame.
const LISTED: usize = 12;

/// The place of a command in its topic: partition and offset.
pub(crate) type Place = (i32, i64);

/// A place and time in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hop {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at_ms: i64,
}

/// What a command asked for.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    command_id: CommandId,
    cart_id: CartId,
    kind: &'static str,
    what: String,
    trace_id: Option<String>,
    at_ms: i64,
}

/// What became of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Became {
    is_refused: bool,
    what: String,
    at_ms: i64,
}

/// An event of a command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Happened {
    #[serde(skip)]
    event_id: EventId,
    sequence_number: i64,
    name: &'static str,
    what: String,
    hop: Hop,
    purchase: Option<Purchase>,
}

/// A purchase on `item-purchased`, and the tables that include it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Purchase {
    hop: Hop,
    vendor_id: VendorId,
    amount: Decimal,
    /// One for each of `READ_MODELS`.
    tables: [Option<Included>; READ_MODELS.len()],
}

/// When a table was first seen to include a purchase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Included {
    pub(crate) at_ms: i64,
    /// The row's value then, if the row itself was read; otherwise the group's offset showed it, which is looked at once a
    /// second.
    pub(crate) value: Option<String>,
}

/// The way of a command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Journey {
    partition: i32,
    offset: i64,
    asked: Option<Asked>,
    became: Option<Became>,
    /// The first of its events.
    events: Vec<Happened>,
    events_count: usize,
}

/// A line of the list of the newest commands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    partition: i32,
    offset: i64,
    cart_id: CartId,
    kind: &'static str,
    what: String,
    at_ms: i64,
    is_refused: Option<bool>,
    outcome: Option<String>,
    took_ms: Option<i64>,
}

/// A purchase whose rows are to be watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) place: Place,
    pub(crate) index: usize,
    pub(crate) purchase: PurchasedItem,
    pub(crate) hop: Hop,
}

/// The newest commands by place. A record of a later topic may be read before its command.
#[derive(Debug, Default)]
pub(crate) struct Journeys {
    journeys: HashMap<Place, Journey>,
    order: VecDeque<Place>,
    purchased: HashMap<EventId, (Place, usize)>,
    /// Purchases whose event was not read yet, and purchases of older commands.
    early: VecDeque<(PurchasedItem, Hop)>,
    /// Carts whose purchases are watched row by row: those of visitors who use the form.
    visitors: VecDeque<CartId>,
    found: Vec<Watched>,
    partitions: i32,
}

/// The carts of visitors whose rows are watched; more forget the oldest.
const VISITORS_MAX: usize = 64;

impl Journeys {
    /// Sets the number of partitions of `cart-commands`, which [`Journeys::reply`] needs.
    pub(crate) fn set_partitions(&mut self, partitions: i32) {
        self.partitions = partitions;
    }

    /// Watches the rows of this cart's purchases from now on.
    pub(crate) fn watch(&mut self, cart_id: CartId) {
        self.visitors.retain(|other| *other != cart_id);
        self.visitors.push_back(cart_id);
        if self.visitors.len() > VISITORS_MAX {
            self.visitors.pop_front();
        }
    }

    /// The purchases of watched carts that were found since the last call.
    pub(crate) fn found(&mut self) -> Vec<Watched> {
        std::mem::take(&mut self.found)
    }

    fn entry(&mut self, place: Place) -> &mut Journey {
        if !self.journeys.contains_key(&place) {
            if self.order.len() == KEPT_MAX
                && let Some(oldest) = self.order.pop_front()
                && let Some(journey) = self.journeys.remove(&oldest)
            {
                for event in &journey.events {
                    self.purchased.remove(&event.event_id);
                }
            }
            self.order.push_back(place);
        }
        let (partition, offset) = place;
        self.journeys.entry(place).or_insert(Journey {
            partition,
            offset,
            asked: None,
            became: None,
            events: Vec::new(),
            events_count: 0,
        })
    }

    /// Notes a command.
    pub(crate) fn command(&mut self, command: &CartCommand, hop: Hop, trace_id: Option<String>) {
        self.entry((hop.partition, hop.offset)).asked = Some(Asked {
            command_id: command.command_id,
            cart_id: command.cart_id,
            kind: words::kind(&command.command),
            what: words::command(&command.command),
            trace_id,
            at_ms: hop.at_ms,
        });
    }

    /// Notes a reply. Returns when its command was appended, if that is known; `Err` for a reply that came before.
    pub(crate) fn reply(&mut self, reply: &CartReply, at_ms: i64) -> Result<Option<i64>, ()> {
        debug_assert!(
            self.partitions > 0,
            "set_partitions comes first: without it all replies would be in partition 0"
        );
        let partition = partition_of(reply.cart_id.to_string().as_bytes(), self.partitions);
        let journey = self.entry((partition, reply.position.offset()));
        if journey.became.is_some() {
            return Err(());
        }
        let is_refused = words::is_refused(&reply.outcome);
        journey.became = Some(Became { is_refused, what: words::outcome(&reply.outcome), at_ms });
        Ok(journey.asked.as_ref().map(|asked| asked.at_ms))
    }

    /// Notes an event. Returns when its command was appended, if that is known.
    pub(crate) fn event(&mut self, event: &CartEvent, hop: Hop) -> Option<i64> {
        // Events are in the partition of their command.
        let place = (hop.partition, event.position.offset());
        let journey = self.entry(place);
        let asked_at = journey.asked.as_ref().map(|asked| asked.at_ms);
        journey.events_count += 1;
        if journey.events.len() >= EVENTS_MAX {
            return asked_at;
        }
        let (name, what) = words::event(&event.event);
        let (event_id, sequence_number) = (event.event_id, event.sequence_number.get());
        let index = journey.events.len();
        journey.events.push(Happened { event_id, sequence_number, name, what, hop, purchase: None });
        if event.is_purchase() {
            self.purchased.insert(event_id, (place, index));
            if let Some(found) = self.early.iter().position(|(purchase, _)| purchase.event_id == event_id)
                && let Some((purchase, hop)) = self.early.remove(found)
            {
                self.purchase(purchase, hop);
            }
        }
        asked_at
    }

    /// Notes a purchase. Returns when its event was published, if that is known.
    pub(crate) fn purchase(&mut self, purchase: PurchasedItem, hop: Hop) -> Option<i64> {
        let Some((place, index)) = self.purchased.get(&purchase.event_id).copied() else {
            if self.early.len() == KEPT_MAX {
                self.early.pop_front();
            }
            self.early.push_back((purchase, hop));
            return None;
        };
        let event = self.journeys.get_mut(&place)?.events.get_mut(index)?;
        let (vendor_id, amount) = (purchase.vendor_id, purchase.amount());
        event.purchase = Some(Purchase { hop, vendor_id, amount, tables: Default::default() });
        let event_at = event.hop.at_ms;
        if self.visitors.contains(&purchase.cart_id) {
            self.found.push(Watched { place, index, purchase, hop });
        }
        Some(event_at)
    }

    /// Notes that a table includes a purchase. The first time stays, and the first value.
    pub(crate) fn included(&mut self, place: Place, index: usize, table: usize, included: Included) {
        let event = self.journeys.get_mut(&place).and_then(|journey| journey.events.get_mut(index));
        if let Some(purchase) = event.and_then(|event| event.purchase.as_mut()) {
            let known = purchase.tables[table].get_or_insert_with(|| included.clone());
            if known.value.is_none() {
                known.value = included.value;
            }
        }
    }

    /// Notes what the groups of the tables have committed; `next` has the offsets of one table by partition.
    pub(crate) fn committed(&mut self, table: usize, next: &BTreeMap<i32, i64>, now_ms: i64) {
        for journey in self.journeys.values_mut() {
            for purchase in journey.events.iter_mut().filter_map(|event| event.purchase.as_mut()) {
                let is_included = next.get(&purchase.hop.partition).is_some_and(|next| *next > purchase.hop.offset);
                if is_included && purchase.tables[table].is_none() {
                    purchase.tables[table] = Some(Included { at_ms: now_ms, value: None });
                }
            }
        }
    }

    /// The newest commands, newest first.
    pub(crate) fn newest(&self) -> Vec<Summary> {
        let mut newest: Vec<(&Journey, &Asked)> = self
            .order
            .iter()
            .rev()
            .filter_map(|place| self.journeys.get(place))
            .filter_map(|journey| Some((journey, journey.asked.as_ref()?)))
            .take(4 * LISTED)
            .collect();
        // Partitions are read in turn, so that the order of arrival is that of the times only while nothing waits.
        newest.sort_by_key(|(journey, asked)| std::cmp::Reverse((asked.at_ms, journey.partition, journey.offset)));
        newest.truncate(LISTED);
        let summary = |(journey, asked): (&Journey, &Asked)| Summary {
            partition: journey.partition,
            offset: journey.offset,
            cart_id: asked.cart_id,
            kind: asked.kind,
            what: asked.what.clone(),
            at_ms: asked.at_ms,
            is_refused: journey.became.as_ref().map(|became| became.is_refused),
            outcome: journey.became.as_ref().map(|became| became.what.clone()),
            took_ms: journey.became.as_ref().map(|became| (became.at_ms - asked.at_ms).max(0)),
        };
        newest.into_iter().map(summary).collect()
    }

    /// The way of the command at a place.
    pub(crate) fn at(&self, place: Place) -> Option<Journey> {
        self.journeys.get(&place).filter(|journey| journey.asked.is_some()).cloned()
    }

    /// The way of a command; of the newest one if its id came several times.
    pub(crate) fn of(&self, command_id: CommandId) -> Option<Journey> {
        let all = self.order.iter().rev().filter_map(|place| self.journeys.get(place));
        let mut of_command =
            all.filter(|journey| journey.asked.as_ref().is_some_and(|asked| asked.command_id == command_id));
        of_command.next().cloned()
    }
}
