//! Named places in the services where a test makes a process end or stop, and guards that a test switches off to see that
//! they are needed.
//!
//! Only with the feature `on`, which `cart-processor/fail-points` brings for the whole workspace. Without it every function
//! here is empty, so that a release build has no such switch. What is to happen is in the variable FAILPOINTS:
//! `name=action;name=action`, where an action is as the crate `fail` reads it:
//!
//! - `return`: ends the process as a kill would, or switches the guard off;
//! - `return(stop)`: stops the process where it stands (SIGSTOP), until somebody lets it go on (SIGCONT);
//! - `sleep(30000)`: the thread waits there for so many milliseconds;
//! - `20*off->1*return`: passes 20 times, acts once, then no more.
//!
//! `decide-panics=return(CART)`: the rules panic for that cart; `decide-panics-at=return(COMMAND)`: for that command;
//! `load-panics=return(CART)`: they panic while the cart is loaded; `load-fails=return(CART)`: its journal cannot be read;
//! `row-overflows=return(VENDOR)`: the rows of that vendor have no room for a record;
//! `handler-panics=return(CART)`: the handler of `/cart/CART` panics. `resume-fails=1*return`: the first resume of partitions fails.
//!
//! `clock=return(-86400)`: this process's clock is a day behind.

#[cfg(feature = "on")]
mod switches {
    use std::time::{Duration, SystemTime};

    use fail::{FailScenario, fail_point};

    /// Reads FAILPOINTS. What is returned must live as long as the process.
    #[must_use]
    pub fn start() -> impl Sized {
        FailScenario::setup()
    }

    /// Ends or stops the process here, or lets the thread wait, when a test says so.
    pub fn crash_point(name: &str) {
        fail_point!(name, |how: Option<String>| match how.as_deref() {
            Some("stop") => stop(),
            Some(_) | None => std::process::abort(),
        });
    }

    /// Whether a test has switched this guard off.
    #[must_use]
    pub fn is_off(guard: &str) -> bool {
        fail_point!(guard, |_| true);
        false
    }

    /// Whether a test lets what is done here fail.
    #[must_use]
    pub fn fails(name: &str) -> bool {
        fail_point!(name, |_| true);
        false
    }

    /// Whether a test has named this id for a place: `name=return(id)`, several with `|` between them.
    #[must_use]
    pub fn names(name: &str, id: &impl std::fmt::Display) -> bool {
        fail_point!(name, |ids: Option<String>| {
            let id = id.to_string();
            ids.is_some_and(|ids| ids.split('|').any(|one| one == id))
        });
        false
    }

    /// The time, as this process's clock has it: a test may set that so many seconds ahead, or behind.
    #[must_use]
    pub fn now() -> SystemTime {
        fail_point!("clock", |by: Option<String>| {
            let by: i64 = by.and_then(|by| by.parse().ok()).unwrap_or_default();
            let (now, distance) = (SystemTime::now(), Duration::from_secs(by.unsigned_abs()));
            if by < 0 { now - distance } else { now + distance }
        });
        SystemTime::now()
    }

    /// The signal is for the process, and another thread may be the one that takes it: without a pause this one would go
    /// on for a moment, past the place where it is to stop, and what it sends there would be sent before the stop.
    const STOPPED_WITHIN: std::time::Duration = std::time::Duration::from_millis(200);

    fn stop() {
        use rustix::process::{Signal, getpid, kill_process};
        // To itself this is always allowed; if it did nothing, the test would see that.
        kill_process(getpid(), Signal::STOP).unwrap_or_default();
        std::thread::sleep(STOPPED_WITHIN);
    }
}

#[cfg(not(feature = "on"))]
mod switches {
    /// Nothing, without the feature `on`.
    pub const fn start() {}

    /// Nothing, without the feature `on`.
    pub const fn crash_point(_name: &str) {}

    /// Never, without the feature `on`.
    #[must_use]
    pub const fn is_off(_guard: &str) -> bool {
        false
    }

    /// Never, without the feature `on`.
    #[must_use]
    pub const fn fails(_name: &str) -> bool {
        false
    }

    /// Never, without the feature `on`.
    #[must_use]
    pub const fn names(_name: &str, _id: &impl std::fmt::Display) -> bool {
        false
    }

    /// The time.
    #[must_use]
    pub fn now() -> std::time::SystemTime {
        std::time::SystemTime::now()
    }
}

pub use switches::{crash_point, fails, is_off, names, now, start};
