//! A shop's raw rows, sent without corrections: each is rejected with its reason or accepted by rule, and counted. Afterwards
//! the audit finds nothing.
//!
//! The rows are made up, in the shape of UCI's "Online Retail" (D. Chen, S. L. Sain, K. Guo, 2012; CC BY 4.0, CC0 as packaged
//! in `allanvc/onlineretail`). `scripts/replay --rows` sends the real ones.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cartctl::audit::{Target, audit};
use e2e::harness::{Installation, Service};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(180);

const ROWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/raw_rows/rows.csv");

fn expected() -> Value {
    let count = |reason: &str, outcome: &str, count: u64| json!({"reason": reason, "outcome": outcome, "count": count});
    json!([
        count("cancel_without_matching_purchase", "negative-quantity", 2),
        count("duplicate_row", "accepted", 1),
        count("duplicate_row", "item-already-in-cart", 2),
        // A cancellation: the quantity of an addition is checked before the cart's contents.
        count("duplicate_row", "negative-quantity", 1),
        count("made_up", "invalid-field", 3),
        count("made_up", "negative-quantity", 1),
        count("made_up", "quantity-too-large", 1),
        count("missing_customer", "not-found", 2),
        count("missing_customer_nonpositive", "not-found", 2),
        count("second_price_same_invoice", "accepted", 1),
        count("second_price_same_invoice", "item-already-in-cart", 1),
        count("zero_price", "accepted", 1),
    ])
}

pub(crate) async fn each_row_is_rejected_with_its_reason_or_accepted_by_rule() -> anyhow::Result<()> {
    let installation = Installation::new("rows")?;
    installation.setup().await?;
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::Ingest, "0", &["--allow-client-time"]), (Service::CartProcessor, "0", &[])];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let processes = installation.start_all(&services).await?;
    let url = format!("http://{}", processes[0].address().context("ingest has an address")?);

    let (record, json) = (installation.folder().join("record.jsonl"), installation.folder().join("report.json"));
    let (record_text, json_text) = (record.display().to_string(), json.display().to_string());
    let args = ["--url", &url, "--rows", ROWS, "--record", &record_text, "--json", &json_text];
    installation.run("replay", "replay", args, DEADLINE).await?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    assert_eq!(report["counts_by_reason"], expected(), "{report:#}");
    assert_eq!(report["unanswered"], 0);

    let (kafka, cassandra) = (installation.kafka().clone(), installation.cassandra().clone());
    let target = Target::new(kafka, cassandra, installation.database());
    let report = audit(&target, &[record], DEADLINE).await?;
    ensure!(report.is_clean(), "{report}");
    let (client, counts) = (&report.client, &report.counts);
    ensure!(client.commands == 18 && client.acknowledged == 3 && client.refused == 15, "{report}");
    ensure!(counts.accepted == 3 && counts.events == 3, "{report}");
    drop(processes);
    installation.remove().await
}
