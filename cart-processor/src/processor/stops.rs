//! The partitions that are stopped, each until its process ends or it is revoked.

use std::collections::HashMap;

/// A partition is to be stopped: a person has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) partition: i32,
    /// Where it stops.
    pub(super) offset: i64,
    /// Its parked carts are not tried either. Where they are too many they are tried: that makes room.
    pub(super) holds_tries: bool,
}

/// The partitions that are stopped.
#[derive(Debug, Default)]
pub(super) struct Stops(HashMap<i32, bool>);

impl Stops {
    /// False if the partition is stopped so already.
    pub(super) fn insert(&mut self, stop: Stop) -> bool {
        self.0.insert(stop.partition, stop.holds_tries) != Some(stop.holds_tries)
    }

    /// Whether the partition was stopped.
    pub(super) fn remove(&mut self, partition: i32) -> bool {
        self.0.remove(&partition).is_some()
    }

    pub(super) fn contains(&self, partition: i32) -> bool {
        self.0.contains_key(&partition)
    }

    /// Whether no parked cart of the partition is to be tried.
    pub(super) fn hold_tries(&self, partition: i32) -> bool {
        self.0.get(&partition).copied().unwrap_or_default()
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_reported_once_and_again_after_the_partition_was_revoked() {
        let mut stops = Stops::default();
        let too_many = Stop { partition: 3, offset: 7, holds_tries: false };
        assert!(stops.insert(too_many) && !stops.insert(too_many), "known");
        assert!(!stops.hold_tries(3) && !stops.hold_tries(4), "tries make room");
        assert!(stops.insert(Stop { holds_tries: true, ..too_many }), "stopped for another reason");
        assert!(stops.hold_tries(3) && stops.contains(3));
        assert!(stops.remove(3) && !stops.remove(3));
        assert!(!stops.contains(3) && !stops.hold_tries(3) && stops.partitions().next().is_none());
        assert!(stops.insert(too_many), "its record is met again");
    }
}
