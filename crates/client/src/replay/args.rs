//! The settings of `replay`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use cart::whole_number;
use clap::{ArgAction, Parser};

use super::shop_args::ShopArgs;

/// Sends cart commands through HTTP, in order per member, and measures the answers.
///
/// The commands come from a CSV file (--file) or from a made-up shop that is drawn from a seed. What is not answered is
/// sent again with the same idempotency key. A line of the file that is no command ends the run: all lines before it are sent
/// and answered, and the report says how to continue. Exit code 1: something stayed unanswered, the file could not be read, or
/// an --expect option was not met; 130: interrupted by Ctrl-C or SIGTERM, after what was in flight was answered.
#[derive(Debug, Clone, Parser)]
#[command(name = "replay", version, max_term_width = 110)]
pub struct Args {
    /// The ingest services, tried in turn; several are separated by commas.
    #[arg(long, env = "REPLAY_URL", value_delimiter = ',', default_value = "http://127.0.0.1:9001")]
    pub url: Vec<String>,
    /// A bearer token, for an ingest that was started with `--auth jwt`.
    #[arg(long, env = "CART_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// For https: trust these certificates (PEM) instead of this machine's roots.
    #[arg(long, env = "CART_CA_CERT")]
    pub ca_cert: Option<PathBuf>,
    /// CSV of commands, plain or gzipped: time,member,action,product,vendor,name,price,quantity.
    #[arg(long, env = "REPLAY_FILE")]
    pub file: Option<PathBuf>,
    /// CSV of a shop's raw rows, as UCI's "Online Retail" has them, plain or gzipped: each is sent as it is, clean or not, and
    /// outcomes are counted by the row's `reason`.
    #[arg(long, env = "REPLAY_ROWS", conflicts_with = "file")]
    pub rows: Option<PathBuf>,
    /// Ends after so many commands of the source.
    #[arg(long, env = "REPLAY_LIMIT")]
    pub limit: Option<u64>,
    /// Commands in flight at most. Closed loop: always so many; open loop: a bound, waiting for it counts as latency.
    /// [default: 64, with --rate 1024]
    #[arg(long, env = "REPLAY_CONCURRENCY")]
    pub concurrency: Option<NonZeroUsize>,
    /// Open loop: so many commands a second, whatever the answers do. Latency counts from the scheduled start, so waiting
    /// for the member's previous command is part of it.
    #[arg(long, env = "REPLAY_RATE")]
    pub rate: Option<NonZeroU32>,
    /// How many commands are read ahead while their members wait for an answer.
    #[arg(long, env = "REPLAY_LOOK_AHEAD", default_value = "10000")]
    pub look_ahead: NonZeroUsize,
    /// Send each command's own time as Command-Time; ingest must allow it (--allow-client-time). This is the default.
    #[arg(long, overrides_with = "no_send_time")]
    pub send_time: bool,
    /// Don't send each command's own time: the service's clock counts.
    #[arg(long, env = "REPLAY_NO_SEND_TIME", action = ArgAction::SetTrue)]
    pub no_send_time: bool,
    /// Begins every idempotency key, `<run id>-<place in the source>`: the same run id and source do nothing twice, as long as
    /// the service remembers the keys of a cart. Of a file, the place is the row's number, good or bad.
    /// [default: random]
    #[arg(long, env = "REPLAY_RUN_ID", value_parser = run_id)]
    pub run_id: Option<String>,
    /// Passes the rows of the file before this line over: to continue a run, under its run id, that ended before the file's
    /// end. The report of that run names the line.
    #[arg(long, env = "REPLAY_FROM_LINE", value_name = "LINE", requires = "run_id")]
    pub from_line: Option<u64>,
    /// How long a command without an answer is tried again.
    #[arg(long, env = "REPLAY_RETRY_FOR", default_value = "120s", value_parser = duration)]
    pub retry_for: Duration,
    /// Pause before the first retry; doubled each time, up to 2 s. A longer Retry-After is kept to.
    #[arg(long, env = "REPLAY_RETRY_PAUSE", default_value = "50ms", value_parser = duration)]
    pub retry_pause: Duration,
    /// How long making a connection may take.
    #[arg(long, env = "REPLAY_CONNECT_TIMEOUT", default_value = "2s", value_parser = duration)]
    pub connect_timeout: Duration,
    /// How long one answer may take; then it is asked for again.
    #[arg(long, env = "REPLAY_ANSWER_TIMEOUT", default_value = "15s", value_parser = duration)]
    pub answer_timeout: Duration,
    /// How long to wait for what is in flight when the run is ended early.
    #[arg(long, env = "REPLAY_DRAIN_FOR", default_value = "30s", value_parser = duration)]
    pub drain_for: Duration,
    /// Any refusal is a failure; the first 20 are printed.
    #[arg(long, env = "REPLAY_EXPECT_NO_REFUSALS", action = ArgAction::SetTrue)]
    pub expect_no_refusals: bool,
    /// Any outcome other than the made-up shop intended is a failure (needs carts that were empty before).
    #[arg(long, env = "REPLAY_EXPECT_INTENDED", action = ArgAction::SetTrue)]
    pub expect_intended: bool,
    /// Writes every command with its outcome and command id as CSV, gzipped if the name ends in .gz. Each member's rows
    /// are in order.
    #[arg(long, env = "REPLAY_SENT")]
    pub sent: Option<PathBuf>,
    /// Writes every command with each attempt and what it met, a JSON object a line, gzipped if the name ends in .gz: for
    /// `audit --record`.
    #[arg(long, env = "REPLAY_RECORD")]
    pub record: Option<PathBuf>,
    /// Writes the result as JSON, `-` for standard output (the table then goes to standard error).
    #[arg(long, env = "REPLAY_JSON")]
    pub json: Option<PathBuf>,
    /// The shop.
    #[command(flatten)]
    pub shop: ShopArgs,
}

impl Args {
    const CONCURRENCY: usize = 64;
    const IN_FLIGHT_MAX: usize = 1024;

    /// Commands in flight at most.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        let default = if self.rate.is_some() { Self::IN_FLIGHT_MAX } else { Self::CONCURRENCY };
        self.concurrency.map_or(default, NonZeroUsize::get)
    }

    /// How many commands the source has, if that is known.
    pub(crate) fn commands_expected(&self) -> Option<u64> {
        let source = if self.file.is_some() || self.rows.is_some() { None } else { Some(self.shop.commands) };
        match (source, self.limit) {
            (Some(source), Some(limit)) => Some(source.min(limit)),
            (source, limit) => source.or(limit),
        }
    }
}

/// Why a text is no duration.
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

/// Why a text is no run id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run id is 1 to 150 visible ASCII characters")]
struct NoRunId;

/// With the command's number behind it, a key must stay within the 200 characters of the contract.
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
    fn the_loop_sets_what_is_in_flight() {
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
