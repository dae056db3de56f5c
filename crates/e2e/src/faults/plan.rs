//! The order of faults, which follows from a seed, so that a run can be repeated.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

/// The load of a run.
#[derive(Debug, Clone)]
pub struct Load {
    /// Commands per second before, during and after each fault.
    pub rate: u32,
    /// How long the load continues after everything is ready again.
    pub rest: Duration,
}

/// How long a store is paused.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(60);

/// A fault. Each is healed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// No fault, for comparison
    Quiet,
    /// kill -9 of an ingest, at any time
    KillIngest,
    /// kill -9 of a cart-processor, at any time
    KillProcessor,
    /// kill -9 of a projector, at any time
    KillProjector,
    /// A service crashes at a named place, before or after a write or commit
    CrashPoint,
    /// A cart-processor or a projector stops at a named place, before or after a write or commit; another takes over; it
    /// continues
    StopPoint,
    /// A cart-processor or a projector stops while its requests to one server are held back, and then arrive; another takes
    /// over; it continues
    StopInFlight,
    /// An ingest's or a cart-processor's clock is a day ahead or behind
    ClockOff,
    /// SIGTERM and restart of every service, one after the other
    RollingRestart,
    /// A cart-processor is paused until its session times out; another takes over; it continues
    PauseProcessor,
    /// A projector is paused until its session times out; another takes over; it continues
    PauseProjector,
    /// kill -9 and restart of the broker
    KillKafka,
    /// kill -9 and restart of Cassandra
    KillCassandra,
    /// kill -9 and restart of PostgreSQL
    KillPostgres,
    /// The broker is paused
    PauseKafka,
    /// Cassandra is paused for a minute
    PauseCassandra,
    /// PostgreSQL is paused for a minute
    PausePostgres,
    /// All connections of PostgreSQL are closed repeatedly
    EndConnections,
    /// The schema registry is paused; only a cart-processor that is started waits for it, and logs that
    PauseRegistry,
    /// The schema registry is slow while a cart-processor is started
    SlowRegistry,
    /// The broker's disk is filled, and emptied again (mounts a disk: needs root or a namespace)
    FullDiskKafka,
    /// Cassandra's disk is filled, and emptied again (mounts a disk)
    FullDiskCassandra,
    /// PostgreSQL's disk is filled, and emptied again (mounts a disk)
    FullDiskPostgres,
    /// Another producer leaves a transaction open on cart-commands, cart-events and item-purchased
    ForeignTransaction,
    /// Garbage and misplaced commands are appended to cart-commands
    Garbage,
    /// Another producer's transactions write garbage: half are aborted, on cart-commands, cart-events and item-purchased;
    /// half are committed, on cart-commands
    AbortedTransactions,
    /// Two cart-processors have the same name, and so the same transactional ids
    Twins,
    /// One cart-processor, then six, then one
    Scale,
    /// An ingest runs out of file descriptors while hundreds of clients connect
    FewDescriptors,
    /// Cart-processors start and stop, one per second for a minute
    Storm,
    /// An operator pauses a group (`cartctl pause`); one of its members is killed and restarted; the operator resumes it
    PauseGroup,
    /// A cart's journal is damaged and the cart-processors are killed: the cart is parked, then repaired and tried again
    /// (`cartctl parked retry`)
    ParkCart,
    /// A row of a read table is damaged (Cassandra) or rejected (PostgreSQL): the row is parked, a projector is killed, the row is
    /// repaired and tried again (`cartctl parked rows retry`)
    ParkRow,
    /// A read model is built anew (`cartctl rebuild`), compared, and switched to; it stays, or readers return; the other
    /// generation is dropped
    RebuildSwitch,
    /// The connections to a server are closed, and new ones are rejected
    LinkCut,
    /// Traffic to and from a server is delayed
    LinkSlow,
    /// Traffic to and from a server is limited to few bytes per second
    LinkThrottled,
    /// Traffic to and from a server stops, while connections stay open
    LinkStill,
    /// A server receives all requests, and its responses are lost
    LinkOneWay,
    /// The connections to a server are closed repeatedly
    LinkFlaps,
    /// A commit is executed, and its response is lost (Kafka, PostgreSQL)
    NoCommitAnswers,
    /// The response to a commit arrives after its timeout (Kafka, PostgreSQL)
    LateCommitAnswers,
    /// --cluster: kill -9 and restart of one of three brokers, any
    KillBroker,
    /// --cluster: kill -9 and restart of the broker that coordinates the cart-processors' group
    KillGroupCoordinator,
    /// --cluster: kill -9 and restart of the broker that coordinates a cart-processor's transactions
    KillTransactionCoordinator,
    /// --cluster: every partition gets another leader, so every group and transaction another coordinator
    MoveLeaders,
    /// --cluster: kill -9 and restart of one of three Cassandra nodes
    KillNode,
    /// --cluster: one of three Cassandra nodes is paused for a minute
    PauseNode,
}

impl Fault {
    /// Whether it needs a cluster, in which clients must not get errors. The other faults need one of each server.
    #[must_use]
    pub fn is_for_cluster(self) -> bool {
        matches!(
            self,
            Self::KillBroker
                | Self::KillGroupCoordinator
                | Self::KillTransactionCoordinator
                | Self::MoveLeaders
                | Self::KillNode
                | Self::PauseNode
        )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use clap::ValueEnum as _;
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", clap::builder::PossibleValue::get_name))
    }
}

impl Fault {
    /// Whether it needs a separate disk, which not every user may mount.
    #[must_use]
    pub fn needs_disks(self) -> bool {
        matches!(self, Self::FullDiskKafka | Self::FullDiskCassandra | Self::FullDiskPostgres)
    }
}

/// The planned faults.
#[derive(Debug)]
pub struct Plan {
    seed: u64,
    random: StdRng,
    left: Left,
    /// The remaining values of each shuffled deck, by its name.
    decks: BTreeMap<&'static str, Vec<usize>>,
}

#[derive(Debug)]
enum Left {
    /// These, in this order.
    List(std::vec::IntoIter<Fault>),
    /// These at random, until this time.
    Until(Vec<Fault>, Instant),
}

impl Plan {
    /// These faults in this order.
    #[must_use]
    pub fn of(faults: Vec<Fault>, seed: u64) -> Self {
        Self::new(seed, Left::List(faults.into_iter()))
    }

    /// These at random for this time. None comes again before each has come; about a quarter of the time there is no fault.
    #[must_use]
    pub fn mix(faults: Vec<Fault>, seed: u64, time: Duration) -> Self {
        Self::new(seed, Left::Until(faults, Instant::now() + time))
    }

    fn new(seed: u64, left: Left) -> Self {
        Self { seed, random: StdRng::seed_from_u64(seed), left, decks: BTreeMap::new() }
    }

    /// Whether one of the faults needs a separate disk.
    #[must_use]
    pub fn needs_disks(&self) -> bool {
        let faults = match &self.left {
            Left::List(faults) => faults.as_slice(),
            Left::Until(faults, _) => faults,
        };
        faults.iter().any(|fault| fault.needs_disks())
    }

    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether these are the faults of a cluster.
    #[must_use]
    pub fn is_for_cluster(&self) -> bool {
        let faults = match &self.left {
            Left::List(faults) => faults.as_slice(),
            Left::Until(faults, _) => faults,
        };
        faults.iter().any(|fault| fault.is_for_cluster())
    }

    /// The next fault; `None` at the end.
    pub fn next_fault(&mut self) -> Option<Fault> {
        match &mut self.left {
            Left::List(faults) => faults.next(),
            Left::Until(_, end) if Instant::now() >= *end => None,
            Left::Until(_, _) if self.random.random_ratio(1, 4) => Some(Fault::Quiet),
            Left::Until(faults, _) => deal(&mut self.random, self.decks.entry("fault").or_default(), faults),
        }
    }

    /// One of several values; none comes again before each has come. `what` names the deck.
    ///
    /// # Panics
    /// `of` is empty.
    pub fn next_of<T: Copy>(&mut self, what: &'static str, of: &[T]) -> T {
        let dealt = deal(&mut self.random, self.decks.entry(what).or_default(), of);
        dealt.expect("there is something to choose from")
    }

    /// A random pause before a fault.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(1_000..4_000))
    }

    /// A random one of several values.
    ///
    /// # Panics
    /// `of` is empty.
    pub fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.random.random_range(0..of.len())]
    }

    /// A random number below `max`.
    pub fn below(&mut self, max: u32) -> u32 {
        self.random.random_range(0..max)
    }
}

/// The next of a shuffled deck, which is shuffled again when it is empty.
fn deal<T: Copy>(random: &mut StdRng, deck: &mut Vec<usize>, of: &[T]) -> Option<T> {
    if deck.is_empty() {
        deck.extend(0..of.len());
        deck.shuffle(random);
    }
    of.get(deck.pop()?).copied()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let faults = vec![Fault::KillKafka, Fault::Storm, Fault::Garbage];
        let ten = |seed| {
            let mut plan = Plan::mix(faults.clone(), seed, Duration::from_secs(60));
            (0..10).filter_map(|_| plan.next_fault()).collect::<Vec<_>>()
        };
        assert_eq!(ten(1), ten(1));
        assert_ne!(ten(1), ten(2));
    }

    #[test]
    fn each_kind_is_documented() {
        let read = |page: &str| std::fs::read_to_string(crate::harness::root().join(page)).expect("a page");
        let (page, readme) = (read("docs/fault-testing.md"), read("README.md"));
        let kinds = Fault::value_variants().iter().filter(|fault| **fault != Fault::Quiet);
        let (of_cluster, single): (Vec<Fault>, Vec<Fault>) = kinds.copied().partition(|fault| fault.is_for_cluster());
        for fault in &single {
            let name = fault.to_string();
            // Several kinds are listed by what their names begin with.
            let starts = name.match_indices('-').map(|(end, _)| format!("`{}-...`", &name[..end]));
            let is_listed =
                page.contains(&format!("`{name}`")) || starts.into_iter().any(|start| page.contains(&start));
            assert!(is_listed, "docs/fault-testing.md lacks {name}");
        }
        assert!(page.contains(&format!("{} kinds for single servers", single.len())), "{}", single.len());
        let all = single.len() + of_cluster.len();
        assert!(readme.contains(&format!("{all} kinds of fault")), "README.md: there are {all}");
    }

    #[test]
    fn each_comes_before_one_comes_again() {
        let faults = vec![Fault::KillKafka, Fault::Storm, Fault::Garbage];
        let mut plan = Plan::mix(faults.clone(), 7, Duration::from_secs(60));
        let mut first: Vec<_> =
            std::iter::from_fn(|| plan.next_fault()).filter(|fault| *fault != Fault::Quiet).take(3).collect();
        first.sort_unstable();
        let mut all = faults;
        all.sort_unstable();
        assert_eq!(first, all);
        let mut places = [0; 5].map(|_| plan.next_of("place", &[1, 2, 3, 4, 5]));
        places.sort_unstable();
        assert_eq!(places, [1, 2, 3, 4, 5]);
    }
}
