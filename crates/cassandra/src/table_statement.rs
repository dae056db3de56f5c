//! A statement for a read table, whichever generation of it is read.

use cart::Generation;
use cart::contract::ReadTable;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::Mutex;

use crate::Error;

/// A statement for a read table. It is prepared at its first use with a generation: `projectors setup` may create the table later than
/// that. The one for the last generation is kept.
#[derive(Debug)]
pub struct TableStatement {
    table: ReadTable,
    /// In front of the table's name, and behind it.
    parts: [&'static str; 2],
    prepared: Mutex<Option<(Generation, PreparedStatement)>>,
}

impl TableStatement {
    /// `parts` stand in front of the table's name and behind it. The statement is idempotent.
    #[must_use]
    pub fn new(table: ReadTable, parts: [&'static str; 2]) -> Self {
        Self { table, parts, prepared: Mutex::new(None) }
    }

    /// The name of the table of a generation.
    #[must_use]
    pub fn table(&self, generation: Generation) -> String {
        self.table.model().table_name(generation)
    }

    fn text(&self, generation: Generation) -> String {
        self.parts.join(&self.table(generation))
    }

    /// The statement for the table of a generation.
    ///
    /// # Errors
    /// If there is no such table ([`crate::read_models::is_missing_table`]), or Cassandra does not respond.
    pub async fn prepare(&self, session: &Session, generation: Generation) -> Result<PreparedStatement, Error> {
        let mut kept = self.prepared.lock().await;
        if let Some((_, prepared)) = kept.as_ref().filter(|(of, _)| *of == generation) {
            return Ok(prepared.clone());
        }
        let text = self.text(generation);
        let prepared = session.prepare(text.as_str()).await;
        let mut prepared = prepared.map_err(|error| Error::new(format!("preparing '{text}'"), error))?;
        prepared.set_is_idempotent(true);
        *kept = Some((generation, prepared.clone()));
        Ok(prepared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_for_the_table_of_its_generation() {
        let statement = TableStatement::new(ReadTable::BalanceByVendor, ["SELECT x FROM ", " WHERE y = ?"]);
        let second = Generation::new(2).expect("a generation");
        let texts = [Generation::FIRST, second].map(|generation| statement.text(generation));
        let expected =
            ["SELECT x FROM balance_by_vendor WHERE y = ?", "SELECT x FROM balance_by_vendor_g2 WHERE y = ?"];
        assert_eq!(texts, expected);
    }
}
