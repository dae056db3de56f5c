//! The consumer groups, without the installation's prefix. A group's offsets are stored under its name, so a name never changes.

/// Reads `cart-commands`, decides, publishes `cart-events`.
pub const CART_PROCESSOR: &str = "cart-processor";
/// Reads `cart-events`, publishes `item-purchased`.
pub const ITEM_PURCHASED_EVENTS: &str = "item-purchased-events";
/// Reads `item-purchased` and keeps a table of [`crate::contract::READ_MODELS`].
pub const POPULAR_ITEMS: &str = "popular-items";
/// As `POPULAR_ITEMS`.
pub const VENDOR_BILLING: &str = "vendor-billing";
/// As `POPULAR_ITEMS`. The name is that of the system that this one replaces; it uses no JDBC.
pub const VENDOR_BILLING_JDBC: &str = "vendor-billing-jdbc";
