//! The types and the schemas in `schemas/` agree: a value that is encoded with a schema is decoded to itself.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use cart::contract::Contract;
use cart::*;
use serde::{Serialize, de::DeserializeOwned};

fn round_trip<T: Contract + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> Vec<u8> {
    let schema = Schema::parse_str(T::SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
    let bytes = writer.write_ser_to_vec(value).unwrap();
    let reader = GenericDatumReader::builder(&schema).human_readable(false).build().unwrap();
    let read: T = reader.read_deser(&mut bytes.as_slice()).unwrap();
    assert_eq!(&read, value);
    // Decoded by the schema alone, as by any other Avro implementation.
    reader.read_value(&mut bytes.as_slice()).unwrap();
    bytes
}

fn id<T: From<uuid::Uuid>>(n: u128) -> T {
    uuid::Uuid::from_u128(n).into()
}

fn command(command: Command) -> CartCommand {
    CartCommand {
        command_id: id(1),
        cart_id: id(2),
        issued_at: "2026-11-23T10:00:00.123456Z".parse().unwrap(),
        command,
        expected_version: None,
        keyed: Some(true),
    }
}

fn add(product: u128, price: &str) -> Command {
    Command::AddItem {
        product_id: id(product),
        vendor_id: id(9),
        name: String::from("red mug").try_into().unwrap(),
        price: price.parse().unwrap(),
        quantity: 3,
    }
}

#[test]
fn every_command_event_reply_and_snapshot_fits_its_schema() {
    let mut aggregate = Aggregate::new(id(2));
    let commands = [
        add(3, "12.5"),
        add(4, "0.0001"),
        add(5, "999999999.9999"),
        add(6, "0"),
        Command::AdjustQuantity { product_id: id(3), adjust_by: 2.try_into().unwrap() },
        Command::AdjustQuantity { product_id: id(3), adjust_by: (-4).try_into().unwrap() },
        Command::RemoveItem { product_id: id(4) },
        Command::Checkout {},
        Command::Batch {
            commands: vec![add(3, "1"), Command::Checkout {}, add(4, "2"), Command::RemoveItem { product_id: id(4) }],
        },
        Command::IndependentBatch {
            commands: vec![Command::Checkout {}, add(3, "1"), add(3, "1"), Command::Checkout {}],
        },
        // Rejected.
        Command::Checkout {},
    ];
    for (n, one) in commands.into_iter().enumerate() {
        let command = CartCommand { command_id: id(100 + n as u128), ..command(one) };
        round_trip(&command);
        round_trip(&CartCommand { expected_version: Some(7.into()), ..command.clone() });
        let position = Position::new(LogEpoch::FIRST, 40 + i64::try_from(n).unwrap());
        let Decision::Decided(decided) = aggregate.decide(&command, position) else { panic!() };
        aggregate.apply(&decided);
        for event in &decided.events {
            round_trip(event);
            if let Some(purchase) = PurchasedItem::of(event.clone()) {
                round_trip(&purchase);
            }
        }
        round_trip(&aggregate);
        let outcome = decided.outcome_with(|_| None).unwrap();
        round_trip(&CartReply { command_id: command.command_id, cart_id: id(2), position, outcome });
        assert!(matches!(aggregate.decide(&command, position), Decision::Repeated(_)));
    }
    assert!(aggregate.cart().items().is_empty());
    for rejection in [
        Rejection::ItemAlreadyInCart,
        Rejection::ItemNotInCart,
        Rejection::NegativeQuantity { quantity: -3 },
        Rejection::QuantityTooLarge { quantity: 5_000_000_000, max: 7 },
        Rejection::EmptyCartCheckout,
        Rejection::CartFull { max: 1_000 },
        Rejection::IdempotencyKeyReused,
        Rejection::VersionMismatch { version: 12.into() },
    ] {
        let outcome = Outcome::Rejected { rejection, index: Some(4) };
        round_trip(&CartReply { command_id: id(1), cart_id: id(2), position: Position::NONE, outcome });
    }
}
