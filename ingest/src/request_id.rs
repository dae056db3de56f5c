//! The id of a request, in its response and in the logs: the client's `X-Request-Id`, or a new one.

use warp::http::{HeaderMap, HeaderName, HeaderValue};

/// The header, in requests and responses.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an id: enough for those of proxies and tracers. A longer one is replaced.
const LEN_MAX: usize = 128;

tokio::task_local! {
    static CURRENT: HeaderValue;
}

/// The request's own id, if it has 1 to 128 visible ASCII characters; otherwise a new one.
pub(crate) fn of(headers: &HeaderMap) -> HeaderValue {
    let own = headers
        .get(X_REQUEST_ID)
        .filter(|id| (1..=LEN_MAX).contains(&id.len()) && id.as_bytes().iter().all(|byte| byte.is_ascii_graphic()));
    own.cloned().unwrap_or_else(|| {
        let id = uuid::Uuid::now_v7().to_string();
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// Runs a future in which [`current`] is the id of its request.
pub(crate) async fn scope<F: Future>(id: HeaderValue, request: F) -> F::Output {
    CURRENT.scope(id, request).await
}

/// The id of the request that is being handled.
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(|id| id.to_str().ok().map(str::to_owned)).ok().flatten()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_id_is_replaced() {
        let id_of = |id: &[u8]| of(&HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_bytes(id).unwrap())]));
        assert_eq!(id_of(b"abc-123"), "abc-123");
        for bad in [b"".as_slice(), b"a b", "\u{e9}".as_bytes(), &[b'x'; 129]] {
            assert_eq!(id_of(bad).len(), 36);
        }
    }
}
