//! A command of a kind that this version does not know is not garbage: a newer version has accepted it. Its partition stops,
//! and readiness says what to do; the other partitions continue. After an upgrade (none here) nothing is lost.

use std::time::Duration;

use anyhow::ensure;
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartId, Command};
use e2e::harness::{Installation, Service, wait_until};
use kafka::{Admin, Codec, KafkaArgs, Producer, Record, Registry, partition_of};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(180);

/// The index of the next branch in the union of commands.
const NEW_BRANCH: u8 = 6;

/// The schema of a possible next version, with one more kind of command.
fn newer_schema() -> anyhow::Result<String> {
    let mut schema: serde_json::Value = serde_json::from_str(CartCommand::SCHEMA)?;
    let fields = schema["fields"].as_array_mut().into_iter().flatten();
    let union = fields.filter(|field| field["name"] == "command").find_map(|field| field["type"].as_array_mut());
    let union = union.ok_or_else(|| anyhow::anyhow!("the command is no union"))?;
    ensure!(union.len() == usize::from(NEW_BRANCH), "the union has {} branches", union.len());
    union.push(serde_json::json!({"type": "record", "name": "WrapAsGift", "fields": []}));
    Ok(schema.to_string())
}

fn checkout(cart_id: CartId) -> CartCommand {
    CartCommand {
        command_id: Uuid::new_v4().into(),
        cart_id,
        issued_at: "2026-01-31T12:00:00Z".parse().expect("a time"),
        command: Command::Checkout {},
        expected_version: None,
        keyed: Some(true),
    }
}

fn record(cart_id: CartId, value: Vec<u8>) -> Record {
    Record { partition: None, key: Some(cart_id.to_string().into_bytes()), value: Some(value), headers: None }
}

async fn committed(kafka: &KafkaArgs) -> anyhow::Result<Vec<Option<i64>>> {
    let (group, topic) = (kafka.prefixed("cart-processor"), kafka.prefixed(CartCommand::TOPIC));
    Ok(tokio::task::block_in_place(|| Admin::new(kafka)?.committed(&group, &topic))?)
}

pub(crate) async fn a_command_that_is_too_new_stops_its_partition_only() -> anyhow::Result<()> {
    let installation = Installation::new("newer")?;
    installation.run("cart-processor-setup", "cart-processor", ["setup"], DEADLINE).await?;
    let kafka = installation.kafka();
    let registry = Registry::new(kafka)?;
    let codec = Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let newer = registry.register(CartCommand::TOPIC, &newer_schema()?).await?;
    let as_newer = |mut bytes: Vec<u8>| {
        bytes[1..5].copy_from_slice(&newer.to_be_bytes());
        bytes
    };
    let stopped_cart = CartId::from(Uuid::from_u128(1));
    let partitions = Admin::new(kafka)?.partitions(&kafka.prefixed(CartCommand::TOPIC))?;
    let partition_of = |cart_id: CartId| partition_of(cart_id.to_string().as_bytes(), partitions);
    let elsewhere = (2..).map(|n| CartId::from(Uuid::from_u128(n)));
    let other_cart = elsewhere.into_iter().find(|cart_id| partition_of(*cart_id) != partition_of(stopped_cart));
    let other_cart = other_cart.ok_or_else(|| anyhow::anyhow!("all carts are in one partition"))?;

    let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
    let known = as_newer(codec.encode(&checkout(stopped_cart))?);
    let mut unknown = known.clone();
    // After the branch's number follow the absent expected version and `keyed`.
    let at = unknown.len() - 4;
    unknown[at] = NEW_BRANCH << 1;
    for (cart_id, value) in [
        (stopped_cart, known),
        (stopped_cart, unknown),
        (stopped_cart, codec.encode(&checkout(stopped_cart))?),
        (other_cart, as_newer(codec.encode(&checkout(other_cart))?)),
    ] {
        producer.send(&record(cart_id, value))?.await?;
    }

    // Behind the offset of a pause it is not read yet: the partition is paused, not stopped.
    let partition = partition_of(stopped_cart);
    let at_offset = format!("--at-offset={partition}=1");
    let pause = ["pause", "cart-processor", "--reason", "an upgrade", "--wait=60s", &at_offset];
    installation.run("pause", "cartctl", pause.iter().filter(|arg| !arg.starts_with("--wait")), DEADLINE).await?;
    let mut processor = installation.start(Service::CartProcessor, "0", &[])?;
    let address = processor.address().ok_or_else(|| anyhow::anyhow!("the processor has an address"))?;
    processor.ready(DEADLINE).await?;
    installation.run("pause-wait", "cartctl", pause, DEADLINE).await?;
    let ready = reqwest::get(format!("http://{address}/health/ready")).await?.text().await?;
    ensure!(ready.starts_with("ready\n") && ready.contains("an upgrade"), "{ready}");
    installation.run("resume", "cartctl", ["resume", "cart-processor"], DEADLINE).await?;
    wait_until("readiness to name the partition", DEADLINE, async || {
        let response = reqwest::get(format!("http://{address}/health/ready")).await;
        let text = response.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        let reason = format!("partition {partition} is stopped at offset 1: upgrade this program");
        if text.contains(&reason) && text.contains("newer than this program") { Ok(()) } else { Err(text) }
    })
    .await?;
    let other = usize::try_from(partition_of(other_cart))?;
    wait_until("the other partition to go on", DEADLINE, async || {
        let committed = committed(kafka).await.map_err(|error| format!("{error:#}"))?;
        if committed[other] == Some(1) { Ok(()) } else { Err(format!("committed: {committed:?}")) }
    })
    .await?;

    let offset = committed(kafka).await?[usize::try_from(partition)?];
    ensure!(offset.is_none_or(|offset| offset <= 1), "offset {offset:?} is committed: the command was passed over");
    let letters = tokio::task::block_in_place(|| Admin::new(kafka)?.watermarks(&kafka.prefixed(DEAD_LETTER_TOPIC)))?;
    ensure!(letters.iter().all(|(start, end)| start == end), "there are dead letters: {letters:?}");
    processor.terminate(DEADLINE).await?;
    installation.remove().await
}
