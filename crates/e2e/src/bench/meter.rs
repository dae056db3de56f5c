//! The CPU time and memory of processes, from `/proc` (man 5 proc).

use std::collections::BTreeMap;

use procfs::process::Process;
use procfs::{ProcResult, ticks_per_second};

/// The name of this process, which makes the load.
pub(crate) const LOAD: &str = "load";

/// Processes whose usage is read, by name. Several of one name are added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    watched: Vec<Watched>,
}

#[derive(Debug, Clone)]
struct Watched {
    name: String,
    pid: u32,
    /// Whether to include the children: PostgreSQL has one for each connection.
    with_children: bool,
}

/// The usage of a process since its start, and its current memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_ms: f64,
    pub(crate) switches: f64,
    /// Resident memory.
    pub(crate) memory_mib: f64,
}

/// Usage by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading(pub(crate) BTreeMap<String, Usage>);

impl Meter {
    /// Watches this process.
    pub(crate) fn with_load() -> Self {
        let mut meter = Self::default();
        meter.add(LOAD, std::process::id(), false);
        meter
    }

    pub(crate) fn add(&mut self, name: &str, pid: u32, with_children: bool) {
        self.watched.push(Watched { name: name.to_owned(), pid, with_children });
    }

    /// Reads the usage of all so far. A process that has ended counts as 0.
    pub(crate) fn read(&self) -> Reading {
        let mut reading = Reading::default();
        for Watched { name, pid, with_children } in &self.watched {
            let used = reading.0.entry(name.clone()).or_default();
            let mut add = |one: ProcResult<Usage>| {
                if let Ok(Usage { cpu_ms, switches, memory_mib }) = one {
                    used.cpu_ms += cpu_ms;
                    used.switches += switches;
                    used.memory_mib += memory_mib;
                }
            };
            add(usage(*pid, *with_children));
            if *with_children {
                for child in children(*pid) {
                    add(usage(child, false));
                }
            }
        }
        reading
    }
}

impl Reading {
    /// The usage since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let difference = |(name, now): (&String, &Usage)| {
            let before = earlier.0.get(name).copied().unwrap_or_default();
            // The counts of threads and children that have ended are lost.
            let cpu_ms = (now.cpu_ms - before.cpu_ms).max(0.0);
            let switches = (now.switches - before.switches).max(0.0);
            (name.clone(), Usage { cpu_ms, switches, memory_mib: now.memory_mib })
        };
        Self(self.0.iter().map(difference).collect())
    }
}

fn usage(pid: u32, with_ended_children: bool) -> ProcResult<Usage> {
    let process = Process::new(pid.cast_signed())?;
    let stat = process.stat()?;
    let ended = if with_ended_children { stat.cutime + stat.cstime } else { 0 };
    let ticks = (stat.utime + stat.stime).saturating_add_signed(ended);
    let mut switches = 0;
    for task in process.tasks()? {
        // A thread may end while it is read.
        let Ok(status) = task.and_then(|task| task.status()) else { continue };
        switches += status.voluntary_ctxt_switches.unwrap_or(0) + status.nonvoluntary_ctxt_switches.unwrap_or(0);
    }
    let cpu_ms = ticks as f64 / ticks_per_second() as f64 * 1_000.0;
    let memory_mib = process.status()?.vmrss.unwrap_or(0) as f64 / 1_024.0;
    Ok(Usage { cpu_ms, switches: switches as f64, memory_mib })
}

fn children(pid: u32) -> Vec<u32> {
    let main = Process::new(pid.cast_signed()).and_then(|process| process.task_main_thread());
    main.and_then(|task| task.children()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_usage_of_this_process() {
        let meter = Meter::with_load();
        let before = meter.read();
        let mut spent = 0_u64;
        while meter.read().since(&before).0[LOAD].cpu_ms <= 0.0 {
            spent = spent.wrapping_add(1);
        }
    }
}
