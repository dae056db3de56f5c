//! Partitions come and go.

use kafka::AssignmentEvent;
use rdkafka::Offset;

use super::{Batch, Projector, Runner, offsets};
use crate::error::Error;

impl<P: Projector> Runner<P> {
    /// `read` is where the record was read that came with the events. Returns whether it is to be dropped: it came before what
    /// operators want of its partition was known, and comes again.
    pub(super) fn follow_assignment(
        &mut self,
        batch: &mut Batch<P::Event>,
        read: Option<(i32, i64)>,
    ) -> Result<bool, Error> {
        let events = self.consumer.assignment_events();
        follow_all(events, |event| match event {
            AssignmentEvent::Assigned(partitions) => self.begin_partitions(&partitions, read),
            AssignmentEvent::Revoked(partitions) => {
                self.end_partitions(&partitions, batch);
                Ok(false)
            }
        })
    }

    fn begin_partitions(&mut self, partitions: &[i32], read: Option<(i32, i64)>) -> Result<bool, Error> {
        self.control.assigned(&self.consumer, partitions)?;
        let read = read.filter(|(partition, _)| partitions.contains(partition));
        if let Some((partition, offset)) = read {
            self.seek([(partition, Offset::Offset(offset))])?;
        }
        let starts = self.projector.start_offsets(partitions)?;
        self.seek(offsets(starts))?;
        self.stop_refused()?;
        Ok(read.is_some())
    }

    fn end_partitions(&mut self, partitions: &[i32], batch: &mut Batch<P::Event>) {
        batch.records.retain(|record| !partitions.contains(&record.partition));
        batch.next_offsets.retain(|partition, _| !partitions.contains(partition));
        self.projector.forget_partitions(partitions);
        self.control.revoked(partitions);
        for partition in partitions {
            // The new owner reports it. If the partition comes back, its record is met again.
            self.ends_stop(*partition);
        }
    }
}

/// Follows all events, also those behind one that cannot be followed now: a rewind repeats what that one lacks. Returns whether the
/// record that was read is to be dropped, or the first error.
fn follow_all<T, E>(
    events: impl IntoIterator<Item = T>,
    mut follow: impl FnMut(T) -> Result<bool, E>,
) -> Result<bool, E> {
    let mut followed = Ok(false);
    for event in events {
        let one = follow(event);
        followed = followed.and_then(|is_dropped| Ok(one? || is_dropped));
    }
    followed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_behind_one_that_fails_are_followed_too() {
        let assigned = |partition| AssignmentEvent::Assigned(vec![partition]);
        let revoked = AssignmentEvent::Revoked(vec![1]);
        let mut followed = Vec::new();
        let result = follow_all([assigned(1), assigned(2), revoked.clone()], |event| {
            followed.push(event);
            if followed.len() < 3 { Err(followed.len()) } else { Ok(false) }
        });
        assert_eq!(result, Err(1), "the first error");
        assert_eq!(followed, [assigned(1), assigned(2), revoked]);
    }

    #[test]
    fn a_record_is_dropped_if_one_of_the_events_wants_it() {
        for (dropped, expected) in [([false, false], false), ([true, false], true), ([false, true], true)] {
            assert_eq!(follow_all(dropped, Ok::<_, ()>), Ok(expected), "{dropped:?}");
        }
    }
}
