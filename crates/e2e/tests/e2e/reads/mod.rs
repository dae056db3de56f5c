//! The reading side of the API: a cart's journal page by page, and what vendors have sold, also right after a purchase.
//!
//! * [`journal_pages`]: all pages together are what is on `cart-events`.
//! * [`vendors`]: a read with `Read-After` always includes that purchase, or says who is behind.
//! * [`progress`]: when a group has done with all there is, whatever transactions leave behind.

pub(crate) mod api;
pub(crate) mod journal_pages;
pub(crate) mod progress;
pub(crate) mod vendors;
