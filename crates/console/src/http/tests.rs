//! Viewers over real connections, with frames that come faster than once a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use service::{Metrics, Readiness, Shutdown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::{Page, listen, serve};
use crate::args::Args;
use crate::audience::{Audience, VIEWERS_MAX};
use crate::board::Board;
use crate::carts::Carts;
use crate::stores::Stores;

const DEADLINE: Duration = Duration::from_secs(60);

const FRAME_LEN: usize = 16 * 1024;
const FRAMES: usize = 120;

/// Viewers that do not read.
const STOPPED: usize = 40;

/// The growth of memory that is allowed: 40 stopped viewers would need 79 MB for all their frames.
const GROWTH_MAX: usize = 30 << 20;

async fn viewer(address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8 * 1024)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(b"GET /api/stream HTTP/1.1\r\nhost: page\r\n\r\n").await?;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_do_not_read_miss_frames_and_need_no_memory() {
    let args = Args::parse_from(["cart-console"]);
    let stores = Arc::new(Stores::new(&args.kafka, &args.cassandra, &args.database_url).expect("a URL"));
    let audience = Audience::new();
    let page = Page {
        board: Arc::new(Board::default()),
        audience: audience.clone(),
        carts: Carts::new(&args.kafka, stores),
        shop: None,
        trace_url: None,
        readiness: Readiness::default(),
        metrics: Metrics::install("cart-console", &[crate::METRICS], &[]).expect("the only one"),
    };
    let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (_stop, shutdown) = Shutdown::channel();
    tokio::spawn(serve(listener, page, shutdown));

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
}
