//! Accepting connections. warp's own server times no headers out, bounds no connections and sets no TCP_NODELAY.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use service::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::Instrument as _;
use warp::Filter;
use warp::http::Request;
use warp::reply::Response;

use crate::auth::Auth;
use crate::request_id::{self, X_REQUEST_ID};

/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

/// Serves until the shutdown, then lets requests under way finish, within the limit.
pub(crate) async fn serve<F>(listener: TcpListener, routes: F, auth: Auth, limits: Limits, mut shutdown: Shutdown)
where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let accept = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            (permit, accepted) = accept => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = shutdown.requested() => break,
        };
        // A response is one small write: it must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        let service = TowerToHyperService::new(warp::service(routes.clone()));
        let auth = auth.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let id = request_id::of(request.headers());
            let span = tracing::warn_span!("request", id = id.to_str().unwrap_or_default());
            let (service, auth) = (service.clone(), auth.clone());
            let answer = async move {
                match auth.check(request.uri().path(), request.headers()).await {
                    Ok(()) => service.call(request).await,
                    Err(problem) => Ok(problem.into_response()),
                }
            };
            let named = async move {
                let mut response = request_id::scope(id.clone(), answer).await?;
                response.headers_mut().insert(X_REQUEST_ID, id);
                Ok::<_, Infallible>(response)
            };
            named.instrument(span)
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still under way after {} s", limits.drain_timeout.as_secs());
    }
}
