//! The HTTP server: connections are bounded, and a viewer that stops reading is disconnected.

mod assets;
mod routes;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use service::Shutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use warp::filters::BoxedFilter;
use warp::reply::Response;

pub(crate) use routes::Page;
use stream::Progress;

use crate::audience::VIEWERS_MAX;
use crate::metrics::VIEWERS_STALLED;

/// More connections wait to be accepted. A viewer needs one, and for requests another.
const CONNECTIONS_MAX: usize = 2 * VIEWERS_MAX + 50;

/// What is written ahead to a connection, about two frames, in this process and again in the kernel. The kernel's default would
/// take minutes of frames from a viewer that does not read.
const BUFFER_MAX: u16 = 32 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// A connection without a request is closed after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is checked whether a viewer still reads.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Pause after a failed accept, most likely for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens, with small buffers for all connections.
///
/// # Errors
/// The address cannot be bound.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(BUFFER_MAX.into())?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the page until the shutdown. Viewers reconnect by themselves, so nothing is drained.
pub(crate) async fn serve(listener: TcpListener, page: Page, mut shutdown: Shutdown) {
    let routes = routes::routes(Arc::new(page));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let routes = routes.clone();
                    tokio::spawn(async move {
                        connection(stream, routes).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! { () = accept => {}, () = shutdown.requested() => {} }
}

async fn connection(stream: TcpStream, routes: BoxedFilter<(Response,)>) {
    // A frame is written at once, so there is nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting up a connection");
    }
    let progress = Arc::new(Progress::default());
    let service = TowerToHyperService::new(warp::service(routes));
    let of_connection = progress.clone();
    let with_progress = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(of_connection.clone());
        service.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER_MAX.into())
        .serve_connection(TokioIo::new(stream), with_progress);
    let mut served = pin!(served);
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection failed");
                }
                return;
            }
            () = tokio::time::sleep(CHECK_INTERVAL) => {
                if progress.has_stalled() {
                    VIEWERS_STALLED.with(&[]).increment(1);
                    return;
                }
            }
        }
    }
}
