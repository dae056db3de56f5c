//! What is parked.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use cart::contract::Contract as _;
use cart::{CartCommand, CartId, ParkedCart, Position};
use chrono::{DateTime, SecondsFormat, Utc};
use kafka::{Admin, Codec, KafkaArgs, Message as _, Registry, TopicReader};
use serde::Serialize;
use tokio::runtime::Handle;

use super::all::{AllParked, commands};
use crate::line::InWords as _;
use crate::topic::SILENCE_MAX;

/// A parked cart; its fields are those of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    cart_id: CartId,
    partition: i32,
    state: &'static str,
    since: DateTime<Utc>,
    reason: String,
    /// The offset on cart-commands before which its commands are decided.
    next_offset: i64,
    /// Commands that wait.
    waiting: usize,
    /// The time of the oldest one.
    oldest: Option<DateTime<Utc>>,
}

/// A waiting command.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    offset: i64,
    #[serde(flatten)]
    command: CartCommand,
}

pub(super) async fn list(kafka: &KafkaArgs, as_json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let parked = AllParked::read(kafka).await?;
    let mut waiting = waiting(kafka, &parked).await?;
    let listed = parked.carts.iter().map(|((partition, cart_id), cart)| {
        let commands = waiting.remove(cart_id).unwrap_or_default();
        let ParkedCart { state, since, ref reason, next_position, .. } = *cart;
        Listed {
            cart_id: *cart_id,
            partition: *partition,
            state: state.name(),
            since,
            reason: reason.clone(),
            next_offset: next_position.offset(),
            waiting: commands.len(),
            oldest: commands.first().map(|one| one.command.issued_at),
        }
    });
    let listed: Vec<Listed> = listed.collect();
    if as_json {
        serde_json::to_writer_pretty(&mut *out, &listed)?;
        writeln!(out)?;
        return Ok(0);
    }
    for one in &listed {
        let Listed { cart_id, partition, state, reason, waiting, .. } = one;
        let since = time(one.since);
        let commands = if *waiting == 1 { "command waits" } else { "commands wait" };
        writeln!(out, "{cart_id}  partition {partition}  {state} since {since}  {waiting} {commands}")?;
        writeln!(out, "  {reason}")?;
    }
    match listed.len() {
        1 => writeln!(out, "1 cart is parked")?,
        count => writeln!(out, "{count} carts are parked")?,
    }
    Ok(0)
}

pub(super) async fn show(
    kafka: &KafkaArgs,
    cart_id: CartId,
    as_json: bool,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let mut parked = AllParked::read(kafka).await?;
    parked.carts.retain(|(_, id), _| *id == cart_id);
    let Some((partition, cart)) = parked.cart(cart_id) else {
        writeln!(out, "cart {cart_id} is not parked")?;
        return Ok(1);
    };
    let commands = waiting(kafka, &parked).await?.remove(&cart_id).unwrap_or_default();
    if as_json {
        serde_json::to_writer_pretty(&mut *out, &commands)?;
        writeln!(out)?;
        return Ok(0);
    }
    writeln!(out, "cart {cart_id}, partition {partition}: {} since {}", cart.state.name(), time(cart.since))?;
    writeln!(out, "  {}", cart.reason)?;
    writeln!(out, "  commands before offset {} are decided; these wait:", cart.next_position.offset())?;
    for Waiting { offset, command } in &commands {
        let (at, what) = (time(command.issued_at), command.line().what);
        writeln!(out, "{partition}/{offset}  {at}  {}  {what}", command.command_id)?;
    }
    Ok(0)
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The waiting commands of each cart, in their order.
async fn waiting(kafka: &KafkaArgs, parked: &AllParked) -> anyhow::Result<HashMap<CartId, Vec<Waiting>>> {
    let mut starts: BTreeMap<i32, i64> = BTreeMap::new();
    for ((partition, _), cart) in &parked.carts {
        let next = cart.next_position.offset();
        starts.entry(*partition).and_modify(|start| *start = next.min(*start)).or_insert(next);
    }
    let codec = Codec::<CartCommand>::register(&Registry::new(kafka)?, CartCommand::TOPIC, CartCommand::SCHEMA).await?;
    let (kafka, parked, runtime) = (kafka.clone(), parked.clone(), Handle::current());
    let read = move || {
        let mut waiting: HashMap<CartId, Vec<Waiting>> = HashMap::new();
        if starts.is_empty() {
            return Ok(waiting);
        }
        let topic = commands(&kafka);
        // The log may begin later: then what waited there is lost, and the rest is shown.
        let bounds = Admin::new(&kafka)?.watermarks(&topic)?;
        let first = |partition: i32| usize::try_from(partition).ok().and_then(|p| bounds.get(p)).map_or(0, |one| one.0);
        let starts = starts.into_iter().map(|(partition, start)| (partition, start.max(first(partition))));
        let mut log = TopicReader::open(&kafka, &topic, starts)?;
        while let Some(message) = log.next(SILENCE_MAX)? {
            let key = std::str::from_utf8(message.key().unwrap_or_default()).unwrap_or_default();
            let Ok(cart_id) = key.parse::<CartId>() else { continue };
            let Some(cart) = parked.carts.get(&(message.partition(), cart_id)) else { continue };
            let epoch = cart.next_position.epoch().unwrap_or(cart::LogEpoch::FIRST);
            if !cart.holds(Position::new(epoch, message.offset())) {
                continue;
            }
            let value = message.payload().unwrap_or_default();
            // Another record is a dead letter.
            if let Ok(command) = codec.decode_or_fetch_blocking(value, &runtime)? {
                waiting.entry(cart_id).or_default().push(Waiting { offset: message.offset(), command });
            }
        }
        Ok(waiting)
    };
    tokio::task::spawn_blocking(read).await?
}
