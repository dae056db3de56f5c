//! `cartctl diff`, `switch` and `drop`: compares the generations of a read model, and lets readers see another one.
//!
//! ```text
//! item-purchased ─┬─▶ group popular-items    ─▶ item_quantity_by_day     generation 1, which readers see
//!                 └─▶ group popular-items-g2 ─▶ item_quantity_by_day_g2  generation 2, which `cartctl rebuild` builds
//!
//! diff:   reads both tables, adds to the older of two rows what the log has for it since, and compares
//! switch: compares, claims the model, stops both groups at one offset a partition, compares the rows again that have changed since,
//!         changes the table read_model, waits until readers follow, lets both go on, ends the claim
//! ```
//!
//! A row is a function of the log up to some offset, so rows of tables that change all the time are compared exactly.

mod args;
mod claim;
mod compare;
mod compared;
mod diff;
mod drop;
mod freeze;
mod guards;
mod in_place;
mod log;
mod reading;
mod report;
mod rows;
mod store;
mod switch;
mod switched;
mod verdict;

pub use args::{DiffArgs, DropArgs, SwitchArgs};
pub use diff::diff;
pub use drop::drop_generation;
pub use in_place::replace;
pub use report::Diff;
pub use switch::switch;
