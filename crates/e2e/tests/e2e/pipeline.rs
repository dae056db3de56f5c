//! The whole pipeline, with the services of the demo: every table has what was sent, to the cent, the journal and the events
//! topic are equal, and each figure can be explained.

use std::time::Duration;

use cartctl::journal::journal_equals_topic;
use e2e::harness::{Installation, Process, Service};

use crate::explain::explains_figures_and_finds_wrong_ones;
use crate::rehearse::rehearses_the_log_and_finds_a_changed_rule;

/// The timeout, far longer than a debug build needs on two busy cores.
const REPLAY_DEADLINE: Duration = Duration::from_secs(180);
pub(crate) const RECONCILE_DEADLINE: Duration = Duration::from_secs(180);
const TERMINATE_DEADLINE: Duration = Duration::from_secs(180);

/// The replay checks each answer.
async fn replay(installation: &Installation, ingest: &Process, sent: &str) -> anyhow::Result<String> {
    let url = format!("http://{}", ingest.address().expect("ingest has an address"));
    let shop =
        ["--commands", "3000", "--members", "200", "--products", "60", "--vendors", "8", "--refused-share", "0.05"];
    let hot = ["--hot-carts", "3", "--hot-share", "0.3"];
    let run = ["--url", &url, "--concurrency", "64", "--sent", sent, "--expect-intended"];
    let args = run.into_iter().chain(shop).chain(hot);
    installation.run("replay", "replay", args, REPLAY_DEADLINE).await
}

pub(crate) async fn every_table_has_what_was_sent() -> anyhow::Result<()> {
    let installation = Installation::new("pipeline")?;
    installation.setup().await?;
    // A second `setup` finds everything in place.
    installation.run("cart-processor-setup", "cart-processor", ["setup"], RECONCILE_DEADLINE).await?;

    let mut services: Vec<(Service, &str, &[&str])> = vec![
        (Service::CartProcessor, "a", &[]),
        (Service::CartProcessor, "b", &[]),
        (Service::Ingest, "a", &["--allow-client-time"]),
    ];
    for projector in Service::PROJECTORS {
        services.extend([(projector, "a", &[][..]), (projector, "b", &[])]);
    }
    let mut processes = installation.start_all(&services).await?;

    let sent = installation.folder().join("sent.csv.gz").display().to_string();
    replay(&installation, &processes[2], &sent).await?;
    let timeout_s = RECONCILE_DEADLINE.as_secs().to_string();
    let json = installation.folder().join("result.json");
    let json_text = json.display().to_string();
    let args = ["reconcile", "--sent", &sent, "--timeout-s", &timeout_s, "--json", &json_text];
    let report = installation.run("reconcile", "cartctl", args, 2 * RECONCILE_DEADLINE).await?;
    assert!(report.contains("0 differences"), "{report}");
    // There are purchases: every eighth command is a checkout.
    let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    assert!(result["topic"]["purchases"].as_u64() > Some(1_000), "{result:#}");
    let differences = journal_equals_topic(installation.kafka(), installation.cassandra()).await?;
    assert!(differences.is_empty(), "journal and topic differ:\n{}", differences.join("\n"));

    for process in &mut processes {
        process.terminate(TERMINATE_DEADLINE).await?;
    }
    rehearses_the_log_and_finds_a_changed_rule(&installation)?;
    // Last, since it makes tables wrong.
    explains_figures_and_finds_wrong_ones(&installation).await?;
    installation.remove().await
}
