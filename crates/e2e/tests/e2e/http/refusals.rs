//! Invalid requests are rejected with problem details that name the reason, and never appended.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use e2e::harness::{Installation, Service};
use reqwest::Method;
use tokio::task::block_in_place;

use super::api::{Api, DEADLINE, logged};
use super::refused::{CART, PRODUCT, Refusal, fields, item, malformed, requests};

/// The default of `--body-len-max`.
const BODY_LEN_MAX: usize = 131_072;

async fn refuses_all(api: &Api, refusals: Vec<Refusal>) -> anyhow::Result<()> {
    let mut differences = Vec::new();
    for refusal in refusals {
        differences.extend(refusal.check(api).await?);
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
    Ok(())
}

pub(crate) async fn invalid_requests_are_rejected_and_not_appended() -> anyhow::Result<()> {
    let installation = Installation::new("refusals")?;
    installation.setup().await?;
    // There is no processor: an appended record would stay in the log and be answered with 202.
    let strict: &[&str] = &["--body-timeout-ms", "500", "--reply-timeout-ms", "10000"];
    let lenient = [strict, &["--allow-client-time", "--body-len-max", "64"]].concat();
    let processes =
        installation.start_all(&[(Service::Ingest, "strict", strict), (Service::Ingest, "lenient", &lenient)]).await?;
    let (strict, lenient) = (Api::new(&processes[0]), Api::new(&processes[1]));

    let mut all = malformed();
    all.extend(fields());
    all.extend(requests());
    all.extend(too_large(BODY_LEN_MAX));
    all.extend(times("accepted only by an ingest with --allow-client-time"));
    refuses_all(&strict, all).await?;
    let not_times = times("Command-Time: ");
    refuses_all(&lenient, not_times.into_iter().filter(|refusal| !refusal.has("2010-12-01T08:25:53Z")).collect())
        .await?;
    refuses_all(&lenient, too_large(64)).await?;
    wrong_methods(&strict).await?;
    heads(&strict).await?;
    raw(processes[0].address().expect("ingest has an address"))?;
    assert_eq!(logged(&installation)?, 0, "no record is appended");

    // A valid command is appended, so the count above means something.
    let now: [(&str, &str); 2] = [("content-type", "application/json"), ("prefer", "respond-async")];
    let taken = strict.send(&Method::POST, CART, &now, Some(item("", "").as_bytes())).await?;
    assert_eq!((taken.status, logged(&installation)?), (202, 1), "{taken:?}");
    drop(processes);
    installation.remove().await
}

/// A body one byte above the limit, and one at the limit, which is rejected for its content.
fn too_large(max: usize) -> Vec<Refusal> {
    let mut all = Vec::new();
    for (len, problem) in [
        (max, (400, "malformed-body", "EOF while parsing".to_owned())),
        (max + 1, (413, "payload-too-large", format!("the body has more than {max} bytes"))),
    ] {
        for (method, path) in [
            (Method::POST, CART.to_owned()),
            (Method::PATCH, format!("{CART}{PRODUCT}")),
            (Method::POST, format!("{CART}/commands")),
        ] {
            all.push(Refusal::new(method, path, problem.clone()).body(" ".repeat(len)));
        }
    }
    all
}

fn times(detail: &str) -> Vec<Refusal> {
    let times = [
        "2010-12-01T08:25:53Z",
        "yesterday",
        "",
        "2010-12-01",
        "2010-12-01T08:25:53",
        "2010-02-30T08:25:53Z",
        "9999-12-31T23:59:59-00:01",
        "0000-01-01T00:00:00+00:01",
        "0000-06-01T00:00:00Z",
        // There was no leap second at the end of that year.
        "2015-12-31T23:59:60Z",
    ];
    let refusal = |time: &str| {
        let problem = (400, "invalid-header", detail.to_owned());
        Refusal::new(Method::DELETE, format!("{CART}{PRODUCT}"), problem).header(("command-time", time))
    };
    times.map(refusal).into()
}

/// Each path lists its methods.
async fn wrong_methods(api: &Api) -> anyhow::Result<()> {
    let (get, put, post, patch, delete) = (Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE);
    let command = format!("{CART}/commands/7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff");
    for (path, allow, wrong) in [
        // PUT must be idempotent, and a repeated add is rejected.
        (CART, "GET, POST", vec![&put, &patch, &delete, &Method::OPTIONS]),
        (&format!("{CART}{PRODUCT}"), "DELETE, PATCH", vec![&get, &put, &post]),
        (&format!("{CART}/checkout"), "POST", vec![&get, &put, &patch, &delete]),
        (&format!("{CART}/commands"), "POST", vec![&get, &put, &patch, &delete]),
        (&command, "GET", vec![&put, &post, &patch, &delete]),
        ("/health/live", "GET", vec![&post, &delete]),
        ("/health/ready", "GET", vec![&post, &delete]),
    ] {
        for method in wrong {
            let answer = api.send(method, path, &[], None).await?;
            let difference = answer.unlike_problem(405, "method-not-allowed", &format!("this path supports {allow}"));
            assert_eq!(difference, None, "{method} {path}");
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        }
    }
    Ok(())
}

/// HEAD returns the headers of GET, without the body.
async fn heads(api: &Api) -> anyhow::Result<()> {
    for path in [CART, "/health/live", "/openapi.json", "/nowhere"] {
        let get = api.send(&Method::GET, path, &[], None).await?;
        let head = api.send(&Method::HEAD, path, &[], None).await?;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        for name in ["content-type", "content-length", "etag"] {
            let is_same = head.header(name) == get.header(name);
            assert!(is_same || path == "/nowhere", "{name} of {path}: {head:?}, {get:?}");
        }
        assert_eq!(head.header("content-length"), Some(get.text.len().to_string().as_str()), "{path}");
    }
    Ok(())
}

/// Requests that no HTTP library would send, written byte by byte.
fn raw(address: SocketAddr) -> anyhow::Result<()> {
    let head = |more: &str| {
        format!("POST {CART} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{more}\r\n")
    };
    let chunk = |len: usize| format!("{len:x}\r\n{}\r\n", " ".repeat(len));
    let get = |version: &str, more: &str| format!("GET /health/live {version}\r\nconnection: close\r\n{more}\r\n");
    let valid = item("", "");
    let coded = |codings: &str| {
        let head = head(&format!("transfer-encoding: {codings}\r\n")).replace("connection: close\r\n", "");
        format!("{head}{:x}\r\n{valid}\r\n0\r\n\r\n", valid.len())
    };
    let long = format!("content-length: {}\r\n", valid.len() + 1);
    let chunked = head("transfer-encoding: chunked\r\n");
    let no_cart = chunked.replace(CART, "/cart/mug");
    let bad_key = head("transfer-encoding: chunked\r\nidempotency-key:\r\n");
    let (half, rest) = (BODY_LEN_MAX / 2, BODY_LEN_MAX / 2 + 1);
    for (what, request, status, kind) in [
        ("chunks that are too many", format!("{chunked}{}{}", chunk(half), chunk(rest)), 413, "payload-too-large"),
        ("chunks that just fit", format!("{chunked}{}{}0\r\n\r\n", chunk(half), chunk(half)), 400, "malformed-body"),
        // The id is checked before the body is read.
        ("too many chunks for no cart", format!("{no_cart}{}{}", chunk(half), chunk(rest)), 400, "invalid-id"),
        // So are the headers.
        ("a chunk with a bad key that stops coming", format!("{bad_key}ff\r\n{valid}"), 400, "invalid-header"),
        ("a chunk for no cart that stops coming", format!("{no_cart}ff\r\n{valid}"), 400, "invalid-id"),
        (
            "a length that is too large",
            head("content-length: 10000000000\r\n") + &chunk(BODY_LEN_MAX),
            413,
            "payload-too-large",
        ),
        ("a body that stops coming", head(&long) + &valid, 408, "request-timeout"),
        ("a chunk that stops coming", format!("{chunked}ff\r\n{valid}"), 408, "request-timeout"),
        ("a chunk without a length", format!("{chunked}x\r\n{valid}\r\n0\r\n\r\n"), 400, ""),
        ("no request line", format!("{valid}\r\n\r\n"), 400, ""),
        ("no HTTP version", format!("POST {CART}\r\n\r\n"), 400, ""),
        ("a header without a name", head(": x\r\n"), 400, ""),
        ("two lengths", head("content-length: 1\r\ncontent-length: 2\r\n"), 400, ""),
        ("a head that is too long", head(&format!("x: {}\r\n", "x".repeat(1 << 20))), 431, ""),
        // Host, Connection and Content-Type are three of a head's 100.
        ("as many fields as there may be", head(&"x: y\r\n".repeat(97)), 400, "malformed-body"),
        ("one field too many", head(&"x: y\r\n".repeat(98)), 431, ""),
        ("no host", get("HTTP/1.1", ""), 400, "invalid-header"),
        ("two hosts", get("HTTP/1.1", "host: x\r\nhost: x\r\n"), 400, "invalid-header"),
        ("an empty host", get("HTTP/1.1", "host:\r\n"), 400, "invalid-header"),
        ("a user as host", get("HTTP/1.1", "host: user@x\r\n"), 400, "invalid-header"),
        ("two hosts in one", get("HTTP/1.1", "host: x, y\r\n"), 400, "invalid-header"),
        ("an invalid port", get("HTTP/1.1", "host: x:65536\r\n"), 400, "invalid-header"),
        ("HTTP/1.0 without a host", get("HTTP/1.0", ""), 200, ""),
        ("HTTP/1.0 with two hosts", get("HTTP/1.0", "host: x\r\nhost: y\r\n"), 400, "invalid-header"),
        ("a host with a port", get("HTTP/1.1", "host: [::1]:9001\r\n"), 200, ""),
        ("a compressed transfer", coded("gzip, chunked"), 400, "invalid-header"),
        ("a transfer in chunks of chunks", coded("chunked, chunked"), 400, "invalid-header"),
        ("two transfer codings", coded("chunked\r\ntransfer-encoding: chunked"), 400, "invalid-header"),
        ("a transfer that does not end", coded("gzip"), 400, ""),
    ] {
        let answer = exchange(address, request.as_bytes(), false);
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        // HTTP/1.0 is answered with HTTP/1.0.
        assert_eq!(answer.split(' ').nth(1), Some(status.to_string().as_str()), "{what}: {answer}");
        assert!(kind.is_empty() || answer.contains(&format!("\"urn:cart:problem:{kind}\"")), "{what}: {answer}");
    }
    // A client that disconnects before the end of its body has sent nothing, although the first part is a whole item.
    for cut in [head(&long) + &valid, format!("{chunked}{:x}\r\n{valid}\r\n", valid.len())] {
        let answer = exchange(address, cut.as_bytes(), true)?;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    Ok(())
}

/// Sends bytes on a new connection, and reads until its end.
fn exchange(address: SocketAddr, request: &[u8], then_ends: bool) -> std::io::Result<String> {
    block_in_place(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        // A request that is rejected early is not read to its end, and still gets its answer.
        let unless_closed = |result: std::io::Result<()>| match result {
            Err(error) if [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&error.kind()) => Ok(()),
            result => result,
        };
        unless_closed(stream.write_all(request))?;
        if then_ends {
            stream.shutdown(Shutdown::Write)?;
        }
        let mut answer = Vec::new();
        unless_closed(stream.read_to_end(&mut answer).map(|_| ()))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}
