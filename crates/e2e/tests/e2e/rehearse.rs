//! `cartctl rehearse` on a pipeline at rest: the same rules make no difference; of a changed rule exactly the commands are shown
//! whose results it changes.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, ensure};
use cart::contract::Contract as _;
use cart::{CartCommand, CartEvent, Event};
use chrono::{DateTime, SecondsFormat};
use e2e::harness::{Installation, binary};
use kafka::{Codec, Message as _, Registry, TopicReader};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::pipeline::RECONCILE_DEADLINE;

/// Rehearses. Returns the report.
fn rehearse(installation: &Installation, args: &[&str], fail_points: &str, code: i32) -> anyhow::Result<Value> {
    let mut command = Command::new(binary("cartctl")?);
    command.args(["rehearse", "--json"]).args(args).envs(installation.environment()).env("FAILPOINTS", fail_points);
    let output = command.output()?;
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(code), "{args:?}: {}, expected {code}: {text} {errors}", output.status);
    serde_json::from_str(&text).context("reading the JSON report")
}

/// Partition and offset of the commands that added an item at a price of more than two decimals.
fn with_fine_prices(installation: &Installation) -> anyhow::Result<BTreeSet<(i64, i64)>> {
    let topic = installation.kafka().prefixed(CartEvent::TOPIC);
    let registry = Registry::new(installation.kafka())?;
    tokio::task::block_in_place(|| {
        let runtime = Handle::current();
        let codec = runtime.block_on(Codec::<CartEvent>::register(&registry, CartEvent::TOPIC, CartEvent::SCHEMA))?;
        let mut reader = TopicReader::open_at_beginning(installation.kafka(), &topic)?;
        let mut commands = BTreeSet::new();
        while let Some(message) = reader.next(RECONCILE_DEADLINE)? {
            let event = codec.decode_or_fetch_blocking(message.payload().unwrap_or_default(), &runtime)??;
            if let Event::ItemAdded { item } = &event.event
                && item.price.get().normalize().scale() > 2
            {
                commands.insert((message.partition().into(), event.position.offset()));
            }
        }
        Ok(commands)
    })
}

/// The time of a record in the middle of `cart-commands`.
fn middle(installation: &Installation) -> anyhow::Result<String> {
    let topic = installation.kafka().prefixed(CartCommand::TOPIC);
    tokio::task::block_in_place(|| {
        let mut reader = TopicReader::open_at_beginning(installation.kafka(), &topic)?;
        let mut times = Vec::new();
        while let Some(message) = reader.next(RECONCILE_DEADLINE)? {
            times.extend(message.timestamp().to_millis());
        }
        times.sort_unstable();
        let at = DateTime::from_timestamp_millis(times[times.len() / 2]).context("a time")?;
        Ok(at.to_rfc3339_opts(SecondsFormat::Millis, true))
    })
}

/// The commands of the differences, each of which must be in the events.
fn different(report: &Value) -> anyhow::Result<BTreeSet<(i64, i64)>> {
    let differences = report["differences"].as_array().context("differences")?;
    let of = |difference: &Value| {
        ensure!(difference["differs"] == "events", "{difference:#}");
        Ok((
            difference["partition"].as_i64().context("a partition")?,
            difference["offset"].as_i64().context("an offset")?,
        ))
    };
    differences.iter().map(of).collect()
}

pub(crate) fn rehearses_the_log_and_finds_a_changed_rule(installation: &Installation) -> anyhow::Result<()> {
    let report = rehearse(installation, &[], "", 0)?;
    ensure!(report["different"] == 0 && report["equal"].as_u64() > Some(2_500) && report["waiting"] == 0, "{report:#}");
    let expected = with_fine_prices(installation)?;
    ensure!(expected.len() > 10, "{} commands have prices of more than two decimals", expected.len());
    let changed = "rule-four-decimals=return";
    let found = different(&rehearse(installation, &[], changed, 1)?)?;
    ensure!(found == expected, "expected {expected:?}, found {found:?}");
    // From the middle on, with carts that are loaded from the journal.
    let report = rehearse(installation, &["--since", &middle(installation)?], changed, 1)?;
    let start = |partition: &i64| report["ranges"][usize::try_from(*partition).unwrap_or_default()][0].as_i64();
    let is_since = |(partition, offset): &(i64, i64)| start(partition).is_some_and(|start| *offset >= start);
    let (since, before): (BTreeSet<_>, BTreeSet<_>) = expected.into_iter().partition(is_since);
    ensure!(different(&report)? == since && !since.is_empty() && !before.is_empty(), "expected {since:?}: {report:#}");
    let report = rehearse(installation, &["--since", "2999-01-01"], changed, 0)?;
    ensure!(report["equal"] == 0, "no command is of that time: {report:#}");
    Ok(())
}
