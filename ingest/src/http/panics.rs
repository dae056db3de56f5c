//! A panic in a request handler ends its request, not the process.
//!
//! tower-http's `catch-panic` layer does the same, but changes the type of the response body, and warp has no way back to its own.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use warp::reply::Response;

use crate::metrics::HANDLER_PANICS;
use crate::problem::Problem;

/// Awaits a response. After a panic the client gets a 500; the panic is logged and counted.
pub(super) async fn catch(
    response: impl Future<Output = Result<Response, Infallible>>,
) -> Result<Response, Infallible> {
    // Requests share state only behind locks, and no holder of one leaves the state inconsistent when it panics.
    AssertUnwindSafe(response).catch_unwind().await.unwrap_or_else(|panic| {
        tracing::error!(panic = message(&*panic), "a request handler panicked");
        HANDLER_PANICS.with(&[]).increment(1);
        Ok(Problem::internal_error().into_response())
    })
}

/// The text of a panic; `panic!` makes one of these two types.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
