//! The fuzz targets as ordinary tests: on every input that is kept, and on damaged copies of the seeds.
//!
//! An input fails if the target panics, if it needs more memory than [`MEMORY_MAX`] or if it takes longer than [`TIME_MAX`].
//! The damaged copies are the same in every run. libFuzzer finds more, given hours: `scripts/fuzz`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod kept;

use std::alloc::System;
use std::fs;
use std::panic;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cap::Cap;
use rand::SeedableRng;
use rand::rngs::StdRng;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Held while a test runs its inputs, since [`ALLOCATOR`] counts the memory of all threads.
static ALONE: Mutex<()> = Mutex::new(());

/// Most bytes that an input may need at a time: several times the 8 MiB that a decoder may ask for at once.
const MEMORY_MAX: usize = 64 << 20;

/// Longest time for one input; `scripts/fuzz` has the same. A usual input takes microseconds.
const TIME_MAX: Duration = Duration::from_secs(5);

/// A fuzz target.
struct Target {
    /// Its folder in `seeds/` and `findings/`.
    name: &'static str,
    run: fn(&[u8]) -> bool,
    /// How many damaged copies it gets: one to two seconds of them in the dev profile.
    copies: u64,
}

const HTTP_BODIES: Target = Target { name: "http_bodies", run: fuzz::http_bodies::run, copies: 500_000 };
const RECORDS: Target = Target { name: "records", run: fuzz::records::run, copies: 1_000_000 };
const TRACE_CONTEXTS: Target = Target { name: "trace_contexts", run: fuzz::trace_contexts::run, copies: 500_000 };
const CSV_FILES: Target = Target { name: "csv_files", run: fuzz::csv_files::run, copies: 100_000 };

impl Target {
    /// Whether the target accepts `bytes`; else how it failed.
    fn check(&self, bytes: &[u8]) -> Result<bool, String> {
        let (before, peak_before) = (ALLOCATOR.allocated(), ALLOCATOR.max_allocated());
        let mut took = Duration::MAX;
        let mut accepted = false;
        // Twice if it was slow: the machine may have been busy.
        for _ in 0..2 {
            let started = Instant::now();
            accepted = panic::catch_unwind(|| (self.run)(bytes)).map_err(|_| "the target panicked, see above")?;
            took = started.elapsed();
            if took <= TIME_MAX {
                break;
            }
        }
        // The peak only grows: after a failure, a smaller one goes unnoticed until that failure is fixed.
        let peak = ALLOCATOR.max_allocated();
        let needed = if peak > peak_before { peak - before } else { 0 };
        if took > TIME_MAX {
            Err(format!("the target took {took:?}"))
        } else if needed > MEMORY_MAX {
            Err(format!("the target needed {} MiB", needed >> 20))
        } else {
            Ok(accepted)
        }
    }

    /// Runs the inputs in `seeds/` and `findings/`.
    fn check_kept(&self) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let seeds = kept::seeds(self.name);
        assert!(!seeds.is_empty(), "{} has no seeds", self.name);
        let check = |input: &kept::Input| {
            self.check(&input.bytes).unwrap_or_else(|failure| panic!("{}: {failure}", input.file.display()))
        };
        for seed in &seeds {
            assert!(check(seed), "{}: rejected, but a seed must be accepted", seed.file.display());
        }
        for finding in &kept::findings(self.name) {
            check(finding);
        }
    }

    /// Runs damaged copies of the seeds and findings.
    fn check_damaged(&self) {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept::seeds(self.name).into_iter().chain(kept::findings(self.name));
        let inputs: Vec<_> = kept.map(|input| input.bytes).collect();
        let mut accepted = 0;
        for number in 0..self.copies {
            let copy = damage::damaged(&mut StdRng::seed_from_u64(number), &inputs);
            match self.check(&copy) {
                Ok(is_accepted) => accepted += u64::from(is_accepted),
                Err(failure) => panic!("copy {number}: {failure}\n{}", self.keep(number, &copy)),
            }
        }
        // Else the copies are too similar to the seeds, or too different to get far.
        let least = self.copies / 100;
        assert!((least..=self.copies - least).contains(&accepted), "{accepted} of {} copies accepted", self.copies);
    }

    /// Writes a failed input to a file and says how it becomes a finding.
    fn keep(&self, number: u64, bytes: &[u8]) -> String {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", self.name));
        fs::write(&file, bytes).unwrap();
        let findings = format!("crates/fuzz/findings/{}/", self.name);
        format!("To keep it as a test: mkdir -p {findings} && cp {} {findings}", file.display())
    }
}

#[test]
fn kept_http_bodies() {
    HTTP_BODIES.check_kept();
}

#[test]
fn kept_records() {
    RECORDS.check_kept();
}

#[test]
fn kept_trace_contexts() {
    TRACE_CONTEXTS.check_kept();
}

#[test]
fn damaged_trace_contexts() {
    TRACE_CONTEXTS.check_damaged();
}

#[test]
fn kept_csv_files() {
    CSV_FILES.check_kept();
}

#[test]
fn damaged_http_bodies() {
    HTTP_BODIES.check_damaged();
}

#[test]
fn damaged_records() {
    RECORDS.check_damaged();
}

#[test]
fn damaged_csv_files() {
    CSV_FILES.check_damaged();
}

/// An input in another folder would never be run.
#[test]
fn every_folder_of_inputs_belongs_to_a_target() {
    let targets = [HTTP_BODIES, RECORDS, TRACE_CONTEXTS, CSV_FILES].map(|target| target.name);
    for folder in kept::folders("seeds").into_iter().chain(kept::folders("findings")) {
        assert!(targets.contains(&folder.as_str()), "{folder} is the folder of no target");
    }
}
