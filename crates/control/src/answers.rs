//! What a member writes to the control topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cart::{ControlKey, ControlRecord};
use kafka::Error;

use crate::ControlTopic;

/// Before what could not be recorded is tried to be recorded again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Writes at once, or later what does no harm when it comes late.
#[derive(Debug)]
pub(crate) struct Answers {
    topic: ControlTopic,
    waiting: BTreeMap<ControlKey, Option<ControlRecord>>,
    failed_at: Option<Instant>,
}

impl Answers {
    pub(crate) fn new(topic: ControlTopic) -> Self {
        Self { topic, waiting: BTreeMap::new(), failed_at: None }
    }

    /// Writes a record now, in place of one of its key that waits. Blocks.
    pub(crate) fn now(&mut self, key: &ControlKey, record: Option<&ControlRecord>) -> Result<(), Error> {
        let sent = self.topic.runtime().block_on(self.topic.send(key, record));
        // Also without the grant to write: a member that can't answer waits, and says so.
        sent.map_err(|error| Error::retry(format!("recording {key}"), error))?;
        self.waiting.remove(key);
        Ok(())
    }

    /// Writes a record the next time that [`Answers::write`] is called. Without a value it ends what its key stands for.
    pub(crate) fn later(&mut self, key: ControlKey, record: Option<ControlRecord>) {
        self.waiting.insert(key, record);
        self.failed_at = None;
    }

    pub(crate) fn forget(&mut self, key: &ControlKey) {
        self.waiting.remove(key);
    }

    /// Writes what waits. Blocks.
    pub(crate) fn write(&mut self) {
        if self.waiting.is_empty() || self.failed_at.is_some_and(|at| at.elapsed() < RETRY_PAUSE) {
            return;
        }
        for (key, record) in self.waiting.clone() {
            if let Err(error) = self.now(&key, record.as_ref()) {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(%key, error, "a control record could not be written yet");
                self.failed_at = Some(Instant::now());
                return;
            }
        }
    }
}
