//! The last audit: what `cartctl audit --watch` says in its metrics.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;
use service::MetricsText;

use super::numbers::{age, grouped};
use crate::audit::findings_in_words;

/// The status of the groups is shown without an audit that does not answer for so long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of the last audit. In JSON the audit, or null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Audit {
    /// Without --audit-url.
    NotAsked,
    /// It did not answer.
    NotKnown,
    Last(LastAudit),
}

impl Audit {
    /// In words, as of a time; nothing if it did not answer: the reason is among what could not be found out.
    pub(super) fn at(&self, now: DateTime<Utc>) -> Option<String> {
        match self {
            Self::NotAsked => Some(String::from("last audit: not asked for (--audit-url)")),
            Self::NotKnown => None,
            Self::Last(audit) => Some(audit.at(now)),
        }
    }
}

/// What the last audit said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastAudit {
    pub findings: u64,
    /// The commands that it looked at.
    pub commands: u64,
    /// `None` before the first has ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// Audits that could not be made, since its process started.
    pub failed: u64,
}

impl LastAudit {
    /// Asks a running `cartctl audit --watch` at the address of its metrics.
    pub(super) async fn ask(url: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().context("making an HTTP client")?;
        let response = client.get(url).send().await?;
        let status = response.status();
        ensure!(status.is_success(), "{url} answers {status}");
        Self::of(&response.text().await?)
    }

    fn of(metrics: &str) -> anyhow::Result<Self> {
        let samples = MetricsText(metrics);
        let audits = samples.whole("audit_runs_total{outcome=\"completed\"}");
        let audits = audits.context("the address is not that of the metrics of `cartctl audit --watch`")?;
        let ended_at = samples.whole("audit_last_completed_timestamp_seconds").filter(|_| audits > 0);
        let ended_at = ended_at.and_then(|seconds| DateTime::from_timestamp(seconds.try_into().ok()?, 0));
        Ok(Self {
            findings: samples.sum("audit_findings"),
            // Not there before the first audit has ended.
            commands: samples.whole("audit_commands").unwrap_or_default(),
            ended_at,
            failed: samples.whole("audit_runs_total{outcome=\"failed\"}").unwrap_or_default(),
        })
    }

    /// In words, as of a time.
    fn at(&self, now: DateTime<Utc>) -> String {
        let failed = if self.failed > 0 { format!("; {} could not be made", self.failed) } else { String::new() };
        match self.ended_at {
            None => format!("last audit: the first one has not ended yet{failed}"),
            Some(ended_at) => {
                let ago = age((now - ended_at).num_milliseconds().max(0));
                let findings = findings_in_words(self.findings);
                let commands = grouped(i64::try_from(self.commands).unwrap_or(i64::MAX));
                let plural = if self.commands == 1 { "" } else { "s" };
                format!("last audit: {findings} in {commands} command{plural}, ended {ago} ago{failed}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_audit_is_read_from_its_metrics() {
        let metrics = "audit_runs_total{outcome=\"completed\"} 3\naudit_runs_total{outcome=\"failed\"} 1\n\
            audit_findings{kind=\"a\"} 2\naudit_findings{kind=\"b\"} 0\naudit_commands 1200\n\
            audit_last_completed_timestamp_seconds 1790000000.25\n";
        let now = DateTime::from_timestamp(1_790_000_012, 0).expect("a time");
        let words = |metrics: &str| LastAudit::of(metrics).map(|audit| audit.at(now));
        let last = "last audit: 2 findings in 1,200 commands, ended 12 s ago; 1 could not be made";
        assert_eq!(words(metrics).expect("an audit"), last);
        let first = metrics.replace("completed\"} 3", "completed\"} 0").replace("failed\"} 1", "failed\"} 0");
        assert_eq!(words(&first).expect("an audit"), "last audit: the first one has not ended yet");
        let one = metrics.replace("kind=\"a\"} 2", "kind=\"a\"} 1").replace("audit_commands 1200", "audit_commands 1");
        let last = "last audit: 1 finding in 1 command, ended 12 s ago; 1 could not be made";
        assert_eq!(words(&one).expect("an audit"), last);
        assert!(words("up 1\n").is_err());
    }

    #[test]
    fn a_last_audit_that_is_not_asked_for_is_null_and_says_how_to_ask() {
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(Audit::NotAsked.at(now).as_deref(), Some("last audit: not asked for (--audit-url)"));
        assert_eq!(Audit::NotKnown.at(now), None, "the reason is said instead");
        let last = Audit::Last(LastAudit { findings: 2, commands: 9, ended_at: None, failed: 0 });
        assert_eq!(last.at(now).as_deref(), Some("last audit: the first one has not ended yet"));
        let json = [Audit::NotAsked, Audit::NotKnown, last].map(|audit| serde_json::to_value(audit).expect("JSON"));
        assert_eq!(json[..2], [serde_json::Value::Null, serde_json::Value::Null]);
        assert_eq!(json[2]["findings"], 2);
    }
}
