//! Markers on `cart-parked` that cannot be restored, or are too many, concern their partition only.

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartId, CartParked, Command, LogEpoch, ParkedCart, ParkingState, Position};
use chrono::{DateTime, Utc};
use e2e::harness::{Installation, Process, Service, wait_until};
use kafka::{Admin, Codec, Producer, Record, Registry, partition_of};
use uuid::Uuid;

use super::{DEADLINE, WORKER};

/// The parked carts with which a partition goes on (`cart_processor::parking`).
const PARKED_MAX: usize = 1_000;

/// The write side's topics, without `ingest`.
struct Topics {
    installation: Installation,
    commands: Codec<CartCommand>,
    markers: Codec<CartParked>,
}

impl Topics {
    async fn new(name: &str) -> anyhow::Result<Self> {
        let installation = Installation::new(name)?;
        installation.run("cart-processor-setup", "cart-processor", ["setup"], DEADLINE).await?;
        let registry = Registry::new(installation.kafka())?;
        let commands = Codec::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
        let markers = Codec::register(&registry, CartParked::TOPIC, CartParked::SCHEMA).await?;
        Ok(Self { installation, commands, markers })
    }

    /// New carts of a partition.
    fn carts(&self, partition: i32, count: usize) -> Vec<CartId> {
        let partitions = i32::from(self.installation.partitions());
        let is_of = |cart: &Uuid| partition_of(cart.to_string().as_bytes(), partitions) == partition;
        std::iter::repeat_with(Uuid::new_v4).filter(is_of).map(CartId::from).take(count).collect()
    }

    fn marker(&self, cart_id: CartId, position: Position) -> anyhow::Result<Record> {
        let cart = ParkedCart {
            first_position: position,
            next_position: position,
            state: ParkingState::Parked,
            reason: String::from("rule-panicked: a test"),
            since: DateTime::UNIX_EPOCH,
        };
        Ok(record(cart_id, self.markers.encode(&cart.record(cart_id))?))
    }

    async fn send(&self, topic: &str, records: &[Record]) -> anyhow::Result<()> {
        let kafka = self.installation.kafka();
        let producer = Producer::durable(kafka, &kafka.prefixed(topic))?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            deliveries.push(producer.send(record)?);
        }
        for delivery in deliveries {
            delivery.await?;
        }
        Ok(())
    }

    /// One command for each cart, in this order.
    async fn check_out(&self, carts: &[CartId]) -> anyhow::Result<()> {
        let mut records = Vec::with_capacity(carts.len());
        for cart_id in carts {
            let command = CartCommand {
                command_id: Uuid::new_v4().into(),
                cart_id: *cart_id,
                issued_at: Utc::now(),
                command: Command::Checkout {},
                expected_version: None,
                keyed: Some(true),
            };
            records.push(record(*cart_id, self.commands.encode(&command)?));
        }
        self.send(CartCommand::TOPIC, &records).await
    }

    async fn committed(&self) -> anyhow::Result<Vec<Option<i64>>> {
        let kafka = self.installation.kafka();
        let (group, topic) = (kafka.prefixed("cart-processor"), kafka.prefixed(CartCommand::TOPIC));
        Ok(tokio::task::block_in_place(|| Admin::new(kafka)?.committed(&group, &topic))?)
    }

    /// Waits until a partition's commands before an offset are decided, or wait.
    async fn reaches(&self, partition: usize, offset: i64) -> anyhow::Result<()> {
        wait_until("the partition to go on", DEADLINE, async || {
            let committed = self.committed().await.map_err(|error| format!("{error:#}"))?;
            if committed[partition] == Some(offset) { Ok(()) } else { Err(format!("committed: {committed:?}")) }
        })
        .await
    }

    async fn remove_markers(&self) -> anyhow::Result<()> {
        let topic = self.installation.kafka().prefixed(CartParked::TOPIC);
        let admin = Admin::new(self.installation.kafka())?;
        admin.remove_topics(&[topic.as_str()]).await?;
        wait_until("the topic to go", DEADLINE, async || {
            match tokio::task::block_in_place(|| admin.partitions(&topic)) {
                Ok(partitions) => Err(format!("it has {partitions} partitions")),
                Err(_) => Ok(()),
            }
        })
        .await
    }
}

fn record(cart_id: CartId, value: Vec<u8>) -> Record {
    Record { partition: None, key: Some(cart_id.to_string().into_bytes()), value: Some(value), headers: None }
}

/// Waits until `/health/ready` has these reasons.
async fn names(process: &Process, reasons: &[&str]) -> anyhow::Result<()> {
    let address = process.address().context("a processor has an address")?;
    wait_until("readiness to name what is stopped", DEADLINE, async || {
        let response = reqwest::get(format!("http://{address}/health/ready")).await;
        let text = response.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        if reasons.iter().all(|reason| text.contains(reason)) { Ok(()) } else { Err(text) }
    })
    .await
}

pub(crate) async fn markers_that_cannot_be_restored_stop_their_partition_only() -> anyhow::Result<()> {
    let topics = Topics::new("badmarkers").await?;
    let [earlier, undecodable, good] = [1, 2, 3].map(|partition| topics.carts(partition, 1)[0]);
    let of_earlier = topics.marker(earlier, Position::new(LogEpoch::new(2).context("an epoch")?, 0))?;
    let garbage = record(undecodable, b"garbage".to_vec());
    topics.send(CartParked::TOPIC, &[of_earlier, garbage]).await?;
    topics.check_out(&[earlier, undecodable, good]).await?;
    // One worker has all partitions.
    let mut processor = topics.installation.start(Service::CartProcessor, "a", &WORKER)?;
    topics.reaches(3, 1).await?;
    let of_earlier = "partition 1 is stopped: a cart is parked at a position of an earlier log";
    names(&processor, &[of_earlier, "partition 2 is stopped: reading a record of "]).await?;
    let committed = topics.committed().await?;
    let is_passed = |partition: usize| committed[partition].is_some_and(|offset| offset > 0);
    ensure!(!is_passed(1) && !is_passed(2), "commands of unknown carts were passed over: {committed:?}");
    processor.terminate(DEADLINE).await?;

    topics.remove_markers().await?;
    topics.installation.run("setup-again", "cart-processor", ["setup"], DEADLINE).await?;
    let mut processor = topics.installation.start(Service::CartProcessor, "b", &WORKER)?;
    processor.ready(DEADLINE).await?;
    topics.reaches(1, 1).await?;
    topics.reaches(2, 1).await?;
    processor.terminate(DEADLINE).await?;
    topics.installation.remove().await
}

pub(crate) async fn carts_are_tried_in_a_partition_that_has_too_many() -> anyhow::Result<()> {
    let topics = Topics::new("cartsfull").await?;
    let carts = topics.carts(1, PARKED_MAX);
    let bad = topics.carts(1, 1)[0];
    let mut markers = Vec::with_capacity(carts.len());
    for (cart_id, offset) in carts.iter().zip(0..) {
        markers.push(topics.marker(*cart_id, Position::new(LogEpoch::FIRST, offset))?);
    }
    topics.send(CartParked::TOPIC, &markers).await?;
    topics.check_out(&carts).await?;
    let panics = format!("decide-panics=return({bad})");
    let start = |instance| topics.installation.start_to_crash(Service::CartProcessor, instance, &WORKER, &panics);
    let mut processor = start("a")?;
    let passed = i64::try_from(PARKED_MAX)?;
    topics.reaches(1, passed).await?;
    topics.check_out(&[bad]).await?;
    names(&processor, &["1000 carts are parked, and one more fails"]).await?;

    let repaired: Vec<String> = carts.iter().take(3).map(ToString::to_string).collect();
    let retry = ["parked", "retry", "--wait-s", "60"].into_iter().chain(repaired.iter().map(String::as_str));
    let retry: Vec<&str> = retry.collect();
    topics.installation.cartctl(&retry, &[], DEADLINE).await?.with(0, "3 live, 0 still parked")?;
    ensure!(topics.committed().await?[1] == Some(passed), "the partition has gone on");
    processor.terminate(DEADLINE).await?;

    // There is room for the one that is bad.
    let mut processor = start("b")?;
    processor.ready(DEADLINE).await?;
    topics.reaches(1, passed + 1).await?;
    topics.installation.becomes_parked(bad.as_uuid(), DEADLINE).await?;
    processor.terminate(DEADLINE).await?;
    topics.installation.remove().await
}
