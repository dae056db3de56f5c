//! What the doctor found out.

use std::fmt;

use serde::Serialize;

use super::denied::is_denied;

/// The server that a check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Server {
    Kafka,
    Registry,
    Cassandra,
    Postgres,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Registry => "Schema registry",
            Self::Cassandra => "Cassandra",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// In the order of the report.
    const ALL: [Self; 4] = [Self::Kafka, Self::Registry, Self::Cassandra, Self::Postgres];
}

/// Something that this system relies on.
#[derive(Debug)]
pub struct Check {
    pub server: Server,
    /// Its name in the report and in docs/deployment.md.
    pub name: &'static str,
    /// What goes wrong where it does not hold.
    pub without_it: &'static str,
    /// The permissions that the check itself needs.
    pub needs: &'static str,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds { found: String },
    /// It holds, but less than production needs.
    Limited { found: String, change: String },
    /// It does not hold.
    Fails { found: String, change: String },
    /// There is nothing to look at: before the first `setup`, or where a server does not restrict its clients.
    NotSetUp { found: String },
}

impl Verdict {
    pub fn holds(found: impl Into<String>) -> Self {
        Self::Holds { found: found.into() }
    }

    pub fn limited(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self::Limited { found: found.into(), change: change.into() }
    }

    pub fn fails(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self::Fails { found: found.into(), change: change.into() }
    }

    pub fn not_set_up(found: impl Into<String>) -> Self {
        Self::NotSetUp { found: found.into() }
    }
}

/// A result as it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Ok,
    Warning,
    Failed,
    /// It could not be found out.
    Unknown,
    NotSetUp,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::Unknown => "UNKNOWN",
            Self::NotSetUp => "not set up",
        }
    }
}

/// One line of the report; its fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub server: Server,
    /// The name of the check.
    pub check: &'static str,
    pub state: State,
    /// What the server did, or why it could not be found out.
    pub found: String,
    /// What goes wrong where the check does not hold.
    pub without_it: &'static str,
    /// What to do; only where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

impl Finding {
    /// An error is a check that could not be made: a server that does something wrong gives a verdict.
    pub fn new(check: &Check, verdict: anyhow::Result<Verdict>) -> Self {
        let (state, found, change) = match verdict {
            Ok(Verdict::Holds { found }) => (State::Ok, found, None),
            Ok(Verdict::Limited { found, change }) => (State::Warning, found, Some(change)),
            Ok(Verdict::Fails { found, change }) => (State::Failed, found, Some(change)),
            Ok(Verdict::NotSetUp { found }) => (State::NotSetUp, found, None),
            Err(error) => return Self::unknown(check, &error),
        };
        let Check { server, name, without_it, .. } = *check;
        Self { server, check: name, state, found, without_it, change }
    }

    /// A check that could not be made, and why.
    pub fn unknown(check: &Check, error: &anyhow::Error) -> Self {
        let change = if is_denied(error) {
            format!("a permission is missing: grant the user of these settings {}", check.needs)
        } else {
            String::from("remove the cause, then run the doctor again")
        };
        let Check { server, name, without_it, .. } = *check;
        let found = format!("could not be found out: {error:#}");
        Self { server, check: name, state: State::Unknown, found, without_it, change: Some(change) }
    }
}

/// The result of all checks; its fields are those of `--json`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub checks: Vec<Finding>,
    pub ok: usize,
    pub warnings: usize,
    pub failed: usize,
    pub unknown: usize,
    pub not_set_up: usize,
}

impl Report {
    pub fn new(checks: Vec<Finding>) -> Self {
        let count = |state| checks.iter().filter(|finding| finding.state == state).count();
        let [ok, warnings] = [State::Ok, State::Warning].map(count);
        let [failed, unknown, not_set_up] = [State::Failed, State::Unknown, State::NotSetUp].map(count);
        Self { checks, ok, warnings, failed, unknown, not_set_up }
    }

    /// 1 if a check failed, else 2 if one could not be made, else 0.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match (self.failed, self.unknown) {
            (0, 0) => 0,
            (0, _) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in Server::ALL {
            writeln!(f, "{}", server.name())?;
            for finding in self.checks.iter().filter(|finding| finding.server == server) {
                writeln!(f, "  {:10} {}: {}", finding.state.word(), finding.check, finding.found)?;
                writeln!(f, "  {:10} without it: {}", "", finding.without_it)?;
                if let Some(change) = &finding.change {
                    writeln!(f, "  {:10} to do: {change}", "")?;
                }
            }
        }
        let Self { ok, warnings, failed, unknown, not_set_up, .. } = self;
        write!(f, "{ok} ok, {warnings} warnings, {failed} failed, {unknown} unknown, {not_set_up} not set up")
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const CHECK: Check =
        Check { server: Server::Kafka, name: "a-check", without_it: "records are lost", needs: "Write" };

    fn report(verdicts: Vec<anyhow::Result<Verdict>>) -> Report {
        Report::new(verdicts.into_iter().map(|verdict| Finding::new(&CHECK, verdict)).collect())
    }

    #[test]
    fn a_failed_check_outranks_one_that_could_not_be_made() {
        let limited = || Ok(Verdict::limited("one copy", "make three"));
        let fails = || Ok(Verdict::fails("no", "change it"));
        let unknown = || Err(anyhow!("no answer"));
        assert_eq!(report(vec![Ok(Verdict::holds("yes")), limited()]).exit_code(), 0);
        assert_eq!(report(vec![limited(), unknown()]).exit_code(), 2);
        assert_eq!(report(vec![unknown(), fails()]).exit_code(), 1);
        assert_eq!(report(vec![Ok(Verdict::not_set_up("no topic"))]).exit_code(), 0);
    }

    #[test]
    fn the_report_says_what_falls_and_what_to_do() {
        let text = report(vec![Ok(Verdict::fails("unclean election is on", "switch it off"))]).to_string();
        for line in
            ["FAILED     a-check: unclean election is on", "without it: records are lost", "to do: switch it off"]
        {
            assert!(text.contains(line), "{text}");
        }
        assert!(text.ends_with("0 ok, 0 warnings, 1 failed, 0 unknown, 0 not set up"), "{text}");
    }
}
