//! Examples of requests and responses: a member's first cart until its checkout. The code of the service parses the requests
//! and makes the problems. A test compares all of them with their schemas (crates/e2e/tests/e2e/openapi/).

use cart::{CartId, CommandId, Rejection};
use serde_json::{Map, Value, json};
use uuid::{Uuid, uuid};

use crate::commands::CommandLink;
use crate::problem::Problem;

pub(super) const CART: Uuid = uuid!("7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff");
const SESSION: Uuid = uuid!("0f1b6c58-7c0e-5d43-a3f6-4c1f5a8d3e21");
const NEXT_SESSION: Uuid = uuid!("b7d1f2a4-2f8e-5a0b-9c57-1d6e8f7a9b03");
const COMMAND: Uuid = uuid!("01a7bc0e-5d3f-7c2a-8e41-9f60d2b7a415");
const EVENT: Uuid = uuid!("d5b0c1e2-6a3f-5b7c-8d9e-0f1a2b3c4d5e");
pub(super) const MUG: Uuid = uuid!("5d9e0f5f-64c2-4c1b-9c63-0a3c0c3c9a01");
const LAMP: Uuid = uuid!("2f4e8a6c-1b3d-4f5e-8a7c-9d0e1f2a3b4c");
pub(super) const VENDOR: Uuid = uuid!("c1a54a3e-2b52-4f0c-8b61-8f3e2f1d7b02");

/// In milliseconds since 1970.
const SINCE: u64 = 1_790_000_000_000;
const PURCHASED_AT: &str = "2026-09-21T13:33:20Z";

fn mug(price: &str, quantity: i32) -> Value {
    json!({"productId": MUG, "vendorId": VENDOR, "name": "red mug", "price": price, "quantity": quantity})
}

fn lamp() -> Value {
    json!({"productId": LAMP, "vendorId": VENDOR, "name": "lamp", "price": 20, "quantity": 1})
}

fn changed(version: i64, quantity: i32) -> Value {
    json!({"sessionId": SESSION, "version": version, "item": mug("3.5", quantity)})
}

fn bought(version: i64) -> Value {
    json!({
        "sessionId": SESSION, "version": version, "items": [mug("3.5", 2)], "total": "7", "purchasedAt": PURCHASED_AT,
    })
}

fn accepted(mut outcome: Value) -> Value {
    outcome["commandId"] = json!(COMMAND);
    outcome["cartId"] = json!(CART);
    outcome
}

/// The requests of an operation, by name.
pub(super) fn requests(id: &str) -> Vec<(&'static str, Value)> {
    let commands = json!([{"add": lamp()}, {"adjust": {"productId": MUG, "adjustBy": -1}}, {"checkout": {}}]);
    match id {
        "addItem" => vec![("an item", mug("3.50", 2)), ("a price as a number", lamp())],
        "adjustItem" => vec![("two fewer", json!({"adjustBy": -2})), ("one more", json!({"adjustBy": 1}))],
        "sendCommands" => vec![
            ("each on its own", json!({"commands": commands})),
            ("all or none", json!({"atomic": true, "commands": [{"remove": {"productId": LAMP}}, {"checkout": {}}]})),
        ],
        _ => Vec::new(),
    }
}

/// The responses of an operation with status 200, by name.
pub(super) fn responses(id: &str) -> Vec<(&'static str, Value)> {
    match id {
        "addItem" => vec![("added", accepted(changed(1, 2)))],
        "adjustItem" => vec![("adjusted: what there is now", accepted(changed(2, 3)))],
        "removeItem" => vec![("removed: what there was", accepted(changed(3, 3)))],
        "checkout" => vec![("bought", accepted(bought(2)))],
        "sendCommands" => vec![
            ("each on its own", each()),
            (
                "all or none",
                accepted(json!({"version": 5, "results": [
                    {"status": 200, "outcome": changed(4, 3)}, {"status": 200, "outcome": bought(5)},
                ]})),
            ),
        ],
        "commandStatus" => vec![
            ("pending", pending()),
            ("pending: the cart is parked", parked()),
            ("accepted", json!({"commandId": COMMAND, "cartId": CART, "status": "accepted", "outcome": changed(1, 2)})),
            (
                "rejected",
                json!({
                    "commandId": COMMAND, "cartId": CART, "status": "rejected",
                    "problem": rejected(&Rejection::ItemAlreadyInCart),
                }),
            ),
        ],
        "showCart" => vec![
            (
                "a cart",
                json!({"cartId": CART, "sessionId": SESSION, "version": 1, "items": [mug("3.5", 2)], "total": "7"}),
            ),
            (
                "after the checkout",
                json!({"cartId": CART, "sessionId": NEXT_SESSION, "version": 2, "items": [], "total": "0"}),
            ),
        ],
        "showEvents" => vec![("a page", events())],
        "showBilling" => {
            vec![("a year", json!({"vendorId": VENDOR, "year": 2026, "balances": [{"month": 9, "balance": "7"}]}))]
        }
        "showQuantities" => vec![(
            "a month",
            json!({
                "vendorId": VENDOR, "productId": MUG, "year": 2026, "month": 9, "name": "red mug",
                "days": [{"day": 21, "quantity": 2}],
            }),
        )],
        _ => Vec::new(),
    }
}

fn each() -> Value {
    json!({"commandId": COMMAND, "cartId": CART, "results": [
        {"status": 200, "outcome": changed(2, 1)},
        {"status": 404, "problem": rejected(&Rejection::ItemNotInCart)},
    ]})
}

fn events() -> Value {
    let added = json!({
        "eventId": EVENT, "type": "ItemAdded", "sequenceNumber": 1, "sessionId": SESSION, "commandId": COMMAND,
        "occurredAt": PURCHASED_AT, "item": mug("3.5", 2),
    });
    let mut increased = added.clone();
    increased["type"] = json!("ItemQuantityIncreased");
    increased["sequenceNumber"] = json!(2);
    increased["item"] = mug("3.5", 3);
    increased["increasedBy"] = json!(1);
    json!({"cartId": CART, "events": [added, increased], "next": format!("/cart/{CART}/events?after=2&limit=2")})
}

/// The form of `event_streams`.
pub(super) fn event_stream() -> String {
    let page = events();
    let parts = page["events"].as_array().into_iter().flatten();
    let parts = parts.map(|event| format!("id: {}\ndata: {event}\n\n", event["sequenceNumber"]));
    format!("retry: 1893\n\n{}: up to date\n\n", parts.collect::<String>())
}

pub(super) fn pending() -> Value {
    json!({"commandId": COMMAND, "cartId": CART, "status": "pending"})
}

/// A 202, and a status: the cart is parked.
pub(super) fn parked() -> Value {
    json!({"commandId": COMMAND, "cartId": CART, "status": "pending", "parked": true, "reason": "journal-unreadable"})
}

fn link() -> CommandLink {
    CommandLink { cart_id: CartId::from(CART), command_id: CommandId::from(COMMAND), since: SINCE }
}

fn rejected(rejection: &Rejection) -> Problem {
    Problem::rejected(rejection, None, CommandId::from(COMMAND))
}

/// One problem of each kind.
pub(super) fn problems() -> Vec<Problem> {
    let rejections = [
        Rejection::ItemAlreadyInCart,
        Rejection::ItemNotInCart,
        Rejection::EmptyCartCheckout,
        Rejection::CartFull { max: 1_000 },
        Rejection::NegativeQuantity { quantity: -1 },
        Rejection::QuantityTooLarge { quantity: 1_000_001, max: 1_000_000 },
        Rejection::IdempotencyKeyReused,
        Rejection::VersionMismatch { version: 3.into() },
    ];
    let others = [
        Problem::malformed_body("expected value at line 1 column 13"),
        Problem::invalid_header("Prefer: wait must be a number of whole seconds, such as wait=2"),
        Problem::invalid_parameter("year: is missing"),
        Problem::invalid_id("productId", "mug"),
        Problem::unauthenticated(bearer::Rejected::Missing),
        Problem::forbidden("carts"),
        Problem::not_found(),
        Problem::command_not_found(CommandId::from(COMMAND), 200_000),
        Problem::rejected_before(CommandId::from(COMMAND)),
        Problem::command_discarded(CommandId::from(COMMAND)),
        Problem::method_not_allowed("GET, POST"),
        Problem::body_too_slow(),
        Problem::payload_too_large(131_072),
        Problem::unsupported_media_type(),
        Problem::unsupported_content_encoding(),
        Problem::invalid_field("price: 0.00001 has more than 4 decimal places"),
        Problem::internal_error(),
        Problem::unavailable("the log is unavailable; the command was not executed, retry later"),
        Problem::outcome_unknown(CommandId::from(COMMAND), link().to_string()),
        Problem::read_table_behind("vendor-billing", 12),
    ];
    rejections.iter().map(rejected).chain(others).collect()
}

/// Examples in the form of the document.
pub(super) fn named<N: ToString>(examples: impl IntoIterator<Item = (N, Value)>) -> Value {
    let all = examples.into_iter().map(|(name, value)| (name.to_string(), json!({"value": value})));
    Value::Object(all.collect::<Map<_, _>>())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use warp::http::{HeaderMap, HeaderValue, header};

    use super::*;
    use crate::api::request;
    use crate::problem::Kind;

    #[test]
    fn example_requests_are_valid() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let all = |id: &str| requests(id).into_iter().map(|(_, body)| body.to_string()).collect::<Vec<_>>();
        let items = all("addItem");
        assert!(!items.is_empty());
        items.iter().for_each(|body| drop(request::add_item(&headers, body.as_bytes()).unwrap()));
        for body in all("adjustItem") {
            request::adjust(MUG.into(), &headers, body.as_bytes()).unwrap();
        }
        let batches = all("sendCommands");
        let batches: Vec<_> = batches.iter().map(|body| request::batch(&headers, body.as_bytes()).unwrap()).collect();
        assert_eq!(batches.iter().map(|batch| batch.atomic).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn each_kind_of_problem_has_an_example() {
        let mut examples: Vec<_> = problems().iter().map(|problem| problem.kind().code()).collect();
        let mut all: Vec<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        examples.sort_unstable();
        all.sort_unstable();
        assert_eq!(examples, all);
    }
}
