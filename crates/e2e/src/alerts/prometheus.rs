//! A Prometheus (Debian's package) with the rules of `scripts/observability`, in a hurry.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use reqwest::Url;
use serde_json::{Value, json};

use crate::harness::{free_address, root, wait_until};

/// Seconds that stand for a minute of the rules. Longer than two scrapes, without which there is no rate.
const MINUTE_S: u32 = 3;

/// A rule, a time of it that is too long for a test even in a hurry, and what it is here: what the audit has over its pause (an audit
/// of this test takes a second), and how long a pause may last.
const SHORTENED: [(&str, &str, &str); 2] = [("AuditStale", "+ 1800", "+ 20"), ("PausedLong", "for: 4h", "for: 4m")];

const START_DEADLINE: Duration = Duration::from_secs(60);

const CONFIG: &str = "\
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [alerts.yml]
scrape_configs:
  - job_name: cart
    file_sd_configs: [{ files: [targets.json] }]
";

/// What Prometheus reads.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) component: String,
    pub(super) address: SocketAddr,
}

/// A running Prometheus, which is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it with its files in `folder`, and waits until it has read each target.
    pub(super) async fn start(folder: &Path, targets: &[Target]) -> anyhow::Result<Self> {
        let folder = folder.join("prometheus");
        fs::create_dir_all(&folder)?;
        let rules = root().join("scripts/observability/alerts.yml");
        let rules = fs::read_to_string(&rules).with_context(|| format!("reading {}", rules.display()))?;
        fs::write(folder.join("alerts.yml"), in_a_hurry(&rules)?)?;
        fs::write(folder.join("prometheus.yml"), CONFIG)?;
        let list = targets.iter().map(|target| {
            let labels = json!({ "component": target.component });
            json!({ "labels": labels, "targets": [target.address.to_string()] })
        });
        fs::write(folder.join("targets.json"), Value::Array(list.collect()).to_string())?;
        let address = free_address()?;
        let log = File::create(folder.join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting prometheus (scripts/prerequisites prometheus)")?;
        let started = Self { child, address };
        wait_until("Prometheus to read all targets", START_DEADLINE, async || {
            let up = started.query("count(up == 1)").await.map_err(|error| format!("{error:#}"))?;
            if up == Some(targets.len().to_string()) { Ok(()) } else { Err(format!("{up:?} of {}", targets.len())) }
        })
        .await?;
        Ok(started)
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = Url::parse_with_params(&format!("http://{}/api/v1/{path}", self.address), query)?;
        let answer = reqwest::get(url).await?;
        Ok(serde_json::from_slice(&answer.error_for_status()?.bytes().await?)?)
    }

    /// The first value of an expression.
    pub(super) async fn query(&self, expression: &str) -> anyhow::Result<Option<String>> {
        let answer = self.get("query", &[("query", expression)]).await.with_context(|| expression.to_owned())?;
        Ok(answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned))
    }

    /// The names of the alerts that fire.
    pub(super) async fn firing(&self) -> anyhow::Result<BTreeSet<String>> {
        let answer = self.get("alerts", &[]).await?;
        let alerts = answer["data"]["alerts"].as_array().context("a list of alerts")?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| Ok(alert["labels"]["alertname"].as_str().context("a name")?.to_owned())).collect()
    }

    /// The names of all alerts.
    pub(super) async fn all(&self) -> anyhow::Result<BTreeSet<String>> {
        let answer = self.get("rules", &[]).await?;
        let groups = answer["data"]["groups"].as_array().context("a list of groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        rules.map(|rule| Ok(rule["name"].as_str().context("a name")?.to_owned())).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The rules with a minute of [`MINUTE_S`] seconds in every range and every `for`.
fn in_a_hurry(rules: &str) -> anyhow::Result<String> {
    let mut rules = rules.to_owned();
    for (rule, time, shorter) in SHORTENED {
        ensure!(rules.matches(time).count() == 1, "the rule {rule} has changed: '{time}' is not in the rules once");
        rules = rules.replace(time, shorter);
    }
    let mut hurried = String::new();
    for line in rules.lines() {
        let is_comment = line.trim_start().starts_with('#');
        let mut rest = if is_comment { "" } else { line };
        while let Some(start) = rest.find(['[']).or_else(|| rest.find("for: ").map(|start| start + 4)) {
            let (before, after) = rest.split_at(start + 1);
            let unit = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            hurried.push_str(before);
            rest = after;
            let Ok(count) = after[..unit].parse::<u32>() else { continue };
            let minutes = match after[unit..].chars().next() {
                Some('m') => count,
                Some('h') => 60 * count,
                other => bail!("{line}: a time in {other:?}"),
            };
            hurried.push_str(&format!("{}s", MINUTE_S * minutes));
            rest = &after[unit + 1..];
        }
        hurried.push_str(rest);
        hurried.push('\n');
    }
    Ok(hurried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_of_a_rule_becomes_seconds() {
        let rules =
            "# for: 2m\nexpr: rate(a[5m]) / max(b[1h]) + 1800 > 14 * 86400\nfor: 4h\ncommand: x --timeout-s 60 [y]\n";
        let hurried =
            "\nexpr: rate(a[15s]) / max(b[180s]) + 20 > 14 * 86400\nfor: 12s\ncommand: x --timeout-s 60 [y]\n";
        assert_eq!(in_a_hurry(rules).expect("rules"), hurried);
        assert_eq!(in_a_hurry("+ 1800\nfor: 4h\nfor: 2m\n").expect("rules"), "+ 20\nfor: 12s\nfor: 6s\n");
        assert!(in_a_hurry("+ 1800\nfor: 4h\nfor: 7d\n").is_err());
        assert!(in_a_hurry("for: 4h\n").is_err(), "the audit's slack is not there");
        assert!(in_a_hurry("+ 1800\nfor: 2m\n").is_err(), "the time of a pause is not there");
    }
}
