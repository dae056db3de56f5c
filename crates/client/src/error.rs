//! Why there is no [`Outcome`](crate::Outcome), and whether the command may have been executed.

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
        /// The given text.
        url: String,
    },
    /// TLS could not be set up; for example, the system has no root certificates.
    #[error("setting up TLS failed")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificates to trust can't be used.
    #[error("reading the certificates in {} failed", file.display())]
    CaCert {
        file: PathBuf,
        /// The cause.
        #[source]
        source: CertificateError,
    },
    /// The token is not a valid header value.
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
    /// The connection was lost, or the request timed out, before the whole answer had arrived.
    #[error("{url} did not respond")]
    NoAnswer {
        /// The service's address.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer with a status that the contract does not have.
    #[error("unexpected answer {status}: {excerpt}")]
    UnexpectedAnswer {
        /// The HTTP status.
        status: StatusCode,
        /// The problem's detail, or the beginning of another body.
        excerpt: String,
    },
    /// A body that does not match the contract.
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
        /// The maximum length in bytes.
        limit: usize,
    },
    /// A read (not a command) was rejected.
    #[error("rejected: {}", .0.title)]
    Refused(Problem),
}

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file can't be read, or is not a PEM file.
    #[error(transparent)]
    Pem(#[from] pem::Error),
    /// One of them is invalid.
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    /// The file has no certificate.
    #[error("it has no certificate")]
    None,
}

/// Whether a command without an outcome was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// It was certainly not executed.
    NotExecuted,
    /// It may have been executed; only a retry with the same idempotency key is safe.
    Unknown,
}

impl Error {
    /// Whether the command may have been executed.
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

    /// Whether a retry may succeed.
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
