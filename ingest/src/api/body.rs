//! Reading the body of a request, within limits of size, time and memory, however it is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use warp::http::HeaderMap;

use crate::http::{discard_body, discard_unread_body};
use crate::problem::{Kind, Problem};

/// The limits of request bodies. Clones share the memory.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimits {
    pub(crate) len_max: usize,
    pub(crate) timeout: Duration,
    /// Bytes that all bodies together may take.
    pub(crate) memory: Arc<Semaphore>,
}

/// A body that a handler has not read.
pub(super) struct UnreadBody {
    stream: BoxStream<'static, Result<Bytes, warp::Error>>,
    limits: BodyLimits,
}

/// A whole body. It occupies its part of the memory until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: BytesMut,
    memory: Option<OwnedSemaphorePermit>,
}

impl UnreadBody {
    pub(super) fn new<B: Buf>(
        stream: impl Stream<Item = Result<B, warp::Error>> + Send + 'static,
        limits: BodyLimits,
    ) -> Self {
        Self { stream: stream.map_ok(|mut part| part.copy_to_bytes(part.remaining())).boxed(), limits }
    }

    /// Returns the result of a check that comes before the body is read. If it failed, the body is discarded, so that a
    /// client that still sends it sees the response.
    pub(super) async fn or_discard<T>(
        &mut self,
        headers: &HeaderMap,
        result: Result<T, Problem>,
    ) -> Result<T, Problem> {
        if result.is_err() {
            discard_unread_body(headers, &mut self.stream, Instant::now() + self.limits.timeout).await;
        }
        result
    }

    pub(super) async fn read(mut self) -> Result<Body, Problem> {
        let deadline = Instant::now() + self.limits.timeout;
        let reading = timeout_at(deadline, self.collect()).await;
        let result = reading.unwrap_or_else(|_| Err(Problem::body_too_slow()));
        if result.as_ref().is_err_and(|problem| problem.kind() == Kind::PayloadTooLarge) {
            discard_body(self.stream, deadline).await;
        }
        result
    }

    async fn collect(&mut self) -> Result<Body, Problem> {
        let mut body = Body::default();
        while let Some(part) = self
            .stream
            .try_next()
            .await
            .map_err(|_| Problem::malformed_body("the body is incomplete, or its framing is invalid"))?
        {
            if body.bytes.len() + part.len() > self.limits.len_max {
                return Err(Problem::payload_too_large(self.limits.len_max));
            }
            let len = u32::try_from(part.len()).ok();
            let memory = len.and_then(|len| self.limits.memory.clone().try_acquire_many_owned(len).ok());
            let memory = memory.ok_or_else(|| {
                Problem::unavailable("too many request bodies are in memory; the request was not executed, retry later")
            })?;
            match &mut body.memory {
                Some(all) => all.merge(memory),
                none => *none = Some(memory),
            }
            body.bytes.extend_from_slice(&part);
        }
        Ok(body)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use futures::stream;

    use super::*;

    fn limits() -> BodyLimits {
        BodyLimits { len_max: 4, timeout: Duration::from_secs(10), memory: Arc::new(Semaphore::new(6)) }
    }

    fn unread(parts: &[&'static str], limits: &BodyLimits) -> UnreadBody {
        let parts: Vec<_> = parts.iter().map(|part| Ok(part.as_bytes())).collect();
        UnreadBody::new(stream::iter(parts), limits.clone())
    }

    async fn kind(body: UnreadBody) -> Kind {
        body.read().await.unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_body_is_read_within_its_size_and_the_memory_of_all() {
        let limits = limits();
        assert_eq!(kind(unread(&["abcd", "e"], &limits)).await, Kind::PayloadTooLarge);
        let first = unread(&["a", "bcd"], &limits).read().await.unwrap();
        assert_eq!(first.bytes, "abcd");
        assert_eq!(kind(unread(&["abc"], &limits)).await, Kind::Unavailable);
        drop(first);
        assert_eq!(unread(&["abc"], &limits).read().await.unwrap().bytes, "abc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_too_slow_unless_it_was_too_large_before() {
        let stalled = |parts: &'static [&'static str]| {
            let parts = stream::iter(parts.iter().map(|part| Ok(part.as_bytes())));
            UnreadBody::new(parts.chain(stream::pending()), limits())
        };
        let started_at = Instant::now();
        assert_eq!(kind(stalled(&["a"])).await, Kind::RequestTimeout);
        assert_eq!(kind(stalled(&["abcde"])).await, Kind::PayloadTooLarge);
        assert_eq!(started_at.elapsed(), 2 * limits().timeout);
    }

    #[tokio::test]
    async fn a_failed_check_discards_the_body() {
        let headers = HeaderMap::new();
        let mut body = unread(&["a", "b"], &limits());
        assert_eq!(body.or_discard(&headers, Ok(7)).await.unwrap(), 7);
        assert!(body.or_discard::<()>(&headers, Err(Problem::invalid_id("cartId", "x"))).await.is_err());
        assert!(body.read().await.unwrap().bytes.is_empty());
    }
}
