//! What an operator does after a loss. The work is done by the code of the services, which must do the same: `republish` and
//! `restore-journal` by `cart_processor::recovery`, `rebuild` and `resume-purchases` by `projectors`.

use std::io::{Write as _, stdout};

use anyhow::Context as _;
use cart_processor::recovery::{RepublishArgs, RestoreArgs, republish, restore_journal};
use projectors::rebuild::{RebuildArgs, Refused, rebuild};
use projectors::recovery::{ResumeArgs, resume_purchases};

/// A command failed, or was refused.
const FAILED: u8 = 1;
/// A rebuild could not be found out about, or is not done whole.
const NOT_DONE: u8 = 2;

/// The recovery commands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Recovery {
    Republish(RepublishArgs),
    RestoreJournal(RestoreArgs),
    Rebuild(RebuildArgs),
    ResumePurchases(ResumeArgs),
}

impl Recovery {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Republish(_) => "republish",
            Self::RestoreJournal(_) => "restore-journal",
            Self::Rebuild(_) => "rebuild",
            Self::ResumePurchases(_) => "resume-purchases",
        }
    }

    /// The exit code after an error. Only a rebuild tells a refusal from a failure.
    pub(crate) fn exit_code(&self, error: &anyhow::Error) -> u8 {
        match self {
            Self::Rebuild(_) if !error.is::<Refused>() => NOT_DONE,
            Self::Rebuild(_) | Self::Republish(_) | Self::RestoreJournal(_) | Self::ResumePurchases(_) => FAILED,
        }
    }

    /// Runs the command, and logs its progress.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Republish(args) => args.log.init(),
            Self::RestoreJournal(args) => args.log.init(),
            Self::Rebuild(args) => args.log.init(),
            Self::ResumePurchases(args) => args.log.init(),
        }?;
        match self {
            Self::Republish(args) => republish(args).await,
            Self::RestoreJournal(args) => restore_journal(args).await,
            Self::Rebuild(args) => build(args).await,
            Self::ResumePurchases(args) => resume_purchases(args).await,
        }
    }
}

async fn build(args: &RebuildArgs) -> anyhow::Result<()> {
    let rebuilt = rebuild(args).await?;
    if args.json {
        let json = serde_json::to_string_pretty(&rebuilt).context("writing the result")?;
        writeln!(stdout().lock(), "{json}").context("writing the result")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        recovery: Recovery,
    }

    /// That a refused one ends with 1 is seen in crates/e2e/tests/e2e/rebuild/operators.rs.
    #[test]
    fn a_rebuild_that_is_not_done_whole_has_an_exit_code_of_its_own() {
        let exit_code = |words: &[&str]| {
            let cli = Cli::try_parse_from(["cartctl"].iter().chain(words)).expect("a recovery command");
            cli.recovery.exit_code(&anyhow::anyhow!("no answer"))
        };
        assert_eq!(exit_code(&["rebuild", "popular-items"]), 2);
        assert_eq!(exit_code(&["resume-purchases"]), 1);
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder of the crate").map(|entry| entry.expect("an entry").path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    /// The audit must not repeat the mistakes of what it checks. The doctor is no check of the services.
    #[test]
    fn only_recovery_and_doctor_use_the_code_of_the_services() {
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
        let is_other = |file: &&PathBuf| !file.ends_with("recovery.rs") && !file.starts_with(source.join("doctor"));
        for file in files(source).iter().filter(is_other) {
            let text = fs::read_to_string(file).expect("a source file");
            for services in ["cart_processor::", "projectors::", "ingest::"] {
                assert!(!text.contains(services), "{} uses {services}", file.display());
            }
        }
    }
}
