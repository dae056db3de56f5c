//! The subcommands, what they print, and their exit codes.

use std::fmt::Display;
use std::fs::File;
use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use crate::audit::watch;
use crate::recovery::Recovery;
use crate::{
    audit, doctor, explain, generations, grants, operate, parked, reconcile, rehearse, status, tail, uninstall,
};

/// All verbs but `reconcile` and recovery (`crate::recovery`): it could not be found out, or done. `reconcile`: the pipeline did not
/// become idle in time.
const NOT_FOUND_OUT: u8 = 2;
/// `reconcile` failed: a server is unavailable, or a file can't be read.
const RECONCILE_FAILED: u8 = 4;

/// Checks, shows, operates, recovers or deletes an installation of the shopping cart
///
/// Every setting is an option or an environment variable. `scripts/stack up` writes the settings of its stack to a file.
#[derive(Debug, clap::Parser)]
#[command(name = "cartctl", version, max_term_width = 110)]
#[command(after_help = "\
Example, with the stack of `scripts/stack up`:
  source .services/cart.env && cartctl audit")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Audit(audit::Args),
    Diff(generations::DiffArgs),
    Doctor(doctor::Args),
    Drop(generations::DropArgs),
    Explain(explain::Args),
    Grants(grants::Args),
    /// Print all records of cart-control in their order: who has paused, resumed, skipped or discarded what, and what members answered
    Log(operate::ListArgs),
    Pause(operate::PauseArgs),
    Parked(parked::Args),
    Reconcile(reconcile::Args),
    Rehearse(rehearse::Args),
    Resume(operate::ResumeArgs),
    Skip(operate::SkipArgs),
    /// List the records that groups skip and the commands that are discarded, with who, when and why
    Skipped(operate::ListArgs),
    Status(status::Args),
    Switch(generations::SwitchArgs),
    Tail(tail::Args),
    #[command(flatten)]
    Recovery(Recovery),
    Uninstall(uninstall::Args),
}

/// Runs a subcommand. Errors are printed on standard error.
// The runtime is started here and not in `main`, which would compile every future of this crate once more.
#[tokio::main]
pub async fn start(cli: Cli) -> ExitCode {
    let (name, result) = match &cli.command {
        Command::Audit(args) if args.watch => ("audit", watch(args).await.map(|()| 0)),
        Command::Audit(args) => ("audit", look(args).await),
        Command::Diff(args) => ("diff", difference(args).await),
        Command::Drop(args) => {
            ("drop", generations::drop_generation(args).await.and_then(|outcome| show(&outcome, args.json())))
        }
        Command::Switch(args) if args.in_place() => {
            ("switch", generations::replace(args).await.and_then(|outcome| show(&outcome, args.json())))
        }
        Command::Switch(args) => {
            ("switch", generations::switch(args).await.and_then(|outcome| show(&outcome, args.json())))
        }
        Command::Doctor(args) => ("doctor", ask(args).await),
        Command::Explain(args) => ("explain", explain::explain(args, &mut stdout().lock()).await),
        Command::Grants(args) => ("grants", grants::grants(args, &mut stdout().lock()).await.map(|()| 0)),
        Command::Rehearse(args) => ("rehearse", try_out(args).await),
        Command::Log(args) => ("log", operate::log(args, &mut stdout().lock()).await.map(|()| 0)),
        Command::Pause(args) => ("pause", operate::pause(args).await.and_then(|outcome| show(&outcome, args.json()))),
        Command::Resume(args) => {
            ("resume", operate::resume(args).await.and_then(|outcome| show(&outcome, args.json())))
        }
        Command::Skip(args) => ("skip", operate::skip(args).await.and_then(|outcome| show(&outcome, args.json()))),
        Command::Skipped(args) => ("skipped", operate::skipped(args, &mut stdout().lock()).await.map(|()| 0)),
        Command::Status(args) => ("status", status::status(args, &mut stdout().lock()).await.map(|()| 0)),
        Command::Parked(args) => ("parked", parked::parked(args, &mut stdout().lock(), &mut stderr()).await),
        Command::Tail(args) => ("tail", tail::tail(args, &mut stdout().lock()).await.map(|()| 0)),
        Command::Uninstall(args) => ("uninstall", uninstall::uninstall(args, &mut stdout().lock()).await.map(|()| 0)),
        Command::Recovery(recovery) => {
            let result = recovery.run().await;
            let ended = |error: anyhow::Error| failed(recovery.name(), &error, recovery.exit_code(&error));
            return result.map_or_else(ended, |()| ExitCode::SUCCESS);
        }
        Command::Reconcile(args) => return compare(args).await,
    };
    result.map_or_else(|error| failed(name, &error, NOT_FOUND_OUT), ExitCode::from)
}

fn failed(name: &str, error: &anyhow::Error, exit_code: u8) -> ExitCode {
    writeln!(stderr().lock(), "cartctl {name}: {error:#}").unwrap_or_default();
    ExitCode::from(exit_code)
}

async fn look(args: &audit::Args) -> anyhow::Result<u8> {
    let report = audit::once(args).await?;
    write(&report, args.json).context("writing the report")?;
    Ok(report.exit_code())
}

async fn ask(args: &doctor::Args) -> anyhow::Result<u8> {
    let report = doctor::doctor(args).await?;
    write(&report, args.json).context("writing the report")?;
    Ok(report.exit_code())
}

async fn difference(args: &generations::DiffArgs) -> anyhow::Result<u8> {
    let diff = generations::diff(args).await?;
    write(&diff, args.json()).context("writing the differences")?;
    Ok(diff.exit_code())
}

async fn try_out(args: &rehearse::Args) -> anyhow::Result<u8> {
    let report = rehearse::rehearse(args).await?;
    write(&report, args.json).context("writing the report")?;
    Ok(report.exit_code())
}

/// Writes what a verb has done. Why it was refused is on standard error.
fn show<T: Display + Serialize>(outcome: &operate::Outcome<T>, as_json: bool) -> anyhow::Result<u8> {
    outcome.write(as_json, &mut stdout().lock(), &mut stderr())
}

fn write(report: &(impl Display + Serialize), as_json: bool) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}

async fn compare(args: &reconcile::Args) -> ExitCode {
    let (error, exit_code) = match compare_and_report(args).await {
        Ok(exit_code) => return ExitCode::from(exit_code),
        Err(reconcile::Error::NotAtRest(error)) => (anyhow::Error::from(error), NOT_FOUND_OUT),
        Err(reconcile::Error::Failed(error)) => (error, RECONCILE_FAILED),
    };
    failed("reconcile", &error, exit_code)
}

async fn compare_and_report(args: &reconcile::Args) -> Result<u8, reconcile::Error> {
    let report = reconcile::run(args).await?;
    report.write(&mut stdout().lock()).context("writing the report")?;
    if let Some(path) = &args.json {
        let failed = || format!("writing {}", path.display());
        let mut file = File::create(path).with_context(failed)?;
        serde_json::to_writer_pretty(&mut file, &report).with_context(failed)?;
        writeln!(file).with_context(failed)?;
    }
    Ok(report.exit_code())
}
