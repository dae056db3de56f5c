//! Follows the control topic for all members of a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
        let follower = Self(Arc::new(Shared { topic, state, version: AtomicU64::new(0) }));
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

    /// Reads what the topic has now. Blocks; a look at the end suffices when nothing is new.
    ///
    /// # Errors
    /// If the brokers or the registry do not respond.
    pub fn read_to_end(&self) -> Result<(), Error> {
        let next = self.state().next;
        if self.0.topic.bounds()?.1 <= next {
            return Ok(());
        }
        self.0.topic.read(next, |entry| self.take(entry))
    }

    /// Takes a record, unless it was taken before: the thread and a member may read the same one.
    fn take(&self, LogEntry { offset, key, record }: LogEntry) {
        let mut state = self.state();
        if offset < state.next {
            return;
        }
        state.next = offset + 1;
        match (key.parse(), record.transpose()) {
            (Ok(key), Ok(record)) => state.controls.apply(offset, key, record),
            // It must not block all groups. `cartctl log` shows it.
            (Err(error), _) => tracing::warn!(offset, %error, "a control record is ignored"),
            (Ok(_), Err(reason)) => tracing::warn!(offset, key, reason, "a control record is ignored"),
        }
        drop(state);
        self.0.version.fetch_add(1, Ordering::Release);
    }

    fn follow(&self, shutdown: &Shutdown) {
        while !shutdown.is_requested() {
            if let Err(error) = self.follow_once(shutdown) {
                let reason = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(reason, "the control topic cannot be read: pauses, resumes and skips wait");
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
