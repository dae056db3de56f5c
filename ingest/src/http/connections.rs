//! Who is connected, and whether they do anything.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many connections each address has. Clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
    max: u32,
}

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// At most `max` for each; 0 for any number.
    pub(crate) fn new(max: u32) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// Counts a connection; `None` when its address has as many as it may.
    pub(crate) fn count(&self, peer: IpAddr) -> Option<Counted> {
        let address = holder(peer);
        let mut counts = self.counts();
        let count = counts.entry(address).or_insert(0);
        if self.max > 0 && *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: self.clone(), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        match counts.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            // Addresses that are gone take no memory.
            Some(_) | None => drop(counts.remove(&self.address)),
        }
    }
}

/// Whoever has one IPv6 address has the 2^64 of its network.
fn holder(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

/// Whether a connection has a request under way, and since when not. Clones are of the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    under_way: usize,
    /// When the connection is idle for too long, unless something happens.
    ends_at: Instant,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    activity: Activity,
    idle_timeout: Duration,
}

impl Activity {
    /// A new connection, whose first request must come in time.
    pub(crate) fn new(first: Duration) -> Self {
        Self(Arc::new(Mutex::new(State { under_way: 0, ends_at: Instant::now() + first })))
    }

    /// A request has come.
    pub(crate) fn begin(&self, idle_timeout: Duration) -> UnderWay {
        self.state().under_way += 1;
        UnderWay { activity: self.clone(), idle_timeout }
    }

    /// Returns when there has been nothing to do for too long.
    pub(crate) async fn idle(&self, idle_timeout: Duration) {
        loop {
            let until = {
                let state = self.state();
                if state.under_way > 0 { Instant::now() + idle_timeout } else { state.ends_at }
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

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.under_way -= 1;
        state.ends_at = Instant::now() + self.idle_timeout;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count() {
        let addresses = Addresses::new(2);
        let count = |text: &str| addresses.count(text.parse().unwrap());
        let held = [count("192.0.2.1"), count("::ffff:192.0.2.1"), count("2001:db8::1"), count("2001:db8::2:3")];
        assert!(held.iter().all(Option::is_some));
        assert!(count("192.0.2.1").is_none() && count("2001:db8::7").is_none());
        assert!(count("192.0.2.2").is_some() && count("2001:db8:0:1::1").is_some());
        drop(held);
        assert!(addresses.counts().is_empty());
        let unbounded = Addresses::new(0);
        let held: Vec<_> = (0..9).map(|_| unbounded.count("192.0.2.1".parse().unwrap())).collect();
        assert!(held.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn only_a_connection_without_a_request_is_idle() {
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(600));
        Activity::new(short).idle(long).await;

        let activity = Activity::new(short);
        let request = activity.begin(short);
        let working = tokio::time::timeout(10 * short, activity.idle(short)).await;
        assert!(working.is_err(), "a request is under way");
        drop(request);
        activity.idle(short).await;
        drop(activity.begin(long));
        assert!(tokio::time::timeout(10 * short, activity.idle(short)).await.is_err(), "one has just been");
    }
}
