//! A partition stops at a record that cannot be read.

use kafka::DecodeError;

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
    ) -> Result<(), Error> {
        let record = format!("{}/{partition}/{offset}", self.consumer.topic());
        let skip = skip_command(&self.name, &format!("{}/{partition}/{offset}", self.topic), &sha256);
        let reason = format!(
            "{record} cannot be read: {error}. The partition is stopped there. If this program is too old for the record, \
             upgrade it; if the record is garbage, run `{skip}`"
        );
        tracing::error!(partition, offset, sha256, reason, "a partition is stopped");
        self.control.stopped(partition, offset, &sha256, &format!("cannot be read: {error}"));
        self.stopped.insert(partition, Unreadable { offset, sha256 });
        self.readiness.set_unready(&condition(partition), reason);
        self.consumer.stop(partition)?;
        Ok(())
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
    fn the_command_names_the_group_that_is_stopped() {
        assert_eq!(
            skip_command("popular-items-g2", "item-purchased/3/77", "9f0c"),
            "cartctl skip popular-items-g2 item-purchased/3/77 --expect sha256:9f0c --reason TEXT"
        );
    }
}
