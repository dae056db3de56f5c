//! Who may do what: decided in one place, from the path and a bearer token, before a route sees the request.
//!
//! | path | who |
//! |---|---|
//! | `/`, `/health/...`, `/metrics`, `/openapi.json`, `/docs` | everybody |
//! | `/cart/{cartId}...` | whose `sub` is the cart id, or who has the scope `carts` |
//! | `/vendors/{vendorId}...` | whose `sub` is the vendor id, or who has the scope `vendors` |
//! | any other | nobody: a route without a rule can't be reached |

mod keys;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jsonwebtoken::Validation;
use serde::Deserialize;
use service::{Shutdown, wait_for};
use uuid::Uuid;
use warp::http::{HeaderMap, header};

use crate::problem::Problem;
use keys::{Keys, Place};

/// How far our clock and the issuer's may be apart.
const LEEWAY_S: u64 = 30;

/// How clients say who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// No authentication: every client may use the whole API
    None,
    /// A JSON Web Token (RFC 7519) as bearer token: RS256, ES256 or EdDSA
    Jwt,
}

/// Who may do what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuthArgs {
    /// How clients authenticate
    #[arg(long, env, help_heading = "Authentication and access", value_enum, default_value = "none")]
    auth: Mode,

    /// Public keys of the token issuer (a JWK set, RFC 7517): a file or an https URL
    #[arg(long, env, help_heading = "Authentication and access", required_if_eq("auth", "jwt"))]
    jwks: Option<Place>,

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

/// The one who decides. Clones share the keys.
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
}

/// Separated by spaces (RFC 8693), or a list, as some issuers have it.
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

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
enum About<'a> {
    Everybody,
    Of { scope: &'static str, id: &'a str },
    Nobody,
}

fn about(path: &str) -> About<'_> {
    if path == "/" {
        return About::Everybody;
    }
    let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
    match (parts.next(), parts.next()) {
        (Some("health"), _) | (Some("metrics" | "openapi.json" | "docs"), None) => About::Everybody,
        (Some("cart"), Some(id)) => About::Of { scope: "carts", id },
        (Some("vendors"), Some(id)) => About::Of { scope: "vendors", id },
        _ => About::Nobody,
    }
}

/// Whether a path is for everybody: what tells how the service is, and what it can.
pub(crate) fn is_open(path: &str) -> bool {
    about(path) == About::Everybody
}

impl Auth {
    /// Reads the keys, and keeps on looking for new ones.
    pub(crate) async fn start(
        args: &AuthArgs,
        listen: SocketAddr,
        startup_timeout: Duration,
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
        let place = args.jwks.as_ref().context("--auth jwt needs --jwks")?;
        let keys = Arc::new(Keys::new(place)?);
        match place {
            // Nobody else will mend it.
            Place::File(_) => keys.read().await?,
            Place::Url(_) => {
                wait_for("the issuer's keys (--jwks)", startup_timeout, async || keys.read().await).await?
            }
        }
        tokio::spawn(keys.clone().look(Duration::from_secs(args.jwks_refresh_s), shutdown));
        Ok(Self(Some(Arc::new(Verifier { audience, issuer, keys }))))
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
        if is_own || claims.scope.has(scope) {
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
        let invalid = || Problem::unauthenticated("the token is invalid or has expired: get a new one", true);
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
        let key = self.keys.find(header.kid.as_deref(), header.alg).await.ok_or_else(invalid)?;
        // The key's algorithm, never the token's word for it.
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
    fn a_path_without_a_rule_is_for_nobody() {
        for path in
            ["", "//", "/carts", "/cart", "/metrics/x", "/docs/x", "/vendors", "//cart/7", "cart/7", "*", "/admin"]
        {
            assert_eq!(about(path), About::Nobody, "{path}");
        }
        assert_eq!(about("/cart/7/checkout"), About::Of { scope: "carts", id: "7" });
        assert_eq!(about("/vendors/7/billing"), About::Of { scope: "vendors", id: "7" });
        assert_eq!((about("/"), about("/health/live")), (About::Everybody, About::Everybody));
    }

    #[test]
    fn a_scope_is_a_word_of_a_text_or_of_a_list() {
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
