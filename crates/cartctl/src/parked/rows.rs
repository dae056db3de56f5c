//! `cartctl parked rows`: the rows of read tables that lack records, and another try.

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use cart::contract::{Contract as _, READ_MODELS, Store};
use cart::{ParkedRow, PurchasedItem, VendorId};
use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;
use scylla::client::session::Session;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{Instant, sleep};

use super::retried::{Retried, Tried, Words};
use crate::operate::Outcome;
use crate::parked_rows::{ListedRow, Stores};

static WORDS: Words =
    Words { one: "row", why_not_tried: "does their projector run, is its partition paused, and can the log be read?" };

/// Between two looks at what became of the requests.
const INTERVAL: Duration = Duration::from_millis(500);

/// List the parked rows of the read tables, or let them be tried again
///
/// A row is parked when a record does not fit in it, or it cannot be read, three times while other rows can be kept. It has what it had
/// before that record; its records from there on wait in item-purchased, and all other rows go on. `cartctl explain` lists those records.
///
/// Exit code 0: done. 1: refused, or a row is still parked. 2: it could not be found out, or not in time.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct RowsArgs {
    #[command(subcommand)]
    verb: Option<RowsVerb>,

    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum RowsVerb {
    Retry(RetryArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    system: System,
}

/// Where the data is.
#[derive(Debug, clap::Args)]
struct System {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Let the projectors try parked rows again, each from the first record that it lacks on
///
/// A repeat requests another try once more. No record is added twice by that.
///
/// Exit code 0: done, or with --wait-s 0 requested. 1: refused, since no such row is parked; or a row was tried and is still parked.
/// 2: not found out, or a row was not tried in time.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
struct RetryArgs {
    /// All parked rows
    #[arg(long, group = "which", conflicts_with_all = ["projector", "vendor", "reason"])]
    all: bool,

    /// Those of this projector, such as vendor-billing or vendor-billing-g2
    #[arg(long, group = "which", value_name = "GROUP")]
    projector: Option<String>,

    /// Those of this vendor
    #[arg(long, group = "which", value_name = "VENDOR")]
    vendor: Option<VendorId>,

    /// Those that are parked for this reason
    #[arg(long, group = "which", value_name = "CODE")]
    #[arg(value_parser = ["row-overflows", "row-unreadable", "row-rejected"])]
    reason: Option<String>,

    /// Wait at most so many seconds until each row is live, or parked again; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait_s: u64,

    /// Print what would be tried, and request nothing
    #[arg(long)]
    dry_run: bool,

    /// Who asks, for the record
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    system: System,
}

impl RetryArgs {
    fn is_meant(&self, projector: &str, row: &ParkedRow) -> bool {
        self.projector.as_ref().is_none_or(|wanted| wanted == projector)
            && self.vendor.is_none_or(|wanted| wanted == row.vendor_id)
            && self.reason.as_ref().is_none_or(|wanted| wanted == row.reason_code())
    }
}

/// The stores, connected.
struct Connected<'a> {
    kafka: &'a KafkaArgs,
    session: Session,
    database: PgPool,
}

impl<'a> Connected<'a> {
    async fn open(system: &'a System) -> anyhow::Result<Self> {
        let session = cassandra::connect(&system.cassandra).await?;
        let database = system.database.connect_lazy(PgPoolOptions::new())?;
        Ok(Self { kafka: &system.kafka, session, database })
    }

    async fn parked(&self) -> anyhow::Result<Vec<(String, ParkedRow)>> {
        let Self { kafka, session, database } = self;
        Stores { kafka, session, database }.all().await.context("reading the parked rows")
    }

    /// Asks for another try of a row.
    async fn request(&self, projector: &str, row: &ParkedRow, by: &str) -> anyhow::Result<()> {
        let model = READ_MODELS.iter().find(|model| model.generation_of_group(projector).is_some());
        match model.with_context(|| format!("{projector} is not a read model"))?.store {
            Store::Cassandra => cassandra::parked_rows::request(&self.session, projector, row, by).await?,
            Store::Postgres => {
                let topic = self.kafka.prefixed(PurchasedItem::TOPIC);
                let key = (row.vendor_id, row.row_key.as_str());
                // One that is live again meanwhile needs no try.
                postgres::parked_rows::request(&self.database, projector, &topic, key, by).await?;
            }
        }
        Ok(())
    }
}

pub(super) async fn rows(args: &RowsArgs, out: &mut impl Write, errors: &mut impl Write) -> anyhow::Result<u8> {
    match &args.verb {
        None => list(&args.list, out).await,
        Some(RowsVerb::Retry(args)) => retry(args).await?.write(args.json, out, errors),
    }
}

async fn list(args: &ListArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    let parked = Connected::open(&args.system).await?.parked().await?;
    let listed: Vec<_> = parked.iter().map(|(projector, row)| ListedRow::of(projector, row)).collect();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &listed)?;
        writeln!(out)?;
        return Ok(0);
    }
    for row in &listed {
        writeln!(out, "{row}")?;
    }
    match listed.len() {
        1 => writeln!(out, "1 row is parked")?,
        count => writeln!(out, "{count} rows are parked")?,
    }
    Ok(0)
}

/// Requests another try, and waits for it.
async fn retry(args: &RetryArgs) -> anyhow::Result<Outcome<Retried<ListedRow>>> {
    let stores = Connected::open(&args.system).await?;
    let meant: Vec<_> =
        stores.parked().await?.into_iter().filter(|(projector, row)| args.is_meant(projector, row)).collect();
    if meant.is_empty() && !args.all {
        return Ok(Outcome::Refused(String::from("no such row is parked")));
    }
    let retried = Retried::new(meant.iter().map(|(projector, row)| ListedRow::of(projector, row)).collect(), &WORDS);
    if args.dry_run {
        return Ok(Outcome::Done(Retried { is_dry_run: true, ..retried }));
    }
    for (projector, row) in &meant {
        stores.request(projector, row, &args.by).await.context("requesting another try")?;
        fail_points::crash_point("row-retry-requested");
    }
    let result = if args.wait_s == 0 { None } else { Some(wait(args, &stores, &meant).await?) };
    Ok(Retried { result, ..retried }.outcome())
}

/// Waits until each row is live, or was tried and is parked again.
async fn wait(
    args: &RetryArgs,
    stores: &Connected<'_>,
    rows: &[(String, ParkedRow)],
) -> anyhow::Result<Tried<ListedRow>> {
    let deadline = Instant::now() + Duration::from_secs(args.wait_s);
    loop {
        let parked = stores.parked().await?;
        let is_of = |(projector, row): &(String, ParkedRow), (group, one): &(String, ParkedRow)| {
            (projector, row.vendor_id, &row.row_key) == (group, one.vendor_id, &one.row_key)
        };
        let still: Vec<_> = rows.iter().filter_map(|row| parked.iter().find(|one| is_of(row, one))).collect();
        let not_tried = still.iter().filter(|(_, row)| row.retry_by.is_some()).count();
        if not_tried > 0 && Instant::now() < deadline {
            sleep(INTERVAL).await;
            continue;
        }
        let still_parked: Vec<_> = still.iter().map(|(projector, row)| ListedRow::of(projector, row)).collect();
        let live = rows.len() - still_parked.len();
        return Ok(Tried { live, still_parked, not_tried, wait_s: args.wait_s });
    }
}

#[cfg(test)]
mod tests {
    use cart::{LogEpoch, Position, RowFault};
    use clap::Parser as _;

    use super::*;
    use crate::vendor_id;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        retry: RetryArgs,
    }

    fn parsed(args: &[&str]) -> Result<RetryArgs, clap::Error> {
        Cli::try_parse_from(["retry"].iter().chain(args)).map(|cli| cli.retry)
    }

    #[test]
    fn which_rows_are_meant_is_to_be_said() {
        assert!(parsed(&[]).is_err() && parsed(&["--all", "--projector", "vendor-billing"]).is_err());
        let vendor = vendor_id("V");
        let row = ParkedRow {
            partition: 0,
            vendor_id: vendor.into(),
            row_key: String::from("2026-11"),
            first_position: Position::new(LogEpoch::FIRST, 7),
            next_position: Position::new(LogEpoch::FIRST, 7),
            reason: RowFault::Rejected(String::from("a constraint")).reason(),
            since: chrono::DateTime::UNIX_EPOCH,
            retry_by: None,
            revision: 0,
        };
        let vendor = vendor.to_string();
        for (args, is_meant) in [
            (vec!["--all"], true),
            (vec!["--projector", "vendor-billing"], true),
            (vec!["--projector", "vendor-billing-g2"], false),
            (vec!["--vendor", &vendor, "--reason", "row-rejected"], true),
            (vec!["--vendor", &vendor, "--reason", "row-overflows"], false),
        ] {
            let args = parsed(&args).expect("it is said");
            assert_eq!(args.is_meant("vendor-billing", &row), is_meant, "{args:?}");
        }
    }
}
