//! Pauses that a process makes for a while, and ends itself.
//!
//! The last record of a key holds. So such a pause replaces one that an operator has recorded since the process looked, and its end
//! would end the operator's pause too. The topic has one partition, and its order shows what came between: without the process's own
//! records it says what others want. The process reads it again after it has written, gives up if another one has paused too, and
//! leaves what others want.

use std::collections::BTreeSet;

use cart::{Control, ControlKey, ControlRecord};

use crate::Controls;

/// What holds, and what would hold without the records of one process.
#[derive(Debug, Clone, Default)]
pub struct Temporary {
    all: Controls,
    others: Controls,
    /// The keys of the process's own records.
    own: BTreeSet<ControlKey>,
}

impl Temporary {
    /// Takes a record, as [`Controls::apply`] does. Of a process's own ones only its pauses and their ends count.
    pub fn apply(&mut self, offset: i64, key: ControlKey, record: Option<ControlRecord>, is_own: bool) {
        if is_own {
            self.own.insert(key.clone());
        } else {
            self.others.apply(offset, key.clone(), record.clone());
        }
        self.all.apply(offset, key, record);
    }

    /// What holds.
    #[must_use]
    pub fn all(&self) -> &Controls {
        &self.all
    }

    /// What would hold without the process's own records. A resume by another one ends the process's own pause, too.
    #[must_use]
    pub fn others(&self) -> &Controls {
        &self.others
    }

    /// What is to be recorded so that only what others want is paused: their pauses, where an own record has replaced them; `None`: a
    /// resume. Empty when nothing is left to do.
    #[must_use]
    pub fn to_restore(&self) -> Vec<(ControlKey, Option<ControlRecord>)> {
        let pause = |controls: &Controls, key: &ControlKey| {
            let record = controls.entry(key).map(|entry| &entry.record);
            record.filter(|record| matches!(record.control, Control::Pause { .. })).cloned()
        };
        let of_key = |key: &ControlKey| {
            let wanted = pause(&self.others, key);
            (pause(&self.all, key) != wanted).then(|| (key.clone(), wanted))
        };
        self.own.iter().filter_map(of_key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "a switch";

    const PAUSE: Control = Control::Pause { before_offset: None };
    const RESUME: Control = Control::Resume {};

    fn record(reason: &str, control: Control) -> ControlRecord {
        ControlRecord { by: String::from("ops"), at: chrono::DateTime::UNIX_EPOCH, reason: reason.to_owned(), control }
    }

    /// Key, reason, and what is recorded.
    fn read(records: &[(&str, &str, Control)]) -> Temporary {
        let mut temporary = Temporary::default();
        for (offset, (key, reason, control)) in (0..).zip(records) {
            let key = key.parse().expect("a key");
            temporary.apply(offset, key, Some(record(reason, control.clone())), *reason == OWN);
        }
        temporary
    }

    /// Key, and the reason of the pause that is to hold; `None`: none is.
    fn to_restore(temporary: &Temporary) -> Vec<(String, Option<String>)> {
        let restored = temporary.to_restore().into_iter();
        restored.map(|(key, record)| (key.to_string(), record.map(|record| record.reason))).collect()
    }

    fn of_others(temporary: &Temporary) -> Option<&str> {
        temporary.others().pause("a", 1).map(|pause| pause.entry.record.reason.as_str())
    }

    #[test]
    fn an_own_pause_is_ended() {
        let paused = read(&[("pause/a", OWN, PAUSE), ("pause/a/1", OWN, PAUSE)]);
        assert_eq!(of_others(&paused), None);
        assert_eq!(to_restore(&paused), [("pause/a".into(), None), ("pause/a/1".into(), None)]);
        let ended = read(&[("pause/a", OWN, PAUSE), ("pause/a", OWN, RESUME)]);
        assert_eq!(to_restore(&ended), []);
        // An operator has ended it.
        assert_eq!(to_restore(&read(&[("pause/a", OWN, PAUSE), ("pause/a", "go on", RESUME)])), []);
    }

    #[test]
    fn an_operators_pause_that_an_own_one_has_replaced_is_seen_and_restored() {
        let (theirs, own) = (("pause/a", "index build", PAUSE), ("pause/a", OWN, PAUSE));
        let restored = [("pause/a".into(), Some("index build".into()))];
        let replaced = read(&[theirs.clone(), own.clone()]);
        assert_eq!(of_others(&replaced), Some("index build"));
        assert_eq!(to_restore(&replaced), restored);
        let ended = read(&[theirs.clone(), own.clone(), ("pause/a", OWN, RESUME)]);
        assert_eq!(of_others(&ended), Some("index build"));
        assert_eq!(to_restore(&ended), restored, "a resume came after a pause that it does not mean");
        let written = read(&[theirs.clone(), own.clone(), theirs.clone()]);
        assert_eq!(to_restore(&written), []);
        // The operator has ended it while the own one held.
        let gone = read(&[theirs, own, ("pause/a", "done", RESUME), ("pause/a", OWN, RESUME)]);
        assert_eq!((of_others(&gone), to_restore(&gone)), (None, vec![]));
    }

    #[test]
    fn an_operators_pause_that_came_later_stays() {
        let later = [("pause/a", OWN, PAUSE), ("pause/a", "index build", PAUSE)];
        assert_eq!(of_others(&read(&later)), Some("index build"));
        assert_eq!(to_restore(&read(&later)), []);
        let resumed = [&later[..], &[("pause/a", OWN, RESUME)]].concat();
        assert_eq!(to_restore(&read(&resumed)), [("pause/a".into(), Some("index build".into()))]);
    }

    #[test]
    fn pauses_of_other_keys_are_left_alone() {
        let records = [("pause/a/1", "index build", PAUSE), ("pause/a", OWN, PAUSE), ("pause/b", "load", PAUSE)];
        let temporary = read(&records);
        assert_eq!(of_others(&temporary), Some("index build"));
        assert_eq!(to_restore(&temporary), [("pause/a".into(), None)]);
        assert_eq!(temporary.all().pause("a", 1).map(|pause| pause.entry.record.reason.as_str()), Some(OWN));
    }

    #[test]
    fn what_was_paused_and_resumed_long_before_does_not_come_back() {
        let records = [
            ("pause/a", "index build", PAUSE),
            ("pause/a", "another switch", PAUSE),
            ("pause/a", "another switch", RESUME),
            ("pause/a", OWN, PAUSE),
        ];
        let temporary = read(&records);
        assert_eq!((of_others(&temporary), to_restore(&temporary)), (None, vec![("pause/a".into(), None)]));
    }
}
