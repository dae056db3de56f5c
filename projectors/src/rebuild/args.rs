//! The settings of `cartctl rebuild`.

use std::num::NonZeroU32;

use cart::contract::ReadModel;
use cassandra::CassandraArgs;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use kafka::{KafkaArgs, MemberArgs};
use postgres::DatabaseArgs;
use service::LogArgs;

/// Highest rate that can be set: more than a projector applies.
const RATE_MAX: u64 = 10_000_000;

fn rate() -> impl TypedValueParser<Value = NonZeroU32> {
    RangedU64ValueParser::<u32>::new()
        .range(1..=RATE_MAX)
        .try_map(|rate| NonZeroU32::new(rate).ok_or("it must be at least 1"))
}

/// Build a read model anew beside the generation that readers see, without their noticing
///
/// The next generation gets a table and a consumer group of its own. This process applies item-purchased to it from the beginning,
/// and ends when it has caught up. It may be ended and run again: it goes on. Then run `projectors MODEL --generation NUMBER`,
/// which keeps the generation current, compare it with `cartctl diff`, and let readers see it with `cartctl switch`.
///
/// The new table takes about as much room as the active one, whose size is logged first. No store says how much is free: with
/// --disk-free-mib, a table that takes more than half of that, or whose size is not known, is refused without --yes.
///
/// With --in-place, the table that readers see is emptied, and its consumer group reset to the beginning: for a table that is lost
/// or whose readers know only its name. Stop all instances of the projector first: the command fails while the group has a member.
/// Start the projector afterwards. Until it has reached the end, readers see an empty table, then totals that are too low. A read with
/// Read-After waits for its command, and gets 504 while the table is behind it.
///
/// Exit code 0: done. 1: refused. 2: not found out, or not done whole; run it again.
#[derive(Debug, Clone, clap::Args)]
pub struct RebuildArgs {
    /// The read model, by the name of its projector
    pub(super) model: ReadModel,

    /// Empty the table that readers see, and reset its projector to the beginning
    #[arg(long, conflicts_with_all = ["rate_max", "keep_running", "create_only"])]
    pub(super) in_place: bool,

    /// Maximum number of records applied per second, so that other work on the servers keeps its share
    #[arg(long, value_name = "RECORDS", value_parser = rate())]
    pub(super) rate_max: Option<NonZeroU32>,

    /// Keep the generation current until a signal
    #[arg(long)]
    pub(super) keep_running: bool,

    /// Only create the table and the group's offsets of a new generation, for `projectors MODEL --generation NUMBER` to build it
    #[arg(long, conflicts_with_all = ["rate_max", "keep_running"])]
    pub(super) create_only: bool,

    /// Free space on the disk of the store, or of the fullest of Cassandra's nodes, as `df --block-size=1M` shows it
    #[arg(long, value_name = "MIB", conflicts_with = "in_place")]
    pub(super) disk_free_mib: Option<u32>,

    /// Build a new generation also if it takes more than half of --disk-free-mib, or its size is not known
    #[arg(long, requires = "disk_free_mib")]
    pub(super) yes: bool,

    /// Only show what would be done
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print the result as JSON on standard output; the log is on standard error
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
    #[command(flatten)]
    pub(super) member: MemberArgs,
    #[command(flatten)]
    pub(super) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    /// The log of this run.
    #[command(flatten)]
    pub log: LogArgs,
}
