//! When a worker's transactions begin and end. [`crate::publisher`] carries them out.

use std::time::{Duration, SystemTime};

use super::{Error, IDLE_POLL, Worker};
use crate::publisher::PendingTransaction;

/// Events that wait for a transaction; at this length deciding pauses. It bounds a worker's memory while Kafka commits nothing,
/// and is a second's work or more, far above what comes in between two transactions.
const OUTBOX_LEN_MAX: usize = 20_000;

impl Worker {
    /// Begins a transaction when one is due and the last one has ended; waits for it when the outbox is full.
    pub(super) fn publish(&mut self) -> Result<(), Error> {
        let is_full = self.state.outbox.len() >= OUTBOX_LEN_MAX;
        while !self.wait_for_transaction(if is_full { IDLE_POLL } else { Duration::ZERO })? {
            if !is_full {
                return Ok(());
            }
        }
        let is_due = self.pacing.due_in(SystemTime::now()).is_zero();
        if !self.state.outbox.is_empty() && (is_due || is_full) {
            self.begin_transaction()?;
        }
        Ok(())
    }

    /// As [`crate::publisher::Publisher::wait`]; what is committed counts as applied.
    pub(super) fn wait_for_transaction(&mut self, timeout: Duration) -> Result<bool, kafka::Error> {
        let has_ended = self.publisher.wait(timeout);
        if !matches!(has_ended, Ok(false)) {
            let next_offsets = std::mem::take(&mut self.state.publishing);
            if has_ended.is_ok() {
                self.consumer.applied(next_offsets.iter().copied());
                self.control.went_on(next_offsets);
            }
        }
        has_ended
    }

    fn begin_transaction(&mut self) -> Result<(), Error> {
        let group = self.consumer.group_metadata()?;
        let outbox = std::mem::take(&mut self.state.outbox);
        let offsets = self.consumer.offsets(outbox.next_offsets())?;
        self.state.publishing = outbox.next_offsets().collect();
        self.pacing.start(SystemTime::now());
        self.publisher.begin(PendingTransaction { outbox, offsets, group });
        Ok(())
    }

    /// Commits all that is decided, and waits for it.
    pub(super) fn publish_rest(&mut self) -> Result<(), Error> {
        while !self.wait_for_transaction(IDLE_POLL)? {}
        if !self.state.outbox.is_empty() {
            self.begin_transaction()?;
            while !self.wait_for_transaction(IDLE_POLL)? {}
        }
        Ok(())
    }
}
