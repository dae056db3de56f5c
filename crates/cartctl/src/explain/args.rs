//! The questions of `explain`, and what an answer can be.

use std::str::FromStr;

use cart::{CartId, ProductId, VendorId};
use cassandra::CassandraArgs;
use chrono::{Datelike as _, NaiveDate};
use clap::ValueEnum;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;

/// Show how a stored figure follows from the log, record by record
///
/// Reads one partition of the log from its beginning, and changes nothing. The services keep running.
///
/// Exit code 0: the figures follow from the log. 1: they do not. 2: that could not be found out, for example because a server
/// is unavailable.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl explain balance 05f2dc43-27f3-542f-bdcb-58c02d91639c 2026-11")]
pub struct Args {
    #[command(subcommand)]
    pub(super) question: Question,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Question {
    Balance(BalanceArgs),
    Item(ItemArgs),
    Cart(CartArgs),
}

/// Show every purchase of a vendor's balance of a month, with the running total
#[derive(Debug, clap::Args)]
pub(super) struct BalanceArgs {
    pub(super) vendor: VendorId,

    /// Month (UTC), for example 2026-11
    pub(super) month: Month,

    /// Table to compare with; both by default
    #[arg(long, value_enum)]
    pub(super) store: Option<Store>,

    #[command(flatten)]
    pub(super) system: System,
}

/// Show every purchase of a product on a day, with the running total of pieces
#[derive(Debug, clap::Args)]
pub(super) struct ItemArgs {
    pub(super) vendor: VendorId,
    pub(super) product: ProductId,

    /// Day (UTC), for example 2026-11-03
    pub(super) day: NaiveDate,

    #[command(flatten)]
    pub(super) system: System,
}

/// Show every command of a cart: its outcome, and the cart before and after it
///
/// Decides each command again with the rules of this program, and compares the result with the journal.
#[derive(Debug, clap::Args)]
pub(super) struct CartArgs {
    pub(super) cart: CartId,

    #[command(flatten)]
    pub(super) system: System,
}

/// Where the data is, and how to print it.
#[derive(Debug, clap::Args)]
pub(super) struct System {
    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
    #[command(flatten)]
    pub(super) cassandra: CassandraArgs,

    #[command(flatten)]
    pub(super) database: DatabaseArgs,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A store of balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    /// balance_by_vendor
    Cassandra,
    /// vendor_billing
    Postgres,
}

/// A month of a year (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Month {
    pub(super) year: i32,
    pub(super) month: u32,
}

impl FromStr for Month {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = NaiveDate::from_str(&format!("{text}-01"))?;
        Ok(Self { year: first.year(), month: first.month() })
    }
}

/// What the comparison came to, by exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finding {
    Follows = 0,
    Differs = 1,
    Unknown = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_a_year_and_a_number() {
        assert_eq!("2026-11".parse(), Ok(Month { year: 2026, month: 11 }));
        for text in ["2026-13", "2026", "2026-11-03", "november"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }
}
