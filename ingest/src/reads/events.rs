//! `GET /cart/{cartId}/events`: what has happened to a cart, page by page.

use cart::{CartEvent, CartId, CommandId, Event, EventId, Item, SequenceNumber, SessionId};
use chrono::{DateTime, Utc};
use journal::Journal;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;
use warp::Reply as _;
use warp::http::{HeaderValue, header};
use warp::reply::Response;

use crate::api::query::Query;
use crate::problem::Problem;
use crate::schema;

/// The most events of a page: at about 400 bytes each, what a client takes in one go.
const PAGE_LEN_MAX: i32 = 1_000;

/// Events of a page unless the client says how many.
const PAGE_LEN_DEFAULT: i32 = 100;

/// The part of the journal that is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    after: SequenceNumber,
    limit: i32,
}

impl Page {
    fn read(query: &str) -> Result<Self, Problem> {
        let query = Query::read(query, &["after", "limit"])?;
        let after = query.number("after", 0..=i64::MAX)?.unwrap_or_default().into();
        Ok(Self { after, limit: query.number("limit", 1..=PAGE_LEN_MAX)?.unwrap_or(PAGE_LEN_DEFAULT) })
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Events<'a> {
    #[schemars(with = "Uuid")]
    cart_id: CartId,
    events: Vec<EventBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// An event of a cart.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct EventBody<'a> {
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
    item: &'a Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    increased_by: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decreased_by: Option<i32>,
}

impl<'a> From<&'a CartEvent> for EventBody<'a> {
    fn from(of: &'a CartEvent) -> Self {
        let (kind, increased_by, decreased_by) = match &of.event {
            Event::ItemAdded { .. } => ("ItemAdded", None, None),
            Event::ItemRemoved { .. } => ("ItemRemoved", None, None),
            Event::ItemQuantityIncreased { increased_by, .. } => ("ItemQuantityIncreased", Some(*increased_by), None),
            Event::ItemQuantityDecreased { decreased_by, .. } => ("ItemQuantityDecreased", None, Some(*decreased_by)),
            Event::ItemPurchased { .. } => ("ItemPurchased", None, None),
        };
        Self {
            event_id: of.event_id,
            kind,
            sequence_number: of.sequence_number,
            session_id: of.session_id,
            command_id: of.command_id,
            occurred_at: of.occurred_at,
            item: of.event.item(),
            increased_by,
            decreased_by,
        }
    }
}

/// One page of a cart's journal. An unknown cart has an empty one.
pub(super) async fn page(journal: &Journal, cart_id: CartId, query: &str) -> Result<Response, Problem> {
    let page = Page::read(query)?;
    let (events, has_more) = read(journal, cart_id, &page).await.map_err(|error| {
        tracing::warn!(%cart_id, error = format!("{:#}", anyhow::Error::new(error)), "reading a journal failed");
        Problem::unavailable("the journal is unavailable; retry later")
    })?;
    let next = events.last().filter(|_| has_more).map(|last| next(cart_id, last.sequence_number, page.limit));
    let body = Events { cart_id, events: events.iter().map(EventBody::from).collect(), next: next.as_deref() };
    let mut response = warp::reply::json(&body).into_response();
    if let Some(link) = next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// A page's events, and whether more follow: one row more than is shown is read.
async fn read(journal: &Journal, cart_id: CartId, page: &Page) -> Result<(Vec<CartEvent>, bool), journal::Error> {
    let limit = usize::try_from(page.limit).unwrap_or_default();
    let entries = journal.page(cart_id, page.after, page.limit + 1).await?;
    let mut events = Vec::with_capacity(entries.len());
    for entry in entries.iter().take(limit) {
        events.push(journal.event(entry).await?);
    }
    Ok((events, entries.len() > limit))
}

/// The path of the page that follows, in the same size.
fn next(cart_id: CartId, after: SequenceNumber, limit: i32) -> String {
    let size = if limit == PAGE_LEN_DEFAULT { String::new() } else { format!("&limit={limit}") };
    format!("/cart/{cart_id}/events?after={after}{size}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_first_hundred_unless_the_query_says_otherwise() {
        let page = |after: i64, limit| Page { after: after.into(), limit };
        assert_eq!(Page::read("").unwrap(), page(0, 100));
        assert_eq!(Page::read("after=7&limit=1000").unwrap(), page(7, 1_000));
        for bad in ["after=-1", "limit=0", "limit=1001", "before=3", "after=", "after=9223372036854775808"] {
            assert!(Page::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_page_has_the_same_size() {
        let cart_id = uuid::Uuid::nil().into();
        let path = "/cart/00000000-0000-0000-0000-000000000000/events?after=7";
        assert_eq!(next(cart_id, 7.into(), 100), path);
        assert_eq!(next(cart_id, 7.into(), 5), format!("{path}&limit=5"));
    }

    #[test]
    fn an_event_looks_as_it_is_documented() {
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
        assert_eq!(serde_json::to_value(EventBody::from(&event)).unwrap(), expected);
    }
}
