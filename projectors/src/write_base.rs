//! What is added to the positions in the write timestamps of a table whose rows `cartctl switch --in-place` has replaced.
//!
//! A row that was written with an earlier base counts as any other: while a replacement is not complete, most rows are such ones. So a row
//! that an old instance writes late, where the table had none, stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};

use cart::Generation;
use cart::contract::ReadModel;
use cassandra::Error;
use scylla::client::session::Session;

/// The base of a generation's table. Zero, except in the first one, which other programs know by its name.
#[derive(Debug)]
pub(crate) struct WriteBase {
    session: Arc<Session>,
    model: ReadModel,
    is_first: bool,
    base: AtomicI16,
}

impl WriteBase {
    pub(crate) fn new(session: Arc<Session>, model: ReadModel, generation: Generation) -> Self {
        Self { session, model, is_first: generation == Generation::FIRST, base: AtomicI16::new(0) }
    }

    /// As it was when it was last read.
    pub(crate) fn get(&self) -> i16 {
        self.base.load(Ordering::Relaxed)
    }

    /// Reads it. While rows are replaced, the group has no members; so it is the same until partitions are lost.
    pub(crate) async fn renew(&self) -> Result<(), Error> {
        if self.is_first {
            let base = cassandra::read_models::write_base(&self.session, self.model).await?;
            self.base.store(base, Ordering::Relaxed);
        }
        Ok(())
    }
}
