//! The templates of the paths: what a request is called in traces, whatever ids are in its path.

/// The paths of carts and vendors.
const TEMPLATES: [&str; 8] = [
    "/cart/{cartId}",
    "/cart/{cartId}/productId/{productId}",
    "/cart/{cartId}/checkout",
    "/cart/{cartId}/commands",
    "/cart/{cartId}/commands/{commandId}",
    "/cart/{cartId}/events",
    "/vendors/{vendorId}/billing",
    "/vendors/{vendorId}/products/{productId}/quantities",
];

/// What is not named.
pub(crate) const OTHER: &str = "other";

/// The template of a path.
pub(crate) fn template(path: &str) -> &'static str {
    TEMPLATES.into_iter().find(|template| matches(template, path)).unwrap_or(OTHER)
}

fn matches(template: &str, path: &str) -> bool {
    let (mut names, mut words) = (template.split('/'), path.split('/'));
    loop {
        match (names.next(), words.next()) {
            (None, None) => return true,
            (Some(name), Some(word)) if name == word || (name.starts_with('{') && !word.is_empty()) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_called_by_its_template() {
        for (path, expected) in [
            ("/cart/7", "/cart/{cartId}"),
            ("/cart/7/commands/8", "/cart/{cartId}/commands/{commandId}"),
            ("/cart/", OTHER),
            ("/cart/7/", OTHER),
            ("/metrics", OTHER),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
    }
}
