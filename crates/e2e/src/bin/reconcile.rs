//! `reconcile`: whether everything that was sent has reached every read table. See [`e2e::reconcile`].

use std::fs::File;
use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use e2e::reconcile::{Args, Error, run};

/// The pipeline did not come to rest.
const NOT_AT_REST: u8 = 2;
/// It could not be checked.
const FAILED: u8 = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let (error, exit_code) = match reconcile(&Args::parse()).await {
        Ok(exit_code) => return ExitCode::from(exit_code),
        Err(Error::NotAtRest(error)) => (anyhow::Error::from(error), NOT_AT_REST),
        Err(Error::Failed(error)) => (error, FAILED),
    };
    writeln!(stderr().lock(), "reconcile: {error:#}").unwrap_or_default();
    ExitCode::from(exit_code)
}

async fn reconcile(args: &Args) -> Result<u8, Error> {
    let report = run(args).await?;
    report.write(&mut stdout().lock()).context("writing the report")?;
    if let Some(path) = &args.json {
        let failed = || format!("writing {}", path.display());
        let mut file = File::create(path).with_context(failed)?;
        serde_json::to_writer_pretty(&mut file, &report).with_context(failed)?;
        writeln!(file).with_context(failed)?;
    }
    Ok(report.exit_code())
}
