//! Bearer tokens: JSON Web Tokens (RFC 7519), verified with the public keys of their issuer. What a token permits is decided by the service.

mod keys;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use hyper::header::{AUTHORIZATION, HeaderMap};
use jsonwebtoken::Validation;
use serde::Deserialize;
use service::{Counter, Shutdown};
use tokio::time::Instant;

use keys::{JwksSource, Keys};

/// Maximum difference between the clocks of this service and the issuer.
const LEEWAY_S: u64 = 30;

/// How clients authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// No authentication: every client may do everything
    None,
    /// A JSON Web Token (RFC 7519) as bearer token: RS256, ES256 or EdDSA
    Jwt,
}

/// The options of a service that authenticates its clients.
#[derive(Debug, Clone, clap::Args)]
pub struct BearerArgs {
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
}

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("send one header Authorization: Bearer <token>")]
    Missing,
    #[error("Authorization must be Bearer <token>")]
    Malformed,
    // The reason is not said: it would only help forgers of tokens.
    #[error("the token is invalid or has expired: get a new one")]
    Invalid,
}

impl Rejected {
    /// The response's `WWW-Authenticate` (RFC 6750).
    #[must_use]
    pub const fn challenge(self) -> &'static str {
        match self {
            Self::Missing | Self::Malformed => "Bearer realm=\"cart\"",
            Self::Invalid => "Bearer realm=\"cart\", error=\"invalid_token\"",
        }
    }
}

/// The `WWW-Authenticate` of a response to a token without a scope (RFC 6750).
#[must_use]
pub fn scope_challenge(scope: &str) -> String {
    format!("Bearer realm=\"cart\", error=\"insufficient_scope\", scope=\"{scope}\"")
}

/// What a token says, once it is verified.
#[derive(Debug, Deserialize)]
pub struct Claims {
    sub: String,
    #[serde(default)]
    scope: Scope,
    /// When the token expires, in seconds since 1970, perhaps with a fraction.
    exp: Option<f64>,
}

impl Claims {
    /// Whose token it is.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.sub
    }

    /// Whether it has this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope.has(scope)
    }

    /// When the token expires; `None` if not representable.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
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

/// Verifies tokens. Clones share the keys.
#[derive(Debug, Clone)]
pub struct Verifier {
    audience: String,
    issuer: String,
    keys: Arc<Keys>,
}

impl Verifier {
    /// Without keys until [`Verifier::read_keys`] or [`Verifier::reload`] has read them; `None` without authentication. `failures`
    /// counts the reloads that fail.
    ///
    /// # Errors
    /// A setting is missing, or TLS cannot be set up.
    pub fn new(args: &BearerArgs, failures: Counter) -> anyhow::Result<Option<Self>> {
        if args.auth == Mode::None {
            return Ok(None);
        }
        let setting = |value: &Option<String>, name| value.clone().with_context(|| format!("--auth jwt needs {name}"));
        let (audience, issuer) =
            (setting(&args.jwt_audience, "--jwt-audience")?, setting(&args.jwt_issuer, "--jwt-issuer")?);
        let source = args.jwks.as_ref().context("--auth jwt needs --jwks")?;
        Ok(Some(Self { audience, issuer, keys: Arc::new(Keys::new(source, failures)?) }))
    }

    /// Whether the keys are in a file: one that cannot be read does not become readable by waiting.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.keys.is_file()
    }

    /// Whether keys have been read. Without them every token is rejected.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Reads the keys now. After an error the previous ones stay in use.
    ///
    /// # Errors
    /// They cannot be read, or none is usable.
    pub async fn read_keys(&self) -> anyhow::Result<()> {
        self.keys.read().await
    }

    /// Reloads the keys regularly, and when a token names an unknown one, until the shutdown. If there are none, reads them at once.
    pub fn reload(&self, shutdown: Shutdown) {
        tokio::spawn(self.keys.clone().refresh_loop(shutdown));
    }

    /// Verifies the token of a request.
    ///
    /// # Errors
    /// It has none, or one that is not valid.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Claims, Rejected> {
        let token = token(headers)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| Rejected::Invalid)?;
        let key = self.keys.find(header.kid.as_deref(), header.alg).await.ok_or(Rejected::Invalid)?;
        // The algorithm of the key, never the one that the token names.
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        let data = jsonwebtoken::decode::<Claims>(token, &key.key, &validation).map_err(|error| {
            tracing::debug!(%error, "a token was rejected");
            Rejected::Invalid
        })?;
        Ok(data.claims)
    }
}

fn token(headers: &HeaderMap) -> Result<&str, Rejected> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Rejected::Missing) };
    let (scheme, token) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        return Ok(token.trim());
    }
    Err(Rejected::Malformed)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn scopes_are_words_of_a_text_or_items_of_a_list() {
        let scope = |json: &str| serde_json::from_str::<Claims>(json).map(|claims| claims.has_scope("carts"));
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

    #[test]
    fn a_request_has_one_bearer_token() {
        let found = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for &value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            token(&headers).map(str::to_owned)
        };
        assert_eq!(found(&["bearer abc"]), Ok(String::from("abc")));
        assert_eq!(found(&[]), Err(Rejected::Missing));
        assert_eq!(found(&["Bearer a", "Bearer b"]), Err(Rejected::Missing));
        assert_eq!(found(&["Basic abc"]), Err(Rejected::Malformed));
        assert_eq!(found(&["Bearer "]), Err(Rejected::Malformed));
    }
}
