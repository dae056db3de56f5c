//! The settings of `pause`, `resume`, `skip`, `skipped` and `log`.

use std::time::Duration;

use control::{Group, PartitionCut};
use kafka::KafkaArgs;

use super::place::{Place, sha256};

/// How long a wait may be.
const WAIT_MAX_S: u64 = 86_400;

fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    match digits.parse() {
        Ok(seconds) if seconds <= WAIT_MAX_S => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err(format!("it must be seconds up to {WAIT_MAX_S}, such as 30s")),
    }
}

/// Who does it, and why.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Signed {
    /// Why; `status` and `log` show it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,

    /// Who; `status` and `log` show it
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    pub(crate) by: String,
}

/// Stop a consumer group, or one partition of it, from applying records, while it runs
///
/// Each member finishes and commits what it has read, stops reading, and records the committed offset. Members keep their
/// partitions and stay ready. The pause holds over restarts and rebalances until `cartctl resume`. A group that does not run is
/// paused when it starts. A process that is stopped from outside (SIGSTOP) may still write what it has in its hands when it
/// goes on; that changes nothing that is stored.
///
/// Exit code 0: recorded, and with --wait followed. 1: refused. 2: not found out, or not followed in time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl pause vendor-billing-jdbc --reason 'index build' --wait 30s")]
pub struct PauseArgs {
    /// The consumer group, as `cartctl status` lists it
    pub(super) group: Group,

    /// Only this partition
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: Option<i32>,

    /// Pause a partition exactly before this offset of its topic; may be repeated. Two groups that are paused before the same
    /// offsets have applied the same records
    #[arg(long, value_name = "PARTITION=OFFSET", conflicts_with = "partition")]
    pub(super) at_offset: Vec<PartitionCut>,

    #[command(flatten)]
    pub(super) signed: Signed,

    /// Wait until each member has paused
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30s", value_parser = seconds)]
    pub(super) wait: Option<Duration>,

    /// Only show what would be recorded
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
}

/// Let a paused consumer group, or one partition of it, go on exactly where it was
///
/// Exit code 0: recorded, and with --wait followed; also when nothing was paused. 1: refused. 2: not found out, or not followed
/// in time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl resume vendor-billing-jdbc --wait 30s")]
pub struct ResumeArgs {
    /// The consumer group, as `cartctl status` lists it
    pub(super) group: Group,

    /// Only this partition
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: Option<i32>,

    /// Why; `log` shows it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,

    /// Who; `log` shows it
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    pub(super) by: String,

    /// Wait until each member goes on
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30s", value_parser = seconds)]
    pub(super) wait: Option<Duration>,

    /// Only show what would be recorded
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
}

/// Let a group go past a record that it cannot read, without applying it
///
/// Refused unless the partition is stopped at exactly this offset, and the record has exactly this hash; also when another generation of
/// the read model has applied the record. The skip is recorded and holds for ever, for all generations: over restarts, upgrades and
/// `cartctl rebuild`. The audit reports the record as skipped. A command is never skipped: one that cannot be read becomes a dead
/// letter, and one that cannot be decided is given up by `cartctl parked discard`.
///
/// Exit code 0: recorded. 1: refused. 2: not found out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example; `cartctl status` prints the record and its hash:
  cartctl skip popular-items item-purchased/3/77 --expect sha256:9f0c... --reason 'written by a test'")]
pub struct SkipArgs {
    /// The consumer group, as `cartctl status` lists it
    pub(super) group: Group,

    /// The record, as topic/partition/offset
    pub(super) record: Place,

    /// SHA-256 of the record's value, as `cartctl status` prints it
    #[arg(long, value_name = "sha256:HASH", value_parser = sha256, required_unless_present = "withdraw")]
    pub(super) expect: Option<String>,

    /// Skip it no more: a table that is built again stops at the record, and the audit reports what the tables lack
    #[arg(long, conflicts_with = "expect")]
    pub(super) withdraw: bool,

    #[command(flatten)]
    pub(super) signed: Signed,

    /// Only show what would be recorded
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
}

/// Where to read from, and how to print it.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

impl PauseArgs {
    /// Whether to print JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }
}

impl ResumeArgs {
    /// Whether to print JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }
}

impl SkipArgs {
    /// Whether to print JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }
}
