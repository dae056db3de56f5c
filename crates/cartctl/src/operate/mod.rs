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

    /// Writes it, also a refusal. Returns the exit code.
    pub(crate) fn write(&self, as_json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
        let (text, exit_code) = self.shown(as_json);
        writeln!(out, "{text}")?;
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
