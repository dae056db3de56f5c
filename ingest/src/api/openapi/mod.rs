//! What the API takes and gives, as OpenAPI 3.1 at `/openapi.json`, and as a page at `/docs`.
//!
//! The bodies' schemas are derived from the types that are read and written, so they can't drift; `paths` is held to the
//! routes by a test, and the whole to the running service by schemathesis (crates/e2e/tests/e2e/openapi.rs).
//! `examples` shows a request and an answer of each kind.

mod examples;
mod paths;

use std::borrow::Cow;
use std::sync::OnceLock;

use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::api::request::{AddItemBody, AdjustBody, BatchBody};
use crate::api::response::{Accepted, Cart, CommandStatus};
use crate::problem::Problem;
use crate::reads::{Billing, Events, Quantities};

/// The page. It loads nothing but `/openapi.json`.
pub(crate) const PAGE: &str = include_str!("page.html");

/// Every `type` that a problem can have: its last word, its status, what it means and what to do.
pub(crate) const PROBLEMS: [(&str, u16, &str); 26] = [
    ("malformed-body", 400, "The body is not JSON."),
    ("invalid-header", 400, "A header is invalid, is given more than once, or contradicts another."),
    ("invalid-parameter", 400, "A query parameter is missing, unknown, repeated or out of range."),
    ("invalid-id", 400, "An id in the path or the body is not a UUID."),
    ("unauthenticated", 401, "The bearer token is missing, invalid or expired."),
    ("forbidden", 403, "The token does not give access to this cart or vendor. Nothing was executed or read."),
    ("not-found", 404, "No resource has this path."),
    ("command-not-found", 404, "The log does not contain the command; it will not be executed."),
    ("item-not-in-cart", 404, "Only items in the cart can be removed or adjusted."),
    ("method-not-allowed", 405, "The path does not support this method; Allow lists the methods that it supports."),
    ("request-timeout", 408, "The request timed out."),
    ("item-already-in-cart", 409, "The item is already in the cart; adjust its quantity instead."),
    ("empty-cart-checkout", 409, "An empty cart cannot be checked out."),
    (
        "rejected-before",
        409,
        "The command was rejected by a rule that has changed since; the reason is no longer known.",
    ),
    ("cart-full", 409, "The cart has the maximum number of lines."),
    ("version-mismatch", 412, "The cart's version does not match If-Match or If-None-Match; read the cart again."),
    ("payload-too-large", 413, "The body exceeds the size limit."),
    ("unsupported-media-type", 415, "The body must be sent as application/json."),
    ("unsupported-content-encoding", 415, "The body must be sent without Content-Encoding; see Accept-Encoding."),
    ("invalid-field", 422, "A field of the body is missing, unknown or out of range."),
    ("negative-quantity", 422, "A quantity must stay above zero."),
    ("quantity-too-large", 422, "A quantity must stay within its limit."),
    ("idempotency-key-reused", 422, "The idempotency key was used for another request to this cart; use a new key."),
    (
        "unavailable",
        503,
        "The service is unavailable or overloaded. The request was not executed and will not be; retry later.",
    ),
    (
        "outcome-unknown",
        504,
        "The log did not confirm the command in time; query Location, or retry with the same key.",
    ),
    ("read-table-behind", 504, "The read table does not include the command yet; retry, or read without Read-After."),
];

/// The document, made once.
pub(crate) fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| make().to_string())
}

/// The schemas of what goes one way.
struct Schemas(SchemaGenerator);

impl Schemas {
    fn new(contract: Contract) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = Cow::Borrowed("/components/schemas");
            settings.meta_schema = None;
            settings.contract = contract;
        });
        Self(settings.into_generator())
    }

    fn of<T: JsonSchema>(&mut self) -> Value {
        self.0.subschema_for::<T>().to_value()
    }
}

fn make() -> Value {
    let (mut taken, mut given) = (Schemas::new(Contract::Deserialize), Schemas::new(Contract::Serialize));
    let bodies = paths::Bodies {
        add: taken.of::<AddItemBody<'_>>(),
        adjust: taken.of::<AdjustBody>(),
        batch: taken.of::<BatchBody<'_>>(),
        accepted: given.of::<Accepted<'_>>(),
        status: given.of::<CommandStatus<'_>>(),
        cart: given.of::<Cart<'_>>(),
        events: given.of::<Events<'_>>(),
        billing: given.of::<Billing>(),
        quantities: given.of::<Quantities>(),
        problem: given.of::<Problem>(),
    };
    let mut schemas: Map<String, Value> = taken.0.take_definitions(true);
    schemas.extend(given.0.take_definitions(true));
    for name in ["Accepted", "Done"] {
        schemas.entry(name).and_modify(merge_alternatives);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Shopping cart",
            "version": env!("CARGO_PKG_VERSION"),
            "description": description(),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "commands", "description": "Commands that change a cart. They are decided in the order of the \
                log."},
            {"name": "carts", "description": "The state of a cart, and its events."},
            {"name": "vendors", "description": "The sales of vendors. They follow with a delay."},
        ],
        "paths": paths::paths(&bodies),
        "components": {
            "schemas": schemas,
            "parameters": paths::parameters(),
            "examples": examples::named(examples::problems().iter().map(|problem| (problem.kind(), json!(problem)))),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        // Only an ingest that was started with --auth jwt asks for it.
        "security": [{}, {"bearer": []}],
    })
}

/// Makes one object of alternatives: what any of them has, and required what all of them require.
///
/// An outcome does not say which of its alternatives it is. A validator tries them, but the clients that are generated from the
/// document take the first, and pass over what only another one has.
fn merge_alternatives(schema: &mut Value) {
    let alternatives = schema.as_object_mut().and_then(|schema| schema.remove("anyOf"));
    let alternatives: Vec<_> = alternatives.as_ref().and_then(Value::as_array).into_iter().flatten().collect();
    let strings = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut required = strings(&schema["required"]);
    if let Some((first, others)) = alternatives.split_first() {
        let is_in_all = |name: &Value| others.iter().all(|other| strings(&other["required"]).contains(name));
        required.extend(strings(&first["required"]).into_iter().filter(is_in_all));
    }
    let own = schema["properties"].as_object().into_iter();
    let all = alternatives.iter().filter_map(|one| one["properties"].as_object());
    let properties: Map<String, Value> =
        own.chain(all).flatten().map(|(name, of)| (name.clone(), of.clone())).collect();
    schema["type"] = json!("object");
    schema["properties"] = Value::Object(properties);
    schema["required"] = json!(required);
}

fn description() -> String {
    let mut text = String::from(
        "A command is answered with its outcome (200), with its rejection (problem details, RFC 9457), or, if its outcome is \
         not known in time, with a link to it (202). Every response has `X-Request-Id`.\n\nThe `type` of a problem is \
         `urn:cart:problem:` and one of these:\n\n| type | status | means |\n|---|---|---|\n",
    );
    for (kind, status, meaning) in PROBLEMS {
        text.push_str(&format!("| {kind} | {status} | {meaning} |\n"));
    }
    text
}

/// A schema under a name of its own, for a type of another crate.
macro_rules! named {
    ($(#[doc = $doc:literal])* $name:ident, $schema:tt) => {
        $(#[doc = $doc])*
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

named!(
    /// A cart's sequence number.
    Version,
    {"type": "integer", "format": "int64", "minimum": 0}
);
named!(
    /// A decimal number as text: exact, without trailing zeros.
    Amount,
    {"type": "string", "pattern": r"^-?\d+(\.\d+)?$", "examples": ["12.5"]}
);
named!(
    /// RFC 3339, in UTC.
    Time,
    {"type": "string", "format": "date-time"}
);
named!(
    /// A price, as text or as a number; both are read exactly.
    GivenPrice,
    {
        "anyOf": [
            {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,4})?$"},
            {"type": "number", "minimum": 0, "maximum": 999_999_999.999_9},
        ],
        "examples": ["3.50"],
        "description": "From 0 to 999,999,999.9999, with at most 4 decimal places.",
    }
);

/// Pieces more, or fewer.
pub(crate) fn adjustment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX, "not": {"const": 0}})
}

/// The `type` of a problem.
pub(crate) fn problem_type(_: &mut SchemaGenerator) -> Schema {
    let all: Vec<_> = PROBLEMS.iter().map(|(kind, ..)| format!("urn:cart:problem:{kind}")).collect();
    json_schema!({"type": "string", "format": "uri", "enum": all})
}

/// An item as clients see it.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `cart::Item`, which knows nothing of HTTP")]
pub(crate) struct Item {
    product_id: uuid::Uuid,
    vendor_id: uuid::Uuid,
    name: String,
    price: Amount,
    quantity: i32,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = make();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "only {} references", found.len());
        for reference in found {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference}");
        }
    }

    #[test]
    fn alternatives_become_one_object() {
        let mut schema = json!({
            "description": "x", "required": ["id"], "properties": {"id": 1},
            "anyOf": [
                {"required": ["version", "item"], "properties": {"version": 2, "item": 3}},
                {"required": ["version", "items"], "properties": {"version": 2, "items": 4}},
            ],
        });
        merge_alternatives(&mut schema);
        let merged = json!({
            "description": "x", "type": "object", "required": ["id", "version"],
            "properties": {"id": 1, "version": 2, "item": 3, "items": 4},
        });
        assert_eq!(schema, merged);
        let schemas = &make()["components"]["schemas"];
        assert!(schemas["Accepted"]["properties"]["commandId"].is_object());
        for (name, field) in [("Accepted", "item"), ("Accepted", "items"), ("Done", "total"), ("Done", "results")] {
            assert!(schemas[name]["properties"][field].is_object(), "{name} lacks {field}");
        }
    }

    #[test]
    fn generated_clients_can_use_every_price_and_header() {
        let document = make().to_string();
        // No price with decimal places is a multiple of a binary fraction.
        assert!(!document.contains("multipleOf"));
        for (name, parameter) in make()["components"]["parameters"].as_object().unwrap() {
            let is_time = parameter["schema"]["format"] == "date-time";
            assert!(!is_time, "{name}: a generated client has no way to write a time into a header");
        }
        assert!(make()["components"]["schemas"]["AddItemBody2"].is_null(), "one schema has two names");
    }

    #[test]
    fn an_item_is_described_as_it_is_written() {
        let id = uuid::Uuid::nil();
        let item = json!({"productId": id, "vendorId": id, "name": "mug", "price": "2.5", "quantity": 3});
        let item: cart::Item = serde_json::from_value(item).unwrap();
        let written = serde_json::to_value(item).unwrap();
        let mut described = Schemas::new(Contract::Serialize);
        described.of::<Item>();
        let schema = described.0.take_definitions(true);
        let properties = schema["Item"]["properties"].as_object().unwrap();
        assert!(written.as_object().unwrap().keys().eq(properties.keys()), "{written} {properties:?}");
    }
}
