//! Records of other producers on the system's topics: garbage, damaged commands, duplicates and aborted records.

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, CartId, Command, PurchasedItem};
use kafka::{Admin, Codec, KafkaArgs, Producer, Record, Registry, TransactionalProducer, partition_of};
use uuid::Uuid;

use super::environment::FaultEnvironment;

/// The number of carts that only these producers use.
const STRANGERS: u8 = 20;

/// How often each of their commands is sent.
const COPIES: usize = 3;

/// An id larger than any that a registry has assigned.
const UNKNOWN_SCHEMA: u32 = u32::MAX - 1;

/// The number of transactions, one after the other; every second one is aborted.
const TRANSACTIONS: u8 = 40;

/// The number of partitions of each topic that they write to.
const TOUCHED: i32 = 2;

/// Leaves a transaction with garbage open on all topics. The broker aborts it after its timeout.
pub(super) async fn open_transaction(environment: &FaultEnvironment) -> anyhow::Result<()> {
    transactions(environment, 1).await
}

/// Writes garbage in transactions: in turn to all topics, aborted, and to `cart-commands`, committed. Leaves the last one
/// open, as above.
pub(super) async fn half_aborted(environment: &FaultEnvironment) -> anyhow::Result<()> {
    transactions(environment, TRANSACTIONS).await
}

async fn transactions(environment: &FaultEnvironment, times: u8) -> anyhow::Result<()> {
    let kafka = environment.installation().kafka().clone();
    let work = move || -> Result<(), kafka::Error> {
        for left in (0..times).rev() {
            // A producer with the same id aborts the open transaction of its predecessor.
            let mut producer = TransactionalProducer::connect(&kafka, "somebody-else")?;
            let mut transaction = producer.begin()?;
            let is_to_commit = left % 2 == 1;
            let ours = [CartEvent::TOPIC, PurchasedItem::TOPIC].into_iter().filter(|_| !is_to_commit);
            for topic in std::iter::once(CartCommand::TOPIC).chain(ours) {
                for partition in 0..TOUCHED {
                    let value = Some(b"not ours".to_vec());
                    let record = Record { partition: Some(partition), key: None, value, headers: None };
                    transaction.send(&kafka.prefixed(topic), &record)?;
                }
            }
            match is_to_commit {
                true => transaction.commit_records()?,
                false => transaction.deliver()?,
            }
        }
        Ok(())
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// Sends all kinds of garbage, among the commands of the load.
pub(super) async fn garbage(environment: &FaultEnvironment) -> anyhow::Result<()> {
    let kafka = environment.installation().kafka();
    let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
    for n in 0_u8..100 {
        let value = match n % 4 {
            0 => Some(vec![n; 300]),
            1 => Some(vec![0, 0, 0, 0, 1, n]),
            2 => None,
            // Nearly the maximum size of a record, with its key.
            _ => Some(vec![n; 990_000]),
        };
        let key = (n % 3 > 0).then(|| Uuid::from_u128(n.into()).to_string().into_bytes());
        producer.send(&Record { partition: None, key, value, headers: None })?.await?;
    }
    for record in strangers(kafka).await? {
        producer.send(&record)?.await?;
    }
    Ok(())
}

/// Valid commands, each several times, and damaged ones.
async fn strangers(kafka: &KafkaArgs) -> anyhow::Result<Vec<Record>> {
    let codec = Codec::<CartCommand>::register(&Registry::new(kafka)?, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let partitions = tokio::task::block_in_place(|| Admin::new(kafka)?.partitions(&topic))?;
    let mut records = Vec::new();
    for n in 0..STRANGERS {
        let cart_id = CartId::from(Uuid::new_v4());
        let value = codec.encode(&add(cart_id, n)?)?;
        let key = cart_id.to_string().into_bytes();
        let elsewhere = (partition_of(&key, partitions) + 1) % partitions;
        let good = Record { partition: None, key: Some(key), value: Some(value.clone()), headers: None };
        records.extend(std::iter::repeat_n(good.clone(), COPIES));
        let unknown = [&[0], UNKNOWN_SCHEMA.to_be_bytes().as_slice(), &value[5..]].concat();
        records.extend([
            Record { value: Some(value[..value.len() - 7].to_vec()), ..good.clone() },
            Record { value: Some(unknown), ..good.clone() },
            Record { partition: Some(elsewhere), ..good.clone() },
            Record { key: None, ..good.clone() },
            Record { value: None, ..good },
        ]);
    }
    Ok(records)
}

fn add(cart_id: CartId, n: u8) -> anyhow::Result<CartCommand> {
    let command = Command::AddItem {
        product_id: Uuid::from_u128(n.into()).into(),
        vendor_id: Uuid::from_u128(1).into(),
        name: String::from("a stranger's").try_into()?,
        price: "0.0001".parse().context("a price")?,
        quantity: 1,
    };
    let command_id = Uuid::new_v4().into();
    Ok(CartCommand {
        command_id,
        cart_id,
        issued_at: chrono::Utc::now(),
        command,
        expected_version: None,
        keyed: Some(true),
    })
}
