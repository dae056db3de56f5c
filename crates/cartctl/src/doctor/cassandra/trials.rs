//! What Cassandra does with timestamps, batches and conditions, tried out in a keyspace of the doctor's own.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use cart::Cart;
use cassandra::{CassandraArgs, KeyspaceArgs};
use scylla::client::session::Session;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;

use crate::doctor::own;
use crate::doctor::report::{Check, Finding, Server, Verdict};

const OWN: Check = check(
    "own-keyspace",
    "the checks below that use a keyspace of their own cannot be made; `setup` needs the same permission",
    "CREATE and DROP on all keyspaces, MODIFY and SELECT on those that begin with cart_doctor_",
);
const TIMESTAMPS: Check =
    check("write-timestamps", "a late write of a paused service replaces newer rows: carts and totals go back", ROWS);
const TIES: Check = check(
    "equal-timestamps",
    "two writers of one position leave a row that is neither's, and that changes from read to read",
    ROWS,
);
const BATCHES: Check =
    check("batch-isolation", "a cart is read with a part of a command's effect, and decided on that", ROWS);
const LARGE_BATCHES: Check = check(
    "large-batches",
    "a checkout of many lines is refused for ever: its cart's partition of cart-commands stands still",
    ROWS,
);
const CONDITIONS: Check = check(
    "conditional-writes",
    "two `setup`s at the same time record two logs as the one that the journal belongs to",
    ROWS,
);

pub(super) const CHECKS: [&Check; 6] = [&OWN, &TIMESTAMPS, &TIES, &BATCHES, &LARGE_BATCHES, &CONDITIONS];

const fn check(name: &'static str, without_it: &'static str, needs: &'static str) -> Check {
    Check { server: Server::Cassandra, name, without_it, needs }
}

const ROWS: &str = "MODIFY and SELECT on keyspaces that begin with cart_doctor_";

/// What to do where a store is not Cassandra.
const OTHER_STORE: &str =
    "use Apache Cassandra 5.0, with which the guarantees are tested, or a store that does the same";

/// The most copies that the trials ask for, as production does.
const COPIES_MAX: usize = 3;

/// At most so many bytes are an event for a line with the longest name.
const LINE_LEN: usize = 900;

/// What a cart that is filled and bought within one batch of a cart-processor writes in one request: each line twice.
const ROWS_OF_BATCH: usize = 2 * Cart::LINES_MAX;

/// Batches that are written while they are read, and the rows of each.
const ROUNDS: i64 = 40;
const ROWS_OF_ROUND: i32 = 10;

/// The keyspace of one run with its table.
struct Own<'a> {
    session: &'a Session,
    table: String,
    insert: PreparedStatement,
    select: PreparedStatement,
}

/// Makes the trials, and removes what they have made.
pub(super) async fn run(args: &CassandraArgs, session: &Session, nodes: usize) -> Vec<Finding> {
    let name = own::name();
    let (mut created, mut trials) = match create(args, session, &name, nodes).await {
        Ok(own) => {
            let trials = vec![
                Finding::new(&TIMESTAMPS, own.timestamps().await),
                Finding::new(&TIES, own.ties().await),
                Finding::new(&BATCHES, own.isolation().await),
                Finding::new(&LARGE_BATCHES, own.large_batch().await),
                Finding::new(&CONDITIONS, own.conditions().await),
            ];
            (Ok(Verdict::holds(format!("a keyspace with a table can be made: {}", own.table))), trials)
        }
        Err(error) => (Err(error), Vec::new()),
    };
    // A keyspace may be there though its creation has failed.
    let dropped = drop_keyspace(session, &name).await;
    if let (true, Err(error)) = (created.is_ok(), dropped) {
        created = Err(error.context("the doctor's keyspace could not be removed"));
    }
    trials.insert(0, Finding::new(&OWN, created));
    trials
}

async fn drop_keyspace(session: &Session, name: &str) -> anyhow::Result<()> {
    session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {name}"), ()).await?;
    Ok(())
}

/// Removes the keyspaces that a killed doctor has left.
pub(super) async fn remove_left(session: &Session) -> anyhow::Result<()> {
    let cluster = session.get_cluster_state();
    for name in cluster.keyspaces_iter().map(|(name, _)| name).filter(|name| own::is_left(name)) {
        drop_keyspace(session, name).await?;
    }
    Ok(())
}

async fn create<'a>(args: &CassandraArgs, session: &'a Session, name: &str, nodes: usize) -> anyhow::Result<Own<'a>> {
    let args = CassandraArgs { cassandra_keyspace: name.to_owned(), ..args.clone() };
    let copies = KeyspaceArgs { cassandra_replication: u8::try_from(nodes.clamp(1, COPIES_MAX))? };
    cassandra::ensure_keyspace(&args, &copies).await?;
    let table = format!("{name}.trial");
    let create = format!(
        "CREATE TABLE {table} (id int, number int, value blob, state blob STATIC, PRIMARY KEY (id, number)) \
         WITH CLUSTERING ORDER BY (number DESC)"
    );
    session.query_unpaged(create, ()).await?;
    session.await_schema_agreement().await?;
    let prepare = async |statement: String| {
        let mut prepared = session.prepare(statement).await?;
        prepared.set_is_idempotent(true);
        anyhow::Ok(prepared)
    };
    let insert = format!("INSERT INTO {table} (id, number, value, state) VALUES (?, ?, ?, ?) USING TIMESTAMP ?");
    let (insert, select) =
        (prepare(insert).await?, prepare(format!("SELECT value, state FROM {table} WHERE id = ?")).await?);
    Ok(Own { session, table, insert, select })
}

/// The values of `insert`.
type Row<'a> = (i32, i32, &'a [u8], &'a [u8], i64);

impl Own<'_> {
    async fn write(&self, id: i32, value: &[u8], timestamp: i64) -> anyhow::Result<()> {
        let row: Row<'_> = (id, 0, value, value, timestamp);
        self.session.execute_unpaged(&self.insert, row).await?;
        Ok(())
    }

    /// Writes rows of one partition in one request.
    async fn write_batch(&self, rows: Vec<Row<'_>>) -> Result<(), ExecutionError> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        rows.iter().for_each(|_| batch.append_statement(self.insert.clone()));
        self.session.batch(&batch, rows).await.map(drop)
    }

    /// The value and the state in each row of a partition.
    async fn read(&self, id: i32) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let rows = self.session.execute_unpaged(&self.select, (id,)).await?.into_rows_result()?;
        Ok(rows.rows::<(Vec<u8>, Vec<u8>)>()?.collect::<Result<_, _>>()?)
    }

    /// What a partition of one row has after these writes, each with its timestamp.
    async fn after(&self, id: i32, writes: [(&[u8], i64); 2]) -> anyhow::Result<Vec<u8>> {
        for (value, timestamp) in writes {
            self.write(id, value, timestamp).await?;
        }
        let (value, _) = self.read(id).await?.pop().context("a written row is not there")?;
        Ok(value)
    }

    async fn timestamps(&self) -> anyhow::Result<Verdict> {
        let found = self.after(1, [(b"newer", 20), (b"older", 10)]).await?;
        Ok(match found.as_slice() {
            b"newer" => Verdict::holds("a write with an older timestamp changes nothing"),
            _ => Verdict::fails("a write with an older timestamp has replaced a newer one", OTHER_STORE),
        })
    }

    async fn ties(&self) -> anyhow::Result<Verdict> {
        let ways = [self.after(2, [(b"a", 30), (b"b", 30)]).await?, self.after(3, [(b"b", 30), (b"a", 30)]).await?];
        Ok(match ways.each_ref().map(Vec::as_slice) {
            [b"b", b"b"] => Verdict::holds("of two values with one timestamp the larger stays, whichever comes first"),
            _ => Verdict::fails("of two values with one timestamp the order of the writes decides", OTHER_STORE),
        })
    }

    /// Reads a partition again and again while each of its rows is changed in one request.
    async fn isolation(&self) -> anyhow::Result<Verdict> {
        const ID: i32 = 4;
        let is_written = AtomicBool::new(false);
        let write = async {
            let mut result = Ok(());
            for round in 1..=ROUNDS {
                let value = round.to_be_bytes();
                let rows = (0..ROWS_OF_ROUND).map(|number| (ID, number, value.as_slice(), value.as_slice(), round));
                result = self.write_batch(rows.collect()).await;
                if result.is_err() {
                    break;
                }
            }
            is_written.store(true, Ordering::Relaxed);
            Ok(result?)
        };
        let read = async {
            let (mut reads, mut torn) = (0, 0);
            while !is_written.load(Ordering::Relaxed) {
                let rows = self.read(ID).await?;
                let Some((first, _)) = rows.first() else { continue };
                let is_whole = rows.len() == usize::try_from(ROWS_OF_ROUND)?
                    && rows.iter().all(|(value, state)| value == first && state == first);
                reads += 1;
                torn += u32::from(!is_whole);
            }
            anyhow::Ok((reads, torn))
        };
        let ((), (reads, torn)) = tokio::try_join!(write, read)?;
        Ok(match torn {
            0 => Verdict::holds(format!("{reads} reads during {ROUNDS} batches saw each batch as a whole")),
            _ => Verdict::fails(format!("{torn} of {reads} reads saw a part of a batch"), OTHER_STORE),
        })
    }

    async fn large_batch(&self) -> anyhow::Result<Verdict> {
        let line = vec![0; LINE_LEN];
        let rows = (0..).take(ROWS_OF_BATCH).map(|number| (5, number, line.as_slice(), [].as_slice(), 1));
        let bytes = ROWS_OF_BATCH * LINE_LEN;
        match self.write_batch(rows.collect()).await {
            Ok(()) => Ok(Verdict::holds(format!("a batch of {bytes} bytes in one partition is accepted"))),
            Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, reason))) => {
                Ok(Verdict::fails(
                    format!("a batch of {bytes} bytes in one partition is refused: {reason}"),
                    "set batch_size_fail_threshold: 10MiB and batch_size_warn_threshold: 1MiB in cassandra.yaml of each node, and \
                     restart it",
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn conditions(&self) -> anyhow::Result<Verdict> {
        const ID: i32 = 6;
        let statement =
            format!("INSERT INTO {} (id, number, value, state) VALUES (?, 0, ?, ?) IF NOT EXISTS", self.table);
        for value in [b"first".as_slice(), b"second"] {
            self.session.query_unpaged(statement.as_str(), (ID, value, value)).await?;
        }
        let found = self.read(ID).await?;
        Ok(match found.as_slice() {
            [(value, _)] if value == b"first" => Verdict::holds("of two conditional writes the first is applied"),
            _ => Verdict::fails("of two conditional writes the second is applied", OTHER_STORE),
        })
    }
}
