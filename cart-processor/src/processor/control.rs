//! Pauses and resumes partitions as operators want (`cartctl pause`).

use control::Changes;

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
}
