//! Parked carts: those whose commands wait in the log, because the cart cannot be read or decided while others can.
//!
//! ```text
//! cart fails alone ─▶ trying ─ three failures in ten seconds, or two panics ─▶ parked ─ `cartctl parked retry` ─▶ retrying
//!                       │                                                        ▲                or `discard`      │ │
//!                       └─ a try succeeds ─▶ live                                └──────────── it fails again ──────┘ └▶ live
//! ```
//!
//! Nothing is copied: `cart-commands` is kept and ordered, so it is enough to remember the first position that is not decided
//! (`nextPosition` of the marker on `cart-parked`). These hold whichever process ends at whatever point:
//!
//! - A marker is in the transaction that commits the offsets behind the commands: an offset is never past a command that is
//!   neither decided nor held by a marker.
//! - The loop passes over every command of a cart with a marker. Only a retry decides them: from `nextPosition` on, in the order of
//!   the log, each chunk in one transaction with its progress.
//! - The record that ends a marker is in a transaction whose offsets are not past any command of the cart that is undecided. From
//!   then on the loop decides the cart's commands. So no command is on both ways.
//! - A command that an operator has discarded (`cart-control`) becomes a dead letter when a try comes to it, in the transaction with
//!   its progress. What was decided before stays decided.
//! - After any failure markers are read from the topic again, behind the committed offsets.
//!
//! Here is what is pure; [`retry`] reads, and the worker (`processor::parked`) carries it out.

mod decide;
mod lots;
mod passed;
mod read;
pub(crate) mod retry;
#[cfg(test)]
mod tests;
mod topic;
mod trial;

pub(crate) use decide::{InTurn, guarded, in_turn};
pub(crate) use lots::{Change, Decided, Failed, Job, Lots, NotRestored, TooManyParked};
pub(crate) use passed::{PassedCart, end_spans};
pub(crate) use read::{Unread, fail_alone, read_guarded};
pub(crate) use topic::{BadMarkers, ParkedTopic, Request};
pub(crate) use trial::{Cause, is_alone};
