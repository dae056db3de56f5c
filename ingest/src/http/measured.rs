//! Counts a request and measures its time.

use std::time::Instant;

use warp::http::{Method, StatusCode};

use crate::metrics::{CANCELLED, REQUEST_SECONDS, REQUESTS, REQUESTS_IN_FLIGHT};
use crate::route;

/// A request that is being answered.
pub(super) struct Measured {
    method: &'static str,
    route: &'static str,
    started_at: Instant,
    is_answered: bool,
}

impl Measured {
    pub(super) fn begin(method: &Method, path: &str) -> Self {
        REQUESTS_IN_FLIGHT.with(&[]).increment(1.0);
        let (method, route) = (route::method(method.as_str()), route::template(path));
        Self { method, route, started_at: Instant::now(), is_answered: false }
    }

    pub(super) fn answered(mut self, status: StatusCode) {
        self.is_answered = true;
        let outcome = match status.as_u16() {
            ..400 => "succeeded",
            400..500 => "rejected",
            500.. => "failed",
        };
        REQUESTS.with(&[self.method, self.route, status.as_str()]).increment(1);
        REQUEST_SECONDS.with(&[self.method, self.route, outcome]).record(self.started_at.elapsed());
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        REQUESTS_IN_FLIGHT.with(&[]).decrement(1.0);
        if !self.is_answered {
            REQUESTS.with(&[self.method, self.route, CANCELLED]).increment(1);
        }
    }
}
