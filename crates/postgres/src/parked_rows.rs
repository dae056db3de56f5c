//! Which rows of the read model in PostgreSQL are parked: the table `parked_row`, which the projector changes in the transactions that
//! change its offsets.

use cart::{ParkedRow, VendorId};
use chrono::{DateTime, Utc};
use sqlx::types::Uuid;
use sqlx::{PgConnection, PgExecutor};

const EXISTS: &str = "SELECT to_regclass('parked_row') IS NOT NULL";
const SELECT: &str = "SELECT log_partition, vendor_id, row_key, first_position, next_position, reason, since, retry_by \
    FROM parked_row WHERE projection = $1 AND topic = $2 ORDER BY log_partition, vendor_id, row_key";
const SELECT_REQUESTS: &str = "SELECT vendor_id, row_key, retry_by, retry_at FROM parked_row \
    WHERE projection = $1 AND topic = $2 AND retry_by IS NOT NULL AND retry_at IS NOT NULL";
const REQUEST: &str = "UPDATE parked_row SET retry_by = $1, retry_at = now() \
    WHERE projection = $2 AND topic = $3 AND vendor_id = $4 AND row_key = $5";
const DELETE: &str = "DELETE FROM parked_row WHERE projection = $1 AND topic = $2";

type Row = (i32, Uuid, String, i64, i64, String, DateTime<Utc>, Option<String>);

fn row((partition, vendor_id, row_key, first, next, reason, since, retry_by): Row) -> ParkedRow {
    ParkedRow {
        partition,
        vendor_id: vendor_id.into(),
        row_key,
        first_position: first.into(),
        next_position: next.into(),
        reason,
        since,
        retry_by,
        revision: 0,
    }
}

/// The parked rows of a projection, in all partitions; `topic` is the full name.
///
/// # Errors
/// If PostgreSQL does not respond, or `setup` has not made the table.
pub async fn of_projection(
    executor: impl PgExecutor<'_>,
    projection: &str,
    topic: &str,
) -> Result<Vec<ParkedRow>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(SELECT).bind(projection).bind(topic).fetch_all(executor).await?;
    Ok(rows.into_iter().map(row).collect())
}

/// As [`of_projection`]; none where `setup` has not made the table. Also within a transaction, which such an error would end.
///
/// # Errors
/// If PostgreSQL does not respond.
pub async fn list(connection: &mut PgConnection, projection: &str, topic: &str) -> Result<Vec<ParkedRow>, sqlx::Error> {
    let exists: bool = sqlx::query_scalar(EXISTS).fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sqlx::query_as(SELECT).bind(projection).bind(topic).fetch_all(connection).await?;
    Ok(rows.into_iter().map(row).collect())
}

/// An operator's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryRequest {
    pub vendor_id: VendorId,
    pub row_key: String,
    /// Who asks.
    pub by: String,
    /// When; another request of the row has another time.
    pub at: DateTime<Utc>,
}

/// What operators want to be tried again.
///
/// # Errors
/// If PostgreSQL does not respond, or `setup` has not made the table.
pub async fn requests(
    executor: impl PgExecutor<'_>,
    projection: &str,
    topic: &str,
) -> Result<Vec<RetryRequest>, sqlx::Error> {
    let rows: Vec<(Uuid, String, String, DateTime<Utc>)> =
        sqlx::query_as(SELECT_REQUESTS).bind(projection).bind(topic).fetch_all(executor).await?;
    let request = |(vendor_id, row_key, by, at): (Uuid, String, String, DateTime<Utc>)| RetryRequest {
        vendor_id: vendor_id.into(),
        row_key,
        by,
        at,
    };
    Ok(rows.into_iter().map(request).collect())
}

/// Asks for another try of a row. Returns whether it is parked.
///
/// # Errors
/// If PostgreSQL does not respond.
pub async fn request(
    executor: impl PgExecutor<'_>,
    projection: &str,
    topic: &str,
    (vendor_id, row_key): (VendorId, &str),
    by: &str,
) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(REQUEST).bind(by).bind(projection).bind(topic).bind(vendor_id.as_uuid()).bind(row_key);
    Ok(query.execute(executor).await?.rows_affected() == 1)
}

/// Forgets the parked rows of a projection, whose table is gone or emptied in the same transaction.
///
/// # Errors
/// If PostgreSQL does not respond.
pub async fn forget(connection: &mut PgConnection, projection: &str, topic: &str) -> Result<(), sqlx::Error> {
    let exists: bool = sqlx::query_scalar(EXISTS).fetch_one(&mut *connection).await?;
    if exists {
        sqlx::query(DELETE).bind(projection).bind(topic).execute(connection).await?;
    }
    Ok(())
}
