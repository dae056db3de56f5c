//! Where the markers of parked rows are kept.

use cart::{ParkedRow, Position};
use cassandra::Error;
use cassandra::parked_rows::{ParkedRows, RetryRequest};
use service::Store;

/// The markers of parked rows as they are stored, and the operators' requests.
pub(crate) trait Markers {
    /// The markers of a partition, each with the newest record that was passed over because of it.
    fn read(&self, partition: i32) -> impl Future<Output = Result<Vec<(ParkedRow, Position)>, Error>> + Send;

    /// Writes a marker `USING TIMESTAMP` the newest record that was passed over, above the table's base.
    fn write(&self, row: &ParkedRow, passed: Position, base: i16) -> impl Future<Output = Result<(), Error>> + Send;

    /// Ends a marker, unless it holds a record behind `position`. `base` is the table's.
    fn remove(&self, row: &ParkedRow, position: Position, base: i16) -> impl Future<Output = Result<(), Error>> + Send;

    fn requests(&self) -> impl Future<Output = Result<Vec<RetryRequest>, Error>> + Send;

    fn end_request(&self, request: &RetryRequest) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Markers for ParkedRows {
    async fn read(&self, partition: i32) -> Result<Vec<(ParkedRow, Position)>, Error> {
        Store::Cassandra.time("parked_read", Self::read(self, partition)).await
    }

    async fn write(&self, row: &ParkedRow, passed: Position, base: i16) -> Result<(), Error> {
        Store::Cassandra.time("parked_write", Self::write(self, row, passed, base)).await
    }

    async fn remove(&self, row: &ParkedRow, position: Position, base: i16) -> Result<(), Error> {
        Store::Cassandra.time("parked_write", Self::remove(self, row, position, base)).await
    }

    async fn requests(&self) -> Result<Vec<RetryRequest>, Error> {
        Store::Cassandra.time("parked_read", Self::requests(self)).await
    }

    async fn end_request(&self, request: &RetryRequest) -> Result<(), Error> {
        Store::Cassandra.time("parked_write", Self::end_request(self, request)).await
    }
}
