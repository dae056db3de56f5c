//! What is parked.

use std::io::Write;

use anyhow::Context as _;
use cart::{CartId, ParkedCart};
use chrono::{DateTime, Utc};
use kafka::KafkaArgs;
use parking::AllParked;
use serde::Serialize;

use super::waiting::waiting;
use crate::line::InWords as _;
use crate::operate::time;

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
    /// The time of the record of the oldest one.
    oldest: Option<DateTime<Utc>>,
}

pub(super) async fn list(kafka: &KafkaArgs, as_json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let parked = AllParked::read(kafka).await.context("reading the parked carts")?;
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
            oldest: commands.first().and_then(|one| one.at),
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
        let oldest = one.oldest.map_or_else(String::new, |at| format!(", the oldest since {}", time(at)));
        writeln!(out, "{cart_id}  partition {partition}  {state} since {since}  {waiting} {commands}{oldest}")?;
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
    let mut parked = AllParked::read(kafka).await.context("reading the parked carts")?;
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
    for one in &commands {
        let offset = one.offset;
        match (&one.command, &one.too_new) {
            (Some(command), _) => {
                let (at, what) = (time(command.issued_at), command.line().what);
                writeln!(out, "{partition}/{offset}  {at}  {}  {what}", command.command_id)?;
            }
            (None, reason) => writeln!(out, "{partition}/{offset}  {}", reason.as_deref().unwrap_or_default())?,
        }
    }
    Ok(0)
}
