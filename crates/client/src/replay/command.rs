//! A command of the data set, with labels instead of ids.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

/// One row of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The time of the command.
    pub at: DateTime<Utc>,
    /// The label of the cart's member. Commands of one member are sent in order.
    pub member: Arc<str>,
    pub action: Action,
    /// The outcome that the source intends.
    pub intended: Intended,
    /// Why the row is not a clean command, if its source has a reason. Outcomes are counted by it.
    pub reason: Option<Arc<str>>,
}

/// An action on the cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Add an item.
    Add {
        /// The product's label.
        product: String,
        /// The vendor's label.
        vendor: String,
        /// The product's name.
        name: String,
        /// Price of one piece.
        price: Decimal,
        /// How many pieces.
        quantity: i64,
    },
    /// Change an item's quantity.
    Adjust {
        /// The product's label.
        product: String,
        /// The difference.
        by: i64,
    },
    /// Remove an item.
    Remove {
        /// The product's label.
        product: String,
    },
    /// Buy everything.
    Checkout,
}

/// The kinds of [`Action`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// Add an item.
    Add,
    /// Change an item's quantity.
    Adjust,
    /// Remove an item.
    Remove,
    /// Buy everything.
    Checkout,
}

/// The outcome that a source intends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intended {
    /// The source intends no particular outcome.
    Anything,
    /// The command follows the rules.
    Accepted,
    /// The command breaks a rule on purpose; with the problem type's code.
    Refused(&'static str),
}

impl Action {
    #[must_use]
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Add { .. } => ActionKind::Add,
            Self::Adjust { .. } => ActionKind::Adjust,
            Self::Remove { .. } => ActionKind::Remove,
            Self::Checkout => ActionKind::Checkout,
        }
    }
}

impl ActionKind {
    /// All kinds, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Add, Self::Adjust, Self::Remove, Self::Checkout];

    /// Its name in the data set.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Adjust => "adjust",
            Self::Remove => "remove",
            Self::Checkout => "checkout",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
