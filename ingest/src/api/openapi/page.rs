//! The page at `/docs`: Swagger UI, which shows the document and sends requests from the browser. Everything is served from this
//! program; `swagger-ui/README.md` has the version of the files and how to replace them.

use std::io::Read as _;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::read::GzDecoder;
use warp::http::{HeaderMap, HeaderValue, header};
use warp::reply::Response;

use crate::api::accept;
use crate::problem::Problem;

/// The page may load and call this service only. `data:` images are the symbols in Swagger UI's style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The address of a file changes with its version (see page.html), so a browser asks once.
const UNCHANGING: &str = "public, max-age=31536000, immutable";

/// A browser asks for these again, so that they fit the running service.
const CHECKED: &str = "no-cache";

/// A file of Swagger UI, compressed.
#[derive(Debug)]
struct Asset {
    content_type: &'static str,
    compressed: &'static [u8],
    plain: OnceLock<Bytes>,
}

static BUNDLE: Asset =
    Asset::new("text/javascript; charset=utf-8", include_bytes!("swagger-ui/swagger-ui-bundle.js.gz"));
static STYLE: Asset = Asset::new("text/css; charset=utf-8", include_bytes!("swagger-ui/swagger-ui.css.gz"));

impl Asset {
    const fn new(content_type: &'static str, compressed: &'static [u8]) -> Self {
        Self { content_type, compressed, plain: OnceLock::new() }
    }

    /// Decompressed once, for clients that take nothing else.
    fn plain(&self) -> Bytes {
        let decompress = || {
            let mut plain = Vec::new();
            // The file is part of the program; a test decompresses it.
            GzDecoder::new(self.compressed).read_to_end(&mut plain).unwrap_or_default();
            Bytes::from(plain)
        };
        self.plain.get_or_init(decompress).clone()
    }

    fn response(&self, headers: &HeaderMap) -> Response {
        let is_compressed = accept::takes_gzip(headers);
        let body = if is_compressed { Bytes::from_static(self.compressed) } else { self.plain() };
        let mut response = with_type(body, self.content_type, UNCHANGING);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_compressed {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

fn with_type(body: impl Into<Bytes>, content_type: &'static str, caching: &'static str) -> Response {
    let mut response = warp::reply::Response::new(body.into().into());
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, caching),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The page.
pub(crate) fn page() -> Response {
    let mut response = with_type(include_str!("page.html"), "text/html; charset=utf-8", CHECKED);
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::REFERRER_POLICY, "no-referrer")];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A file of the page, by its name below `/docs/`.
pub(crate) fn file(name: &str, headers: &HeaderMap) -> Response {
    match name {
        "page.js" => with_type(include_str!("page.js"), "text/javascript; charset=utf-8", CHECKED),
        "page.css" => with_type(include_str!("page.css"), "text/css; charset=utf-8", CHECKED),
        "swagger-ui-bundle.js" => BUNDLE.response(headers),
        "swagger-ui.css" => STYLE.response(headers),
        _ => Problem::not_found().into_response(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use sha2::{Digest as _, Sha256};
    use warp::http::HeaderName;

    use super::*;

    /// What a response has of a header.
    fn value(response: &Response, name: HeaderName) -> &str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn len(response: &Response) -> u64 {
        hyper::body::Body::size_hint(response.body()).exact().unwrap()
    }

    #[test]
    fn the_files_are_those_of_the_readme() {
        let readme = include_str!("swagger-ui/README.md");
        for (name, asset) in [("swagger-ui-bundle.js", &BUNDLE), ("swagger-ui.css", &STYLE)] {
            let hash: String = Sha256::digest(asset.plain()).iter().map(|byte| format!("{byte:02x}")).collect();
            let line = readme.lines().find(|line| line.contains(&format!("`{name}.gz`"))).unwrap();
            assert!(line.contains(&hash), "{name} is {hash}");
            let version = line.split('|').nth(2).unwrap().trim();
            let address = format!("\"/docs/{name}?{version}\"");
            assert!(include_str!("page.html").contains(&address), "the page does not load {address}");
        }
    }

    #[test]
    fn a_file_is_compressed_for_those_who_take_it() {
        let gzip = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"))]);
        for (name, content_type) in [("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css")] {
            let (small, plain) = (file(name, &gzip), file(name, &HeaderMap::new()));
            assert_eq!(
                (value(&small, header::CONTENT_ENCODING), value(&plain, header::CONTENT_ENCODING)),
                ("gzip", "")
            );
            assert!(3 * len(&small) < len(&plain), "{name}: {} and {}", len(&small), len(&plain));
            for response in [small, plain] {
                assert!(value(&response, header::CONTENT_TYPE).starts_with(content_type), "{response:?}");
                assert_eq!(value(&response, header::VARY), "accept-encoding");
                assert_eq!(value(&response, header::CACHE_CONTROL), UNCHANGING);
            }
        }
        assert_eq!(file("swagger-ui.js.map", &gzip).status(), 404);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_runs_no_script_of_its_own() {
        let html = include_str!("page.html");
        for attribute in ["src=\"", "href=\""] {
            for address in html.split(attribute).skip(1) {
                assert!(
                    address.starts_with('/') && !address.starts_with("//") || address.starts_with("data:,"),
                    "{address}"
                );
            }
        }
        let inline = html.split("<script").skip(1).filter(|script| !script.contains("></script>"));
        assert_eq!(inline.count(), 0);
        assert!(!html.contains("style=") && !html.contains("<style"));
        let page = page();
        let policy = value(&page, header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    }
}
