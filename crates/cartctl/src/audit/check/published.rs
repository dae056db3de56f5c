//! The records of `cart-events`, by cart.

use std::collections::HashMap;
use std::fmt;

use cart::contract::Contract as _;
use cart::{CartEvent, CartId, Event};

use crate::audit::evidence::{Evidence, Record};
use crate::audit::report::{Counts, Findings, Kind};
use crate::skips::is_skipped;

/// An event with its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published<'a> {
    pub(super) record: &'a Record<CartEvent>,
    pub(super) event: &'a CartEvent,
}

impl Published<'_> {
    pub(super) fn place(&self) -> String {
        format!("cart-events {}/{}, cart {}", self.record.partition, self.record.offset, self.event.cart_id)
    }

    pub(super) fn sequence_number(&self) -> i64 {
        self.event.sequence_number.get()
    }
}

/// Each cart's events, in the order of their topic.
pub(super) type ByCart<'a> = HashMap<CartId, Vec<Published<'a>>>;

pub(super) fn by_cart<'a>(evidence: &'a Evidence, findings: &mut Findings, counts: &mut Counts) -> ByCart<'a> {
    let mut carts: ByCart<'a> = HashMap::new();
    for record in &evidence.events {
        counts.events += 1;
        let place = || format!("cart-events {}/{}", record.partition, record.offset);
        match &record.value {
            Err(_) if is_skipped(&evidence.skips, CartEvent::TOPIC, record.partition, record.offset) => {}
            Err(reason) => findings.add(Kind::Unreadable, place(), Some(&"an event"), Some(reason)),
            Ok(event) => {
                if record.key != event.cart_id.to_string() {
                    findings.add(Kind::Misplaced, place(), Some(&format!("key {}", event.cart_id)), Some(&record.key));
                }
                carts.entry(event.cart_id).or_default().push(Published { record, event });
            }
        }
    }
    carts
}

/// Prints an event on one line.
pub(super) struct Shown<'a>(pub(super) &'a CartEvent);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        let item = event.event.item();
        let kind = match &event.event {
            Event::ItemAdded { .. } => "added",
            Event::ItemRemoved { .. } => "removed",
            Event::ItemQuantityIncreased { .. } => "increased",
            Event::ItemQuantityDecreased { .. } => "decreased",
            Event::ItemPurchased { .. } => "purchased",
        };
        write!(
            f,
            "event {} {kind} {} × {} '{}' at {} of vendor {} (id {}, session {}, command {} at {}, {})",
            event.sequence_number,
            item.quantity.get(),
            item.product_id,
            item.name.as_str(),
            item.price,
            item.vendor_id,
            event.event_id,
            event.session_id,
            event.command_id,
            event.position,
            event.occurred_at
        )
    }
}
