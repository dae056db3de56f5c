//! `/health/live`, `/health/ready` and `/metrics`.

use std::net::SocketAddr;

use anyhow::Context as _;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter as _, Reply as _};

use crate::{Metrics, Readiness, Shutdown};

/// The address of health and metrics. Each service sets its own default, so that all of one host can be found.
#[derive(Debug, Clone, clap::Args)]
pub struct AdminArgs {
    /// Address of health and metrics; with port 0 the system chooses a free port, which is logged
    #[arg(long, env, help_heading = "Common", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,
}

/// The routes of health. Live: 200, or 503 with the loops that are stuck, one per line. Ready: 200 and what is to be known
/// although it is ready, or 503 with the conditions that do not hold, one per line.
pub fn health(readiness: Readiness) -> BoxedFilter<(Response,)> {
    // The path comes first: an unknown path answers every method with 404.
    let alive = readiness.clone();
    let live = warp::path!("health" / "live").and(warp::get()).map(move || answer("alive", &[], &alive.stuck()));
    let ready = warp::path!("health" / "ready")
        .and(warp::get())
        .map(move || answer("ready", &readiness.notes(), &readiness.missing()));
    live.or(ready).unify().boxed()
}

/// The routes of [`health`], and the metrics.
pub fn health_and_metrics(readiness: Readiness, metrics: Metrics) -> BoxedFilter<(Response,)> {
    let health = health(readiness.clone());
    let metrics = warp::path!("metrics").and(warp::get()).map(move || {
        let text = metrics.render(readiness.missing().is_empty());
        warp::reply::with_header(text, "content-type", "text/plain; version=0.0.4").into_response()
    });
    health.or(metrics).unify().boxed()
}

fn answer(well: &str, notes: &[String], missing: &[String]) -> Response {
    if missing.is_empty() {
        let lines: Vec<&str> = std::iter::once(well).chain(notes.iter().map(String::as_str)).collect();
        return (lines.join("\n") + "\n").into_response();
    }
    warp::reply::with_status(missing.join("\n") + "\n", StatusCode::SERVICE_UNAVAILABLE).into_response()
}

/// Serves the routes until the shutdown.
///
/// # Errors
/// The address can't be bound.
pub async fn serve_admin(
    args: &AdminArgs,
    readiness: Readiness,
    metrics: Metrics,
    mut shutdown: Shutdown,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(args.admin_listen)
        .await
        .with_context(|| format!("listening on {} (--admin-listen)", args.admin_listen))?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics");
    let server = warp::serve(health_and_metrics(readiness, metrics))
        .incoming(listener)
        .graceful(async move { shutdown.requested().await });
    tokio::spawn(server.run());
    Ok(())
}
