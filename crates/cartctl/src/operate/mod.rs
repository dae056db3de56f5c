//! `cartctl pause`, `resume`, `skip`, `skipped` and `log`: what operators want of the consumer groups, as records of the topic
//! `cart-control` (crate `control`).

mod args;
mod list;
mod pause;
mod place;
mod resume;
mod skip;

use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use control::ControlTopic;
use kafka::{Admin, KafkaArgs, Registry};
use serde::Serialize;

pub use args::{ListArgs, PauseArgs, ResumeArgs, SkipArgs};
pub use list::{log, skipped};
pub use pause::pause;
pub use resume::resume;
pub use skip::skip;

pub(crate) use args::Signed;
pub(crate) use place::sha256;

/// What a verb has done, or why it was refused.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Exit code 0.
    Done(T),
    /// Exit code 1. Nothing holds that did not hold before: what the verb had recorded is withdrawn.
    Refused(String),
    /// Exit code 1: it was carried out, and has not come to what was wanted.
    Failed(T),
    /// Exit code 2: it is recorded, and the members have not followed in time, or could not.
    Waiting(T),
}

impl<T: Display + Serialize> Outcome<T> {
    /// The text or the JSON, and the exit code.
    #[must_use]
    pub fn shown(&self, as_json: bool) -> (String, u8) {
        let (done, code) = match self {
            Self::Refused(reason) if as_json => return (serde_json::json!({ "refused": reason }).to_string(), 1),
            Self::Refused(reason) => return (format!("refused: {reason}"), 1),
            Self::Done(done) => (done, 0),
            Self::Failed(done) => (done, 1),
            Self::Waiting(done) => (done, 2),
        };
        let json = || serde_json::to_string_pretty(done).unwrap_or_default();
        (if as_json { json() } else { done.to_string() }, code)
    }

    /// Writes it to `out`; why it was refused to `errors`, unless JSON is wanted. Returns the exit code.
    pub(crate) fn write(&self, as_json: bool, out: &mut impl Write, errors: &mut impl Write) -> anyhow::Result<u8> {
        let (text, exit_code) = self.shown(as_json);
        if matches!(self, Self::Refused(_)) && !as_json {
            // The exit code says it too.
            writeln!(errors, "{text}").unwrap_or_default();
        } else {
            writeln!(out, "{text}").context("writing the result")?;
        }
        Ok(exit_code)
    }
}

/// Kafka, and the control topic of an installation.
pub(crate) struct Kafka {
    pub(crate) args: KafkaArgs,
    pub(crate) admin: Arc<Admin>,
    pub(crate) control: ControlTopic,
}

impl Kafka {
    pub(crate) async fn connect(args: &KafkaArgs) -> anyhow::Result<Self> {
        let admin = Arc::new(Admin::new(args)?);
        let control = ControlTopic::open(args, &Registry::new(args)?, admin.clone()).await?;
        Ok(Self { args: args.clone(), admin, control })
    }
}

/// A time as it is printed.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `partitions 0, 3`.
fn partitions(of: impl IntoIterator<Item = i32>) -> String {
    let numbers: Vec<String> = of.into_iter().map(|partition| partition.to_string()).collect();
    format!("partition{} {}", if numbers.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_written_as_an_error() {
        let written = |outcome: &Outcome<&str>, as_json| {
            let (mut out, mut errors) = (Vec::<u8>::new(), Vec::<u8>::new());
            let code = outcome.write(as_json, &mut out, &mut errors).expect("memory takes it");
            let [out, errors] = [out, errors].map(|text| String::from_utf8(text).expect("text"));
            (code, out, errors)
        };
        let expected = |code, out: &str, errors: &str| (code, out.to_owned(), errors.to_owned());
        let refused = Outcome::Refused(String::from("no such row"));
        assert_eq!(written(&refused, false), expected(1, "", "refused: no such row\n"));
        assert_eq!(written(&refused, true), expected(1, "{\"refused\":\"no such row\"}\n", ""));
        assert_eq!(written(&Outcome::Failed("1 still parked"), false), expected(1, "1 still parked\n", ""));
        assert_eq!(written(&Outcome::Done("done"), true), expected(0, "\"done\"\n", ""));
    }
}
