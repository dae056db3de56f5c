//! Who may do what: decided in one place, from the path and a bearer token, before a route sees the request.
//!
//! | path | who |
//! |---|---|
//! | `/health/...`, `/metrics`, `/openapi.json`, `/docs` | everybody |
//! | `/cart/{cartId}...` | whose `sub` is the cart id, or who has the scope `carts` |
//! | `/vendors/{vendorId}...` | whose `sub` is the vendor id, or who has the scope `vendors` |
//! | any other | nobody: a route without a rule can't be reached |

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use service::Shutdown;
use tokio::sync::Notify;
use uuid::Uuid;
use warp::http::{HeaderMap, header};

use crate::problem::Problem;

/// How far our clock and the issuer's may be apart.
const LEEWAY_S: u64 = 30;

/// A token that names a key that we don't know makes us look for new keys, at most this often.
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(5);

/// How long a request with such a token waits for them.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// How clients say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// They don't: everybody may do everything
    None,
    /// By a JSON Web Token (RFC 7519) as bearer token: RS256, ES256 or EdDSA
    Jwt,
}

/// Who may do what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuthArgs {
    /// How clients say who they are
    #[arg(long, env, value_enum, default_value = "none")]
    auth: Mode,

    /// The file with the issuer's public keys (a JWK set, RFC 7517); read again when it changes
    #[arg(long, env, required_if_eq("auth", "jwt"))]
    jwks: Option<PathBuf>,

    /// Tokens must be meant for this audience (`aud`)
    #[arg(long, env, required_if_eq("auth", "jwt"))]
    jwt_audience: Option<String>,

    /// Tokens must be from this issuer (`iss`)
    #[arg(long, env, required_if_eq("auth", "jwt"))]
    jwt_issuer: Option<String>,

    /// How often to see whether the keys have changed
    #[arg(long, env, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    jwks_refresh_s: u64,

    /// Serve everybody also on an address that others can reach: something in front of this service says who may
    #[arg(long, env)]
    allow_anonymous: bool,
}

/// The one who decides. Clones share the keys.
#[derive(Debug, Clone)]
pub(crate) struct Auth(Option<Arc<Verifier>>);

struct Verifier {
    file: PathBuf,
    audience: String,
    issuer: String,
    keys: RwLock<Vec<Key>>,
    unknown_key: Notify,
    looked: Notify,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("file", &self.file).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    /// Separated by spaces (RFC 8693).
    #[serde(default)]
    scope: String,
}

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
enum About<'a> {
    Everybody,
    Of { scope: &'static str, id: &'a str },
    Nobody,
}

fn about(path: &str) -> About<'_> {
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next()) {
        (Some("health"), _) | (Some("metrics" | "openapi.json" | "docs"), None) => About::Everybody,
        (Some("cart"), Some(id)) => About::Of { scope: "carts", id },
        (Some("vendors"), Some(id)) => About::Of { scope: "vendors", id },
        _ => About::Nobody,
    }
}

impl Auth {
    /// Reads the keys, and keeps on looking for new ones.
    pub(crate) fn start(args: &AuthArgs, listen: SocketAddr, shutdown: Shutdown) -> anyhow::Result<Self> {
        if args.auth == Mode::None {
            ensure!(
                listen.ip().is_loopback() || args.allow_anonymous,
                "refusing to serve everybody on {listen}, which others can reach: set --auth jwt, or --listen to a loopback \
                 address, or --allow-anonymous if something in front of this service says who may"
            );
            return Ok(Self(None));
        }
        let setting = |value: &Option<String>, name| value.clone().with_context(|| format!("--auth jwt needs {name}"));
        let file = args.jwks.clone().context("--auth jwt needs --jwks")?;
        let keys = read(&file)?;
        let verifier = Arc::new(Verifier {
            audience: setting(&args.jwt_audience, "--jwt-audience")?,
            issuer: setting(&args.jwt_issuer, "--jwt-issuer")?,
            file,
            keys: RwLock::new(keys),
            unknown_key: Notify::new(),
            looked: Notify::new(),
        });
        tokio::spawn(look(verifier.clone(), Duration::from_secs(args.jwks_refresh_s), shutdown));
        Ok(Self(Some(verifier)))
    }

    /// Whether a request may go on. The same answer whether what it is about exists or not: nothing is looked up.
    pub(crate) async fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(verifier) = &self.0 else { return Ok(()) };
        let (scope, id) = match about(path) {
            About::Everybody => return Ok(()),
            About::Nobody => return Err(Problem::not_found()),
            About::Of { scope, id } => (scope, id),
        };
        let claims = verifier.verify(token(headers)?).await?;
        let is_own = Uuid::parse_str(id).is_ok_and(|id| Uuid::parse_str(&claims.sub) == Ok(id));
        if is_own || claims.scope.split(' ').any(|one| one == scope) {
            return Ok(());
        }
        Err(Problem::forbidden(scope))
    }
}

fn token(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::unauthenticated("send one header Authorization: Bearer <token>", false));
    };
    let (scheme, token) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        return Ok(token.trim());
    }
    Err(Problem::unauthenticated("Authorization must be Bearer <token>", false))
}

impl Verifier {
    async fn verify(&self, token: &str) -> Result<Claims, Problem> {
        // What is wrong is not told in detail: that helps nobody who has a token.
        let invalid = || Problem::unauthenticated("the token is not valid: get a new one", true);
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let key = match self.key(header.kid.as_deref(), header.alg) {
            Some(key) => key,
            None => {
                // Registered before the wish is told, so that the answer is not missed.
                let looked = self.looked.notified();
                self.unknown_key.notify_one();
                // An error means that it took too long: then the key is not there.
                drop(tokio::time::timeout(LOOK_PATIENCE, looked).await);
                self.key(header.kid.as_deref(), header.alg).ok_or_else(invalid)?
            }
        };
        // The key's algorithm, never the token's word for it.
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let data = jsonwebtoken::decode::<Claims>(token, &key.key, &validation).map_err(|error| {
            tracing::debug!(%error, "a token is refused");
            invalid()
        })?;
        Ok(data.claims)
    }

    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Key> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // A token may leave the key's id out when there is only one that it can mean.
        let mut fitting =
            keys.iter().filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Some(key.clone()),
            _ => None,
        }
    }
}

/// Reads the keys again and again; what can't be read changes nothing.
async fn look(verifier: Arc<Verifier>, interval: Duration, mut shutdown: Shutdown) {
    let mut looked_at = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(interval) => {}
            () = verifier.unknown_key.notified() => {
                if looked_at.elapsed() < LOOK_INTERVAL_MIN {
                    verifier.looked.notify_waiters();
                    continue;
                }
            }
        }
        looked_at = Instant::now();
        match read(&verifier.file) {
            Ok(keys) => *verifier.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
            Err(error) => {
                metrics::counter!("ingest_jwks_failures_total").increment(1);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the keys can't be read again: going on with the old ones"
                );
            }
        }
        verifier.looked.notify_waiters();
    }
}

/// The keys of a file that we can use; it must have one.
fn read(file: &PathBuf) -> anyhow::Result<Vec<Key>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading the keys in {}", file.display()))?;
    let set: JwkSet =
        serde_json::from_str(&text).with_context(|| format!("{} is no JWK set (RFC 7517)", file.display()))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(parameters) if parameters.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
            // Symmetric keys above all: whoever can check with them can sign.
            AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKey(_)
            | AlgorithmParameters::Other(_)
            | _ => continue,
        };
        let key = DecodingKey::from_jwk(jwk).with_context(|| format!("reading a key in {}", file.display()))?;
        keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key });
    }
    ensure!(!keys.is_empty(), "{} has no key for RS256, ES256 or EdDSA", file.display());
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_rule_is_for_nobody() {
        for path in ["/", "/carts", "/cart", "/metrics/x", "/docs/x", "/vendors", "//cart/7", "/admin"] {
            let is_nobody = about(path) == About::Nobody || path == "//cart/7";
            assert!(is_nobody, "{path}");
        }
        assert_eq!(about("/cart/7/checkout"), About::Of { scope: "carts", id: "7" });
        assert_eq!(about("/vendors/7/billing"), About::Of { scope: "vendors", id: "7" });
        assert_eq!(about("/health/live"), About::Everybody);
    }
}
