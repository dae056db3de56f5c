//! Makes the checkpoint of an audit without findings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cart::contract::READ_MODELS;
use cart::{EventId, Position};
use chrono::{DateTime, Utc};

use super::check::{Sold, sold};
use super::checkpoint::{Checkpoint, Mark, SealedTotal, SealedTotals, System, mark};
use super::cut::Cut;
use super::digest::{CartDigest, of_skips};
use super::evidence::Evidence;
use super::report::Report;

/// Seals what an audit has looked at, at its cut. `None` if it has findings, or if carts or rows are parked, which get what waits later,
/// before the cut.
#[must_use]
pub fn seal(mut evidence: Evidence, report: &Report, system: System, sealed_at: DateTime<Utc>) -> Option<Checkpoint> {
    let is_parked = !evidence.parked.is_empty() || !evidence.tables.parked.is_empty();
    if !report.is_clean() || is_parked {
        return None;
    }
    let earlier = evidence.checkpoint.clone();
    let mut checkpoint = Checkpoint {
        system,
        sealed_at,
        commands: report.up_to_cut.commands + earlier.as_ref().map_or(0, |earlier| earlier.commands),
        marks: evidence.marks.clone(),
        skips: of_skips(&evidence.skips),
        ..Checkpoint::default()
    };
    totals(&evidence, &mut checkpoint);
    leave_open(&evidence, &mut checkpoint);
    // The former digests are not needed by then.
    evidence.checkpoint = None;
    checkpoint.carts = earlier.map_or_else(HashMap::new, |earlier| {
        Arc::try_unwrap(earlier).map_or_else(|shared| shared.carts.clone(), |owned| owned.carts)
    });
    carts(&evidence, &mut checkpoint);
    Some(checkpoint)
}

/// Whether the effects of the command at a position are before the cut.
fn is_sealed(evidence: &Evidence, partition: i32, position: Position) -> bool {
    evidence.is_of_earlier_epoch(position) || is_before(&evidence.cut.commands, partition, position.offset())
}

/// A partition without a cut is not sealed at all.
fn is_before(cut: &[i64], partition: i32, offset: i64) -> bool {
    usize::try_from(partition).is_ok_and(|index| index < cut.len()) && Cut::is_before(cut, partition, offset)
}

/// The records before the cut whose commands are after it.
fn leave_open(evidence: &Evidence, checkpoint: &mut Checkpoint) {
    let mut later: HashSet<EventId> = HashSet::new();
    for record in &evidence.events {
        let Ok(event) = &record.value else { continue };
        if !is_sealed(evidence, record.partition, event.position) {
            later.insert(event.event_id);
            open(&mut checkpoint.marks.events, record.partition, record.offset);
        }
    }
    for record in &evidence.purchases {
        if record.value.as_ref().is_ok_and(|purchase| later.contains(&purchase.event_id)) {
            open(&mut checkpoint.marks.purchases, record.partition, record.offset);
        }
    }
    for letter in &evidence.dead_letters {
        if letter.origin.is_some_and(|(partition, offset)| !is_before(&evidence.cut.commands, partition, offset)) {
            open(&mut checkpoint.marks.dead_letters, letter.partition, letter.offset);
        }
    }
    let marks = &mut checkpoint.marks;
    for mark in marks.events.iter_mut().chain(&mut marks.purchases).chain(&mut marks.dead_letters) {
        mark.left.sort_unstable();
    }
}

fn open(marks: &mut [Mark], partition: i32, offset: i64) {
    let mark = usize::try_from(partition).ok().and_then(|partition| marks.get_mut(partition));
    if let Some(mark) = mark.filter(|mark| offset < mark.next) {
        mark.left.push(offset);
    }
}

/// The digests of the carts that were read.
fn carts(evidence: &Evidence, checkpoint: &mut Checkpoint) {
    let no_requests = BTreeMap::new();
    let with_requests = evidence.requests.keys().filter(|cart_id| !evidence.journal.contains_key(cart_id));
    for cart_id in evidence.journal.keys().chain(with_requests) {
        let partition = evidence.partition(*cart_id);
        let rows = evidence.journal.get(cart_id).map(Vec::as_slice).unwrap_or_default();
        let requests = evidence.requests.get(cart_id).unwrap_or(&no_requests);
        let digest = CartDigest::of(rows, requests, |position| is_sealed(evidence, partition, position));
        match digest {
            Some(digest) => checkpoint.carts.insert(*cart_id, digest),
            None => checkpoint.carts.remove(cart_id),
        };
    }
}

/// The totals of the purchases before the cut.
fn totals(evidence: &Evidence, checkpoint: &mut Checkpoint) {
    checkpoint.totals = sealed_totals(evidence, sold(evidence));
    for model in READ_MODELS {
        if let Some(sold) = Sold::of_group(evidence, model.group) {
            checkpoint.own_totals.insert(model.group.to_owned(), sealed_totals(evidence, sold));
        }
    }
}

fn sealed_totals(evidence: &Evidence, sold: Sold<'_>) -> SealedTotals {
    let mut sealed = SealedTotals::default();
    let next = |partition| mark(&evidence.marks.purchases, partition).map_or(0, |mark| mark.next);
    for (key, steps) in sold.months {
        if let Some(step) = steps.iter().rev().find(|step| step.offset < next(step.partition)) {
            let total = SealedTotal { partition: step.partition, offset: step.offset, total: step.total };
            sealed.months.insert(key, total);
        }
    }
    for (key, steps) in sold.days {
        if let Some(step) = steps.iter().rev().find(|step| step.offset < next(step.partition)) {
            let (pieces, name) = step.total;
            let (partition, offset) = (step.partition, step.offset);
            sealed.days.insert(key, SealedTotal { partition, offset, total: (pieces, name.to_owned()) });
        }
    }
    sealed
}
