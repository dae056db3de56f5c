//! Which rows of a batch cannot be kept.

use std::collections::BTreeMap;

use cart::{PurchasedItem, RowFault};
use rust_decimal::Decimal;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{BEGIN, Failure, Month, RowKey, RowSums, VendorBillingJdbc, in_time, sum};
use crate::error::{Error, RowsFailed};
use crate::parking::{TRIES, TRY_PAUSE};
use crate::runner::{Batch, Received};

/// How PostgreSQL's errors begin that are about the values of a row: data exceptions, violated constraints, and what a trigger raises.
const CODES_OF_ROWS: [&str; 3] = ["22", "23", "P0001"];

/// Rows that are tried beside those that PostgreSQL rejects, where it keeps no other row of the batch. One of them may have a fault of its own.
const OTHERS_MAX: i64 = 5;

/// Rows that fail alone.
#[derive(Debug, Default)]
struct Suspects {
    faults: BTreeMap<RowKey, RowFault>,
    /// Whether PostgreSQL keeps other rows of the batch meanwhile.
    are_others_kept: bool,
    /// They are too many for a partition, and others were not looked for.
    too_many: Option<Error>,
}

/// Adds sums to balances, and counts those that a decimal of 28 digits with 4 places does not hold.
fn add_to(table: &str) -> String {
    format!(
        "WITH added AS (INSERT INTO {table} AS billing (vendor_id, year, month, balance) \
         SELECT * FROM UNNEST($1::uuid[], $2::int[], $3::int[], $4::numeric[]) \
         ON CONFLICT (vendor_id, year, month) DO UPDATE SET balance = billing.balance + EXCLUDED.balance RETURNING balance) \
         SELECT count(*) FROM added \
         WHERE balance NOT BETWEEN -7922816251426433759354395 AND 7922816251426433759354395"
    )
}

/// The longest beginning of some records that is kept, if all are not: `keeps` says it of so many. It must keep none.
pub(super) async fn longest_kept(
    count: usize,
    mut keeps: impl AsyncFnMut(usize) -> Result<bool, Error>,
) -> Result<usize, Error> {
    let (mut kept, mut failing) = (0, count);
    while failing - kept > 1 {
        let middle = kept + (failing - kept) / 2;
        if keeps(middle).await? {
            kept = middle;
        } else {
            failing = middle;
        }
    }
    Ok(kept)
}

impl VendorBillingJdbc {
    /// Adds sums to the balances, in a transaction that begins with [`BEGIN`]. Returns why not, if it is a matter of these rows; the
    /// transaction is of no use then.
    pub(super) async fn add_sums(
        &self,
        connection: &mut PgConnection,
        sums: &RowSums,
    ) -> Result<Option<RowFault>, sqlx::Error> {
        let mut columns: (Vec<Uuid>, Vec<i32>, Vec<i32>, Vec<Decimal>) = Default::default();
        for ((vendor_id, Month { year, month }), sum) in sums {
            let Some(sum) = sum else {
                return Ok(Some(RowFault::Overflows(String::from(
                    "the sum of a batch exceeds a decimal of 28 digits",
                ))));
            };
            columns.0.push(*vendor_id);
            columns.1.push(*year);
            columns.2.push(*month);
            columns.3.push(*sum);
        }
        let added = sqlx::query_scalar::<_, i64>(AssertSqlSafe(add_to(&self.table)))
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .bind(columns.3)
            .fetch_one(connection)
            .await;
        match added {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(RowFault::Overflows(String::from("the balance exceeds a decimal of 28 digits")))),
            Err(error) if is_of_rows(&error) => Ok(Some(RowFault::Rejected(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    /// What [`Self::add_sums`] says, without a change.
    pub(super) async fn probe(&self, sums: &RowSums) -> Result<Option<RowFault>, Error> {
        let failed = |source| Error::Sql { operation: "trying rows alone", source };
        let work = async {
            let mut transaction = self.pool.begin_with(BEGIN).await.map_err(failed)?;
            let fault = self.add_sums(&mut transaction, sums).await.map_err(failed)?;
            transaction.rollback().await.map_err(failed)?;
            Ok(fault)
        };
        in_time("trying rows alone", work).await
    }

    /// Which rows of a batch cannot be kept, each alone: after [`TRIES`] tries of each. `fault` is why they cannot be kept together.
    pub(super) async fn failing_rows(
        &self,
        batch: &Batch<PurchasedItem>,
        sums: &RowSums,
        fault: &RowFault,
    ) -> Result<BTreeMap<RowKey, Failure>, Error> {
        let Suspects { faults: mut suspects, are_others_kept, too_many } = self.suspects(batch, sums).await?;
        let rejected = suspects.values().filter(|fault| matches!(fault, RowFault::Rejected(_))).count();
        if rejected > 0 && !are_others_kept && !self.keeps_another(&suspects).await? {
            return Err(Error::NoRowKept { rows: rejected, source: RowsFailed(fault.reason()) });
        }
        if let Some(too_many) = too_many {
            return Err(too_many);
        }
        for _ in 1..TRIES {
            tokio::time::sleep(TRY_PAUSE).await;
            let mut still = BTreeMap::new();
            for key in suspects.into_keys() {
                let alone = BTreeMap::from([(key, sums.get(&key).copied().flatten())]);
                if let Some(fault) = self.probe(&alone).await? {
                    still.insert(key, fault);
                }
            }
            suspects = still;
        }
        let mut failing = BTreeMap::new();
        for key in suspects.into_keys() {
            if let Some(failure) = self.first_failure(batch, key).await? {
                failing.insert(key, failure);
            }
        }
        if failing.is_empty() {
            return Err(Error::KeptAlone(RowsFailed(fault.reason())));
        }
        Ok(failing)
    }

    /// Whether PostgreSQL keeps a row of another vendor, to which nothing is added.
    async fn keeps_another(&self, suspects: &BTreeMap<RowKey, RowFault>) -> Result<bool, Error> {
        const OPERATION: &str = "looking for another row";
        let vendors: Vec<Uuid> = suspects.keys().map(|(vendor_id, _)| *vendor_id).collect();
        let select =
            format!("SELECT vendor_id, year, month FROM {} WHERE vendor_id <> ALL($1) LIMIT {OTHERS_MAX}", self.table);
        let read = sqlx::query_as::<_, (Uuid, i32, i32)>(AssertSqlSafe(select)).bind(vendors).fetch_all(&self.pool);
        let read = async { read.await.map_err(|source| Error::Sql { operation: OPERATION, source }) };
        for (vendor_id, year, month) in in_time(OPERATION, read).await? {
            let nothing = BTreeMap::from([((vendor_id, Month { year, month }), Some(Decimal::ZERO))]);
            if self.probe(&nothing).await?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rows that fail alone, found by halving those that fail together, up to one that is too many for its partition.
    async fn suspects(&self, batch: &Batch<PurchasedItem>, sums: &RowSums) -> Result<Suspects, Error> {
        let (mut suspects, mut markers, mut parts) = (Suspects::default(), Vec::new(), vec![sums.clone()]);
        while let Some(mut part) = parts.pop() {
            let Some(fault) = self.probe(&part).await? else {
                suspects.are_others_kept |= !part.is_empty();
                continue;
            };
            let Some(middle) = part.keys().nth(part.len() / 2).copied() else { continue };
            if part.len() == 1 {
                let first = self.records_of(batch, middle).next().map(|record| (record.partition, record.offset));
                if let Some((partition, offset)) = first {
                    markers.push(self.marker(middle, &Failure { partition, offset, fault: fault.clone() }));
                }
                suspects.faults.insert(middle, fault);
                if let Err(too_many) = self.lots.make_room(&markers) {
                    suspects.too_many = Some(too_many);
                    break;
                }
            } else {
                parts.push(part.split_off(&middle));
                parts.push(part);
            }
        }
        Ok(suspects)
    }

    /// The records of a row in a batch that the database does not have.
    fn records_of<'a>(
        &self,
        batch: &'a Batch<PurchasedItem>,
        key: RowKey,
    ) -> impl Iterator<Item = &'a Received<PurchasedItem>> {
        batch.records.iter().filter(move |record| {
            (record.event.vendor_id.as_uuid(), Month::of(&record.event)) == key
                && !self.includes(record.partition, record.offset)
        })
    }

    /// The first record of a batch that a row has no room for.
    async fn first_failure(&self, batch: &Batch<PurchasedItem>, key: RowKey) -> Result<Option<Failure>, Error> {
        let records: Vec<_> = self.records_of(batch, key).collect();
        let purchases: Vec<_> = records.iter().map(|record| &record.event).collect();
        let kept = longest_kept(purchases.len(), async |count| {
            let sums = BTreeMap::from([(key, sum(purchases.iter().take(count).copied()))]);
            Ok(self.probe(&sums).await?.is_none())
        });
        let kept = kept.await?;
        let sums = BTreeMap::from([(key, sum(purchases.iter().take(kept + 1).copied()))]);
        let (Some(record), Some(fault)) = (records.get(kept), self.probe(&sums).await?) else { return Ok(None) };
        Ok(Some(Failure { partition: record.partition, offset: record.offset, fault }))
    }
}

/// Whether PostgreSQL rejects a statement for the values of a row.
fn is_of_rows(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| CODES_OF_ROWS.iter().any(|beginning| code.starts_with(beginning)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_beginning_that_is_kept_is_found() {
        for count in 1..20 {
            for most in 0..count {
                let kept = longest_kept(count, async |tried| Ok(tried <= most)).await;
                assert!(matches!(kept, Ok(kept) if kept == most), "{most} of {count}: {kept:?}");
            }
        }
    }
}
