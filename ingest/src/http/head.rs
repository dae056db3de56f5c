//! A request's head, before authorization and routes: rejects heads that hyper accepts although a server must not, and gives the
//! path the one spelling that authorization and routes compare.

use std::net::Ipv6Addr;

use warp::http::uri::{Authority, PathAndQuery, Uri};
use warp::http::{HeaderMap, HeaderValue, Version, header};

use crate::problem::Problem;

/// Rejects a head with an ambiguous target or framing (RFC 9112, sections 3.2 and 6.1).
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), Problem> {
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    match hosts[..] {
        // HTTP/1.0 has no Host, and HTTP/2 has `:authority`.
        [] if version == Version::HTTP_11 => {
            return Err(Problem::invalid_header("Host is missing: HTTP/1.1 requires it"));
        }
        [] => {}
        [host] if is_host(host) => {}
        [_] => return Err(Problem::invalid_header("Host must be a host name or address, with or without a port")),
        _ => return Err(Problem::invalid_header("Host is given more than once")),
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(encoding), None) if encoding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        // hyper accepts any list that ends with `chunked`, and passes on a body that the other codings still encode.
        _ => Err(Problem::unclear_framing("Transfer-Encoding must be chunked, once, or absent")),
    }
}

fn is_host(value: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(value.as_bytes()) else { return false };
    let host = authority.host();
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(is_segment_byte) && !host.contains('@'),
    };
    // A user before the host makes the rest longer than a port.
    let is_port =
        |port: &str| port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let rest = authority.as_str().strip_prefix(host);
    is_host && rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// Decodes the percent-encoded bytes of the path that do not change its meaning, so that `/cart/%37b6f...` is `/cart/7b6f...`;
/// `None` if there is nothing to decode. The result is equivalent by RFC 3986, section 6.2.2.2. Braces and the delimiters
/// within a segment are decoded as well: UUIDs may contain them.
///
/// Bytes that would change the path (`%2F`, `%25`) or are not allowed in one stay encoded: no id has them.
pub(super) fn decode_path(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let first = path.find('%')?;
    let (mut decoded, mut rest) = (String::from(&path[..first]), &path[first..]);
    while let Some(character) = rest.chars().next() {
        let byte =
            rest.get(1..3).filter(|_| character == '%').and_then(hexadecimal).filter(|byte| is_segment_byte(*byte));
        decoded.push(byte.map_or(character, char::from));
        rest = &rest[byte.map_or(character.len_utf8(), |_| 3)..];
    }
    if let Some(query) = uri.query() {
        decoded.push('?');
        decoded.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(decoded).ok()?);
    Uri::from_parts(parts).ok()
}

fn hexadecimal(digits: &str) -> Option<u8> {
    // Rust would also read a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Bytes that are not encoded in a segment of a path: `pchar` of RFC 3986, and braces.
fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@{}".contains(&byte)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use warp::http::header::HeaderName;

    use super::*;

    fn checked(version: Version, all: &[(HeaderName, &str)]) -> Result<(), String> {
        let headers =
            all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        check(version, &headers.collect()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn http_1_1_requires_one_valid_host() {
        let host = |value| checked(Version::HTTP_11, &[(header::HOST, value)]);
        for valid in [
            "x",
            "shop.example",
            "shop.example:8080",
            "shop.example:",
            "127.0.0.1:9001",
            "[::1]",
            "[::1]:80",
            "my_shop",
            "SHOP",
            "xn--caf-dma.example",
        ] {
            assert_eq!(host(valid), Ok(()), "{valid}");
        }
        for invalid in [
            "",
            " ",
            "a b",
            "a, b",
            "user@shop",
            "user:secret@shop",
            "shop/",
            "shop?x",
            "shop#x",
            "http://shop",
            ":80",
            "shop:x",
            "shop:+80",
            "shop:65536",
            "shop:-1",
            "::1",
            "[::1",
            "[shop]",
            "[::1]80",
            "a:1:2",
            "caf\u{e9}",
            "a\\b",
            "<shop>",
            "\"shop\"",
            "a\tb",
        ] {
            assert!(host(invalid).unwrap_err().contains("Host must be"), "{invalid}");
        }
        assert!(checked(Version::HTTP_11, &[]).unwrap_err().contains("Host is missing"));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            let twice = checked(version, &[(header::HOST, "x"), (header::HOST, "x")]);
            assert!(twice.unwrap_err().contains("more than once"), "{version:?}");
            assert!(checked(version, &[(header::HOST, "a b")]).is_err(), "{version:?}");
        }
        for version in [Version::HTTP_10, Version::HTTP_2] {
            assert_eq!(checked(version, &[]), Ok(()), "{version:?}");
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        let coded = |all: &[&str]| {
            let host = [(header::HOST, "x")];
            let all: Vec<_> =
                host.into_iter().chain(all.iter().map(|value| (header::TRANSFER_ENCODING, *value))).collect();
            checked(Version::HTTP_11, &all)
        };
        assert_eq!((coded(&[]), coded(&["chunked"]), coded(&["Chunked "])), (Ok(()), Ok(()), Ok(())));
        for bad in [
            &["gzip, chunked"][..],
            &["chunked, chunked"],
            &["chunked", "chunked"],
            &["gzip", "chunked"],
            &["chunked, identity"],
            &["identity"],
            &["chunked;x=1"],
            &["xchunked"],
            &[""],
            &[",chunked"],
        ] {
            assert!(coded(bad).unwrap_err().contains("Transfer-Encoding must be chunked"), "{bad:?}");
        }
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (given, path) in [
            ("/cart/%37b6f", "/cart/7b6f"),
            ("/%63art/%41/%70roductId?x=%31", "/cart/A/productId?x=%31"),
            ("/cart/%7B7b6f%7d", "/cart/{7b6f}"),
            ("/cart/{7b6f%7D", "/cart/{7b6f}"),
            ("/cart/urn%3Auuid%3a7b6f", "/cart/urn:uuid:7b6f"),
            ("/cart/a%2Fb%2f", "/cart/a%2Fb%2f"),
            ("/cart/%2525%37", "/cart/%25257"),
            ("/cart/%3F%23%20%00%0a%5C%e9%37", "/cart/%3F%23%20%00%0a%5C%e97"),
            ("/cart/%zz%4%+1%%37", "/cart/%zz%4%+1%7"),
            ("/cart/%2e%2E/x", "/cart/../x"),
            ("http://shop:80/cart/%37?y", "http://shop:80/cart/7?y"),
        ] {
            let decoded = decode_path(&given.parse().unwrap()).unwrap();
            assert_eq!(decoded.to_string(), path, "{given}");
        }
        assert_eq!(decode_path(&"/cart/7b6f?x=%37".parse().unwrap()), None);
    }

    proptest::proptest! {
        #[test]
        fn decoding_keeps_the_segments_of_a_path(path in r"/[%0-9a-fA-F/{}~:. -]{0,40}") {
            let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
            let decoded = decode_path(&uri).unwrap_or_else(|| uri.clone());
            let segments = |uri: &Uri| uri.path().split('/').count();
            proptest::prop_assert_eq!(segments(&uri), segments(&decoded), "{}", path);
        }
    }
}
