//! SIGTERM: requests in flight get their answers, and kept connections get `Connection: close` before they are closed.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use e2e::harness::{Installation, Service, wait_until};
use reqwest::{Client, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::api::{Api, DEADLINE, PROCESSOR, item, logged};

/// A connection that is kept between requests.
struct Kept(BufReader<TcpStream>);

impl Kept {
    async fn to(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    /// Sends a request. Returns the head of the answer, in lower case, after its body (`alive` and a line end) was read.
    async fn ask(&mut self) -> anyhow::Result<String> {
        self.0.write_all(b"GET /health/live HTTP/1.1\r\nhost: cart\r\n\r\n").await?;
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\nalive\n") {
            answer.push(self.0.read_u8().await?.into());
        }
        Ok(answer.to_lowercase())
    }

    /// Whether it is closed in time, without another byte.
    async fn is_closed(&mut self) -> anyhow::Result<bool> {
        let mut rest = Vec::new();
        Ok(tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut rest)).await?? == 0)
    }
}

pub(crate) async fn kept_connections_get_connection_close_before_they_are_closed() -> anyhow::Result<()> {
    let installation = Installation::new("lame_duck")?;
    installation.setup().await?;
    let args = ["--lame-duck-ms", "3000", "--header-timeout-ms", "60000"];
    let mut ingest = installation.start_all(&[(Service::Ingest, "0", &args)]).await?.remove(0);
    let address = ingest.address().expect("ingest has an address");
    let (mut used, mut idle) = (Kept::to(address).await?, Kept::to(address).await?);
    let of_http2 = Client::builder().timeout(DEADLINE).no_proxy().http2_prior_knowledge().build()?;
    let ask_http2 = async || of_http2.get(format!("http://{address}/health/live")).send().await;
    for kept in [&mut used, &mut idle] {
        assert!(!kept.ask().await?.contains("connection: close"));
    }
    assert_eq!(ask_http2().await?.version(), Version::HTTP_2);

    ingest.interrupt()?;
    let api = Api::new(&ingest);
    let is_unready = wait_until("readiness to say no", DEADLINE, async || {
        let answer = api.send(&reqwest::Method::GET, "/health/ready", &[], None).await;
        match answer.map_err(|error| format!("{error:#}"))? {
            answer if answer.status == 503 && answer.text.contains("shutting down") => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    });
    is_unready.await?;
    for kept in [&mut used, &mut Kept::to(address).await?] {
        assert!(kept.ask().await?.contains("connection: close"));
        assert!(kept.is_closed().await?);
    }
    assert_eq!(ask_http2().await?.status(), 200);
    assert!(idle.is_closed().await?, "an unused connection");
    ingest.succeeded(DEADLINE).await?;
    installation.remove().await
}

pub(crate) async fn requests_in_flight_get_their_outcomes() -> anyhow::Result<()> {
    let installation = Installation::new("in_flight_end")?;
    installation.setup().await?;
    let args = ["--reply-timeout-ms", "60000", "--lame-duck-ms", "100", "--drain-timeout-s", "60"];
    let mut ingest = installation.start_all(&[(Service::Ingest, "0", &args)]).await?.remove(0);
    let address = ingest.address().expect("ingest has an address");
    let mut sent = Vec::new();
    for client in [Client::builder(), Client::builder().http2_prior_knowledge()] {
        let client = client.timeout(DEADLINE).no_proxy().build()?;
        let url = format!("http://{address}/cart/{}", uuid::Uuid::new_v4());
        let request = client.post(url).json(&item(1, 2));
        // Without a processor the request stays in flight.
        sent.push(tokio::spawn(request.send()));
    }
    wait_until("both to be in the log", DEADLINE, async || match logged(&installation) {
        Ok(2) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;

    ingest.interrupt()?;
    wait_until("new connections to be refused", DEADLINE, async || match TcpStream::connect(address).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    assert!(sent.iter().all(|sent| !sent.is_finished()));
    let processor = installation.start_all(&[PROCESSOR]).await?;
    for sent in sent {
        let answer = sent.await??;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.json::<serde_json::Value>().await?["version"], 1);
    }
    ingest.succeeded(DEADLINE).await?;
    drop(processor);
    installation.remove().await
}

pub(crate) async fn a_service_that_still_waits_for_servers_ends_at_once() -> anyhow::Result<()> {
    // `setup` has not run.
    let installation = Installation::new("starting")?;
    let services = [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS);
    for service in services {
        let mut process = installation.start(service, "0", &["--startup-timeout-s", "300"])?;
        wait_until(&format!("{} to wait", service.name()), DEADLINE, async || match process.log() {
            log if log.contains("waiting for") => Ok(()),
            log => Err(log),
        })
        .await?;
        process.terminate(Duration::from_secs(30)).await?;
    }
    std::fs::remove_dir_all(installation.folder())?;
    Ok(())
}
