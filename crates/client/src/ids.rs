//! Ids of carts (one per member), products and vendors: UUID version 5 of `urn:cart:<kind>:<label>` in the URL namespace. The
//! label is in Unicode NFC: `café` has one id however its letters are composed.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::text::nfc;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A cart, as in the URL. Each member has one, for ever.
    CartId
}
id! {
    /// A product, the same in every cart.
    ProductId
}
id! {
    /// The seller of a product.
    VendorId
}

impl CartId {
    /// The cart of the member with this label, `17850` for example.
    #[must_use]
    pub fn of_member(label: &str) -> Self {
        Self(named("member", label))
    }
}

impl ProductId {
    /// The product with this label, a stock code for example.
    #[must_use]
    pub fn of_product(label: &str) -> Self {
        Self(named("product", label))
    }
}

impl VendorId {
    /// The vendor with this label.
    #[must_use]
    pub fn of_vendor(label: &str) -> Self {
        Self(named("vendor", label))
    }
}

fn named(kind: &str, label: &str) -> Uuid {
    let name = format!("urn:cart:{kind}:{}", nfc(label));
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected values: Python's `uuid.uuid5(uuid.NAMESPACE_URL, "urn:cart:member:17850")` and so on.
    #[test]
    fn computes_the_ids_that_python_computes() {
        let cases = [
            (CartId::of_member("17850").0, "5e3367bf-a5c9-5408-8034-479d558dad7c"),
            (CartId::of_member("1").0, "36ab11fe-0803-55b8-a7de-f8614ea4eeb2"),
            (CartId::of_member("M1").0, "a5c3d92d-3ad2-5d76-a8ee-1f9d30e80f94"),
            (ProductId::of_product("85123A").0, "8c126bcf-f775-5898-bc4f-457befa0c02d"),
            (ProductId::of_product("Gift_0001").0, "fe7428c6-3186-54ba-a9b0-4b8398b8dab7"),
            (VendorId::of_vendor("851").0, "05f2dc43-27f3-542f-bdcb-58c02d91639c"),
            // Composed, as Python's `unicodedata.normalize("NFC", ...)` has them.
            (CartId::of_member("Jos\u{e9}").0, "c8efe301-0149-5df5-bfc6-e3955aeaeafd"),
            (CartId::of_member("Jose\u{301}").0, "c8efe301-0149-5df5-bfc6-e3955aeaeafd"),
            (ProductId::of_product("caf\u{e9}").0, "6fb0ade7-ad22-5653-884c-cdb12f3d0623"),
            (ProductId::of_product("cafe\u{301}").0, "6fb0ade7-ad22-5653-884c-cdb12f3d0623"),
            (VendorId::of_vendor("\u{c5}hus").0, "b271dae6-d736-5925-a046-e762cdbbde1d"),
            (VendorId::of_vendor("A\u{30a}hus").0, "b271dae6-d736-5925-a046-e762cdbbde1d"),
        ];
        for (id, expected) in cases {
            assert_eq!(id.to_string(), expected);
        }
    }
}
