//! `cartctl rehearse`: decides the log again with the rules of this program, beside the journal, and writes nothing.
//!
//! ```text
//! cart-commands, up to the processors' offsets ─▶ decide, encode ─┐
//!                                                                 ├─▶ compare ─▶ differences
//! cart_journal, cart_unchanged ─▶ the cart before each command ───┘
//! ```
//!
//! A command is decided on the cart that the journal gives, also after a command that differs. So each difference is one that
//! the rules of this program make, and none is the consequence of another.

mod args;
mod compare;
mod difference;
mod log;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io::{Write as _, stderr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cart::contract::{Contract, group};
use cart::{Aggregate, CartCommand, CartEvent, CartId, CartParked, ControlRecord, LogEpoch, Position};
use chrono::Utc;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use journal::{Codecs, Journal};
use kafka::{Admin, Codec, KafkaArgs, Registry};
use parking::AllParked;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use args::Args;
pub use compare::{CartRehearsal, Stored};
pub use difference::{Asked, Compared, Difference, Part};
pub use report::Report;

use crate::discards;
use crate::intake::dead_letters;
use log::{CHUNK_LEN, Records};

/// Carts whose journals are read at the same time.
const CONCURRENCY: usize = 64;

/// Carts in memory. Above it all are dropped and loaded again from the journal.
const CARTS_MAX: usize = 200_000;

/// A made-up id for schemas that the registry does not have yet. Nothing that was written has it.
const UNREGISTERED: u32 = u32::MAX;

/// Decides and compares.
///
/// # Errors
/// A server is unavailable, or a record or row is newer than this program.
pub async fn rehearse(args: &Args) -> anyhow::Result<Report> {
    let kafka = &args.kafka;
    let topic = kafka.prefixed(CartCommand::TOPIC);
    let at_ms = args.since.map(|since| since.at_ms(Utc::now()));
    let (identity, ends, decided, starts, topics) = tokio::task::block_in_place(|| {
        let admin = Admin::new(kafka)?;
        let decided = admin.committed(&kafka.prefixed(group::CART_PROCESSOR), &topic)?;
        let watermarks = admin.watermarks(&topic)?;
        let (firsts, ends): (Vec<i64>, Vec<i64>) = watermarks.into_iter().unzip();
        let starts = at_ms.map_or_else(|| Ok(firsts), |at_ms| admin.offsets_at(&topic, at_ms))?;
        let topics: HashSet<String> = admin.copies()?.into_iter().map(|copy| copy.topic).collect();
        Ok::<_, kafka::Error>((admin.identity(&topic)?, ends, decided, starts, topics))
    })?;
    let session = cassandra::connect(&args.cassandra).await?;
    let epoch = cassandra::log_epoch(&session, &topic, &identity).await?;
    let registry = Registry::new(kafka)?;
    let codecs = Codecs { events: codec(&registry).await?, snapshots: codec(&registry).await? };
    let letters = tokio::task::block_in_place(|| dead_letters(kafka, None))?;
    // Behind the offsets. The topic comes with the `setup` of a version that parks carts.
    let parked = if topics.contains(&kafka.prefixed(CartParked::TOPIC)) {
        AllParked::read_with(kafka, codec(&registry).await?).await.context("reading the parked carts")?
    } else {
        AllParked::default()
    };
    let discards = if topics.contains(&kafka.prefixed(ControlRecord::TOPIC)) {
        discards::load_with(kafka, epoch, codec(&registry).await?).await?
    } else {
        Vec::new()
    };
    let discarded =
        discards.iter().filter(|discard| discard.holds()).map(|discard| (discard.partition, discard.offset));
    let mut rehearsal = Rehearsal {
        kafka: kafka.clone(),
        topic,
        commands: codec(&registry).await?,
        journal: Journal::open(Arc::new(session), codecs).await?,
        epoch,
        partitions: identity.partitions,
        parked: Arc::new(parked.next_positions()),
        discarded: Arc::new(discarded.collect()),
        letters: Arc::new(letters.into_iter().filter_map(|letter| letter.origin).collect()),
        report: Report::default(),
    };
    for (partition, start) in (0..).zip(starts) {
        let index = usize::try_from(partition)?;
        let end = decided.get(index).copied().flatten().unwrap_or(start).max(start);
        rehearsal.report.ranges.push((start, end));
        rehearsal.report.waiting += ends.get(index).map_or(0, |log_end| (log_end - end).max(0));
        rehearsal
            .partition(partition, start, end)
            .await
            .with_context(|| format!("rehearsing partition {partition}"))?;
        let (records, different) = (rehearsal.report.records(), rehearsal.report.different);
        // Standard error may be closed.
        writeln!(stderr().lock(), "up to partition {partition}: {records} records, {different} differences")
            .unwrap_or_default();
    }
    Ok(rehearsal.report)
}

/// The codec of a contract, with the id of its schema. Registers nothing.
async fn codec<T: Contract + Serialize + DeserializeOwned>(registry: &Registry) -> anyhow::Result<Codec<T>> {
    let id = registry.registered_id(T::TOPIC, T::SCHEMA).await?;
    Ok(Codec::registered(registry, T::TOPIC, T::SCHEMA, id.unwrap_or(UNREGISTERED))?)
}

struct Rehearsal {
    kafka: KafkaArgs,
    /// The full name of `cart-commands`.
    topic: String,
    commands: Codec<CartCommand>,
    journal: Journal,
    epoch: LogEpoch,
    partitions: i32,
    /// The parked carts, each with the position before which its commands are decided.
    parked: Arc<HashMap<CartId, Position>>,
    letters: Arc<HashSet<(i32, i64)>>,
    /// The commands that operators have discarded.
    discarded: Arc<HashSet<(i32, i64)>>,
    report: Report,
}

impl Rehearsal {
    async fn partition(&mut self, partition: i32, start: i64, end: i64) -> anyhow::Result<()> {
        if start == end {
            return Ok(());
        }
        let (commands, letters, discarded) = (self.commands.clone(), self.letters.clone(), self.discarded.clone());
        let (parked, epoch, partitions) = (self.parked.clone(), self.epoch, self.partitions);
        let records = Records { commands, letters, discarded, parked, epoch, partitions, partition, start, end };
        let (reading, mut records) = records.read(self.kafka.clone(), self.topic.clone());
        let mut carts: HashMap<CartId, Aggregate> = HashMap::new();
        // At the beginning of the first log a cart that was not met is new.
        let mut has_earlier = start > 0 || self.epoch > LogEpoch::FIRST;
        let mut chunk = Vec::new();
        while records.recv_many(&mut chunk, CHUNK_LEN).await > 0 {
            let mut differences = Vec::new();
            let mut asked: HashMap<CartId, Vec<Asked>> = HashMap::new();
            for one in chunk.drain(..) {
                let position = Position::new(self.epoch, one.offset);
                match one.cart_id {
                    Some(cart_id) if self.parked.get(&cart_id).is_some_and(|next| position >= *next) => {
                        self.report.parked += 1;
                    }
                    Some(cart_id) => asked.entry(cart_id).or_default().push(one),
                    None if one.is_letter => self.report.add(Compared::DeadLetter),
                    None => differences.push(log::undecidable(&one)),
                }
            }
            let known: Vec<_> = asked
                .into_iter()
                .map(|(cart_id, asked)| {
                    let known = carts.remove(&cart_id);
                    let new = (!has_earlier).then(|| Aggregate::new(cart_id));
                    (cart_id, known.or(new), asked)
                })
                .collect();
            let (journal, epoch) = (&self.journal, self.epoch);
            let compared: Vec<(Aggregate, Vec<Compared>, Vec<Difference>)> = stream::iter(known)
                .map(|(cart_id, cart, asked)| compare(journal, epoch, cart_id, cart, asked))
                .buffer_unordered(CONCURRENCY)
                .try_collect()
                .await?;
            for (cart, compared, without_command) in compared {
                differences.extend(without_command);
                carts.insert(cart.cart_id(), cart);
                for one in compared {
                    match one {
                        Compared::Different(difference) => differences.push(*difference),
                        same @ (Compared::Equal
                        | Compared::EqualContent
                        | Compared::WithoutRow
                        | Compared::DeadLetter) => self.report.add(same),
                    }
                }
            }
            differences.sort_by_key(|difference| difference.offset);
            differences.into_iter().for_each(|difference| self.report.add_difference(difference));
            if carts.len() > CARTS_MAX {
                carts.clear();
                has_earlier = true;
            }
        }
        reading.await.context("the reader of cart-commands panicked")?
    }
}

/// Decides a cart's commands, and compares. `cart` is the cart before them; without it, it is loaded.
async fn compare(
    journal: &Journal,
    epoch: LogEpoch,
    cart_id: CartId,
    cart: Option<Aggregate>,
    asked: Vec<Asked>,
) -> anyhow::Result<(Aggregate, Vec<Compared>, Vec<Difference>)> {
    let (Some(first), Some(last)) = (asked.first(), asked.last()) else {
        return Ok((Aggregate::new(cart_id), Vec::new(), Vec::new()));
    };
    let cart = match cart {
        Some(cart) => cart,
        None => loaded(first, journal.load_before(cart_id, Position::new(epoch, first.offset))).await?,
    };
    let mut stored = Vec::new();
    for row in journal.following(&cart, Position::new(epoch, last.offset)).await? {
        stored.push(Stored { decided: journal.decided(cart_id, &row).await?, row });
    }
    let events: &Codec<CartEvent> = &journal.codecs().events;
    let mut rehearsal = CartRehearsal::new(cart, epoch, stored, events);
    let partition = first.partition;
    let compared = asked.iter().map(|one| rehearsal.next(one)).collect::<anyhow::Result<_>>()?;
    let (cart, without_command) = rehearsal.finish(partition);
    Ok((cart, compared, without_command))
}

/// The cart before its command `first`. That the rules panic for what the journal has is an error that names the cart: it ends no process.
async fn loaded(
    first: &Asked,
    load: impl Future<Output = Result<Aggregate, journal::Error>>,
) -> anyhow::Result<Aggregate> {
    match AssertUnwindSafe(load).catch_unwind().await {
        Ok(cart) => Ok(cart?),
        Err(panic) => {
            let cart_id = first.cart_id.map_or_else(|| String::from("without an id"), |cart_id| cart_id.to_string());
            bail!(
                "the rules panic when cart {cart_id} is loaded as it was before cart-commands {}/{}: {}; correct them and rehearse again",
                first.partition,
                first.offset,
                compare::panic_text(&*panic)
            )
        }
    }
}
