//! Where Cassandra is, and how sessions are set up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::{Consistency, Statement};

use crate::Error;
use crate::log_identity::LOG_TABLE;
use crate::security::{CassandraSecurityArgs, Rejection};

/// How to reach Cassandra, and where in it our tables are.
#[derive(Debug, Clone, clap::Args)]
pub struct CassandraArgs {
    /// Cassandra nodes to connect to first, as host:port, comma-separated
    #[arg(long, env, help_heading = "Common", value_delimiter = ',', default_value = "127.0.0.1:9042")]
    pub cassandra_nodes: Vec<String>,

    /// Cassandra data centre whose nodes are queried; with a wrong name every request fails
    #[arg(long, env, help_heading = "Common", default_value = "datacenter1")]
    pub cassandra_datacenter: String,

    /// Cassandra keyspace of all tables
    #[arg(long, env, help_heading = "Servers", default_value = "cart", value_parser = keyspace)]
    pub cassandra_keyspace: String,

    /// Timeout of a Cassandra request before it is retried; after a quarter of it the request is also sent to a second node
    #[arg(help_heading = "Servers")]
    #[arg(long, env, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub cassandra_request_timeout_ms: u64,

    /// How the nodes are secured.
    #[command(flatten)]
    pub security: CassandraSecurityArgs,
}

/// How the keyspace is made. Only `setup` reads this.
#[derive(Debug, Clone, clap::Args)]
pub struct KeyspaceArgs {
    /// Replicas of each Cassandra row; use 3 in production
    #[arg(long, env, help_heading = "Setup", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub cassandra_replication: u8,
}

/// Names that need no quotes: they become part of statements.
fn keyspace(name: &str) -> Result<String, String> {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 48 {
        Ok(name.to_owned())
    } else {
        Err(String::from("a keyspace's name has 1 to 48 of a-z, 0-9 and _, and starts with a letter"))
    }
}

/// A session on the keyspace. It must exist: `setup` makes it.
///
/// # Errors
/// When no node answers, or there is no such keyspace.
pub async fn connect(args: &CassandraArgs) -> Result<Session, Error> {
    let session = open(args).await?;
    let keyspace = &args.cassandra_keyspace;
    match session.use_keyspace(keyspace, false).await {
        Ok(()) => Ok(session),
        Err(error) => {
            let operation = format!("using keyspace {keyspace}");
            let cluster = session.get_cluster_state();
            if cluster.get_keyspace(keyspace).is_some() {
                return Err(Error::new(operation, error));
            }
            let ours = cluster.keyspaces_iter().filter(|(_, keyspace)| keyspace.tables.contains_key(LOG_TABLE));
            Err(Error::new(operation, explain_missing(ours.map(|(name, _)| name).collect())))
        }
    }
}

/// How many keyspaces to name. A cluster that is used for tests has hundreds.
const NAMED_MAX: usize = 10;

/// What to say of a keyspace that does not exist, with those that `setup` has made.
fn explain_missing(ours: BTreeSet<&str>) -> String {
    let named: Vec<_> = ours.iter().copied().take(NAMED_MAX).collect();
    let existing = match ours.len() - named.len() {
        0 if named.is_empty() => String::from("this cluster has none that `setup` created"),
        0 => format!("this cluster has {}", named.join(", ")),
        more => format!("this cluster has {} and {more} more", named.join(", ")),
    };
    format!("it does not exist (--cassandra-keyspace, CASSANDRA_KEYSPACE); `setup` creates it; {existing}")
}

/// Whether a node answers.
///
/// # Errors
/// Says what it did instead.
pub async fn check(session: &Session) -> Result<(), Error> {
    let mut ask = Statement::new("SELECT release_version FROM system.local");
    ask.set_is_idempotent(true);
    let asked = session.query_unpaged(ask, ()).await;
    asked.map(|_| ()).map_err(|error| Error::new("querying Cassandra", error))
}

/// The statement that makes the keyspace.
#[must_use]
pub fn create_keyspace(args: &CassandraArgs, keyspace: &KeyspaceArgs) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{'class': 'NetworkTopologyStrategy', '{}': {}}}",
        args.cassandra_keyspace, args.cassandra_datacenter, keyspace.cassandra_replication
    )
}

/// Makes the keyspace if it is not there. If it is, no right to make keyspaces is needed.
///
/// # Errors
/// When no node answers.
pub async fn ensure_keyspace(args: &CassandraArgs, keyspace: &KeyspaceArgs) -> Result<(), Error> {
    let session = open(&args.patient()).await?;
    if session.get_cluster_state().get_keyspace(&args.cassandra_keyspace).is_some() {
        return Ok(());
    }
    session
        .query_unpaged(create_keyspace(args, keyspace), ())
        .await
        .map_err(|error| Error::new(format!("creating keyspace {}", args.cassandra_keyspace), error))?;
    Ok(())
}

/// A connection is asked this often whether its node is still there, and given up when no answer comes for so long: a node
/// that stands still keeps its connections open, and would be sent its share of the requests for as long as that lasts.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// A change of the schema is agreed on by all nodes, and emptying a table ends the work in progress on it: both take seconds
/// on a busy cluster.
const SCHEMA_TIMEOUT_MS: u64 = 60_000;

/// A statement that changes the schema, with the time for that, whatever the session's timeout is.
#[must_use]
pub fn schema_change(text: impl Into<String>) -> Statement {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(Duration::from_millis(SCHEMA_TIMEOUT_MS)));
    statement
}

impl CassandraArgs {
    /// The same, for a session that changes the schema: with more time for each request.
    #[must_use]
    pub fn patient(&self) -> Self {
        let cassandra_request_timeout_ms = self.cassandra_request_timeout_ms.max(SCHEMA_TIMEOUT_MS);
        Self { cassandra_request_timeout_ms, ..self.clone() }
    }
}

/// Connects to the cluster, without a keyspace.
///
/// # Errors
/// When no node answers.
pub async fn open(args: &CassandraArgs) -> Result<Session, Error> {
    let balancing =
        DefaultPolicy::builder().prefer_datacenter(args.cassandra_datacenter.clone()).token_aware(true).build();
    let timeout = Duration::from_millis(args.cassandra_request_timeout_ms);
    // Only for idempotent statements. One node more: with two that do not answer there is no quorum.
    let speculation = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: timeout / 4 };
    let profile = ExecutionProfile::builder()
        // With 3 copies: survives the loss of one, and a read sees what was written. With 1 copy the same as ONE.
        .consistency(Consistency::LocalQuorum)
        .request_timeout(Some(timeout))
        .speculative_execution_policy(Some(Arc::new(speculation)))
        .load_balancing_policy(balancing)
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&args.cassandra_nodes)
        .default_execution_profile_handle(profile.into_handle())
        .keepalive_interval(KEEPALIVE.0)
        .keepalive_timeout(KEEPALIVE.1)
        .tcp_nodelay(true);
    let operation = || format!("connecting to Cassandra at {}", args.cassandra_nodes.join(", "));
    if let Some((user, password)) = args.security.credentials().map_err(|error| Error::new(operation(), error))? {
        builder = builder.user(user, password.expose());
    }
    let rejection = Rejection::default();
    if let Some(tls) = args.security.tls(&rejection).map_err(|error| Error::new(operation(), error))? {
        builder = builder.tls_context(Some(tls));
    }
    builder.build().await.map_err(|error| {
        match rejection.advice().or_else(|| args.security.advice(&error.to_string())) {
            Some(advice) => Error::new(operation(), format!("{advice} ({error})")),
            None => Error::new(operation(), error),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{explain_missing, keyspace};

    #[test]
    fn names_at_most_ten_keyspaces() {
        let text = explain_missing(["b", "a"].into());
        assert!(text.ends_with("`setup` creates it; this cluster has a, b"), "{text}");
        let many: Vec<_> = (10..25).map(|number| format!("c{number}")).collect();
        let text = explain_missing(many.iter().map(String::as_str).collect());
        assert!(text.ends_with("c18, c19 and 5 more"), "{text}");
        assert!(explain_missing([].into()).ends_with("this cluster has none that `setup` created"));
    }

    #[test]
    fn a_keyspace_is_a_plain_name() {
        assert!(keyspace("cart_7").is_ok());
        assert!(keyspace("").is_err());
        assert!(keyspace("7cart").is_err());
        assert!(keyspace("cart; DROP").is_err());
        assert!(keyspace(&"a".repeat(49)).is_err());
    }
}
