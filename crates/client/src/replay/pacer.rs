//! Open loop: when each command is due, and a bell that rings then.
//!
//! Tokio's timers have milliseconds, which is what an answer takes: commands would leave up to one late, and that would be
//! measured as the service's latency. A thread that sleeps until the exact time is right to some 50 µs.

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

/// The bell. Its thread ends when it is dropped and the last ring is over.
#[derive(Debug)]
pub(crate) struct Pacer {
    asked: Option<Instant>,
    ask: SyncSender<Instant>,
    bell: Arc<Notify>,
}

impl Pacer {
    pub(crate) fn start() -> std::io::Result<Self> {
        // Times asked for only grow, so one in hand and one waiting are enough.
        let (ask, asked) = mpsc::sync_channel(1);
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        thread::Builder::new().name("pacer".to_owned()).spawn(move || ring(&asked, &rung))?;
        Ok(Self { asked: None, ask, bell })
    }

    /// Returns at that time, or earlier: the caller looks at the clock.
    pub(crate) async fn wait(&mut self, until: Instant) {
        // When the thread has a time in hand and one waiting, it rings at the latter and this is asked again.
        if self.asked != Some(until) && self.ask.try_send(until).is_ok() {
            self.asked = Some(until);
        }
        self.bell.notified().await;
    }
}

fn ring(asked: &Receiver<Instant>, bell: &Notify) {
    while let Ok(until) = asked.recv() {
        thread::sleep(until.saturating_duration_since(Instant::now()));
        bell.notify_one();
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
    async fn the_bell_rings_at_each_time() {
        let mut pacer = Pacer::start().expect("a thread");
        for ms in [1, 3, 3, 7] {
            let until = Instant::now() + Duration::from_millis(ms);
            while Instant::now() < until {
                pacer.wait(until).await;
            }
        }
    }
}
