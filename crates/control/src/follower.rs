//! Follows the control topic for all members of a process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cart::{CartCommand, ControlKey, Position};
use kafka::Error;
use service::Shutdown;

use crate::Controls;
use crate::topic::{ControlTopic, LogEntry};

/// How long a wait for the next record blocks. A shutdown waits for it too.
const POLL: Duration = Duration::from_millis(500);

/// Between two attempts to read after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What is known of the control topic. Clones share it.
#[derive(Debug, Clone)]
pub struct Follower(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    topic: ControlTopic,
    state: Mutex<State>,
    /// Counts the records that were taken, so that members see without a lock that there is nothing new.
    version: AtomicU64,
    /// Whether any command was ever discarded: otherwise the state is not asked for each command.
    has_discards: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    controls: Controls,
    /// The offset of the next record to read.
    next: i64,
}

impl Follower {
    /// Reads the topic to its end. What is appended later is known after [`Follower::read_to_end`]. Blocks.
    ///
    /// # Errors
    /// If the brokers or the registry do not respond, or there is no such topic.
    pub fn open(topic: ControlTopic) -> Result<Self, Error> {
        let (start, end) = topic.bounds()?;
        let next = if fail_points::is_off("guard-control") { end } else { start };
        let state = Mutex::new(State { next, ..State::default() });
        let (version, has_discards) = (AtomicU64::new(0), AtomicBool::new(false));
        let follower = Self(Arc::new(Shared { topic, state, version, has_discards }));
        follower.read_to_end()?;
        Ok(follower)
    }

    /// Reads the topic to its end, and lets a thread follow it from then on. Blocks.
    ///
    /// # Errors
    /// As [`Follower::open`].
    pub fn start(topic: ControlTopic, shutdown: Shutdown) -> Result<Self, Error> {
        let follower = Self::open(topic)?;
        let thread = std::thread::Builder::new().name(String::from("control"));
        let followed = follower.clone();
        thread
            .spawn(move || followed.follow(&shutdown))
            .map_err(|error| Error::fatal("starting the thread of the control topic", error))?;
        Ok(follower)
    }

    pub(crate) fn topic(&self) -> &ControlTopic {
        &self.0.topic
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grows with each record.
    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Looks at what holds now.
    pub fn with<R>(&self, look: impl FnOnce(&Controls) -> R) -> R {
        look(&self.state().controls)
    }

    /// Why the command of a record is given up; `None` if no operator has discarded this very record. `sha256` is asked for the hash of
    /// the record if there is a discard at its position.
    #[must_use]
    pub fn discarded(
        &self,
        partition: i32,
        position: Position,
        command: &CartCommand,
        sha256: impl FnOnce() -> String,
    ) -> Option<String> {
        if !self.0.has_discards.load(Ordering::Acquire) {
            return None;
        }
        self.with(|controls| {
            let discard = controls.discard(partition, position)?;
            let (found, record) = (sha256(), &discard.entry.record);
            if !discard.is_of(command, &found) {
                tracing::warn!(partition, %position, expected = discard.sha256, found, "a discard is for another record");
                return None;
            }
            Some(format!("discarded by {}: {}", record.by, record.reason))
        })
    }

    /// Reads what the topic has now. Blocks; a look at the end suffices when nothing is new.
    ///
    /// # Errors
    /// If the brokers or the registry do not respond, or the topic was replaced.
    pub fn read_to_end(&self) -> Result<(), Error> {
        let next = self.state().next;
        if has_more(next, self.0.topic.bounds()?.1)? {
            self.0.topic.read(next, |entry| self.take(entry))?;
        }
        Ok(())
    }

    /// Takes a record, unless it was taken before: the thread and a member may read the same one.
    fn take(&self, LogEntry { offset, key, record }: LogEntry) {
        let mut state = self.state();
        if offset < state.next {
            return;
        }
        state.next = offset + 1;
        match (key.parse(), record.transpose()) {
            (Ok(key), Ok(record)) => {
                let is_discard = matches!(key, ControlKey::Discard { .. });
                state.controls.apply(offset, key, record);
                self.0.has_discards.fetch_or(is_discard, Ordering::Release);
            }
            // It must not block all groups. `cartctl log` shows it.
            (Err(error), _) => tracing::warn!(offset, %error, "a control record is ignored"),
            (Ok(_), Err(reason)) => tracing::warn!(offset, key, reason, "a control record is ignored"),
        }
        drop(state);
        self.0.version.fetch_add(1, Ordering::Release);
    }

    fn follow(&self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            if fail_points::fails("control-unfollowed") {
                std::thread::sleep(RETRY_PAUSE);
            } else if let Err(error) = self.follow_once(shutdown) {
                let reason = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(reason, "the control topic cannot be read: pauses, resumes, skips and discards wait");
                std::thread::sleep(RETRY_PAUSE);
            }
        }
    }

    fn follow_once(&self, shutdown: &Shutdown) -> Result<(), Error> {
        let next = self.state().next;
        let mut reader = self.0.topic.follow(next)?;
        while !shutdown.is_requested() {
            if let Some(message) = reader.follow(POLL)? {
                self.take(self.0.topic.entry(&message)?);
            }
        }
        Ok(())
    }
}

/// Whether there are records behind those that were read. Fails if there are fewer: then it is another topic, and what holds is not known.
fn has_more(next: i64, end: i64) -> Result<bool, Error> {
    if end < next {
        let reason = format!(
            "it ends at offset {end}, and records before {next} were read: it was replaced; restart this program"
        );
        return Err(Error::fatal("reading the control topic", reason));
    }
    Ok(end > next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_topic_that_has_become_shorter_is_an_error() {
        assert!(matches!((has_more(3, 3), has_more(3, 4)), (Ok(false), Ok(true))));
        let error = has_more(3, 2).map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        assert!(error.is_err_and(|text| text.contains("restart this program")));
    }
}
