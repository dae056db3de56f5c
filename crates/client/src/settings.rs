//! [`ClientSettings`]: timeouts, connections, credentials.

use std::path::PathBuf;
use std::time::Duration;

/// How connections are made and kept.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// For a connection to be there.
    pub connect_timeout: Duration,
    /// For a whole answer. Longer than the service's own wait, which ends with a 202.
    pub answer_timeout: Duration,
    /// Connections kept while idle: as many as there are commands at a time, or each burst connects anew.
    pub idle_connections_max: usize,
    /// Who we are: a bearer token (RFC 6750), for a service that asks for one.
    pub token: Option<String>,
    /// For https: whom to trust instead of this machine's roots, a PEM file with one or more certificates.
    pub ca_cert: Option<PathBuf>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(15),
            idle_connections_max: 8,
            token: None,
            ca_cert: None,
        }
    }
}
