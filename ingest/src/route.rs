//! The templates of the paths: what a request is called in metrics and traces, whatever ids are in its path.

/// The paths of the API and their methods.
pub(crate) const ROUTES: &[(&str, &[&str])] = &[
    ("/cart/{cartId}", &["GET", "POST"]),
    ("/cart/{cartId}/productId/{productId}", &["DELETE", "PATCH"]),
    ("/cart/{cartId}/checkout", &["POST"]),
    ("/cart/{cartId}/commands", &["POST"]),
    ("/cart/{cartId}/commands/{commandId}", &["GET"]),
    ("/cart/{cartId}/events", &["GET"]),
    ("/vendors/{vendorId}/billing", &["GET"]),
    ("/vendors/{vendorId}/products/{productId}/quantities", &["GET"]),
];

/// The paths that describe the API and the service.
const MORE: &[&str] = &["/", "/docs", "/docs/{file}", "/openapi.json", "/health/live", "/health/ready"];

/// The methods that are named; clients can make up others.
pub(crate) const METHODS: &[&str] = &["GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT"];

/// What is not named.
pub(crate) const OTHER: &str = "other";

/// The template of a path.
pub(crate) fn template(path: &str) -> &'static str {
    let all = ROUTES.iter().map(|(template, _)| *template).chain(MORE.iter().copied());
    all.into_iter().find(|template| matches(template, path)).unwrap_or(OTHER)
}

fn matches(template: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found || (wanted.starts_with('{') && !found.is_empty()) => {}
            _ => return false,
        }
    }
}

/// The name of a method.
pub(crate) fn method(method: &str) -> &'static str {
    METHODS.iter().copied().find(|known| *known == method).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_called_by_its_template_whatever_its_ids() {
        for (path, expected) in [
            ("/cart/7", "/cart/{cartId}"),
            ("/cart/7/checkout", "/cart/{cartId}/checkout"),
            ("/cart/7/commands/8", "/cart/{cartId}/commands/{commandId}"),
            ("/vendors/a/products/b/quantities", "/vendors/{vendorId}/products/{productId}/quantities"),
            ("/", "/"),
            ("/health/live", "/health/live"),
            ("/cart/", "other"),
            ("/cart/7/", "other"),
            ("/wp-login.php", "other"),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
        assert_eq!((method("PATCH"), method("patch")), ("PATCH", "other"));
    }
}
