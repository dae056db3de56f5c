//! What is asked of a registry directly or by a proxy, and what its refusals become.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use super::*;

#[test]
fn loopback_is_this_machine() {
    for url in [
        "http://127.0.0.1:8081/apis/ccompat/v7",
        "http://127.255.0.9",
        "http://127.1:8081",
        "http://[::1]:8081/apis",
        "http://[::ffff:127.0.0.1]:8081",
        "http://localhost:8081",
        "http://LOCALHOST./",
        "https://user:secret@registry.localhost/",
    ] {
        assert!(is_loopback(url), "{url}");
    }
    for url in [
        "http://128.0.0.1:8081",
        "http://0.0.0.0:8081",
        "http://10.0.0.1",
        "http://[::2]:8081",
        "http://registry:8081",
        "http://localhost.example.com",
        "http://notlocalhost",
        "http://127.0.0.1.example.com",
        "http://example.com/127.0.0.1",
        "localhost:8081",
        "",
    ] {
        assert!(!is_loopback(url), "{url}");
    }
}

/// Answers each request with a schema, as a registry would, or with another status; shows the lines of each head to `seen`.
fn serve_with(status: &'static str, seen: impl Fn(&[String]) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = BufReader::new(&stream);
            let head = request.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let head: Vec<String> = head.collect();
            seen(&head);
            let len = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            // What is left unread would break the connection before the answer is read.
            request.read_exact(&mut vec![0; len.unwrap_or_default()]).unwrap();
            let body = r#"{"schema":"\"string\""}"#;
            let head = "content-type: application/json\r\nconnection: close\r\n";
            write!(stream, "HTTP/1.1 {status}\r\n{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    address
}

/// Does the same, and counts the requests.
fn serve(status: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let address = serve_with(status, move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    (address, requests)
}

const URL: &str = "TEST_REGISTRY_URL";

/// The environment is a process's own, so each request is made by a process of its own: this test again, with [`URL`] set.
#[test]
fn a_registry_on_this_machine_is_asked_without_the_proxy() {
    if let Ok(url) = std::env::var(URL) {
        return ask(url);
    }
    let (registry, direct) = serve("200 OK");
    let (proxy, proxied) = serve("200 OK");
    let counts = || (direct.load(Ordering::Relaxed), proxied.load(Ordering::Relaxed));
    let name = "registry::tests::a_registry_on_this_machine_is_asked_without_the_proxy";
    for (host, expected) in [
        ("127.0.0.1", (2, 0)),
        ("localhost", (4, 0)),
        // Another machine's registry is asked through the proxy: this test would see it.
        ("registry.invalid", (4, 2)),
    ] {
        let url = format!("http://{host}:{}/apis", registry.port());
        let mut again = Command::new(std::env::current_exe().unwrap());
        for name in ["no_proxy", "NO_PROXY", "HTTP_PROXY", "ALL_PROXY", "all_proxy"] {
            again.env_remove(name);
        }
        let proxy = format!("http://{proxy}");
        let output = again.args([name, "--exact"]).env(URL, &url).env("http_proxy", proxy).output().unwrap();
        assert!(output.status.success(), "{url}: {output:?}");
        assert_eq!(counts(), expected, "{url}");
    }
}

/// By both of its HTTP clients.
fn ask(schema_registry_url: String) {
    let args = KafkaArgs::plain("", &schema_registry_url);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let registry = Registry::new(&args).unwrap();
    runtime.block_on(registry.check()).unwrap();
    assert!(runtime.block_on(registry.schema(1)).unwrap().is_some());
}

#[test]
fn a_text_that_is_no_url_is_an_invalid_setting() {
    for text in ["", "no url", "registry:8081", "/apis"] {
        let error = Registry::new(&KafkaArgs::plain("", text)).unwrap_err();
        assert!(error_text(&error).contains("--schema-registry-url is not a URL"), "{text}: {}", error_text(&error));
    }
}

#[test]
fn a_missing_permission_is_told_from_a_wrong_password() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (status, is_denied, reason) in [
        ("403 Forbidden", true, "403 Forbidden: the registry's user may not do this"),
        ("401 Unauthorized", false, "401 Unauthorized: it wants a user: give --registry-user or --registry-token-file"),
        ("500 Internal Server Error", false, "500"),
    ] {
        let (address, _) = serve(status);
        let registry = Registry::new(&KafkaArgs::plain("", &format!("http://{address}/apis"))).unwrap();
        let results: [Result<(), Error>; 6] = runtime.block_on(async {
            [
                registry.check().await,
                registry.register("t", "{}").await.map(drop),
                registry.schema(1).await.map(drop),
                registry.compatibility("t").await.map(drop),
                registry.is_registered("t", "{}").await.map(drop),
                registry.remove_subject("t-value").await,
            ]
        });
        for error in results.map(Result::unwrap_err) {
            assert_eq!(error.is_denied(), is_denied, "{error}: {status}");
            assert!(error_text(&error).contains(reason), "{}", error_text(&error));
        }
    }
}

#[test]
fn each_request_has_the_token_that_is_in_the_file_by_then() {
    let (sender, heads) = channel();
    let address = serve_with("200 OK", move |head| {
        let is_authorization = |line: &&String| line.to_lowercase().starts_with("authorization:");
        sender.send(head.iter().filter(is_authorization).cloned().collect::<Vec<_>>()).unwrap();
    });
    let path = std::env::temp_dir().join(format!("cart-registry-token-{}", std::process::id()));
    let mut args = KafkaArgs::plain("", &format!("http://{address}/apis"));
    args.registry.registry_token_file = Some(path.clone());
    std::fs::write(&path, "first").unwrap();
    let registry = Registry::new(&args).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // With the line break that an editor leaves.
    for (text, token) in [("first", "first"), ("renewed\n", "renewed")] {
        std::fs::write(&path, text).unwrap();
        runtime.block_on(registry.check()).unwrap();
        assert!(runtime.block_on(registry.schema(1)).unwrap().is_some());
        // It has two HTTP clients.
        for _ in 0..2 {
            assert_eq!(heads.recv().unwrap(), [format!("authorization: Bearer {token}")]);
        }
    }
    std::fs::remove_file(&path).unwrap();
}
