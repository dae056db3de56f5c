//! `cartctl status`: how far each consumer group is, and what keeps it.

mod look;
mod text;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use anyhow::Context as _;
use kafka::KafkaArgs;

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
/// `next` is the offset at which the group goes on. `behind` is 0 exactly when no record is left; otherwise it counts offsets up
/// to the end, which may include those of transactions' markers. `oldest waiting` is the age of the first record that is left,
/// by the clock of its producer. The command takes two looks, a second apart, for the rate. It reads Kafka only, joins no group
/// and changes nothing.
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

    #[command(flatten)]
    pub kafka: KafkaArgs,
}

/// Writes the state to `out`, once or again and again. Ends when `out` is closed by its reader.
///
/// # Errors
/// Kafka or the registry does not respond, or writing fails.
pub async fn status(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let mut looks = Looks::open(&args.kafka).await?;
    tokio::task::block_in_place(|| looks.look())?;
    tokio::time::sleep(LOOK_INTERVAL).await;
    let is_in_place = args.watch && !args.json && std::io::stdout().is_terminal();
    loop {
        let status = tokio::task::block_in_place(|| looks.look())?;
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
