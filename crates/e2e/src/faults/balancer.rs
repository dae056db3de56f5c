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

/// The addresses among which a balancer distributes new connections. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints(Arc<Mutex<Vec<SocketAddr>>>);

impl Endpoints {
    pub(crate) fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn at(&self, turn: usize) -> Option<SocketAddr> {
        let addresses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.get(turn.checked_rem(addresses.len())?).copied()
    }
}

/// A load balancer. Closes all of its connections when it is dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    tasks: Vec<JoinHandle<()>>,
}

impl Balancer {
    /// Listens at one address and distributes connections among the ingests that say that they are ready.
    ///
    /// # Errors
    /// It can't listen.
    pub(crate) async fn start(listen: SocketAddr, ingests: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(LOOK_TIMEOUT).no_proxy().build();
        let client = client.context("making an HTTP client")?;
        let endpoints = Endpoints::default();
        endpoints.set(ingests.clone());
        let mut balancer = Self::over(listen, endpoints.clone()).await?;
        balancer.tasks.push(tokio::spawn(look(client, ingests, endpoints)));
        Ok(balancer)
    }

    /// Listens at one address and distributes connections among the endpoints. Without one a connection is closed.
    ///
    /// # Errors
    /// It can't listen.
    pub(crate) async fn over(listen: SocketAddr, endpoints: Endpoints) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listening at {listen}"))?;
        Ok(Self { tasks: vec![tokio::spawn(accept(listener, endpoints))] })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn look(client: reqwest::Client, ingests: Vec<SocketAddr>, endpoints: Endpoints) {
    let mut unready = BTreeSet::new();
    loop {
        for ingest in &ingests {
            let answer = client.get(format!("http://{ingest}/health/ready")).send().await;
            let is_ready = match answer {
                Ok(answer) => answer.status().is_success(),
                // It may be busy, so its last state is kept.
                Err(error) if error.is_timeout() => continue,
                Err(_) => false,
            };
            if is_ready {
                unready.remove(ingest)
            } else {
                unready.insert(*ingest)
            };
            let ready: Vec<_> = ingests.iter().copied().filter(|ingest| !unready.contains(ingest)).collect();
            // If none is ready, use any.
            endpoints.set(if ready.is_empty() { ingests.clone() } else { ready });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn accept(listener: TcpListener, endpoints: Endpoints) {
    let mut connections = JoinSet::new();
    for turn in 0.. {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(endpoint) = endpoints.at(turn) {
            connections.spawn(pass(client, endpoint));
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
