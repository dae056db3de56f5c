//! Compares the journal with the events topic, byte for byte.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::Context as _;
use cart::contract::Contract as _;
use cart::{CartEvent, Position};
use cassandra::CassandraArgs;
use chrono::DateTime;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kafka::KafkaArgs;
use scylla::client::session::Session;
use scylla::statement::Statement;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::audit::Kept;
use crate::topic::{RawRecord, read_all};

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

/// Carts that are read at the same time.
const CONCURRENCY: usize = 64;

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// Its number in the cart.
    pub sequence_number: i64,
    /// Its command's position.
    pub position: i64,
    pub command_id: Uuid,
    /// The event's bytes.
    pub event: Vec<u8>,
}

/// The newest entries of a cart in the journal: a sequence number, and the position of a request without events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Newest {
    pub sequence_number: i64,
    pub unchanged: i64,
}

impl fmt::Display for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "events up to {}", self.sequence_number)?;
        match self.unchanged {
            0 => Ok(()),
            position => write!(f, ", requests without events up to {}", Position::from(position)),
        }
    }
}

/// Each cart's events, oldest first.
pub type Events = BTreeMap<Uuid, Vec<JournalRow>>;

/// Each cart's requests without their events, by position.
pub type Requests = BTreeMap<Uuid, BTreeMap<Position, Kept>>;

/// Reads the events of the whole journal. A row has all events of a request, under the number of the last one.
///
/// # Errors
/// Cassandra is unavailable, or a row is incomplete.
pub async fn read(session: &Session) -> anyhow::Result<Events> {
    Ok(read_tables(session).await?.0)
}

/// Reads both tables of the journal.
///
/// # Errors
/// As [`read`].
pub async fn read_tables(session: &Session) -> anyhow::Result<(Events, Requests)> {
    let mut journal = Journal::default();
    journal.add_all_unchanged(session).await.context("reading table cart_unchanged")?;
    journal.add_all_events(session).await.context("reading table cart_journal")?;
    Ok(journal.sorted())
}

/// Reads the rows of these carts in both tables. Each of them has an entry in both results.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_carts(session: &Session, cart_ids: &BTreeSet<Uuid>) -> anyhow::Result<(Events, Requests)> {
    let of_cart = |select: &str| format!("{select} WHERE cart_id = ?");
    let events = session.prepare(of_cart(SELECT_EVENTS)).await.context("reading table cart_journal")?;
    let unchanged = session.prepare(of_cart(SELECT_UNCHANGED)).await.context("reading table cart_unchanged")?;
    let (events, unchanged) = (&events, &unchanged);
    let mut carts = stream::iter(cart_ids.iter().copied())
        .map(async |cart_id| {
            let unchanged = session.execute_iter(unchanged.clone(), (cart_id,)).await?.rows_stream::<UnchangedRow>()?;
            let events = session.execute_iter(events.clone(), (cart_id,)).await?.rows_stream::<EventsRow>()?;
            let unchanged: Vec<_> = unchanged.try_collect().await.context("reading table cart_unchanged")?;
            let events: Vec<_> = events.try_collect().await.context("reading table cart_journal")?;
            anyhow::Ok((cart_id, unchanged, events))
        })
        .buffer_unordered(CONCURRENCY);
    let mut journal = Journal::default();
    while let Some((cart_id, unchanged, events)) = carts.try_next().await? {
        journal.events.entry(cart_id).or_default();
        journal.requests.entry(cart_id).or_default();
        unchanged.into_iter().try_for_each(|row| journal.add_unchanged(row))?;
        events.into_iter().try_for_each(|row| journal.add_events(row))?;
    }
    Ok(journal.sorted())
}

/// Reads the newest entries of each cart: one row of each table per cart.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_newest(session: &Session) -> anyhow::Result<HashMap<Uuid, Newest>> {
    const NUMBERS: &str = "SELECT cart_id, sequence_number FROM cart_journal PER PARTITION LIMIT 1";
    const POSITIONS: &str = "SELECT cart_id, position FROM cart_unchanged PER PARTITION LIMIT 1";
    let mut newest: HashMap<Uuid, Newest> = HashMap::new();
    let pager = session.query_iter(Statement::new(NUMBERS).with_page_size(PAGE_ROWS), ()).await?;
    let mut rows = pager.rows_stream::<(Uuid, Option<i64>)>()?;
    while let Some((cart_id, number)) = rows.try_next().await.context("reading table cart_journal")? {
        // A cart with a snapshot and no events has a row without clustering columns.
        if let Some(number) = number {
            newest.entry(cart_id).or_default().sequence_number = number;
        }
    }
    let pager = session.query_iter(Statement::new(POSITIONS).with_page_size(PAGE_ROWS), ()).await?;
    let mut rows = pager.rows_stream::<(Uuid, i64)>()?;
    while let Some((cart_id, position)) = rows.try_next().await.context("reading table cart_unchanged")? {
        newest.entry(cart_id).or_default().unchanged = position;
    }
    Ok(newest)
}

const SELECT_EVENTS: &str =
    "SELECT cart_id, sequence_number, position, command_id, events, keyed, outcome FROM cart_journal";
type EventsRow = (Uuid, Option<i64>, Option<i64>, Option<Uuid>, Option<Vec<Vec<u8>>>, Option<bool>, Option<String>);

const SELECT_UNCHANGED: &str =
    "SELECT cart_id, position, sequence_number, command_id, digest, issued_at, outcome FROM cart_unchanged";
type UnchangedRow = (Uuid, i64, Option<i64>, Option<Uuid>, Option<i64>, Option<i64>, Option<String>);

/// Both tables. The rows without events are added first.
#[derive(Default)]
struct Journal {
    events: Events,
    requests: Requests,
}

impl Journal {
    async fn add_all_events(&mut self, session: &Session) -> anyhow::Result<()> {
        let pager = session.query_iter(Statement::new(SELECT_EVENTS).with_page_size(PAGE_ROWS), ()).await?;
        let mut rows = pager.rows_stream::<EventsRow>()?;
        while let Some(row) = rows.try_next().await? {
            self.add_events(row)?;
        }
        Ok(())
    }

    async fn add_all_unchanged(&mut self, session: &Session) -> anyhow::Result<()> {
        let pager = session.query_iter(Statement::new(SELECT_UNCHANGED).with_page_size(PAGE_ROWS), ()).await?;
        let mut rows = pager.rows_stream::<UnchangedRow>()?;
        while let Some(row) = rows.try_next().await? {
            self.add_unchanged(row)?;
        }
        Ok(())
    }

    fn add_events(&mut self, row: EventsRow) -> anyhow::Result<()> {
        let (cart_id, last, position, command_id, events, keyed, outcome) = row;
        // A cart with a snapshot and no events has a row without clustering columns.
        if last.is_none() {
            return Ok(());
        }
        let row = (|| Some((last?, position?, command_id?, events.filter(|events| !events.is_empty())?)))();
        let (last, position, command_id, events) =
            row.with_context(|| format!("a row of cart {cart_id} ({last:?}) lacks a column"))?;
        let numbered = events.into_iter().rev().zip(0..).map(|(event, age)| (last - age, event));
        let rows = numbered.map(|(sequence_number, event)| JournalRow { sequence_number, position, command_id, event });
        self.events.entry(cart_id).or_default().extend(rows);
        let outcome = outcome.as_deref().map(in_words).transpose()?;
        let kept = Kept { command_id, keyed, outcome, sequence_number: last, unchanged: None };
        // If both tables have a row at the same position, one of them is wrong and must be reported.
        self.requests.entry(cart_id).or_default().entry(position.into()).or_insert(kept);
        Ok(())
    }

    fn add_unchanged(&mut self, row: UnchangedRow) -> anyhow::Result<()> {
        let (cart_id, position, sequence_number, command_id, digest, issued_at, outcome) = row;
        let row = (|| {
            let issued_at = DateTime::from_timestamp_micros(issued_at?)?;
            Some((sequence_number?, command_id?, (digest?, issued_at), outcome?))
        })();
        let (sequence_number, command_id, unchanged, outcome) =
            row.with_context(|| format!("the row at {position} of cart {cart_id} lacks a column"))?;
        let (outcome, unchanged) = (Some(in_words(&outcome)?), Some(unchanged));
        let kept = Kept { command_id, keyed: Some(true), outcome, sequence_number, unchanged };
        self.requests.entry(cart_id).or_default().insert(position.into(), kept);
        Ok(())
    }

    fn sorted(mut self) -> (Events, Requests) {
        for rows in self.events.values_mut() {
            rows.sort_unstable_by_key(|row| row.sequence_number);
        }
        (self.events, self.requests)
    }
}

/// An outcome as text, as the audit's rules have it. It parses the JSON without the types of `crates/cart`.
fn in_words(outcome: &str) -> anyhow::Result<String> {
    let json: Value = serde_json::from_str(outcome).with_context(|| format!("the outcome {outcome} is not JSON"))?;
    let words = || -> Option<String> {
        if let Some(rejected) = json.get("rejected") {
            let rule = rule(rejected)?;
            return Some(match rejected.get("index") {
                Some(index) => format!("rejected {rule} at {index}"),
                None => format!("rejected {rule}"),
            });
        }
        let results = json.get("each")?.as_array()?.iter().map(|result| {
            let (kind, content) = result.as_object()?.iter().next()?;
            Some(match kind.as_str() {
                "made" => format!("made {}", content.get("events")?),
                "earlier" => format!("earlier {}", content.get("sequenceNumber")?),
                "rejected" => format!("rejected {}", rule(content)?),
                _ => return None,
            })
        });
        Some(format!("each {}", results.collect::<Option<Vec<_>>>()?.join(", ")))
    };
    words().with_context(|| format!("the outcome {outcome} is of an unknown form"))
}

/// The code of the problem: the name of the rejection with hyphens.
fn rule(rejected: &Value) -> Option<String> {
    let name = match rejected.get("rejection")? {
        Value::String(name) => name,
        Value::Object(content) => content.keys().next()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
    };
    let mut rule = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !rule.is_empty() {
            rule.push('-');
        }
        rule.push(letter.to_ascii_lowercase());
    }
    Some(rule)
}

/// Compares the whole journal with the whole events topic. Returns each difference.
///
/// # Errors
/// Something can't be read.
pub async fn journal_equals_topic(kafka: &KafkaArgs, cassandra: &CassandraArgs) -> anyhow::Result<Vec<String>> {
    let session = cassandra::connect(cassandra).await?;
    let carts = read(&session).await.context("reading table cart_journal")?;
    let records = read_all(kafka, &kafka.prefixed(CartEvent::TOPIC)).await.context("reading topic cart-events")?;
    Ok(differences(&carts, &records))
}

/// A cart's events are in one partition, so the records' order is theirs.
fn differences(carts: &BTreeMap<Uuid, Vec<JournalRow>>, records: &[RawRecord]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut published: BTreeMap<Uuid, Vec<&RawRecord>> = BTreeMap::new();
    for record in records {
        let key = record.key.as_deref().and_then(|key| Uuid::try_parse_ascii(key).ok());
        match key {
            Some(cart_id) => published.entry(cart_id).or_default().push(record),
            None => differences.push(format!("{}: its key is not a cart id", place(record))),
        }
    }
    for (cart_id, rows) in carts {
        let records = published.remove(cart_id).unwrap_or_default();
        if rows.len() != records.len() {
            let (rows, records) = (rows.len(), records.len());
            differences.push(format!("cart {cart_id}: {rows} events in the journal, {records} on the topic"));
        }
        for (expected, row) in (1..).zip(rows) {
            let sequence_number = row.sequence_number;
            if sequence_number != expected {
                differences
                    .push(format!("cart {cart_id}: event {expected} is missing, {sequence_number} follows instead"));
                break;
            }
        }
        let unequal = rows.iter().zip(&records).find(|(row, record)| Some(&row.event) != record.value.as_ref());
        if let Some((row, record)) = unequal {
            let sequence_number = row.sequence_number;
            differences.push(format!("cart {cart_id}: event {sequence_number} differs in {}", place(record)));
        }
        let elsewhere = records.iter().find(|record| record.partition != records[0].partition);
        if let Some(record) = elsewhere {
            differences.push(format!("cart {cart_id}: also in another partition, {}", place(record)));
        }
    }
    for (cart_id, records) in published {
        differences.push(format!("cart {cart_id}: {} events on the topic, none in the journal", records.len()));
    }
    differences
}

fn place(record: &RawRecord) -> String {
    format!("record {}/{} of the topic", record.partition, record.offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: Uuid = Uuid::from_u128(7);

    fn row(sequence_number: i64, event: &[u8]) -> JournalRow {
        JournalRow { sequence_number, position: 0, command_id: Uuid::nil(), event: event.to_vec() }
    }

    fn record(partition: i32, value: &[u8]) -> RawRecord {
        RawRecord { partition, offset: 5, key: Some(CART.to_string().into_bytes()), value: Some(value.to_vec()) }
    }

    fn check(rows: Vec<JournalRow>, records: &[RawRecord]) -> Vec<String> {
        let carts = if rows.is_empty() { BTreeMap::new() } else { BTreeMap::from([(CART, rows)]) };
        let cart = format!("cart {CART}: ");
        differences(&carts, records).into_iter().map(|text| text.replace(&cart, "")).collect()
    }

    #[test]
    fn reports_each_kind_of_difference() {
        let (one, two) = (row(1, b"one"), row(2, b"two"));
        assert_eq!(check(vec![one.clone(), two.clone()], &[record(0, b"one"), record(0, b"two")]), [""; 0]);
        assert_eq!(
            check(vec![one.clone(), two.clone()], &[record(0, b"one")]),
            ["2 events in the journal, 1 on the topic"]
        );
        assert_eq!(
            check(vec![one.clone(), two.clone()], &[record(0, b"two"), record(0, b"one")]),
            ["event 1 differs in record 0/5 of the topic"]
        );
        assert_eq!(
            check(vec![one.clone(), two], &[record(0, b"one"), record(1, b"two")]),
            ["also in another partition, record 1/5 of the topic"]
        );
        assert_eq!(
            check(vec![one, row(3, b"two")], &[record(0, b"one"), record(0, b"two")]),
            ["event 2 is missing, 3 follows instead"]
        );
        assert_eq!(check(vec![], &[record(0, b"one")]), ["1 events on the topic, none in the journal"]);
        let keyless = RawRecord { key: None, ..record(0, b"one") };
        assert_eq!(check(vec![], &[keyless]), ["record 0/5 of the topic: its key is not a cart id"]);
    }
}
