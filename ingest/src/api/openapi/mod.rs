//! The OpenAPI 3.1 document at `/openapi.json`, and its page at `/docs`.
//!
//! The schemas of bodies are derived from the types that are read and written, so they cannot drift. A test compares `paths`
//! with the routes, and schemathesis compares the document with the running service (crates/e2e/tests/e2e/openapi/mod.rs).
//! `examples` has a request and a response of each kind.

mod examples;
mod page;
mod paths;

use std::borrow::Cow;
use std::sync::OnceLock;

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

pub(crate) use page::{file, page};

use super::request::{AddItemBody, AdjustBody, BatchBody};
use super::response::{Accepted, Cart, CommandStatus};
use crate::problem::{Kind, Problem};
use crate::reads::{Billing, Events, Quantities};

/// The document, made once.
pub(crate) fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| make().to_string())
}

/// The schemas of requests, or of responses.
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
    let (mut request, mut response) = (Schemas::new(Contract::Deserialize), Schemas::new(Contract::Serialize));
    let bodies = paths::Bodies {
        add: request.of::<AddItemBody<'_>>(),
        adjust: request.of::<AdjustBody>(),
        batch: request.of::<BatchBody<'_>>(),
        accepted: response.of::<Accepted<'_>>(),
        status: response.of::<CommandStatus<'_>>(),
        cart: response.of::<Cart<'_>>(),
        events: response.of::<Events>(),
        billing: response.of::<Billing>(),
        quantities: response.of::<Quantities>(),
        problem: response.of::<Problem>(),
    };
    let mut schemas: Map<String, Value> = request.0.take_definitions(true);
    schemas.extend(response.0.take_definitions(true));
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
            "examples": examples::named(examples::problems().iter().map(|problem| (problem.kind().code(), json!(problem)))),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        // Only an ingest that was started with --auth jwt asks for it.
        "security": [{}, {"bearer": []}],
    })
}

/// Merges alternatives into one object: it has the properties of all of them, and requires those that all of them require.
///
/// An outcome does not name its alternative. A validator tries all of them, but generated clients use the first, and ignore
/// properties that only another one has.
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
    for kind in Kind::ALL {
        text.push_str(&format!("| {} | {} | {} |\n", kind.code(), kind.status().as_u16(), kind.meaning()));
    }
    text
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
    fn every_reference_has_a_target() {
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
    fn every_path_has_a_template() {
        for path in make()["paths"].as_object().unwrap().keys() {
            assert_eq!(crate::route::template(path), path);
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
}
