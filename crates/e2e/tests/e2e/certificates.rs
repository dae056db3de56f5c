//! A server whose certificate is rejected: the error says which one it is, what is wrong with it, and which option to change.
//!
//! All servers are one listener that speaks TLS and nothing else: it is the handshake that fails.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use cassandra::CassandraArgs;
use clap::Parser;
use e2e::harness::Installation;
use kafka::{Admin, KafkaArgs, Registry};
use postgres::DatabaseArgs;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Parser)]
struct Servers {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Servers {
    /// All four at one address, trusting the authority of a file.
    fn at(address: SocketAddr, authority: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let (brokers, authority) = (address.to_string(), authority.display().to_string());
        let database = format!("postgres://cart@{address}/cart?sslmode=verify-full&sslrootcert={authority}");
        let registry = format!("https://{address}/apis/ccompat/v7");
        let args = [
            ["--kafka-bootstrap-servers", &brokers],
            ["--kafka-security", "ssl"],
            ["--kafka-ca-cert", &authority],
            ["--schema-registry-url", &registry],
            ["--registry-ca-cert", &authority],
            ["--cassandra-nodes", &brokers],
            ["--cassandra-ca-cert", &authority],
            ["--database-url", &database],
        ];
        Ok(Self::try_parse_from(["e2e"].into_iter().chain(args.into_iter().flatten()).chain(more.iter().copied()))?)
    }

    /// What each server's client says of it, in the order kafka, cassandra, postgres, registry.
    async fn errors(&self) -> anyhow::Result<[String; 4]> {
        let text = |error: anyhow::Error| format!("{error:#}");
        let (admin, registry) = (Admin::new(&self.kafka)?, Registry::new(&self.kafka)?);
        let kafka = admin.check().await.map_err(|error| text(error.into())).err();
        let cassandra = cassandra::open(&self.cassandra).await.map_err(|error| text(error.into())).err();
        let database = self.database.connect().await.map_err(|error| text(error.into())).err();
        let registry = registry.check().await.map_err(|error| text(error.into())).err();
        Ok([
            kafka.context("Kafka is reached")?,
            cassandra.context("Cassandra is reached")?,
            database.context("PostgreSQL is reached")?,
            registry.context("the registry is reached")?,
        ])
    }
}

/// An authority, whose certificate is in a file.
fn authority(file: &Path, name: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(file, params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

/// Serves TLS with a certificate for `host` that ended with the given year. After a handshake it says nothing.
async fn serve(issuer: &Issuer<'_, KeyPair>, host: &str, end_year: i32) -> anyhow::Result<SocketAddr> {
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.not_after = date_time_ymd(end_year, 12, 31);
    let key = KeyPair::generate()?;
    let certificate = CertificateDer::from_pem_slice(params.signed_by(&key, issuer)?.pem().as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![certificate], key)?;
    let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0").await?, TlsAcceptor::from(Arc::new(config)));
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut first = [0; 1];
                stream.peek(&mut first).await?;
                if first == [0] {
                    // A client of PostgreSQL asks in eight bytes whether there is TLS.
                    stream.read_exact(&mut [0; 8]).await?;
                    stream.write_all(b"S").await?;
                }
                acceptor.accept(stream).await.map(drop)
            });
        }
    });
    Ok(address)
}

pub(crate) async fn a_rejected_certificate_is_explained_with_the_option_to_change() -> anyhow::Result<()> {
    let installation = Installation::new("certificates")?;
    let (trusted, other) = (installation.folder().join("trusted.pem"), installation.folder().join("other.pem"));
    let (issuer, stranger) = (authority(&trusted, "trusted")?, authority(&other, "other")?);
    let unknown = serve(&stranger, "127.0.0.1", 2999).await?;
    let misnamed = serve(&issuer, "elsewhere.example", 2999).await?;
    let expired = serve(&issuer, "127.0.0.1", 2020).await?;
    let cases = [
        (unknown, ["--kafka-ca-cert", "--cassandra-ca-cert", "add sslrootcert=FILE", "--registry-ca-cert"]),
        (
            misnamed,
            [
                "it is not for 127.0.0.1: --kafka-bootstrap-servers",
                "or give --cassandra-tls-verify chain",
                "is not for the host in --database-url",
                "is not for the host in --schema-registry-url",
            ],
        ),
        (
            expired,
            [
                "certificate has expired: renew the server's certificate",
                "certificate has expired: renew the server's certificate",
                "renew the server's certificate",
                "renew the registry's certificate",
            ],
        ),
    ];
    for (address, parts) in cases {
        let errors = Servers::at(address, &trusted, &[])?.errors().await?;
        for (error, part) in errors.iter().zip(parts) {
            ensure!(error.contains(part), "'{part}' is not in: {error}");
        }
    }
    // Without the check of the address the name does not matter, but the authority does.
    let chain = ["--cassandra-tls-verify", "chain"];
    for (address, is_rejected) in [(misnamed, false), (unknown, true), (expired, true)] {
        let error = cassandra::open(&Servers::at(address, &trusted, &chain)?.cassandra).await.map(drop);
        let error = format!("{:#}", anyhow::Error::from(error.err().context("nothing answers")?));
        ensure!(error.contains("certificate was rejected") == is_rejected, "{error}");
    }
    Ok(fs::remove_dir_all(installation.folder())?)
}
