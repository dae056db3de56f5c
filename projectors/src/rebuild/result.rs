//! What a rebuild has done, for programs.

use cart::Generation;
use cart::contract::ReadModel;
use serde::Serialize;

use super::size::Size;

/// What was done, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Done {
    /// The generation had caught up.
    Built,
    /// Its table and the offsets of its group are there.
    Created,
    /// The table that readers see is empty.
    Emptied,
    /// Nothing (`--dry-run`).
    Nothing,
}

/// The result of a rebuild.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuilt {
    model: &'static str,
    generation: i32,
    table: String,
    group: String,
    done: Done,
    /// Whether an earlier run had begun it.
    was_begun: bool,
    #[serde(flatten)]
    size: Size,
}

impl Rebuilt {
    pub(super) fn new(model: ReadModel, generation: Generation, done: Done, was_begun: bool, size: Size) -> Self {
        Self {
            model: model.group,
            generation: generation.get(),
            table: model.table_name(generation),
            group: model.group_name(generation),
            done,
            was_begun,
            size,
        }
    }
}
