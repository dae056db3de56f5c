//! The made-up shop's settings.

use std::str::FromStr;

use cart::whole_number;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::Args;
use rand::Rng;

use super::command::ActionKind;

/// The generated shop, used without --file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generated shop (without --file)")]
pub struct ShopArgs {
    /// Number of members, each with one cart
    #[arg(long, env = "REPLAY_MEMBERS", default_value_t = 1_000)]
    pub members: u32,
    /// Number of products
    #[arg(long, env = "REPLAY_PRODUCTS", default_value_t = 500)]
    pub products: u32,
    /// Number of vendors, who share the products
    #[arg(long, env = "REPLAY_VENDORS", default_value_t = 50)]
    pub vendors: u32,
    /// Number of commands
    #[arg(long, env = "REPLAY_COMMANDS", default_value_t = 10_000)]
    pub commands: u64,
    /// Seed; the same seed and settings give the same commands
    #[arg(long, env = "REPLAY_SEED", default_value_t = 1)]
    pub seed: u64,
    /// Zipf exponent of the members; with 0 all are used equally
    #[arg(long, env = "REPLAY_MEMBER_SKEW", default_value_t = 0.6)]
    pub member_skew: f64,
    /// Zipf exponent of the products; with 0 all are used equally
    #[arg(long, env = "REPLAY_PRODUCT_SKEW", default_value_t = 1.0)]
    pub product_skew: f64,
    /// Weights of the actions. An empty cart only gets additions, a full one is checked out
    #[arg(long, env = "REPLAY_MIX", default_value = "add=78,adjust=7,remove=3,checkout=12")]
    pub mix: Mix,
    /// Number of hot carts
    #[arg(long, env = "REPLAY_HOT_CARTS", default_value_t = 0)]
    pub hot_carts: u32,
    /// Share of the commands for the hot carts, evenly distributed
    #[arg(long, env = "REPLAY_HOT_SHARE", default_value_t = 0.5)]
    pub hot_share: f64,
    /// Share of the commands that break a rule on purpose
    #[arg(long, env = "REPLAY_REFUSED_SHARE", default_value_t = 0.02)]
    pub refused_share: f64,
    /// Number of lines at which a cart is checked out; it must be below the limit of the service
    #[arg(long, env = "REPLAY_CART_LINES_MAX", default_value_t = 100)]
    pub cart_lines_max: u32,
    /// First simulated day (UTC)
    #[arg(long, env = "REPLAY_START", default_value = "2026-01-01", value_parser = midnight)]
    pub start: DateTime<Utc>,
    /// Number of simulated days over which the commands are spread
    #[arg(long, env = "REPLAY_DAYS", default_value_t = 30)]
    pub days: u32,
    /// Prefix of every member's label. The service keeps carts, so a new prefix gives new carts
    #[arg(long, env = "REPLAY_MEMBER_PREFIX", default_value = "m")]
    pub member_prefix: String,
}

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A count is 0 that must not be.
    #[error("--{0} must be at least 1")]
    Zero(&'static str),
    /// A share is not between 0 and 1.
    #[error("--{0} must be between 0 and 1")]
    Share(&'static str),
    /// All members are hot.
    #[error("--hot-carts must be below --members")]
    HotCarts,
    /// The Zipf exponent is invalid.
    #[error("a skew must be 0 or more")]
    Skew(#[source] rand_distr::ZipfError),
}

impl ShopArgs {
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let counts = [
            ("members", self.members),
            ("products", self.products),
            ("vendors", self.vendors),
            ("cart-lines-max", self.cart_lines_max),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(Fault::Zero(name));
        }
        let shares = [("hot-share", self.hot_share), ("refused-share", self.refused_share)];
        if let Some((name, _)) = shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return Err(Fault::Share(name));
        }
        if self.hot_carts >= self.members { Err(Fault::HotCarts) } else { Ok(()) }
    }
}

fn midnight(text: &str) -> Result<DateTime<Utc>, chrono::ParseError> {
    let day: NaiveDate = text.parse()?;
    Ok(day.and_time(NaiveTime::MIN).and_utc())
}

/// The relative weights of the actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    weights: [u32; ActionKind::ALL.len()],
}

/// Why a text is not a mix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// Not `action=weight`.
    #[error("{0:?} is not ACTION=WEIGHT with one of add, adjust, remove, checkout and a number up to 1000000")]
    Part(String),
    /// All weights are 0.
    #[error("at least one weight must be above 0")]
    Nothing,
}

impl Mix {
    const WEIGHT_MAX: u32 = 1_000_000;

    pub(crate) fn draw(self, random: &mut impl Rng) -> ActionKind {
        let mut place = random.random_range(0..self.weights.iter().sum());
        for (kind, weight) in ActionKind::ALL.into_iter().zip(self.weights) {
            if place < weight {
                return kind;
            }
            place -= weight;
        }
        ActionKind::Add
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut weights = [0; ActionKind::ALL.len()];
        for part in text.split(',') {
            let bad = || MixError::Part(part.to_owned());
            let (word, weight) = part.split_once('=').ok_or_else(bad)?;
            let kind = ActionKind::of_word(word.trim()).ok_or_else(bad)?;
            let weight = whole_number(weight.trim()).and_then(|weight| u32::try_from(weight).ok());
            weights[kind.index()] = weight.filter(|weight| *weight <= Self::WEIGHT_MAX).ok_or_else(bad)?;
        }
        if weights.iter().all(|weight| *weight == 0) { Err(MixError::Nothing) } else { Ok(Self { weights }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_mix_or_rejects_it() {
        assert_eq!("checkout=2, add=1".parse(), Ok(Mix { weights: [1, 0, 0, 2] }));
        assert_eq!("add=0".parse::<Mix>(), Err(MixError::Nothing));
        for bad in ["", "add", "buy=1", "add=-1", "add=+1", "add=1_0", "add=1000001"] {
            assert_eq!(bad.parse::<Mix>(), Err(MixError::Part(bad.to_owned())));
        }
    }
}
