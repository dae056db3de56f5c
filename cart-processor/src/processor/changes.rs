//! What becomes of parked carts' markers in a batch.

use cart::CartId;

use crate::parking::Change;

/// Changes of markers, by partition and cart, to be published with the offsets of their partitions.
#[derive(Debug, Default)]
pub(super) struct Changes(pub(super) Vec<(i32, CartId, Change)>);
