//! The HTTP API: paths, headers and bodies in, responses out.

pub(crate) mod conditions;
pub(crate) mod headers;
pub(crate) mod openapi;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod routes;
