//! From a request's parts to a command: shapes and ranges, no rules.

use std::num::NonZeroI32;

use cart::{CartId, Command, CommandId, ItemName, Price};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::http::{HeaderMap, header};

use crate::problem::Problem;

/// The most characters of an idempotency key.
const IDEMPOTENCY_KEY_LEN_MAX: usize = 200;

/// A `traceparent` of the only version there is has this many characters (W3C Trace Context).
const TRACE_PARENT_LEN: usize = 55;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AddItemBody<'a> {
    product_id: String,
    vendor_id: String,
    name: String,
    // As it was written: a JSON number must not become a binary fraction on the way.
    #[serde(borrow)]
    price: &'a RawValue,
    quantity: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdjustBody {
    adjust_by: i64,
}

/// A UUID in a path or body; `what` names it.
pub(crate) fn id<T: From<Uuid>>(what: &str, text: &str) -> Result<T, Problem> {
    Uuid::parse_str(text).map(T::from).map_err(|_| Problem::invalid_id(what, text))
}

pub(crate) fn add_item(headers: &HeaderMap, body: &[u8]) -> Result<Command, Problem> {
    let body: AddItemBody<'_> = json(headers, body)?;
    let price = match serde_json::from_str::<String>(body.price.get()) {
        Ok(text) => text.parse::<Price>(),
        Err(_) => body.price.get().parse(),
    };
    Ok(Command::AddItem {
        product_id: id("productId", &body.product_id)?,
        vendor_id: id("vendorId", &body.vendor_id)?,
        name: ItemName::try_from(body.name).map_err(|error| Problem::invalid_field(format!("name: {error}")))?,
        price: price.map_err(|error| Problem::invalid_field(format!("price: {error}")))?,
        quantity: number("quantity", body.quantity)?,
    })
}

pub(crate) fn adjust(product_id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Command, Problem> {
    let product_id = id("productId", product_id)?;
    let body: AdjustBody = json(headers, body)?;
    let adjust_by = NonZeroI32::new(number("adjustBy", body.adjust_by)?)
        .ok_or_else(|| Problem::invalid_field("adjustBy: 0 changes nothing"))?;
    Ok(Command::AdjustQuantity { product_id, adjust_by })
}

pub(crate) fn remove(product_id: &str) -> Result<Command, Problem> {
    Ok(Command::RemoveItem { product_id: id("productId", product_id)? })
}

fn number(field: &str, number: i64) -> Result<i32, Problem> {
    i32::try_from(number).map_err(|_| Problem::invalid_field(format!("{field}: {number} is beyond any quantity")))
}

fn json<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a [u8]) -> Result<T, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        return Err(Problem::unsupported_media_type());
    }
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            Problem::invalid_field(error.to_string())
        } else {
            Problem::malformed_body(error.to_string())
        }
    })
}

/// What a command's headers say.
#[derive(Debug)]
pub(crate) struct CommandHeaders {
    pub(crate) command_id: CommandId,
    pub(crate) issued_at: DateTime<Utc>,
    pub(crate) trace_parent: Option<String>,
}

impl CommandHeaders {
    pub(crate) fn read(headers: &HeaderMap, cart_id: CartId, allow_client_time: bool) -> Result<Self, Problem> {
        let command_id = match headers.get("idempotency-key") {
            None => CommandId::from(Uuid::new_v4()),
            Some(key) => match key.to_str() {
                Ok(key) if (1..=IDEMPOTENCY_KEY_LEN_MAX).contains(&key.len()) => {
                    CommandId::of_idempotency_key(cart_id, key)
                }
                Ok(_) | Err(_) => {
                    let detail =
                        format!("Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_LEN_MAX} visible ASCII characters");
                    return Err(Problem::invalid_header(detail));
                }
            },
        };
        let issued_at = match headers.get("command-time") {
            None => Utc::now(),
            Some(_) if !allow_client_time => {
                let detail = "Command-Time is only taken by an ingest that was started with --allow-client-time";
                return Err(Problem::invalid_header(detail));
            }
            Some(time) => time
                .to_str()
                .ok()
                .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
                .map(|time| time.with_timezone(&Utc))
                .ok_or_else(|| Problem::invalid_header("Command-Time must be a time such as 2010-12-01T08:25:53Z"))?,
        };
        let trace_parent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace_parent = trace_parent.filter(|value| value.len() == TRACE_PARENT_LEN).map(str::to_owned);
        Ok(Self { command_id, issued_at, trace_parent })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())])
    }

    fn body(price: &str) -> String {
        let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
        format!(r#"{{"productId":"{id}","vendorId":"{id}","name":"red mug","price":{price},"quantity":1}}"#)
    }

    fn price(text: &str) -> Result<String, String> {
        match add_item(&headers("application/json; charset=utf-8"), body(text).as_bytes()) {
            Ok(Command::AddItem { price, .. }) => Ok(price.to_string()),
            Ok(other) => panic!("{other:?}"),
            Err(problem) => Err(format!("{problem:?}")),
        }
    }

    #[test]
    fn a_price_is_read_exactly_from_a_string_or_a_number() {
        for (text, exact) in
            [("\"3200\"", "3200"), ("0.1", "0.1"), ("2.50", "2.5"), ("1e2", "100"), ("0.0001", "0.0001")]
        {
            assert_eq!(price(text).unwrap(), exact);
        }
        assert_eq!(price("999999999.9999").unwrap(), "999999999.9999");
        for bad in
            ["0.00001", "\"-1\"", "-0.01", "\"\"", "\"1,5\"", "true", "null", "1000000000", "\"NaN\"", "1e400", "1e-9"]
        {
            assert!(price(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_that_is_no_command_is_refused_for_its_reason() {
        let refused = |content_type: &str, body: &str| {
            format!("{:?}", add_item(&headers(content_type), body.as_bytes()).unwrap_err())
        };
        assert!(refused("application/json", "{").contains("malformed-body"));
        assert!(refused("application/json", "{}").contains("missing field"));
        assert!(refused("text/plain", &body("1")).contains("unsupported-media-type"));
        assert!(
            refused("application/json", &body("1").replace("\"quantity\":1", "\"quantity\":1,\"x\":2"))
                .contains("unknown field")
        );
        assert!(
            refused("application/json", &body("1").replace("\"quantity\":1", "\"quantity\":9999999999"))
                .contains("quantity")
        );
        assert!(
            refused("application/json", &body("1").replace("red mug", &"x".repeat(201))).contains("201 characters")
        );
        assert!(refused("application/json", &body("1").replace("6ba7", "zzzz")).contains("invalid-id"));
        assert!(
            adjust("6ba7b811-9dad-11d1-80b4-00c04fd430c8", &headers("application/json"), br#"{"adjustBy":0}"#).is_err()
        );
    }

    #[test]
    fn client_time_is_refused_unless_allowed() {
        let headers =
            HeaderMap::from_iter([("command-time".parse().unwrap(), "2010-12-01T08:25:53Z".parse().unwrap())]);
        let cart_id = CartId::from(Uuid::nil());
        assert!(CommandHeaders::read(&headers, cart_id, false).is_err());
        assert_eq!(
            CommandHeaders::read(&headers, cart_id, true).unwrap().issued_at.to_rfc3339(),
            "2010-12-01T08:25:53+00:00"
        );
    }
}
