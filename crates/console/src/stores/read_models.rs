//! The generations of the read tables and their parked rows, looked at every few seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cart::contract::{READ_MODELS, ReadModel, Store};
use cart::{Generation, ParkedRow};
use service::LogLimit;
use tokio::time::{Instant, sleep};

use super::{Stores, in_time};
use crate::audience::Audience;
use crate::board::Board;
use crate::parked_rows::{Found, ParkedRows};
use crate::read_models::{Generations, KnownModel};

const INTERVAL: Duration = Duration::from_secs(3);

const OFFSETS: &str = "SELECT DISTINCT ON (partition) partition, next_offset FROM projection_offset \
    WHERE projection = $1 AND topic = $2 ORDER BY partition, log_epoch DESC";

impl Stores {
    async fn generations(&self, model: ReadModel) -> anyhow::Result<Generations> {
        Ok(match model.store {
            Store::Cassandra => {
                let session = self.session().await?;
                let pointer = cassandra::read_models::pointer(session, model).await?;
                Generations { pointer, existing: cassandra::read_models::generations(session, model).await? }
            }
            Store::Postgres => {
                let pointer = postgres::read_models::pointer(&self.pool, model).await?;
                Generations { pointer, existing: postgres::read_models::generations(&self.pool, model).await? }
            }
        })
    }

    /// The parked rows of a generation; none where it has no table.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn parked_rows(&self, model: ReadModel, generation: Generation) -> anyhow::Result<Vec<ParkedRow>> {
        let group = model.group_name(generation);
        Ok(match model.store {
            Store::Cassandra => {
                let session = self.session().await?;
                cassandra::parked_rows::list(session, &model.table_name(generation), &group).await?
            }
            Store::Postgres => {
                let mut connection = self.pool.acquire().await?;
                postgres::parked_rows::list(&mut connection, &group, &self.topic).await?
            }
        })
    }

    /// Asks for another try of a row that was parked. Returns whether it still is, as far as the store tells.
    ///
    /// # Errors
    /// The store does not answer: it may have the request.
    pub(crate) async fn request_retry(
        &self,
        model: ReadModel,
        group: &str,
        row: &ParkedRow,
        by: &str,
    ) -> anyhow::Result<bool> {
        Ok(match model.store {
            Store::Cassandra => {
                cassandra::parked_rows::request(self.session().await?, group, row, by).await?;
                true
            }
            Store::Postgres => {
                let key = (row.vendor_id, row.row_key.as_str());
                postgres::parked_rows::request(&self.pool, group, &self.topic, key, by).await?
            }
        })
    }

    async fn parked_rows_of_all(
        &self,
        model: ReadModel,
        generations: &[Generation],
    ) -> anyhow::Result<Vec<(String, ParkedRow)>> {
        let mut all = Vec::new();
        for generation in generations {
            let rows = self.parked_rows(model, *generation).await?;
            all.extend(rows.into_iter().map(|row| (model.group_name(*generation), row)));
        }
        Ok(all)
    }

    async fn offsets_of(&self, projection: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let query = sqlx::query_as(OFFSETS).bind(projection).bind(&self.topic);
        let rows: Vec<(i32, i64)> = query.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().collect())
    }

    /// Notes how far the generations in PostgreSQL are, which has their offsets.
    async fn note_progress(&self, board: &Board, model: ReadModel, generations: &[Generation]) {
        for generation in generations {
            let group = model.group_name(*generation);
            let offsets = in_time("reading projection_offset", self.offsets_of(&group)).await;
            board.groups().note_generation(group, offsets.ok());
        }
    }

    async fn look(&self, board: &Board, model: ReadModel) -> (KnownModel, Found) {
        let what = format!("reading the generations of {model}");
        let generations = in_time(&what, self.generations(model)).await.map_err(|error| logged(&error));
        let parked = match &generations {
            Ok(Generations { existing, .. }) => {
                if model.store == Store::Postgres {
                    self.note_progress(board, model, existing).await;
                }
                let what = format!("reading the parked rows of {model}");
                in_time(&what, self.parked_rows_of_all(model, existing)).await.map_err(|error| logged(&error))
            }
            Err(error) => Err(error.clone()),
        };
        (KnownModel { model, generations }, parked)
    }
}

/// The error's text. Its store, if it is away, is also named by the comparison of the balances; a missing grant is not.
fn logged(error: &anyhow::Error) -> String {
    static LIMIT: LogLimit = LogLimit::new();
    let error = format!("{error:#}");
    if let Some(left_out) = LIMIT.admit() {
        tracing::warn!(error, left_out, "generations or parked rows are not known");
    }
    error
}

/// Looks at the read models while somebody looks at the page.
pub(crate) async fn watch_read_models(stores: Arc<Stores>, board: Arc<Board>, audience: Audience) {
    let mut watched = audience.watched();
    while watched.wait_for(|watched| *watched).await.is_ok() {
        let started_at = Instant::now();
        let looks = READ_MODELS.map(|model| stores.look(&board, model));
        let (known, parked): (Vec<_>, Vec<_>) = futures::future::join_all(looks).await.into_iter().unzip();
        board.groups().retain_generations(|group| known.iter().any(|model| has_group(model, group)));
        *board.parked_rows() = Some(ParkedRows::new(parked));
        *board.read_models() = known;
        sleep(INTERVAL.saturating_sub(started_at.elapsed())).await;
    }
}

fn has_group(model: &KnownModel, group: &str) -> bool {
    model.groups().any(|name| name == group)
}
