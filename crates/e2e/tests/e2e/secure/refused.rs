//! Rejected clients, and the errors of services with wrong settings.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{Process, Service, free_address, wait_until};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{Environment, Secured};

/// How long a service may take to say what is wrong.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer of `/health/ready` may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// A server's port on this machine, from an address in the environment such as 127.0.0.1:9092.
fn address(name: &str) -> anyhow::Result<SocketAddr> {
    let value = std::env::var(name).with_context(|| format!("{name} is not set"))?;
    value.parse().with_context(|| format!("{name} is {value}"))
}

fn port(name: &str) -> anyhow::Result<SocketAddr> {
    let value = std::env::var(name).with_context(|| format!("{name} is not set"))?;
    format!("127.0.0.1:{value}").parse().with_context(|| format!("{name} is {value}"))
}

/// What a server answers to bytes without TLS.
async fn answer(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    // Some close the connection, some wait for a handshake.
    match timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::ConnectionReset => bail!("{address}: {error}"),
        _ => Ok(answer),
    }
}

/// Each port that clients or other servers use refuses clients without TLS. The registry's port behind its proxy does not, since
/// Apicurio has neither TLS nor passwords of its own: every user of this machine reaches it, and no other machine.
pub(crate) async fn plain_clients_are_refused_but_behind_the_registrys_proxy() -> anyhow::Result<()> {
    // ApiVersions. A plain broker answers with its number, 1.
    let api_versions = b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff";
    for address in [address("KAFKA_BOOTSTRAP_SERVERS")?, port("KAFKA_CONTROLLER_PORT")?] {
        let said = answer(address, api_versions).await?;
        ensure!(said.get(4..8) != Some(&[0, 0, 0, 1]), "Kafka at {address} answers without TLS: {said:?}");
    }
    // OPTIONS. A plain node answers SUPPORTED, opcode 6.
    let options = b"\x04\0\0\0\x05\0\0\0\0";
    for address in [address("CASSANDRA_NODES")?, port("CASSANDRA_STORAGE_PORT")?] {
        let said = answer(address, options).await?;
        ensure!(said.get(4) != Some(&6), "Cassandra at {address} answers without TLS: {said:?}");
    }
    let startup = b"\0\0\0\x22\0\x03\0\0user\0admin\0database\0cart\0\0";
    let said = answer(port("POSTGRES_PORT")?, startup).await?;
    let text = String::from_utf8_lossy(&said);
    ensure!(said.first() == Some(&b'E') && text.contains("no encryption"), "PostgreSQL without TLS: {text}");
    let registry = std::env::var("SCHEMA_REGISTRY_URL")?;
    let said = answer(port("REGISTRY_PORT")?, b"GET /apis/ccompat/v7/subjects HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    ensure!(!said.starts_with(b"HTTP/1.1 2"), "the registry without TLS: {}", String::from_utf8_lossy(&said));
    // With TLS, but without a user.
    let authority = reqwest::Certificate::from_pem(&fs::read(std::env::var("REGISTRY_CA_CERT")?)?)?;
    let client = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build()?;
    let status = client.get(format!("{registry}/subjects")).send().await?.status();
    ensure!(status == 401, "the registry without a user: {status}");
    let behind = port("REGISTRY_PLAIN_PORT")?;
    TcpStream::connect(behind).await.with_context(|| format!("connecting to {behind}, behind the proxy"))?;
    // As good as another machine's: a server that listened on all addresses would accept it.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], behind.port()));
    ensure!(TcpStream::connect(elsewhere).await.is_err(), "the registry without TLS also listens on {elsewhere}");
    Ok(())
}

/// A server that does no more than present a certificate.
async fn present(certificate: &Path, key: &Path, is_postgres: bool) -> anyhow::Result<SocketAddr> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if is_postgres {
                    let mut request = [0; 8];
                    stream.read_exact(&mut request).await?;
                    stream.write_all(b"S").await?;
                }
                let mut stream = acceptor.accept(stream).await?;
                // A client that accepts the certificate is not answered.
                stream.read_to_end(&mut Vec::new()).await.map(drop)
            });
        }
    });
    Ok(address)
}

/// An authority, and two certificates of it that no client may accept.
struct Certificates {
    authority: PathBuf,
    key: PathBuf,
    expired: PathBuf,
    other_name: PathBuf,
}

impl Certificates {
    fn make(folder: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "another authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = |name: &str, last_year: i32| -> anyhow::Result<String> {
            let mut params = CertificateParams::new([name.to_owned()])?;
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
            Ok(params.signed_by(&key, &authority)?.pem())
        };
        let write = |name: &str, text: String| -> anyhow::Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Self {
            authority: write("other-authority.pem", authority.pem())?,
            key: write("other.key", key.serialize_pem())?,
            expired: write("expired.pem", certificate("127.0.0.1", 2021)?)?,
            other_name: write("other-name.pem", certificate("kafka.example", 2099)?)?,
        })
    }
}

/// A wrong setting, and what the service must say.
struct Wrong {
    what: &'static str,
    service: Service,
    settings: Environment,
    /// One of these.
    says: Vec<&'static str>,
}

pub(crate) async fn wrong_clients_are_refused_and_say_why() -> anyhow::Result<()> {
    let secured = Secured::set_up("refused").await?;
    let folder = secured.installation.folder().clone();
    let certificates = Certificates::make(&folder)?;
    let wrong_password = folder.join("wrong-password");
    fs::write(&wrong_password, "not the password\n")?;
    let text = |path: &Path| path.display().to_string();
    let database = secured.user("vendor-billing-jdbc")?.pop().context("DATABASE_URL")?.1;
    let jdbc = Service::PROJECTORS.into_iter().find(|service| service.name() == "vendor-billing-jdbc");
    let jdbc = jdbc.context("a projector of PostgreSQL")?;
    let mut all = Vec::new();
    let mut add = |what, service, settings, says: &[&'static str]| {
        all.push(Wrong { what, service, settings, says: says.to_vec() })
    };
    let ingest = Service::Ingest;
    add(
        "a wrong Kafka password",
        ingest,
        vec![("KAFKA_PASSWORD_FILE", text(&wrong_password))],
        &["--kafka-password-file"],
    );
    add("a wrong Kafka user", ingest, vec![("KAFKA_USER", "stranger".to_owned())], &["--kafka-user"]);
    add(
        "another Kafka authority",
        ingest,
        vec![("KAFKA_CA_CERT", text(&certificates.authority))],
        &["--kafka-ca-cert"],
    );
    add(
        "a wrong Cassandra password",
        ingest,
        vec![("CASSANDRA_PASSWORD_FILE", text(&wrong_password))],
        &["--cassandra-user", "CASSANDRA_PASSWORD"],
    );
    add(
        "a wrong Cassandra user",
        ingest,
        vec![("CASSANDRA_USER", "stranger".to_owned())],
        &["--cassandra-user", "CASSANDRA_PASSWORD"],
    );
    add(
        "another Cassandra authority",
        ingest,
        vec![("CASSANDRA_CA_CERT", text(&certificates.authority))],
        &["--cassandra-ca-cert"],
    );
    add(
        "a wrong registry password",
        ingest,
        vec![("REGISTRY_PASSWORD_FILE", text(&wrong_password))],
        &["--registry-user", "REGISTRY_PASSWORD"],
    );
    add(
        "another registry authority",
        ingest,
        vec![("REGISTRY_CA_CERT", text(&certificates.authority))],
        &["--registry-ca-cert"],
    );
    add(
        "a wrong PostgreSQL password",
        jdbc,
        vec![("DATABASE_PASSWORD_FILE", text(&wrong_password))],
        &["password authentication failed"],
    );
    add(
        "a plain PostgreSQL client",
        jdbc,
        vec![("DATABASE_URL", database.replace("sslmode=verify-full", "sslmode=disable"))],
        &["no encryption"],
    );
    let real_authority = std::env::var("KAFKA_CA_CERT")?;
    add(
        "another PostgreSQL authority",
        jdbc,
        vec![("DATABASE_URL", with_authority(&database, &real_authority, &certificates.authority)?)],
        &["sslrootcert"],
    );
    for (what, certificate, kafka, cassandra, registry, postgres) in [
        ("an expired certificate", &certificates.expired, "expired", "xpired", "xpired", "xpired"),
        (
            "a certificate of another name",
            &certificates.other_name,
            "advertised.listeners",
            "--cassandra-tls-verify",
            "--schema-registry-url",
            "--database-url",
        ),
    ] {
        let authority = text(&certificates.authority);
        let address = present(certificate, &certificates.key, false).await?;
        let postgres_address = present(certificate, &certificates.key, true).await?;
        add(
            what,
            ingest,
            vec![("KAFKA_BOOTSTRAP_SERVERS", address.to_string()), ("KAFKA_CA_CERT", authority.clone())],
            &[kafka],
        );
        add(
            what,
            ingest,
            vec![("CASSANDRA_NODES", address.to_string()), ("CASSANDRA_CA_CERT", authority.clone())],
            &[cassandra],
        );
        add(
            what,
            ingest,
            vec![("SCHEMA_REGISTRY_URL", format!("https://{address}/apis")), ("REGISTRY_CA_CERT", authority.clone())],
            &[registry],
        );
        let url = with_authority(&database, &real_authority, &certificates.authority)?;
        let real = address_in(&url)?;
        add(what, jdbc, vec![("DATABASE_URL", url.replace(&real, &postgres_address.to_string()))], &[postgres]);
    }
    let mut silent = Vec::new();
    for wrong in &all {
        let process = secured.start(wrong.service, &["--startup-timeout-s", "60"], &wrong.settings)?;
        if let Err(error) = says(&process, wrong.what, &wrong.says).await {
            silent.push(format!("{} ({}): {error:#}", wrong.what, wrong.settings[0].0));
        }
    }
    let process = plain_kafka_client(&secured)?;
    if let Err(error) = says(&process, "a plain Kafka client", &["the port wants TLS or a user"]).await {
        silent.push(format!("a plain Kafka client: {error:#}"));
    }
    drop(process);
    ensure!(silent.is_empty(), "{} of {}:\n{}", silent.len(), all.len(), silent.join("\n\n"));
    secured.remove().await
}

/// The URL with another authority.
fn with_authority(url: &str, real: &str, other: &Path) -> anyhow::Result<String> {
    // A URL may have slashes as they are, or encoded.
    let encoded = |path: &str| path.replace('/', "%2F");
    let changed = url.replace(real, &other.display().to_string());
    let changed = changed.replace(&encoded(real), &encoded(&other.display().to_string()));
    ensure!(changed != url, "{url} does not name {real}");
    Ok(changed)
}

/// Host and port in a database's URL.
fn address_in(url: &str) -> anyhow::Result<String> {
    let after_user = url.split_once('@').context("a user")?.1;
    Ok(after_user.split('/').next().unwrap_or_default().to_owned())
}

/// An ingest without any setting of a secured Kafka. An option that has no effect without TLS would end it before it connects.
fn plain_kafka_client(secured: &Secured) -> anyhow::Result<Process> {
    const SECURITY: [&str; 5] =
        ["KAFKA_SECURITY", "KAFKA_SASL_MECHANISM", "KAFKA_CA_CERT", "KAFKA_USER", "KAFKA_PASSWORD_FILE"];
    let installation = &secured.installation;
    let own = installation.environment().into_iter().chain(secured.user(Service::Ingest.name())?);
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let environment = std::env::vars().chain(own).filter(|(name, _)| !SECURITY.contains(&name.as_str()));
    let (listen, admin) = (free_address()?, free_address()?);
    let words = ["ingest", "--listen", &listen.to_string(), "--admin-listen", &admin.to_string()].map(str::to_owned);
    Process::contained("ingest-plain", &words, environment, installation.folder(), Some(admin))
}

/// Within the time that deployment.md promises, the log and `/health/ready` have one of the words.
async fn says(process: &Process, what: &str, words: &[&str]) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).no_proxy().build()?;
    let ready = format!("http://{}/health/ready", process.metrics_address()?);
    let is_said = |text: &str| words.iter().any(|word| text.contains(word));
    let started_at = Instant::now();
    wait_until(&format!("{words:?} in the log and in /health/ready"), SAID_WITHIN, async || {
        let log = process.log();
        let readiness = match client.get(&ready).send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        if is_said(&log) && is_said(&readiness) {
            return Ok(());
        }
        let lines: Vec<_> = log.lines().collect();
        Err(format!("{}\n/health/ready: {readiness}", lines[lines.len().saturating_sub(4)..].join("\n")))
    })
    .await?;
    anstream::println!("{what}: said after {:.1} s", started_at.elapsed().as_secs_f32());
    Ok(())
}
