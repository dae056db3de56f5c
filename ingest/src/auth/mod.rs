//! Authorization: decided in one place, from the path and a bearer token, before a route gets the request.
//!
//! | path | access |
//! |---|---|
//! | `/`, `/health/...`, `/openapi.json`, `/docs...` | public |
//! | `/cart/{cartId}...` | a token whose `sub` is the cart id, or with the scope `carts` |
//! | `/vendors/{vendorId}...` | a token whose `sub` is the vendor id, or with the scope `vendors` |
//! | any other | denied: a route without a rule cannot be reached |

mod keys;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use jsonwebtoken::Validation;
use serde::Deserialize;
use service::{Shutdown, Startup, wait_for};
use tokio::time::Instant;
use uuid::Uuid;
use warp::http::{HeaderMap, header};

use crate::problem::Problem;
use keys::{JwksSource, Keys};

/// Maximum difference between the clocks of this service and the issuer.
const LEEWAY_S: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// No authentication: every client may use the whole API
    None,
    /// A JSON Web Token (RFC 7519) as bearer token: RS256, ES256 or EdDSA
    Jwt,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuthArgs {
    /// How clients authenticate
    #[arg(long, env, help_heading = "Authentication and access", value_enum, default_value = "none")]
    auth: Mode,

    /// Public keys of the token issuer (a JWK set, RFC 7517): a file or an https URL
    #[arg(long, env, help_heading = "Authentication and access", required_if_eq("auth", "jwt"))]
    jwks: Option<JwksSource>,

    /// Required audience of tokens (`aud`)
    #[arg(long, env, help_heading = "Authentication and access", required_if_eq("auth", "jwt"))]
    jwt_audience: Option<String>,

    /// Required issuer of tokens (`iss`)
    #[arg(long, env, help_heading = "Authentication and access", required_if_eq("auth", "jwt"))]
    jwt_issuer: Option<String>,

    /// Interval at which the keys are reloaded; they are also reloaded when a token names an unknown key
    #[arg(help_heading = "Authentication and access")]
    #[arg(long, env, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    jwks_refresh_s: u64,

    /// Allow --auth none on an address other than loopback. Use it only if something in front of this service controls access
    #[arg(long, env, help_heading = "Authentication and access")]
    allow_anonymous: bool,
}

/// Decides which requests are authorized; `None` authorizes all. Clones share the keys.
#[derive(Debug, Clone)]
pub(crate) struct Auth(Option<Arc<Verifier>>);

#[derive(Debug)]
struct Verifier {
    audience: String,
    issuer: String,
    keys: Arc<Keys>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    scope: Scope,
    /// When the token expires, in seconds since 1970, perhaps with a fraction.
    exp: Option<f64>,
}

impl Claims {
    /// From then on the token is rejected. `None`: at no time that this program can represent.
    fn expires_at(&self) -> Option<Instant> {
        let exp = Duration::try_from_secs_f64(self.exp?).ok()?;
        let accepted_until = UNIX_EPOCH.checked_add(exp)?.checked_add(Duration::from_secs(LEEWAY_S))?;
        let rest = accepted_until.duration_since(SystemTime::now()).unwrap_or_default();
        Instant::now().checked_add(rest)
    }
}

/// Separated by spaces (RFC 8693), or a list, as some issuers write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scope {
    Text(String),
    List(Vec<String>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Scope {
    fn has(&self, scope: &str) -> bool {
        match self {
            Self::Text(text) => text.split(' ').any(|one| one == scope),
            Self::List(all) => all.iter().any(|one| one == scope),
        }
    }
}

/// The access that a path requires.
#[derive(Debug, PartialEq, Eq)]
enum Access<'a> {
    Public,
    /// Access to one resource: its owner, or a token with the scope.
    Resource {
        scope: &'static str,
        id: &'a str,
    },
    Denied,
}

fn access(path: &str) -> Access<'_> {
    if path == "/" {
        return Access::Public;
    }
    let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
    match (parts.next(), parts.next()) {
        (Some("health" | "docs"), _) | (Some("openapi.json"), None) => Access::Public,
        (Some("cart"), Some(id)) => Access::Resource { scope: "carts", id },
        (Some("vendors"), Some(id)) => Access::Resource { scope: "vendors", id },
        _ => Access::Denied,
    }
}

/// Whether a path is public: health and documentation.
pub(crate) fn is_public(path: &str) -> bool {
    access(path) == Access::Public
}

impl Auth {
    /// Reads the keys, and reloads them regularly.
    pub(crate) async fn start(
        args: &AuthArgs,
        listen: SocketAddr,
        startup: &Startup,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        if args.auth == Mode::None {
            ensure!(
                listen.ip().is_loopback() || args.allow_anonymous,
                "--auth none is rejected on {listen}, which is not a loopback address: set --auth jwt, or --listen \
                 to a loopback address, or --allow-anonymous if something in front of this service controls access"
            );
            return Ok(Self(None));
        }
        let setting = |value: &Option<String>, name| value.clone().with_context(|| format!("--auth jwt needs {name}"));
        let (audience, issuer) =
            (setting(&args.jwt_audience, "--jwt-audience")?, setting(&args.jwt_issuer, "--jwt-issuer")?);
        let source = args.jwks.as_ref().context("--auth jwt needs --jwks")?;
        let keys = Arc::new(Keys::new(source)?);
        match source {
            // Waiting does not repair a file.
            JwksSource::File(_) => keys.read().await?,
            JwksSource::Url(_) => wait_for("the issuer's keys (--jwks)", startup, async || keys.read().await).await?,
        }
        tokio::spawn(keys.clone().refresh_loop(Duration::from_secs(args.jwks_refresh_s), shutdown));
        Ok(Self(Some(Arc::new(Verifier { audience, issuer, keys }))))
    }

    /// Rejects a request without access. The result does not depend on whether the resource exists: nothing is looked up.
    /// Returns when the access ends, which only a long-lived response outlasts.
    pub(crate) async fn check(&self, path: &str, headers: &HeaderMap) -> Result<Option<Instant>, Problem> {
        let Some(verifier) = &self.0 else { return Ok(None) };
        let (scope, id) = match access(path) {
            Access::Public => return Ok(None),
            Access::Denied => return Err(Problem::not_found()),
            Access::Resource { scope, id } => (scope, id),
        };
        let claims = verifier.verify(token(headers)?).await?;
        let is_own = Uuid::parse_str(id).is_ok_and(|id| Uuid::parse_str(&claims.sub) == Ok(id));
        if is_own || claims.scope.has(scope) {
            return Ok(claims.expires_at());
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
        // The reason is not in the response: it would only help forgers of tokens.
        let invalid = || Problem::unauthenticated("the token is invalid or has expired: get a new one", true);
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let key = self.keys.find(header.kid.as_deref(), header.alg).await.ok_or_else(invalid)?;
        // The algorithm of the key, never the one that the token names.
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let data = jsonwebtoken::decode::<Claims>(token, &key.key, &validation).map_err(|error| {
            tracing::debug!(%error, "a token was rejected");
            invalid()
        })?;
        Ok(data.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_a_rule_is_denied() {
        for path in ["", "//", "/carts", "/cart", "/metrics", "/docsx", "/vendors", "//cart/7", "cart/7", "*", "/admin"]
        {
            assert_eq!(access(path), Access::Denied, "{path}");
        }
        assert_eq!(access("/cart/7/checkout"), Access::Resource { scope: "carts", id: "7" });
        assert_eq!(access("/vendors/7/billing"), Access::Resource { scope: "vendors", id: "7" });
        for path in ["/", "/health/live", "/docs", "/docs/page.js"] {
            assert_eq!(access(path), Access::Public, "{path}");
        }
    }

    #[test]
    fn scopes_are_words_of_a_text_or_items_of_a_list() {
        let scope = |json: &str| serde_json::from_str::<Claims>(json).map(|claims| claims.scope.has("carts"));
        for (json, has) in [
            (r#"{"sub":"a","scope":"vendors carts"}"#, true),
            (r#"{"sub":"a","scope":["vendors","carts"]}"#, true),
            (r#"{"sub":"a","scope":"cartscarts xcarts"}"#, false),
            (r#"{"sub":"a","scope":["vendors carts"]}"#, false),
            (r#"{"sub":"a"}"#, false),
        ] {
            assert!(scope(json).is_ok_and(|found| found == has), "{json}");
        }
        assert!(scope(r#"{"sub":"a","scope":5}"#).is_err());
    }
}
