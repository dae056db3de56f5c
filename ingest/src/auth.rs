//! Authorization: decided in one place, from the path and a bearer token, before a route gets the request.
//!
//! | path | access |
//! |---|---|
//! | `/`, `/health/...`, `/openapi.json`, `/docs...` | public |
//! | `/cart/{cartId}...` | a token whose `sub` is the cart id, or with the scope `carts` |
//! | `/vendors/{vendorId}...` | a token whose `sub` is the vendor id, or with the scope `vendors` |
//! | any other | denied: a route without a rule cannot be reached |

use std::net::SocketAddr;

use anyhow::ensure;
use bearer::{BearerArgs, Verifier};
use service::{Shutdown, Startup, wait_for};
use tokio::time::Instant;
use uuid::Uuid;
use warp::http::HeaderMap;

use crate::metrics::JWKS_FAILURES;
use crate::problem::Problem;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuthArgs {
    #[command(flatten)]
    bearer: BearerArgs,

    /// Allow --auth none on an address other than loopback. Use it only if something in front of this service controls access
    #[arg(long, env, help_heading = "Authentication and access")]
    allow_anonymous: bool,
}

/// Decides which requests are authorized; `None` authorizes all. Clones share the keys.
#[derive(Debug, Clone)]
pub(crate) struct Auth(Option<Verifier>);

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
        let Some(verifier) = Verifier::new(&args.bearer, JWKS_FAILURES)? else {
            ensure!(
                listen.ip().is_loopback() || args.allow_anonymous,
                "--auth none is rejected on {listen}, which is not a loopback address: set --auth jwt, or --listen \
                 to a loopback address, or --allow-anonymous if something in front of this service controls access"
            );
            return Ok(Self(None));
        };
        if verifier.has_file() {
            // Waiting does not repair a file.
            verifier.read_keys().await?;
        } else {
            wait_for("the issuer's keys (--jwks)", startup, async || verifier.read_keys().await).await?;
        }
        verifier.reload(shutdown);
        Ok(Self(Some(verifier)))
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
        let claims = verifier.verify(headers).await.map_err(Problem::unauthenticated)?;
        let is_own = Uuid::parse_str(id).is_ok_and(|id| Uuid::parse_str(claims.subject()) == Ok(id));
        if is_own || claims.has_scope(scope) {
            return Ok(claims.expires_at());
        }
        Err(Problem::forbidden(scope))
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
}
