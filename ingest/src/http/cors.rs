//! Access of web pages to the API (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>). Only pages of the origins in
//! `--cors-origin` have it.

use std::time::Duration;

use tower_http::cors::CorsLayer;
use warp::http::header::{self, HeaderName};
use warp::http::{HeaderValue, Method, Request, Uri};

/// How long a browser may cache the response to a preflight: a changed setting takes effect within this time.
const MAX_AGE: Duration = Duration::from_secs(600);

const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE];

/// The request headers that the API reads.
const REQUEST_HEADERS: [HeaderName; 12] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("command-time"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("read-after"),
    HeaderName::from_static(cart::contract::header::TRACE_PARENT),
    HeaderName::from_static(cart::contract::header::TRACE_STATE),
    HeaderName::from_static("x-request-id"),
];

/// The response headers of the API, beyond those that a page may always read.
const RESPONSE_HEADERS: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::ALLOW,
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("read-after-token"),
    HeaderName::from_static("x-request-id"),
];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CorsArgs {
    /// Origins whose pages may use the API from a browser, such as https://shop.example, comma-separated; by default none
    #[arg(help_heading = "Authentication and access")]
    #[arg(long = "cors-origin", env = "CORS_ORIGIN", value_delimiter = ',', value_parser = origin)]
    origins: Vec<HeaderValue>,
}

impl CorsArgs {
    /// The layer that responds to preflights and adds the headers; `None` if no page has access.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let layer = CorsLayer::new().allow_origin(self.origins.clone()).max_age(MAX_AGE);
        let layer = layer.allow_methods(METHODS).allow_headers(REQUEST_HEADERS).expose_headers(RESPONSE_HEADERS);
        (!self.origins.is_empty()).then_some(layer)
    }
}

/// Whether a request goes through the layer: by itself, the layer responds to every OPTIONS as if it were a preflight.
pub(super) fn is_for_layer<B>(request: &Request<B>) -> bool {
    let has = |name| request.headers().contains_key(name);
    request.method() != Method::OPTIONS || has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// An origin in the spelling of browsers: another spelling would never match.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let uri: Uri = text.parse().map_err(|_| format!("'{text}' is not an origin such as https://shop.example"))?;
    let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(format!("'{text}' is not an origin: it must begin with https:// or http://")),
    };
    let port = uri.port_u16().filter(|port| *port != default_port).map(|port| format!(":{port}")).unwrap_or_default();
    let sent = format!("{scheme}://{}{port}", host.to_ascii_lowercase());
    if text != sent {
        return Err(format!("'{text}' is not an origin as browsers send it: did you mean {sent}?"));
    }
    HeaderValue::try_from(sent).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_the_spelling_of_browsers() {
        for valid in [
            "https://shop.example",
            "http://localhost:3000",
            "https://shop.example:8443",
            "http://[::1]:3000",
            "http://a:443",
        ] {
            assert_eq!(origin(valid).as_ref().map(HeaderValue::as_bytes), Ok(valid.as_bytes()));
        }
        for (invalid, reason) in [
            ("", "is not an origin"),
            ("*", "must begin with https://"),
            ("null", "must begin with https://"),
            ("shop.example", "must begin with https://"),
            ("ftp://shop.example", "must begin with https://"),
            ("https://shop.example/", "did you mean https://shop.example?"),
            ("https://shop.example/cart", "did you mean https://shop.example?"),
            ("https://shop.example?x", "did you mean https://shop.example?"),
            ("https://shop.example:443", "did you mean https://shop.example?"),
            ("http://shop.example:80", "did you mean http://shop.example?"),
            ("https://Shop.example", "did you mean https://shop.example?"),
            ("https://user@shop.example", "did you mean https://shop.example?"),
            ("https://*.example ", "is not an origin"),
            ("https://caf\u{e9}.example", "is not an origin"),
        ] {
            let error = origin(invalid).expect_err(invalid);
            assert!(error.contains(reason), "{invalid}: {error}");
        }
    }

    #[test]
    fn only_preflights_go_through_the_layer() {
        let request = |method: &str, names: &[&str]| {
            let request = Request::builder().method(method);
            names.iter().fold(request, |request, name| request.header(*name, "x")).body(()).expect("a request")
        };
        assert!(is_for_layer(&request("GET", &[])) && is_for_layer(&request("POST", &["origin"])));
        assert!(is_for_layer(&request("OPTIONS", &["origin", "access-control-request-method"])));
        assert!(!is_for_layer(&request("OPTIONS", &[])) && !is_for_layer(&request("OPTIONS", &["origin"])));
    }
}
