//! TLS of the service: certificates change while it runs; clients, including `cart` and `replay`, trust them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use client::ids::CartId;
use client::{CartClient, ClientSettings};
use e2e::harness::{Installation, Process, Service, wait_until};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const DEADLINE: Duration = Duration::from_secs(180);

/// A self-signed certificate and its key, in files.
pub(crate) struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    pub(crate) fn make(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&certificate, cert.pem())?;
        fs::write(&key, signing_key.serialize_pem())?;
        Ok(Self { certificate, key })
    }

    /// Replaces another one, a whole file at a time, as an operator's tool would.
    fn replace(&self, other: &Self) -> anyhow::Result<()> {
        for (from, to) in [(&self.certificate, &other.certificate), (&self.key, &other.key)] {
            let new = to.with_extension("new");
            fs::copy(from, &new)?;
            fs::rename(&new, to)?;
        }
        Ok(())
    }

    /// A cart's version, read on a new connection by a client that trusts only this certificate.
    pub(crate) async fn version(&self, address: SocketAddr) -> Result<i64, String> {
        let settings = ClientSettings { ca_cert: Some(self.certificate.clone()), ..ClientSettings::default() };
        let client = CartClient::new(&format!("https://{address}"), &settings).map_err(|error| error.to_string())?;
        let cart = client.cart(CartId::of_member("alice")).await;
        cart.map(|cart| cart.version).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
    }
}

/// A connection of a client that trusts only this certificate, and offers these protocols.
async fn connected(address: SocketAddr, trusted: &Path, alpn: &[&str]) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(address.ip().into()), stream).await?)
}

/// The negotiated protocol.
async fn negotiated(address: SocketAddr, trusted: &Path, alpn: &[&str]) -> anyhow::Result<Option<Vec<u8>>> {
    let stream = connected(address, trusted, alpn).await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

fn start(installation: &Installation, served: &Pair) -> anyhow::Result<Process> {
    let (certificate, key) = (served.certificate.display().to_string(), served.key.display().to_string());
    let args = ["--tls-cert", &certificate, "--tls-key", &key, "--header-timeout-ms", "1000", "--allow-client-time"];
    installation.start(Service::Ingest, "0", &args)
}

pub(crate) async fn certificates_change_while_the_service_runs() -> anyhow::Result<()> {
    let installation = Installation::new("tls")?;
    installation.setup().await?;
    let folder = installation.folder();
    let [served, first, second] = ["served", "first", "second"].map(|name| Pair::make(folder, name));
    let (served, first, second) = (served?, first?, second?);
    first.replace(&served)?;
    let processor = installation.start_all(&[(Service::CartProcessor, "0", &[])]).await?;
    let mut ingest = start(&installation, &served)?;
    let address = ingest.address().context("ingest has an address")?;
    wait_until("ingest to answer over TLS", DEADLINE, async || first.version(address).await).await?;

    // Both protocols, only for clients that trust the certificate, and never without TLS.
    ensure!(negotiated(address, &first.certificate, &["h2", "http/1.1"]).await? == Some(b"h2".to_vec()), "no h2");
    let http1 = negotiated(address, &first.certificate, &["http/1.1"]).await?;
    ensure!(http1 == Some(b"http/1.1".to_vec()), "no http/1.1: {http1:?}");
    let stranger = second.version(address).await.expect_err("a certificate that it does not trust");
    ensure!(stranger.contains("certificate"), "{stranger}");
    let mut plain = TcpStream::connect(address).await?;
    plain.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = Vec::new();
    // A reset is accepted too.
    plain.read_to_end(&mut answer).await.ok();
    ensure!(!answer.starts_with(b"HTTP/"), "answered without TLS");

    // rcgen's certificates expire with the year 4095.
    let metrics = reqwest::get(ingest.metrics_url()?).await?.text().await?;
    let expiry = "ingest_tls_certificate_expiry_timestamp_seconds 67090118400";
    ensure!(metrics.lines().any(|line| line == expiry), "{metrics}");

    // A connection without a handshake is closed.
    let connected_at = Instant::now();
    let mut silent = TcpStream::connect(address).await?;
    tokio::time::timeout(DEADLINE, silent.read_to_end(&mut answer)).await.context("a silent client is kept")?.ok();
    ensure!(connected_at.elapsed() >= Duration::from_millis(900), "{:?}", connected_at.elapsed());

    // The command-line clients.
    let (url, trusted) = (format!("https://{address}"), first.certificate.display().to_string());
    let cart = ["--url", &url, "--ca-cert", &trusted, "--member", "alice", "add", "mug", "--price", "1"];
    installation.run("cart", "cart", cart, DEADLINE).await?;
    let distrusting = ["--url", &url, "--timeout-ms", "2000", "--member", "alice", "list"];
    ensure!(installation.run("cart-distrusting", "cart", distrusting, DEADLINE).await.is_err(), "anybody is trusted");
    let replay = ["--url", &url, "--ca-cert", &trusted, "--commands", "50", "--expect-intended"];
    installation.run("replay", "replay", replay, DEADLINE).await?;

    // A new certificate is loaded, an invalid one is not.
    second.replace(&served)?;
    let version = wait_until("the new certificate", DEADLINE, async || second.version(address).await).await?;
    ensure!(version == 1, "version {version}");
    ensure!(first.version(address).await.is_err(), "the old certificate is still shown");
    fs::write(&served.certificate, "-----BEGIN CERTIFICATE-----\nAAAA")?;
    wait_until("the invalid certificate to be logged", DEADLINE, async || {
        let log = ingest.log();
        if log.contains("the previous certificate stays in use") { Ok(()) } else { Err(log) }
    })
    .await?;
    ensure!(second.version(address).await.is_ok(), "the old certificate is gone");
    first.replace(&served)?;
    wait_until("the mended certificate", DEADLINE, async || first.version(address).await).await?;

    // On SIGTERM a kept connection gets an answer with `Connection: close`.
    let mut kept = connected(address, &first.certificate, &["http/1.1"]).await?;
    ingest.interrupt()?;
    wait_until("ingest to hear of it", DEADLINE, async || {
        let log = ingest.log();
        if log.contains("shutting down: requests are served") { Ok(()) } else { Err(log) }
    })
    .await?;
    kept.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut answer = String::new();
    tokio::time::timeout(DEADLINE, kept.read_to_string(&mut answer)).await.context("a left connection is kept")??;
    let answer = answer.to_lowercase();
    ensure!(answer.contains("connection: close") && answer.ends_with("\r\n\r\nalive\n"), "{answer}");
    ingest.succeeded(DEADLINE).await?;
    for mut process in processor {
        process.terminate(DEADLINE).await?;
    }

    // A start with an invalid certificate fails at once, with the reason.
    let mixed = Pair { certificate: first.certificate.clone(), key: second.key.clone() };
    let mut refused = start(&installation, &mixed)?;
    ensure!(!refused.ended(DEADLINE).await?.success(), "it started with another certificate's key");
    ensure!(refused.log().contains("does not belong to"), "{}", refused.log());
    installation.remove().await
}
