//! Who may act at the page. What is allowed is invalid here for a later reason, no group has the name, so that no server is asked.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use service::Shutdown;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{DEADLINE, run, start, start_with};
use crate::actions::Actions;
use crate::args::Args;
use crate::http::STALL_MAX;
use crate::stores::Stores;

/// The private key of RFC 8410, section 10.3.
const KEY: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 0xd4, 0xee, 0x72,
    0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad, 0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1,
    0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];

const AUDIENCE: &str = "carts.example";
const ISSUER: &str = "https://issuer.example";

const PAUSE: &str = r#"{"action":"pause","group":"nothing","reason":"a test"}"#;

const JSON: &str = "content-type: application/json";

fn token(scope: &str, issuer: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let claims = json!({"sub": "olga", "scope": scope, "aud": AUDIENCE, "iss": issuer, "exp": now + 600});
    let header = Header::new(Algorithm::EdDSA);
    let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&KEY)).expect("a token");
    format!("authorization: Bearer {token}")
}

fn write_keys(path: &Path) {
    let key = Jwk::from_encoding_key(&EncodingKey::from_ed_der(&KEY), Algorithm::EdDSA).expect("a public key");
    std::fs::write(path, json!({"keys": [key]}).to_string()).expect("a file");
}

/// Sends a request, and returns the status and all of the response.
async fn ask(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let mut head = format!("{request} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.expect("a connection");
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer in time").expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

async fn act(address: SocketAddr, headers: &[&str], body: &str) -> (u16, String) {
    ask(address, "POST /api/operations", headers, body).await
}

/// What the page says of actions.
async fn settings(address: SocketAddr) -> Value {
    let (status, answer) = ask(address, "GET /api/settings", &[], "").await;
    assert_eq!(status, 200, "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str::<Value>(body).expect("JSON")["operations"].clone()
}

async fn actions(args: &[&str], shutdown: Shutdown) -> Option<Actions> {
    let args = Args::parse_from(["cart-console"].iter().chain(args));
    let stores = Arc::new(Stores::new(&args.kafka, &args.cassandra, &args.database).expect("a URL"));
    Actions::start(&args, stores, shutdown).await.expect("they are allowed")
}

#[test]
fn without_the_option_there_are_no_actions() {
    run(async {
        let server = start(STALL_MAX);
        let (status, answer) = act(server.address, &[JSON], PAUSE).await;
        assert!(status == 404 && answer.contains("--allow-operations"), "{answer}");
        assert_eq!(settings(server.address).await, Value::Null);
    });
}

#[test]
fn without_authentication_only_the_page_itself_may_act() {
    run(async {
        let (_stop, shutdown) = Shutdown::channel();
        let server = start_with(STALL_MAX, actions(&["--allow-operations"], shutdown).await);
        let address = server.address;
        assert_eq!(settings(address).await, json!({"needsToken": false}));
        for headers in [&[JSON][..], &[JSON, "origin: http://127.0.0.1"]] {
            let (status, answer) = act(address, headers, PAUSE).await;
            assert!(status == 400 && answer.contains("there is no such group"), "{answer}");
        }
        for headers in
            [&[JSON, "origin: https://elsewhere.example"][..], &[JSON, "origin: null"], &["content-type: text/plain"]]
        {
            assert_eq!(act(address, headers, PAUSE).await.0, 403, "{headers:?}");
        }
        let misspelt = r#"{"action":"pause","group":"vendor-billing","partitions":3,"reason":"a test"}"#;
        for body in ["{", "{}", misspelt, r#"{"action":"pause","group":"vendor-billing","reason":" "}"#] {
            assert_eq!(act(address, &[JSON], body).await.0, 400, "{body}");
        }
        let vendor = uuid::Uuid::nil();
        let row = format!(r#"{{"action":"retryRow","group":"cart-processor","vendorId":"{vendor}","row":"2026-11"}}"#);
        let (status, answer) = act(address, &[JSON], &row).await;
        assert!(status == 400 && answer.contains("cart-processor keeps no read table"), "{answer}");
        assert_eq!(ask(address, "GET /api/operations", &[], "").await.0, 405);
    });
}

#[test]
fn without_the_keys_of_the_issuer_nobody_may_act_yet() {
    run(async {
        // No server has this port.
        let verify =
            ["--auth", "jwt", "--jwks", "http://127.0.0.1:1/jwks", "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER];
        let (_stop, shutdown) = Shutdown::channel();
        let actions = actions(&[&["--allow-operations"][..], &verify].concat(), shutdown).await;
        let server = start_with(STALL_MAX, actions);
        assert_eq!(act(server.address, &[JSON], PAUSE).await.0, 401, "it has no token");
        let (status, answer) = act(server.address, &[JSON, token("operator", ISSUER).as_str()], PAUSE).await;
        assert!(status == 503 && answer.contains("the issuer's keys are not known yet"), "{answer}");
    });
}

#[test]
fn with_authentication_a_token_with_the_scope_may_act() {
    run(async {
        let keys = std::env::temp_dir().join(format!("console-actions-{}.json", std::process::id()));
        write_keys(&keys);
        let path = keys.display().to_string();
        let verify = ["--auth", "jwt", "--jwks", &path, "--jwt-audience", AUDIENCE, "--jwt-issuer", ISSUER];
        // Also on an address that others reach.
        let args = [&["--allow-operations", "--listen", "0.0.0.0:9010"][..], &verify].concat();
        let (_stop, shutdown) = Shutdown::channel();
        let server = start_with(STALL_MAX, actions(&args, shutdown).await);
        std::fs::remove_file(&keys).expect("the file");
        let address = server.address;
        assert_eq!(settings(address).await, json!({"needsToken": true}));

        let (operator, other) = (token("carts operator", ISSUER), token("carts operators", ISSUER));
        let forged = token("operator", "https://elsewhere.example");
        for (headers, expected, challenge) in [
            (&[JSON][..], 401, "Bearer realm=\"cart\"\r\n"),
            (&[JSON, forged.as_str()][..], 401, "error=\"invalid_token\""),
            (&[JSON, other.as_str()][..], 403, "error=\"insufficient_scope\", scope=\"operator\""),
        ] {
            let (status, answer) = act(address, headers, PAUSE).await;
            assert!(status == expected && answer.contains(challenge), "{headers:?}: {answer}");
        }
        let (status, answer) = act(address, &[JSON, operator.as_str()], PAUSE).await;
        assert!(status == 400 && answer.contains("there is no such group"), "{answer}");
        let (status, answer) =
            act(address, &[JSON, operator.as_str(), "origin: https://elsewhere.example"], PAUSE).await;
        assert!(status == 403 && answer.contains("only from this page"), "{answer}");
    });
}
