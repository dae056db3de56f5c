//! TLS: a certificate and its key from files, which are reloaded while the service runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use service::Shutdown;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_certificate;

use crate::metrics::{TLS_EXPIRY, TLS_FAILURES};

/// Interval at which the files of certificate and key are checked for changes.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TlsArgs {
    /// Certificate (PEM), followed by its intermediate certificates. With it, all connections use TLS
    #[arg(long, env, help_heading = "TLS", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate (PEM)
    #[arg(long, env, help_heading = "TLS", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// The server's side of handshakes. Clones share the certificate.
#[derive(Clone)]
pub(crate) struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificate and key, and reloads them when they change. `None` without TLS.
    pub(crate) fn start(args: &TlsArgs, shutdown: Shutdown) -> anyhow::Result<Option<Self>> {
        let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
        let files = Files { certificate: certificate.clone(), key: key.clone() };
        let content = files.content()?;
        let certified = files.parse(&content)?;
        export_expiry(&certified);
        let current = Arc::new(Current(RwLock::new(certified)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("setting up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tokio::spawn(refresh_loop(files, content, current, REFRESH_INTERVAL, shutdown));
        Ok(Some(Self(TlsAcceptor::from(Arc::new(config)))))
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

/// The certificate of new connections.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// The bytes of certificate and key.
type Content = (Vec<u8>, Vec<u8>);

impl Files {
    fn content(&self) -> anyhow::Result<Content> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
        Ok((read(&self.certificate)?, read(&self.key)?))
    }

    fn parse(&self, (certificate, key): &Content) -> anyhow::Result<Arc<CertifiedKey>> {
        let (in_certificate, in_key) = (self.certificate.display(), self.key.display());
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("{in_certificate} (--tls-cert) is not a PEM file"))?;
        anyhow::ensure!(!chain.is_empty(), "{in_certificate} (--tls-cert) has no certificate");
        let key = PrivateKeyDer::from_pem_slice(key).with_context(|| format!("{in_key} (--tls-key) has no key"))?;
        // Rejects a key of another certificate.
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .with_context(|| format!("{in_key} (--tls-key) does not belong to {in_certificate} (--tls-cert)"))?;
        Ok(Arc::new(certified))
    }
}

/// Exports when the certificate of new connections expires.
fn export_expiry(certified: &CertifiedKey) {
    let Some(certificate) = certified.cert.first() else { return };
    match parse_x509_certificate(certificate) {
        Ok((_, certificate)) => TLS_EXPIRY.with(&[]).set(certificate.validity().not_after.timestamp() as f64),
        Err(error) => tracing::warn!(%error, "when the certificate expires is unknown"),
    }
}

/// Reloads the files when they change. Invalid files change nothing; a repeated error is logged once.
async fn refresh_loop(
    files: Files,
    mut seen: Content,
    current: Arc<Current>,
    interval: Duration,
    mut shutdown: Shutdown,
) {
    let mut logged_error = String::new();
    loop {
        tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(interval) => {} }
        let read = files.content().and_then(|content| {
            let is_new = content != seen;
            let certified = if is_new { Some(files.parse(&content)?) } else { None };
            Ok((content, certified))
        });
        match read {
            Ok((_, None)) => logged_error.clear(),
            Ok((content, Some(certified))) => {
                export_expiry(&certified);
                *current.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
                seen = content;
                logged_error.clear();
                tracing::info!("the certificate was reloaded; new connections use it");
            }
            Err(error) => {
                // Only one of the two files may have been replaced so far: the next reload gets both.
                let error = format!("{error:#}");
                TLS_FAILURES.with(&[]).increment(1);
                if logged_error != error {
                    tracing::warn!(error, "the new certificate was not loaded; the previous certificate stays in use");
                    logged_error = error;
                }
            }
        }
    }
}
