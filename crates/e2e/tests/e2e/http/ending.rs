//! SIGTERM: whoever has sent something gets its answer, and whoever keeps a connection is told to leave it before it is closed.

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

    /// The head of the answer, in lower case, if one comes; its body, which is `alive` and a line's end, is read.
    async fn ask(&mut self) -> anyhow::Result<String> {
        self.0.write_all(b"GET /health/live HTTP/1.1\r\nhost: cart\r\n\r\n").await?;
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\nalive\n") {
            answer.push(self.0.read_u8().await?.into());
        }
        Ok(answer.to_lowercase())
    }

    /// Whether it is closed in time without another byte.
    async fn is_closed(&mut self) -> anyhow::Result<bool> {
        let mut rest = Vec::new();
        Ok(tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut rest)).await?? == 0)
    }
}

pub(crate) async fn kept_connections_are_told_to_leave_before_they_are_closed() -> anyhow::Result<()> {
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
    assert!(idle.is_closed().await?, "one that nobody has used");
    ingest.succeeded(DEADLINE).await?;
    installation.remove().await
}

pub(crate) async fn what_is_under_way_gets_its_outcome() -> anyhow::Result<()> {
    let installation = Installation::new("under_way")?;
    installation.setup().await?;
    let args = ["--reply-timeout-ms", "60000", "--lame-duck-ms", "100", "--drain-timeout-s", "60"];
    let mut ingest = installation.start_all(&[(Service::Ingest, "0", &args)]).await?.remove(0);
    let address = ingest.address().expect("ingest has an address");
    let mut sent = Vec::new();
    for client in [Client::builder(), Client::builder().http2_prior_knowledge()] {
        let client = client.timeout(DEADLINE).no_proxy().build()?;
        let url = format!("http://{address}/cart/{}", uuid::Uuid::new_v4());
        let request = client.post(url).json(&item(1, 2));
        // Nobody decides, so it stays under way.
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

pub(crate) async fn a_service_that_still_waits_for_others_ends_at_once() -> anyhow::Result<()> {
    // Nothing is set up.
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
