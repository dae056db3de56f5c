//! From a request's body and path to a command: shapes and ranges, no rules.

use std::marker::PhantomData;
use std::num::NonZeroI32;

use cart::{Command, CommandId, ItemName, Price, ProductId};
use rust_decimal::Decimal;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::http::{HeaderMap, header};

use crate::openapi;
use crate::problem::Problem;

/// The most commands of a batch: what is bought in one go, and far below what one Cassandra batch takes.
pub(crate) const BATCH_LEN_MAX: usize = 100;

/// A JSON object: by itself, serde takes the array of its fields' values as well.
struct Object<T>(T);

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AddItemBody<'a> {
    #[schemars(with = "Uuid")]
    product_id: String,
    #[schemars(with = "Uuid")]
    vendor_id: String,
    /// 1 to 200 characters, not all of them white space.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"\S"))]
    name: String,
    // As it was written: a JSON number must not become a binary fraction on the way.
    #[serde(borrow)]
    #[schemars(with = "openapi::GivenPrice")]
    price: &'a RawValue,
    /// 1 to 1,000,000. It is a rule of carts, so a command with another is taken, and rejected; beyond 32 bits it is none.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    quantity: i64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AdjustBody {
    /// Pieces more, or fewer. Whether the cart may have so many then is a rule of carts.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "openapi::adjustment")]
    adjust_by: i64,
}

/// A UUID in a path or body; `what` names it.
pub(crate) fn id<T: From<Uuid>>(what: &str, text: &str) -> Result<T, Problem> {
    Uuid::parse_str(text).map(T::from).map_err(|_| Problem::invalid_id(what, text))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BatchBody<'a> {
    /// All or none.
    #[serde(default)]
    atomic: bool,
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 100))]
    commands: Vec<BatchedCommand<'a>>,
}

/// As the other bodies, under the command's name; what their paths say is in the body here.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum BatchedCommand<'a> {
    #[serde(borrow)]
    Add(Object<AddItemBody<'a>>),
    Remove(Object<BatchedRemove>),
    Adjust(Object<BatchedAdjust>),
    Checkout(Object<BatchedCheckout>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchedRemove {
    #[schemars(with = "Uuid")]
    product_id: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchedAdjust {
    #[schemars(with = "Uuid")]
    product_id: String,
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "openapi::adjustment")]
    adjust_by: i64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BatchedCheckout {}

/// Several commands for one cart.
#[derive(Debug)]
pub(crate) struct Batch {
    /// All or none.
    pub(crate) atomic: bool,
    pub(crate) commands: Vec<Command>,
}

pub(crate) fn batch(headers: &HeaderMap, body: &[u8]) -> Result<Batch, Problem> {
    let body: BatchBody<'_> = json(headers, body)?;
    if !(1..=BATCH_LEN_MAX).contains(&body.commands.len()) {
        let detail = format!("commands: there must be 1 to {BATCH_LEN_MAX}, not {}", body.commands.len());
        return Err(Problem::invalid_field(detail));
    }
    let parse = |(index, command)| {
        let command = match command {
            BatchedCommand::Add(Object(body)) => added(body),
            BatchedCommand::Remove(Object(body)) => remove(&body.product_id),
            BatchedCommand::Adjust(Object(body)) => adjusted(&body.product_id, body.adjust_by),
            BatchedCommand::Checkout(Object(BatchedCheckout {})) => Ok(Command::Checkout {}),
        };
        command.map_err(|problem| problem.within(format!("commands[{index}]")))
    };
    let commands = body.commands.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(Batch { atomic: body.atomic, commands })
}

/// The latest time that is one: in the year 2286.
pub(crate) const SINCE_MAX: u64 = 9_999_999_999_999;

/// From which time on a command is looked for: what the link to it says, or what its id tells.
pub(crate) fn since(command_id: CommandId, query: &str) -> Result<u64, Problem> {
    let invalid = || {
        Problem::invalid_parameter(
            "since: the time at which the command was sent, in milliseconds since 1970, as Location gave it",
        )
    };
    match query.split_once('=') {
        Some(("since", since)) => since.parse().ok().filter(|since| *since <= SINCE_MAX).ok_or_else(invalid),
        None if query.is_empty() => {
            let (seconds, nanos) = command_id.as_uuid().get_timestamp().ok_or_else(invalid)?.to_unix();
            Ok(seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000)))
        }
        Some(_) | None => Err(invalid()),
    }
}

pub(crate) fn add_item(headers: &HeaderMap, body: &[u8]) -> Result<Command, Problem> {
    added(json(headers, body)?)
}

fn added(body: AddItemBody<'_>) -> Result<Command, Problem> {
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
    // The path before the body: what is wrong is told in the order in which it is read.
    id::<ProductId>("productId", product_id)?;
    let body: AdjustBody = json(headers, body)?;
    adjusted(product_id, body.adjust_by)
}

fn adjusted(product_id: &str, adjust_by: i64) -> Result<Command, Problem> {
    let product_id = id("productId", product_id)?;
    let adjust_by = NonZeroI32::new(number("adjustBy", adjust_by)?)
        .ok_or_else(|| Problem::invalid_field("adjustBy: 0 changes nothing"))?;
    Ok(Command::AdjustQuantity { product_id, adjust_by })
}

pub(crate) fn remove(product_id: &str) -> Result<Command, Problem> {
    Ok(Command::RemoveItem { product_id: id("productId", product_id)? })
}

/// A whole number, however it is written: to JSON 2.0 is one.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let decimal = number.to_string().parse::<Decimal>().ok().filter(Decimal::is_integer);
    let whole = number.as_i64().or_else(|| decimal.and_then(|decimal| i64::try_from(decimal).ok()));
    whole.ok_or_else(|| serde::de::Error::custom(format!("{number} is no whole number of pieces")))
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
    serde_json::from_slice(body).map(|Object(body)| body).map_err(|error| {
        if error.is_data() {
            Problem::invalid_field(error.to_string())
        } else {
            Problem::malformed_body(error.to_string())
        }
    })
}

/// The commands that a body makes on any of the routes. Public for `crates/fuzz` alone: the fuzz targets need ingest's parser
/// without its server.
pub fn commands_of(body: &[u8]) -> Vec<Command> {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"))]);
    let product_id = Uuid::nil().to_string();
    let batched = batch(&headers, body).map(|batch| batch.commands).unwrap_or_default();
    batched.into_iter().chain(add_item(&headers, body)).chain(adjust(&product_id, &headers, body)).collect()
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
        // As many digits as would be rounded to 1, were they not refused.
        let nines = format!("0.{}", "9".repeat(40));
        let rounded = [nines.clone(), format!("{nines}e0"), format!("\"{nines}E+0\"")];
        let bad = [
            "0.00001",
            "\"-1\"",
            "-0.01",
            "\"\"",
            "\"1,5\"",
            "true",
            "null",
            "1000000000",
            "\"NaN\"",
            "1e400",
            "1e-9",
            "\"1_0\"",
        ];
        for bad in bad.into_iter().chain(rounded.iter().map(String::as_str)) {
            assert!(price(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_read_command_by_command_and_says_which_is_wrong() {
        let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
        let read = |text: &str| batch(&headers("application/json"), text.as_bytes());
        let add = body("0.10");
        let all = format!(
            r#"{{"atomic":true,"commands":[{{"add":{add}}},{{"adjust":{{"productId":"{id}","adjustBy":-1}}}},
               {{"remove":{{"productId":"{id}"}}}},{{"checkout":{{}}}}]}}"#
        );
        let read_all = read(&all).unwrap();
        assert!(read_all.atomic && read_all.commands.len() == 4);
        assert!(!read(r#"{"commands":[{"checkout":{}}]}"#).unwrap().atomic);
        let refused = |text: &str| format!("{:?}", read(text).unwrap_err());
        assert!(refused(&all.replace("adjustBy\":-1", "adjustBy\":0")).contains("commands[1]: adjustBy"));
        assert!(refused(r#"{"commands":[]}"#).contains("1 to 100"));
        assert!(refused(r#"{"commands":[{"pay":{}}]}"#).contains("unknown variant"));
        assert!(refused(r#"{"commands":[{"checkout":{"x":1}}]}"#).contains("unknown field"));
        assert!(refused(&format!(r#"{{"commands":[{{"remove":["{id}"]}}]}}"#)).contains("expected an object"));
        assert!(refused(&all.replace("\"atomic\"", "\"atomical\"")).contains("unknown field"));
    }

    #[test]
    fn a_body_that_is_no_command_is_refused_for_its_reason() {
        let refused = |content_type: &str, body: &str| {
            format!("{:?}", add_item(&headers(content_type), body.as_bytes()).unwrap_err())
        };
        assert!(refused("application/json", "{").contains("malformed-body"));
        assert!(refused("application/json", "{}").contains("missing field"));
        assert!(refused("application/json", "[]").contains("expected an object"));
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

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(5_000))]

        #[test]
        fn whatever_is_sent_is_a_command_or_refused(text in r#"[\[\]{}":,.0-9eE+\-u\\ a-f]{0,60}"#, bytes: Vec<u8>) {
            let json = headers("application/json");
            if let Ok(exact) = price(&text) {
                proptest::prop_assert!(exact.parse::<Price>().is_ok(), "{text} is no price");
            }
            for body in [text.as_bytes(), &bytes, body(&text).as_bytes()] {
                drop((add_item(&json, body), adjust(&text, &json, body), batch(&json, body), remove(&text)));
            }
        }
    }
}
