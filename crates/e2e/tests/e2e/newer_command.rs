//! A command of a kind that this version does not know is not garbage: a newer version has accepted it. Its partition stops,
//! and readiness says what to do; the other partitions continue. With `--too-new park` only its cart waits. After an upgrade (none here)
//! nothing is lost.

use std::time::Duration;

use anyhow::ensure;
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC};
use cart::{CartCommand, CartId, Command};
use cartctl::audit::{Target, audit};
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

/// Records on `cart-commands`, one of which is too new.
struct Written {
    installation: Installation,
    /// Its records are a command, the one that is too new, and another command.
    newer: CartId,
    /// Its one command is in another partition.
    other: CartId,
    partitions: i32,
}

impl Written {
    async fn new(name: &str) -> anyhow::Result<Self> {
        let installation = Installation::new(name)?;
        installation.run("cart-processor-setup", "cart-processor", ["setup"], DEADLINE).await?;
        let kafka = installation.kafka();
        let registry = Registry::new(kafka)?;
        let codec = Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
        let newer_id = registry.register(CartCommand::TOPIC, &newer_schema()?).await?;
        let as_newer = |mut bytes: Vec<u8>| {
            bytes[1..5].copy_from_slice(&newer_id.to_be_bytes());
            bytes
        };
        let newer = CartId::from(Uuid::from_u128(1));
        let partitions = Admin::new(kafka)?.partitions(&kafka.prefixed(CartCommand::TOPIC))?;
        let mut elsewhere = (2..).map(|n| CartId::from(Uuid::from_u128(n)));
        let other = elsewhere.find(|cart_id| partition(*cart_id, partitions) != partition(newer, partitions));
        let other = other.ok_or_else(|| anyhow::anyhow!("all carts are in one partition"))?;

        let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
        let known = as_newer(codec.encode(&checkout(newer))?);
        let mut unknown = known.clone();
        // After the branch's number follow the absent expected version and `keyed`.
        let at = unknown.len() - 4;
        unknown[at] = NEW_BRANCH << 1;
        for (cart_id, value) in [
            (newer, known),
            (newer, unknown),
            (newer, codec.encode(&checkout(newer))?),
            (other, as_newer(codec.encode(&checkout(other))?)),
        ] {
            producer.send(&record(cart_id, value))?.await?;
        }
        Ok(Self { installation, newer, other, partitions })
    }

    /// A command of another cart of a partition.
    async fn send_another(&self, partition: i32) -> anyhow::Result<()> {
        let kafka = self.installation.kafka();
        let mut same = (2..).map(|n| CartId::from(Uuid::from_u128(n)));
        let same = same.find(|cart_id| self::partition(*cart_id, self.partitions) == partition);
        let same = same.ok_or_else(|| anyhow::anyhow!("no other cart is in the partition"))?;
        let registry = Registry::new(kafka)?;
        let codec = Codec::<CartCommand>::register(&registry, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
        let producer = Producer::durable(kafka, &kafka.prefixed(CartCommand::TOPIC))?;
        producer.send(&record(same, codec.encode(&checkout(same))?))?.await?;
        Ok(())
    }

    fn has_no_letters(&self) -> anyhow::Result<()> {
        let kafka = self.installation.kafka();
        let letters =
            tokio::task::block_in_place(|| Admin::new(kafka)?.watermarks(&kafka.prefixed(DEAD_LETTER_TOPIC)))?;
        ensure!(letters.iter().all(|(start, end)| start == end), "there are dead letters: {letters:?}");
        Ok(())
    }
}

fn partition(cart_id: CartId, partitions: i32) -> i32 {
    partition_of(cart_id.to_string().as_bytes(), partitions)
}

pub(crate) async fn a_command_that_is_too_new_stops_its_partition_only() -> anyhow::Result<()> {
    let written = Written::new("newer").await?;
    let (installation, kafka) = (&written.installation, written.installation.kafka());

    // Behind the offset of a pause it is not read yet: the partition is paused, not stopped.
    let partition = partition(written.newer, written.partitions);
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
    let (log, position) = (processor.log(), format!("position={}/{partition}/1 ", kafka.prefixed(CartCommand::TOPIC)));
    let is_stop = |line: &str| line.contains("a partition is stopped") && line.contains(&position);
    ensure!(log.lines().any(is_stop), "no stop with {position}in {log}");
    let other = usize::try_from(self::partition(written.other, written.partitions))?;
    wait_until("the other partition to go on", DEADLINE, async || {
        let committed = committed(kafka).await.map_err(|error| format!("{error:#}"))?;
        if committed[other] == Some(1) { Ok(()) } else { Err(format!("committed: {committed:?}")) }
    })
    .await?;

    let offset = committed(kafka).await?[usize::try_from(partition)?];
    ensure!(offset.is_none_or(|offset| offset <= 1), "offset {offset:?} is committed: the command was passed over");
    written.has_no_letters()?;
    processor.terminate(DEADLINE).await?;
    written.installation.remove().await
}

/// Waits until a partition's commands before an offset are decided, or wait.
async fn reaches(written: &Written, partition: i32, offset: i64) -> anyhow::Result<()> {
    let place = usize::try_from(partition)?;
    wait_until("the partition to go on", DEADLINE, async || {
        let committed = committed(written.installation.kafka()).await.map_err(|error| format!("{error:#}"))?;
        if committed[place] == Some(offset) { Ok(()) } else { Err(format!("committed: {committed:?}")) }
    })
    .await
}

/// A member that has stopped a partition loses it to one that passes the command, and gets it again.
pub(crate) async fn a_stop_ends_when_another_member_passes_the_command() -> anyhow::Result<()> {
    let written = Written::new("newermoves").await?;
    let (installation, partition) = (&written.installation, partition(written.newer, written.partitions));
    let session = ["--session-timeout-ms", "2000"];
    let mut stops = installation.start(Service::CartProcessor, "0", &session)?;
    let address = stops.address().ok_or_else(|| anyhow::anyhow!("the processor has an address"))?;
    wait_until("readiness to name the partition", DEADLINE, async || {
        let response = reqwest::get(format!("http://{address}/health/ready")).await;
        let text = response.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        if text.contains(&format!("partition {partition} is stopped at offset 1")) { Ok(()) } else { Err(text) }
    })
    .await?;
    stops.pause()?;
    let parks = [&session[..], &["--too-new", "park"]].concat();
    let mut passes = installation.start(Service::CartProcessor, "1", &parks)?;
    reaches(&written, partition, 3).await?;
    stops.resume()?;
    stops.ready(DEADLINE).await?;
    passes.terminate(DEADLINE).await?;
    written.send_another(partition).await?;
    reaches(&written, partition, 4).await?;
    stops.ready(DEADLINE).await?;
    stops.terminate(DEADLINE).await?;
    written.installation.remove().await
}

pub(crate) async fn a_command_that_is_too_new_parks_its_cart_where_that_is_wanted() -> anyhow::Result<()> {
    let written = Written::new("newerpark").await?;
    let (installation, kafka) = (&written.installation, written.installation.kafka());
    let (cart, partition) = (written.newer.as_uuid(), partition(written.newer, written.partitions));
    installation.setup().await?;
    let no_args: &[&str] = &[];
    let projectors = Service::PROJECTORS.map(|projector| (projector, "0", no_args));
    let _projectors = installation.start_all(&projectors).await?;
    let mut processor = installation.start(Service::CartProcessor, "0", &["--too-new", "park"])?;
    processor.ready(DEADLINE).await?;
    installation.becomes_parked(cart, DEADLINE).await?;
    reaches(&written, partition, 3).await?;
    let parked = installation.parked().await?;
    let [one] = &parked[..] else { anyhow::bail!("{parked:?}") };
    let reason = one["reason"].as_str().unwrap_or_default();
    ensure!(reason.starts_with("command-too-new: ") && one["nextOffset"] == 1 && one["waiting"] == 2, "{one}");
    // Its id cannot be read; nor does another try help before an upgrade.
    let (cart, command) = (cart.to_string(), Uuid::new_v4().to_string());
    let discard = ["parked", "discard", &cart, "--command", &command, "--reason", "a test"];
    let retry = ["parked", "retry", &cart];
    for (name, args, answer) in
        [("discard", &discard[..], "the cart stands at offset 1"), ("retry", &retry[..], "0 live, 1 still parked")]
    {
        let refused = installation.run(name, "cartctl", args, DEADLINE).await;
        let text = refused.map_or_else(|error| format!("{error:#}"), |text| format!("it succeeded: {text}"));
        ensure!(text.contains(answer) && !text.starts_with("it succeeded"), "{text}");
    }
    // The others of its partition go on, also when another process has it that stops at what is new.
    processor.terminate(DEADLINE).await?;
    let mut processor = installation.start(Service::CartProcessor, "1", &[])?;
    processor.ready(DEADLINE).await?;
    written.send_another(partition).await?;
    reaches(&written, partition, 4).await?;
    ensure!(installation.parked().await?.len() == 1, "its command was passed over");
    // What is too new waits, so it is left out.
    let target = Target::new(kafka.clone(), installation.cassandra().clone(), installation.database());
    let report = audit(&target, &[], DEADLINE).await?;
    ensure!(report.is_clean() && report.counts.parked == 2, "{report}");
    let rehearsed = installation.run("rehearse", "cartctl", ["rehearse"], DEADLINE).await?;
    ensure!(rehearsed.contains("no differences"), "{rehearsed}");
    let explained = installation.run("explain", "cartctl", ["explain", "cart", &cart], DEADLINE).await?;
    ensure!(explained.matches("outcome waits (parked").count() == 2, "{explained}");
    written.has_no_letters()?;
    processor.terminate(DEADLINE).await?;
    written.installation.remove().await
}
