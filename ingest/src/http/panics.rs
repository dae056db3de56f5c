//! A panic in a request handler ends its request, not the process.
//!
//! tower-http's `catch-panic` layer does the same, but changes the type of the response body, and warp has no way back to its own.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use warp::reply::Response;

use crate::problem::Problem;

/// A counter.
pub(crate) const HANDLER_PANICS: &str = "ingest_handler_panics_total";

/// Awaits a response. After a panic the client gets a 500; the panic is logged and counted.
pub(super) async fn catch(
    response: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, Infallible> {
    // Requests share state only behind locks, and no holder of one leaves the state inconsistent when it panics.
    AssertUnwindSafe(response).catch_unwind().await.unwrap_or_else(|panic| {
        tracing::error!(panic = message(&*panic), "a request handler panicked");
        metrics::counter!(HANDLER_PANICS).increment(1);
        metrics::counter!("ingest_responses_total", "status" => "500").increment(1);
        Ok(Problem::internal_error().into_response())
    })
}

/// The text of a panic; `panic!` makes one of these two types.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use clap::Parser as _;
    use service::{Metrics, Readiness, Shutdown};
    use tokio::net::TcpListener;
    use warp::{Filter as _, Reply as _, path};

    use super::*;
    use crate::auth::{Auth, AuthArgs};
    use crate::http::{ConnectionPolicy, LimitArgs, serve};

    #[derive(clap::Parser)]
    struct Args {
        #[command(flatten)]
        auth: AuthArgs,
        #[command(flatten)]
        limits: LimitArgs,
    }

    /// Sends the text, and returns the responses when the server has closed the connection.
    fn exchange(address: SocketAddr, requests: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut responses = String::new();
        stream.read_to_string(&mut responses).unwrap();
        responses
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_a_500_and_its_connection_goes_on() {
        let metrics = Metrics::install(&[HANDLER_PANICS]).unwrap();
        let args = Args::parse_from(["test"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, shutdown) = Shutdown::channel();
        let auth = Auth::start(&args.auth, address, Duration::ZERO, shutdown.clone()).await.unwrap();
        let policy = ConnectionPolicy { auth, cors: None, tls: None, limits: args.limits, body_len_max: 0 };
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
        let metrics = metrics.render();
        for line in ["ingest_handler_panics_total 1", "ingest_responses_total{status=\"500\"} 1"] {
            assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
        }
    }
}
