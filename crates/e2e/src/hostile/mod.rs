//! Hostile clients, for the test and the bench of that name. Each attack has its own addresses (127.0.0.x), so that the
//! limits per address also apply, and ends when the service has closed all of its connections.
//!
//! * [`http1`]: attacks over HTTP/1, byte by byte.
//! * [`h2`]: attacks over HTTP/2, frame by frame.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, sleep_until, timeout};

pub mod h2;
pub mod http1;

/// How long a hostile connection may live. The service closes it after seconds by its limits, but the machine may be busy, so
/// this only shows that it is closed at all.
const LIFE_MAX: Duration = Duration::from_secs(120);

/// The pause between two bytes of a slow client.
const DRIBBLE: Duration = Duration::from_millis(100);

const CART: &str = "/cart/7b6fc97b-9d5f-4ac9-8a62-7cfd8b4eb0ff";

tokio::task_local! {
    /// The attackers' line, if it is limited: the bytes per second, and when it is free again.
    static LINE: (u32, Mutex<Instant>);
}

/// Runs an attack over a line with this many bytes per second, for all of its connections.
pub async fn over_a_line<T>(bytes_per_s: u32, attack: impl Future<Output = T>) -> T {
    LINE.scope((bytes_per_s, Mutex::new(Instant::now())), attack).await
}

/// Waits until the line is free, and takes it for this many bytes.
async fn line(len: usize) {
    let free_at = LINE.try_with(|(bytes_per_s, free_at)| {
        let mut free_at = free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begins_at = Instant::now().max(*free_at);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        *free_at = begins_at + Duration::from_secs(len.into()) / (*bytes_per_s).max(1);
        begins_at
    });
    if let Ok(free_at) = free_at {
        sleep_until(free_at.into()).await;
    }
}

/// A connection from 127.0.0.`from`.
async fn connect(to: SocketAddr, from: u8) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0))?;
    socket.connect(to).await
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
struct End {
    answer: Vec<u8>,
    /// The time until the end.
    after: Duration,
}

impl End {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.answer).into_owned()
    }
}

/// Reads until the service closes the connection.
async fn read_to_end(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = [0; 16_384];
    loop {
        match from.read(&mut part).await {
            Ok(0) => return Ok(answer),
            Ok(len) => answer.extend_from_slice(&part[..len]),
            // Closing with unread data is a reset.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(answer),
            Err(error) => return Err(error),
        }
    }
}

/// Sends `parts` one after the other with a pause between, and reads until the service closes the connection.
async fn send(stream: TcpStream, parts: impl Iterator<Item = Vec<u8>>, pause: Duration) -> anyhow::Result<End> {
    let began_at = Instant::now();
    let (mut from, mut to) = stream.into_split();
    let sending = async {
        for part in parts {
            line(part.len()).await;
            // The reader also notices the end.
            if to.write_all(&part).await.is_err() {
                break;
            }
            sleep(pause).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = timeout(LIFE_MAX, async {
        tokio::select! { () = sending => Ok(Vec::new()), answer = read_to_end(&mut from) => answer }
    });
    let answer = ended.await.with_context(|| format!("a hostile connection still lives after {LIFE_MAX:?}"))??;
    Ok(End { answer, after: began_at.elapsed() })
}
