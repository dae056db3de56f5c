//! `cartctl status`: how far each consumer group is, and what keeps it.

mod audit;
mod generations;
mod look;
mod numbers;
mod text;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use anyhow::Context as _;
use cassandra::CassandraArgs;
use kafka::KafkaArgs;
use postgres::DatabaseArgs;

pub use self::audit::LastAudit;
use self::generations::Stores;
use self::look::Looks;
pub use self::text::{Partition, State, Status};

/// From one look to the next: the rates are of this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// From one look of --watch to the next.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Clears a terminal from its upper left corner on.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show how far each consumer group is, partition by partition, and what keeps it
///
/// A read model has a group for each of its generations; `*` marks the one whose table readers see. `next` is the offset at which the
/// group goes on. `behind` is 0 exactly when no record is left; otherwise it counts offsets up
/// to the end, which may include those of transactions' markers. `oldest waiting` is the age of the first record that is left,
/// by the clock of its producer. The command takes two looks, a second apart, for the rate. It reads Kafka; where a read model has more
/// than one generation, also the stores, which know the active one. It joins no group and changes nothing.
///
/// Exit code 0: shown. 2: Kafka or the registry does not respond.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl status --watch")]
pub struct Args {
    /// Look again and again, until Ctrl-C
    #[arg(long)]
    pub watch: bool,

    /// Print JSON; with --watch one object per line
    #[arg(long)]
    pub json: bool,

    /// URL of the metrics of `cartctl audit --watch`, such as http://127.0.0.1:9016/metrics; with it the last audit is shown
    #[arg(long, value_name = "URL")]
    pub audit_url: Option<String>,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub cassandra: CassandraArgs,

    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// Writes the state to `out`, once or again and again. Ends when `out` is closed by its reader.
///
/// # Errors
/// Kafka or the registry does not respond, or writing fails.
pub async fn status(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let mut looks = Looks::open(&args.kafka).await?;
    let stores = Stores::new(&args.cassandra, &args.database)?;
    looks.look(&stores).await?;
    tokio::time::sleep(LOOK_INTERVAL).await;
    let is_in_place = args.watch && !args.json && std::io::stdout().is_terminal();
    loop {
        let mut status = looks.look(&stores).await?;
        if let Some(url) = &args.audit_url {
            match LastAudit::ask(url).await {
                Ok(audit) => status.audit = Some(audit),
                Err(error) => status.unknown.push(format!("the last audit is not known: {error:#}")),
            }
        }
        let text = match (args.json, args.watch) {
            (true, true) => serde_json::to_string(&status)?,
            (true, false) => serde_json::to_string_pretty(&status)?,
            (false, _) => status.to_string(),
        };
        let clear = if is_in_place { CLEAR } else { "" };
        match writeln!(out, "{clear}{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("writing the status")?,
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}
