//! `cartctl reconcile`: checks that everything that was sent has reached every read table, to the cent.

mod args;
mod compare;
mod csv_file;
mod expected;
mod report;
mod rest;
mod sent;
mod stores;

use std::time::Duration;

use anyhow::Context as _;
use cart::PurchasedItem;
use cart::contract::{Contract as _, READ_MODELS};
use parking::AllParked;
use sqlx::postgres::PgPoolOptions;

pub use args::Args;
pub use compare::{Comparison, Difference, Differences, Rows};
pub use csv_file::Error as FileError;
pub use expected::read as read_expected;
pub use report::{Report, Sums, TableSums, Unanswered, Verdict};
pub(crate) use rest::stored_offsets;
pub use rest::{ConsumerLag, Lag, NotAtRest, wait as wait_for_rest};
pub use sent::read as read_sent;
pub(crate) use stores::decimal;
pub use stores::{read_balance_by_vendor, read_item_quantity_by_day, read_table, read_vendor_billing};

use self::compare::without_parked;
use self::stores::{Purchases, read_table_but};
use crate::parked_rows::Stores;
use crate::read_tables::active;
use crate::totals::{Labels, Totals};
use crate::{ListedRow, ParkedKeys};

/// The store's name for differences in the file of sent commands.
const SENT: &str = "sent commands";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline is not idle.
    #[error(transparent)]
    NotAtRest(#[from] NotAtRest),
    /// A file can't be read, a server is unavailable, or a table does not exist.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The expected totals, as far as there are files.
struct Expectations {
    /// A description of the files.
    sources: Vec<String>,
    totals: Option<Totals>,
    labels: Labels,
    unanswered: Unanswered,
}

/// Waits until the pipeline is idle, then reads and compares everything.
///
/// # Errors
/// The pipeline does not become idle in time, or something can't be read.
pub async fn run(args: &Args) -> Result<Report, Error> {
    let mut differences = Differences::new(args.differences_max);
    let Expectations { mut sources, totals: expected, labels, unanswered } = expectations(args, &mut differences)?;
    // Lazily, so that it waits for a database that is still starting.
    let database = args.database.connect_lazy(PgPoolOptions::new()).context("reading the settings of PostgreSQL")?;
    wait_for_rest(&args.kafka, &args.cassandra, &database, Duration::from_secs(args.timeout_s)).await?;

    let parked_carts = AllParked::read(&args.kafka).await.context("reading the parked carts")?.carts.len();
    let session = cassandra::connect(&args.cassandra).await.context("reading Cassandra's tables")?;
    let purchases = stores::purchases(&args.kafka, &mut differences).await.context("reading topic item-purchased")?;
    let Purchases { totals: topic, skipped, without } = purchases;

    if expected.is_none() {
        sources.push(String::from("the purchases on the topic"));
    }
    let comparison = Comparison {
        expected: expected.as_ref().unwrap_or(&topic),
        labels: &labels,
        more_rows_allowed: args.allow_more_rows,
    };
    if expected.is_some() {
        compare(comparison, PurchasedItem::TOPIC, &topic, &mut differences);
    }
    let on_topic = Sums::of(&topic);
    let mut tables = Vec::new();
    let stores = Stores { kafka: &args.kafka, session: &session, database: &database };
    let mut parked_rows = Vec::new();
    for model in READ_MODELS {
        let generation = active(model, &session, &database).await?;
        let parked = stores.parked(model, generation).await?;
        let keys: ParkedKeys = parked.iter().collect();
        parked_rows.extend(parked.iter().map(|row| ListedRow::of(&model.group_name(generation), row)));
        let rows = read_table_but(model.table, &session, &database, &keys).await?;
        let store = model.to_string();
        let table_sums = Sums::of_rows(&rows);
        // The tables are also compared with the topic, with or without expected totals. A parked row lacks purchases: it is named.
        let skipped = without.get(model.group);
        if skipped.is_some() || !keys.is_empty() {
            let nothing = Totals::default();
            let skipped = skipped.unwrap_or(&nothing);
            let expected = without_parked(&comparison.expected.without(skipped), &keys);
            let rows = rows.without(&keys);
            Comparison { expected: &expected, ..comparison }.rows(&store, &rows, &mut differences);
            let on_topic = Sums::of(&without_parked(&topic.without(skipped), &keys));
            Sums::of_rows(&rows).check(&store, &on_topic, &mut differences);
        } else {
            comparison.rows(&store, &rows, &mut differences);
            table_sums.check(&store, &on_topic, &mut differences);
        }
        tables.push(TableSums { table: model.table.name(), sums: table_sums });
    }
    let expected = expected.as_ref().map(Sums::of);
    let report = Report::new(sources, expected, on_topic, tables, &differences, unanswered);
    Ok(Report { skipped, parked_carts, parked_rows, ..report })
}

/// Reads the files. If there are both kinds, compares them with each other.
fn expectations(args: &Args, differences: &mut Differences) -> anyhow::Result<Expectations> {
    let mut all =
        Expectations { sources: vec![], totals: None, labels: Labels::default(), unanswered: Unanswered::default() };
    if let Some(folder) = &args.expected {
        let (totals, labels) = read_expected(folder)?;
        all.sources.push(format!("the totals in {}", folder.display()));
        all.labels.extend(labels);
        all.totals = Some(totals);
    }
    let Some(file) = &args.sent else { return Ok(all) };
    let outcome = read_sent(file)?;
    all.labels.extend(outcome.labels);
    for wrong in outcome.wrong {
        let what = format!("line {}, member {}: outcome", wrong.line, wrong.member);
        differences.add(SENT, what, Some(wrong.expected), Some(wrong.found));
    }
    if !outcome.unanswered.is_empty() {
        all.unanswered = Unanswered::new(&outcome.unanswered, args.differences_max);
        return Ok(all);
    }
    all.sources.push(format!("the totals of the {} commands in {}", outcome.commands, file.display()));
    match &all.totals {
        None => all.totals = Some(outcome.totals),
        Some(expected) => {
            let comparison = Comparison { expected, labels: &all.labels, more_rows_allowed: args.allow_more_rows };
            compare(comparison, SENT, &outcome.totals, differences);
        }
    }
    Ok(all)
}

fn compare(comparison: Comparison<'_>, store: &str, found: &Totals, differences: &mut Differences) {
    if let (Some(expected), Some(found), false) =
        (comparison.expected.purchases, found.purchases, comparison.more_rows_allowed)
    {
        differences.check(store, "number of purchases", expected, found);
    }
    comparison.months(store, &found.months, differences);
    comparison.days(store, &found.days, differences);
}
