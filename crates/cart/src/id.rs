//! Ids: UUIDs with a type for each kind. As text they are always lower-case and hyphenated.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// The id as a plain UUID, for database columns.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        // Text also in Avro, whose `uuid` is a string logical type that every language reads.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(UuidVisitor).map(Self)
            }
        }
    };
}

struct UuidVisitor;

impl serde::de::Visitor<'_> for UuidVisitor {
    type Value = Uuid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a UUID such as 6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uuid, E> {
        Uuid::parse_str(text).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

id! {
    /// A member's cart, as in the URL. It never changes; it is the Kafka key and the journal's partition key.
    CartId
}
id! {
    /// A session of a cart, from empty to checkout.
    SessionId
}
id! {
    /// A command; also in its events and its reply.
    CommandId
}
id! {
    /// An event, on `cart-events` and on `item-purchased`.
    EventId
}
id! {
    /// A product.
    ProductId
}
id! {
    /// A vendor of products.
    VendorId
}

impl CommandId {
    /// The id of a command with an idempotency key: the same for the same key and cart.
    #[must_use]
    pub fn of_idempotency_key(cart_id: CartId, key: &str) -> Self {
        // Events and sessions have names in the same namespace. Other keys are used unchanged, as in all versions, so that a
        // retry after an upgrade has the id of the first attempt.
        if ["event:", "session:", "key:"].iter().any(|prefix| key.starts_with(prefix)) {
            return Self(Uuid::new_v5(&cart_id.0, format!("key:{key}").as_bytes()));
        }
        Self(Uuid::new_v5(&cart_id.0, key.as_bytes()))
    }

    /// The id of the command at `index` of an independent batch before version 0.2, when each was a separate command.
    #[must_use]
    pub fn in_batch(self, index: usize) -> Self {
        Self(Uuid::new_v5(&self.0, format!("batch:{index}").as_bytes()))
    }
}

impl SessionId {
    /// The id of a cart's `number`th session, counted from 0.
    #[must_use]
    pub fn of(cart_id: CartId, number: i64) -> Self {
        Self(Uuid::new_v5(&cart_id.0, format!("session:{number}").as_bytes()))
    }
}

impl EventId {
    /// The id of a cart's event number `sequence_number`.
    #[must_use]
    pub fn of(cart_id: CartId, sequence_number: crate::SequenceNumber) -> Self {
        Self(Uuid::new_v5(&cart_id.0, format!("event:{sequence_number}").as_bytes()))
    }
}
