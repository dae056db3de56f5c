//! Viewers and other clients over real connections, with frames that come faster than once a second.

mod actions;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use service::{Metrics, Readiness, Shutdown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch::Sender;
use tokio::time::{sleep, timeout};

use super::{CONNECTIONS_MAX, Page, STALL_MAX, listen, serve};
use crate::actions::Actions;
use crate::args::Args;
use crate::audience::{Audience, VIEWERS_MAX};
use crate::board::Board;
use crate::carts::Carts;
use crate::stores::Stores;

const DEADLINE: Duration = Duration::from_secs(60);

/// The longest pause of a client in the tests that wait for its end.
const SHORT: Duration = Duration::from_millis(300);

const FRAME_LEN: usize = 16 * 1024;
const FRAMES: usize = 120;

/// Viewers that do not read.
const STOPPED: usize = 40;

/// The growth of memory that is allowed: 40 stopped viewers would need 79 MB for all their frames.
const GROWTH_MAX: usize = 30 << 20;

async fn viewer(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8 * 1024)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(b"GET /api/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await?;
    Ok(stream)
}

fn frame(number: usize) -> Bytes {
    let mut text = format!("[{number:06}]");
    text.extend(std::iter::repeat_n('x', FRAME_LEN - text.len()));
    text.into()
}

/// Reads until the last frame, and returns how many came.
async fn read(mut stream: TcpStream) -> usize {
    let last = format!("[{FRAMES:06}]");
    let (mut text, mut chunk, mut frames) = (String::new(), vec![0; FRAME_LEN], 0);
    loop {
        let len = stream.read(&mut chunk).await.expect("a frame");
        assert_ne!(len, 0, "the viewer was disconnected");
        text.push_str(&String::from_utf8_lossy(&chunk[..len]));
        if text.contains(&last) {
            return frames + text.matches('[').count();
        }
        // A frame's number may be cut.
        let kept = text.len().saturating_sub(16);
        frames += text[..kept].matches('[').count();
        text.drain(..kept);
    }
}

/// The resident memory of this process.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("the memory of this process");
    let resident: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    resident * 4_096
}

/// The metrics of this process.
static METRICS: LazyLock<Metrics> =
    LazyLock::new(|| Metrics::install("cart-console", &[crate::METRICS], &[]).expect("the only one"));

/// One test at a time, since one measures the memory of this process.
static ALONE: Mutex<()> = Mutex::new(());

fn run(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    // It ends with all connections before the next test begins.
    runtime.block_on(test);
}

/// A server that ends with its runtime.
struct Server {
    address: SocketAddr,
    audience: Audience,
    _stop: Sender<bool>,
}

fn start(stall_max: Duration) -> Server {
    start_with(stall_max, None)
}

fn start_with(stall_max: Duration, actions: Option<Actions>) -> Server {
    let args = Args::parse_from(["cart-console"]);
    let stores = Arc::new(Stores::new(&args.kafka, &args.cassandra, &args.database).expect("a URL"));
    let audience = Audience::new();
    let page = Page {
        board: Arc::new(Board::default()),
        audience: audience.clone(),
        carts: Carts::new(&args.kafka, stores),
        shop: None,
        actions,
        trace_url: None,
        hosts: Vec::new(),
        readiness: Readiness::default(),
        metrics: METRICS.clone(),
    };
    let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, shutdown) = Shutdown::channel();
    tokio::spawn(serve(listener, page, stall_max, shutdown));
    Server { address, audience, _stop: stop }
}

/// Sends a request, and returns the beginning of the answer.
async fn answer(address: SocketAddr, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a connection");
    let mut answer = [0; 12];
    timeout(DEADLINE, stream.read_exact(&mut answer)).await.expect("an answer in time").expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// How many viewers were disconnected.
fn stalled() -> u64 {
    let text = METRICS.render(true);
    let line = text.lines().find_map(|line| line.strip_prefix("console_viewers_stalled_total"));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, |value| value.parse().expect("a number"))
}

#[test]
fn clients_that_never_send_their_bodies_are_disconnected() {
    run(async {
        let server = start(SHORT);
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut client = TcpStream::connect(server.address).await.expect("a connection");
            let path = format!("/api/shop/{}/items", uuid::Uuid::nil());
            let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{{");
            client.write_all(head.as_bytes()).await.expect("a connection");
            clients.push(client);
        }
        assert_eq!(answer(server.address, "/health/ready", "127.0.0.1").await, "HTTP/1.1 200");
        for client in &mut clients {
            let mut rest = Vec::new();
            // The end, or a reset since the server has not read everything.
            let ended = timeout(DEADLINE, client.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the connection was kept");
            assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        }
    });
}

#[test]
fn a_viewer_that_does_not_read_loses_its_seat() {
    run(async {
        let (server, before) = (start(SHORT), stalled());
        let _viewer = viewer(server.address).await.expect("a connection");
        let leaves = async {
            let mut number = 0;
            while stalled() == before || server.audience.viewers() > 0 {
                number += 1;
                server.audience.show(frame(number));
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, leaves).await.expect("it is disconnected");
        assert_eq!(stalled(), before + 1);
    });
}

#[test]
fn a_viewer_without_frames_keeps_its_seat() {
    run(async {
        let (server, before) = (start(SHORT), stalled());
        let mut viewer = viewer(server.address).await.expect("a connection");
        sleep(4 * SHORT).await;
        server.audience.show(Bytes::from_static(b"{}"));
        let mut text = String::new();
        let mut chunk = [0; 1_024];
        while !text.contains("data: {}") {
            let len = timeout(DEADLINE, viewer.read(&mut chunk)).await.expect("a frame in time").expect("a frame");
            assert_ne!(len, 0, "the viewer was disconnected: {text}");
            text.push_str(&String::from_utf8_lossy(&chunk[..len]));
        }
        assert_eq!(stalled(), before);
    });
}

/// A site whose name resolves to the page's address would have the page's origin.
#[test]
fn the_page_answers_only_to_its_own_names() {
    run(async {
        let server = start(STALL_MAX);
        let address = server.address;
        for path in ["/", "/main.js", "/api/settings", "/api/stream", "/nothing"] {
            assert_eq!(answer(address, path, "evil.example").await, "HTTP/1.1 403", "{path}");
        }
        for path in ["/health/live", "/health/ready", "/metrics"] {
            assert_eq!(answer(address, path, "console:9010").await, "HTTP/1.1 200", "{path}");
        }
        for host in ["localhost:9010", "[::1]:9010", "10.1.2.3"] {
            assert_eq!(answer(address, "/api/settings", host).await, "HTTP/1.1 200", "{host}");
        }
        assert_eq!(answer(address, "/nothing", "localhost").await, "HTTP/1.1 404");
    });
}

#[test]
fn viewers_that_do_not_read_miss_frames_and_need_no_memory() {
    run(async {
        let server = start(STALL_MAX);
        let (address, audience) = (server.address, &server.audience);

        let mut viewers = Vec::new();
        for _ in 0..VIEWERS_MAX {
            viewers.push(viewer(address).await.expect("a connection"));
        }
        let all_sit = async {
            while audience.viewers() < VIEWERS_MAX {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, all_sit).await.expect("all viewers have a seat");
        let mut refused = viewer(address).await.expect("a connection");
        let mut answer = [0; 12];
        refused.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 503");

        let readers: Vec<_> = viewers.split_off(STOPPED).into_iter().map(|viewer| tokio::spawn(read(viewer))).collect();
        let before = memory();
        for number in 1..=FRAMES {
            audience.show(frame(number));
            sleep(Duration::from_millis(5)).await;
        }
        for reader in readers {
            let frames = timeout(DEADLINE, reader).await.expect("the last frame comes").expect("it reads");
            assert!(frames > 0);
        }
        let growth = memory().saturating_sub(before);
        assert!(growth < GROWTH_MAX, "memory grew by {growth} bytes");
        // What is in the buffers, and the newest frame.
        for stopped in viewers {
            let frames = timeout(DEADLINE, read(stopped)).await.expect("the last frame comes");
            assert!(frames < FRAMES / 3, "{frames} frames were kept for a viewer that did not read");
        }
    });
}
