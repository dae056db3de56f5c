//! Discarding the body of a rejected request. When a connection is closed while its client still sends, the client gets a
//! reset instead of the response.

use std::pin::pin;

use bytes::Buf;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};
use warp::http::{HeaderMap, header};

/// Maximum number of bytes of a rejected body that are read: enough for a mistake, too few for an attack.
const DISCARDED_LEN_MAX: usize = 1 << 20;

/// Discards the rest of a body, up to a limit of bytes and until the deadline. A client slower than this still gets the
/// response, but may see a reset connection instead.
pub(crate) async fn discard_body<B: Buf, E>(body: impl Stream<Item = Result<B, E>>, deadline: Instant) {
    let mut body = pin!(body);
    let mut len = 0;
    let discarding = async {
        while let Some(Ok(part)) = body.next().await {
            len += part.remaining();
            if len > DISCARDED_LEN_MAX {
                break;
            }
        }
    };
    // An error means that the deadline has passed.
    drop(timeout_at(deadline, discarding).await);
}

/// Discards a body of which nothing has been read.
pub(crate) async fn discard_unread_body<B: Buf, E>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, E>>,
    deadline: Instant,
) {
    // A client that sends `Expect` waits for `100 Continue` before it sends the body.
    if !headers.contains_key(header::EXPECT) {
        discard_body(body, deadline).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn discarding_ends_with_the_body_or_at_a_limit() {
        let timeout = Duration::from_secs(10);
        let parts = || stream::repeat_with(|| Ok::<_, ()>(Bytes::from_static(&[0; 4_096])));
        let started_at = Instant::now();
        let mut short = parts().take(3);
        discard_body(&mut short, started_at + timeout).await;
        assert!(short.next().await.is_none(), "the body was read to its end");
        discard_body(parts(), started_at + timeout).await;
        assert!(started_at.elapsed() < timeout, "an endless body ends at the limit of bytes");
        discard_body(parts().take(1).chain(stream::pending()), started_at + timeout).await;
        assert_eq!(started_at.elapsed(), timeout, "a stalled body ends at the deadline");
    }

    #[tokio::test]
    async fn an_awaited_continue_leaves_the_body_unread() {
        let headers = HeaderMap::from_iter([(header::EXPECT, "100-continue".parse().unwrap())]);
        let mut body = stream::iter([Ok::<_, ()>(Bytes::from_static(b"x"))]);
        discard_unread_body(&headers, &mut body, Instant::now()).await;
        assert!(body.next().await.is_some());
    }
}
