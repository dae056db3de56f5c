//! Each projector alone: the real binary against the real servers, with its topic written by the test. Its results are compared
//! with an oracle, row by row.
//!
//! ```text
//! shop ─▶ writer ─▶ cart-events ─▶ item-purchased-events ─▶ item-purchased ─▶ topic == sent, each event once
//!   │        └────────────────────────────────────────────▶ item-purchased ─▶ the others ─▶ tables
//!   └─▶ oracle (integers: ten-thousandths) ─────────────────────────────────────────────────── == ──┘
//! ```
//!
//! * [`read_side`]: the projectors' part of an installation, and the progress of each projector.
//! * [`writer`]: transactions as those of the real writers, and a continuous load.
//! * the others: one or two tests each.

pub(crate) mod added;
pub(crate) mod control;
pub(crate) mod crash;
pub(crate) mod exact_sums;

pub(crate) mod garbage;
pub(crate) mod item_purchased_events;
pub(crate) mod offset_guard;
pub(crate) mod oracle;
pub(crate) mod parked_arrivals;
pub(crate) mod parked_full;
pub(crate) mod parked_guard;
pub(crate) mod parked_rows;
pub(crate) mod read_side;
pub(crate) mod redelivery;
pub(crate) mod shop;
pub(crate) mod startup;
pub(crate) mod tables;
pub(crate) mod two_instances;
pub(crate) mod writer;
