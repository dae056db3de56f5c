//! The page `docs/metrics.md`, from the definitions.

use std::fmt::Write as _;

use service::{Definition, Kind, Label};

const HEAD: &str = "\
# Metrics

This page is generated from the services' definitions (`METRICS_WRITE=1 scripts/test the_page_lists`). A test compares it with
what running services export, name by name, with help text and labels.

`/metrics` has the text format of Prometheus, version 0.0.4. Counters exist at 0 from the start, with all values of their labels
that are known then. Histograms have the same buckets in every instance, so they can be added up over instances. Where a service
listens is in [operations.md](operations.md#health-metrics-alerts), with the alerts; dashboard and rules are in
`scripts/observability/`.

A label in *italics* takes its values from the installation: `group` and `topic` are full names, with the prefix. Times by the
clocks of two machines are 0 where the clocks differ by more.
";

pub(super) fn page(parts: &[(&str, &str, &[Definition])]) -> String {
    let mut page = String::from(HEAD);
    for (heading, exported_by, metrics) in parts {
        let mut add = |text: String| writeln!(page, "{text}").unwrap_or_default();
        add(format!(
            "\n## {heading}\n\n{exported_by}\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|"
        ));
        for metric in *metrics {
            let labels: Vec<String> = metric.labels.iter().map(label).collect();
            let (name, kind, unit, labels) = (metric.name, metric.kind.name(), unit(metric), labels.join("; "));
            add(format!("| `{name}` | {kind} | {unit} | {labels} | {}. |", metric.help));
        }
    }
    let buckets = |bounds: &[f64]| bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    let mut all: Vec<(&str, String)> = Vec::new();
    for metric in parts.iter().flat_map(|(_, _, metrics)| *metrics) {
        if let Kind::Histogram(bounds) = metric.kind {
            all.push((metric.name, buckets(bounds)));
        }
    }
    page.push_str("\n## Buckets\n\n| bounds | histograms |\n|---|---|\n");
    while let Some((_, bounds)) = all.first().cloned() {
        let (same, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, other)| *other == bounds);
        let names: Vec<String> = same.iter().map(|(name, _)| format!("`{name}`")).collect();
        writeln!(page, "| {bounds} | {} |", names.join(", ")).unwrap_or_default();
        all = others;
    }
    page
}

fn label(label: &Label) -> String {
    let Label { name, values } = label;
    if values.is_empty() { format!("*{name}*") } else { format!("`{name}`: {}", values.join(", ")) }
}

/// The last word of the name, or what a name without one counts in.
fn unit(metric: &Definition) -> &'static str {
    let name = metric.name.trim_end_matches("_total");
    match name.rsplit('_').next().unwrap_or_default() {
        "info" | "paused" | "ready" | "stopped" => "0 or 1",
        "position" => "offset",
        "fds" => "files",
        "dropped" => "spans",
        "stalled" => "viewers",
        "max" => "bytes",
        "lost" => "replies",
        "refused" => "connections",
        "redelivered" => "carts",
        "rejected" => "commands",
        "flight" => "requests",
        unit => unit,
    }
}
