//! The reads of the API: a cart's journal page by page, and the vendors' sales, also right after a purchase.
//!
//! * [`journal_pages`]: all pages together have the events on `cart-events`.
//! * [`generations`]: readers follow the active generation of a read table.
//! * [`vendors`]: a read with `Read-After` includes that purchase, or names the projector that lags.
//! * [`progress`]: the progress of a group, with transactions' markers and aborted records.

pub(crate) mod api;
pub(crate) mod generations;
pub(crate) mod journal_pages;
pub(crate) mod progress;
pub(crate) mod vendors;
