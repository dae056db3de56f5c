//! Which generations' tables grants are meant for.

use std::collections::BTreeMap;

use cart::Generation;
use cart::contract::{READ_MODELS, ReadModel, ReadTable};

/// The generations whose tables are meant, of each read table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableGenerations(BTreeMap<ReadTable, Vec<Generation>>);

impl TableGenerations {
    /// One generation of all read tables.
    #[must_use]
    pub fn only(generation: Generation) -> Self {
        READ_MODELS.into_iter().map(|model| (model, vec![generation])).collect()
    }

    /// The names of a table's generations.
    pub(super) fn names(&self, table: ReadTable) -> impl Iterator<Item = String> {
        let generations = self.0.get(&table).into_iter().flatten();
        generations.map(move |generation| table.model().table_name(*generation))
    }
}

impl FromIterator<(ReadModel, Vec<Generation>)> for TableGenerations {
    fn from_iter<T: IntoIterator<Item = (ReadModel, Vec<Generation>)>>(found: T) -> Self {
        Self(found.into_iter().map(|(model, generations)| (model.table, generations)).collect())
    }
}
