//! How clients prove who they are to Cassandra, and its nodes to them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509StoreBuilder;
use service::{Secret, SecretError, certificate_advice};

/// How Cassandra is secured.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CassandraSecurityArgs {
    /// Cassandra user, if the cluster requires authentication
    #[arg(long, env, help_heading = "Secured servers")]
    pub cassandra_user: Option<String>,

    /// File with the password of the Cassandra user; without it the variable CASSANDRA_PASSWORD has the password
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub cassandra_password_file: Option<PathBuf>,

    /// The password, from the environment alone.
    #[arg(skip = Secret::from_env(PASSWORD))]
    pub cassandra_password: Option<Secret>,

    /// Certificates (PEM) of the authorities that the nodes' certificates are signed by; with it, all connections use TLS
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub cassandra_ca_cert: Option<PathBuf>,

    /// Client certificate (PEM) for nodes that require one, followed by its intermediate certificates
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub cassandra_client_cert: Option<PathBuf>,

    /// Private key (PEM) of the client certificate
    #[arg(long, env, help_heading = "Secured servers", value_name = "FILE")]
    pub cassandra_client_key: Option<PathBuf>,

    /// What is checked of a node's certificate
    #[arg(long, env, help_heading = "Secured servers", value_enum, default_value_t)]
    pub cassandra_tls_verify: TlsVerify,
}

/// The variable with the password, and the name of its file with `_FILE`.
const PASSWORD: &str = "CASSANDRA_PASSWORD";

/// What is checked of a node's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsVerify {
    /// That an authority has signed it, and that it is for the node's IP address
    #[default]
    Address,
    /// That an authority has signed it: for certificates without addresses, as operators for Kubernetes make them
    Chain,
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error("{option} needs {needed}")]
    Missing { option: &'static str, needed: &'static str },
    #[error(transparent)]
    Password(#[from] SecretError),
    #[error("reading {} ({option}) failed", path.display())]
    Certificate { option: &'static str, path: PathBuf, source: ErrorStack },
    #[error("setting up TLS failed")]
    Tls(#[from] ErrorStack),
}

/// Notes why a certificate was rejected: the error of the driver does not say it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rejection(Arc<Mutex<Option<X509VerifyResult>>>);

impl Rejection {
    fn note(&self, result: X509VerifyResult) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    /// What was wrong with the certificate that was rejected last, and what to do.
    pub(crate) fn advice(&self) -> Option<String> {
        let result = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let name_advice =
            "it is not for the node's IP address: issue it for that, or give --cassandra-tls-verify chain";
        let advice = certificate_advice(result.as_raw(), "--cassandra-ca-cert", name_advice);
        Some(format!("the node's certificate was rejected, {}: {advice}", result.error_string()))
    }
}

impl CassandraSecurityArgs {
    /// User and password, where they are given. The file is read each time, so a new session has a new password.
    ///
    /// # Errors
    /// When one of them is missing, or the file can't be read.
    pub(crate) fn credentials(&self) -> Result<Option<(&str, Secret)>, SecurityError> {
        let password = Secret::of(PASSWORD, self.cassandra_password.as_ref(), self.cassandra_password_file.as_deref())?;
        match (self.cassandra_user.as_deref().filter(|user| !user.is_empty()), password) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some((user, password))),
            (Some(_), None) => {
                let needed = "--cassandra-password-file, or CASSANDRA_PASSWORD in the environment";
                Err(SecurityError::Missing { option: "--cassandra-user", needed })
            }
            (None, Some(_)) => Err(SecurityError::Missing { option: PASSWORD, needed: "--cassandra-user" }),
        }
    }

    /// What to do about an error of the driver that depends on these settings.
    pub(crate) fn advice(&self, error: &str) -> Option<String> {
        let advice = if error.contains("Authentication is required") {
            "the nodes want a user: give --cassandra-user"
        } else if error.contains("uthentication") {
            "the nodes do not accept the user: check --cassandra-user and --cassandra-password-file (CASSANDRA_PASSWORD)"
        } else if error.contains("SSL routines") {
            "no TLS connection: check --cassandra-client-cert and --cassandra-client-key, and that the port has TLS"
        } else if self.cassandra_ca_cert.is_none() && error.contains("onnection broken") {
            "the node ended the connection: if its port has TLS, give --cassandra-ca-cert"
        } else {
            return None;
        };
        Some(advice.to_owned())
    }

    /// What connections are encrypted with, where they are to be.
    ///
    /// # Errors
    /// When an option is missing, or a file can't be used.
    pub(crate) fn tls(&self, rejection: &Rejection) -> Result<Option<SslConnectorBuilder>, SecurityError> {
        let missing = |option, needed| Err(SecurityError::Missing { option, needed });
        let client = match (&self.cassandra_client_cert, &self.cassandra_client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => return missing("--cassandra-client-cert", "--cassandra-client-key"),
            (None, Some(_)) => return missing("--cassandra-client-key", "--cassandra-client-cert"),
        };
        let Some(authorities) = &self.cassandra_ca_cert else {
            return if client.is_some() {
                missing("--cassandra-client-cert", "--cassandra-ca-cert")
            } else if self.cassandra_tls_verify == TlsVerify::Chain {
                missing("--cassandra-tls-verify chain", "--cassandra-ca-cert")
            } else {
                Ok(None)
            };
        };
        let unreadable = |option, path: &Path| {
            let path = path.to_owned();
            move |source| SecurityError::Certificate { option, path, source }
        };
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        // The builder trusts the system's authorities too.
        connector.set_cert_store(X509StoreBuilder::new()?.build());
        connector.set_ca_file(authorities).map_err(unreadable("--cassandra-ca-cert", authorities))?;
        if let Some((certificate, key)) = client {
            let option = "--cassandra-client-cert";
            connector.set_certificate_chain_file(certificate).map_err(unreadable(option, certificate))?;
            let option = "--cassandra-client-key";
            connector.set_private_key_file(key, SslFiletype::PEM).map_err(unreadable(option, key))?;
            connector.check_private_key().map_err(unreadable(option, key))?;
        }
        let (verify, rejection) = (self.cassandra_tls_verify, rejection.clone());
        connector.set_verify_callback(SslVerifyMode::PEER, move |is_valid, context| {
            let is_accepted = is_valid || (verify == TlsVerify::Chain && is_about_address(context.error()));
            if !is_accepted {
                rejection.note(context.error());
            }
            is_accepted
        });
        Ok(Some(connector))
    }
}

/// Whether all that is wrong is the address: the chain has been verified by then.
fn is_about_address(result: X509VerifyResult) -> bool {
    /// `X509_V_ERR_IP_ADDRESS_MISMATCH` of openssl/x509_vfy.h.
    const ADDRESS_MISMATCH: i32 = 64;
    result.as_raw() == ADDRESS_MISMATCH
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn given(user: Option<&str>, password: Option<&str>) -> CassandraSecurityArgs {
        CassandraSecurityArgs {
            cassandra_user: user.map(str::to_owned),
            cassandra_password: password.map(|password| password.to_owned().into()),
            ..CassandraSecurityArgs::default()
        }
    }

    #[test]
    fn user_and_password_need_each_other() {
        assert!(given(None, None).credentials().unwrap().is_none());
        let args = given(Some("cart"), Some("hunter2"));
        assert_eq!(args.credentials().unwrap().unwrap().1.expose(), "hunter2");
        assert!(!format!("{args:?}").contains("hunter2"), "{args:?}");
        let error = given(Some("cart"), None).credentials().unwrap_err().to_string();
        assert_eq!(error, "--cassandra-user needs --cassandra-password-file, or CASSANDRA_PASSWORD in the environment");
        let error = given(None, Some("hunter2")).credentials().unwrap_err().to_string();
        assert_eq!(error, "CASSANDRA_PASSWORD needs --cassandra-user");
    }

    #[test]
    fn tls_begins_with_an_authority() {
        let path = |text: &str| Some(PathBuf::from(text));
        let none = CassandraSecurityArgs::default();
        assert!(none.tls(&Rejection::default()).unwrap().is_none());
        for (args, error) in [
            (
                CassandraSecurityArgs { cassandra_client_cert: path("a"), ..none.clone() },
                "--cassandra-client-cert needs --cassandra-client-key",
            ),
            (
                CassandraSecurityArgs {
                    cassandra_client_cert: path("a"),
                    cassandra_client_key: path("b"),
                    ..none.clone()
                },
                "--cassandra-client-cert needs --cassandra-ca-cert",
            ),
            (
                CassandraSecurityArgs { cassandra_tls_verify: TlsVerify::Chain, ..none.clone() },
                "--cassandra-tls-verify chain needs --cassandra-ca-cert",
            ),
            (
                CassandraSecurityArgs { cassandra_ca_cert: path("/nowhere/ca.pem"), ..none.clone() },
                "reading /nowhere/ca.pem (--cassandra-ca-cert) failed",
            ),
        ] {
            let found = args.tls(&Rejection::default()).map(drop).unwrap_err().to_string();
            assert_eq!(found, error);
        }
    }
}
