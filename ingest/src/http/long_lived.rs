//! Responses that go on until the client leaves. They count neither as requests in flight nor as idle while the client reads
//! them. They end when idle connections are closed at the shutdown, so that clients reconnect to another instance, and when
//! the token of their request expires.

use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyDataStream;
use service::Shutdown;
use tokio::time::{Instant, sleep_until};
use warp::Reply as _;
use warp::reply::Response;

use super::connections::IdleTracker;

/// Marks a response as one of these.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LongLived {
    /// When the token of the request expires.
    pub(super) expires_at: Option<Instant>,
}

/// Ends a response that is marked; returns another as it is.
pub(super) fn bounded(
    mut response: Response,
    tracker: IdleTracker,
    idle_timeout: Duration,
    mut closing: Shutdown,
) -> Response {
    let Some(LongLived { expires_at }) = response.extensions_mut().remove() else { return response };
    let end: Pin<Box<dyn Future<Output = ()> + Send + Sync>> = Box::pin(async move {
        let expired = async {
            match expires_at {
                Some(expires_at) => sleep_until(expires_at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closing.requested() => {}
            () = expired => {}
        }
    });
    let (head, body) = response.into_parts();
    // The connection asks for the next part once it has room, so the client has read some of what was sent.
    let parts = BodyDataStream::new(body).inspect(move |_| tracker.touch(idle_timeout)).take_until(end);
    let mut response = warp::reply::stream(parts).into_response();
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    *response.extensions_mut() = head.extensions;
    response
}
