//! Which servers answer. A server that is away is named on the page, and the panels that do not need it go on.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::clock::now_ms;

/// A server or service that the page reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Kafka,
    Registry,
    Cassandra,
    Postgres,
    Ingest,
    Audit,
}

impl Server {
    const ALL: [Self; 6] = [Self::Kafka, Self::Registry, Self::Cassandra, Self::Postgres, Self::Ingest, Self::Audit];

    const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Registry => "Registry",
            Self::Cassandra => "Cassandra",
            Self::Postgres => "PostgreSQL",
            Self::Ingest => "ingest",
            Self::Audit => "audit",
        }
    }
}

/// Whether it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// It is not used: its address was not given.
    #[default]
    Unused,
    Up,
    Away,
}

/// What is known of a server.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    /// What it did instead of answering.
    error: Option<String>,
    since_ms: i64,
}

/// All servers.
#[derive(Debug)]
pub(crate) struct Health(Mutex<[Known; Server::ALL.len()]>);

impl Default for Health {
    fn default() -> Self {
        let known = |server: Server| Known { name: server.name(), state: State::Unused, error: None, since_ms: 0 };
        Self(Mutex::new(Server::ALL.map(known)))
    }
}

impl Health {
    pub(crate) fn up(&self, server: Server) {
        self.set(server, State::Up, None);
    }

    /// Notes that a server did not answer. The error is shown with its causes.
    pub(crate) fn away(&self, server: Server, error: impl Into<anyhow::Error>) {
        let error: anyhow::Error = error.into();
        self.set(server, State::Away, Some(format!("{error:#}")));
    }

    fn set(&self, server: Server, state: State, error: Option<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut all[server as usize];
        if known.state != state {
            match &error {
                Some(error) => tracing::warn!(server = known.name, error, "a server does not answer"),
                None => tracing::info!(server = known.name, "a server answers"),
            }
            (known.state, known.since_ms) = (state, now_ms());
        }
        known.error = error;
    }

    pub(crate) fn all(&self) -> Vec<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).to_vec()
    }
}
