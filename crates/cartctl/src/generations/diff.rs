//! `cartctl diff`.

use anyhow::{Context as _, ensure};

use super::args::DiffArgs;
use super::compared::Compared;
use super::report::Diff;
use super::store::ModelStore;

/// Compares two generations.
///
/// # Errors
/// If a server does not respond, there is no such generation, or one is too far behind.
pub async fn diff(args: &DiffArgs) -> anyhow::Result<Diff> {
    let store = ModelStore::open(&args.system, args.model).await?;
    let active = store.pointer().await?.active;
    let existing = store.generations().await?;
    let name = args.model.group;
    let first = args.generation.unwrap_or(active);
    let second = match args.with {
        Some(with) => with,
        None => existing.iter().rev().find(|generation| **generation != active).copied().with_context(|| {
            format!("{name} has only generation {active}: `cartctl rebuild {name}` builds another one beside it")
        })?,
    };
    for generation in [first, second] {
        ensure!(existing.contains(&generation), "{name} has no generation {generation}");
    }
    Ok(Compared::whole(&store, &args.system.kafka, [first, second]).await?.diff())
}
