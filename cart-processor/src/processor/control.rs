//! Stops partitions, and pauses and resumes them as operators want (`cartctl pause`).

use control::Changes;
use trace::Place;

use super::stops::Stop;
use super::{Error, Worker};

impl Worker {
    /// Between two batches: what was decided is published and committed before a partition is paused.
    pub(super) fn follow_control(&mut self) -> Result<(), Error> {
        let Changes { pause, resume } = self.control.changes(&self.consumer)?;
        if !pause.is_empty() && !fail_points::fails("pause-late") {
            self.abandon_try(&pause);
            self.publish_rest()?;
            self.control.pause(&self.consumer, &pause)?;
        }
        if resume.is_empty() {
            return Ok(());
        }
        if fail_points::fails("resume-fails") {
            return Err(kafka::Error::retry("resuming partitions", "a test lets it fail").into());
        }
        // Nothing behind a cut's dropped records was decided, so the partitions go on at their committed offsets.
        self.publish_rest()?;
        for (partition, next) in self.consumer.committed(&resume)? {
            let start = self.consumer.start(partition, next)?;
            self.consumer.resume(partition)?;
            self.consumer.seek(partition, start)?;
            self.control.resumed(&[partition]);
        }
        self.pause_stopped()
    }

    /// A partition is stopped. Its condition is the worker's own: another one of the process may have the partition soon.
    pub(super) fn stop(&mut self, stop: Stop, error: Error) {
        let Stop { partition, offset, .. } = stop;
        let error = anyhow::Error::new(error);
        if self.state.stopped.insert(stop) {
            let reason = format!("{error:#}");
            // Without a hash: a command is never skipped.
            self.control.stopped(partition, offset, "", &reason);
            let position = Place { topic: self.consumer.topic(), partition, offset };
            tracing::error!(worker = self.name, %position, reason, "a partition is stopped");
        }
        self.readiness.set_unready(&self.stop_condition(partition), error);
    }

    /// A partition goes, or comes: its new owner meets the record again, and reports it.
    pub(super) fn end_stop(&mut self, partition: i32) {
        if self.state.stopped.remove(partition) {
            self.readiness.set_ready(&self.stop_condition(partition));
        }
    }

    fn stop_condition(&self, partition: i32) -> String {
        format!("{}, partition {partition}", self.name)
    }

    /// Reads nothing of the partitions that are stopped.
    pub(super) fn pause_stopped(&self) -> Result<(), Error> {
        for partition in self.state.stopped.partitions() {
            if self.state.partitions.contains_key(&partition) {
                self.consumer.stop(partition)?;
            }
        }
        Ok(())
    }
}
