//! The topics and their schemas: what other programs, in any language, may rely on.

use crate::{Aggregate, CartCommand, CartEvent, CartReply, PurchasedItem};

/// A type that has an Avro schema in `schemas/`.
pub trait Contract {
    /// Names the topic (with the prefix of the installation in front) and, with `-value` behind it, the subject
    /// in the registry (TopicNameStrategy).
    const TOPIC: &'static str;
    /// The schema's text.
    const SCHEMA: &'static str;
}

impl Contract for CartCommand {
    const TOPIC: &'static str = "cart-commands";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-commands-value.avsc");
}

impl Contract for CartEvent {
    const TOPIC: &'static str = "cart-events";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-events-value.avsc");
}

impl Contract for CartReply {
    const TOPIC: &'static str = "cart-replies";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-replies-value.avsc");
}

impl Contract for PurchasedItem {
    const TOPIC: &'static str = "item-purchased";
    const SCHEMA: &'static str = include_str!("../../../schemas/item-purchased-value.avsc");
}

/// A snapshot stands on no topic, but its schema is registered as the others are, so that it may change as they do.
impl Contract for Aggregate {
    const TOPIC: &'static str = "cart-snapshot";
    const SCHEMA: &'static str = include_str!("../../../schemas/cart-snapshot-value.avsc");
}

/// Where commands go that nobody can decide: the original bytes, with the reason and the origin as headers.
pub const DEAD_LETTER_TOPIC: &str = "cart-commands-dead-letter";
