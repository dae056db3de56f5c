//! `cartctl status`: how far each consumer group is, what keeps it, and what is parked.

mod audit;
mod generations;
mod look;
mod numbers;
mod parked;
mod partition;
mod table;
mod text;
mod watch;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use cassandra::CassandraArgs;
use kafka::{Admin, KafkaArgs, Registry};
use postgres::DatabaseArgs;

pub use self::audit::{Audit, LastAudit};
use self::generations::Stores;
use self::look::Looks;
pub use self::parked::ListedCart;
pub use self::partition::{Partition, State};
use self::table::View;
pub use self::text::{DiscardedCommand, SkippedRecord, Status};
use self::watch::{Form, print, watch};

/// From one look to the next: the rates are of this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// From one look of --watch to the next.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Show how far each consumer group is, what keeps it, and what is parked
///
/// A read model has a group for each of its generations; `*` marks the one whose table readers see. `next` is the offset at which the
/// group goes on. `behind` is 0 exactly when no record is left; otherwise it counts offsets up
/// to the end, which may include those of transactions' markers. `oldest waiting` is the age of the first record that is left,
/// by the clock of its producer. Partitions of a group share a line where they have one owner, run or have no member, and have no
/// record left: their rates are added, and `next` is left out.
///
/// The command takes two looks, a second apart, for the rate. It reads Kafka, and the stores, which know the parked rows and, where a
/// read model has more than one generation, the active one. Without an answer of the stores within two seconds it shows the rest. It
/// joins no group and changes nothing.
///
/// Exit code 0: shown. 2: a setting is invalid, or Kafka or the registry does not respond. With --watch the reason why they do not is
/// printed, and the next look follows.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl status --watch")]
pub struct Args {
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    pub watch: bool,

    /// Print each partition on a line of its own, with its next offset; JSON always has each
    #[arg(long)]
    pub partitions: bool,

    /// Print JSON; with --watch one object per line
    #[arg(long)]
    pub json: bool,

    /// URL of the metrics of `cartctl audit --watch`, such as http://127.0.0.1:9016/metrics; with it the last audit is shown
    #[arg(long, env = "STATUS_AUDIT_URL", value_name = "URL")]
    pub audit_url: Option<String>,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub cassandra: CassandraArgs,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

impl Args {
    /// The URL; a variable that is set to nothing is none.
    fn audit_url(&self) -> Option<&str> {
        self.audit_url.as_deref().filter(|url| !url.is_empty())
    }
}

/// Writes the state to `out`, once or again and again. Ends when `out` is closed by its reader.
///
/// # Errors
/// A setting is invalid, or writing fails. Without `--watch` also if Kafka or the registry does not respond.
pub async fn status(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let mut source = Source { args, stores: Stores::new(&args.cassandra, &args.database)?, looks: None };
    if args.watch {
        check_settings(&args.kafka)?;
        let is_in_place = !args.json && std::io::stdout().is_terminal();
        let form = Form { as_json: args.json, each_partition: args.partitions, is_in_place };
        return watch(form, WATCH_INTERVAL, async || source.look().await, out, &mut std::io::stderr()).await;
    }
    let status = source.look().await?;
    let text = if args.json {
        serde_json::to_string_pretty(&status)?
    } else {
        status.text(View { each_partition: args.partitions, columns: None })
    };
    print(out, &text).map(drop)
}

/// Finds invalid settings, without waiting for a server. Each look reports those of the stores, and shows the rest.
///
/// # Errors
/// A setting of Kafka or the registry is invalid. A watch would repeat that for ever, as it does that a server is away.
fn check_settings(kafka: &KafkaArgs) -> anyhow::Result<()> {
    Admin::new(kafka)?;
    Registry::new(kafka)?;
    Ok(())
}

/// The servers of each look, over connections that stay.
struct Source<'a> {
    args: &'a Args,
    stores: Stores,
    /// `None` before the first look, and after one that failed: the next one connects anew.
    looks: Option<Looks>,
}

impl Source<'_> {
    async fn look(&mut self) -> anyhow::Result<Status> {
        let mut looks = match self.looks.take() {
            Some(looks) => looks,
            None => {
                let mut looks = Looks::open(&self.args.kafka).await?;
                looks.start()?;
                tokio::time::sleep(LOOK_INTERVAL).await;
                looks
            }
        };
        let mut status = looks.look(&self.stores).await?;
        self.looks = Some(looks);
        if let Some(url) = self.args.audit_url() {
            status.audit = match LastAudit::ask(url).await {
                Ok(audit) => Audit::Last(audit),
                Err(error) => {
                    status.unknown.push(format!("the last audit is not known: {error:#}"));
                    Audit::NotKnown
                }
            };
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test]
    async fn an_invalid_setting_ends_a_watch() {
        for invalid in [
            ["--schema-registry-url", "no url"],
            ["--registry-ca-cert", "/nowhere/ca.pem"],
            ["--kafka-security=ssl", "--kafka-ca-cert=/nowhere/ca.pem"],
        ] {
            let args = Cli::parse_from(["status", "--watch"].iter().chain(&invalid)).args;
            let error = check_settings(&args.kafka).expect_err("it is invalid");
            let mut out = Vec::<u8>::new();
            let ended = tokio::time::timeout(Duration::from_secs(10), status(&args, &mut out)).await;
            let told = ended.expect("it does not go on").expect_err("it is invalid");
            assert_eq!(told.to_string(), error.to_string(), "{told:#}");
        }
    }

    #[test]
    fn an_empty_url_of_the_audit_is_none() {
        let url = |option: &str| Cli::parse_from(["status", option]).args.audit_url().map(str::to_owned);
        assert_eq!(url("--audit-url="), None);
        assert_eq!(url("--audit-url=http://127.0.0.1:9016/metrics").as_deref(), Some("http://127.0.0.1:9016/metrics"));
    }
}
