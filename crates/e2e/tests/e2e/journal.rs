//! The journal on a real Cassandra, without the services: what was appended is loaded, in whole, up to a position and in pages; a
//! late write of older rows changes nothing.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cart::{Aggregate, CartCommand, CartId, Command, Decision, LogEpoch, Position, SequenceNumber};
use chrono::{DateTime, TimeDelta};
use e2e::harness::Installation;
use journal::{Append, Codecs, Journal, Row, SNAPSHOT_EVERY, Snapshot};
use kafka::Registry;
use uuid::Uuid;

/// Requests of a cart. The numbers are around those at which a load reads differently: rows that are read first (8), rows of a
/// page (32), and snapshots (32).
const LENGTHS: [i64; 8] = [1, 7, 8, 9, 31, 33, 64, 150];

/// A cart with its rows and its state after each of them.
struct Story {
    rows: Vec<Row>,
    snapshots: Vec<Option<Snapshot>>,
    states: Vec<Aggregate>,
}

fn position(number: i64) -> Position {
    Position::new(LogEpoch::FIRST, number * 3)
}

/// Adds and removals; every third request is rejected, and every 40th is a checkout.
fn command(cart_id: CartId, number: i64) -> anyhow::Result<CartCommand> {
    let product_id = Uuid::from_u128(u128::try_from(number / 3)?).into();
    let command = match (number % 40, number % 3) {
        (39, _) => Command::Checkout {},
        (_, 0) | (_, 1) => Command::AddItem {
            product_id,
            vendor_id: Uuid::nil().into(),
            name: format!("product {}", number / 3).try_into()?,
            price: "2.50".parse()?,
            quantity: 3,
        },
        _ => Command::RemoveItem { product_id },
    };
    Ok(CartCommand {
        command_id: Uuid::from_u128(u128::try_from(number)? + 1).into(),
        cart_id,
        issued_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(number),
        command,
        expected_version: None,
        keyed: Some(true),
    })
}

fn story(cart_id: CartId, length: i64, codecs: &Codecs) -> anyhow::Result<Story> {
    let mut cart = Aggregate::new(cart_id);
    let mut story = Story { rows: Vec::new(), snapshots: Vec::new(), states: Vec::new() };
    for number in 0..length {
        let Decision::Decided(decided) = cart.decide(&command(cart_id, number)?, position(number)) else {
            anyhow::bail!("request {number} was not decided");
        };
        story.rows.push(Row::new(&decided, cart.sequence_number(), &codecs.events)?);
        cart.apply(&decided);
        let is_due = (number + 1) % SNAPSHOT_EVERY == 0;
        story.snapshots.push(is_due.then(|| Snapshot::new(&cart, &codecs.snapshots)).transpose()?);
        story.states.push(cart.clone());
    }
    Ok(story)
}

async fn append(journal: &Journal, cart_id: CartId, story: &Story) -> anyhow::Result<()> {
    for (row, snapshot) in story.rows.iter().zip(&story.snapshots) {
        let append = Append { cart_id, rows: std::slice::from_ref(row), snapshot: snapshot.as_ref() };
        journal.append([append]).await?;
    }
    Ok(())
}

async fn check(journal: &Journal, cart_id: CartId, story: &Story) -> anyhow::Result<()> {
    let length = story.rows.len();
    let newest = story.states.last().context("a story has requests")?;
    let loaded = journal.load(&[cart_id]).await?;
    ensure!(loaded == [newest.clone()], "{length} requests: loaded {loaded:?}, not {newest:?}");
    for number in [0, length / 3, length / 2, length - 1] {
        let before = match number {
            0 => Aggregate::new(cart_id),
            _ => story.states[number - 1].clone(),
        };
        let loaded = journal.load_before(cart_id, story.rows[number].position).await?;
        ensure!(loaded == before, "{length} requests: before {number} it was {before:?}, not {loaded:?}");
        let (from, to) = (story.rows[number].position, story.rows[length - 1].position);
        let between = journal.between(cart_id, from, to).await?;
        ensure!(between == story.rows[number..], "{length} requests: from {number} on {between:?}");
    }
    let all = journal.all(cart_id).await?;
    let numbers: Vec<i64> = all.iter().map(|entry| entry.sequence_number.get()).collect();
    let events: Vec<&Vec<u8>> = story.rows.iter().flat_map(Row::events).collect();
    ensure!(all.iter().map(|entry| &entry.bytes).eq(events.iter().copied()), "{length} requests: other events");
    ensure!(numbers.iter().copied().eq(1..=newest.sequence_number().get()), "{length} requests: events {numbers:?}");
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map_or(SequenceNumber::ZERO, |entry: &journal::Entry| entry.sequence_number);
        let page = journal.page(cart_id, after, 5).await?;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    ensure!(paged == all, "{length} requests: pages have {} events, the whole {}", paged.len(), all.len());
    Ok(())
}

pub(crate) async fn what_was_appended_is_loaded_and_a_late_write_changes_nothing() -> anyhow::Result<()> {
    let installation = Installation::new("journal")?;
    installation.setup().await?;
    let session = Arc::new(cassandra::connect(installation.cassandra()).await?);
    let codecs = Codecs::register(&Registry::new(installation.kafka())?).await?;
    let journal = Journal::open(session, codecs.clone()).await?;
    for length in LENGTHS {
        let cart_id = CartId::from(Uuid::from_u128(u128::try_from(length)?));
        let story = story(cart_id, length, &codecs)?;
        append(&journal, cart_id, &story).await?;
        check(&journal, cart_id, &story).await?;
        // A writer that was paused writes all of it again, its old snapshots too.
        append(&journal, cart_id, &story).await?;
        check(&journal, cart_id, &story).await?;
    }
    drop(journal);
    installation.remove().await
}
