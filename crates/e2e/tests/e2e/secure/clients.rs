//! Client certificates and tokens on a real broker, and their renewal under load. On servers of its own, alone:
//! `scripts/test --own-servers`.
//!
//! The broker has a port for each: at one a client's certificate says who it is, at another its token (OAUTHBEARER), and at the third
//! its password, with the mechanisms that the other tests do not use. Each service has the grants that `cartctl grants` gives.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, OwnServers, Service, TraceCollector, wait_until};
use e2e::upgrade::{Build, Environments, Outcome, Running};
use jsonwebtoken::Algorithm;
use kafka::{Admin, KafkaArgs, SaslMechanism, Security};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio::task::{JoinHandle, block_in_place};

use super::secrets::Places;
use crate::auth::{Signer, write_keys};

/// Beside those of the other servers.
const MUTUAL_PORT: u16 = 9095;
const TOKEN_PORT: u16 = 9096;
const USER_PORT: u16 = 9097;

/// The life of a token, and when the next one is written. The broker ends a connection whose client does not authenticate again.
const TOKEN_LIFE_S: i64 = 20;
const TOKEN_INTERVAL: Duration = Duration::from_secs(5);
const AUTHENTICATE_AGAIN: Duration = Duration::from_secs(15);

/// The load with tokens: several lives of one.
const TOKEN_LOAD: Duration = Duration::from_secs(50);

/// A wrong client is rejected within this time.
const REJECTED_WITHIN: Duration = Duration::from_secs(10);

const DEADLINE: Duration = Duration::from_secs(180);
const RATE: u32 = 50;

/// Who may do everything, at each port.
const ADMIN: &str = "admin";

/// Its passwords of the mechanisms PLAIN and SCRAM-SHA-256. Letters only: the broker's settings have them without quotes.
const PLAIN_PASSWORD: &str = "sentasitis";
const SCRAM_PASSWORD: &str = "neversent";

/// What clients and broker prove with who they are.
struct Files {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    signer: Signer,
}

impl Drop for Files {
    fn drop(&mut self) {
        // It is in the folder for temporary files.
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Files {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("cart-secure-clients-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let files = Self {
            issuer: authority(&folder.join("authority.pem"))?,
            signer: Signer::read("rsa", Algorithm::RS256)?,
            folder,
        };
        files.certify("broker")?;
        write_keys(&files.folder.join("keys.json"), &[&files.signer])?;
        for service in users() {
            files.certify(service)?;
            files.write_token(service)?;
        }
        Ok(files)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Gives `name` a new key and certificate, in the place of what it had.
    fn certify(&self, name: &str) -> anyhow::Result<()> {
        certify(&self.issuer, name, &self.folder.join(format!("{name}.pem")))
    }

    /// Gives `name` a new token.
    fn write_token(&self, name: &str) -> anyhow::Result<()> {
        write_token(&self.signer, &self.folder, name, TOKEN_LIFE_S)
    }

    /// A line of a user's private key, with bytes of the secret number.
    fn part_of_key(&self, name: &str) -> anyhow::Result<String> {
        let text = fs::read_to_string(self.path(&format!("{name}.pem")))?;
        // The first line between those that name the kind is almost the same in each key.
        let line = text.lines().nth(2).with_context(|| format!("the key of {name} is too short"))?;
        Ok(line.to_owned())
    }

    /// With what each token of the signer begins: its header.
    fn start_of_tokens(&self) -> anyhow::Result<String> {
        let token = fs::read_to_string(self.path(&format!("{ADMIN}.token")))?;
        let (header, _) = token.split_once('.').context("a token has a header")?;
        Ok(format!("{header}."))
    }

    /// Settings of the broker, without blanks in their values.
    fn broker(&self) -> String {
        let at = |usual| OwnServers::port_beside(usual);
        let (plain, controller, mutual) = (at(9092), at(9093), at(MUTUAL_PORT));
        let (token, user) = (at(TOKEN_PORT), at(USER_PORT));
        let (broker, authority, keys) = (self.path("broker.pem"), self.path("authority.pem"), self.path("keys.json"));
        let security = "org.apache.kafka.common.security";
        let oauth = format!("{security}.oauthbearer");
        let again = AUTHENTICATE_AGAIN.as_millis();
        [
            format!("listeners=PLAINTEXT://{plain},CONTROLLER://{controller},MUTUAL://{mutual},TOKEN://{token},USER://{user}"),
            format!("advertised.listeners=PLAINTEXT://{plain},MUTUAL://{mutual},TOKEN://{token},USER://{user}"),
            String::from("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,MUTUAL:SSL,TOKEN:SASL_SSL,USER:SASL_SSL"),
            String::from("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            format!("super.users=User:ANONYMOUS;User:{ADMIN}"),
            format!("ssl.keystore.type=PEM ssl.keystore.location={broker}"),
            format!("ssl.truststore.type=PEM ssl.truststore.location={authority}"),
            String::from("listener.name.mutual.ssl.client.auth=required"),
            String::from("ssl.principal.mapping.rules=RULE:^CN=([a-z-]+)$/$1/"),
            String::from("listener.name.token.sasl.enabled.mechanisms=OAUTHBEARER"),
            format!(r"listener.name.token.oauthbearer.sasl.jaas.config={oauth}.OAuthBearerLoginModule\u0020required\u0020;"),
            format!("listener.name.token.oauthbearer.sasl.server.callback.handler.class={oauth}.OAuthBearerValidatorCallbackHandler"),
            format!("listener.name.token.oauthbearer.connections.max.reauth.ms={again}"),
            String::from("listener.name.user.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256"),
            format!(
                r"listener.name.user.plain.sasl.jaas.config={security}.plain.PlainLoginModule\u0020required\u0020user_{ADMIN}={PLAIN_PASSWORD};"
            ),
            format!(r"listener.name.user.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule\u0020required\u0020;"),
            // The default of Kafka 4.1 takes a token of any key.
            format!("sasl.oauthbearer.jwt.validator.class={oauth}.BrokerJwtValidator"),
            format!("sasl.oauthbearer.jwks.endpoint.url=file://{keys}"),
            String::from("sasl.oauthbearer.clock.skew.seconds=1"),
        ]
        .join(" ")
    }

    /// Kafka's clients refuse keys at an address that this property does not name.
    fn java_options(&self) -> String {
        let keys = self.path("keys.json");
        format!(
            "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{keys} -Dorg.apache.kafka.sasl.oauthbearer.allowed.files={keys}"
        )
    }

    /// The settings of each user.
    fn environments(&self, of: impl Fn(&Self, &str) -> Vec<(&'static str, String)>) -> Environments {
        users().map(|user| (user, of(self, user))).collect()
    }

    fn with_certificate(&self, user: &str) -> Vec<(&'static str, String)> {
        let own = self.path(&format!("{user}.pem"));
        vec![
            ("KAFKA_BOOTSTRAP_SERVERS", OwnServers::port_beside(MUTUAL_PORT).to_string()),
            ("KAFKA_SECURITY", String::from("ssl")),
            ("KAFKA_CA_CERT", self.path("authority.pem")),
            ("KAFKA_CLIENT_CERT", own.clone()),
            ("KAFKA_CLIENT_KEY", own),
        ]
    }

    fn with_token(&self, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("KAFKA_BOOTSTRAP_SERVERS", OwnServers::port_beside(TOKEN_PORT).to_string()),
            ("KAFKA_SECURITY", String::from("sasl-ssl")),
            ("KAFKA_SASL_MECHANISM", String::from("oauthbearer")),
            ("KAFKA_CA_CERT", self.path("authority.pem")),
            ("KAFKA_TOKEN_FILE", self.path(&format!("{user}.token"))),
        ]
    }
}

/// The users of all that is started.
fn users() -> impl Iterator<Item = &'static str> {
    let services = [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS);
    services.map(Service::name).chain([ADMIN])
}

fn authority(file: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(file, params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

/// Writes a new key and its certificate to one file, in one step.
fn certify(issuer: &Issuer<'_, KeyPair>, name: &str, file: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::new([String::from("127.0.0.1")])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?.pem();
    replace(file, &format!("{}{certificate}", key.serialize_pem()))
}

fn write_token(signer: &Signer, folder: &Path, name: &str, life_s: i64) -> anyhow::Result<()> {
    let now = chrono::Utc::now().timestamp();
    let token = signer.sign(&json!({"sub": name, "iat": now, "exp": now + life_s}))?;
    replace(&folder.join(format!("{name}.token")), &token)
}

fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
    Ok(fs::rename(new, file)?)
}

/// Writes new tokens until it is dropped.
struct Renewal(JoinHandle<()>);

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn renew_tokens(folder: PathBuf) -> anyhow::Result<Renewal> {
    let signer = Signer::read("rsa", Algorithm::RS256)?;
    Ok(Renewal(tokio::spawn(async move {
        loop {
            for user in users() {
                if let Err(error) = write_token(&signer, &folder, user, TOKEN_LIFE_S) {
                    anstream::eprintln!("the token of {user} is not renewed: {error:#}");
                }
            }
            tokio::time::sleep(TOKEN_INTERVAL).await;
        }
    })))
}

fn is_clean(what: &str, outcome: &Outcome) -> anyhow::Result<()> {
    anstream::println!(
        "  {what}: {} commands acknowledged, {} reads, {} errors",
        outcome.acknowledged,
        outcome.clients.reads,
        outcome.clients.errors
    );
    ensure!(outcome.findings.is_empty(), "{what}: {:?}", outcome.findings);
    Ok(())
}

/// A client with these settings is rejected in time, and says why.
async fn is_rejected(what: &str, args: &KafkaArgs, words: &[&str]) -> anyhow::Result<()> {
    let started_at = Instant::now();
    let error = Admin::new(args)?.check().await.err().with_context(|| format!("{what} is accepted"))?;
    let (error, took) = (format!("{:#}", anyhow::Error::from(error)), started_at.elapsed());
    ensure!(took < REJECTED_WITHIN, "{what} is rejected after {took:?}: {error}");
    for word in words {
        ensure!(error.contains(word), "{what}: the error does not say '{word}': {error}");
    }
    Ok(())
}

/// The right password is accepted, and the one of the other mechanism is not.
async fn passwords_are_checked(files: &Files, servers: &OwnServers, plain: &KafkaArgs) -> anyhow::Result<()> {
    let scram = format!("SCRAM-SHA-256=[iterations=4096,password={SCRAM_PASSWORD}]");
    let alter = ["--alter", "--entity-type", "users", "--entity-name", ADMIN, "--add-config", &scram];
    block_in_place(|| servers.kafka_tool("kafka.admin.ConfigCommand", &alter))?;
    let file = files.folder.join("password");
    let mut args = plain.clone();
    args.kafka_bootstrap_servers = OwnServers::port_beside(USER_PORT).to_string();
    args.security.kafka_security = Security::SaslSsl;
    args.security.kafka_ca_cert = Some(files.folder.join("authority.pem"));
    args.security.kafka_user = Some(ADMIN.to_owned());
    args.security.kafka_password_file = Some(file.clone());
    for (mechanism, right, wrong) in [
        (SaslMechanism::Plain, PLAIN_PASSWORD, SCRAM_PASSWORD),
        (SaslMechanism::ScramSha256, SCRAM_PASSWORD, PLAIN_PASSWORD),
    ] {
        args.security.kafka_sasl_mechanism = mechanism;
        replace(&file, right)?;
        // The broker learns of a new user a moment after the tool has ended.
        wait_until(&format!("{mechanism:?} to be accepted"), DEADLINE, async || Admin::new(&args)?.check().await)
            .await?;
        replace(&file, wrong)?;
        is_rejected(&format!("a wrong password with {mechanism:?}"), &args, &["--kafka-password-file"]).await?;
    }
    Ok(())
}

/// A client with TLS at the port without it, and a client without at one that has it.
async fn a_port_with_another_protocol_is_named(files: &Files, plain: &KafkaArgs) -> anyhow::Result<()> {
    let mut args = plain.clone();
    args.security.kafka_security = Security::Ssl;
    args.security.kafka_ca_cert = Some(files.folder.join("authority.pem"));
    is_rejected("a client with TLS", &args, &["the port has no TLS", "--kafka-security"]).await?;
    for port in [MUTUAL_PORT, TOKEN_PORT, USER_PORT] {
        let mut args = plain.clone();
        args.kafka_bootstrap_servers = OwnServers::port_beside(port).to_string();
        is_rejected("a client without TLS", &args, &["the port wants TLS or a user", "--kafka-security"]).await?;
    }
    Ok(())
}

async fn strangers_are_rejected(files: &Files, plain: &KafkaArgs) -> anyhow::Result<()> {
    let mut mutual = plain.clone();
    mutual.kafka_bootstrap_servers = OwnServers::port_beside(MUTUAL_PORT).to_string();
    mutual.security.kafka_security = Security::Ssl;
    mutual.security.kafka_ca_cert = Some(files.folder.join("authority.pem"));
    is_rejected("a client without a certificate", &mutual, &["--kafka-client-cert"]).await?;
    let other = authority(&files.folder.join("other.pem"))?;
    let stranger = files.folder.join("stranger.pem");
    certify(&other, ADMIN, &stranger)?;
    mutual.security.kafka_client_cert = Some(stranger.clone());
    mutual.security.kafka_client_key = Some(stranger);
    is_rejected("a certificate of another authority", &mutual, &["--kafka-client-cert"]).await?;

    let mut token = plain.clone();
    token.kafka_bootstrap_servers = OwnServers::port_beside(TOKEN_PORT).to_string();
    token.security.kafka_security = Security::SaslSsl;
    token.security.kafka_sasl_mechanism = SaslMechanism::OAuthBearer;
    token.security.kafka_ca_cert = Some(files.folder.join("authority.pem"));
    token.security.kafka_token_file = Some(files.folder.join("stranger.token"));
    write_token(&Signer::read("ec", Algorithm::ES256)?, &files.folder, "stranger", TOKEN_LIFE_S)?;
    is_rejected("a token of another key", &token, &["--kafka-token-file"]).await
}

pub(crate) async fn certificates_and_tokens_are_renewed_without_an_error() -> anyhow::Result<()> {
    let files = Files::new()?;
    let (broker, java) = (files.broker(), files.java_options());
    let settings = [("KAFKA_SETTINGS", broker.as_str()), ("JDK_JAVA_OPTIONS", &java)];
    let servers = block_in_place(|| OwnServers::start_with_settings("secure-clients", &settings))?;
    let installation = Installation::on("secure_clients", &servers)?;
    installation.setup().await?;
    let grants = ["grants", "--for", "kafka", "--apply"];
    installation.run("grants", "cartctl", grants, DEADLINE).await?;
    strangers_are_rejected(&files, installation.kafka()).await?;
    a_port_with_another_protocol_is_named(&files, installation.kafka()).await?;
    passwords_are_checked(&files, &servers, installation.kafka()).await?;

    // New certificates for the broker and for each service, which takes its own with its restart.
    let today = Build::of_today();
    let environments = files.environments(Files::with_certificate);
    let mut running = Running::start(&installation, &today, &environments, RATE, 1).await?;
    let places = Places::read(running.processes(), installation.folder()).await?;
    for user in users() {
        places.hide(&format!("the key of {user}"), &files.part_of_key(user)?)?;
    }
    for user in users() {
        files.certify(user)?;
    }
    // The broker refuses another name, and reads the files again when their names change.
    certify(&files.issuer, "broker", &files.folder.join("renewed-broker.pem"))?;
    let keystore = format!("listener.name.mutual.ssl.keystore.location={}", files.path("renewed-broker.pem"));
    let keystore = format!("{keystore},listener.name.mutual.ssl.keystore.type=PEM");
    let alter = ["--alter", "--entity-type", "brokers", "--entity-name", "1", "--add-config", &keystore];
    block_in_place(|| servers.kafka_tool("kafka.admin.ConfigCommand", &alter))?;
    running.replace_all(&today, &[]).await?;
    is_clean("client certificates", &running.finish().await?)?;

    // Tokens that live for a part of the load.
    let renewal = renew_tokens(files.folder.clone())?;
    let collector = TraceCollector::start().await?;
    let mut environments = files.environments(Files::with_token);
    for environment in environments.values_mut() {
        environment.extend(collector.environment());
        environment.push(("OTEL_TRACES_SAMPLER", String::from("always_on")));
    }
    let running = Running::start(&installation, &today, &environments, RATE, 2).await?;
    tokio::time::sleep(TOKEN_LOAD).await;
    let traces = collector.requests().concat();
    ensure!(!traces.is_empty(), "no traces were sent");
    let mut places = Places::read(running.processes(), installation.folder()).await?;
    places.add("a trace", traces);
    places.hide("a token", &files.start_of_tokens()?)?;
    is_clean("tokens", &running.finish().await?)?;
    let environment = files.with_token(ADMIN);
    let mut doctor = installation.spawn_as("doctor", "cartctl", ["doctor"], &environment, None)?;
    doctor.succeeded(DEADLINE).await?;
    drop(renewal);
    installation.remove().await
}
