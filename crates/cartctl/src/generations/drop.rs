//! `cartctl drop`.

use std::fmt;
use std::sync::Arc;

use anyhow::bail;
use cart::{ControlKey, Generation};
use serde::Serialize;
use service::shutdown_signal;
use tokio::task::block_in_place;

use super::args::DropArgs;
use super::claim::{Claim, other_run, others_ended_unpaused};
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

/// Deletes a generation that readers do not see, and ends the stops of its group.
///
/// # Errors
/// If a server does not respond.
pub async fn drop_generation(args: &DropArgs) -> anyhow::Result<Outcome<Dropped>> {
    let (model, generation) = (args.model, args.generation);
    let kafka = Kafka::connect(&args.system.kafka).await?;
    let store = Arc::new(ModelStore::open(&args.system, model).await?);
    let (table, group) = (model.table_name(generation), model.group_name(generation));
    let is_active = format!("readers of {} see generation {generation}", model.group);
    let pointer = match others_ended_unpaused(&kafka, &store).await? {
        Ok(pointer) => pointer,
        Err(at_work) => return Ok(Outcome::Refused(at_work)),
    };
    if pointer.active == generation {
        return Ok(Outcome::Refused(is_active));
    }
    let full_name = kafka.args.prefixed(&group);
    let has_members = || block_in_place(|| kafka.admin.has_members(&full_name));
    let still_runs = format!("group {group} has members: stop its projector first");
    if has_members()? {
        return Ok(Outcome::Refused(still_runs));
    }
    let was_there = store.generations().await?.contains(&generation);
    if !args.dry_run {
        let signal = shutdown_signal()?;
        // What was begun is ended: a statement that is on its way may delete the table after the claim has ended.
        signal.started();
        let died = pointer.claim.map(|claim| claim.run);
        let Some(claim) = Claim::take(&store, died, &format!("{} with `cartctl drop`", args.by)).await? else {
            return Ok(Outcome::Refused(other_run(&store).await?));
        };
        fail_points::crash_point("drop-claimed");
        if died.is_some() {
            // The run that has died may have changed the generation that readers see.
            store.settle().await;
        }
        if store.decided_pointer().await?.active == generation {
            claim.release().await;
            return Ok(Outcome::Refused(is_active));
        }
        if has_members()? {
            claim.release().await;
            return Ok(Outcome::Refused(still_runs));
        }
        if signal.is_requested() {
            claim.release().await;
            bail!("interrupted: nothing was deleted");
        }
        let deleted = delete(&kafka, &store, generation, &group).await;
        claim.release().await;
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

/// The group comes after the table: a table without offsets would be built again over what it has. No member is left to end the stops
/// of the group.
async fn delete(kafka: &Kafka, store: &ModelStore, generation: Generation, group: &str) -> anyhow::Result<()> {
    store.drop_table(generation).await?;
    kafka.admin.remove_groups(&[kafka.args.prefixed(group).as_str()]).await?;
    let controls = block_in_place(|| kafka.control.controls())?;
    for partition in controls.stopped_partitions(group) {
        kafka.control.send(&ControlKey::Stopped { group: group.to_owned(), partition }, None).await?;
    }
    Ok(())
}
