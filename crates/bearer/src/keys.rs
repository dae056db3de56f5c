//! The issuer's public keys: where they are, which of them are used, and how they are reloaded.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use service::{Counter, Shutdown};
use tokio::sync::Notify;

/// Time between two reloads. A key that the issuer withdraws is accepted for this long at most; a new key is not waited for,
/// since a token that names it causes a reload.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time between two reloads: a token with an unknown key causes a reload.
const RELOAD_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// Maximum wait of a request with such a token for the reload.
const RELOAD_WAIT: Duration = Duration::from_secs(2);

/// Maximum time for the response of the issuer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of a key set in bytes, far above a usual one.
const SET_LEN_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JwksSource {
    File(PathBuf),
    Url(Uri),
}

/// Why a text is not a [`JwksSource`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidJwksSource {
    #[error("it is not a URL")]
    Url,
    #[error("keys loaded without TLS cannot be trusted: use https://, or an address of this host")]
    Unsafe,
}

impl FromStr for JwksSource {
    type Err = InvalidJwksSource;

    fn from_str(text: &str) -> Result<Self, InvalidJwksSource> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let uri: Uri = text.parse().map_err(|_| InvalidJwksSource::Url)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(InvalidJwksSource::Url)?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        match uri.scheme_str() {
            Some("https") => Ok(Self::Url(uri)),
            Some("http") if host == "localhost" || address.is_ok_and(|ip| ip.is_loopback()) => Ok(Self::Url(uri)),
            Some("http") => Err(InvalidJwksSource::Unsafe),
            Some(_) | None => Err(InvalidJwksSource::Url),
        }
    }
}

impl std::fmt::Display for JwksSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(uri) => uri.fmt(f),
        }
    }
}

/// A key, and its only algorithm.
#[derive(Clone)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

enum Reader {
    File(PathBuf),
    Url(Uri, Box<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>>),
}

impl Reader {
    fn new(source: &JwksSource) -> anyhow::Result<Self> {
        let uri = match source {
            JwksSource::File(path) => return Ok(Self::File(path.clone())),
            JwksSource::Url(uri) => uri.clone(),
        };
        let builder = HttpsConnectorBuilder::new();
        let builder = if uri.scheme_str() == Some("https") {
            // The environment variables SSL_CERT_FILE and SSL_CERT_DIR replace them.
            let roots = builder.with_provider_and_native_roots(ring::default_provider());
            roots.context("reading the system's root certificates")?
        } else {
            let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let config = config.with_safe_default_protocol_versions().context("setting up TLS")?;
            builder.with_tls_config(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        };
        let connector = builder.https_or_http().enable_http1().build();
        Ok(Self::Url(uri, Box::new(Client::builder(TokioExecutor::new()).build(connector))))
    }

    async fn text(&self) -> anyhow::Result<Bytes> {
        let (uri, client) = match self {
            Self::File(path) => return Ok(tokio::task::block_in_place(|| std::fs::read(path))?.into()),
            Self::Url(uri, client) => (uri, client),
        };
        let fetch = async {
            let response = client.get(uri.clone()).await?;
            ensure!(response.status() == StatusCode::OK, "the response has status {}", response.status());
            let body = Limited::new(response.into_body(), SET_LEN_MAX).collect().await;
            Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
        };
        tokio::time::timeout(FETCH_TIMEOUT, fetch).await.context("the request timed out")?
    }
}

/// The keys of the last successful reload.
pub(super) struct Keys {
    source: JwksSource,
    reader: Reader,
    current: RwLock<Vec<Key>>,
    /// Requests a reload.
    unknown: Notify,
    /// A reload has ended.
    reloaded: Notify,
    /// The reloads that failed.
    failures: Counter,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Keys {
    /// Without keys until the first [`Keys::read`].
    pub(super) fn new(source: &JwksSource, failures: Counter) -> anyhow::Result<Self> {
        let reader = Reader::new(source)?;
        let (unknown, reloaded) = (Notify::new(), Notify::new());
        Ok(Self { source: source.clone(), reader, current: RwLock::default(), unknown, reloaded, failures })
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.source, JwksSource::File(_))
    }

    /// Whether no key has been read yet.
    pub(super) fn is_empty(&self) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Reads the keys. An error changes nothing.
    pub(super) async fn read(&self) -> anyhow::Result<()> {
        let text = self.reader.text().await.with_context(|| format!("reading the keys at {}", self.source))?;
        let keys = parse(&text).with_context(|| format!("parsing the keys at {}", self.source))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The key of a token. An unknown key causes a reload.
    pub(super) async fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Key> {
        if let Some(key) = self.known(id, algorithm) {
            return Some(key);
        }
        // Registered before the request, so that the end of the reload is not missed.
        let reloaded = self.reloaded.notified();
        self.unknown.notify_one();
        // An error means that the reload took too long: then the key stays unknown.
        drop(tokio::time::timeout(RELOAD_WAIT, reloaded).await);
        self.known(id, algorithm)
    }

    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Key> {
        let keys = self.current.read().unwrap_or_else(PoisonError::into_inner);
        // A token may omit the key's id if only one key has its algorithm.
        let mut matching =
            keys.iter().filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        match (matching.next(), matching.next()) {
            (Some(key), None) => Some(key.clone()),
            _ => None,
        }
    }

    /// Reloads the keys at each interval, and when a token has an unknown key; at once if none is known yet.
    pub(super) async fn refresh_loop(self: Arc<Self>, mut shutdown: Shutdown) {
        if self.is_empty() {
            self.reload().await;
        }
        let mut reloaded_at = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(RELOAD_INTERVAL.saturating_sub(reloaded_at.elapsed())) => {}
                () = self.unknown.notified() => {
                    if reloaded_at.elapsed() < RELOAD_INTERVAL_MIN {
                        self.reloaded.notify_waiters();
                        continue;
                    }
                }
            }
            reloaded_at = Instant::now();
            self.reload().await;
        }
    }

    async fn reload(&self) {
        if let Err(error) = self.read().await {
            self.failures.with(&[]).increment(1);
            let error = format!("{error:#}");
            if self.is_empty() {
                tracing::warn!(error, "the issuer's keys are not known yet; every token is rejected");
            } else {
                tracing::warn!(error, "the keys were not reloaded; the previous keys stay in use");
            }
        }
        self.reloaded.notify_waiters();
    }
}

/// A JWK set (RFC 7517). Keys that cannot be read are ignored; the others are used.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// The usable keys; at least one is required.
fn parse(text: &[u8]) -> anyhow::Result<Vec<Key>> {
    let set: Set = serde_json::from_slice(text).context("it is not a JWK set (RFC 7517)")?;
    let all = set.keys.len();
    let keys: Vec<_> = set.keys.into_iter().filter_map(usable).collect();
    ensure!(!keys.is_empty(), "it has {all} keys, but no key for RS256, ES256 or EdDSA");
    if keys.len() < all {
        tracing::debug!(all, usable = keys.len(), "some keys were ignored: they are for other uses or algorithms");
    }
    Ok(keys)
}

fn usable(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // Symmetric keys above all: a service that verifies with one could also sign with it.
        AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKeyPair(_)
        | AlgorithmParameters::OctetKey(_)
        | AlgorithmParameters::Other(_)
        | _ => return None,
    };
    let is_for_this = jwk.common.key_algorithm.is_none_or(|named| named == name);
    let is_to_sign = jwk.common.public_key_use.as_ref().is_none_or(|use_| *use_ == PublicKeyUse::Signature);
    if !is_for_this || !is_to_sign {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithm, key })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jwks_url_requires_https() {
        let source = |text: &str| text.parse::<JwksSource>();
        assert_eq!(source("keys/jwks.json"), Ok(JwksSource::File(PathBuf::from("keys/jwks.json"))));
        for safe in
            ["https://issuer.example/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost/"]
        {
            assert!(matches!(source(safe), Ok(JwksSource::Url(_))), "{safe}");
        }
        assert_eq!(source("http://issuer.example/jwks"), Err(InvalidJwksSource::Unsafe));
        for bad in ["ftp://issuer.example/", "https://", "http://a b/"] {
            assert_eq!(source(bad), Err(InvalidJwksSource::Url), "{bad}");
        }
    }

    #[test]
    fn only_keys_for_verifying_signatures_are_used() {
        let good =
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"});
        let with = |name: &str, value: &str| {
            let mut key = good.clone();
            key[name] = value.into();
            key
        };
        let count =
            |keys: &[serde_json::Value]| parse(json!({"keys": keys}).to_string().as_bytes()).map(|keys| keys.len());
        assert_eq!(count(&[good.clone(), with("alg", "EdDSA"), with("use", "sig")]).unwrap(), 3);
        let others = [
            with("use", "enc"),
            with("alg", "ES256"),
            with("crv", "X25519"),
            with("kty", "AKP"),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!(5),
        ];
        assert_eq!(count(&[&others[..], std::slice::from_ref(&good)].concat()).unwrap(), 1);
        assert!(count(&others).unwrap_err().to_string().contains("it has 6 keys, but no key"));
        assert!(parse(b"{").is_err());
    }
}
