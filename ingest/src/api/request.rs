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
mod tests;
