//! The files of the page, which are part of the binary, and the headers of all responses.

use warp::http::{HeaderName, HeaderValue, header};
use warp::reply::Response;

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asset {
    pub(crate) path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

macro_rules! assets {
    ($($path:literal $file:literal $content_type:literal;)+) => {
        &[$(Asset {
            path: $path,
            content_type: $content_type,
            content: include_str!(concat!("../../assets/", $file)),
        }),+]
    };
}

pub(crate) const ASSETS: &[Asset] = assets! {
    "" "index.html" "text/html; charset=utf-8";
    "style.css" "style.css" "text/css; charset=utf-8";
    "icon.svg" "icon.svg" "image/svg+xml";
    "main.js" "main.js" "text/javascript; charset=utf-8";
    "dom.js" "dom.js" "text/javascript; charset=utf-8";
    "pipeline.js" "pipeline.js" "text/javascript; charset=utf-8";
    "panels.js" "panels.js" "text/javascript; charset=utf-8";
    "dialogs.js" "dialogs.js" "text/javascript; charset=utf-8";
    "shop.js" "shop.js" "text/javascript; charset=utf-8";
    "operations.js" "operations.js" "text/javascript; charset=utf-8";
};

/// No scripts, styles, fonts or images from elsewhere, none inside the page, and no page around it.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // A new version of the binary brings new files.
    (header::CACHE_CONTROL, "no-cache"),
];

/// Adds the headers of all responses.
pub(crate) fn secured(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Asset {
    pub(crate) fn response(self) -> Response {
        let mut response = Response::new(self.content.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}

#[cfg(test)]
mod tests {
    use cart::contract::{READ_MODELS, ReadModel, STAGES};

    use super::*;

    fn content(path: &str) -> &'static str {
        ASSETS.iter().find(|asset| asset.path == path).expect("a file of the page").content
    }

    #[test]
    fn the_page_draws_every_stage_and_lists_every_table_in_order() {
        let pipeline = content("pipeline.js");
        for stage in STAGES {
            for name in [stage.group, stage.topic] {
                assert!(pipeline.contains(&format!("\"{name}\"")), "{name}");
            }
        }
        let dialogs = content("dialogs.js");
        let place = |model: &ReadModel| dialogs.find(&format!("[\"{}\"", model.table.name()));
        let places: Vec<_> = READ_MODELS.iter().map(place).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    }

    #[test]
    fn the_page_takes_reasons_as_long_as_the_server_does() {
        assert!(content("operations.js").contains(&format!("const REASON_MAX = {};", crate::actions::REASON_MAX)));
    }

    #[test]
    fn the_page_refers_only_to_its_own_files() {
        let page = content("");
        for reference in
            page.split("href=\"").chain(page.split("src=\"")).skip(1).filter_map(|rest| rest.split('"').next())
        {
            let path = reference.trim_start_matches('/');
            let is_own =
                ASSETS.iter().any(|asset| asset.path == path) || ["#main", "metrics", "api/now"].contains(&path);
            assert!(is_own || reference.starts_with('<'), "{reference}");
        }
        // The policy forbids them, and a browser would only complain.
        for forbidden in [" style=\"", "<style", "onclick=\""] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
