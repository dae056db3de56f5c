//! What clients are told.

use cart::{Aggregate, CartId, CartReply, CommandId, Item, Outcome, SequenceNumber, SessionId};
use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use warp::Reply as _;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;

use crate::commands::Answer;
use crate::problem::Problem;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemChanged<'a> {
    command_id: CommandId,
    cart_id: CartId,
    session_id: SessionId,
    version: SequenceNumber,
    item: &'a Item,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckedOut<'a> {
    command_id: CommandId,
    cart_id: CartId,
    session_id: SessionId,
    version: SequenceNumber,
    items: &'a [Item],
    total: String,
    purchased_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pending {
    command_id: CommandId,
    cart_id: CartId,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cart<'a> {
    cart_id: CartId,
    session_id: SessionId,
    version: SequenceNumber,
    items: &'a [Item],
    total: String,
}

// A cart's total has at most 1,000 * 10^15: far within a Decimal, so plain sums are exact.
fn total(items: &[Item]) -> String {
    items.iter().map(Item::amount).sum::<Decimal>().normalize().to_string()
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// The response to a command.
pub(crate) fn of_command(cart_id: CartId, answer: Answer) -> Response {
    match answer {
        Answer::Pending(command_id) => {
            let body = warp::reply::json(&Pending { command_id, cart_id, status: "pending" });
            warp::reply::with_status(body, StatusCode::ACCEPTED).into_response()
        }
        Answer::Replied(CartReply { command_id, cart_id, outcome, .. }) => match outcome {
            Outcome::ItemChanged { session_id, version, item } => {
                warp::reply::json(&ItemChanged { command_id, cart_id, session_id, version, item: &item })
                    .into_response()
            }
            Outcome::CheckedOut { session_id, version, items, purchased_at } => {
                let (total, purchased_at) = (total(&items), time(purchased_at));
                let items = items.as_slice();
                let body = CheckedOut { command_id, cart_id, session_id, version, items, total, purchased_at };
                warp::reply::json(&body).into_response()
            }
            Outcome::Rejected { rejection } => Problem::rejected(&rejection, command_id).into_response(),
        },
    }
}

/// The response that shows a cart.
pub(crate) fn of_cart(cart: &Aggregate) -> Response {
    let items = cart.cart().items();
    let version = cart.sequence_number();
    let body = Cart { cart_id: cart.cart_id(), session_id: cart.session_id(), version, items, total: total(items) };
    let mut response = warp::reply::json(&body).into_response();
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
