//! What processes use, as the kernel counts it in `/proc` (man 5 proc).

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// The kernel tells CPU time in ticks; on every Linux of today 100 a second (`getconf CLK_TCK`).
const TICK_MS: f64 = 10.0;

/// The name of the process that makes the load, which is this one.
pub(crate) const LOAD: &str = "load";

/// Processes whose use is read, by name. Several of one name are added up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    watched: Vec<Watched>,
}

#[derive(Debug, Clone)]
struct Watched {
    name: String,
    pid: u32,
    /// PostgreSQL works in a child for each connection.
    with_children: bool,
}

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_ms: f64,
    pub(crate) switches: f64,
}

/// Use by name.
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

    /// What all have used so far. A process that has gone counts as nothing.
    pub(crate) fn read(&self) -> Reading {
        let mut reading = Reading::default();
        for Watched { name, pid, with_children } in &self.watched {
            let used = reading.0.entry(name.clone()).or_default();
            let mut add = |one: io::Result<Usage>| {
                if let Ok(Usage { cpu_ms, switches }) = one {
                    used.cpu_ms += cpu_ms;
                    used.switches += switches;
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
    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let difference = |(name, now): (&String, &Usage)| {
            let before = earlier.0.get(name).copied().unwrap_or_default();
            // A thread or child that has ended takes its count along.
            let cpu_ms = (now.cpu_ms - before.cpu_ms).max(0.0);
            let switches = (now.switches - before.switches).max(0.0);
            (name.clone(), Usage { cpu_ms, switches })
        };
        Self(self.0.iter().map(difference).collect())
    }
}

fn usage(pid: u32, with_ended_children: bool) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut switches = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        switches += field(&status, "voluntary_ctxt_switches") + field(&status, "nonvoluntary_ctxt_switches");
    }
    Ok(Usage { cpu_ms: cpu_ms(&stat, with_ended_children), switches })
}

/// Fields 14 to 17: user and system time, and those of ended children.
fn cpu_ms(stat: &str, with_ended_children: bool) -> f64 {
    // The name, field 2, is in brackets and may have any character.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let count = if with_ended_children { 4 } else { 2 };
    after_name.split(' ').skip(11).take(count).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK_MS
}

fn field(status: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    status.lines().find_map(value).unwrap_or(0.0)
}

fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "42 (a ) (b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 11 0 999 1 2";
        assert_eq!(cpu_ms(stat, false), 2_000.0);
        assert_eq!(cpu_ms(stat, true), 2_100.0);
        assert_eq!(field("VmRSS:\t  12 kB\nnonvoluntary_ctxt_switches:\t5\n", "nonvoluntary_ctxt_switches"), 5.0);
    }

    #[test]
    fn this_process_uses_something() {
        let meter = Meter::with_load();
        let before = meter.read();
        let mut spent = 0_u64;
        while meter.read().since(&before).0[LOAD].cpu_ms < TICK_MS {
            spent = spent.wrapping_add(1);
        }
    }
}
