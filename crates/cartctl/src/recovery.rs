//! What an operator does after a loss. The work is done by the code of the services, which must do the same: `republish` and
//! `restore-journal` by `cart_processor::recovery`, `rebuild` and `resume-purchases` by `projectors::recovery`.

use cart_processor::recovery::{RepublishArgs, RestoreArgs, republish, restore_journal};
use projectors::recovery::{RebuildArgs, ResumeArgs, rebuild, resume_purchases};

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
            Self::Rebuild(args) => rebuild(args).await,
            Self::ResumePurchases(args) => resume_purchases(args).await,
        }
    }
}
