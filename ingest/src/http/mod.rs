//! Accepting connections. warp's own server times no headers out, bounds no connections, sets no TCP_NODELAY and speaks no
//! TLS.
//!
//! ```text
//! accept ─▶ limits (all, per address) ─▶ TLS ─▶ HTTP/1 or 2 ─▶ name ─▶ browsers (CORS) ─▶ head ─▶ who may ─▶ limits (requests,
//! length) ─▶ routes
//! ```
//!
//! An end that no client notices takes three steps, since whoever uses a kept connection just when it is closed can't know
//! whether its request was taken: readiness says no, and each answer of HTTP/1 says that its connection ends with it, until
//! everybody has gone elsewhere (`--lame-duck-ms`); then nobody is accepted any more, and what is idle is closed; then what
//! is under way is finished (`--drain-timeout-s`).

pub(crate) mod connections;
pub(crate) mod cors;
pub(crate) mod head;
pub(crate) mod limits;
pub(crate) mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use service::{Readiness, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;
use tracing::Instrument as _;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use warp::reply::Response;

use crate::auth::{self, Auth};
use crate::http::connections::{IdleTracker, PerIpLimiter};
use crate::http::limits::{DISCARDED_LEN_MAX, LimitArgs};
use crate::http::tls::Tls;
use crate::problem::{Kind, Problem};
use crate::request_id::{self, X_REQUEST_ID};

/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long an idle connection that was asked to end may take for it.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// How long the last who were accepted may take to send their request, before what is idle is closed.
const LAST_REQUEST_PATIENCE: Duration = Duration::from_millis(500);

/// What stands before the routes. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) auth: Auth,
    pub(crate) cors: Option<CorsLayer>,
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: LimitArgs,
    pub(crate) body_len_max: usize,
}

/// Serves until the shutdown, and ends in three steps.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    door: Door,
    readiness: Readiness,
    mut shutdown: Shutdown,
) {
    let limits = door.limits;
    let (close, closing) = Shutdown::channel();
    let server = Arc::new(Server {
        routes,
        http: limits.http(),
        connections: Arc::new(Semaphore::new(limits.connections_max as usize)),
        addresses: PerIpLimiter::new(limits.connections_per_address_max),
        requests: Arc::new(Semaphore::new(limits.requests_in_flight_max as usize)),
        door,
        leaving: shutdown.clone(),
        closing,
    });
    let leave = async {
        shutdown.requested().await;
        tracing::info!("shutting down: requests are served for another {} ms (--lame-duck-ms)", limits.lame_duck_ms);
        readiness.down("serving", "this instance is shutting down");
        tokio::time::sleep(limits.lame_duck()).await;
    };
    tokio::select! {
        never = server.accept(&listener) => match never {},
        () = leave => {}
    }
    if let Err(error) = server.accept_last(listener) {
        tracing::warn!(%error, "accepting the last connections failed");
    }
    tokio::time::sleep(LAST_REQUEST_PATIENCE).await;
    close.send_replace(true);
    // Each connection has a permit until its end.
    let all_ended = server.connections.acquire_many(limits.connections_max);
    if tokio::time::timeout(limits.drain_timeout(), all_ended).await.is_err() {
        tracing::warn!("some requests did not finish within {} s (--drain-timeout-s)", limits.drain_timeout_s);
    }
}

struct Server {
    routes: BoxedFilter<(Response,)>,
    http: Builder<TokioExecutor>,
    connections: Arc<Semaphore>,
    addresses: PerIpLimiter,
    requests: Arc<Semaphore>,
    door: Door,
    /// From here on clients are told to go elsewhere.
    leaving: Shutdown,
    /// From here on what is idle is closed.
    closing: Shutdown,
}

impl Server {
    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        loop {
            let permit = self.connections.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, peer)) => self.accepted(permit.ok(), stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts those who wait in the kernel: they would be reset when the listener is closed.
    fn accept_last(self: &Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        while let Ok(permit) = self.connections.clone().try_acquire_owned() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.accepted(Some(permit), TcpStream::from_std(stream)?, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn accepted(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>, stream: TcpStream, peer: SocketAddr) {
        let Some(guard) = self.addresses.admit(peer.ip()) else {
            metrics::counter!("ingest_connections_refused_total").increment(1);
            tracing::debug!(%peer, "a connection was closed: its address has too many (--connections-per-address-max)");
            return;
        };
        let server = self.clone();
        tokio::spawn(async move {
            server.connection(stream, peer).await;
            drop((permit, guard));
        });
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // A response is one small write: it must not wait for the acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        let Some(tls) = &self.door.tls else { return self.http(stream, peer).await };
        let handshake = tokio::time::timeout(self.door.limits.header_timeout(), tls.accept(stream));
        let mut closing = self.closing.clone();
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            () = closing.requested() => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.http(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake timed out"),
        }
    }

    /// Serves the requests of a connection until it ends, is idle for too long, or the service ends.
    async fn http(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr) {
        let limits = self.door.limits;
        let idle_tracker = IdleTracker::new(limits.header_timeout());
        let service = {
            let (server, idle_tracker) = (self.clone(), idle_tracker.clone());
            hyper::service::service_fn(move |request| {
                let guard = idle_tracker.begin(limits.idle_timeout());
                let server = server.clone();
                async move {
                    let response = server.named(request).await;
                    drop(guard);
                    response
                }
            })
        };
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let mut closing = self.closing.clone();
        tokio::select! {
            ended = connection.as_mut() => return log_end(peer, ended),
            () = idle_tracker.idle(limits.idle_timeout()) => {
                connection.as_mut().graceful_shutdown();
                // Whoever takes nothing from us does not take our end either.
                match tokio::time::timeout(END_PATIENCE, connection).await {
                    Ok(ended) => log_end(peer, ended),
                    Err(_) => tracing::debug!(%peer, "an idle connection was closed"),
                }
                return;
            }
            () = closing.requested() => {}
        }
        connection.as_mut().graceful_shutdown();
        log_end(peer, connection.await);
    }

    /// Answers a request under its name.
    async fn named(&self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let id = request_id::of(request.headers());
        let is_http1 = request.version() < Version::HTTP_2;
        let span = tracing::warn_span!("request", id = id.to_str().unwrap_or_default());
        let answer = async {
            let mut response = request_id::scope(id.clone(), self.answer(request)).await?;
            log_rejection(&response);
            response.headers_mut().insert(X_REQUEST_ID, id);
            if is_http1 && self.leaving.is_requested() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        };
        answer.instrument(span).await
    }

    /// Answers a request, and a browser that asks first whether it may send one.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response, Infallible> {
        match &self.door.cors {
            Some(cors) if cors::is_for_layer(&request) => {
                cors.layer(service_fn(|request| self.admit_and_route(request))).oneshot(request).await
            }
            Some(_) | None => self.admit_and_route(request).await,
        }
    }

    async fn admit_and_route(&self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        if let Some(uri) = head::decode_path(request.uri()) {
            *request.uri_mut() = uri;
        }
        let is_head = request.method() == Method::HEAD;
        if is_head {
            *request.method_mut() = Method::GET;
        }
        let response = match self.admit(&request).await {
            Ok(permit) => {
                let response = TowerToHyperService::new(warp::service(self.routes.clone())).call(request).await?;
                drop(permit);
                response
            }
            Err(problem) => {
                self.discard(request).await;
                problem.into_response()
            }
        };
        Ok(if is_head { without_body(response) } else { response })
    }

    /// Reads what is still to come of a refused request, if that is not much: who still sends when a connection is closed
    /// gets a reset instead of the reason.
    async fn discard(&self, request: Request<Incoming>) {
        if request.headers().contains_key(header::EXPECT) {
            return; // it waits for our word before it sends the body
        }
        let mut body = request.into_body();
        let mut len = 0;
        let reading = async {
            while let Some(Ok(frame)) = body.frame().await {
                len += frame.data_ref().map_or(0, Bytes::len);
                if len > DISCARDED_LEN_MAX {
                    break;
                }
            }
        };
        // Who is too slow for that is answered too, but may miss it.
        drop(tokio::time::timeout(self.door.limits.header_timeout(), reading).await);
    }

    /// Whether a request comes through: nothing of its body has been read, and nothing was looked up.
    async fn admit(&self, request: &Request<Incoming>) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        head::check(request.version(), request.headers())?;
        let path = request.uri().path();
        self.door.auth.check(path, request.headers()).await?;
        if length(request.headers()).is_some_and(|length| length > self.door.body_len_max as u64) {
            return Err(Problem::payload_too_large(self.door.body_len_max));
        }
        if auth::is_public(path) {
            return Ok(None);
        }
        let permit = self.requests.clone().try_acquire_owned();
        permit.map(Some).map_err(|_| {
            Problem::unavailable("too many requests are in progress; the request was not executed, retry later")
        })
    }
}

/// What HEAD is answered with: what GET is, but for the body (RFC 9110, section 9.3.2).
fn without_body(response: Response) -> Response {
    let len = response.body().size_hint().exact();
    let mut response = response.map(|_| Default::default());
    if let Some(len) = len {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| len.into());
    }
    response
}

/// What the client says that its body has. The body itself is measured as well, where it is read.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Logs why a request was rejected. Its id is in the span.
fn log_rejection(response: &Response) {
    let Some(kind) = response.extensions().get::<Kind>() else { return };
    let (status, problem) = (response.status().as_u16(), kind.code());
    // Most are a client's mistakes: at the usual level anybody could fill the log with them.
    if response.status().is_server_error() {
        tracing::info!(status, problem, "a request was rejected");
    } else {
        tracing::debug!(status, problem, "a request was rejected");
    }
}

fn log_end(peer: SocketAddr, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}
