//! `cartctl rebuild`: builds a read model anew from `item-purchased`, beside the generation that readers see, or in its place.
//!
//! It is here because it creates tables and applies purchases as the projectors do. Shown by crates/e2e/tests/e2e/rebuild and
//! recovery.rs.

mod args;
mod beside;
mod in_place;
mod progress;
mod result;
mod size;

use kafka::Admin;

pub use args::RebuildArgs;
pub use result::Rebuilt;

/// Something has to be changed before a rebuild can be done, such as a projector that still runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Builds a read model anew.
///
/// # Errors
/// [`Refused`], if the projector runs that is to be reset, another operator changes the model or builds the generation, or there is too
/// little room for it. Another error, if a server does not respond, or a signal came before it had caught up.
pub async fn rebuild(args: &RebuildArgs) -> anyhow::Result<Rebuilt> {
    if args.in_place { in_place::rebuild(args).await } else { beside::rebuild(args).await }
}

fn refuse<T>(reason: String) -> anyhow::Result<T> {
    Err(Refused(reason).into())
}

/// Refuses while a group has members; `group` is the full name. Blocks.
fn ensure_idle(admin: &Admin, group: &str) -> anyhow::Result<()> {
    if admin.has_members(group)? { refuse(format!("group {group} has members: stop them first")) } else { Ok(()) }
}
