//! Attacks over HTTP/1, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{CART, DRIBBLE, End, LIFE_MAX, connect, line, read_to_end, send};

const MIB: usize = 1 << 20;

/// Endless heads, on 500 connections of one address.
///
/// # Errors
/// A connection is not closed, or gets another answer than a rejection.
pub async fn slowloris(address: SocketAddr) -> anyhow::Result<()> {
    let one = async || {
        let head = std::iter::once(format!("POST {CART} HTTP/1.1\r\nhost: x\r\nx-a: ").into_bytes());
        send(connect(address, 2).await?, head.chain(std::iter::repeat(vec![b'a'])), DRIBBLE).await
    };
    let ends = try_join_all((0..500).map(|_| one())).await?;
    ensure!(ends.iter().all(is_refused), "{:?}", ends.iter().find(|end| !is_refused(end)).map(End::text));
    Ok(())
}

/// Endless heads on as many connections as one address may have (`max`), on a service with a long timeout for them. These
/// stay open, further ones are closed at once, other addresses are accepted, and each one that ends makes room for another.
///
/// # Errors
/// The service behaves otherwise.
pub async fn full_address(address: SocketAddr, max: usize) -> anyhow::Result<()> {
    const FULL: u8 = 20;
    const OTHER: u8 = 21;
    let mut held = Vec::new();
    while held.len() < max {
        let stream = came_in(address, FULL).await;
        let mut stream = stream.with_context(|| format!("{} of {max} came in", held.len()))?;
        stream.write_all(b"HEAD /health/live HTTP/1.1\r\nhost: x\r\nx-a: ").await?;
        held.push(stream);
    }
    let full = async || {
        let mut stream = connect(address, FULL).await?;
        let refused = timeout(LIFE_MAX, read_to_end(&mut stream)).await;
        let answer = refused.with_context(|| format!("one more than {max} was let in"))??;
        ensure!(answer.is_empty(), "one more than {max} was answered: {}", String::from_utf8_lossy(&answer));
        anyhow::Ok(())
    };
    try_join_all((0..100).map(|_| full())).await?;
    came_in(address, OTHER).await.context("another address is kept out")?;
    drop(held.pop());
    // The service notices the end after some time.
    let room = async {
        loop {
            match came_in(address, FULL).await {
                Ok(stream) => break stream,
                Err(_) => sleep(DRIBBLE).await,
            }
        }
    };
    held.push(timeout(LIFE_MAX, room).await.context("one that ended made no room for another")?);
    full().await?;
    // No connection was closed for it: an unfinished head is completed, and answered.
    held.pop();
    for stream in &mut held {
        stream.write_all(b"a\r\n\r\n").await?;
        head(stream).await.context("a connection was lost to others")?;
    }
    Ok(())
}

/// A connection that the service has accepted: a request is answered.
async fn came_in(address: SocketAddr, from: u8) -> anyhow::Result<TcpStream> {
    let mut stream = connect(address, from).await?;
    stream.write_all(b"HEAD /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    head(&mut stream).await?;
    Ok(stream)
}

/// Reads an answer without a body.
async fn head(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        std::io::Result::Ok(())
    };
    timeout(LIFE_MAX, reading).await.context("no answer comes")?.context("the connection ended")?;
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "the answer is {}", String::from_utf8_lossy(&head));
    Ok(())
}

fn is_refused(end: &End) -> bool {
    end.answer.is_empty() || end.text().starts_with("HTTP/1.1 4")
}

/// Connections that send nothing, or only the beginning of HTTP/2's preface.
///
/// # Errors
/// A connection is not closed, or gets an answer.
pub async fn silence(address: SocketAddr) -> anyhow::Result<()> {
    let silent = (0..100).map(async |_| send(connect(address, 3).await?, std::iter::empty(), DRIBBLE).await);
    let preface = |_| b"PRI * HTTP/2.0\r\n\r\nSM\r".iter().map(|byte| vec![*byte]);
    let slow = (0..100).map(async |number| send(connect(address, 3).await?, preface(number), 5 * DRIBBLE).await);
    let (silent, slow) = tokio::try_join!(try_join_all(silent), try_join_all(slow))?;
    ensure!(
        silent.iter().chain(&slow).all(|end| end.answer.is_empty()),
        "a connection without a request gets no answer"
    );
    Ok(())
}

/// Bodies of 100 MiB, with and without a length: from connections that send on, and from connections that wait for the answer
/// after a while.
///
/// # Errors
/// A connection is not closed, its request is accepted, or it does not get the reason that it waits for.
pub async fn large_bodies(address: SocketAddr) -> anyhow::Result<()> {
    let head = format!("POST {CART} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
    let one = async |number: usize, len: usize| {
        let framing = if number.is_multiple_of(2) {
            format!("content-length: {}\r\n\r\n", 100 * MIB)
        } else {
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", 100 * MIB)
        };
        let parts = std::iter::once((head.clone() + &framing).into_bytes());
        let parts = parts.chain((0..len.div_ceil(MIB)).map(|_| vec![b' '; MIB.min(len)]));
        send(connect(address, 4).await?, parts, Duration::ZERO).await
    };
    let relentless = try_join_all((0..16).map(|number| one(number, 100 * MIB)));
    let waiting = try_join_all((0..16).map(|number| one(number, MIB / 2)));
    let (relentless, waiting) = tokio::try_join!(relentless, waiting)?;
    let is_told = |end: &End| end.text().starts_with("HTTP/1.1 413 ");
    ensure!(waiting.iter().all(is_told), "{waiting:?}");
    // A connection that sends on may miss the answer, since closing with unread data is a reset.
    ensure!(relentless.iter().all(|end| end.answer.is_empty() || is_told(end)), "{relentless:?}");
    Ok(())
}

/// JSON as deep and as long as a body may be.
///
/// # Errors
/// A request is not rejected, or the rejection is long.
pub async fn deep_json(address: SocketAddr) -> anyhow::Result<()> {
    const LEN: usize = 131_000;
    let bodies = [
        "[".repeat(LEN),
        format!("{{\"price\":{}", "[".repeat(LEN)),
        format!("{{\"price\":{}{}", "[".repeat(LEN / 2), "]".repeat(LEN / 2 - 10)),
        "{\"a\":".repeat(LEN / 5),
        format!("{{\"name\":\"{}\"}}", "\\u0041".repeat(LEN / 6 - 10)),
        format!("{{\"quantity\":{}}}", "9".repeat(LEN)),
        format!("{{\"price\":0.{}}}", "9".repeat(LEN)),
    ];
    let one = async |number: usize| {
        let body = &bodies[number % bodies.len()];
        let head = format!(
            "POST {CART} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let end = send(connect(address, 5).await?, std::iter::once((head + body).into_bytes()), Duration::ZERO).await?;
        let text = end.text();
        let is_refused = text.starts_with("HTTP/1.1 400 ") || text.starts_with("HTTP/1.1 422 ");
        ensure!(is_refused && text.len() < 4_096, "{} bytes: {text:.300}", text.len());
        anyhow::Ok(())
    };
    for _ in 0..5 {
        try_join_all((0..70).map(&one)).await?;
    }
    Ok(())
}

/// Bodies that come a byte at a time.
///
/// # Errors
/// A connection does not get the answer that it took too long.
pub async fn dribbled_bodies(address: SocketAddr) -> anyhow::Result<()> {
    let one = async |number: usize| {
        let framing = if number.is_multiple_of(2) { "transfer-encoding: chunked" } else { "content-length: 1000" };
        let head = format!("POST {CART} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{framing}\r\n\r\n");
        let bytes = if number.is_multiple_of(2) { b"1\r\n \r\n".to_vec() } else { vec![b' '] };
        let parts = std::iter::once(head.into_bytes()).chain(std::iter::repeat(bytes));
        send(connect(address, 6).await?, parts, DRIBBLE).await
    };
    let ends = try_join_all((0..300).map(one)).await?;
    ensure!(ends.iter().all(|end| end.text().starts_with("HTTP/1.1 408 ")), "{:?}", ends.first());
    Ok(())
}

/// Connections that send requests and never read.
///
/// # Errors
/// A connection is not closed.
pub async fn deaf_readers(address: SocketAddr) -> anyhow::Result<()> {
    let one = async || {
        let mut stream = connect(address, 7).await?;
        let requests = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2_000);
        let ended = timeout(LIFE_MAX, async {
            // Writes until the service reads no more, then until the connection is closed.
            while stream.write_all(requests.as_bytes()).await.is_ok() {
                line(requests.len()).await;
            }
        });
        ended.await.context("somebody who never reads is still served")
    };
    try_join_all((0..50).map(|_| one())).await.map(|_| ())
}

/// Heads above the maximum length.
///
/// # Errors
/// A connection is not closed, or its request is accepted.
pub async fn large_heads(address: SocketAddr) -> anyhow::Result<()> {
    let one = async |number: usize| {
        let head = match number % 3 {
            0 => format!("GET {CART} HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(1 << 20)),
            1 => format!("GET {CART} HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100_000)),
            _ => format!("GET /cart/{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)),
        };
        send(connect(address, 8).await?, std::iter::once(head.into_bytes()), Duration::ZERO).await
    };
    let ends = try_join_all((0..60).map(one)).await?;
    ensure!(ends.iter().all(is_refused), "{:?}", ends.iter().find(|end| !is_refused(end)).map(End::text));
    Ok(())
}
