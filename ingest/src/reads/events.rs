//! A cart's events, page by page.

use cart::{CartEvent, CartId, CommandId, Event, EventId, Item, SequenceNumber, SessionId};
use chrono::{DateTime, Utc};
use journal::Journal;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::schema;

/// A part of a cart's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    /// The page starts behind this event.
    pub(crate) after: SequenceNumber,
    /// Maximum number of events.
    pub(crate) limit: i32,
}

impl Page {
    /// At about 400 bytes an event, a response of 400 kB.
    pub(crate) const LIMIT_MAX: i32 = 1_000;
    pub(crate) const LIMIT_DEFAULT: i32 = 100;
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Events {
    #[schemars(with = "Uuid")]
    cart_id: CartId,
    events: Vec<EventBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An event of a cart.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventBody {
    #[schemars(with = "Uuid")]
    event_id: EventId,
    #[serde(rename = "type")]
    kind: &'static str,
    #[schemars(with = "schema::Version")]
    sequence_number: SequenceNumber,
    #[schemars(with = "Uuid")]
    session_id: SessionId,
    #[schemars(with = "Uuid")]
    command_id: CommandId,
    #[schemars(with = "schema::Time")]
    occurred_at: DateTime<Utc>,
    #[schemars(with = "schema::Item")]
    item: Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    increased_by: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decreased_by: Option<i32>,
}

impl From<CartEvent> for EventBody {
    fn from(of: CartEvent) -> Self {
        let (kind, item, increased_by, decreased_by) = match of.event {
            Event::ItemAdded { item } => ("ItemAdded", item, None, None),
            Event::ItemRemoved { item } => ("ItemRemoved", item, None, None),
            Event::ItemQuantityIncreased { item, increased_by } => {
                ("ItemQuantityIncreased", item, Some(increased_by), None)
            }
            Event::ItemQuantityDecreased { item, decreased_by } => {
                ("ItemQuantityDecreased", item, None, Some(decreased_by))
            }
            Event::ItemPurchased { item } => ("ItemPurchased", item, None, None),
        };
        Self {
            event_id: of.event_id,
            kind,
            sequence_number: of.sequence_number,
            session_id: of.session_id,
            command_id: of.command_id,
            occurred_at: of.occurred_at,
            item,
            increased_by,
            decreased_by,
        }
    }
}

impl Events {
    /// Reads one page. It is empty for an unknown cart.
    pub(super) async fn read(journal: &Journal, cart_id: CartId, page: Page) -> Result<Self, journal::Error> {
        // An entry beyond the page shows that another page follows.
        let entries = journal.page(cart_id, page.after, page.limit + 1).await?;
        let limit = usize::try_from(page.limit).unwrap_or_default();
        let mut events: Vec<EventBody> = Vec::with_capacity(entries.len());
        for entry in entries.iter().take(limit) {
            events.push(journal.event(entry).await?.into());
        }
        let last = events.last().filter(|_| entries.len() > limit);
        let next = last.map(|last| next(cart_id, last.sequence_number, page.limit));
        Ok(Self { cart_id, events, next })
    }

    /// The path of the next page.
    pub(crate) fn next(&self) -> Option<&str> {
        self.next.as_deref()
    }
}

/// The path of the next page, of the same size.
fn next(cart_id: CartId, after: SequenceNumber, limit: i32) -> String {
    let size = if limit == Page::LIMIT_DEFAULT { String::new() } else { format!("&limit={limit}") };
    format!("/cart/{cart_id}/events?after={after}{size}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_has_the_same_size() {
        let cart_id = uuid::Uuid::nil().into();
        let path = "/cart/00000000-0000-0000-0000-000000000000/events?after=7";
        assert_eq!(next(cart_id, 7.into(), 100), path);
        assert_eq!(next(cart_id, 7.into(), 5), format!("{path}&limit=5"));
    }

    #[test]
    fn an_event_has_the_documented_fields() {
        let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
        let item =
            serde_json::json!({"productId": id, "vendorId": id, "name": "red mug", "price": "2.5", "quantity": 3});
        let event = CartEvent {
            event_id: id.parse().unwrap(),
            cart_id: id.parse().unwrap(),
            session_id: id.parse().unwrap(),
            sequence_number: 2.into(),
            position: 5.into(),
            command_id: id.parse().unwrap(),
            command_digest: 7,
            occurred_at: "2026-11-23T10:00:00Z".parse().unwrap(),
            event: Event::ItemQuantityIncreased {
                item: serde_json::from_value(item.clone()).unwrap(),
                increased_by: 2,
            },
        };
        let expected = serde_json::json!({
            "eventId": id, "type": "ItemQuantityIncreased", "sequenceNumber": 2, "sessionId": id, "commandId": id,
            "occurredAt": "2026-11-23T10:00:00Z", "item": item, "increasedBy": 2
        });
        assert_eq!(serde_json::to_value(EventBody::from(event)).unwrap(), expected);
    }
}
