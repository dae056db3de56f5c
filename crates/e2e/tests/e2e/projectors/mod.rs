//! Each projector by itself: the real binary against the real servers, its topic written by the test, what it made of it
//! compared with an oracle row by row, no row too few and none too many.
//!
//! ```text
//! shop ─▶ writer ─▶ cart-events ─▶ item-purchased-events ─▶ item-purchased ─▶ topic == sent, each event once
//!   │        └────────────────────────────────────────────▶ item-purchased ─▶ the others ─▶ tables
//!   └─▶ oracle (integers: ten-thousandths) ─────────────────────────────────────────────────── == ──┘
//! ```
//!
//! * [`read_side`]: the projectors' part of an installation, and how far each of them is.
//! * [`writer`]: transactions as the real writers make them, and a load that goes on while something is done to a projector.
//! * the others: a test each, or two.

pub(crate) mod crash;
pub(crate) mod exact_sums;
pub(crate) mod fifth;
pub(crate) mod garbage;
pub(crate) mod item_purchased_events;
pub(crate) mod offset_guard;
pub(crate) mod oracle;
pub(crate) mod read_side;
pub(crate) mod redelivery;
pub(crate) mod shop;
pub(crate) mod startup;
pub(crate) mod tables;
pub(crate) mod two_instances;
pub(crate) mod writer;
