//! The HTTP server: connections are bounded, and a client that makes no progress is disconnected.

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
use stream::{Progress, Stalled};

use crate::audience::VIEWERS_MAX;
use crate::metrics::VIEWERS_STALLED;

/// More connections wait to be accepted. A viewer needs one, and for requests another.
const CONNECTIONS_MAX: usize = 2 * VIEWERS_MAX + 50;

/// What is written ahead to a connection, about two frames, in this process and again in the kernel. The kernel's default would
/// take minutes of frames from a viewer that does not read.
const BUFFER_MAX: u16 = 32 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;

/// A connection is closed after this time without a request, or with a request whose body does not arrive or whose response is
/// not read. More than any response needs.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

/// How often in that time it is checked.
const CHECKS: u32 = 6;

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

/// Serves the page until the shutdown; a client without progress for `stall_max` is disconnected. Viewers reconnect by
/// themselves, so nothing is drained.
pub(crate) async fn serve(listener: TcpListener, page: Page, stall_max: Duration, mut shutdown: Shutdown) {
    let routes = routes::routes(Arc::new(page));
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let routes = routes.clone();
                    tokio::spawn(async move {
                        connection(stream, routes, stall_max).await;
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

async fn connection(stream: TcpStream, routes: BoxedFilter<(Response,)>, stall_max: Duration) {
    // A frame is written at once, so there is nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting up a connection");
    }
    let progress = Arc::new(Progress::default());
    let service = TowerToHyperService::new(warp::service(routes));
    let of_connection = progress.clone();
    let with_progress = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        of_connection.requested();
        request.extensions_mut().insert(of_connection.clone());
        service.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stall_max)
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
            () = tokio::time::sleep(stall_max / CHECKS) => match progress.stalled(stall_max) {
                None => {}
                Some(Stalled::Viewer) => return VIEWERS_STALLED.with(&[]).increment(1),
                Some(Stalled::Request) => return tracing::debug!("a client made no progress"),
            }
        }
    }
}
