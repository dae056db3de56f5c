//! A cart whose journal is damaged while it is in use: it is parked, repaired, and tried again.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use scylla::client::session::Session;
use scylla::statement::Statement;
use uuid::Uuid;

use super::environment::{FaultEnvironment, instances_of};
use super::plan::{Fault, Plan};
use crate::harness::UNKNOWN_SCHEMA;

/// The longest time from the start of cart-processors until a cart in use is parked: they take over, its next command comes, and
/// three tries in ten seconds fail.
const PARKED_WITHIN: Duration = Duration::from_secs(90);

/// How long its commands wait then.
const WAIT: Duration = Duration::from_secs(5);

/// One of so many carts, those that were changed last, is damaged.
const CANDIDATES: usize = 10;

/// Rows per page. A page is one request, and must be answered within the request timeout.
const PAGE_ROWS: i32 = 2_000;

/// A cart, the newest sequence number, its position, its events, and the timestamp of the snapshot.
type NewestRow = (Uuid, Option<i64>, Option<i64>, Option<Vec<Vec<u8>>>, Option<i64>);

/// Damages a row while no cart-processor runs, since one that has the cart in memory would not read it.
pub(super) async fn park_cart(
    environment: &mut FaultEnvironment,
    fault: Fault,
    plan: &mut Plan,
) -> anyhow::Result<String> {
    let session = cassandra::connect(environment.installation().cassandra()).await?;
    let processors = instances_of("cart-processor");
    for place in &processors {
        environment.process(*place)?.kill9()?;
    }
    let row = newest_row(&session, plan).await?;
    row.write(&session, &[UNKNOWN_SCHEMA.to_vec()], 1).await?;
    for place in processors {
        environment.start(place)?;
    }
    let parked = environment.installation().becomes_parked(row.cart, PARKED_WITHIN).await;
    tokio::time::sleep(WAIT).await;
    row.write(&session, &row.events, 2).await?;
    parked?;
    environment.installation().retry_parked(row.cart).await?;
    Ok(fault.to_string())
}

/// A row that loading its cart has to decode.
#[derive(Debug)]
struct Row {
    cart: Uuid,
    sequence_number: i64,
    position: i64,
    events: Vec<Vec<u8>>,
}

impl Row {
    /// The newest row of a cart, unless its snapshot includes it.
    fn of((cart, sequence_number, position, events, snapshot_at): NewestRow) -> Option<Self> {
        let row = Self { cart, sequence_number: sequence_number?, position: position?, events: events? };
        snapshot_at.is_none_or(|at| at < row.position).then_some(row)
    }

    /// Writes events in place of those that the cart-processor has written with the position as timestamp.
    async fn write(&self, session: &Session, events: &[Vec<u8>], later: i64) -> anyhow::Result<()> {
        let statement =
            "UPDATE cart_journal USING TIMESTAMP ? SET events = ? WHERE cart_id = ? AND sequence_number = ?";
        let values = (self.position + later, events, self.cart, self.sequence_number);
        session.query_unpaged(statement, values).await.context("writing a row of the journal")?;
        Ok(())
    }
}

/// The newest row of a cart that was changed lately, and whose snapshot does not include it.
async fn newest_row(session: &Session, plan: &mut Plan) -> anyhow::Result<Row> {
    let statement = "SELECT cart_id, sequence_number, position, events, WRITETIME(snapshot) FROM cart_journal \
                     PER PARTITION LIMIT 1";
    let statement = Statement::new(statement).with_page_size(PAGE_ROWS);
    let mut rows =
        session.query_iter(statement, ()).await.context("reading the journal")?.rows_stream::<NewestRow>()?;
    let mut candidates = Candidates::default();
    while let Some(row) = rows.try_next().await.context("reading the journal")? {
        candidates.add(row);
    }
    let count = u32::try_from(candidates.0.len())?;
    anyhow::ensure!(count > 0, "no cart of the journal has a row behind its snapshot");
    let place = usize::try_from(plan.below(count))?;
    candidates.0.into_values().nth(place).context("fewer candidates than counted")
}

/// The rows with the newest positions, the newest first: no more than [`CANDIDATES`] are kept while the journal is read.
#[derive(Debug, Default)]
struct Candidates(BTreeMap<(Reverse<i64>, Uuid), Row>);

impl Candidates {
    fn add(&mut self, row: NewestRow) {
        if let Some(row) = Row::of(row) {
            self.0.insert((Reverse(row.position), row.cart), row);
        }
        if self.0.len() > CANDIDATES {
            self.0.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rows_are_kept_of_any_number() {
        let mut candidates = Candidates::default();
        // In an order of its own: 7 has no divisor in common with 1,000.
        for number in (0..1_000_i64).map(|number| number * 7 % 1_000) {
            let cart = Uuid::from_u128(number.unsigned_abs().into());
            // Every second row is in the snapshot.
            let snapshot_at = (number % 2 == 0).then_some(number);
            candidates.add((cart, Some(1), Some(number), Some(Vec::new()), snapshot_at));
            assert!(candidates.0.len() <= CANDIDATES);
        }
        candidates.add((Uuid::nil(), None, None, None, Some(5_000)));
        let positions: Vec<i64> = candidates.0.values().map(|row| row.position).collect();
        assert_eq!(positions, [999, 997, 995, 993, 991, 989, 987, 985, 983, 981]);
    }
}
