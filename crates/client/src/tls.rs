//! Makes connections, plain or with TLS.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{CertificateError, Error};
use crate::settings::ClientSettings;

/// Makes a connector. The system's root certificates are read only if they are needed.
pub(crate) fn connector(is_tls: bool, settings: &ClientSettings) -> Result<HttpsConnector<HttpConnector>, Error> {
    let mut http = HttpConnector::new();
    // Nagle's algorithm would only delay small requests.
    http.set_nodelay(true);
    http.set_connect_timeout(Some(settings.connect_timeout));
    http.enforce_http(false);
    let provider = ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = if let (true, None) = (is_tls, &settings.ca_cert) {
        builder.with_provider_and_native_roots(provider).map_err(|source| Error::Tls(source.into()))?
    } else {
        let roots = settings.ca_cert.as_deref().map(roots).transpose()?.unwrap_or_else(RootCertStore::empty);
        let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let config = config.map_err(|source| Error::Tls(source.into()))?;
        builder.with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}

fn roots(file: &Path) -> Result<RootCertStore, Error> {
    let bad = |source| Error::CaCert { file: file.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(error.into()))? {
        let certificate = certificate.map_err(|error| bad(error.into()))?;
        roots.add(certificate).map_err(|error| bad(error.into()))?;
    }
    if roots.is_empty() { Err(bad(CertificateError::None)) } else { Ok(roots) }
}
