//! The load: shoppers with keep-alive connections, all on one thread.
//!
//! Closed loop: each shopper sends its next command when the last one is answered. Open loop: commands are due at a rate,
//! whether earlier ones are answered or not, and latency is measured from the due time. So a stall of the service counts for
//! all commands that were due meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::shop::Shopper;
use super::wire::Connection;

/// A minute in microseconds, longer than the timeout of an answer.
const LATENCY_MAX_US: u64 = 60_000_000;

/// The timeout of the last answers.
const DRAIN: Duration = Duration::from_secs(15);

/// The pause between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(5);

/// Commands whose due times differ by less than this are sent together, since a wakeup costs as much as a command.
const PACE_MIN: Duration = Duration::from_micros(200);

/// The pace of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each client sends its next command when the last one is answered.
    Closed,
    /// This many commands per second.
    Open(f64),
}

/// The end of a load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    After(Duration),
    Answered(u64),
}

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) latency: Histogram<u64>,
    pub(crate) answered: u64,
    /// Answers within the time, without those after its end.
    pub(crate) answered_in_time: u64,
    pub(crate) elapsed: Duration,
    /// Answers by status; 0 is a broken connection.
    pub(crate) failed: BTreeMap<u16, u64>,
}

impl Outcome {
    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered_in_time as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// A load on one address.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) pace: Pace,
    pub(crate) until: Until,
    /// Ends the load early once it is set.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn new(address: SocketAddr, pace: Pace, until: Until) -> Self {
        Self { address, pace, until, stop: Arc::default() }
    }

    /// Runs it on a new thread with these shoppers, and returns them.
    pub(crate) async fn run(self, shoppers: Vec<Shopper>) -> anyhow::Result<(Outcome, Vec<Shopper>)> {
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime.context("making the load's runtime").and_then(|runtime| {
                let local = LocalSet::new();
                runtime.block_on(local.run_until(drive(self, shoppers)))
            });
            drop(ended.send(result));
        };
        std::thread::Builder::new().name(String::from("load")).spawn(work).context("starting the load's thread")?;
        end.await.context("the load's thread panicked")?
    }
}

/// The state that the connections share.
struct Shared {
    load: Load,
    started_at: Instant,
    deadline: Instant,
    /// Open loop: a permit for each command that is due.
    due: Arc<Semaphore>,
    taken: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    answered: Cell<u64>,
    answered_in_time: Cell<u64>,
    failed: RefCell<BTreeMap<u16, u64>>,
}

async fn drive(load: Load, shoppers: Vec<Shopper>) -> anyhow::Result<(Outcome, Vec<Shopper>)> {
    let mut connections = Vec::new();
    for shopper in shoppers {
        let connection =
            Connection::open(load.address).await.with_context(|| format!("connecting to {}", load.address));
        connections.push((shopper, connection?));
    }
    let started_at = Instant::now();
    let length = match load.until {
        Until::After(length) => length,
        // An upper bound, reached only if the service answers nothing.
        Until::Answered(_) => Duration::from_secs(600),
    };
    let shared = Rc::new(Shared {
        started_at,
        deadline: started_at + length,
        due: Arc::new(Semaphore::new(0)),
        taken: Cell::new(0),
        latency: RefCell::new(histogram()?),
        answered: Cell::new(0),
        answered_in_time: Cell::new(0),
        failed: RefCell::default(),
        load,
    });
    if let Pace::Open(rate) = shared.load.pace {
        let (due, deadline, stop) = (shared.due.clone(), shared.deadline, shared.load.stop.clone());
        std::thread::Builder::new()
            .name(String::from("pacer"))
            .spawn(move || pace(rate, started_at, deadline, &stop, &due))?;
    }
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|(shopper, connection)| spawn_local(shop(shared.clone(), shopper, connection)))
        .collect();
    let mut shoppers = Vec::new();
    for task in tasks {
        shoppers.push(task.await.context("a shopper panicked")?);
    }
    let elapsed = match shared.load.until {
        Until::After(length) => length.min(started_at.elapsed()),
        Until::Answered(_) => started_at.elapsed(),
    };
    let outcome = Outcome {
        latency: shared.latency.replace(histogram()?),
        answered: shared.answered.get(),
        answered_in_time: shared.answered_in_time.get(),
        elapsed,
        failed: shared.failed.take(),
    };
    ensure!(outcome.answered > 0, "nothing was answered: {:?}", outcome.failed);
    Ok((outcome, shoppers))
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("making a histogram")
}

/// One shopper until the end.
async fn shop(shared: Rc<Shared>, mut shopper: Shopper, mut connection: Connection) -> Shopper {
    let mut request = Vec::with_capacity(512);
    while let Some(due) = next_due(&shared).await {
        shopper.write_request(&mut request);
        let exchange =
            timeout(shared.deadline.saturating_duration_since(Instant::now()) + DRAIN, connection.exchange(&request));
        let status = exchange.await.ok().and_then(Result::ok).unwrap_or_default();
        shared.record(due, status);
        if status == 200 {
            shopper.done();
        } else {
            shopper.give_up_cart();
        }
        if status == 0 {
            match reconnect(&shared).await {
                Some(new) => connection = new,
                None => break,
            }
        }
    }
    shopper
}

/// The due time of the next command; `None` at the end.
async fn next_due(shared: &Shared) -> Option<Instant> {
    if shared.is_over() {
        return None;
    }
    let Pace::Open(rate) = shared.load.pace else { return Some(Instant::now()) };
    shared.due.acquire().await.ok()?.forget();
    let number = shared.taken.replace(shared.taken.get() + 1);
    Some(shared.started_at + Duration::from_secs_f64(number as f64 / rate))
}

async fn reconnect(shared: &Shared) -> Option<Connection> {
    while !shared.is_over() {
        if let Ok(connection) = Connection::open(shared.load.address).await {
            return Some(connection);
        }
        sleep(RECONNECT_PAUSE).await;
    }
    None
}

impl Shared {
    fn is_over(&self) -> bool {
        let enough = match self.load.until {
            Until::After(_) => false,
            Until::Answered(count) => self.answered.get() >= count,
        };
        // In the open loop the pacer closes the semaphore once all due commands are taken.
        let late = matches!(self.load.pace, Pace::Closed) && Instant::now() >= self.deadline;
        enough || late || self.load.stop.load(Ordering::Relaxed)
    }

    fn record(&self, due: Instant, status: u16) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(due);
        let answered = status == 200;
        if answered {
            self.answered.set(self.answered.get() + 1);
            if now <= self.deadline {
                self.answered_in_time.set(self.answered_in_time.get() + 1);
            }
            let us = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX_US);
            self.latency.borrow_mut().saturating_record(us);
        } else {
            *self.failed.borrow_mut().entry(status).or_default() += 1;
        }
    }
}

/// Releases commands when they are due. It is a thread because the runtime's timers have a resolution of 1 ms, which is as
/// long as an answer takes.
fn pace(rate: f64, started_at: Instant, deadline: Instant, stop: &AtomicBool, due: &Semaphore) {
    let mut released = 0_u64;
    let due_at = |number: u64| started_at + Duration::from_secs_f64(number as f64 / rate);
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now().min(deadline);
        let mut count = 0;
        while due_at(released) <= now && due_at(released) < deadline {
            released += 1;
            count += 1;
        }
        due.add_permits(count);
        if now >= deadline {
            break;
        }
        std::thread::sleep(due_at(released).saturating_duration_since(Instant::now()).max(PACE_MIN));
    }
    // Waiting shoppers get no command. Due commands are still taken, as their permits come first.
    while due.available_permits() > 0 && Instant::now() < deadline + DRAIN && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    due.close();
}
