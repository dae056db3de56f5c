//! Who looks at the page. Without a viewer nothing is read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The most viewers at a time. Each costs one open connection and at most one frame in memory.
pub(crate) const VIEWERS_MAX: usize = 200;

/// After this time without a viewer the readers stop.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The viewers, and the newest frame for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    seats: Arc<Semaphore>,
    watched: watch::Sender<bool>,
    seen_at: Arc<Mutex<Instant>>,
    /// The newest frame; a viewer that is slow misses the ones between.
    frames: watch::Sender<Bytes>,
}

/// A viewer's seat, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Seat {
    _permit: OwnedSemaphorePermit,
    audience: Audience,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.audience.note();
    }
}

impl Audience {
    pub(crate) fn new() -> Self {
        Self {
            seats: Arc::new(Semaphore::new(VIEWERS_MAX)),
            watched: watch::Sender::new(false),
            seen_at: Arc::new(Mutex::new(Instant::now())),
            frames: watch::Sender::new(Bytes::new()),
        }
    }

    /// A seat, if one is free.
    pub(crate) fn join(&self) -> Option<Seat> {
        let permit = self.seats.clone().try_acquire_owned().ok()?;
        self.note();
        Some(Seat { _permit: permit, audience: self.clone() })
    }

    /// Notes that somebody looks at the page now.
    pub(crate) fn note(&self) {
        *self.seen_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.watched.send_if_modified(|watched| !std::mem::replace(watched, true));
    }

    pub(crate) fn viewers(&self) -> usize {
        VIEWERS_MAX - self.seats.available_permits()
    }

    /// Ends the reading after a minute without a viewer. Returns whether somebody looks.
    pub(crate) fn check(&self) -> bool {
        let idle = self.seen_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let is_watched = self.viewers() > 0 || idle < IDLE_MAX && *self.watched.borrow();
        self.watched.send_if_modified(|watched| std::mem::replace(watched, is_watched) != is_watched);
        is_watched
    }

    /// Whether somebody looks, and changes of that.
    pub(crate) fn watched(&self) -> watch::Receiver<bool> {
        self.watched.subscribe()
    }

    pub(crate) fn frames(&self) -> watch::Receiver<Bytes> {
        self.frames.subscribe()
    }

    pub(crate) fn show(&self, frame: Bytes) {
        self.frames.send_replace(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_limited_and_reading_goes_on_for_a_while() {
        let audience = Audience::new();
        assert!(!audience.check(), "no viewer has come yet");
        let seats: Vec<_> = (0..VIEWERS_MAX).map_while(|_| audience.join()).collect();
        assert_eq!((seats.len(), audience.viewers()), (VIEWERS_MAX, VIEWERS_MAX));
        assert!(audience.join().is_none());
        assert!(*audience.watched().borrow());
        drop(seats);
        assert!(audience.join().is_some() && audience.check(), "the last one has just left");
        *audience.seen_at.lock().expect("a lock") = Instant::now().checked_sub(IDLE_MAX).expect("a time");
        assert!(!audience.check() && !*audience.watched().borrow());
    }
}
