//! A cart command as the data set writes it: labels instead of ids.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

/// One row of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// When the member did it.
    pub at: DateTime<Utc>,
    /// Whose cart. Commands of one member are sent in order.
    pub member: Arc<str>,
    /// What to do.
    pub action: Action,
    /// What the source wants to happen.
    pub intended: Intended,
    /// Why the row is no clean command, where its source says that: outcomes are counted by it.
    pub reason: Option<Arc<str>>,
}

/// What to do with the cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put an item in.
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
    /// Take an item out.
    Remove {
        /// The product's label.
        product: String,
    },
    /// Buy everything.
    Checkout,
}

/// The four actions by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// Put an item in.
    Add,
    /// Change an item's quantity.
    Adjust,
    /// Take an item out.
    Remove,
    /// Buy everything.
    Checkout,
}

/// What a source expects of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intended {
    /// The source does not say.
    Anything,
    /// It keeps the rules.
    Accepted,
    /// It breaks a rule on purpose: the problem type's code.
    Refused(&'static str),
}

impl Action {
    /// Which of the four.
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
    /// All four, in the order in which they are reported.
    pub const ALL: [Self; 4] = [Self::Add, Self::Adjust, Self::Remove, Self::Checkout];

    /// The word of the data set.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Adjust => "adjust",
            Self::Remove => "remove",
            Self::Checkout => "checkout",
        }
    }

    /// The action with this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
