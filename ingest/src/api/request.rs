//! From a request's path and body to a command: shapes and ranges, no rules.

use std::num::NonZeroI32;

use cart::{Command, ItemName, Price, ProductId};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;
use warp::http::{HeaderMap, HeaderValue, header};

use super::json::{self, Object, whole};
use crate::problem::Problem;
use crate::schema;

/// Maximum number of commands in a batch: enough for one purchase, and far below the limit of a Cassandra batch.
const BATCH_LEN_MAX: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AddItemBody<'a> {
    #[schemars(with = "Uuid")]
    product_id: String,
    #[schemars(with = "Uuid")]
    vendor_id: String,
    /// 1 to 200 characters in NFC, without control characters, with at least one visible character.
    #[schemars(
        length(min = 1, max = 200),
        regex(
            pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb][^\x00-\x1f\x7f-\x9f]*$"
        )
    )]
    name: String,
    // Raw text: a JSON number must not become a binary fraction.
    #[serde(borrow)]
    #[schemars(with = "schema::RequestPrice")]
    price: &'a RawValue,
    /// 1 to 1,000,000. A rule of carts checks this, so a command with another number of 32 bits is appended, then rejected.
    #[serde(deserialize_with = "whole")]
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    quantity: i32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AdjustBody {
    /// The number of pieces to add, or to remove if negative. A rule of carts checks the resulting quantity.
    #[serde(deserialize_with = "whole")]
    #[schemars(schema_with = "schema::adjustment")]
    adjust_by: i32,
}

/// A UUID in a path or body; `what` is its name there.
pub(super) fn id<T: From<Uuid>>(what: &str, text: &str) -> Result<T, Problem> {
    Uuid::parse_str(text).map(T::from).map_err(|_| Problem::invalid_id(what, text))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BatchBody<'a> {
    /// Whether all commands are accepted or none. By default each is accepted or rejected on its own.
    #[serde(default)]
    atomic: bool,
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 100))]
    commands: Vec<BatchedCommand<'a>>,
}

/// A command by its name, with the fields of its own path's body and path parameters.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum BatchedCommand<'a> {
    #[schemars(title = "AddCommand")]
    Add(Object<AddItemBody<'a>>),
    #[schemars(title = "RemoveCommand")]
    Remove(Object<BatchedRemove>),
    #[schemars(title = "AdjustCommand")]
    Adjust(Object<BatchedAdjust>),
    #[schemars(title = "CheckoutCommand")]
    Checkout(Object<BatchedCheckout>),
}

/// The names of [`BatchedCommand`]'s alternatives.
#[derive(Deserialize)]
#[serde(variant_identifier, rename_all = "camelCase")]
enum CommandName {
    Add,
    Remove,
    Adjust,
    Checkout,
}

// By itself, serde_json reports JSON of another shape as malformed JSON.
impl<'de: 'a, 'a> Deserialize<'de> for BatchedCommand<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BatchedVisitor)
    }
}

struct BatchedVisitor;

impl<'de> Visitor<'de> for BatchedVisitor {
    type Value = BatchedCommand<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with one of add, remove, adjust and checkout")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<BatchedCommand<'de>, M::Error> {
        let command = match map.next_key()? {
            Some(CommandName::Add) => BatchedCommand::Add(map.next_value()?),
            Some(CommandName::Remove) => BatchedCommand::Remove(map.next_value()?),
            Some(CommandName::Adjust) => BatchedCommand::Adjust(map.next_value()?),
            Some(CommandName::Checkout) => BatchedCommand::Checkout(map.next_value()?),
            None => return Err(M::Error::custom("one of add, remove, adjust and checkout is missing")),
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(command),
            Some(IgnoredAny) => {
                Err(M::Error::custom("only one of add, remove, adjust and checkout is allowed in an object"))
            }
        }
    }
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
    #[schemars(schema_with = "schema::adjustment")]
    adjust_by: i32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BatchedCheckout {}

/// Several commands for one cart.
#[derive(Debug)]
pub(super) struct Batch {
    /// Whether all commands are accepted or none.
    pub(super) atomic: bool,
    pub(super) commands: Vec<Command>,
}

impl Batch {
    pub(super) fn command(self) -> Command {
        let Self { atomic, commands } = self;
        if atomic { Command::Batch { commands } } else { Command::IndependentBatch { commands } }
    }
}

pub(super) fn batch(headers: &HeaderMap, body: &[u8]) -> Result<Batch, Problem> {
    let body: BatchBody<'_> = json::read(headers, body)?;
    if !(1..=BATCH_LEN_MAX).contains(&body.commands.len()) {
        let detail = format!("commands: there must be 1 to {BATCH_LEN_MAX}, not {}", body.commands.len());
        return Err(Problem::invalid_field(detail));
    }
    let parse = |(index, command)| {
        let (name, command) = match command {
            BatchedCommand::Add(Object(body)) => ("add", body.command()),
            BatchedCommand::Remove(Object(body)) => {
                ("remove", id("productId", &body.product_id).map(|product_id| Command::RemoveItem { product_id }))
            }
            BatchedCommand::Adjust(Object(body)) => {
                let product_id = id("productId", &body.product_id);
                ("adjust", product_id.and_then(|product_id| adjust_quantity(product_id, body.adjust_by)))
            }
            BatchedCommand::Checkout(Object(BatchedCheckout {})) => ("checkout", Ok(Command::Checkout {})),
        };
        command.map_err(|problem| problem.within(format!("commands[{index}].{name}")))
    };
    let commands = body.commands.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(Batch { atomic: body.atomic, commands })
}

pub(super) fn add_item(headers: &HeaderMap, body: &[u8]) -> Result<Command, Problem> {
    json::read::<AddItemBody<'_>>(headers, body)?.command()
}

impl AddItemBody<'_> {
    fn command(self) -> Result<Command, Problem> {
        let price = match serde_json::from_str::<String>(self.price.get()) {
            Ok(text) => text.parse::<Price>(),
            Err(_) => self.price.get().parse(),
        };
        Ok(Command::AddItem {
            product_id: id("productId", &self.product_id)?,
            vendor_id: id("vendorId", &self.vendor_id)?,
            name: ItemName::new(self.name.nfc().collect())
                .map_err(|error| Problem::invalid_field(format!("name: {error}")))?,
            price: price.map_err(|error| Problem::invalid_field(format!("price: {error}")))?,
            quantity: self.quantity,
        })
    }
}

pub(super) fn adjust(product_id: ProductId, headers: &HeaderMap, body: &[u8]) -> Result<Command, Problem> {
    let body: AdjustBody = json::read(headers, body)?;
    adjust_quantity(product_id, body.adjust_by)
}

fn adjust_quantity(product_id: ProductId, adjust_by: i32) -> Result<Command, Problem> {
    let adjust_by = NonZeroI32::new(adjust_by).ok_or_else(|| Problem::invalid_field("adjustBy: 0 changes nothing"))?;
    Ok(Command::AdjustQuantity { product_id, adjust_by })
}

/// The commands that a body makes on any of the routes. Public for `crates/fuzz` alone: the fuzz targets need ingest's parser
/// without its server.
pub fn commands_of(body: &[u8]) -> Vec<Command> {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let batched = batch(&headers, body).map(|batch| batch.commands).unwrap_or_default();
    let product_id = ProductId::from(Uuid::nil());
    batched.into_iter().chain(add_item(&headers, body)).chain(adjust(product_id, &headers, body)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof};

    use super::*;
    use crate::problem::Kind;

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
        // So many digits that they would be rounded to 1.
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
    fn a_name_is_normalised_before_it_is_measured() {
        let name =
            |text: &str| match add_item(&headers("application/json"), body("1").replace("red mug", text).as_bytes()) {
                Ok(Command::AddItem { name, .. }) => Ok(name.as_str().to_owned()),
                Ok(other) => panic!("{other:?}"),
                Err(problem) => Err(format!("{problem:?}")),
            };
        assert_eq!(name("cafe\u{301}").unwrap(), "café");
        assert_eq!(name(&"e\u{301}".repeat(200)).unwrap(), "é".repeat(200));
        // One character becomes two.
        assert!(name(&"\u{958}".repeat(101)).unwrap_err().contains("202 characters"));
        assert!(name(r"x\u0000").unwrap_err().contains("control character U+0000"));
        assert!(name("\u{3164}").unwrap_err().contains("only invisible characters"));
    }

    #[test]
    fn a_batch_names_its_invalid_command() {
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
        let rejected = |text: &str| format!("{:?}", read(text).unwrap_err());
        assert!(rejected(&all.replace("adjustBy\":-1", "adjustBy\":0")).contains("commands[1].adjust.adjustBy: 0"));
        assert!(rejected(r#"{"commands":[]}"#).contains("1 to 100"));
        assert!(rejected(r#"{"commands":[{"pay":{}}]}"#).contains("unknown variant"));
        assert!(rejected(r#"{"commands":[{"checkout":{"x":1}}]}"#).contains("unknown field"));
        assert!(rejected(&format!(r#"{{"commands":[{{"remove":["{id}"]}}]}}"#)).contains("expected an object"));
        assert!(rejected(&all.replace("\"atomic\"", "\"atomical\"")).contains("unknown field"));
    }

    /// The kind and the detail of the problem of a batch.
    fn rejected_batch(text: &str) -> (Kind, String) {
        let problem = batch(&headers("application/json"), text.as_bytes()).expect_err(text);
        let detail = serde_json::to_value(&problem).unwrap()["detail"].as_str().unwrap().to_owned();
        (problem.kind(), detail)
    }

    #[test]
    fn an_invalid_field_is_named_by_its_path() {
        let id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
        let add = body("0.10");
        let batched = |commands: &str| format!(r#"{{"commands":[{{"checkout":{{}}}},{commands}]}}"#);
        let one_of = "one of add, remove, adjust and checkout";
        for (text, start, reason) in [
            ("5".to_owned(), "invalid type: integer `5`", "expected an object"),
            ("null".to_owned(), "invalid type: null", "expected an object"),
            ("{}".to_owned(), "commands: missing field", "`commands`"),
            (r#"{"commands":[],"commands":[]}"#.to_owned(), "commands: duplicate field", "`commands`"),
            (r#"{"commands":{}}"#.to_owned(), "commands: ", "expected a sequence"),
            (r#"{"atomic":1,"commands":[]}"#.to_owned(), "atomic: ", "expected a boolean"),
            (r#"{"commands":[],"x":1}"#.to_owned(), "x: unknown field", "`x`"),
            (r#"{"commands":[]}"#.to_owned(), "commands: ", "1 to 100"),
            (batched("5"), "commands[1]: ", one_of),
            (batched("null"), "commands[1]: ", one_of),
            (batched("[]"), "commands[1]: ", one_of),
            (batched("\"checkout\""), "commands[1]: ", one_of),
            (batched("{}"), "commands[1]: ", one_of),
            (batched(r#"{"pay":{}}"#), "commands[1].pay: ", "unknown variant `pay`"),
            (batched(r#"{"checkout":{},"checkout":{}}"#), "commands[1]: ", one_of),
            (batched(r#"{"checkout":{},"pay":{}}"#), "commands[1]: ", one_of),
            (batched(r#"{"checkout":null}"#), "commands[1].checkout: ", "expected an object"),
            (batched(r#"{"checkout":{"x":1}}"#), "commands[1].checkout.x: ", "unknown field `x`"),
            (batched(r#"{"adjust":{}}"#), "commands[1].adjust.productId: ", "missing field"),
            (
                batched(&format!(r#"{{"adjust":{{"productId":"{id}"}}}}"#)),
                "commands[1].adjust.adjustBy: ",
                "missing field",
            ),
            (
                batched(&format!(r#"{{"adjust":{{"productId":"{id}","adjustBy":1e309}}}}"#)),
                "commands[1].adjust.adjustBy: ",
                "must be a whole number from -2147483648 to 2147483647, not 1e309",
            ),
            (
                batched(&format!(r#"{{"adjust":{{"adjustBy":1,"adjustBy":1,"productId":"{id}"}}}}"#)),
                "commands[1].adjust.adjustBy: ",
                "duplicate field",
            ),
            (
                batched(&format!(r#"{{"add":{}}}"#, add.replace(":1}", ":1e400}"))),
                "commands[1].add.quantity: ",
                "1e400",
            ),
            (batched(&format!(r#"{{"add":{}}}"#, add.replace("0.10", "[]"))), "commands[1].add.price: ", "decimal"),
            (
                batched(&format!(r#"{{"add":{}}}"#, add.replace("red mug", "\\ud800"))),
                "commands[1].add.name: ",
                "hex escape",
            ),
            (batched(&format!(r#"{{"add":{}}}"#, add.replace("red mug", ""))), "commands[1].add.name: ", "empty"),
        ] {
            let (kind, detail) = rejected_batch(&text);
            assert_eq!(kind, Kind::InvalidField, "{text}: {detail}");
            assert!(detail.starts_with(start) && detail.contains(reason), "{text}: {detail}");
        }
        let (kind, detail) = rejected_batch(&batched(r#"{"remove":{"productId":"mug"}}"#));
        assert!(kind == Kind::InvalidId && detail.starts_with("commands[1].remove.productId 'mug'"), "{detail}");
    }

    #[test]
    fn a_quantity_is_a_whole_number_read_exactly() {
        let adjusted = |text: &str| {
            let body = format!(r#"{{"adjustBy":{text}}}"#);
            adjust(ProductId::from(Uuid::nil()), &headers("application/json"), body.as_bytes())
        };
        for (text, number) in
            [("2", 2), ("-2", -2), ("2.0", 2), ("20e-1", 2), ("2E3", 2_000), ("-2147483648", i32::MIN)]
        {
            let command = adjusted(text).unwrap();
            assert!(
                matches!(command, Command::AdjustQuantity { adjust_by, .. } if adjust_by.get() == number),
                "{text}"
            );
        }
        for text in [
            "0.99999999999999999",
            "999999.99999999999",
            "1.5",
            "2147483648",
            "-2147483649",
            "9223372036854775808",
            "1e400",
            "\"2\"",
            "true",
            "null",
            "[2]",
            "{\"$serde_json::private::RawValue\":\"2\"}",
        ] {
            let problem = adjusted(text).unwrap_err();
            assert_eq!(problem.kind(), Kind::InvalidField, "{text}");
            assert!(format!("{problem:?}").contains("adjustBy: must be a whole number"), "{text}: {problem:?}");
        }
    }

    #[test]
    fn invalid_json_is_malformed_wherever_the_reader_stopped() {
        let checkout = r#"{"commands":[{"checkout":{}}]}"#;
        let mut bad: Vec<_> = (0..checkout.len()).map(|len| checkout[..len].to_owned()).collect();
        bad.extend([format!("{checkout}{checkout}"), format!("{checkout}]"), format!("\u{feff}{checkout}")]);
        // Each of these has an invalid field before the place where it stops being JSON.
        bad.extend(
            ["{\"x\":1", "5 5", "[1,]", "{\"commands\":[5", "{\"commands\":[],\"commands\":01}"].map(str::to_owned),
        );
        for text in bad {
            assert_eq!(rejected_batch(&text).0, Kind::MalformedBody, "{text}");
        }
        for bytes in [&b"{\"x\":\"\xff\"}"[..], b"\xff", b"{\"name\":\"\xed\xa0\x80\"}"] {
            let problem = batch(&headers("application/json"), bytes).unwrap_err();
            assert_eq!(problem.kind(), Kind::MalformedBody, "{bytes:?}");
        }
    }

    #[test]
    fn rejects_an_encoded_body() {
        let read = |encodings: &[&str]| {
            let mut headers = headers("application/json");
            for value in encodings {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            batch(&headers, br#"{"commands":[{"checkout":{}}]}"#).map(|_| ()).map_err(|problem| problem.kind())
        };
        for plain in [&[][..], &["identity"], &["Identity, identity"], &[""], &["identity", "identity"]] {
            assert_eq!(read(plain), Ok(()), "{plain:?}");
        }
        for encoded in [&["gzip"][..], &["br"], &["identity, gzip"], &["identity", "deflate"], &["x-unknown"], &["*"]] {
            assert_eq!(read(encoded), Err(Kind::UnsupportedContentEncoding), "{encoded:?}");
        }
    }

    #[test]
    fn rejects_an_invalid_body_with_the_reason() {
        let rejected = |content_type: &str, body: &str| {
            format!("{:?}", add_item(&headers(content_type), body.as_bytes()).unwrap_err())
        };
        assert!(rejected("application/json", "{").contains("MalformedBody"));
        assert!(rejected("application/json", "{}").contains("missing field"));
        assert!(rejected("application/json", "[]").contains("expected an object"));
        assert!(rejected("text/plain", &body("1")).contains("UnsupportedMediaType"));
        assert!(
            rejected("application/json", &body("1").replace("\"quantity\":1", "\"quantity\":1,\"x\":2"))
                .contains("unknown field")
        );
        assert!(
            rejected("application/json", &body("1").replace("\"quantity\":1", "\"quantity\":9999999999"))
                .contains("quantity")
        );
        assert!(
            rejected("application/json", &body("1").replace("red mug", &"x".repeat(201))).contains("201 characters")
        );
        assert!(rejected("application/json", &body("1").replace("6ba7", "zzzz")).contains("InvalidId"));
        assert!(adjust(ProductId::from(Uuid::nil()), &headers("application/json"), br#"{"adjustBy":0}"#).is_err());
    }

    /// JSON of any shape, with the field names of the bodies, and with numbers and strings that no field accepts.
    fn any_json() -> impl Strategy<Value = String> {
        let names =
            "productId|vendorId|name|price|quantity|adjustBy|commands|atomic|add|remove|adjust|checkout|x|\\\\ud800|";
        let number = r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,5})?";
        let string = r#""([a-z é\u{2028}]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,6}""#;
        let leaf = prop_oneof!["null|true|false", number, string];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            let member = (names, inner.clone()).prop_map(|(name, value)| format!("\"{name}\" : {value}"));
            prop_oneof![
                vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
                vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",\n"))),
            ]
        })
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(5_000))]

        #[test]
        fn valid_json_is_never_reported_as_malformed(json in any_json(), end in 0_usize..200) {
            let json_headers = headers("application/json");
            let kinds = |body: &str| {
                let added = add_item(&json_headers, body.as_bytes()).err();
                let adjusted = adjust(ProductId::from(Uuid::nil()), &json_headers, body.as_bytes()).err();
                let batched = batch(&json_headers, body.as_bytes()).err();
                [added, adjusted, batched].map(|problem| problem.map(|problem| problem.kind()))
            };
            let bodies = [
                json.clone(),
                format!(r#"{{"commands":{json}}}"#),
                format!(r#"{{"commands":[{{"checkout":{{}}}},{json}]}}"#),
                format!(r#"{{"commands":[{{"add":{json}}}]}}"#),
                format!(r#"{{"adjustBy":{json}}}"#),
                body(&json),
            ];
            for whole in bodies {
                let kinds_of_whole = kinds(&whole);
                prop_assert!(!kinds_of_whole.contains(&Some(Kind::MalformedBody)), "{whole}: {kinds_of_whole:?}");
                // Truncated JSON is malformed, whatever else is wrong with it. Parts of a number may be numbers.
                if whole.starts_with(['{', '[', '"']) && let Some(cut) = whole.get(..end.min(whole.len() - 1)) {
                    prop_assert_eq!(kinds(cut), [Some(Kind::MalformedBody); 3], "{}", cut);
                }
            }
        }

        #[test]
        fn arbitrary_bodies_are_parsed_or_rejected(text in r#"[\[\]{}":,.0-9eE+\-u\\ a-f]{0,60}"#, bytes: Vec<u8>) {
            let json = headers("application/json");
            if let Ok(exact) = price(&text) {
                proptest::prop_assert!(exact.parse::<Price>().is_ok(), "{text} is not a price");
            }
            for body in [text.as_bytes(), &bytes, body(&text).as_bytes()] {
                drop((add_item(&json, body), batch(&json, body), id::<ProductId>("productId", &text)));
                drop(adjust(ProductId::from(Uuid::nil()), &json, body));
            }
        }
    }
}
