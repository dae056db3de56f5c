//! `alerts`: shows that every alert fires in its fault. `scripts/observability/check` starts it. See [`e2e::alerts`].

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use e2e::alerts::run;

/// Starts a system and a Prometheus, and checks that each alert fires in the fault that it is for, and none without
///
/// Exit code 0: they do. 1: they do not, or something did not start.
#[derive(Debug, Parser)]
#[command(name = "alerts", version, max_term_width = 110)]
#[command(after_help = "Example, with the servers of scripts/services up:\n  scripts/observability/check")]
struct Args {}

#[tokio::main]
async fn main() -> ExitCode {
    let Args {} = Args::parse();
    let mut out = std::io::stdout();
    let result = run(|text, fired| {
        let line = match fired {
            None => text.to_owned(),
            Some(fired) => {
                let others = fired.others.iter().map(|other| format!(", {other}")).collect::<String>();
                format!("{:3} s  {}{others}  ({})", fired.after.as_secs(), fired.alert, fired.fault)
            }
        };
        writeln!(out, "{line}").unwrap_or_default();
    });
    service::exit_code("alerts", result.await)
}
