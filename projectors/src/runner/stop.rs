//! A partition stops at a record that cannot be read, or where it has too many parked rows, or one of an earlier log.

use kafka::{DecodeError, Recovery};
use trace::Place;

use super::{Projector, Runner, Unreadable};
use crate::error::Error;

/// Down while a partition is stopped.
fn condition(partition: i32) -> String {
    format!("partition {partition}")
}

impl<P: Projector> Runner<P> {
    /// A record on a topic that we write ourselves can't be read: a person has to look. The other partitions go on.
    pub(super) fn stop(
        &mut self,
        partition: i32,
        offset: i64,
        sha256: String,
        error: &DecodeError,
        trace_id: Option<String>,
    ) -> Result<(), Error> {
        let record = Place { topic: self.consumer.topic(), partition, offset };
        let skip = skip_command(&self.name, &format!("{}/{partition}/{offset}", self.topic), &sha256);
        let reason = format!(
            "{record} cannot be read: {error}. The partition is stopped there. If this program is too old for the record, \
             upgrade it; if the record is garbage, run `{skip}`"
        );
        tracing::error!(position = %record, trace_id, sha256, reason, "a partition is stopped");
        self.control.stopped(partition, offset, &sha256, &format!("cannot be read: {error}"));
        self.stopped.insert(partition, Unreadable { offset, sha256 });
        self.readiness.set_unready(&condition(partition), reason);
        self.consumer.stop(partition)?;
        Ok(())
    }

    /// Stops the partitions that the projector refuses.
    pub(super) fn stop_refused(&mut self) -> Result<(), Error> {
        for (partition, error) in self.projector.take_refused() {
            // Where it would go on.
            let offset = self.consumer.committed(&[partition])?.get(&partition).copied().flatten().unwrap_or_default();
            self.stop_full(partition, offset, error)?;
        }
        Ok(())
    }

    /// A partition has too many parked rows, or one of an earlier log: a person has to look. The other partitions go on. It is stopped until
    /// the process ends, or the partition goes.
    pub(super) fn stop_full(&mut self, partition: i32, offset: i64, error: Error) -> Result<(), Error> {
        let reason = format!("{:#}", anyhow::Error::new(error));
        let position = Place { topic: self.consumer.topic(), partition, offset };
        tracing::error!(%position, reason, "a partition is stopped");
        self.control.stopped(partition, offset, "", &reason);
        self.stopped.insert(partition, Unreadable { offset, sha256: String::new() });
        self.readiness.set_unready(&condition(partition), reason);
        // Otherwise its records are read and dropped.
        self.consumer
            .stop(partition)
            .or_else(|error| if error.recovery() == Recovery::Fatal { Err(error.into()) } else { Ok(()) })
    }

    /// A partition is not stopped any more, or not ours.
    pub(super) fn ends_stop(&mut self, partition: i32) {
        if self.stopped.remove(&partition).is_some() {
            self.readiness.set_ready(&condition(partition));
        }
    }
}

/// The command that skips a record, by its name without the installation's prefix. `group` is the one that is stopped, that of a
/// later generation too: the stop is recorded under its name. The skip holds for all generations.
fn skip_command(group: &str, record: &str, sha256: &str) -> String {
    format!("cartctl skip {group} {record} --expect sha256:{sha256} --reason TEXT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_partition_that_cannot_be_read_holds_the_tries_of_its_rows() {
        let stopped = |sha256: &str| Unreadable { offset: 7, sha256: sha256.to_owned() };
        assert!(stopped("9f0c").is_unreadable());
        assert!(!stopped("").is_unreadable(), "its parked rows are too many: tries make room");
    }

    #[test]
    fn the_command_names_the_group_that_is_stopped() {
        assert_eq!(
            skip_command("popular-items-g2", "item-purchased/3/77", "9f0c"),
            "cartctl skip popular-items-g2 item-purchased/3/77 --expect sha256:9f0c --reason TEXT"
        );
    }
}
