//! Sends many cart commands over HTTP, in order per member, and measures the answers.
//!
//! [`run`] does all of it; [`start`], the program, also handles signals and prints the [`Report`].

mod args;
mod assortment;
mod attempt;
pub mod command;
pub mod csv_file;
mod driver;
mod gunzip;
mod pacer;
mod program;
mod progress;
mod queues;
mod raw_rows;
mod record;
mod report;
mod rows;
mod sent;
pub mod shop;
mod shop_args;
#[cfg(test)]
mod shop_tests;
mod source;
mod statistics;
pub mod table;

pub use args::Args;
pub use driver::run;
pub use program::start;
pub use report::{Count, ReasonCount, Report, RetryCounts, Unfinished};
pub use shop_args::{Fault as ShopFault, Mix, MixError, ShopArgs};
pub use statistics::{Deviation, Latency};
