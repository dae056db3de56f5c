//! Prometheus' text format, read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use e2e::harness::Process;
use service::{Definition, Kind};

/// What a service exports of one metric.
#[derive(Debug, Default)]
pub(crate) struct Scraped {
    help: String,
    kind: String,
    /// Labels and value of each line.
    pub(crate) samples: Vec<(BTreeMap<String, String>, String)>,
}

/// All metrics of a service, by name.
pub(crate) async fn scrape(service: &Process) -> anyhow::Result<BTreeMap<String, Scraped>> {
    read(&reqwest::get(service.metrics_url()?).await?.error_for_status()?.text().await?)
}

fn read(text: &str) -> anyhow::Result<BTreeMap<String, Scraped>> {
    let mut all: BTreeMap<String, Scraped> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(described) = line.strip_prefix("# ") {
            let mut words = described.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().context("a name")?, words.next().context("a text")?);
            let metric = all.entry(name.to_owned()).or_default();
            let place = if what == Some("HELP") { &mut metric.help } else { &mut metric.kind };
            rest.clone_into(place);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').context("a value")?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split_terminator("\",").map(|pair| {
            let (label, value) = pair.split_once("=\"").with_context(|| format!("the labels of {line}"))?;
            Ok((label.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        let labels = labels.collect::<anyhow::Result<_>>()?;
        let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
        let name = of_histogram.into_iter().find(|name| all.contains_key(*name)).unwrap_or(name);
        let metric = all.get_mut(name).with_context(|| format!("{name} has no help and type"))?;
        metric.samples.push((labels, value.to_owned()));
    }
    Ok(all)
}

impl Scraped {
    /// Whether it is as it is defined.
    pub(super) fn check(&self, definition: &Definition) -> anyhow::Result<()> {
        ensure!(self.help == definition.help, "the help differs: {}", definition.help);
        ensure!(self.kind == definition.kind.name(), "the type differs: {:?}", definition.kind);
        ensure!(!self.samples.is_empty(), "it has no samples");
        let names: BTreeSet<&str> = definition.labels.iter().map(|label| label.name).collect();
        let mut bounds = BTreeSet::new();
        for (labels, _) in &self.samples {
            let found: BTreeSet<&str> = labels.keys().map(String::as_str).filter(|name| *name != "le").collect();
            ensure!(found == names, "the labels are {found:?}, not {names:?}");
            bounds.extend(labels.get("le"));
            for label in definition.labels.iter().filter(|label| !label.values.is_empty()) {
                ensure!(label.values.contains(&labels[label.name].as_str()), "{label:?} has another value");
            }
        }
        let Kind::Histogram(wanted) = definition.kind else { return Ok(()) };
        let expected = wanted.iter().map(f64::to_string).chain([String::from("+Inf")]).collect::<BTreeSet<_>>();
        ensure!(bounds.into_iter().eq(&expected), "the buckets are not {expected:?}");
        Ok(())
    }
}
