//! Metrics: what running services export is what `docs/metrics.md` lists, dashboard and rules use nothing else, each alert
//! has its part of docs/operations.md, and a group without work is behind by exactly nothing.

mod page;
mod scraped;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cart::contract::STAGES;
use e2e::harness::{Installation, Process, wait_until};
use kafka::Admin;
use service::Definition;

use scraped::scrape;

const DEADLINE: Duration = Duration::from_secs(60);

/// The metrics of each part, in the order of the page: heading, what exports them, metrics.
const PARTS: [(&str, &str, &[Definition]); 8] = [
    ("Every service", COMMON, service::COMMON_METRICS),
    ("Groups and transactions", "`cart-processor` and the projectors.", kafka::METRICS),
    ("Traces", "`ingest`, `cart-processor` and the projectors, also when nothing is traced.", trace::METRICS),
    ("ingest", "`ingest`.", ingest::METRICS),
    ("cart-processor", "`cart-processor`.", cart_processor::METRICS),
    ("Projectors", "The subcommands of `projectors`.", projectors::METRICS),
    ("Audit", "`cartctl audit --watch`.", cartctl::audit::METRICS),
    ("Live page", "`cart-console`, on its own port.", console::METRICS),
];

const COMMON: &str = "All services; `cart_store_seconds` only `ingest`, `cart-processor` and the projectors.";

/// Exported in some configurations only. `tls` shows that it is.
const ONLY_WITH_TLS: &str = "ingest_tls_certificate_expiry_timestamp_seconds";

fn definitions() -> BTreeMap<&'static str, Definition> {
    PARTS.iter().flat_map(|(_, _, metrics)| *metrics).map(|metric| (metric.name, *metric)).collect()
}

pub(crate) async fn the_page_lists_what_is_exported() -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = page::page(&PARTS);
    if std::env::var_os("METRICS_WRITE").is_some() {
        return std::fs::write(&path, page).context("writing docs/metrics.md");
    }
    let kept = std::fs::read_to_string(path).context("reading docs/metrics.md")?;
    ensure!(kept == page, "docs/metrics.md is not what the services export: write it with METRICS_WRITE=1");
    Ok(())
}

pub(crate) async fn dashboard_and_rules_use_metrics_that_exist() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/observability");
    let definitions = definitions();
    for file in ["alerts.yml", "dashboard.json"] {
        let text = std::fs::read_to_string(folder.join(file)).with_context(|| format!("reading {file}"))?;
        let used: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
        let prefixes = ["audit_", "cart_", "console_", "ingest_", "otel_", "process_", "processor_", "projector_"];
        let used = used.into_iter().filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
        let mut count = 0;
        for word in used {
            let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| word.strip_suffix(part));
            let is_known = [word].into_iter().chain(parts).any(|name| definitions.contains_key(name));
            ensure!(is_known, "{file} uses {word}, which is not exported");
            count += 1;
        }
        ensure!(count > 5, "{file} uses {count} metrics only");
    }
    Ok(())
}

/// Each alert has a heading of its name in docs/operations.md, to which its `runbook_url` leads.
pub(crate) async fn each_alert_leads_to_its_heading() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).with_context(|| format!("reading {file}"));
    let (rules, page) = (read("scripts/observability/alerts.yml")?, read("docs/operations.md")?);
    let rules: serde_json::Value = serde_saphyr::from_str(&rules).context("reading alerts.yml")?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let alerts: Vec<_> = groups.filter_map(|group| group["rules"].as_array()).flatten().collect();
    ensure!(alerts.len() > 5, "alerts.yml has {} alerts only", alerts.len());
    for alert in alerts {
        let name = alert["alert"].as_str().with_context(|| format!("a rule is no alert: {alert}"))?;
        let heading = format!("### {name}");
        ensure!(page.lines().any(|line| line == heading), "docs/operations.md has no heading '{heading}'");
        let url = alert["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let expected = format!("docs/operations.md#{}", name.to_lowercase());
        ensure!(url == expected, "the runbook_url of {name} is '{url}', not {expected}");
    }
    Ok(())
}

/// Whether these services, which are all of the pipeline, export what the page lists: each metric with its type, help and labels,
/// and no other.
pub(crate) async fn documented(services: impl IntoIterator<Item = &Process>) -> anyhow::Result<()> {
    exported(services, |name| !name.starts_with("console_") && name != ONLY_WITH_TLS).await
}

/// Does the same for the live page.
pub(crate) async fn documented_of_console(console: &Process) -> anyhow::Result<()> {
    let is_common = |name: &str| service::COMMON_METRICS.iter().any(|metric| metric.name == name);
    exported([console], |name| name.starts_with("console_") || is_common(name) && name != "cart_store_seconds").await
}

/// Whether what these services export is listed, and they export each listed metric that is expected of them.
async fn exported<'a>(
    services: impl IntoIterator<Item = &'a Process>,
    is_expected: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let definitions = definitions();
    let mut found = BTreeSet::new();
    for service in services {
        for (name, scraped) in scrape(service).await? {
            let definition = definitions.get(name.as_str()).with_context(|| format!("{name} is not documented"))?;
            scraped.check(definition).with_context(|| format!("{name}: {scraped:?}"))?;
            found.insert(name);
        }
    }
    let missing: Vec<_> = definitions.keys().filter(|name| !found.contains(**name) && is_expected(name)).collect();
    ensure!(missing.is_empty(), "documented, and exported by no service: {missing:?}");
    Ok(())
}

/// Whether the services of all groups, which have nothing to do, are behind by 0 in every partition. The usual figure, the end
/// minus the committed offset, is above 0 meanwhile: the topics of transactions end with markers.
pub(crate) async fn nothing_is_left(installation: &Installation, members: &[Process]) -> anyhow::Result<()> {
    let partitions = usize::from(installation.partitions());
    let kafka = installation.kafka();
    let behind = wait_until("every group to be behind by nothing", DEADLINE, async || {
        let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for member in members {
            let scraped = scrape(member).await.map_err(|error| format!("{error:#}"))?;
            for name in ["cart_lag_records", "cart_lag_seconds"] {
                for (labels, value) in scraped.get(name).map(|scraped| &scraped.samples[..]).unwrap_or_default() {
                    left.entry(format!("{name} {}", labels["group"])).or_default().push(value.clone());
                }
            }
        }
        let is_done = left.values().all(|values| values.len() == partitions && values.iter().all(|value| value == "0"));
        if left.len() == 2 * STAGES.len() && is_done { Ok(left) } else { Err(format!("{left:?}")) }
    });
    behind.await?;
    let admin = Admin::new(kafka)?;
    // Commands are appended without transactions.
    for stage in &STAGES[1..] {
        let (group, topic) = (kafka.prefixed(stage.group), kafka.prefixed(stage.topic));
        let ends = tokio::task::block_in_place(|| admin.watermarks(&topic))?;
        let committed = tokio::task::block_in_place(|| admin.committed(&group, &topic))?;
        let usual = ends.iter().zip(committed).map(|((_, end), committed)| end - committed.unwrap_or_default());
        ensure!(usual.sum::<i64>() > 0, "{group}: the end minus the committed offset shows the same");
    }
    Ok(())
}

/// How far a member is behind in all of its partitions: the sum of the records, and the age of the oldest in seconds.
pub(crate) async fn lag(member: &Process) -> anyhow::Result<(f64, f64)> {
    let scraped = scrape(member).await?;
    let values = |name: &str| {
        let samples = scraped.get(name).map(|scraped| &scraped.samples[..]).unwrap_or_default();
        samples.iter().map(|(_, value)| value.parse()).collect::<Result<Vec<f64>, _>>()
    };
    let (records, seconds) = (values("cart_lag_records")?, values("cart_lag_seconds")?);
    Ok((records.iter().sum(), seconds.into_iter().fold(0.0, f64::max)))
}
