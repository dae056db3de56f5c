//! The connections of each address, and the idle time of a connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Limits the connections of each IP address. Clones share the counts.
#[derive(Debug, Clone)]
pub(super) struct PerIpLimiter {
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
    max: u32,
}

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    limiter: PerIpLimiter,
    address: IpAddr,
}

impl PerIpLimiter {
    /// At most `max` connections for each address; 0 means no limit.
    pub(super) fn new(max: u32) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// Counts a connection; `None` if its address has the maximum number.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<ConnectionGuard> {
        let address = counted_address(peer);
        let mut counts = self.counts();
        let count = counts.entry(address).or_insert(0);
        if self.max > 0 && *count >= self.max {
            return None;
        }
        *count += 1;
        Some(ConnectionGuard { limiter: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut counts = self.limiter.counts();
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            // An address without connections takes no memory.
            Some(_) | None => drop(counts.remove(&self.address)),
        }
    }
}

/// An IPv6 client has the 2^64 addresses of its network, so they are counted as one.
fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

/// Tracks the requests of one connection, and since when it has none. Clones track the same connection.
#[derive(Debug, Clone)]
pub(super) struct IdleTracker(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    in_flight: usize,
    /// The end of the idle time, if no request arrives.
    ends_at: Instant,
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard {
    tracker: IdleTracker,
    idle_timeout: Duration,
}

impl IdleTracker {
    /// Tracks a new connection. Its first request must arrive within `first`.
    pub(super) fn new(first: Duration) -> Self {
        Self(Arc::new(Mutex::new(State { in_flight: 0, ends_at: Instant::now() + first })))
    }

    /// Starts a request.
    pub(super) fn begin(&self, idle_timeout: Duration) -> RequestGuard {
        self.state().in_flight += 1;
        RequestGuard { tracker: self.clone(), idle_timeout }
    }

    /// The client has read a part of a long-lived response.
    pub(super) fn touch(&self, idle_timeout: Duration) {
        self.state().ends_at = Instant::now() + idle_timeout;
    }

    /// Returns when the connection has had no request for the idle timeout.
    pub(super) async fn idle(&self, idle_timeout: Duration) {
        loop {
            let until = {
                let state = self.state();
                if state.in_flight > 0 { Instant::now() + idle_timeout } else { state.ends_at }
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.tracker.state();
        state.in_flight -= 1;
        state.ends_at = Instant::now() + self.idle_timeout;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_address() {
        let limiter = PerIpLimiter::new(2);
        let admit = |text: &str| limiter.admit(text.parse().unwrap());
        let held = [admit("192.0.2.1"), admit("::ffff:192.0.2.1"), admit("2001:db8::1"), admit("2001:db8::2:3")];
        assert!(held.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none() && admit("2001:db8::7").is_none());
        assert!(admit("192.0.2.2").is_some() && admit("2001:db8:0:1::1").is_some());
        drop(held);
        assert!(limiter.counts().is_empty());
        let unbounded = PerIpLimiter::new(0);
        let held: Vec<_> = (0..9).map(|_| unbounded.admit("192.0.2.1".parse().unwrap())).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn only_a_connection_without_a_request_is_idle() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(600));
        IdleTracker::new(short).idle(long).await;

        let tracker = IdleTracker::new(short);
        let request = tracker.begin(short);
        let working = tokio::time::timeout(10 * short, tracker.idle(short)).await;
        assert!(working.is_err(), "a request is in flight");
        drop(request);
        tracker.idle(short).await;
        drop(tracker.begin(long));
        assert!(tokio::time::timeout(10 * short, tracker.idle(short)).await.is_err(), "a request has just ended");
    }
}
