//! Which generations readers see, by the tables `read_model`.

use anyhow::Error;
use cart::contract::{ReadModel, ReadTable};
use service::LogLimit;

use super::{Stores, in_time};
use crate::board::Board;

/// The models whose tables are in Cassandra, and the one in PostgreSQL.
const IN_CASSANDRA: [ReadModel; 2] = [ReadTable::ItemQuantityByDay.model(), ReadTable::BalanceByVendor.model()];
const IN_POSTGRES: ReadModel = ReadTable::VendorBilling.model();

impl Stores {
    /// Asks which generations readers see. Where there is no answer, the last one holds.
    pub(super) async fn follow_generations(&self, board: &Board) {
        static CASSANDRA: LogLimit = LogLimit::new();
        static POSTGRES: LogLimit = LogLimit::new();
        let in_cassandra = in_time("reading read_model in Cassandra", async {
            Ok(cassandra::read_models::all_active(self.session().await?, &IN_CASSANDRA).await?)
        });
        let in_postgres = in_time("reading read_model in PostgreSQL", async {
            Ok(postgres::read_models::active(&self.pool, IN_POSTGRES).await?)
        });
        let (in_cassandra, in_postgres) = tokio::join!(in_cassandra, in_postgres);
        let in_cassandra = known(in_cassandra, &CASSANDRA).unwrap_or_default();
        let in_cassandra = IN_CASSANDRA
            .iter()
            .zip(in_cassandra)
            .filter_map(|(model, generation)| Some((model.table, known(generation.map_err(Error::new), &CASSANDRA)?)));
        let in_postgres = known(in_postgres, &POSTGRES).map(|generation| (IN_POSTGRES.table, generation));
        board.generations().extend(in_cassandra.chain(in_postgres));
    }
}

/// An answer, or `None` after an error, which is logged: other tables of that store may be readable.
fn known<T>(answer: anyhow::Result<T>, limit: &LogLimit) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            if let Some(left_out) = limit.admit() {
                let error = format!("{error:#}");
                tracing::warn!(error, left_out, "which generation readers see is not known; the last answer holds");
            }
            None
        }
    }
}
