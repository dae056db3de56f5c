//! `cartctl rebuild`: builds a read model anew from `item-purchased`, beside the generation that readers see, or in its place.
//!
//! It is here because it creates tables and applies purchases as the projectors do. Shown by crates/e2e/tests/e2e/rebuild and
//! recovery.rs.

mod args;
mod beside;
mod claim;
mod in_place;
mod progress;
mod refused;
mod result;
mod size;

pub use args::RebuildArgs;
pub use refused::Refused;
pub use result::Rebuilt;

/// Builds a read model anew.
///
/// # Errors
/// [`Refused`], if the projector runs that is to be reset, another operator changes the model or builds the generation, or there is too
/// little room for it. Another error, if a server does not respond, or a signal came before it had caught up.
pub async fn rebuild(args: &RebuildArgs) -> anyhow::Result<Rebuilt> {
    if args.in_place { in_place::rebuild(args).await } else { beside::rebuild(args).await }
}
