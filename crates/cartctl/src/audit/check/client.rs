//! Compares the answers that clients got with the log.

use std::collections::HashMap;

use cart::{CartEvent, Event, Item};
use uuid::Uuid;

use super::log::{Log, Taken};
use super::published::ByCart;
use crate::audit::client_view::{AnsweredItem, Attempt, SentCommand};
use crate::audit::evidence::Evidence;
use crate::audit::report::{ClientView, Findings, Kind};

/// The rejection of a key that stands for another request. That request may have events, under the same command id.
const KEY_REUSED: &str = "idempotency-key-reused";

pub(super) fn check(
    evidence: &Evidence,
    log: &Log,
    published: &ByCart<'_>,
    findings: &mut Findings,
    view: &mut ClientView,
) {
    if evidence.sent.is_empty() {
        return;
    }
    // The events of each command, in order, without repeats.
    let mut results: HashMap<(Uuid, Uuid), Vec<&CartEvent>> = HashMap::new();
    for (cart_id, events) in published {
        for event in events {
            let key = (cart_id.as_uuid(), event.event.command_id.as_uuid());
            let made = results.entry(key).or_default();
            if made.iter().all(|other| other.event_id != event.event.event_id) {
                made.push(event.event);
            }
        }
    }
    let (no_events, no_verdicts) = (Vec::new(), Vec::new());
    for sent in &evidence.sent {
        view.commands += 1;
        view.retried += u64::from(sent.attempts.len() > 1);
        let key = (sent.cart_id, sent.command_id);
        let made = results.get(&key).unwrap_or(&no_events);
        let verdicts = log.verdicts.get(&key).unwrap_or(&no_verdicts);
        // The events of a command that was answered may be in the journal alone, until its cart is repaired.
        let waits = evidence.parked.contains_key(&sent.cart_id.into());
        check_command(sent, made, (verdicts, waits), findings, view);
    }
}

fn check_command(
    sent: &SentCommand,
    made: &[&CartEvent],
    (verdicts, waits): (&[Taken], bool),
    findings: &mut Findings,
    view: &mut ClientView,
) {
    let place = || format!("client's command {} of cart {}", sent.command_id, sent.cart_id);
    let times = 1 + made.windows(2).filter(|pair| pair[0].position != pair[1].position).count();
    // The second use of a key that was forgotten is a new command.
    let right = verdicts.iter().filter(|taken| **taken == Taken::Accepted).count().max(1);
    if !made.is_empty() && times > right {
        findings.add(
            Kind::KeyTwice,
            place(),
            Some(&format!("it executed {right} times")),
            Some(&format!("{times} times")),
        );
    }
    match sent.attempts.last() {
        Some(Attempt::Accepted { command_id, session_id, version, items }) => {
            view.acknowledged += 1;
            let Some(last) = made.last() else {
                if waits {
                    return;
                }
                let answer = format!("200 with version {version}");
                findings.add(Kind::AckWithoutEvent, place(), Some(&answer), None);
                return;
            };
            // If a command was executed more than once (reported above), the answer is that of the first execution.
            let one = made.iter().take_while(|event| event.position == made[0].position).copied().collect::<Vec<_>>();
            let last = one.last().copied().unwrap_or(last);
            let is_same = *command_id == sent.command_id
                && *version == last.sequence_number.get()
                && *session_id == last.session_id.as_uuid()
                && items.len() == one.len()
                && items.iter().zip(&one).all(|(answered, event)| is_same_item(answered, event.event.item()));
            if !is_same {
                let log =
                    format!("version {}, session {}, {} events", last.sequence_number, last.session_id, one.len());
                let answer = format!("version {version}, session {session_id}, {} items: {items:?}", items.len());
                findings.add(Kind::AckDiffers, place(), Some(&log), Some(&answer));
            }
            if items.len() > 1 && !one.iter().all(|event| matches!(event.event, Event::ItemPurchased { .. })) {
                findings.add(Kind::AckDiffers, place(), Some(&"one item"), Some(&items.len()));
            }
        }
        Some(Attempt::Rejected { problem, command_id }) => {
            view.refused += 1;
            if !made.is_empty() && problem != KEY_REUSED {
                let found = format!("{} events, from event {} on", made.len(), made[0].sequence_number);
                findings.add(Kind::RefusalHadEffect, place(), Some(&format!("nothing ({problem})")), Some(&found));
            }
            // Only a rejection by the cart has the command's id; other requests are rejected before they are appended.
            let is_known = verdicts.iter().any(|taken| matches!(taken, Taken::Refused(rule) if rule == problem));
            if command_id.is_some() && !is_known {
                let found = format!("{verdicts:?}");
                findings.add(Kind::RefusalDiffers, place(), Some(&format!("a rejection ({problem})")), Some(&found));
            }
        }
        Some(Attempt::Pending {} | Attempt::NotExecuted { .. } | Attempt::Unknown { .. }) | None => {
            let happened = !made.is_empty();
            let count = if happened { &mut view.unknown_happened } else { &mut view.unknown_not };
            *count += 1;
            let not_taken = sent.attempts.iter().all(|attempt| matches!(attempt, Attempt::NotExecuted { .. }));
            if not_taken && !verdicts.is_empty() {
                let found = format!("it in the log {} times", verdicts.len());
                findings.add(Kind::NotTakenWasTaken, place(), Some(&"it not in the log"), Some(&found));
            }
        }
    }
}

fn is_same_item(answered: &AnsweredItem, item: &Item) -> bool {
    answered.product_id == item.product_id.as_uuid()
        && answered.vendor_id == item.vendor_id.as_uuid()
        && answered.name == item.name.as_str()
        && answered.price == item.price.get()
        && answered.quantity == i64::from(item.quantity.get())
}
