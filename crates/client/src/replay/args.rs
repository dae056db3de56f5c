//! The settings of `replay`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use cart::whole_number;
use clap::{ArgAction, Parser};

use super::shop_args::ShopArgs;

/// The end of `--help`.
const EXAMPLE: &str = "\
Example, with the stack of `scripts/stack up`:
  replay --commands 1000 --rate 200 --expect-intended --run-id first --member-prefix first-";

/// Sends cart commands over HTTP, in order per member, and measures the answers
///
/// The commands come from a CSV file (--file) or from a generated shop that is drawn from a seed. A command without an answer
/// is retried with the same idempotency key. An invalid line of the file ends the run: all lines before it are sent and
/// answered, and the report shows how to continue.
///
/// Exit code 0: done. 1: a command stayed unanswered, the file could not be read, or an --expect option was not met. 130:
/// interrupted by Ctrl-C or SIGTERM, after the commands in flight were answered.
#[derive(Debug, Clone, Parser)]
#[command(name = "replay", version, max_term_width = 110, after_help = EXAMPLE)]
pub struct Args {
    /// URLs of the ingest services, comma-separated; they are used in turn
    #[arg(help_heading = "Common")]
    #[arg(long, env = "REPLAY_URL", value_delimiter = ',', default_value = "http://127.0.0.1:9001")]
    pub url: Vec<String>,
    /// CSV of commands, plain or gzipped: time,member,action,product,vendor,name,price,quantity
    #[arg(long, env = "REPLAY_FILE", help_heading = "Common")]
    pub file: Option<PathBuf>,
    /// Prefix of every idempotency key, `<run id>-<number in the source>`; by default random. A repeat with the same run id and
    /// source changes nothing, as long as the service remembers the keys of a cart. The number in a file is the number of
    /// the row, valid or not
    #[arg(long, env = "REPLAY_RUN_ID", value_parser = run_id, help_heading = "Common")]
    pub run_id: Option<String>,
    /// Maximum number of commands in flight; by default 64, with --rate 1024. Without --rate so many are always in flight; with
    /// it, waiting for this limit counts as latency
    #[arg(long, env = "REPLAY_CONCURRENCY", help_heading = "Common")]
    pub concurrency: Option<NonZeroUsize>,
    /// Send at this rate per second, independent of the answers. Latency is measured from the scheduled start, so it includes
    /// waiting for the member's previous command
    #[arg(long, env = "REPLAY_RATE", help_heading = "Common")]
    pub rate: Option<NonZeroU32>,
    /// CSV of a shop's raw rows in the format of UCI's "Online Retail", plain or gzipped. Each row is sent as it is, valid or
    /// not, and outcomes are counted by the row's `reason`
    #[arg(long, env = "REPLAY_ROWS", conflicts_with = "file", help_heading = "Source")]
    pub rows: Option<PathBuf>,
    /// Continue a run that ended before the end of its file: skip the rows before this line. Use the run id of that run; its
    /// report shows the line
    #[arg(help_heading = "Source")]
    #[arg(long, env = "REPLAY_FROM_LINE", value_name = "LINE", requires = "run_id")]
    pub from_line: Option<u64>,
    /// Maximum number of commands to send
    #[arg(long, env = "REPLAY_LIMIT", help_heading = "Source")]
    pub limit: Option<u64>,
    /// Send each command's own time as Command-Time (the default); ingest must allow it with --allow-client-time
    #[arg(long, overrides_with = "no_send_time", help_heading = "Source")]
    pub send_time: bool,
    /// Do not send each command's own time; the service's clock is used
    #[arg(long, env = "REPLAY_NO_SEND_TIME", action = ArgAction::SetTrue, help_heading = "Source")]
    pub no_send_time: bool,
    /// Bearer token, for an ingest with --auth jwt
    #[arg(long, env = "CART_TOKEN", hide_env_values = true, help_heading = "Authentication and TLS")]
    pub token: Option<String>,
    /// Certificates (PEM) to trust for https, instead of the system's root certificates
    #[arg(long, env = "CART_CA_CERT", help_heading = "Authentication and TLS")]
    pub ca_cert: Option<PathBuf>,
    /// Maximum time to retry a command without an answer
    #[arg(long, env = "REPLAY_RETRY_FOR", default_value = "120s", value_parser = duration, help_heading = "Times")]
    pub retry_for: Duration,
    /// Timeout of one request; after it the command is retried
    #[arg(long, env = "REPLAY_ANSWER_TIMEOUT", default_value = "15s", value_parser = duration, help_heading = "Times")]
    pub answer_timeout: Duration,
    /// Maximum wait for the commands in flight when the run is interrupted
    #[arg(long, env = "REPLAY_DRAIN_FOR", default_value = "30s", value_parser = duration, help_heading = "Times")]
    pub drain_for: Duration,
    /// Fail if any command is rejected; the first 20 rejections are printed
    #[arg(help_heading = "Results")]
    #[arg(long, env = "REPLAY_EXPECT_NO_REFUSALS", action = ArgAction::SetTrue)]
    pub expect_no_refusals: bool,
    /// Fail if any outcome differs from the one that the generated shop intends; the carts must be empty before the run
    #[arg(long, env = "REPLAY_EXPECT_INTENDED", action = ArgAction::SetTrue, help_heading = "Results")]
    pub expect_intended: bool,
    /// Write every command with its outcome and command id to this CSV file, gzipped if its name ends in .gz. The rows of each
    /// member are in order
    #[arg(long, env = "REPLAY_SENT", help_heading = "Results")]
    pub sent: Option<PathBuf>,
    /// Write every command with each attempt and its answer to this file, one JSON object per line, gzipped if its name ends in
    /// .gz; for `cartctl audit --record`
    #[arg(long, env = "REPLAY_RECORD", help_heading = "Results")]
    pub record: Option<PathBuf>,
    /// Write the report as JSON to this file; `-` is standard output (the table then goes to standard error)
    #[arg(long, env = "REPLAY_JSON", help_heading = "Results")]
    pub json: Option<PathBuf>,
    /// The shop.
    #[command(flatten)]
    pub shop: ShopArgs,

    /// Maximum number of commands to read ahead while their members wait for an answer. No option, since it only bounds memory:
    /// it is ten times what is in flight by default at a fixed rate.
    #[arg(skip = 10_000_usize)]
    pub look_ahead: usize,
    /// Pause before the first retry; it doubles with each retry, up to 2 s. A longer Retry-After is respected. No option, since
    /// it only has to be short beside the time of a restart.
    #[arg(skip = Duration::from_millis(50))]
    pub retry_pause: Duration,
}

impl Args {
    const CONCURRENCY: usize = 64;
    const IN_FLIGHT_MAX: usize = 1024;

    /// The maximum number of commands in flight.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        let default = if self.rate.is_some() { Self::IN_FLIGHT_MAX } else { Self::CONCURRENCY };
        self.concurrency.map_or(default, NonZeroUsize::get)
    }

    /// The number of commands in the source, if known.
    pub(crate) fn commands_expected(&self) -> Option<u64> {
        let source = if self.file.is_some() || self.rows.is_some() { None } else { Some(self.shop.commands) };
        match (source, self.limit) {
            (Some(source), Some(limit)) => Some(source.min(limit)),
            (source, limit) => source.or(limit),
        }
    }
}

/// Why a text is not a duration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number with ms, s or m: 500ms, 120s, 2m")]
struct NoDuration;

fn duration(text: &str) -> Result<Duration, NoDuration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = whole_number(digits).and_then(|number| u32::try_from(number).ok()).ok_or(NoDuration)?;
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        _ => return Err(NoDuration),
    };
    Ok(unit * number)
}

/// Why a text is not a run id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run id is 1 to 150 visible ASCII characters")]
struct NoRunId;

/// The maximum length of a run id. With the command's number, a key must not exceed the 200 characters of the contract.
fn run_id(text: &str) -> Result<String, NoRunId> {
    let good = (1..=150).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err(NoRunId) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_agree_with_each_other() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("120s"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "1.5s", "-1s", "+1s", "1_0s", "1h", "1 s", "4294967296s"] {
            assert_eq!(duration(bad), Err(NoDuration), "{bad}");
        }
    }

    #[test]
    fn open_and_closed_loops_have_different_limits() {
        let in_flight_max = |words: &[&str]| {
            let words = std::iter::once(&"replay").chain(words);
            Args::try_parse_from(words).expect("good options").in_flight_max()
        };
        assert_eq!(in_flight_max(&[]), 64);
        assert_eq!(in_flight_max(&["--rate", "100"]), 1024);
        assert_eq!(in_flight_max(&["--rate", "100", "--concurrency", "3"]), 3);
    }

    #[test]
    fn a_run_id_fits_a_header() {
        assert!(run_id("demo-1").is_ok());
        for bad in ["", "two words", "é", &"x".repeat(151)] {
            assert_eq!(run_id(bad), Err(NoRunId), "{bad}");
        }
    }
}
