//! A load balancer in front of several ingests: each connection goes to one that is ready.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The pause between two checks of readiness.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The timeout of a check.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Addresses = Arc<Mutex<BTreeSet<SocketAddr>>>;

/// A load balancer. Closes all of its connections when it is dropped.
#[derive(Debug)]
pub(super) struct Balancer {
    tasks: [JoinHandle<()>; 2],
}

impl Balancer {
    /// Listens at one address and distributes connections among the ingests.
    ///
    /// # Errors
    /// It can't listen.
    pub(super) async fn start(listen: SocketAddr, ingests: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listening at {listen}"))?;
        let client = reqwest::Client::builder().timeout(LOOK_TIMEOUT).no_proxy().build();
        let client = client.context("making an HTTP client")?;
        let unready = Addresses::default();
        let look = look(client, ingests.clone(), unready.clone());
        Ok(Self { tasks: [tokio::spawn(look), tokio::spawn(accept(listener, ingests, unready))] })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn look(client: reqwest::Client, ingests: Vec<SocketAddr>, unready: Addresses) {
    loop {
        for ingest in &ingests {
            let answer = client.get(format!("http://{ingest}/health/ready")).send().await;
            let is_ready = match answer {
                Ok(answer) => answer.status().is_success(),
                // It may be busy, so its last state is kept.
                Err(error) if error.is_timeout() => continue,
                Err(_) => false,
            };
            let mut unready = unready.lock().unwrap_or_else(PoisonError::into_inner);
            if is_ready {
                unready.remove(ingest)
            } else {
                unready.insert(*ingest)
            };
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn accept(listener: TcpListener, mut ingests: Vec<SocketAddr>, unready: Addresses) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        ingests.rotate_left(1);
        let unready = unready.lock().unwrap_or_else(PoisonError::into_inner);
        // If none is ready, use any.
        let ready = ingests.iter().find(|ingest| !unready.contains(ingest)).or(ingests.first());
        if let Some(ingest) = ready {
            connections.spawn(pass(client, *ingest));
        }
    }
}

/// Passes a connection on. If the ingest can't be connected, although it was ready, the client gets an error, and no other
/// ingest is tried.
async fn pass(mut client: TcpStream, ingest: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(ingest).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
