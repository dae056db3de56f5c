//! Compares `cart-events` with the events that follow from the log, cart by cart, in order.

use std::collections::HashMap;

use cart::CartId;

use super::log::{Expected, Log};
use super::published::{ByCart, Published, Shown};
use crate::audit::evidence::Evidence;
use crate::audit::report::{Findings, Kind};

pub(super) fn check(evidence: &Evidence, log: &Log, published: &ByCart<'_>, findings: &mut Findings) {
    let nothing = Vec::new();
    for (cart_id, expected) in log.carts.iter().filter(|(cart_id, _)| !log.unknown.contains(cart_id)) {
        check_cart(evidence, *cart_id, expected, published.get(cart_id).unwrap_or(&nothing), findings);
    }
    let has_no_command = |cart_id: &CartId| !log.carts.contains_key(cart_id) && !log.unknown.contains(cart_id);
    let unexpected = published.iter().filter(|(cart_id, _)| has_no_command(cart_id));
    for found in unexpected.flat_map(|(_, found)| found) {
        findings.add(Kind::EventUnexpected, found.place(), None, Some(&Shown(found.event)));
    }
}

fn check_cart(
    evidence: &Evidence,
    cart_id: CartId,
    expected: &Expected,
    found: &[Published<'_>],
    findings: &mut Findings,
) {
    // The fast path: most carts are right.
    let as_far = expected.events.iter().zip(found).all(|(expected, found)| {
        expected == found.event && found.record.partition == expected_partition(evidence, cart_id)
    });
    if as_far && expected.events.len() == found.len() {
        return;
    }
    let places: HashMap<_, _> =
        (0_usize..).zip(&expected.events).map(|(place, event)| (event.event_id, place)).collect();
    let mut seen: Vec<Option<usize>> = vec![None; expected.events.len()];
    let mut newest = None;
    let mut sequence_number = expected.sealed;
    for (number, one) in found.iter().enumerate() {
        if one.record.partition != expected_partition(evidence, cart_id) {
            let expected = format!("partition {}", expected_partition(evidence, cart_id));
            findings.add(Kind::Misplaced, one.place(), Some(&expected), Some(&one.record.partition));
        }
        let Some(place) = places.get(&one.event.event_id).copied() else {
            if evidence.sealed_event(cart_id, one.event.event_id).is_some() {
                findings.add(
                    Kind::EventDoubled,
                    one.place(),
                    Some(&"it before the checkpoint"),
                    Some(&Shown(one.event)),
                );
            } else {
                findings.add(Kind::EventUnexpected, one.place(), None, Some(&Shown(one.event)));
            }
            continue;
        };
        let wanted = &expected.events[place];
        if seen[place].is_some() {
            findings.add(Kind::EventDoubled, one.place(), Some(&"it once"), Some(&Shown(one.event)));
            continue;
        }
        seen[place] = Some(number);
        if wanted != one.event {
            findings.add(Kind::EventDiffers, one.place(), Some(&Shown(wanted)), Some(&Shown(one.event)));
        }
        if one.sequence_number() > sequence_number + 1 {
            let next = format!("event {}", sequence_number + 1);
            findings.add(
                Kind::SequenceGap,
                one.place(),
                Some(&next),
                Some(&format!("event {}", one.sequence_number())),
            );
        }
        sequence_number = sequence_number.max(one.sequence_number());
        if newest.is_some_and(|newest| place < newest) {
            findings.add(Kind::EventsReordered, one.place(), Some(&"the order of the log"), Some(&Shown(one.event)));
        }
        newest = newest.max(Some(place));
    }
    for event in seen.iter().zip(&expected.events).filter(|(seen, _)| seen.is_none()).map(|(_, event)| event) {
        if evidence.is_due(cart_id, expected.partition, event.position) {
            findings.add(Kind::EventLost, format!("cart-events, cart {cart_id}"), Some(&Shown(event)), None);
        }
    }
}

fn expected_partition(evidence: &Evidence, cart_id: CartId) -> i32 {
    kafka::partition_of(cart_id.to_string().as_bytes(), evidence.partitions)
}
