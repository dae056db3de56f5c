//! From a request's body and path to a command: shapes and ranges, no rules.

use std::marker::PhantomData;
use std::num::NonZeroI32;

use cart::{Command, CommandId, ItemName, Price, ProductId, whole_number};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;
use warp::http::{HeaderMap, HeaderValue, header};

use crate::api::query::Query;
use crate::problem::Problem;
use crate::schema;

/// The most commands of a batch: what is bought in one go, and far below what one Cassandra batch takes.
pub(crate) const BATCH_LEN_MAX: usize = 100;

/// A JSON object: by itself, serde takes the array of its fields' values as well.
struct Object<T>(T);

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    // It is the same schema, not a second one of that name.
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
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
    /// 1 to 200 characters in NFC, without control characters, with at least one visible character.
    #[schemars(
        length(min = 1, max = 200),
        regex(
            pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb][^\x00-\x1f\x7f-\x9f]*$"
        )
    )]
    name: String,
    // As it was written: a JSON number must not become a binary fraction on the way.
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

/// A UUID in a path or body; `what` names it.
pub(crate) fn id<T: From<Uuid>>(what: &str, text: &str) -> Result<T, Problem> {
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

// By itself, serde_json reports what is no such object as if it were no JSON.
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
        let (name, command) = match command {
            BatchedCommand::Add(Object(body)) => ("add", added(body)),
            BatchedCommand::Remove(Object(body)) => ("remove", remove(&body.product_id)),
            BatchedCommand::Adjust(Object(body)) => ("adjust", adjusted(&body.product_id, body.adjust_by)),
            BatchedCommand::Checkout(Object(BatchedCheckout {})) => ("checkout", Ok(Command::Checkout {})),
        };
        command.map_err(|problem| problem.within(format!("commands[{index}].{name}")))
    };
    let commands = body.commands.into_iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(Batch { atomic: body.atomic, commands })
}

/// The latest time that is one: in the year 2286.
pub(crate) const SINCE_MAX: u64 = 9_999_999_999_999;

/// From which time on a command is looked for: what the link to it says, or what its id tells.
pub(crate) fn since(command_id: CommandId, query: &str) -> Result<u64, Problem> {
    if let Some(since) = Query::read(query, &["since"])?.number("since", 0..=SINCE_MAX)? {
        return Ok(since);
    }
    let at = command_id.as_uuid().get_timestamp().ok_or_else(|| {
        let detail = "since: is missing: send the time at which the command was sent, in milliseconds since 1970, as \
            in Location";
        Problem::invalid_parameter(detail)
    })?;
    let (seconds, nanos) = at.to_unix();
    Ok(seconds.saturating_mul(1_000).saturating_add(u64::from(nanos / 1_000_000)))
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
        name: ItemName::new(body.name.nfc().collect())
            .map_err(|error| Problem::invalid_field(format!("name: {error}")))?,
        price: price.map_err(|error| Problem::invalid_field(format!("price: {error}")))?,
        quantity: body.quantity,
    })
}

pub(crate) fn adjust(product_id: &str, headers: &HeaderMap, body: &[u8]) -> Result<Command, Problem> {
    // The path before the body: what is wrong is told in the order in which it is read.
    id::<ProductId>("productId", product_id)?;
    let body: AdjustBody = json(headers, body)?;
    adjusted(product_id, body.adjust_by)
}

fn adjusted(product_id: &str, adjust_by: i32) -> Result<Command, Problem> {
    let product_id = id("productId", product_id)?;
    let adjust_by = NonZeroI32::new(adjust_by).ok_or_else(|| Problem::invalid_field("adjustBy: 0 changes nothing"))?;
    Ok(Command::AdjustQuantity { product_id, adjust_by })
}

pub(crate) fn remove(product_id: &str) -> Result<Command, Problem> {
    Ok(Command::RemoveItem { product_id: id("productId", product_id)? })
}

/// A whole number, however it is written: to JSON 2.0 is one. Read from its text, since a binary fraction would be rounded.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    whole_number(text).and_then(|number| i32::try_from(number).ok()).ok_or_else(|| {
        let text: String = text.chars().take(QUOTED_CHARS_MAX).collect();
        D::Error::custom(format!("must be a whole number from {} to {}, not {text}", i32::MIN, i32::MAX))
    })
}

/// Most characters of a value or a path that a problem quotes.
const QUOTED_CHARS_MAX: usize = 100;

fn json<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a [u8]) -> Result<T, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        return Err(Problem::unsupported_media_type());
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|value| !is_identity(value)) {
        return Err(Problem::unsupported_content_encoding());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let result = serde_path_to_error::deserialize(&mut deserializer).map_err(invalid_field);
    match result.and_then(|Object(value)| deserializer.end().map(|()| value).map_err(malformed)) {
        Ok(value) => Ok(value),
        // Which of the two it is does not depend on where the reader of the fields stopped.
        Err(problem) => Err(not_json(body).map_or(problem, Problem::malformed_body)),
    }
}

/// Codings that leave a body as it is.
fn is_identity(encodings: &HeaderValue) -> bool {
    let mut all = encodings.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    all.all(|encoding| encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity"))
}

/// Why a body is no JSON (RFC 8259). Numbers of any size are, and so are strings that no text can have.
fn not_json(body: &[u8]) -> Option<String> {
    if let Err(error) = str::from_utf8(body) {
        return Some(format!("{error}: JSON is UTF-8"));
    }
    serde_json::from_slice::<IgnoredAny>(body).err().map(|error| error.to_string())
}

fn malformed(error: serde_json::Error) -> Problem {
    Problem::malformed_body(error.to_string())
}

/// Names the field by its path, such as `commands[0].adjust.adjustBy`.
fn invalid_field(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let (place, message) = (error.path().to_string(), error.inner().to_string());
    // serde names a field that is missing or there twice in the message only.
    let field =
        ["missing field `", "duplicate field `"].iter().find_map(|start| message.strip_prefix(start)?.split_once('`'));
    let path = match (place.as_str(), field) {
        (".", None) => return Problem::invalid_field(message),
        (".", Some((field, _))) => field.to_owned(),
        (place, None) => place.to_owned(),
        (place, Some((field, _))) => format!("{place}.{field}"),
    };
    let path: String = path.chars().take(QUOTED_CHARS_MAX).collect();
    Problem::invalid_field(format!("{path}: {message}"))
}

/// The commands that a body makes on any of the routes. Public for `crates/fuzz` alone: the fuzz targets need ingest's parser
/// without its server.
pub fn commands_of(body: &[u8]) -> Vec<Command> {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let product_id = Uuid::nil().to_string();
    let batched = batch(&headers, body).map(|batch| batch.commands).unwrap_or_default();
    batched.into_iter().chain(add_item(&headers, body)).chain(adjust(&product_id, &headers, body)).collect()
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
        assert!(refused(&all.replace("adjustBy\":-1", "adjustBy\":0")).contains("commands[1].adjust.adjustBy: 0"));
        assert!(refused(r#"{"commands":[]}"#).contains("1 to 100"));
        assert!(refused(r#"{"commands":[{"pay":{}}]}"#).contains("unknown variant"));
        assert!(refused(r#"{"commands":[{"checkout":{"x":1}}]}"#).contains("unknown field"));
        assert!(refused(&format!(r#"{{"commands":[{{"remove":["{id}"]}}]}}"#)).contains("expected an object"));
        assert!(refused(&all.replace("\"atomic\"", "\"atomical\"")).contains("unknown field"));
    }

    /// The type and the detail of what a body is refused with, on the path of a batch.
    fn refused_batch(text: &str) -> (Kind, String) {
        let problem = batch(&headers("application/json"), text.as_bytes()).expect_err(text);
        let detail = serde_json::to_value(&problem).unwrap()["detail"].as_str().unwrap().to_owned();
        (problem.kind(), detail)
    }

    #[test]
    fn a_field_is_named_by_its_path() {
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
            let (kind, detail) = refused_batch(&text);
            assert_eq!(kind, Kind::InvalidField, "{text}: {detail}");
            assert!(detail.starts_with(start) && detail.contains(reason), "{text}: {detail}");
        }
        let (kind, detail) = refused_batch(&batched(r#"{"remove":{"productId":"mug"}}"#));
        assert!(kind == Kind::InvalidId && detail.starts_with("commands[1].remove.productId 'mug'"), "{detail}");
    }

    #[test]
    fn a_quantity_is_a_whole_number_read_exactly() {
        let adjusted = |text: &str| {
            let body = format!(r#"{{"adjustBy":{text}}}"#);
            adjust("6ba7b811-9dad-11d1-80b4-00c04fd430c8", &headers("application/json"), body.as_bytes())
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
    fn what_is_no_json_is_malformed_wherever_the_reader_stopped() {
        let checkout = r#"{"commands":[{"checkout":{}}]}"#;
        let mut bad: Vec<_> = (0..checkout.len()).map(|len| checkout[..len].to_owned()).collect();
        bad.extend([format!("{checkout}{checkout}"), format!("{checkout}]"), format!("\u{feff}{checkout}")]);
        // Each of these has a field that is refused before it stops to be JSON.
        bad.extend(
            ["{\"x\":1", "5 5", "[1,]", "{\"commands\":[5", "{\"commands\":[],\"commands\":01}"].map(str::to_owned),
        );
        for text in bad {
            assert_eq!(refused_batch(&text).0, Kind::MalformedBody, "{text}");
        }
        for bytes in [&b"{\"x\":\"\xff\"}"[..], b"\xff", b"{\"name\":\"\xed\xa0\x80\"}"] {
            let problem = batch(&headers("application/json"), bytes).unwrap_err();
            assert_eq!(problem.kind(), Kind::MalformedBody, "{bytes:?}");
        }
    }

    #[test]
    fn an_encoded_body_is_refused() {
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
    fn a_command_is_looked_for_from_its_time_on() {
        let timed = CommandId::from(Uuid::parse_str("01a7bc0e-5d3f-7c2a-8e41-9f60d2b7a415").unwrap());
        assert_eq!(since(timed, "since=1790000000000").unwrap(), 1_790_000_000_000);
        assert_eq!(since(timed, "since=%31790000000000").unwrap(), 1_790_000_000_000);
        assert_eq!(since(timed, "").unwrap(), 0x01a7_bc0e_5d3f);
        let untimed = CommandId::from(Uuid::parse_str("7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff").unwrap());
        for (id, query) in
            [(untimed, ""), (timed, "since=+5"), (timed, "since=x"), (timed, "since=9999999999999999"), (timed, "x=1")]
        {
            assert_eq!(since(id, query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }

    #[test]
    fn a_body_that_is_no_command_is_refused_for_its_reason() {
        let refused = |content_type: &str, body: &str| {
            format!("{:?}", add_item(&headers(content_type), body.as_bytes()).unwrap_err())
        };
        assert!(refused("application/json", "{").contains("MalformedBody"));
        assert!(refused("application/json", "{}").contains("missing field"));
        assert!(refused("application/json", "[]").contains("expected an object"));
        assert!(refused("text/plain", &body("1")).contains("UnsupportedMediaType"));
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
        assert!(refused("application/json", &body("1").replace("6ba7", "zzzz")).contains("InvalidId"));
        assert!(
            adjust("6ba7b811-9dad-11d1-80b4-00c04fd430c8", &headers("application/json"), br#"{"adjustBy":0}"#).is_err()
        );
    }

    /// JSON of any shape, with the names that the bodies have, and with numbers and strings that no field takes.
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
        fn json_is_never_told_to_be_none(json in any_json(), end in 0_usize..200) {
            let json_headers = headers("application/json");
            let kinds = |body: &str| {
                let added = add_item(&json_headers, body.as_bytes()).err();
                let adjusted = adjust("6ba7b811-9dad-11d1-80b4-00c04fd430c8", &json_headers, body.as_bytes()).err();
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
                // What is cut off is none, whatever else is wrong with it. Parts of a number may be numbers.
                if whole.starts_with(['{', '[', '"']) && let Some(cut) = whole.get(..end.min(whole.len() - 1)) {
                    prop_assert_eq!(kinds(cut), [Some(Kind::MalformedBody); 3], "{}", cut);
                }
            }
        }

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
