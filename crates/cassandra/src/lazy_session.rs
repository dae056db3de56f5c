//! A session that is opened at its first use.

use std::sync::Arc;

use scylla::client::session::Session;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use crate::{CassandraArgs, Error, connect};

/// A session that is opened at its first use. It goes on being opened when its caller stops waiting: with a node that does not answer
/// among --cassandra-nodes that takes longer than callers wait, and would begin at that node again each time.
#[derive(Debug)]
pub struct LazySession {
    args: CassandraArgs,
    session: OnceCell<Arc<Session>>,
    opening: Mutex<Option<Opening>>,
}

type Opening = JoinHandle<Result<Session, Error>>;

impl LazySession {
    /// Does not connect yet.
    #[must_use]
    pub fn new(args: &CassandraArgs) -> Self {
        Self { args: args.clone(), session: OnceCell::new(), opening: Mutex::new(None) }
    }

    /// The session. After an error the next call opens it anew.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn get(&self) -> Result<&Arc<Session>, Error> {
        self.session.get_or_try_init(async || self.open().await.map(Arc::new)).await
    }

    async fn open(&self) -> Result<Session, Error> {
        let mut opening = self.opening.lock().await;
        let task = opening.get_or_insert_with(|| {
            let args = self.args.clone();
            tokio::spawn(async move { connect(&args).await })
        });
        let opened = task.await;
        *opening = None;
        opened.unwrap_or_else(|error| Err(Error::new("connecting to Cassandra", error)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// How long a caller waits.
    const WAIT: Duration = Duration::from_millis(200);
    const DEADLINE: Duration = Duration::from_secs(10);

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: CassandraArgs,
    }

    #[tokio::test]
    async fn it_goes_on_being_opened_when_its_caller_stops_waiting() {
        // A node that accepts connections and says nothing.
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap().to_string();
        let session = LazySession::new(&Cli::parse_from(["test", "--cassandra-nodes", &address]).args);
        for _ in 0..2 {
            assert!(timeout(WAIT, session.get()).await.is_err());
        }
        assert!(timeout(DEADLINE, node.accept()).await.is_ok(), "it connects");
        assert!(timeout(WAIT, node.accept()).await.is_err(), "the second caller waits for the same connection");
    }
}
