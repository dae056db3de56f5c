//! The HTTP API: paths, headers and bodies in, responses out.

mod accept;
mod body;
mod conditions;
mod headers;
mod json;
mod openapi;
mod query;
mod request;
mod response;
mod routes;

pub(crate) use body::BodyLimits;
pub use request::commands_of;
pub(crate) use routes::{Api, routes};
