//! The rules: which commands a cart accepts or rejects, and the cart after each event.

use serde::{Deserialize, Serialize};

use crate::{Command, Event, InvalidItem, Item, ProductId, Quantity, SequenceNumber};

/// Why a cart rejects a command. An outcome like any other, not a program error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Rejection {
    /// The item is in the cart; its quantity can be adjusted.
    ItemAlreadyInCart,
    /// The item is not in the cart, and so can't be removed or adjusted.
    ItemNotInCart,
    /// The quantity would be below 1.
    NegativeQuantity {
        /// The quantity that it would be.
        quantity: i64,
    },
    /// The quantity would be above [`Quantity::MAX`].
    QuantityTooLarge {
        /// The quantity that it would be.
        quantity: i64,
        /// The maximum.
        max: i32,
    },
    /// The cart is empty.
    EmptyCartCheckout,
    /// The cart has the maximum number of lines.
    CartFull {
        /// The maximum.
        max: i32,
    },
    /// The idempotency key was used for another command.
    IdempotencyKeyReused,
    /// The cart is not at the expected version.
    VersionMismatch {
        /// The cart's version.
        version: SequenceNumber,
    },
}

/// A rejection, and the rejected command's place in its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rejection: Rejection,
    /// The command's place in its batch, from 0.
    pub index: Option<i32>,
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, index: None }
    }
}

/// The items of a cart, in the order of their addition, and the number of its checkouts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cart {
    session_number: i64,
    items: Vec<Item>,
}

impl Cart {
    /// The maximum number of lines (different products) in a cart. With the bounds on an item it bounds a cart in memory, its
    /// snapshot and its reply. All processors must have the same, so it is a rule and not a setting.
    pub const LINES_MAX: usize = 1_000;

    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The number of the current session, from 0.
    #[must_use]
    pub const fn session_number(&self) -> i64 {
        self.session_number
    }

    /// Decides a command: at least one event, or a rejection.
    ///
    /// # Errors
    /// The rule that the command breaks; for a batch, the rule that its first rejected command breaks.
    pub fn decide(&self, command: &Command) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::AddItem { product_id, vendor_id, name, price, quantity } => {
                let quantity = allowed((*quantity).into())?;
                if self.item(*product_id).is_some() {
                    return Err(Rejection::ItemAlreadyInCart.into());
                }
                if self.items.len() >= Self::LINES_MAX {
                    return Err(Rejection::CartFull { max: i32::try_from(Self::LINES_MAX).unwrap_or(i32::MAX) }.into());
                }
                let (name, price) = (name.clone(), *price);
                let item = Item { product_id: *product_id, vendor_id: *vendor_id, name, price, quantity };
                Ok(vec![Event::ItemAdded { item }])
            }
            Command::RemoveItem { product_id } => {
                let item = self.item(*product_id).ok_or(Rejection::ItemNotInCart)?.clone();
                Ok(vec![Event::ItemRemoved { item }])
            }
            Command::AdjustQuantity { product_id, adjust_by } => {
                let item = self.item(*product_id).ok_or(Rejection::ItemNotInCart)?;
                let by = adjust_by.get();
                let quantity = allowed(i64::from(item.quantity.get()) + i64::from(by))?;
                let item = Item { quantity, ..item.clone() };
                Ok(vec![if by > 0 {
                    Event::ItemQuantityIncreased { item, increased_by: by }
                } else {
                    Event::ItemQuantityDecreased { item, decreased_by: -by }
                }])
            }
            Command::Checkout {} if self.items.is_empty() => Err(Rejection::EmptyCartCheckout.into()),
            Command::Checkout {} => {
                Ok(self.items.iter().map(|item| Event::ItemPurchased { item: item.clone() }).collect())
            }
            // An independent batch has an outcome for each command: `Aggregate::decide` decides those one by one.
            Command::Batch { commands } | Command::IndependentBatch { commands } => {
                let (mut cart, mut events) = (self.clone(), Vec::new());
                for (index, command) in (0..).zip(commands) {
                    let refused = |refusal| Refusal { index: Some(index), ..refusal };
                    let next = cart.decide(command).map_err(refused)?;
                    next.iter().for_each(|event| cart.evolve(event));
                    events.extend(next);
                }
                Ok(events)
            }
        }
    }

    /// Applies an event. Can't fail, since journalled events have happened.
    pub fn evolve(&mut self, event: &Event) {
        let product_id = event.item().product_id;
        match event {
            Event::ItemAdded { item } => self.items.push(item.clone()),
            Event::ItemRemoved { .. } => self.items.retain(|item| item.product_id != product_id),
            Event::ItemQuantityIncreased { item: now, .. } | Event::ItemQuantityDecreased { item: now, .. } => {
                if let Some(item) = self.items.iter_mut().find(|item| item.product_id == product_id) {
                    item.quantity = now.quantity;
                }
            }
            Event::ItemPurchased { .. } => {
                self.items.retain(|item| item.product_id != product_id);
                // A checkout buys every line, so the last of its events leaves the cart empty.
                if self.items.is_empty() {
                    self.session_number += 1;
                }
            }
        }
    }

    /// Frees the spare capacity of the list of items.
    pub(crate) fn shrink(&mut self) {
        self.items.shrink_to_fit();
    }

    fn item(&self, product_id: ProductId) -> Option<&Item> {
        self.items.iter().find(|item| item.product_id == product_id)
    }
}

fn allowed(quantity: i64) -> Result<Quantity, Rejection> {
    Quantity::try_from(quantity).map_err(|_: InvalidItem| {
        if quantity < 1 {
            Rejection::NegativeQuantity { quantity }
        } else {
            Rejection::QuantityTooLarge { quantity, max: Quantity::MAX }
        }
    })
}
