//! `audit`: whether the whole system is what the commands in its log lead to. See [`e2e::audit`].

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use e2e::audit::{Args, Report, audit, watch};

/// It could not be checked.
const FAILED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.watch { watch(&args).await.map(|()| 0) } else { look(&args).await };
    match result {
        Ok(exit_code) => ExitCode::from(exit_code),
        Err(error) => {
            writeln!(stderr().lock(), "audit: {error:#}").unwrap_or_default();
            ExitCode::from(FAILED)
        }
    }
}

async fn look(args: &Args) -> anyhow::Result<u8> {
    let report = audit(&args.target, &args.record, args.timeout()).await?;
    write(&report, args.json).context("writing the report")?;
    Ok(report.exit_code())
}

fn write(report: &Report, as_json: bool) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}
