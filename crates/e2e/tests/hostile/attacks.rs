//! Attacks over HTTP/1, byte by byte, and what becomes of them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// How long a hostile connection may live here: the service's limits are 1 to 2 s, the machine may be busy.
const LIFE_MAX: Duration = Duration::from_secs(15);

/// Between two bytes of somebody who pretends to be slow.
const DRIBBLE: Duration = Duration::from_millis(100);

const CART: &str = "/cart/7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff";

/// A connection from an address of its own, since one address may have 400 only.
pub(crate) async fn connect(to: SocketAddr, from: u8) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0))?;
    socket.connect(to).await
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// What was answered.
    pub(crate) answer: Vec<u8>,
    /// After how long.
    pub(crate) after: Duration,
}

impl End {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.answer).into_owned()
    }
}

/// Sends `parts` one after the other with a pause between, and reads until the service closes the connection.
pub(crate) async fn send(
    stream: TcpStream,
    parts: impl Iterator<Item = Vec<u8>>,
    pause: Duration,
) -> anyhow::Result<End> {
    let began_at = Instant::now();
    let (mut from, mut to) = stream.into_split();
    let sending = async {
        for part in parts {
            // An end that we see here is seen by the reader as well.
            if to.write_all(&part).await.is_err() {
                break;
            }
            sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let reading = async {
        let mut part = [0; 16_384];
        loop {
            match from.read(&mut part).await {
                Ok(0) => return Ok(()),
                Ok(len) => answer.extend_from_slice(&part[..len]),
                // With what we sent unread, closing is a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    let ended = timeout(LIFE_MAX, async {
        tokio::select! { () = sending => Ok(()), read = reading => read }
    })
    .await;
    ended.with_context(|| format!("a hostile connection still lives after {LIFE_MAX:?}"))??;
    Ok(End { answer, after: began_at.elapsed() })
}

/// Heads that never end, on 500 connections of one address.
pub(crate) async fn slowloris(address: SocketAddr) -> anyhow::Result<()> {
    let one = async || {
        let head = std::iter::once(format!("POST {CART} HTTP/1.1\r\nhost: x\r\nx-a: ").into_bytes());
        send(connect(address, 2).await?, head.chain(std::iter::repeat(vec![b'a'])), DRIBBLE).await
    };
    let ends = try_join_all((0..500).map(|_| one())).await?;
    // Those of the 400 that the address may have live on until their time is over.
    let mut lives: Vec<_> = ends.iter().map(|end| end.after).collect();
    lives.sort();
    // On a busy machine some come when others have ended, so not a hundred are surely too many.
    ensure!(
        lives[20] < lives[250] / 2,
        "of 500 connections of one address, which may have 400, not 20 were closed at once: {:?}",
        &lives[..40]
    );
    Ok(())
}

/// Connections that say nothing, or only what could become HTTP/2.
pub(crate) async fn silence(address: SocketAddr) -> anyhow::Result<()> {
    let silent = (0..100).map(async |_| send(connect(address, 3).await?, std::iter::empty(), DRIBBLE).await);
    let preface = |_| b"PRI * HTTP/2.0\r\n\r\nSM\r".iter().map(|byte| vec![*byte]);
    let slow = (0..100).map(async |number| send(connect(address, 3).await?, preface(number), 5 * DRIBBLE).await);
    let (silent, slow) = tokio::try_join!(try_join_all(silent), try_join_all(slow))?;
    ensure!(silent.iter().chain(&slow).all(|end| end.answer.is_empty()), "nobody is answered who asked nothing");
    Ok(())
}

/// Bodies of 100 MiB, announced and not.
pub(crate) async fn large_bodies(address: SocketAddr) -> anyhow::Result<()> {
    const MIB: usize = 1 << 20;
    let head = format!("POST {CART} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
    let one = async |is_announced: bool| {
        let framing = if is_announced {
            format!("content-length: {}\r\n\r\n", 100 * MIB)
        } else {
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", 100 * MIB)
        };
        let parts = std::iter::once((head.clone() + &framing).into_bytes());
        send(connect(address, 4).await?, parts.chain((0..100).map(|_| vec![b' '; MIB])), Duration::ZERO).await
    };
    let ends = try_join_all((0..16_u32).map(|number| one(number.is_multiple_of(2)))).await?;
    // Who goes on sending may miss the answer: closing with unread data is a reset.
    let answered = ends.iter().filter(|end| end.text().starts_with("HTTP/1.1 413 ")).count();
    ensure!(ends.iter().all(|end| end.answer.is_empty() || end.text().starts_with("HTTP/1.1 413 ")), "{ends:?}");
    ensure!(answered >= 4, "only {answered} of 16 were told why");
    Ok(())
}

/// JSON as deep and as long as a body may be.
pub(crate) async fn deep_json(address: SocketAddr) -> anyhow::Result<()> {
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
pub(crate) async fn dribbled_bodies(address: SocketAddr) -> anyhow::Result<()> {
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

/// Those who ask and ask, and never read.
pub(crate) async fn deaf_readers(address: SocketAddr) -> anyhow::Result<()> {
    let one = async || {
        let mut stream = connect(address, 7).await?;
        let requests = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2_000);
        let ended = timeout(LIFE_MAX, async {
            // Written until nobody takes any more, then until the connection is gone.
            while stream.write_all(requests.as_bytes()).await.is_ok() {}
        });
        ended.await.context("somebody who never reads is still served")
    };
    try_join_all((0..50).map(|_| one())).await.map(|_| ())
}

/// Heads that are longer than a head may be.
pub(crate) async fn large_heads(address: SocketAddr) -> anyhow::Result<()> {
    let one = async |number: usize| {
        let head = match number % 3 {
            0 => format!("GET {CART} HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(1 << 20)),
            1 => format!("GET {CART} HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(100_000)),
            _ => format!("GET /cart/{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20)),
        };
        send(connect(address, 8).await?, std::iter::once(head.into_bytes()), Duration::ZERO).await
    };
    let ends = join_all((0..60).map(one)).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let is_refused = |end: &End| end.answer.is_empty() || end.text().starts_with("HTTP/1.1 4");
    ensure!(ends.iter().all(is_refused), "{:?}", ends.iter().find(|end| !is_refused(end)).map(End::text));
    Ok(())
}
