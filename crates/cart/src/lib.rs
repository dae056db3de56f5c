//! The domain: the shopping cart's types and rules.
//!
//! ```text
//! CartCommand ─▶ Aggregate::decide ─▶ Decided ─▶ Aggregate::apply
//!                 repeat? numbering     │ CartEvents, outcome
//!                 Cart::decide (rules)  └─▶ Outcome, the client's answer
//! ```
//!
//! Deciding is a pure function of the cart's earlier events and the command: no clock, no randomness, no I/O (this crate has no
//! dependency that could do any). Deciding a command again gives the same events with the same ids, which makes redelivery
//! harmless.
//!
//! The serde form of these types *is* the wire form: [`contract`] embeds the Avro schemas in `schemas/`, and a test checks that
//! the two agree.

mod aggregate;
mod cart;
mod characters;
mod check;
mod command;
pub mod contract;
mod control;
mod decided;
mod event;
mod generation;
pub mod group;
mod id;
mod item;
mod number;
mod parked;
mod parked_row;
mod position;
mod purchase;
mod reply;
mod time;
mod wire;

pub use aggregate::{Aggregate, Decision, REMEMBERED_FOR, REMEMBERED_MAX, REMEMBERED_MIN, RememberedRequest};
pub use cart::{Cart, Refusal, Rejection};
pub use check::Undecidable;
pub use command::{CartCommand, Command};
pub use control::{Control, ControlKey, ControlRecord, InvalidControlKey};
pub use decided::{CommandResult, Decided, RequestOutcome};
pub use event::{CartEvent, Event};
pub use generation::{Generation, GenerationClaim, GenerationPointer, GenerationSwitch, InvalidGeneration};
pub use id::{CartId, CommandId, EventId, ProductId, SessionId, VendorId};
pub use item::{InvalidItem, Item, ItemName, Price, Quantity};
pub use number::whole_number;
pub use parked::{CartParked, ParkedCart, ParkedEntry, ParkingState, is_retry_key, retry_key};
pub use parked_row::{ParkedRow, RowFault, day_row_key, month_row_key};
pub use position::{LogEpoch, Position, SequenceNumber};
pub use purchase::PurchasedItem;
pub use reply::{CartReply, Outcome};
pub use time::{InvalidTime, is_representable, parse_time};
