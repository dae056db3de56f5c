//! The program: arguments in, a report on standard output, an exit code.

use std::fs::File;
use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::{Args, Report, run, table};

/// Runs until everything is sent, or until a signal.
// One thread, because the load shares the machine with the services that it measures, and one core sends more than they
// can process.
// The runtime is started here and not in `main`, which would compile every future of this module once more.
#[tokio::main(flavor = "current_thread")]
pub async fn start(args: Args) -> ExitCode {
    match replay(&args).await {
        Ok(exit_code) => exit_code,
        // With the causes, without the backtrace that RUST_BACKTRACE would add.
        Err(error) => {
            writeln!(stderr().lock(), "replay: {error:#}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}

async fn replay(args: &Args) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM failed")?;
    let shutdown = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    let report = run(args, shutdown).await?;
    print(&report, args.json.as_deref())?;
    Ok(ExitCode::from(report.exit_code()))
}

fn print(report: &Report, json: Option<&Path>) -> anyhow::Result<()> {
    let json_to_stdout = json.is_some_and(|path| path == Path::new("-"));
    match json {
        Some(_) if json_to_stdout => {
            table::write(report, &mut stderr().lock())?;
            write_json(report, stdout().lock())?;
        }
        Some(path) => {
            table::write(report, &mut stdout().lock())?;
            let file = File::create(path).with_context(|| format!("creating {} failed", path.display()))?;
            write_json(report, file)?;
        }
        None => table::write(report, &mut stdout().lock())?,
    }
    Ok(())
}

fn write_json(report: &Report, mut out: impl Write) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(report).context("writing the report as JSON failed")?;
    text.push(b'\n');
    out.write_all(&text).context("writing the JSON report failed")
}
