//! Commands that operators have discarded: they are dead letters, and no lost commands; a discard of another record, or of a command
//! that was decided, is reported.

use std::collections::BTreeSet;

use cart::{CartCommand, Command, LogEpoch, Position};
use cartctl::DiscardedCommand;
use cartctl::audit::{Content, DeadLetter, Evidence, Findings, Kind, LogRecord, Report, check};
use chrono::DateTime;
use uuid::Uuid;

use crate::run::{correct, partition};

/// SHA-256 of [`VALUE`].
const SHA256: &str = "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81";
const VALUE: [u8; 3] = [1, 2, 3];

fn audit(evidence: &Evidence) -> Report {
    check(evidence, Findings::default())
}

fn kinds(report: &Report) -> BTreeSet<Kind> {
    report.findings_by_kind.keys().copied().collect()
}

/// A correct run with one more command that would be accepted: it adds a product to a cart of its own. It is discarded, and is a dead
/// letter.
fn with_discarded() -> Evidence {
    let mut evidence = correct();
    let cart_id = Uuid::from_u128(77);
    let partition = partition(&cart_id.to_string());
    let command = CartCommand {
        command_id: Uuid::from_u128(900_000).into(),
        cart_id: cart_id.into(),
        issued_at: DateTime::UNIX_EPOCH,
        command: Command::AddItem {
            product_id: Uuid::from_u128(1).into(),
            vendor_id: Uuid::from_u128(2).into(),
            name: "mug".to_owned().try_into().expect("a name"),
            price: "2.5".parse().expect("a price"),
            quantity: 1,
        },
        expected_version: None,
        keyed: Some(true),
    };
    let offset = 900_000;
    evidence.discards.push(DiscardedCommand {
        partition,
        offset,
        cart_id: command.cart_id,
        command_id: command.command_id,
        sha256: SHA256.to_owned(),
        found: Some(SHA256.to_owned()),
        by: String::from("ops"),
        at: DateTime::UNIX_EPOCH,
        reason: String::from("a test"),
    });
    evidence.dead_letters.push(DeadLetter {
        partition: 0,
        offset,
        origin: Some((partition, offset)),
        key: Some(cart_id.to_string().into_bytes()),
        value: Some(VALUE.to_vec()),
    });
    evidence.commands.push(LogRecord { partition, offset, content: Content::Command(Box::new(command)) });
    evidence
}

#[test]
fn a_discarded_command_is_counted_and_no_finding() {
    let report = audit(&with_discarded());
    assert!(report.is_clean() && report.counts.discarded == 1, "{report}");
    let text = report.to_string();
    assert!(
        text.contains("discarded: cart-commands ") && text.contains("(ops, 1970-01-01T00:00:00Z, \"a test\")"),
        "{text}"
    );
    assert!(text.contains("commands that were discarded"), "{text}");
    let without = Evidence { discards: Vec::new(), ..with_discarded() };
    assert_eq!(kinds(&audit(&without)), BTreeSet::from([Kind::DeadLetterWrong]), "a letter without a discard");
}

#[test]
fn a_command_that_is_too_new_waits_and_has_no_dead_letter() {
    let mut evidence = Evidence { discards: Vec::new(), ..with_discarded() };
    let letter = evidence.dead_letters.pop();
    let newer = evidence.commands.last_mut().expect("a command");
    newer.content = Content::TooNew { cart_id: Uuid::from_u128(77).into() };
    let report = audit(&evidence);
    assert!(report.is_clean() && report.counts.parked == 1, "{report}");
    evidence.dead_letters.extend(letter);
    assert_eq!(kinds(&audit(&evidence)), BTreeSet::from([Kind::DeadLetterWrong]));
}

#[test]
fn a_discard_of_another_record_is_a_finding() {
    for found in [None, Some(String::from("cd"))] {
        let mut evidence = with_discarded();
        evidence.discards[0].found = found;
        let report = audit(&evidence);
        assert_eq!(kinds(&report), BTreeSet::from([Kind::DiscardDiffers, Kind::DeadLetterWrong]), "{report}");
        assert!(report.discarded.is_empty() && report.counts.discarded == 0, "{report}");
    }
}

#[test]
fn a_discard_of_another_command_id_is_a_finding() {
    let mut evidence = with_discarded();
    evidence.discards[0].command_id = Uuid::from_u128(900_001).into();
    let report = audit(&evidence);
    assert_eq!(kinds(&report), BTreeSet::from([Kind::DiscardDiffers, Kind::DeadLetterWrong]), "{report}");
}

#[test]
fn a_dead_letter_of_a_discarded_command_has_its_key_and_value() {
    for change in [|letter: &mut DeadLetter| letter.key = None, |letter: &mut DeadLetter| letter.value = Some(vec![1])]
    {
        let mut evidence = with_discarded();
        change(evidence.dead_letters.last_mut().expect("a letter"));
        let report = audit(&evidence);
        assert_eq!(kinds(&report), BTreeSet::from([Kind::DeadLetterDiffers]), "{report}");
    }
}

#[test]
fn a_discarded_command_without_a_dead_letter_waits_or_was_decided() {
    let mut evidence = with_discarded();
    evidence.dead_letters.pop();
    let report = audit(&evidence);
    assert!(report.has(Kind::DiscardDiffers) && report.has(Kind::EventLost), "{report}");
    let discard = &evidence.discards[0];
    evidence.parked.insert(discard.cart_id, Position::new(LogEpoch::FIRST, discard.offset));
    let report = audit(&evidence);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.counts.parked, report.counts.discarded), (1, 0), "its cart was not tried yet");
}
