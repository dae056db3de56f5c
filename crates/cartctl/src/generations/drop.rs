//! `cartctl drop`.

use std::fmt;
use std::sync::Arc;

use cart::{Generation, GenerationPointer};
use serde::Serialize;
use tokio::task::block_in_place;

use super::args::DropArgs;
use super::claim::Claim;
use super::store::ModelStore;
use crate::operate::{Kafka, Outcome};

/// What was deleted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    model: &'static str,
    generation: i32,
    table: String,
    group: String,
    is_dry_run: bool,
    /// Whether there was a table.
    was_there: bool,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, generation, table, group, .. } = self;
        match (self.was_there, self.is_dry_run) {
            (false, _) => write!(f, "{model} has no table of generation {generation}"),
            (true, true) => write!(f, "table {table} and group {group} would be deleted; nothing was (--dry-run)"),
            (true, false) => write!(f, "table {table} and group {group} are deleted"),
        }
    }
}

/// Deletes a generation that readers do not see.
///
/// # Errors
/// If a server does not respond.
pub async fn drop_generation(args: &DropArgs) -> anyhow::Result<Outcome<Dropped>> {
    let (model, generation) = (args.model, args.generation);
    let kafka = Kafka::connect(&args.system.kafka).await?;
    let store = Arc::new(ModelStore::open(&args.system, model).await?);
    let (table, group) = (model.table_name(generation), model.group_name(generation));
    let is_active = format!("readers of {} see generation {generation}", model.group);
    let GenerationPointer { active, claim, .. } = store.decided_pointer().await?;
    if active == generation {
        return Ok(Outcome::Refused(is_active));
    }
    let is_claimed = format!(
        "a run of `cartctl switch` or `drop` is at work or has died: see what it says, or run `cartctl switch {} --to {active} \
         --accept-diff none`, which waits for it and ends what it has left",
        model.group
    );
    if claim.is_some() {
        return Ok(Outcome::Refused(is_claimed));
    }
    let full_name = kafka.args.prefixed(&group);
    if block_in_place(|| kafka.admin.has_members(&full_name))? {
        return Ok(Outcome::Refused(format!("group {group} has members: stop its projector first")));
    }
    let was_there = store.generations().await?.contains(&generation);
    if !args.dry_run {
        let Some(claim) = Claim::take(&store, None).await? else {
            return Ok(Outcome::Refused(is_claimed));
        };
        if store.decided_pointer().await?.active == generation {
            claim.release().await?;
            return Ok(Outcome::Refused(is_active));
        }
        let deleted = delete(&kafka, &store, generation, &full_name).await;
        claim.release().await?;
        deleted?;
    }
    Ok(Outcome::Done(Dropped {
        model: model.group,
        generation: generation.get(),
        table,
        group,
        is_dry_run: args.dry_run,
        was_there,
    }))
}

/// The group comes last: a table without offsets would be built again over what it has.
async fn delete(kafka: &Kafka, store: &ModelStore, generation: Generation, group: &str) -> anyhow::Result<()> {
    store.drop_table(generation).await?;
    kafka.admin.remove_groups(&[group]).await?;
    Ok(())
}
