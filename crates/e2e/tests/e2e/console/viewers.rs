//! As many viewers as may be, of which some do not read.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, wait_until};
use procfs::WithCurrentSystemInfo as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::metrics::documented_of_console;

use super::super::http::api::DEADLINE;
use super::Console;

/// As in docs/console.md.
const VIEWERS: usize = 200;
const STOPPED: usize = 50;

/// The frames that every reading viewer gets while the others do not read.
const FRAMES: usize = 4;

/// What 200 connections with their buffers may need.
const GROWTH_MAX: u64 = 64 << 20;

async fn viewer(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4_096)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(b"GET /api/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await?;
    Ok(stream)
}

/// Reads that many frames.
async fn read(stream: TcpStream) -> anyhow::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut frames = 0;
    while frames < FRAMES {
        let line = lines.next_line().await?.context("the viewer was disconnected")?;
        frames += usize::from(line.starts_with("data: {"));
    }
    Ok(())
}

async fn status(mut stream: TcpStream) -> anyhow::Result<String> {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

pub(crate) async fn viewers_that_do_not_read_disturb_no_others() -> anyhow::Result<()> {
    let installation = Installation::new("console_viewers")?;
    installation.setup().await?;
    let console = Console::start(&installation, "console", &[]).await?;
    let address = console.process.address().context("an address")?;
    let memory = || -> anyhow::Result<u64> {
        let process = procfs::process::Process::new(console.process.id().cast_signed())?;
        Ok(process.stat()?.rss_bytes().get())
    };
    // The first frame opens the connections to the servers.
    console.get("/api/now").await?;
    documented_of_console(&console.process).await?;
    let before = memory()?;
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        viewers.push(viewer(address).await?);
    }
    // Without a request of our own, which would take one of the seats.
    let metrics = format!("{}/metrics", console.url);
    wait_until("all viewers to have seats", DEADLINE, async || {
        let text = async { console.client.get(&metrics).send().await?.text().await }.await.unwrap_or_default();
        if text.lines().any(|line| line == format!("console_viewers {VIEWERS}")) { Ok(()) } else { Err(text) }
    })
    .await?;
    let answer = timeout(DEADLINE, status(viewer(address).await?)).await??;
    ensure!(answer == "HTTP/1.1 503", "another viewer: {answer}");
    let readers: Vec<_> = viewers.split_off(STOPPED).into_iter().map(|viewer| tokio::spawn(read(viewer))).collect();
    for reader in readers {
        timeout(DEADLINE, reader).await???;
    }
    let growth = memory()?.saturating_sub(before);
    ensure!(growth < GROWTH_MAX, "memory grew by {growth} bytes");
    // Their seats are free again, those of the others are not.
    let seats = |frame: &serde_json::Value| (frame["viewers"].as_u64() == Some(STOPPED as u64 + 1)).into();
    console.shows("the seats to be free", seats, &true.into()).await?;
    drop((viewers, console));
    installation.remove().await
}
