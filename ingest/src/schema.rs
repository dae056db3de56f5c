//! Schemas of JSON values that bodies have in common, for the OpenAPI document.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use uuid::Uuid;

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
    /// A price in a request, as text or as a number; both are read exactly.
    RequestPrice,
    {
        "anyOf": [
            {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,4})?$"},
            {"type": "number", "minimum": 0, "maximum": 999_999_999.999_9},
        ],
        "examples": ["3.50"],
        "description": "From 0 to 999,999,999.9999, with at most 4 decimal places.",
    }
);

/// The number of pieces that an adjustment adds or removes.
pub(crate) fn adjustment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX, "not": {"const": 0}})
}

/// An item as clients see it.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes `cart::Item`, which knows nothing of HTTP")]
pub(crate) struct Item {
    product_id: Uuid,
    vendor_id: Uuid,
    name: String,
    price: Amount,
    quantity: i32,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn item_schema_has_the_fields_of_an_item() {
        let id = Uuid::nil();
        let item = json!({"productId": id, "vendorId": id, "name": "mug", "price": "2.5", "quantity": 3});
        let item: cart::Item = serde_json::from_value(item).unwrap();
        let written = serde_json::to_value(item).unwrap();
        let schema = SchemaGenerator::default().into_root_schema_for::<Item>().to_value();
        let properties = schema["properties"].as_object().unwrap();
        assert!(written.as_object().unwrap().keys().eq(properties.keys()), "{written} {properties:?}");
    }
}
