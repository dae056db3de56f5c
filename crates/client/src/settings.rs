//! [`ClientSettings`]: timeouts, connections, credentials.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The timeout of a connection attempt.
    pub connect_timeout: Duration,
    /// The timeout of a whole answer. Must be longer than the service's own wait, which ends with a 202.
    pub answer_timeout: Duration,
    /// How many idle connections are kept. With fewer than concurrent commands, each burst makes new connections.
    pub idle_connections_max: usize,
    /// The bearer token (RFC 6750), for a service that requires one.
    pub token: Option<String>,
    /// A PEM file with one or more certificates to trust for https, instead of the system's root certificates.
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
