//! What an audit reads from a checkpoint on, of the run in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cart::{CartEvent, EventId};
use cartctl::audit::{Checkpoint, Cut, Evidence, Findings, Mark, Marks, Report, System, check, seal, touched};
use cartctl::journal::Newest;
use chrono::DateTime;
use uuid::Uuid;

use crate::run::PARTITIONS;

/// The offset that begins the last tenth of each partition.
pub(crate) fn last_tenth(evidence: &Evidence) -> Vec<i64> {
    ends(evidence).into_iter().map(|end| end * 9 / 10).collect()
}

/// The end of each partition.
pub(crate) fn ends(evidence: &Evidence) -> Vec<i64> {
    let newest = |partition| evidence.commands.iter().filter(move |record| record.partition == partition);
    (0..PARTITIONS).map(|partition| newest(partition).map(|record| record.offset + 1).max().unwrap_or(0)).collect()
}

/// Audits a correct run at a cut and seals it, while the services have gone on. `behind`: how many later events were published by
/// the time the end of their topic was noted.
pub(crate) fn sealed(evidence: &Evidence, commands: &[i64], behind: usize) -> Checkpoint {
    let mut evidence = evidence.clone();
    let next = |partition: i32| commands[usize::try_from(partition).expect("a partition")];
    let is_before = |event: &CartEvent, partition| event.position.offset() < next(partition);
    let mut cut =
        Cut { commands: commands.to_vec(), events: vec![0; 3], purchases: vec![0; 3], dead_letters: vec![0; 3] };
    let mut published: HashMap<EventId, (i32, i64)> = HashMap::new();
    let mut later = [0; 3];
    for record in &evidence.events {
        let index = usize::try_from(record.partition).expect("small");
        let Ok(event) = &record.value else {
            // Garbage that is before the cut.
            cut.events[index] = cut.events[index].max(record.offset + 1);
            continue;
        };
        published.insert(event.event_id, (record.partition, record.offset));
        let is_before = is_before(event, record.partition);
        later[index] += usize::from(!is_before);
        if is_before || later[index] <= behind {
            cut.events[index] = cut.events[index].max(record.offset + 1);
        }
    }
    for record in &evidence.purchases {
        if let Ok(purchase) = &record.value {
            let (partition, offset) = published[&purchase.event_id];
            if offset >= cut.events[usize::try_from(partition).expect("small")] {
                continue;
            }
        }
        let index = usize::try_from(record.partition).expect("small");
        cut.purchases[index] = cut.purchases[index].max(record.offset + 1);
    }
    for letter in &evidence.dead_letters {
        if letter.origin.is_some_and(|(partition, offset)| offset < next(partition)) {
            cut.dead_letters[1] = letter.offset + 1 + i64::try_from(behind.min(1)).expect("small");
        }
    }
    let marks = |cut: &[i64]| cut.iter().map(|next| Mark { next: *next, ..Mark::default() }).collect();
    evidence.marks = Marks {
        commands: marks(&cut.commands),
        events: marks(&cut.events),
        purchases: marks(&cut.purchases),
        dead_letters: marks(&cut.dead_letters),
    };
    evidence.cut = cut;
    let report = check(&evidence, Findings::default());
    seal(evidence, &report, System::default(), DateTime::UNIX_EPOCH).unwrap_or_else(|| panic!("{report}"))
}

/// What an audit from the checkpoint on reads.
pub(crate) fn since(mut evidence: Evidence, checkpoint: &Checkpoint) -> Evidence {
    let marks = &checkpoint.marks;
    let mark = |marks: &[Mark], partition: i32| marks[usize::try_from(partition).expect("a partition")].clone();
    evidence.commands.retain(|record| mark(&marks.commands, record.partition).is_open(record.offset));
    evidence.events.retain(|record| mark(&marks.events, record.partition).is_open(record.offset));
    evidence.purchases.retain(|record| mark(&marks.purchases, record.partition).is_open(record.offset));
    evidence.dead_letters.retain(|letter| mark(&marks.dead_letters, letter.partition).is_open(letter.offset));
    evidence.sent.clear();
    let mut newest: HashMap<Uuid, Newest> = HashMap::new();
    for (cart_id, rows) in &evidence.journal {
        if let Some(row) = rows.last() {
            newest.entry(*cart_id).or_default().sequence_number = row.sequence_number;
        }
    }
    for (cart_id, requests) in &evidence.requests {
        if let Some((position, _)) = requests.iter().rev().find(|(_, kept)| kept.unchanged.is_some()) {
            newest.entry(*cart_id).or_default().unchanged = position.get();
        }
    }
    let carts = touched(checkpoint, &evidence.commands, &evidence.events, &evidence.purchases, &newest);
    evidence.checkpoint = Some(Arc::new(checkpoint.clone()));
    let (mut journal, mut requests) = (BTreeMap::new(), BTreeMap::new());
    for cart_id in carts {
        let rows = evidence.journal.remove(&cart_id).unwrap_or_default();
        let partition = kafka::partition_of(cart_id.to_string().as_bytes(), PARTITIONS);
        let next = marks.commands[usize::try_from(partition).expect("a partition")].next;
        let is_sealed = |position: i64| cart::Position::from(position).offset() < next;
        let decode = |bytes: &[u8]| serde_json::from_slice::<CartEvent>(bytes).map_err(|error| error.to_string());
        let events = rows.iter().filter(|row| is_sealed(row.position)).map(|row| decode(&row.event)).collect();
        evidence.sealed.insert(cart_id, events);
        journal.insert(cart_id, rows);
        requests.insert(cart_id, evidence.requests.remove(&cart_id).unwrap_or_default());
    }
    (evidence.journal, evidence.requests) = (journal, requests);
    evidence
}

pub(crate) fn audit_since(evidence: &Evidence, checkpoint: &Checkpoint) -> Report {
    check(&since(evidence.clone(), checkpoint), Findings::default())
}

mod tests {
    use cartctl::audit::Kind;

    use super::*;
    use crate::run::correct;

    #[test]
    fn a_correct_run_is_clean_from_any_checkpoint_on() {
        let evidence = correct();
        let all = check(&evidence, Findings::default());
        for tenth in 0..=10 {
            let commands: Vec<i64> = ends(&evidence).into_iter().map(|end| end * tenth / 10).collect();
            for behind in [0, 5] {
                let checkpoint = sealed(&evidence, &commands, behind);
                let report = audit_since(&evidence, &checkpoint);
                assert!(report.is_clean(), "from {tenth}/10 on, {behind} behind: {report}");
                assert_eq!(checkpoint.commands + report.counts.commands, all.counts.commands, "{report}");
                assert_eq!(report.up_to_cut.events, report.up_to_cut.journal_events, "{report}");
                assert_eq!(report.counts.rows, all.counts.rows);
            }
        }
    }

    #[test]
    fn a_checkpoint_of_a_checkpoint_is_that_of_everything() {
        let evidence = correct();
        let (half, all): (Vec<i64>, Vec<i64>) = ends(&evidence).into_iter().map(|end| (end / 2, end)).unzip();
        let at_once = sealed(&evidence, &all, 0);
        let first = sealed(&evidence, &half, 5);
        let mut second = since(evidence.clone(), &first);
        second.marks = at_once.marks.clone();
        let ends = |marks: &[Mark]| marks.iter().map(|mark| mark.next).collect::<Vec<_>>();
        second.cut = Cut {
            commands: ends(&at_once.marks.commands),
            events: ends(&at_once.marks.events),
            purchases: ends(&at_once.marks.purchases),
            dead_letters: ends(&at_once.marks.dead_letters),
        };
        let report = check(&second, Findings::default());
        let second = seal(second, &report, System::default(), DateTime::UNIX_EPOCH);
        assert_eq!(second, Some(at_once), "{report}");
        // Some records before the first cut were of later commands.
        assert!(first.marks.events.iter().any(|mark| !mark.left.is_empty()), "{:?}", first.marks);
    }

    #[test]
    fn an_audit_with_findings_seals_nothing() {
        let mut evidence = correct();
        evidence.events.pop();
        let report = check(&evidence, Findings::default());
        assert_eq!(seal(evidence, &report, System::default(), DateTime::UNIX_EPOCH), None);
    }

    /// Carts without anything new are not read again; only their newest entries are looked at.
    #[test]
    fn what_is_changed_before_the_checkpoint_in_untouched_carts_is_found_by_a_full_audit() {
        let evidence = correct();
        let checkpoint = sealed(&evidence, &ends(&evidence), 0);
        let both = |change: &dyn Fn(&mut Evidence)| {
            let mut changed = evidence.clone();
            changed.sent.clear();
            change(&mut changed);
            let kinds = |report: Report| report.findings_by_kind.into_keys().collect::<Vec<_>>();
            (kinds(check(&changed, Findings::default())), kinds(audit_since(&changed, &checkpoint)))
        };
        let rows = |evidence: &mut Evidence| evidence.journal.values_mut().next().expect("a cart").len();
        let (all, new) = both(&|evidence| {
            let middle = rows(evidence) / 2;
            evidence.journal.values_mut().next().expect("a cart")[middle].event[10] ^= 1;
        });
        assert_eq!((all, new), (vec![Kind::JournalDiffers], vec![]));
        let (all, new) = both(&|evidence| drop(evidence.events.pop()));
        assert!(all.contains(&Kind::EventLost) && new.is_empty(), "{all:?} {new:?}");
        // The newest entry of a cart is gone, or the whole cart.
        let (all, new) = both(&|evidence| drop(evidence.journal.values_mut().next().expect("a cart").pop()));
        assert_eq!((all, new), (vec![Kind::TopicOnly], vec![Kind::SealBroken]));
        let (all, new) = both(&|evidence| {
            evidence.journal.pop_first();
            evidence.requests.pop_first();
        });
        assert!(all.contains(&Kind::TopicOnly) && new == [Kind::SealBroken], "{all:?} {new:?}");
        // A row of a cart that has no command.
        let (all, new) = both(&|evidence| {
            let mut row = evidence.journal.values().next().expect("a cart")[0].clone();
            row.sequence_number = 1;
            row.position = cart::Position::new(cart::LogEpoch::FIRST, 900_000).get();
            evidence.journal.insert(Uuid::nil(), vec![row]);
        });
        assert_eq!((all, new), (vec![Kind::JournalOnly], vec![Kind::JournalOnly]));
        // The read tables are always read.
        let (all, new) = both(&|evidence| drop(evidence.tables.postgres_months.drain()));
        assert_eq!((all, new), (vec![Kind::RowMissing], vec![Kind::RowMissing]));
    }

    #[test]
    fn a_log_that_was_changed_before_the_checkpoint_is_a_finding_of_a_full_audit() {
        let mut evidence = correct();
        evidence.changed.push("cart-commands, partition 0 before offset 7".to_owned());
        let report = check(&evidence, Findings::default());
        assert_eq!(report.findings_by_kind.keys().copied().collect::<Vec<_>>(), [Kind::LogChanged], "{report}");
    }
}
