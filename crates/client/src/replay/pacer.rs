//! Open loop: when each command is due, and a wakeup at that time.
//!
//! Tokio's timers have a resolution of 1 ms, which is as long as an answer takes: commands would be sent up to 1 ms late, and
//! that would be measured as the service's latency. A thread that sleeps until the exact time is late by some 50 µs.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// When the commands of a run are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    started_at: Instant,
    rate: u32,
}

impl Schedule {
    pub(crate) fn new(started_at: Instant, rate: u32) -> Self {
        Self { started_at, rate }
    }

    /// The command at this place, counted from 1. Computed from the start each time, so that nothing drifts.
    pub(crate) fn due(&self, sequence: u64) -> Instant {
        let since_start = u128::from(sequence - 1) * 1_000_000_000 / u128::from(self.rate);
        self.started_at + Duration::from_nanos(u64::try_from(since_start).unwrap_or(u64::MAX))
    }
}

/// Wakes the loop of a run at given times. Its thread ends when this is dropped and the last wakeup has come.
#[derive(Debug)]
pub(crate) struct Pacer {
    asked: Option<Instant>,
    ask: SyncSender<Instant>,
    wakeup: Arc<Notify>,
}

impl Pacer {
    pub(crate) fn start() -> std::io::Result<Self> {
        // The times only grow, so one for which the thread sleeps and one behind it are enough.
        let (ask, asked) = mpsc::sync_channel(1);
        let wakeup = Arc::new(Notify::new());
        let shared = Arc::clone(&wakeup);
        thread::Builder::new().name("pacer".to_owned()).spawn(move || wake(&asked, &shared))?;
        Ok(Self { asked: None, ask, wakeup })
    }

    /// Returns at that time, or earlier: the caller has to check the clock.
    pub(crate) async fn wait(&mut self, until: Instant) {
        // When the channel is full, the thread wakes this at the earlier times, and the caller waits again.
        if self.asked != Some(until) && self.ask.try_send(until).is_ok() {
            self.asked = Some(until);
        }
        self.wakeup.notified().await;
    }
}

fn wake(asked: &Receiver<Instant>, wakeup: &Notify) {
    while let Ok(until) = asked.recv() {
        thread::sleep(until.saturating_duration_since(Instant::now()));
        wakeup.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_drift() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3);
        assert_eq!(schedule.due(1), start);
        assert_eq!(schedule.due(2), start + Duration::from_nanos(333_333_333));
        assert_eq!(schedule.due(3_000_001), start + Duration::from_secs(1_000_000));
    }

    #[tokio::test]
    async fn wakes_at_each_time() {
        let mut pacer = Pacer::start().expect("a thread");
        for ms in [1, 3, 3, 7] {
            let until = Instant::now() + Duration::from_millis(ms);
            while Instant::now() < until {
                pacer.wait(until).await;
            }
        }
    }
}
