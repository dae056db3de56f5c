//! Which partitions have reached the offset before which they are to pause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka::{Error, GroupConsumer, GroupProgress, KafkaArgs};

use crate::holds::Cut;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Looks for partitions that have reached their cut.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    progress: Option<GroupProgress>,
    checked_at: Option<Instant>,
}

impl Cuts {
    /// Looks which partitions have nothing left before their cut. A record at or behind it shows that at once, but there may be
    /// none yet. Returns them, each with its pause.
    pub(crate) fn check(
        &mut self,
        kafka: &KafkaArgs,
        consumer: &GroupConsumer,
        cuts: &BTreeMap<i32, Cut>,
    ) -> Vec<(i32, i64)> {
        if cuts.is_empty() {
            self.progress = None;
            return Vec::new();
        }
        if self.checked_at.is_some_and(|at| at.elapsed() < INTERVAL) {
            return Vec::new();
        }
        self.checked_at = Some(Instant::now());
        match self.nothing_left(kafka, consumer, cuts) {
            Ok(reached) => reached.into_iter().map(|partition| (partition, cuts[&partition].pause)).collect(),
            // Nothing behind the cut is applied meanwhile.
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::debug!(error, "whether the offset of a pause is reached is not known");
                Vec::new()
            }
        }
    }

    /// The partitions without a record between their committed offset and their cut.
    fn nothing_left(
        &mut self,
        kafka: &KafkaArgs,
        consumer: &GroupConsumer,
        cuts: &BTreeMap<i32, Cut>,
    ) -> Result<Vec<i32>, Error> {
        let progress = match self.progress.take() {
            Some(progress) => progress,
            None => GroupProgress::new(kafka, consumer.group(), consumer.topic())?,
        };
        let progress = self.progress.insert(progress);
        let partitions: Vec<i32> = cuts.keys().copied().collect();
        let committed = consumer.committed(&partitions)?;
        let (mut reached, mut starts) = (Vec::new(), BTreeMap::new());
        for (partition, Cut { before, .. }) in cuts {
            let next = match committed.get(partition).copied().flatten() {
                Some(next) => next,
                None => progress.bounds(*partition)?.0,
            };
            if next >= *before {
                reached.push(*partition);
            } else if progress.last_stable_offset(*partition)? >= *before {
                // No record before the cut can appear any more.
                starts.insert(*partition, next);
            }
        }
        if !starts.is_empty() {
            let first = progress.first_records(&starts)?;
            let is_behind =
                |partition: &&i32| first.get(partition).is_none_or(|first| first.offset >= cuts[partition].before);
            reached.extend(starts.keys().filter(is_behind));
        }
        Ok(reached)
    }
}
