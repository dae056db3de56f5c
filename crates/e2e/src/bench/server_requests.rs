//! The requests of each kind that Kafka and Cassandra have answered, from their own counters, which
//! `scripts/java/ServerRequests.java` reads.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

use super::progress::say;
use super::servers;
use crate::harness::root;

/// The servers that are Java programs.
const JAVA: [&str; 2] = ["kafka", "cassandra"];

/// Options for little memory and no long compilation, since the program runs on the processors that are measured.
const OPTIONS: [&str; 3] = ["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// The counts by kind and server.
pub(crate) type Counts = BTreeMap<(String, String), f64>;

/// The growth of each count.
pub(crate) fn since(now: &Counts, earlier: &Counts) -> Counts {
    let growth = |(key, count): (&_, &f64)| (Clone::clone(key), count - earlier.get(key).unwrap_or(&0.0));
    now.iter().map(growth).collect()
}

/// The Java program, attached to the servers. It ends when its input is closed.
#[derive(Debug)]
pub(crate) struct ServerRequests {
    names: BTreeMap<String, &'static str>,
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

/// By process id.
#[derive(Debug, Deserialize)]
struct Line {
    counts: BTreeMap<String, BTreeMap<String, f64>>,
    failures: BTreeMap<String, String>,
}

impl ServerRequests {
    /// Attaches to the servers at these addresses, which costs them CPU time once. Prints which are left out.
    pub(crate) fn attach(addresses: &[(&'static str, String)]) -> anyhow::Result<Self> {
        let mut names = BTreeMap::new();
        for (name, address) in addresses.iter().filter(|(name, _)| JAVA.contains(name)) {
            match servers::at(address) {
                Some(pid) => drop(names.insert(pid.to_string(), *name)),
                None => say_left_out(name, &format!("this user can see no process that listens on {address}")),
            }
        }
        let mut child = Command::new("java")
            .args(OPTIONS)
            .arg(root().join("scripts/java/ServerRequests.java"))
            .args(names.keys())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting java, which must be 17 or newer and on the PATH")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("it has an output")?;
        let mut requests = Self { names, child, input, lines: BufReader::new(output).lines() };
        for (pid, reason) in requests.line()?.failures {
            say_left_out(requests.name(&pid), &reason);
        }
        Ok(requests)
    }

    pub(crate) fn read(&mut self) -> anyhow::Result<Counts> {
        self.input.as_ref().context("it has an input")?.write_all(b"\n").context("asking ServerRequests.java")?;
        let counts = self.line()?.counts;
        let of_server = |(pid, kinds): (String, BTreeMap<String, f64>)| {
            let name = self.name(&pid);
            kinds.into_iter().map(move |(kind, count)| ((kind, name.to_owned()), count))
        };
        Ok(counts.into_iter().flat_map(of_server).collect())
    }

    fn name(&self, pid: &str) -> &'static str {
        self.names.get(pid).copied().unwrap_or_default()
    }

    fn line(&mut self) -> anyhow::Result<Line> {
        let line = self.lines.next().context("ServerRequests.java has ended; its reason is above")?;
        serde_json::from_str(&line.context("reading from ServerRequests.java")?)
            .context("reading what ServerRequests.java wrote")
    }
}

impl Drop for ServerRequests {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.child.wait());
    }
}

fn say_left_out(server: &str, reason: &str) {
    say(&format!(
        "requests to {server} by kind are left out: {reason}. They need servers without Docker (CART_SERVICES=maven), and \
         the servers' user or root"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_kind_counts_from_zero() {
        let count = |kind: &str, count: f64| ((kind.to_owned(), String::from("kafka")), count);
        let (before, after) =
            (Counts::from([count("Produce", 3.0)]), Counts::from([count("Produce", 5.0), count("EndTxn", 1.0)]));
        assert_eq!(since(&after, &before), Counts::from([count("Produce", 2.0), count("EndTxn", 1.0)]));
    }
}
