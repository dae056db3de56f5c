//! The crash windows of the cart-processor: it crashes on both sides of the journal write and of the transaction, and is
//! restarted. Clients get no wrong answer, readers of committed records see each event once, and journal and topic are equal
//! byte for byte.
//!
//! Needs binaries with the feature `fail-points` (`scripts/test` builds them).

use std::time::Duration;

use cartctl::journal::journal_equals_topic;
use e2e::harness::{Installation, Service};

const DEADLINE: Duration = Duration::from_secs(180);

/// The crashed member's partitions are reassigned after its session timeout, which is most of the test's time. The short commit
/// interval gives the short load many transactions.
const SESSION: [&str; 4] = ["--session-timeout-ms", "2000", "--commit-interval-ms", "25"];

/// How often the fail point is passed before the crash, so that it is in the middle of the load.
const PASSED: u32 = 20;

async fn crash_at(fail_point: &str) -> anyhow::Result<()> {
    let installation = Installation::new("crash")?;
    installation.setup().await?;
    let ingest = installation.start_all(&[(Service::Ingest, "0", &["--allow-client-time"])]).await?;
    let action = format!("{fail_point}={PASSED}*off->return");
    let mut processor = installation.start_to_crash(Service::CartProcessor, "0", &SESSION, &action)?;
    processor.ready(DEADLINE).await?;

    let url = format!("http://{}", ingest[0].address().expect("ingest has an address"));
    let sent = installation.folder().join("sent.csv.gz").display().to_string();
    let shop = ["--commands", "1500", "--members", "60", "--products", "40", "--refused-share", "0.05"];
    let run = ["--url", &url, "--concurrency", "16", "--sent", &sent, "--expect-intended"];
    let mut replay = installation.spawn("replay", "replay", run.into_iter().chain(shop))?;

    let status = processor.ended(DEADLINE).await?;
    assert!(!status.success(), "the processor was to crash at {fail_point}, but ended well");
    let mut successor = installation.start_all(&[(Service::CartProcessor, "0", &SESSION)]).await?;
    // Each command gets the right outcome; if its answer was lost, by a retry with its idempotency key.
    replay.succeeded(DEADLINE).await?;

    let projectors: Vec<_> = Service::PROJECTORS.iter().map(|projector| (*projector, "0", &[][..])).collect();
    let _projectors = installation.start_all(&projectors).await?;
    let report = installation
        .run("reconcile", "cartctl", ["reconcile", "--sent", &sent, "--timeout-s", "120"], 2 * DEADLINE)
        .await?;
    assert!(report.contains("0 differences"), "{report}");
    let differences = journal_equals_topic(installation.kafka(), installation.cassandra()).await?;
    assert!(differences.is_empty(), "after a crash at {fail_point}:\n{}", differences.join("\n"));
    successor[0].terminate(DEADLINE).await?;
    installation.remove().await
}

pub(crate) async fn before_the_journal_write() -> anyhow::Result<()> {
    crash_at("processor-before-journal").await
}

pub(crate) async fn between_the_journal_write_and_the_transaction() -> anyhow::Result<()> {
    crash_at("processor-after-journal").await
}

pub(crate) async fn inside_the_transaction() -> anyhow::Result<()> {
    crash_at("processor-in-transaction").await
}

pub(crate) async fn after_the_commit() -> anyhow::Result<()> {
    crash_at("processor-after-commit").await
}
