//! The settings of `diff`, `switch` and `drop`.

use std::str::FromStr;

use cart::Generation;
use cart::contract::ReadModel;
use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;

use crate::operate::sha256;

/// The servers of the installation.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct System {
    #[command(flatten)]
    pub(super) kafka: KafkaArgs,
    #[command(flatten)]
    pub(super) cassandra: CassandraArgs,
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
}

/// A diff that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Accepted {
    /// One without differences.
    Equal,
    /// The one with this digest.
    Digest(String),
    /// Each, of a generation that readers are to leave.
    Any,
}

impl FromStr for Accepted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Equal),
            "any" => Ok(Self::Any),
            _ => {
                let digits = sha256(text)
                    .map_err(|_| "it must be `none`, `any`, or sha256: and 64 digits as `cartctl diff` prints it")?;
                Ok(Self::Digest(format!("sha256:{digits}")))
            }
        }
    }
}

/// Compare two generations of a read model row by row, while both are kept current
///
/// A row is a function of the log up to some offset. Where one table is further than the other, the records between are added to
/// the older row before the two are compared. So every difference is one that stays. Reads both tables whole, and keeps their rows
/// in memory: some 300 bytes a row.
///
/// A parked row is not compared, and counts as a difference.
///
/// Exit code 0: no difference. 1: differences. 2: not found out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl diff popular-items")]
pub struct DiffArgs {
    /// The read model, by the name of its projector
    pub(super) model: ReadModel,

    /// The generation to compare; by default the one that readers see
    #[arg(requires = "with")]
    pub(super) generation: Option<Generation>,

    /// The generation to compare it with; by default the newest other one
    pub(super) with: Option<Generation>,

    /// Print JSON, with all differences
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) system: System,
}

/// Let readers see another generation of a read model
///
/// Refused unless --accept-diff names what `cartctl diff` says now, and unless the generation is current and has no parked rows. Both
/// groups are paused at one offset a partition, and the rows that have changed since are compared again there; then readers change over,
/// and both groups go on. No total falls for a reader, unless an accepted difference says so. Refused while another run changes the read
/// model, and when an operator pauses one of the groups meanwhile: that pause holds. If it is killed, run it again, not `cartctl resume`:
/// after 10 s it ends what it has paused, and keeps what operators have.
///
/// Exit code 0: switched. 1: refused. 2: not found out; run it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl switch popular-items --to 2 --accept-diff none")]
pub struct SwitchArgs {
    /// The read model, by the name of its projector
    pub(super) model: ReadModel,

    /// The generation that readers are to see
    #[arg(long, value_name = "GENERATION", conflicts_with = "back", requires = "accept_diff")]
    #[arg(required_unless_present_any = ["back", "in_place"])]
    pub(super) to: Option<Generation>,

    /// Let readers see the generation again that they saw before the last switch
    #[arg(long)]
    pub(super) back: bool,

    /// Do not change what readers see, but give the table of generation 1 the rows of the active generation, for other programs that
    /// read Cassandra by that table's name. Stop all instances of the projector of generation 1 for good first, and start the new one
    /// afterwards
    #[arg(long, conflicts_with_all = ["to", "back", "accept_diff"])]
    pub(super) in_place: bool,

    /// The digest of the differences to accept, as `cartctl diff` prints it; `none`: only without differences; `any`, only with
    /// --back: whatever differs, as where the generation goes on miscounting
    #[arg(long, value_name = "sha256:DIGEST|none|any")]
    pub(super) accept_diff: Option<Accepted>,

    /// Why; the table read_model and `cartctl log` have it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) reason: String,

    /// Who; the table read_model and `cartctl log` have it
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    pub(super) by: String,

    /// Only check whether it would be refused
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) system: System,
}

/// Delete a generation of a read model that readers do not see
///
/// Deletes its table and its consumer group. Stop its projector first: refused while the group has a member. After that, `cartctl
/// switch --back` to it is impossible.
///
/// Exit code 0: deleted, or not there. 1: refused. 2: not found out, or not done whole; run it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl drop popular-items --generation 1 --dry-run")]
pub struct DropArgs {
    /// The read model, by the name of its projector
    pub(super) model: ReadModel,

    #[arg(long, value_name = "NUMBER")]
    pub(super) generation: Generation,

    /// Who; shown to another operator who changes the read model meanwhile
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    pub(super) by: String,

    /// Only show what would be deleted
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) system: System,
}

impl DiffArgs {
    /// Whether to print JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }
}

impl SwitchArgs {
    /// Whether only the table of generation 1 is to be replaced.
    #[must_use]
    pub fn in_place(&self) -> bool {
        self.in_place
    }

    /// Whether to print JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }
}

impl DropArgs {
    /// Whether to print JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_accepted_by_its_digest() {
        assert_eq!("none".parse(), Ok(Accepted::Equal));
        assert_eq!("any".parse(), Ok(Accepted::Any));
        let digest = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(digest.parse(), Ok(Accepted::Digest(digest.clone())));
        assert!("".parse::<Accepted>().is_err() && "sha256:ab".parse::<Accepted>().is_err());
    }
}
