//! The HTTP server below warp's routes. warp's own server has no header timeout, no connection limit, no `TCP_NODELAY` and no TLS.
//!
//! ```text
//! accept ─▶ limits (all, per address) ─▶ TLS ─▶ HTTP/1 or 2 ─▶ request id, trace ─▶ CORS ─▶ panics ─▶ head ─▶ authorization ─▶ limits
//! (length, requests) ─▶ routes
//! ```
//!
//! A client that reuses a connection just when it is closed cannot know whether its request was executed. So the server shuts
//! down in three steps. First readiness is withdrawn, and HTTP/1 responses announce that their connection closes, until
//! clients have moved to other instances (`--lame-duck-ms`). Then no connection is accepted any more, and idle ones are
//! closed. Then requests in flight finish (`--drain-timeout-s`).

mod connections;
mod cors;
mod discard;
mod head;
mod limits;
mod long_lived;
mod measured;
mod open_files;
mod panics;
mod tls;
mod traced;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyDataStream;
use hyper::body::{Body as _, Incoming};
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use service::{LogLimit, Readiness, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;
use tracing::Instrument as _;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use warp::reply::Response;

pub(crate) use cors::CorsArgs;
pub(crate) use discard::{discard_body, discard_unread_body};
pub use limits::FixedLimits;
pub(crate) use limits::LimitArgs;
pub(crate) use long_lived::LongLived;
pub(crate) use open_files::raise_open_files;
pub(crate) use tls::{Tls, TlsArgs};
pub(crate) use traced::headers as trace_headers;

use crate::auth::{self, Auth};
use crate::metrics::CONNECTIONS_REFUSED;
use crate::problem::{Kind, Problem};
use crate::request_id::{self, X_REQUEST_ID};
use connections::{IdleTracker, PerIpLimiter};
use measured::Measured;

/// Pause after a failed accept, most likely for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum time for the graceful shutdown of an idle connection.
const IDLE_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for the connections accepted last to send their request, before idle connections are closed.
const LAST_REQUEST_PAUSE: Duration = Duration::from_millis(500);

/// What applies to a connection and its requests before the routes.
#[derive(Debug)]
pub(crate) struct ConnectionPolicy {
    pub(crate) auth: Auth,
    pub(crate) cors: Option<CorsLayer>,
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: LimitArgs,
    pub(crate) fixed_limits: FixedLimits,
}

/// Serves until the shutdown, which takes three steps (see the module).
pub(crate) async fn serve(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    policy: ConnectionPolicy,
    readiness: Readiness,
    mut shutdown: Shutdown,
) {
    let limits = policy.limits;
    let (close, closing) = Shutdown::channel();
    let server = Arc::new(Server {
        routes,
        http: limits.http(),
        connections: Arc::new(Semaphore::new(limits.connections_max as usize)),
        addresses: PerIpLimiter::new(limits.connections_per_address_max),
        requests: Arc::new(Semaphore::new(policy.fixed_limits.requests_in_flight_max)),
        policy,
        leaving: shutdown.clone(),
        closing,
    });
    let leave = async {
        shutdown.requested().await;
        tracing::info!(lame_duck_ms = limits.lame_duck_ms, "shutting down: requests are served for a while");
        readiness.set_unready("serving", "this instance is shutting down");
        tokio::time::sleep(limits.lame_duck()).await;
    };
    tokio::select! {
        never = server.accept_loop(&listener) => match never {},
        () = leave => {}
    }
    if let Err(error) = server.accept_pending(listener) {
        tracing::warn!(%error, "accepting the last connections failed");
    }
    tokio::time::sleep(LAST_REQUEST_PAUSE).await;
    close.send_replace(true);
    // Each connection holds a permit until it ends.
    let all_ended = server.connections.acquire_many(limits.connections_max);
    if tokio::time::timeout(limits.drain_timeout(), all_ended).await.is_err() {
        tracing::warn!(drain_timeout_s = limits.drain_timeout_s, "some requests did not finish in time");
    }
}

/// A request that may be handled.
struct Admission {
    permit: Option<OwnedSemaphorePermit>,
    /// When its token expires.
    expires_at: Option<Instant>,
}

struct Server {
    routes: BoxedFilter<(Response,)>,
    http: Builder<TokioExecutor>,
    connections: Arc<Semaphore>,
    addresses: PerIpLimiter,
    requests: Arc<Semaphore>,
    policy: ConnectionPolicy,
    /// From here on HTTP/1 responses close their connections.
    leaving: Shutdown,
    /// From here on idle connections are closed.
    closing: Shutdown,
}

impl Server {
    async fn accept_loop(self: &Arc<Self>, listener: &TcpListener) -> Infallible {
        loop {
            let permit = self.connections.clone().acquire_owned().await;
            match listener.accept().await {
                Ok((stream, peer)) => self.spawn_connection(permit.ok(), stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts the connections that wait in the kernel: closing the listener would reset them.
    fn accept_pending(self: &Arc<Self>, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        while let Ok(permit) = self.connections.clone().try_acquire_owned() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.spawn_connection(Some(permit), TcpStream::from_std(stream)?, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn spawn_connection(self: &Arc<Self>, permit: Option<OwnedSemaphorePermit>, stream: TcpStream, peer: SocketAddr) {
        let Some(guard) = self.addresses.admit(peer.ip()) else {
            CONNECTIONS_REFUSED.with(&[]).increment(1);
            tracing::debug!(%peer, "a connection was closed: its address has too many (--connections-per-address-max)");
            return;
        };
        let server = self.clone();
        tokio::spawn(async move {
            server.serve_connection(stream, peer).await;
            drop((permit, guard));
        });
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // A response is one small write: it must not wait for the acknowledgement of the previous one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        // A client that is gone without a word acknowledges nothing. The kernel would try for a quarter of an hour.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, self.policy.limits.user_timeout_ms()) {
            tracing::debug!(%error, "setting TCP_USER_TIMEOUT failed");
        }
        let Some(tls) = &self.policy.tls else { return self.serve_http(stream, peer).await };
        let handshake = tokio::time::timeout(self.policy.limits.header_timeout(), tls.accept(stream));
        let mut closing = self.closing.clone();
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            () = closing.requested() => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.serve_http(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake timed out"),
        }
    }

    /// Serves the requests of a connection until it ends, is idle for too long, or the service ends.
    async fn serve_http(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
    ) {
        let limits = self.policy.limits;
        let idle_tracker = IdleTracker::new(limits.header_timeout());
        let service = {
            let (server, idle_tracker) = (self.clone(), idle_tracker.clone());
            hyper::service::service_fn(move |request| {
                let guard = idle_tracker.begin(limits.idle_timeout());
                let (server, idle_tracker) = (server.clone(), idle_tracker.clone());
                async move {
                    let response = server.with_request_id(request).await?;
                    drop(guard);
                    let closing = server.closing.clone();
                    Ok::<_, Infallible>(long_lived::bounded(response, idle_tracker, limits.idle_timeout(), closing))
                }
            })
        };
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let mut closing = self.closing.clone();
        tokio::select! {
            ended = connection.as_mut() => return log_end(peer, ended),
            () = idle_tracker.idle(limits.idle_timeout()) => {
                connection.as_mut().graceful_shutdown();
                // A client that reads nothing does not read the end of the connection either.
                match tokio::time::timeout(IDLE_SHUTDOWN_TIMEOUT, connection).await {
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

    /// Handles a request, traces it, and adds its id to logs and response.
    async fn with_request_id(&self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        let id = request_id::of(request.headers());
        let is_http1 = request.version() < Version::HTTP_2;
        let measured = Measured::begin(request.method(), request.uri().path());
        let id_text = id.to_str().unwrap_or_default();
        let scheme = if self.policy.tls.is_some() { "https" } else { "http" };
        let trace = traced::begin(&mut request, scheme, id_text);
        let span = tracing::warn_span!("request", id = id_text, trace_id = trace.headers().trace_id());
        let handling = async {
            let mut response = request_id::scope(id.clone(), self.handle(request)).await?;
            measured.answered(response.status());
            log_rejection(&response);
            if let Some(span) = trace.span() {
                span.answered(response.status().as_u16(), response.extensions().get::<Kind>().map(|kind| kind.code()));
            }
            response.headers_mut().insert(X_REQUEST_ID, id);
            if is_http1 && self.leaving.is_requested() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        };
        handling.instrument(span).await
    }

    /// Handles a request, or the CORS preflight of one.
    async fn handle(&self, request: Request<Incoming>) -> Result<Response, Infallible> {
        let respond = |request: Request<Incoming>| self.respond(request);
        match &self.policy.cors {
            Some(cors) if cors::is_for_layer(&request) => cors.layer(service_fn(respond)).oneshot(request).await,
            Some(_) | None => respond(request).await,
        }
    }

    /// The response to HEAD is that to GET without its body.
    async fn respond(&self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        if let Some(uri) = head::decode_path(request.uri()) {
            *request.uri_mut() = uri;
        }
        let is_head = request.method() == Method::HEAD;
        if is_head {
            *request.method_mut() = Method::GET;
        }
        let response = panics::catch(self.authorize_and_route(request)).await?;
        Ok(if is_head { without_body(response) } else { response })
    }

    async fn authorize_and_route(&self, request: Request<Incoming>) -> Result<Response, Infallible> {
        match self.authorize(&request).await {
            Ok(Admission { permit, expires_at }) => {
                let mut response = TowerToHyperService::new(warp::service(self.routes.clone())).call(request).await?;
                drop(permit);
                if let Some(long_lived) = response.extensions_mut().get_mut::<LongLived>() {
                    long_lived.expires_at = expires_at;
                }
                Ok(response)
            }
            Err(problem) => {
                let (head, body) = request.into_parts();
                let deadline = Instant::now() + self.policy.limits.header_timeout();
                discard_unread_body(&head.headers, BodyDataStream::new(body), deadline).await;
                Ok(problem.into_response())
            }
        }
    }

    /// Checks a request before its body is read and before anything is looked up.
    async fn authorize(&self, request: &Request<Incoming>) -> Result<Admission, Problem> {
        head::check(request.version(), request.headers())?;
        let path = request.uri().path();
        let expires_at = self.policy.auth.check(path, request.headers()).await?;
        let body_len_max = self.policy.fixed_limits.body_len_max;
        if length(request.headers()).is_some_and(|length| length > body_len_max as u64) {
            return Err(Problem::payload_too_large(body_len_max));
        }
        if auth::is_public(path) {
            return Ok(Admission { permit: None, expires_at });
        }
        let permit = self.requests.clone().try_acquire_owned().map_err(|_| {
            Problem::unavailable("too many requests are in progress; the request was not executed, retry later")
        })?;
        Ok(Admission { permit: Some(permit), expires_at })
    }
}

/// The response to HEAD: that of GET without the body (RFC 9110, section 9.3.2).
fn without_body(response: Response) -> Response {
    let len = response.body().size_hint().exact();
    let mut response = response.map(|_| Default::default());
    if let Some(len) = len {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| len.into());
    }
    response
}

/// The length that the client declares. The length of the body itself is checked while it is read.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Logs why a request was rejected. Its id is in the span.
fn log_rejection(response: &Response) {
    let Some(kind) = response.extensions().get::<Kind>() else { return };
    let (status, problem) = (response.status().as_u16(), kind.code());
    static LIMIT: LogLimit = LogLimit::new();
    // Most are mistakes of clients: at the usual level any client could fill the log with them.
    let left_out = response.status().is_server_error().then(|| LIMIT.admit()).flatten();
    match left_out {
        Some(left_out) => tracing::warn!(status, problem, left_out, "a request was rejected"),
        None => tracing::debug!(status, problem, "a request was rejected"),
    }
}

fn log_end(peer: SocketAddr, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{Read as _, Write as _};

    use clap::Parser as _;
    use service::{Metrics, StartupArgs};
    use warp::{Filter as _, Reply as _, path};

    use super::*;
    use crate::auth::AuthArgs;

    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        auth: AuthArgs,
        #[command(flatten)]
        limits: LimitArgs,
        #[command(flatten)]
        startup: StartupArgs,
    }

    /// Sends the text, and returns the responses when the server has closed the connection.
    fn exchange(address: SocketAddr, requests: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut responses = String::new();
        stream.read_to_string(&mut responses).unwrap();
        responses
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_in_a_handler_is_a_500_and_its_connection_goes_on() {
        let metrics = Metrics::install("ingest", &[crate::METRICS], &[]).unwrap();
        let args = Args::parse_from(["test"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, shutdown) = Shutdown::channel();
        let auth = Auth::start(&args.auth, address, &args.startup.start(&Readiness::default()), shutdown.clone())
            .await
            .unwrap();
        let fixed_limits = FixedLimits::default();
        let policy = ConnectionPolicy { auth, cors: None, tls: None, limits: args.limits, fixed_limits };
        let handler = |id: String| async move {
            assert_ne!(id, "7", "cart {id} cannot be shown");
            id.into_response()
        };
        let routes = path!("cart" / String).then(handler).boxed();
        tokio::spawn(serve(listener, routes, policy, Readiness::default(), shutdown));

        let requests = "GET /cart/7 HTTP/1.1\r\nhost: x\r\nx-request-id: first\r\n\r\n\
                        GET /cart/8 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let responses = tokio::task::spawn_blocking(move || exchange(address, requests)).await.unwrap();
        let (panicked, next) = responses.split_at(responses.rfind("HTTP/1.1").unwrap());
        assert!(panicked.starts_with("HTTP/1.1 500 "), "{panicked}");
        for part in
            ["content-type: application/problem+json", "urn:cart:problem:internal-error", "\"requestId\":\"first\""]
        {
            assert!(panicked.contains(part), "{part} is not in {panicked}");
        }
        assert!(next.starts_with("HTTP/1.1 200 "), "{next}");
        let metrics = metrics.render(true);
        for line in [
            "ingest_handler_panics_total 1",
            "ingest_requests_total{method=\"GET\",route=\"/cart/{cartId}\",status=\"500\"} 1",
            "ingest_requests_total{method=\"GET\",route=\"/cart/{cartId}\",status=\"200\"} 1",
            "ingest_request_seconds_count{method=\"GET\",route=\"/cart/{cartId}\",outcome=\"failed\"} 1",
            "ingest_requests_in_flight 0",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
        }
    }
}
