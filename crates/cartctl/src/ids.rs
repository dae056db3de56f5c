//! Ids from labels, as the description of the data defines them: UUID version 5 in the URL namespace. Not shared with
//! `crates/client`, whose ids are checked with it.

use uuid::Uuid;

/// The cart of the member with this label.
#[must_use]
pub fn cart_id(member: &str) -> Uuid {
    of("member", member)
}

/// The product with this label.
#[must_use]
pub fn product_id(product: &str) -> Uuid {
    of("product", product)
}

/// The vendor with this label.
#[must_use]
pub fn vendor_id(vendor: &str) -> Uuid {
    of("vendor", vendor)
}

fn of(kind: &str, label: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:cart:{kind}:{label}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are those of Python's `uuid.uuid5(uuid.NAMESPACE_URL, "urn:cart:member:17850")` and so on.
    #[test]
    fn computes_the_ids_that_python_computes() {
        for (id, expected) in [
            (cart_id("17850"), "5e3367bf-a5c9-5408-8034-479d558dad7c"),
            (product_id("85123A"), "8c126bcf-f775-5898-bc4f-457befa0c02d"),
            (vendor_id("851"), "05f2dc43-27f3-542f-bdcb-58c02d91639c"),
        ] {
            assert_eq!(id.to_string(), expected);
        }
    }
}
