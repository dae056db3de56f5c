//! One defect at a time, in a correct run.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use cart::contract::{READ_MODELS, ReadModel, ReadTable};
use cart::{CartEvent, LogEpoch, Position};
use cartctl::audit::{
    Attempt, Content, DeadLetter, Evidence, Findings, Kind, Record, Report, Seen, Sightings, WrongGeneration, check,
    check_sightings,
};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::run::correct;
use crate::since::{audit_since, last_tenth, sealed};

fn audit(evidence: &Evidence) -> Report {
    check(evidence, Findings::default())
}

/// The kinds that need the clients' answers. An audit from a checkpoint on has none.
const OF_CLIENTS: [Kind; 6] = [
    Kind::AckWithoutEvent,
    Kind::AckDiffers,
    Kind::RefusalHadEffect,
    Kind::RefusalDiffers,
    Kind::NotTakenWasTaken,
    Kind::KeyTwice,
];

fn kinds_of(report: &Report) -> BTreeSet<Kind> {
    report.findings_by_kind.keys().copied().collect()
}

/// Checks that exactly these kinds are found in a run with one defect: by an audit of everything, and by one from a checkpoint
/// before the defect on.
fn found(kinds: &[Kind], defect: impl Fn(&mut Evidence)) -> Defective {
    found_since(kinds, kinds, defect)
}

/// The same where the audit from the checkpoint on finds other kinds.
fn found_since(kinds: &[Kind], since: &[Kind], defect: impl Fn(&mut Evidence)) -> Defective {
    let mut evidence = correct();
    defect(&mut evidence);
    let report = audit(&evidence);
    assert_eq!(kinds_of(&report), BTreeSet::from_iter(kinds.iter().copied()), "{report}");
    let report = audit_since(&evidence, &sealed(&correct(), &[1; 3], 0));
    let expected = since.iter().copied().filter(|kind| !OF_CLIENTS.contains(kind));
    assert_eq!(kinds_of(&report), BTreeSet::from_iter(expected), "from a checkpoint on: {report}");
    Defective(evidence)
}

/// A run with a defect that was found.
struct Defective(Evidence);

impl Defective {
    /// Checks what an audit finds from a checkpoint on that was sealed before the last tenth of the commands. Each cart has commands in
    /// that tenth, so its journal is read, and a changed one is found (`SealBroken`). Of the topics only what a defect added at
    /// the end, or changed in the last tenth, is found.
    #[track_caller]
    fn before_a_checkpoint(self, kinds: &[Kind]) {
        let run = correct();
        let report = audit_since(&self.0, &sealed(&run, &last_tenth(&run), 3));
        assert_eq!(kinds_of(&report), BTreeSet::from_iter(kinds.iter().copied()), "after the defect: {report}");
    }
}

fn event(record: &Record<CartEvent>) -> &CartEvent {
    record.value.as_ref().expect("an event")
}

fn is_purchase(record: &Record<CartEvent>) -> bool {
    event(record).is_purchase()
}

/// The first acknowledged command.
fn acknowledged(evidence: &mut Evidence) -> &mut cartctl::audit::SentCommand {
    let is_acknowledged =
        |sent: &&mut cartctl::audit::SentCommand| matches!(sent.attempts.last(), Some(Attempt::Accepted { .. }));
    evidence.sent.iter_mut().find(is_acknowledged).expect("one was accepted")
}

#[test]
fn a_correct_run_has_no_findings() {
    let report = audit(&correct());
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.exit_code(), 0);
    let (counts, client) = (&report.counts, &report.client);
    assert_eq!(counts.commands, counts.accepted + counts.refused + counts.repeats);
    for count in [counts.accepted, counts.refused, counts.repeats, counts.dead_letters, counts.purchases, counts.rows] {
        assert!(count > 7, "{report}");
    }
    assert_eq!((counts.events, counts.carts), (counts.journal_events, 5));
    assert!(client.acknowledged > 50 && client.refused > 5 && client.retried == client.commands, "{report}");
}

#[test]
fn finds_lost_and_doubled_events() {
    // The last event of its cart, which leaves no gap.
    found(&[Kind::EventLost, Kind::AckWithoutEvent, Kind::JournalOnly], |evidence| {
        let last = acknowledged_last(evidence);
        evidence.events.remove(last);
    })
    .before_a_checkpoint(&[Kind::EventLost, Kind::JournalOnly]);
    found(&[Kind::EventLost, Kind::SequenceGap, Kind::JournalOnly, Kind::PurchaseUnexpected], |evidence| {
        evidence.sent.clear();
        let first = evidence.events.iter().position(is_purchase).expect("something was bought");
        evidence.events.remove(first);
    })
    .before_a_checkpoint(&[]);
    found(&[Kind::EventDoubled], |evidence| {
        let again = Record { offset: 900_000, ..evidence.events[5].clone() };
        evidence.events.push(again);
    })
    .before_a_checkpoint(&[Kind::EventDoubled]);
    found(&[Kind::EventUnexpected, Kind::TopicOnly], |evidence| {
        let mut other = event(&evidence.events[5]).clone();
        (other.cart_id, other.event_id) = (Uuid::nil().into(), Uuid::nil().into());
        let key = other.cart_id.to_string();
        evidence.events.push(Record { key, value: Ok(other), offset: 900_000, ..evidence.events[5].clone() });
    })
    .before_a_checkpoint(&[Kind::EventUnexpected, Kind::TopicOnly]);
}

/// The index of an event that is the newest of its cart, no purchase, and the only one of an acknowledged command.
fn acknowledged_last(evidence: &Evidence) -> usize {
    let is_last = |place: &usize| {
        let one = event(&evidence.events[*place]);
        let others = evidence.events.iter().map(event).filter(|other| other.cart_id == one.cart_id);
        let sent = evidence.sent.iter().any(|sent| {
            sent.command_id == one.command_id.as_uuid()
                && matches!(sent.attempts.last(), Some(Attempt::Accepted { .. }))
        });
        sent && !one.is_purchase() && others.map(|other| other.sequence_number).max() == Some(one.sequence_number)
    };
    (0..evidence.events.len()).find(is_last).expect("one cart ends with a single acknowledged change")
}

#[test]
fn finds_reordered_and_changed_events() {
    found(&[Kind::EventsReordered, Kind::SequenceGap], |evidence| {
        let cart = event(&evidence.events[0]).cart_id;
        let pair: Vec<_> =
            (0..evidence.events.len()).filter(|place| event(&evidence.events[*place]).cart_id == cart).collect();
        evidence.events.swap(pair[2], pair[3]);
    })
    .before_a_checkpoint(&[]);
    // Both stores have it, so only the model differs.
    found(&[Kind::EventDiffers], |evidence| {
        let record = &mut evidence.events[3];
        let mut other = event(record).clone();
        other.occurred_at += chrono::TimeDelta::microseconds(1);
        record.value = Ok(other);
        evidence.sent.clear();
    })
    .before_a_checkpoint(&[]);
    found(&[Kind::EventDiffers, Kind::SequenceGap, Kind::JournalOnly, Kind::TopicOnly, Kind::AckDiffers], |evidence| {
        let last = acknowledged_last(evidence);
        let record = &mut evidence.events[last];
        let mut other = event(record).clone();
        other.sequence_number = other.sequence_number.next();
        record.value = Ok(other);
        // The journal has the same gap.
        let cart = event(record).cart_id.as_uuid();
        let row = evidence.journal.get_mut(&cart).and_then(|rows| rows.last_mut()).expect("a row");
        row.sequence_number += 2;
    })
    .before_a_checkpoint(&[Kind::EventDiffers, Kind::SequenceGap, Kind::JournalOnly, Kind::TopicOnly]);
    found(&[Kind::Misplaced], |evidence| evidence.events[4].partition = (evidence.events[4].partition + 1) % 3)
        .before_a_checkpoint(&[]);
    found(&[Kind::Misplaced], |evidence| evidence.events[4].key = Uuid::nil().to_string()).before_a_checkpoint(&[]);
}

#[test]
fn finds_a_journal_that_differs_from_the_topic() {
    let rows = |evidence: &mut Evidence| evidence.journal.values_mut().next().expect("a cart").clone();
    let put = |evidence: &mut Evidence, rows| *evidence.journal.values_mut().next().expect("a cart") = rows;
    found(&[Kind::JournalDiffers], |evidence| {
        let mut changed = rows(evidence);
        changed[2].event[10] ^= 1;
        put(evidence, changed);
    })
    .before_a_checkpoint(&[Kind::SealBroken]);
    found(&[Kind::JournalDiffers], |evidence| {
        let mut changed = rows(evidence);
        let last = changed.len() - 1;
        changed[last].position = Position::new(LogEpoch::FIRST, 900_000).get();
        put(evidence, changed);
    })
    .before_a_checkpoint(&[Kind::JournalDiffers]);
    found(&[Kind::SequenceGap, Kind::TopicOnly], |evidence| {
        let mut changed = rows(evidence);
        changed.remove(3);
        put(evidence, changed);
    })
    .before_a_checkpoint(&[Kind::SealBroken]);
    found(&[Kind::JournalOnly, Kind::JournalRowDoubled], |evidence| {
        let mut changed = rows(evidence);
        let mut more = changed[0].clone();
        more.sequence_number = changed[changed.len() - 1].sequence_number + 1;
        changed.push(more);
        put(evidence, changed);
    })
    .before_a_checkpoint(&[Kind::SealBroken]);
    found(&[Kind::TopicOnly], |evidence| {
        let cart = *evidence.journal.keys().next().expect("a cart");
        evidence.journal.remove(&cart);
    })
    .before_a_checkpoint(&[Kind::SealBroken]);
}

#[test]
fn finds_lost_changed_and_unexpected_requests() {
    let unchanged = |evidence: &Evidence| {
        let all = evidence.requests.iter().flat_map(|(cart_id, requests)| {
            requests.iter().filter(|(_, kept)| kept.unchanged.is_some()).map(|(position, _)| (*cart_id, *position))
        });
        all.last().expect("a rejected request")
    };
    found(&[Kind::RequestLost], |evidence| {
        let (cart_id, position) = unchanged(evidence);
        evidence.requests.get_mut(&cart_id).and_then(|requests| requests.remove(&position)).expect("it is there");
    })
    .before_a_checkpoint(&[Kind::SealBroken]);
    found(&[Kind::RequestUnexpected], |evidence| {
        let (cart_id, position) = unchanged(evidence);
        let requests = evidence.requests.get_mut(&cart_id).expect("they are there");
        let other = requests[&position].clone();
        requests.insert(Position::new(LogEpoch::FIRST, 900_000), other);
    })
    .before_a_checkpoint(&[Kind::RequestUnexpected]);
    let changes: [fn(&mut cartctl::audit::Kept); 5] = [
        |kept| kept.command_id = Uuid::nil(),
        |kept| kept.keyed = None,
        |kept| kept.outcome = Some("rejected cart-full".to_owned()),
        |kept| kept.sequence_number += 1,
        |kept| kept.unchanged = None,
    ];
    for change in changes {
        found(&[Kind::RequestDiffers], |evidence| {
            let (cart_id, position) = unchanged(evidence);
            evidence.requests.get_mut(&cart_id).and_then(|requests| requests.get_mut(&position)).map(change);
        })
        .before_a_checkpoint(&[Kind::SealBroken]);
    }
}

#[test]
fn finds_wrong_dead_letters() {
    found(&[Kind::DeadLetterLost], |evidence| drop(evidence.dead_letters.pop())).before_a_checkpoint(&[]);
    found(&[Kind::DeadLetterUnexpected], |evidence| {
        let again = DeadLetter { offset: 900, ..evidence.dead_letters[0].clone() };
        evidence.dead_letters.push(again);
    })
    .before_a_checkpoint(&[Kind::DeadLetterUnexpected]);
    found(&[Kind::DeadLetterDiffers], |evidence| evidence.dead_letters[1].value = None).before_a_checkpoint(&[]);
    found(&[Kind::DeadLetterWrong], |evidence| {
        // A rejected command: without it the model changes nothing else.
        let refused = refused(evidence);
        let letter = DeadLetter { offset: 900, origin: Some(refused), ..evidence.dead_letters[0].clone() };
        evidence.dead_letters.push(letter);
        evidence.sent.clear();
    })
    .before_a_checkpoint(&[Kind::DeadLetterUnexpected]);
}

fn refused(evidence: &Evidence) -> (i32, i64) {
    let made_nothing = |record: &&cartctl::audit::LogRecord| match &record.content {
        Content::Command(command) => evidence.events.iter().all(|other| event(other).command_id != command.command_id),
        Content::Undecidable { .. } | Content::TooNew { .. } => false,
    };
    // Not the first of its partition, which is before every checkpoint here.
    let is_later = |record: &&cartctl::audit::LogRecord| record.offset > 0;
    let record = evidence.commands.iter().filter(is_later).find(made_nothing).expect("something was refused");
    (record.partition, record.offset)
}

#[test]
fn finds_wrong_answers_to_clients() {
    found(&[Kind::AckWithoutEvent], |evidence| acknowledged(evidence).command_id = Uuid::max())
        .before_a_checkpoint(&[]);
    for change in [
        |attempt: &mut Attempt| {
            if let Attempt::Accepted { version, .. } = attempt {
                *version += 1
            }
        },
        |attempt: &mut Attempt| {
            if let Attempt::Accepted { session_id, .. } = attempt {
                *session_id = Uuid::nil()
            }
        },
        |attempt: &mut Attempt| {
            if let Attempt::Accepted { items, .. } = attempt {
                items[0].quantity += 1
            }
        },
        |attempt: &mut Attempt| {
            if let Attempt::Accepted { items, .. } = attempt {
                items[0].price += Decimal::new(1, 4)
            }
        },
    ] {
        found(&[Kind::AckDiffers], |evidence| change(acknowledged(evidence).attempts.last_mut().expect("an attempt")))
            .before_a_checkpoint(&[]);
    }
    let refusal = |id| Attempt::Rejected { problem: "item-not-in-cart".to_owned(), command_id: id };
    found(&[Kind::RefusalHadEffect], |evidence| acknowledged(evidence).attempts = vec![refusal(None)])
        .before_a_checkpoint(&[]);
    found(&[Kind::RefusalDiffers], |evidence| {
        let is_refused =
            |sent: &&mut cartctl::audit::SentCommand| matches!(sent.attempts.last(), Some(Attempt::Rejected { .. }));
        let sent = evidence.sent.iter_mut().find(is_refused).expect("one was refused");
        let id = Some(sent.command_id);
        sent.attempts = vec![Attempt::Rejected { problem: "cart-full".to_owned(), command_id: id }];
    })
    .before_a_checkpoint(&[]);
    found(&[Kind::NotTakenWasTaken], |evidence| {
        acknowledged(evidence).attempts = vec![Attempt::NotExecuted { reason: "503".to_owned() }];
    })
    .before_a_checkpoint(&[]);
    // A command without an answer may have been executed or not.
    found(&[], |evidence| acknowledged(evidence).attempts = vec![Attempt::Pending {}]).before_a_checkpoint(&[]);
    found(&[], |evidence| {
        let sent = acknowledged(evidence);
        (sent.command_id, sent.attempts) = (Uuid::max(), vec![Attempt::Unknown { reason: "reset".to_owned() }]);
    })
    .before_a_checkpoint(&[]);
}

#[test]
fn finds_a_command_that_is_executed_twice() {
    // As by a processor that has forgotten the first execution: the second one is on the topic and in the journal.
    let mut evidence = correct();
    let place = acknowledged_last(&evidence);
    let mut again = evidence.events[place].clone();
    let mut twice = event(&again).clone();
    twice.sequence_number = twice.sequence_number.next();
    twice.event_id = Uuid::max().into();
    twice.position = Position::new(LogEpoch::FIRST, 800_000);
    again.value = Ok(twice);
    evidence.events.push(again);
    let report = audit(&evidence);
    assert!(report.has(Kind::KeyTwice) && report.has(Kind::EventUnexpected), "{report}");
}

#[test]
fn finds_lost_doubled_and_changed_purchases() {
    // The tables agree with the topic.
    found(&[Kind::PurchaseLost, Kind::TotalWrong, Kind::RowTooMany], |evidence| {
        let day = |record: &Record<cart::PurchasedItem>| {
            let purchase = record.value.as_ref().expect("a purchase");
            (purchase.product_id, purchase.purchased_at.date_naive())
        };
        let days: Vec<_> = evidence.purchases.iter().map(day).collect();
        let is_alone = |place: &usize| days.iter().filter(|day| **day == days[*place]).count() == 1;
        let alone = (0..days.len()).find(is_alone).expect("the only one of its product and day");
        evidence.purchases.remove(alone);
    })
    .before_a_checkpoint(&[]);
    found(&[Kind::PurchaseDoubled, Kind::TotalStale], |evidence| {
        let mut again = evidence.purchases[4].clone();
        again.offset = 900_000;
        evidence.purchases.push(again);
    })
    .before_a_checkpoint(&[Kind::PurchaseDoubled, Kind::TotalStale]);
    let change = |evidence: &mut Evidence, change: &dyn Fn(&mut cart::PurchasedItem)| {
        if let Ok(purchase) = &mut evidence.purchases[4].value {
            change(purchase);
        }
    };
    found(&[Kind::PurchaseDiffers], |evidence| change(evidence, &|purchase| purchase.cart_id = Uuid::nil().into()))
        .before_a_checkpoint(&[]);
    found(&[Kind::PurchaseLost, Kind::PurchaseUnexpected], |evidence| {
        change(evidence, &|purchase| purchase.event_id = Uuid::nil().into());
    })
    .before_a_checkpoint(&[]);
    found(&[Kind::Misplaced], |evidence| evidence.purchases[4].key = Uuid::nil().to_string()).before_a_checkpoint(&[]);
}

type Defect = fn(&mut Evidence);

/// The defects of a row and how each is found. Every table has at least a wrong total, a missing row and one too many.
fn row_defects(table: ReadTable) -> Vec<(Kind, Defect)> {
    match table {
        ReadTable::BalanceByVendor => vec![
            (Kind::TotalWrong, |evidence| first(&mut evidence.tables.cassandra_months).total += Decimal::new(1, 2)),
            (Kind::RowMissing, |evidence| remove_one(&mut evidence.tables.cassandra_months)),
            (Kind::RowTooMany, |evidence| copy_one(&mut evidence.tables.cassandra_months, |key| key.year += 1_000)),
        ],
        ReadTable::ItemQuantityByDay => vec![
            (Kind::TotalWrong, |evidence| first(&mut evidence.tables.cassandra_days).total.0 += 1),
            (Kind::TotalWrong, |evidence| first(&mut evidence.tables.cassandra_days).total.1 = "ANOTHER".to_owned()),
            (Kind::RowMissing, |evidence| remove_one(&mut evidence.tables.cassandra_days)),
            (Kind::RowTooMany, |evidence| copy_one(&mut evidence.tables.cassandra_days, |key| key.year += 1_000)),
        ],
        ReadTable::VendorBilling => vec![
            (Kind::TotalWrong, |evidence| *first(&mut evidence.tables.postgres_months) -= Decimal::new(1, 4)),
            (Kind::RowMissing, |evidence| remove_one(&mut evidence.tables.postgres_months)),
            (Kind::RowTooMany, |evidence| copy_one(&mut evidence.tables.postgres_months, |key| key.year += 1_000)),
            // A row that says that nothing was sold.
            (Kind::RowTooMany, |evidence| {
                let months = &mut evidence.tables.postgres_months;
                let mut key = *months.keys().next().expect("a row");
                key.year += 1_000;
                months.insert(key, Decimal::ZERO);
            }),
        ],
    }
}

fn first<K, V>(rows: &mut HashMap<K, V>) -> &mut V {
    rows.values_mut().next().expect("a row")
}

fn remove_one<K: Copy + Eq + Hash, V>(rows: &mut HashMap<K, V>) {
    let key = *rows.keys().next().expect("a row");
    rows.remove(&key);
}

/// Adds a row like one that is there, under another key.
fn copy_one<K: Copy + Eq + Hash, V: Clone>(rows: &mut HashMap<K, V>, change: impl FnOnce(&mut K)) {
    let (key, row) = rows.iter().next().expect("a row");
    let (mut key, row) = (*key, row.clone());
    change(&mut key);
    rows.insert(key, row);
}

#[test]
fn finds_wrong_missing_and_unexpected_rows_of_each_table() {
    for model in READ_MODELS {
        let defects = row_defects(model.table);
        for needed in [Kind::TotalWrong, Kind::RowMissing, Kind::RowTooMany] {
            assert!(defects.iter().any(|(kind, _)| *kind == needed), "{model} has no defect {needed:?}");
        }
        for (kind, defect) in defects {
            let run = correct();
            let mut evidence = run.clone();
            defect(&mut evidence);
            let late = sealed(&run, &last_tenth(&run), 3);
            for report in [audit(&evidence), audit_since(&evidence, &late)] {
                assert_eq!(kinds_of(&report), BTreeSet::from([kind]), "{model}: {report}");
                assert!(
                    report.findings.iter().all(|finding| finding.place.starts_with(&model.to_string())),
                    "{report}"
                );
            }
        }
    }
}

#[test]
fn finds_stale_rows() {
    // A vendor's row without the newest purchase, with that purchase's position and with the one before.
    for keep_offset in [true, false] {
        found(&[Kind::TotalStale], |evidence| {
            let newest = evidence.purchases.last().and_then(|record| record.value.as_ref().ok().cloned()).expect("one");
            let offset = evidence.purchases.last().map(|record| record.offset).unwrap_or_default();
            let vendor = newest.vendor_id.as_uuid();
            let row = evidence
                .tables
                .cassandra_months
                .iter_mut()
                .find(|(key, row)| key.vendor == vendor && row.offset == offset);
            let row = row.expect("its row").1;
            row.total -= newest.amount();
            row.offset = if keep_offset { offset } else { offset - 1 };
        })
        .before_a_checkpoint(&[Kind::TotalStale]);
    }
}

#[test]
fn finds_a_generation_that_readers_cannot_see() {
    for ReadModel { table, .. } in READ_MODELS {
        let without_its_table = |evidence: &mut Evidence| {
            let tables = &mut evidence.tables;
            match table {
                ReadTable::BalanceByVendor => tables.cassandra_months.clear(),
                ReadTable::ItemQuantityByDay => tables.cassandra_days.clear(),
                ReadTable::VendorBilling => tables.postgres_months.clear(),
            }
            let (expected, found) = ("the table of generation 2".to_owned(), "no such table".to_owned());
            tables.wrong_generations.push(WrongGeneration { table, expected, found });
        };
        // Its rows are not missing: it was not read.
        found(&[Kind::GenerationWrong], without_its_table).before_a_checkpoint(&[Kind::GenerationWrong]);
    }
}

#[test]
fn finds_values_that_fell_during_the_run() {
    let evidence = correct();
    let (tables, journal) = (&evidence.tables, &evidence.journal);
    let end = || Seen {
        cassandra_months: tables.cassandra_months.iter().map(|(key, row)| (*key, row.total)).collect(),
        cassandra_days: tables.cassandra_days.iter().map(|(key, row)| (*key, row.total.0)).collect(),
        postgres_months: tables.postgres_months.clone(),
        carts: journal.iter().map(|(cart, rows)| (*cart, rows[rows.len() - 1].sequence_number)).collect(),
        ..Seen::default()
    };
    let falls = |change: &dyn Fn(&mut Seen)| {
        let (mut sightings, mut seen) = (Sightings::default(), end());
        change(&mut seen);
        sightings.note(seen);
        let mut findings = Findings::default();
        check_sightings(&sightings, &evidence, &mut findings);
        findings.counts().get(&Kind::Fell).copied().unwrap_or_default()
    };
    assert_eq!(falls(&|_| {}), 0);
    for ReadModel { table, .. } in READ_MODELS {
        let higher = |seen: &mut Seen| match table {
            ReadTable::BalanceByVendor => *first(&mut seen.cassandra_months) += Decimal::ONE,
            ReadTable::ItemQuantityByDay => *first(&mut seen.cassandra_days) += 1,
            ReadTable::VendorBilling => *first(&mut seen.postgres_months) += Decimal::ONE,
        };
        assert_eq!(falls(&higher), 1, "{table:?}");
    }
    assert_eq!(falls(&|seen| *seen.carts.values_mut().next().expect("a cart") += 1), 1);
    assert_eq!(falls(&|seen| *seen.carts.entry(Uuid::nil()).or_default() = 1), 1);
}

#[test]
fn records_after_the_cut_may_be_unprocessed() {
    let mut evidence = correct();
    // The newest command of a cart is after the cut, and its event is not published yet.
    let last = acknowledged_last(&evidence);
    let record = evidence.events.remove(last);
    let one = event(&record).clone();
    evidence.sent.retain(|sent| sent.command_id != one.command_id.as_uuid());
    assert!(audit(&evidence).has(Kind::EventLost));
    evidence.cut.commands = vec![i64::MAX; 3];
    evidence.cut.commands[usize::try_from(record.partition).expect("a partition")] = one.position.offset();
    let report = audit(&evidence);
    assert!(report.is_clean(), "{report}");
    // The journal has more in total, and the same up to the cut.
    let (counts, due) = (&report.counts, &report.up_to_cut);
    assert_eq!(counts.journal_events, counts.events + 1);
    assert_eq!((due.journal_events, due.cut.commands.len()), (due.events, 3));
    assert!(0 < due.events && due.events < counts.events && due.commands < counts.commands, "{report}");
    assert_eq!(due.purchases, counts.purchases);

    // The same for a purchase, and for a table.
    let purchase = evidence.events.iter().rev().find(|record| is_purchase(record)).expect("one").clone();
    evidence.cut.events = vec![0; 3];
    let id = event(&purchase).event_id;
    let place = evidence.purchases.iter().position(|record| record.value.as_ref().is_ok_and(|p| p.event_id == id));
    let removed = evidence.purchases.remove(place.expect("it was bought"));
    evidence.cut.purchases = vec![0; 3];
    let report = audit(&evidence);
    assert_eq!(report.up_to_cut.purchases, 0);
    // The tables have a purchase that the topic does not have, which is always wrong.
    assert!(report.has(Kind::TotalWrong) && !report.has(Kind::PurchaseLost), "{report}");
    evidence.purchases.push(removed);
    evidence.tables.cassandra_days.clear();
    assert!(audit(&evidence).is_clean());
}

#[test]
fn events_of_an_earlier_log_are_not_checked() {
    let mut evidence = correct();
    // The log was lost up to some command of each partition; the rest of it is the second epoch.
    let newest = |evidence: &Evidence| evidence.commands.iter().map(|record| record.offset).max().unwrap_or_default();
    let middle = newest(&evidence) / 2;
    let moved = |position: Position| {
        let epoch = if position.offset() < middle { LogEpoch::FIRST } else { LogEpoch::new(2).expect("an epoch") };
        Position::new(epoch, position.offset())
    };
    evidence.commands_epoch = 2;
    evidence.commands.retain(|record| record.offset >= middle);
    evidence.dead_letters.retain(|letter| letter.origin.is_some_and(|(_, offset)| offset >= middle));
    evidence.sent.clear();
    for record in &mut evidence.events {
        if let Ok(event) = &mut record.value {
            event.position = moved(event.position);
        }
    }
    for row in evidence.journal.values_mut().flatten() {
        row.position = moved(row.position.into()).get();
    }
    let report = audit(&evidence);
    assert!(report.is_clean() && report.counts.accepted > 20 && report.counts.events > 100, "{report}");
    let old = evidence.events.iter().position(|record| event(record).position < moved(middle.into()));
    evidence.events.remove(old.expect("one of the first epoch"));
    assert!(audit(&evidence).has(Kind::JournalOnly));
}

#[test]
fn findings_are_capped_per_kind() {
    let mut evidence = correct();
    evidence.events.clear();
    evidence.tables.cassandra_days.clear();
    evidence.tables.cassandra_months.clear();
    let report = check(&evidence, Findings::new(3));
    assert!(report.findings.len() >= report.findings_by_kind.len() && report.findings.len() < 20, "{report}");
    assert!(report.findings_count() > 300 && report.exit_code() == 1);
}
