//! A TCP proxy between the services and a server, which can disturb the link.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::frames::Frames;

/// The maximum length of a piece that is forwarded at a time.
const CHUNK_LEN: usize = 16 * 1_024;

/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Everything is forwarded.
    Open,
    /// Connections are closed, including new ones.
    Cut,
    /// Each piece is delayed by this time.
    Slow(Duration),
    /// This many bytes per second are forwarded, in each direction of each connection.
    Throttled(u32),
    /// Nothing is forwarded. Afterwards everything is.
    Still,
    /// The server gets everything, and its answers are lost. Afterwards such connections are closed.
    OneWay,
    /// The answer to an executed commit is lost, and its connection closed.
    NoCommitAnswers,
    /// The answer to a commit is delayed by this time.
    LateCommitAnswers(Duration),
}

/// The protocol, by which the answer to a commit is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// By correlation ids.
    Kafka,
    /// By the command in the answer.
    Postgres,
    /// There are no commits.
    Other,
}

/// A proxy. Closes all of its connections when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    link: watch::Sender<Link>,
    commit_answers: Arc<AtomicU64>,
    late_pieces: Arc<AtomicU64>,
    held_writers: Arc<Mutex<HashSet<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens at one address and forwards to another.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start(listen: SocketAddr, server: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (link, changes) = watch::channel(Link::Open);
        let commit_answers = Arc::new(AtomicU64::new(0));
        let late_pieces = Arc::new(AtomicU64::new(0));
        let held_writers = Arc::<Mutex<HashSet<SocketAddr>>>::default();
        let way = Way {
            server,
            protocol,
            link: changes,
            commit_answers: commit_answers.clone(),
            late_pieces: late_pieces.clone(),
            held_writers: held_writers.clone(),
        };
        Ok(Self { link, commit_answers, late_pieces, held_writers, task: tokio::spawn(accept(listener, way)) })
    }

    /// Sets the state of the link.
    pub fn set(&self, link: Link) {
        self.held_writers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.link.send_replace(link);
    }

    /// The number of answers to commits that were lost or delayed so far.
    #[must_use]
    pub fn commit_answers(&self) -> u64 {
        self.commit_answers.load(Ordering::Relaxed)
    }

    /// The client addresses of the connections on which something to the server is held since the link was stopped; with Kafka,
    /// a writing request.
    #[must_use]
    pub fn held_writers(&self) -> HashSet<SocketAddr> {
        self.held_writers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of pieces that a slow link delayed.
    #[must_use]
    pub fn late_pieces(&self) -> u64 {
        self.late_pieces.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Clone)]
struct Way {
    server: SocketAddr,
    protocol: Protocol,
    link: watch::Receiver<Link>,
    commit_answers: Arc<AtomicU64>,
    late_pieces: Arc<AtomicU64>,
    held_writers: Arc<Mutex<HashSet<SocketAddr>>>,
}

async fn accept(listener: TcpListener, way: Way) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            // Dropped, which ends it.
            Ok(_) if *way.link.borrow() == Link::Cut => {}
            Ok((client, client_address)) => {
                connections.spawn(connect(client, client_address, way.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connect(client: TcpStream, client_address: SocketAddr, way: Way) {
    let Ok(server) = TcpStream::connect(way.server).await else { return };
    // Without the option the connection is only slower.
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (questions, answers) = Commits::of(&way);
    tokio::select! {
        () = pass(from_client, to_server, client_address, way.clone(), questions) => {}
        () = pass(from_server, to_client, client_address, way.clone(), answers) => {}
        () = end(way.link) => {}
    }
}

/// The conditions that close a connection.
async fn end(mut link: watch::Receiver<Link>) {
    // A dropped proxy closes everything.
    let Ok(now) = link.wait_for(|link| matches!(link, Link::Cut | Link::OneWay)).await.map(|link| *link) else {
        return;
    };
    if now == Link::OneWay {
        // Part of its data is lost, so it must be closed.
        drop(link.wait_for(|link| *link != Link::OneWay).await);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    client_address: SocketAddr,
    way: Way,
    mut commits: Commits,
) {
    let mut link = way.link;
    let mut chunk = vec![0; CHUNK_LEN];
    while let Ok(len @ 1..) = from.read(&mut chunk).await {
        let Noted { has_commit_answer, has_write } = commits.notes(&chunk[..len]);
        if *link.borrow() == Link::Still && has_write {
            way.held_writers.lock().unwrap_or_else(PoisonError::into_inner).insert(client_address);
        }
        let Ok(now) = link.wait_for(|link| *link != Link::Still).await.map(|link| *link) else { return };
        match now {
            Link::Slow(time) => {
                way.late_pieces.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(time).await;
            }
            Link::Throttled(rate) => {
                let micros = 1_000_000 * len as u64 / u64::from(rate.max(1));
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
            Link::OneWay if commits.is_answers => continue,
            Link::NoCommitAnswers if has_commit_answer => {
                commits.seen.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Link::LateCommitAnswers(time) if has_commit_answer => {
                commits.seen.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(time).await;
            }
            Link::Open
            | Link::Cut
            | Link::Still
            | Link::OneWay
            | Link::NoCommitAnswers
            | Link::LateCommitAnswers(_) => {}
        }
        if to.write_all(&chunk[..len]).await.is_err() {
            return;
        }
    }
}

/// What a piece contains.
struct Noted {
    has_commit_answer: bool,
    /// Data for the server; with Kafka, a writing request.
    has_write: bool,
}

/// Finds commits and their answers in one direction of a connection.
struct Commits {
    is_answers: bool,
    protocol: Protocol,
    frames: Frames,
    /// The correlation ids of the unanswered commits.
    asked: Arc<Mutex<HashSet<i32>>>,
    seen: Arc<AtomicU64>,
}

impl Commits {
    /// The finders for the requests, and for the answers.
    fn of(way: &Way) -> (Self, Self) {
        let asked = Arc::<Mutex<HashSet<i32>>>::default();
        let one = |is_answers| Self {
            is_answers,
            protocol: way.protocol,
            frames: Frames::new(is_answers),
            asked: asked.clone(),
            seen: way.commit_answers.clone(),
        };
        (one(false), one(true))
    }

    fn notes(&mut self, chunk: &[u8]) -> Noted {
        let mut noted = Noted { has_commit_answer: false, has_write: !self.is_answers };
        match self.protocol {
            Protocol::Other => {}
            // CommandComplete has the name of the command.
            Protocol::Postgres => {
                noted.has_commit_answer = self.is_answers && chunk.windows(7).any(|bytes| bytes == b"COMMIT\0");
            }
            Protocol::Kafka => {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                noted.has_write = false;
                for frame in self.frames.of(chunk) {
                    noted.has_write |= frame.is_write;
                    if self.is_answers {
                        noted.has_commit_answer |= asked.remove(&frame.number);
                    } else if frame.is_commit {
                        asked.insert(frame.number);
                    }
                }
            }
        }
        noted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// An echo server, and a proxy in front of it.
    async fn echo(protocol: Protocol) -> io::Result<(Proxy, SocketAddr)> {
        let server = TcpListener::bind("127.0.0.1:0").await?;
        let server_address = server.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut client, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = client.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        Ok((Proxy::start(listen, server_address, protocol).await?, listen))
    }

    async fn ask(client: &mut TcpStream, question: &[u8]) -> io::Result<Vec<u8>> {
        client.write_all(question).await?;
        let mut answer = vec![0; question.len()];
        match tokio::time::timeout(DEADLINE, client.read_exact(&mut answer)).await {
            Ok(read) => read.map(|_| answer),
            Err(late) => Err(late.into()),
        }
    }

    #[tokio::test]
    async fn forwards_everything_until_the_link_is_cut() -> io::Result<()> {
        let (proxy, address) = echo(Protocol::Other).await?;
        let mut client = TcpStream::connect(address).await?;
        assert_eq!(ask(&mut client, b"hello").await?, b"hello");
        proxy.set(Link::Slow(Duration::from_millis(5)));
        assert_eq!(ask(&mut client, b"again").await?, b"again");
        proxy.set(Link::Cut);
        assert!(ask(&mut client, b"closed").await.is_err());
        let mut refused = TcpStream::connect(address).await?;
        assert!(ask(&mut refused, b"closed").await.is_err());
        proxy.set(Link::Open);
        let mut client = TcpStream::connect(address).await?;
        assert_eq!(ask(&mut client, b"hello").await?, b"hello");
        Ok(())
    }

    #[tokio::test]
    async fn held_data_is_forwarded_and_a_connection_without_answers_is_closed() -> io::Result<()> {
        let (proxy, address) = echo(Protocol::Other).await?;
        let mut client = TcpStream::connect(address).await?;
        proxy.set(Link::Still);
        client.write_all(b"late").await?;
        let mut answer = [0; 4];
        let early = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut answer)).await;
        assert!(early.is_err(), "nothing passes");
        assert_eq!(proxy.held_writers(), HashSet::from([client.local_addr()?]));
        proxy.set(Link::Open);
        client.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"late");
        proxy.set(Link::OneWay);
        client.write_all(b"lost").await?;
        let none = tokio::time::timeout(Duration::from_millis(50), client.read_exact(&mut answer)).await;
        assert!(none.is_err(), "no answer comes back");
        proxy.set(Link::Open);
        assert!(ask(&mut client, b"hello").await.is_err(), "it can't go on");
        Ok(())
    }

    #[tokio::test]
    async fn only_the_answer_to_a_commit_is_lost() -> io::Result<()> {
        let (proxy, address) = echo(Protocol::Postgres).await?;
        proxy.set(Link::NoCommitAnswers);
        let mut client = TcpStream::connect(address).await?;
        assert_eq!(ask(&mut client, b"BEGIN\0").await?, b"BEGIN\0");
        assert!(ask(&mut client, b"COMMIT\0").await.is_err());
        assert_eq!(proxy.commit_answers(), 1);
        Ok(())
    }
}
