//! Compares the journal's events with `cart-events`, byte for byte, and its requests with the log.

use std::collections::{BTreeMap, HashMap, HashSet};

use cart::Position;
use uuid::Uuid;

use super::log::{Expected, Log};
use super::published::{ByCart, Published, Shown};
use crate::audit::evidence::Evidence;
use crate::audit::report::{Counts, Findings, Kind};
use crate::audit::rules::Kept;
use crate::journal::JournalRow;

pub(super) fn check(
    evidence: &Evidence,
    log: &Log,
    published: &ByCart<'_>,
    findings: &mut Findings,
    counts: &mut Counts,
) {
    let (no_rows, no_events, nothing) = (Vec::new(), Vec::new(), Expected::default());
    let expected_of = |cart_id: Uuid| log.carts.get(&cart_id.into()).unwrap_or(&nothing);
    for (cart_id, rows) in &evidence.journal {
        let partition = evidence.partition(*cart_id);
        let is_new = |row: &&JournalRow| !evidence.is_sealed(partition, row.position.into());
        counts.journal_events += rows.iter().filter(is_new).count() as u64;
        if log.unknown.contains(&(*cart_id).into()) {
            continue;
        }
        check_rows(*cart_id, rows, expected_of(*cart_id), findings);
        check_cart(evidence, *cart_id, rows, published.get(&(*cart_id).into()).unwrap_or(&no_events), findings);
    }
    for (cart_id, events) in published {
        if !evidence.journal.contains_key(&cart_id.as_uuid()) {
            check_cart(evidence, cart_id.as_uuid(), &no_rows, events, findings);
        }
    }
    let no_requests = BTreeMap::new();
    for (cart_id, expected) in log.carts.iter().filter(|(cart_id, _)| !log.unknown.contains(cart_id)) {
        let found = evidence.requests.get(&cart_id.as_uuid()).unwrap_or(&no_requests);
        check_requests(evidence, cart_id.as_uuid(), expected, found, findings);
    }
    for (cart_id, found) in &evidence.requests {
        let cart = (*cart_id).into();
        if !log.carts.contains_key(&cart) && !log.unknown.contains(&cart) {
            check_requests(evidence, *cart_id, &nothing, found, findings);
        }
    }
}

/// Checks the journal's requests of a cart. A request with events is only compared, not missed: its events are missed
/// elsewhere.
fn check_requests(
    evidence: &Evidence,
    cart_id: Uuid,
    expected: &Expected,
    found: &BTreeMap<Position, Kept>,
    findings: &mut Findings,
) {
    let shown = |kept: &Kept| format!("{kept:?}");
    for (position, wanted) in &expected.requests {
        let place = || format!("the journal, cart {cart_id}, the request at {position}");
        match found.get(position) {
            Some(found) if found == wanted => {}
            Some(found) => {
                findings.add(Kind::RequestDiffers, place(), Some(&shown(wanted)), Some(&shown(found)));
            }
            None if wanted.unchanged.is_some() && evidence.is_due(cart_id.into(), expected.partition, *position) => {
                findings.add(Kind::RequestLost, place(), Some(&shown(wanted)), None);
            }
            None => {}
        }
    }
    let unexpected = found.iter().filter(|(position, _)| !expected.requests.contains_key(*position));
    for (position, found) in unexpected.filter(|(_, found)| found.unchanged.is_some()) {
        let place = format!("the journal, cart {cart_id}, the request at {position}");
        findings.add(Kind::RequestUnexpected, place, None, Some(&shown(found)));
    }
}

/// Checks the rows alone: no gap, and no command twice unless it was forgotten and decided again.
fn check_rows(cart_id: Uuid, rows: &[JournalRow], expected: &Expected, findings: &mut Findings) {
    let right: HashSet<(i64, Uuid)> =
        expected.requests.iter().map(|(position, kept)| (position.get(), kept.command_id)).collect();
    let mut positions: HashMap<i64, (Uuid, i64)> = HashMap::new();
    let mut commands: HashMap<Uuid, i64> = HashMap::new();
    let mut before = 0;
    for row in rows {
        let place = || format!("cart_journal, cart {cart_id}, event {}", row.sequence_number);
        if row.sequence_number != before + 1 {
            findings.add(
                Kind::SequenceGap,
                place(),
                Some(&format!("event {}", before + 1)),
                Some(&row.sequence_number),
            );
        }
        // A command's events are consecutive, so a position or command that comes again later is a duplicate.
        let of_position = positions.insert(row.position, (row.command_id, row.sequence_number));
        if let Some((command, last)) =
            of_position.filter(|(command, last)| *command != row.command_id || *last != before)
        {
            let expected = format!("one command's rows together (command {command}, event {last})");
            let found = format!("command {}", row.command_id);
            findings.add(Kind::JournalRowDoubled, place(), Some(&expected), Some(&found));
        }
        if let Some(position) = commands.insert(row.command_id, row.position).filter(|other| *other != row.position)
            && !right.contains(&(row.position, row.command_id))
        {
            let expected = format!("command {} at {} only", row.command_id, Position::from(position));
            findings.add(Kind::JournalRowDoubled, place(), Some(&expected), Some(&Position::from(row.position)));
        }
        before = row.sequence_number;
    }
}

fn check_cart(
    evidence: &Evidence,
    cart_id: Uuid,
    rows: &[JournalRow],
    events: &[Published<'_>],
    findings: &mut Findings,
) {
    let partition = evidence.partition(cart_id);
    // Otherwise the event may not be published yet, or was journalled after the journal was read.
    let must_be = |position: i64| evidence.is_due(cart_id.into(), partition, position.into());
    let mut on_topic: BTreeMap<i64, &Published<'_>> = BTreeMap::new();
    for event in events {
        on_topic.entry(event.sequence_number()).or_insert(event);
    }
    for row in rows {
        let place = || format!("cart_journal, cart {cart_id}, event {}", row.sequence_number);
        let Some(event) = on_topic.remove(&row.sequence_number) else {
            // Before the checkpoint it was on the topic, which is not read from there again.
            if must_be(row.position) && !evidence.is_sealed(partition, row.position.into()) {
                let found = format!("only the row of command {}", row.command_id);
                findings.add(Kind::JournalOnly, place(), Some(&"it on cart-events"), Some(&found));
            }
            continue;
        };
        let expected = (event.event.position.get(), event.event.command_id.as_uuid());
        if row.event != event.record.bytes || (row.position, row.command_id) != expected {
            let record =
                format!("as in cart-events {}/{}: {}", event.record.partition, event.record.offset, Shown(event.event));
            let found =
                format!("another event's bytes, or command {} at {}", row.command_id, Position::from(row.position));
            findings.add(Kind::JournalDiffers, place(), Some(&record), Some(&found));
        }
    }
    for event in on_topic.values().filter(|event| must_be(event.event.position.get())) {
        let place = format!("cart_journal, cart {cart_id}, event {}", event.sequence_number());
        findings.add(Kind::TopicOnly, place, Some(&Shown(event.event)), None);
    }
}
