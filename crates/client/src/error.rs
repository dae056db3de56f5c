//! Why there is no [`Outcome`](crate::Outcome), and whether the command can have been executed all the same.

use std::path::PathBuf;

use hyper::{StatusCode, http};
use hyper_util::client::legacy;
use rustls::pki_types::pem;

use crate::wire::Problem;

/// No usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not an HTTP URL.
    #[error("{url:?} is not the http:// or https:// URL of an ingest service")]
    BaseUrl {
        /// What was given.
        url: String,
    },
    /// TLS could not be set up; this machine's roots are missing, for example.
    #[error("setting up TLS failed")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificates to trust can't be used.
    #[error("reading the certificates in {} failed", file.display())]
    CaCert {
        /// Where they should be.
        file: PathBuf,
        /// The cause.
        #[source]
        source: CertificateError,
    },
    /// The token can't be sent.
    #[error("the token has characters that no header may have")]
    Token,
    /// A header value (the idempotency key) has characters that no header may have, or the request is malformed.
    #[error("the request could not be built")]
    Request(#[source] http::Error),
    /// The request's body can't be written as JSON.
    #[error("the request's body could not be written")]
    Body(#[source] serde_json::Error),
    /// No connection: nothing was sent.
    #[error("connecting to {url} failed")]
    Connect {
        /// The service's address.
        url: String,
        /// The cause.
        #[source]
        source: legacy::Error,
    },
    /// The connection was lost, or time ran out, before the whole answer was there.
    #[error("{url} did not respond")]
    NoAnswer {
        /// The service's address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that the contract does not know.
    #[error("unexpected answer {status}: {excerpt}")]
    UnexpectedAnswer {
        /// The HTTP status.
        status: StatusCode,
        /// The problem's detail, or the beginning of another body.
        excerpt: String,
    },
    /// A body that is not what the contract says for this status.
    #[error("unreadable answer: {excerpt}")]
    UnreadableAnswer {
        /// The beginning of the body.
        excerpt: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A body longer than any answer can be.
    #[error("the answer has more than {limit} bytes")]
    AnswerTooLong {
        /// How many bytes are read at most.
        limit: usize,
    },
    /// A question (not a command) was refused.
    #[error("rejected: {}", .0.title)]
    Refused(Problem),
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file can't be read, or is no PEM file.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// One of them is no certificate.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// There is none in it.
    #[error("it has no certificate")]
    None,
}

/// Whether a command that got no outcome was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// Certainly not.
    NotExecuted,
    /// Perhaps: only a retry with the same idempotency key is safe.
    Unknown,
}

impl Error {
    /// Whether the command can have been executed.
    #[must_use]
    pub fn execution(&self) -> Execution {
        match self {
            Self::BaseUrl { .. }
            | Self::Token
            | Self::Tls(_)
            | Self::CaCert { .. }
            | Self::Request(_)
            | Self::Body(_)
            | Self::Connect { .. }
            | Self::Refused(_) => Execution::NotExecuted,
            Self::NoAnswer { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::UnreadableAnswer { .. }
            | Self::AnswerTooLong { .. } => Execution::Unknown,
        }
    }

    /// Whether the same request can do better later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::NoAnswer { .. } => true,
            Self::UnexpectedAnswer { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::REQUEST_TIMEOUT
                    || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::BaseUrl { .. }
            | Self::Token
            | Self::Tls(_)
            | Self::CaCert { .. }
            | Self::Request(_)
            | Self::Body(_)
            | Self::UnreadableAnswer { .. }
            | Self::AnswerTooLong { .. }
            | Self::Refused(_) => false,
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
