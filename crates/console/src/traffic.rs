//! Counts by second: rates, the last minutes as a curve, and sums over the window.

use serde::Serialize;

/// The length of the window: the longest time that any panel sums up.
pub(crate) const WINDOW_SECONDS: usize = 15 * 60;

/// A rate is the mean of this many whole seconds. Fewer would make it jump, more would make it late.
pub(crate) const RATE_SECONDS: i64 = 5;

/// The seconds of the curve.
const CURVE_SECONDS: i64 = 120;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Command,
    Accepted,
    Refused,
    Event,
    Purchase,
}

/// Counts of one span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    pub(crate) commands: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) events: u64,
    pub(crate) purchases: u64,
}

impl Counts {
    fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::Command => &mut self.commands,
            Kind::Accepted => &mut self.accepted,
            Kind::Refused => &mut self.refused,
            Kind::Event => &mut self.events,
            Kind::Purchase => &mut self.purchases,
        } += 1;
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            commands: self.commands + other.commands,
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            events: self.events + other.events,
            purchases: self.purchases + other.purchases,
        }
    }
}

/// The counts of each second of the window, in a ring: a slot is valid if it is of the second that is asked for.
#[derive(Debug)]
pub(crate) struct Traffic {
    slots: Vec<(i64, Counts)>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { slots: vec![(i64::MIN, Counts::default()); WINDOW_SECONDS] }
    }
}

impl Traffic {
    fn index(second: i64) -> usize {
        usize::try_from(second.rem_euclid(WINDOW_SECONDS as i64)).unwrap_or_default()
    }

    /// Counts something that happened at a time (milliseconds since 1970).
    pub(crate) fn add(&mut self, kind: Kind, at_ms: i64) {
        let second = at_ms.div_euclid(1_000);
        let (of, counts) = &mut self.slots[Self::index(second)];
        if *of > second {
            // Older than the window.
            return;
        }
        if *of < second {
            (*of, *counts) = (second, Counts::default());
        }
        counts.add(kind);
    }

    fn second(&self, second: i64) -> Counts {
        let (of, counts) = self.slots[Self::index(second)];
        if of == second { counts } else { Counts::default() }
    }

    fn sum(&self, seconds: std::ops::RangeInclusive<i64>) -> Counts {
        seconds.fold(Counts::default(), |sum, second| sum.plus(&self.second(second)))
    }

    /// The counts of the last [`RATE_SECONDS`] whole seconds.
    pub(crate) fn recent(&self, now_ms: i64) -> Counts {
        let last = now_ms.div_euclid(1_000) - 1;
        self.sum(last + 1 - RATE_SECONDS..=last)
    }

    /// The counts of the window, which includes the current second.
    pub(crate) fn window(&self, now_ms: i64) -> Counts {
        let now = now_ms.div_euclid(1_000);
        self.sum(now + 1 - WINDOW_SECONDS as i64..=now)
    }

    /// Accepted and refused commands of each of the last seconds, oldest first.
    pub(crate) fn curve(&self, now_ms: i64) -> Vec<(u64, u64)> {
        let last = now_ms.div_euclid(1_000) - 1;
        let counts = (last + 1 - CURVE_SECONDS..=last).map(|second| self.second(second));
        counts.map(|counts| (counts.accepted, counts.refused)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_whole_seconds_and_forgets_those_before_the_window() {
        let mut traffic = Traffic::default();
        let start = 1_700_000_000_000;
        for at in [start, start + 999, start + 1_000, start + 4_999] {
            traffic.add(Kind::Command, at);
        }
        traffic.add(Kind::Refused, start + 1_500);
        // The current second is not whole yet.
        assert_eq!(traffic.recent(start + 4_999).commands, 3);
        assert_eq!(traffic.recent(start + 5_000).commands, 4);
        assert_eq!(traffic.window(start + 4_999), Counts { commands: 4, refused: 1, ..Counts::default() });
        assert_eq!(traffic.curve(start + 5_000)[116], (0, 1));
        let later = start + 1_000 * i64::try_from(WINDOW_SECONDS).expect("small");
        assert_eq!(traffic.window(later).commands, 2);
        traffic.add(Kind::Command, later);
        assert_eq!(traffic.window(later).commands, 3);
        // It would replace the newer count in its slot.
        traffic.add(Kind::Command, start);
        assert_eq!(traffic.window(later).commands, 3);
    }
}
