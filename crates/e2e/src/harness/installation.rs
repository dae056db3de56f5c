//! An installation with unique names, and the start of its processes.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cart::contract::{Contract as _, DEAD_LETTER_TOPIC, READ_MODELS, group};
use cart::{CartCommand, CartEvent, CartParked, CartReply, ControlRecord, PurchasedItem};
use cassandra::CassandraArgs;
use clap::Parser;
use kafka::{Admin, KafkaArgs};
use postgres::DatabaseArgs;
use service::Secret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use uuid::Uuid;

use super::process::{Process, free_address, log_folder};
use super::servers::OwnServers;

/// Few partitions, so that a test's topics are made quickly; more than one, so that instances share them.
const PARTITIONS: u16 = 4;

/// The timeout of a `setup`, which makes topics, keyspace and tables, on a busy machine.
const SETUP_DEADLINE: Duration = Duration::from_secs(240);

/// The timeout of a `setup` in a cluster, whose servers share one machine: that of the nodes among each other
/// (scripts/servers/cassandra-cluster.jvm).
const CLUSTER_REQUEST_TIMEOUT_MS: u64 = 8_000;

/// The timeout of a start in debug mode, on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(180);

/// The servers' addresses: the binaries' settings, from the environment.
#[derive(Debug, Clone, Parser)]
struct Servers {
    #[command(flatten)]
    kafka: KafkaArgs,
    #[command(flatten)]
    cassandra: CassandraArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// One of the services of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// HTTP in, commands out.
    Ingest,
    /// The same with the options of `ingest_with_limits.rs`.
    LimitedIngest,
    /// Decides.
    CartProcessor,
    /// One of the projectors, by its subcommand.
    Projector(&'static str),
}

impl Service {
    pub const PROJECTORS: [Self; 1 + READ_MODELS.len()] = {
        let mut projectors = [Self::Projector(group::ITEM_PURCHASED_EVENTS); 1 + READ_MODELS.len()];
        let mut index = 0;
        while index < READ_MODELS.len() {
            projectors[1 + index] = Self::Projector(READ_MODELS[index].group);
            index += 1;
        }
        projectors
    };

    fn binary(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::LimitedIngest => "ingest-with-limits",
            Self::CartProcessor => "cart-processor",
            Self::Projector(_) => "projectors",
        }
    }

    /// The name for its log and its usage.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest | Self::LimitedIngest => "ingest",
            Self::CartProcessor => "cart-processor",
            Self::Projector(name) => name,
        }
    }
}

/// The topics, groups, keyspace and database of one pipeline.
#[derive(Debug)]
pub struct Installation {
    name: String,
    /// The settings of its processes.
    servers: Servers,
    /// The URL of its database, with the password.
    database_url: String,
    log_folder: PathBuf,
    partitions: u16,
    /// The number of replicas of everything.
    replication: u8,
    /// The proxies' addresses, which processes get in place of the servers'.
    links: Vec<(&'static str, String)>,
}

impl Installation {
    /// Makes the names for a test; `name` is a short word of a-z. Nothing is created yet.
    ///
    /// # Errors
    /// The environment's settings are invalid.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        // From the environment alone, since this is not a program with arguments.
        let servers = Servers::try_parse_from(["e2e"]).context("reading the servers' addresses")?;
        Self::with(name, servers, 1)
    }

    /// Does the same on separate servers, which the test may harm.
    ///
    /// # Errors
    /// As [`Installation::new`].
    pub fn on(name: &str, servers: &OwnServers) -> anyhow::Result<Self> {
        let args = ["e2e".to_owned()].into_iter().chain(servers.addresses());
        let args = Servers::try_parse_from(args).context("reading the servers' addresses")?;
        Self::with(name, args, servers.replication())
    }

    fn with(name: &str, mut servers: Servers, replication: u8) -> anyhow::Result<Self> {
        let random = Uuid::new_v4().simple().to_string();
        let name = format!("e2e_{name}_{}", &random[..8]);
        servers.kafka.topic_prefix = format!("{name}.");
        servers.cassandra.cassandra_keyspace.clone_from(&name);
        if replication > 1 {
            servers.cassandra.cassandra_request_timeout_ms = CLUSTER_REQUEST_TIMEOUT_MS;
        }
        let database_url = url_of(&servers.database, &name)?;
        let log_folder = log_folder(&name)?;
        let (partitions, links) = (PARTITIONS, Vec::new());
        Ok(Self { name, servers, database_url, log_folder, partitions, replication, links })
    }

    /// Sets the number of partitions of each topic. Must come before [`Installation::setup`].
    #[must_use]
    pub fn with_partitions(self, partitions: u16) -> Self {
        Self { partitions, ..self }
    }

    /// Lets the processes connect through proxies. The test itself connects to the servers directly.
    ///
    /// # Errors
    /// The database's address is invalid.
    pub fn through(self, proxies: [(&'static str, String); 4]) -> anyhow::Result<Self> {
        let own = |(name, value): (&'static str, String)| {
            if name != "DATABASE_URL" {
                return anyhow::Ok((name, value));
            }
            let database: PgConnectOptions = value.parse().context("reading DATABASE_URL")?;
            Ok((name, database.database(&self.name).to_url_lossy().to_string()))
        };
        let links = proxies.into_iter().map(own).collect::<anyhow::Result<_>>()?;
        Ok(Self { links, ..self })
    }

    /// Partitions of each topic.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The name, which is part of those of keyspace, database and topics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its settings of Kafka.
    #[must_use]
    pub fn kafka(&self) -> &KafkaArgs {
        &self.servers.kafka
    }

    /// Its settings of Cassandra.
    #[must_use]
    pub fn cassandra(&self) -> &CassandraArgs {
        &self.servers.cassandra
    }

    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Its settings of PostgreSQL.
    #[must_use]
    pub fn database(&self) -> DatabaseArgs {
        DatabaseArgs::at(&self.database_url)
    }

    /// The folder for the logs of its processes, and for a test's files.
    #[must_use]
    pub fn folder(&self) -> &PathBuf {
        &self.log_folder
    }

    /// The environment variables that make a binary use this installation.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("CASSANDRA_REQUEST_TIMEOUT_MS", self.servers.cassandra.cassandra_request_timeout_ms.to_string()),
            // Two workers, so that partitions also move within a process.
            ("WORKERS", "2".to_owned()),
            ("KAFKA_BOOTSTRAP_SERVERS", self.servers.kafka.kafka_bootstrap_servers.clone()),
            ("SCHEMA_REGISTRY_URL", self.servers.kafka.schema_registry_url.clone()),
            ("CASSANDRA_NODES", self.servers.cassandra.cassandra_nodes.join(",")),
            ("TOPIC_PREFIX", self.servers.kafka.topic_prefix.clone()),
            ("TOPIC_PARTITIONS", self.partitions.to_string()),
            ("TOPIC_REPLICATION", self.replication.to_string()),
            ("CASSANDRA_REPLICATION", self.replication.to_string()),
            ("CASSANDRA_KEYSPACE", self.servers.cassandra.cassandra_keyspace.clone()),
            ("DATABASE_URL", self.database_url.clone()),
            // Errors are printed without a backtrace, and collecting it would cost more than the failed work.
            ("RUST_LIB_BACKTRACE", "0".to_owned()),
        ]
    }

    /// Creates the database, then runs each binary's `setup`.
    ///
    /// # Errors
    /// A server is unavailable, or a `setup` fails; with the end of its log.
    pub async fn setup(&self) -> anyhow::Result<()> {
        self.create_database().await?;
        for binary in ["cart-processor", "ingest", "projectors"] {
            self.run(&format!("{binary}-setup"), binary, ["setup"], SETUP_DEADLINE).await?;
        }
        Ok(())
    }

    /// Creates the database.
    ///
    /// # Errors
    /// PostgreSQL is unavailable, or the user may not create databases.
    pub async fn create_database(&self) -> anyhow::Result<()> {
        // The names need no quotes: a-z, 0-9 and _.
        let statement = format!("CREATE DATABASE {}", self.name);
        let mut server = self.server_database().await?;
        sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.context("creating the test's database")?;
        Ok(())
    }

    /// Removes topics, keyspace, database and logs after a test has passed. After a failed test they stay, to find the cause.
    ///
    /// # Errors
    /// A server is unavailable.
    pub async fn remove(self) -> anyhow::Result<()> {
        let topics = [
            CartCommand::TOPIC,
            CartEvent::TOPIC,
            CartReply::TOPIC,
            CartParked::TOPIC,
            PurchasedItem::TOPIC,
            ControlRecord::TOPIC,
            DEAD_LETTER_TOPIC,
        ];
        let topics = topics.map(|topic| self.kafka().prefixed(topic));
        Admin::new(self.kafka())?.remove_topics(&topics.each_ref().map(String::as_str)).await?;
        let mut server = self.server_database().await?;
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.context("removing the test's database")?;
        let session = cassandra::open(&self.cassandra().patient()).await?;
        let statement = format!("DROP KEYSPACE IF EXISTS {}", self.name);
        session.query_unpaged(statement, ()).await.context("removing the test's keyspace")?;
        fs::remove_dir_all(&self.log_folder).context("removing the test's logs")
    }

    async fn server_database(&self) -> anyhow::Result<PgConnection> {
        // Every server has this database; that of an installation may be deleted at any time.
        let server = self.servers.database.options()?.database("postgres");
        server.connect().await.context("connecting to PostgreSQL (DATABASE_URL); `scripts/services up` starts one")
    }

    /// Starts a service; `instance` distinguishes it from others of its kind. [`Process::ready`] waits for it.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn start(&self, service: Service, instance: &str, args: &[&str]) -> anyhow::Result<Process> {
        self.start_at(service, instance, args, None, None)
    }

    /// Starts a service at the given address, or at a free one, with fail points (see [`Installation::start_to_crash`]).
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn start_at(
        &self,
        service: Service,
        instance: &str,
        args: &[&str],
        address: Option<SocketAddr>,
        fail_point: Option<&str>,
    ) -> anyhow::Result<Process> {
        let more: Vec<_> = fail_point.map(|fail_point| ("FAILPOINTS", fail_point.to_owned())).into_iter().collect();
        self.start_as(service, instance, args, address, &more)
    }

    /// Starts a service with more environment variables.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn start_with(
        &self,
        service: Service,
        instance: &str,
        args: &[&str],
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<Process> {
        self.start_as(service, instance, args, None, environment)
    }

    /// Starts a service at the given address, or at a free one, with more environment variables.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn start_as(
        &self,
        service: Service,
        instance: &str,
        args: &[&str],
        address: Option<SocketAddr>,
        environment: &[(&'static str, String)],
    ) -> anyhow::Result<Process> {
        let address = address.map_or_else(free_address, Ok).context("finding a free port")?;
        let address_text = address.to_string();
        let mut all = match service {
            Service::Ingest | Service::LimitedIngest => vec!["--listen"],
            Service::CartProcessor => vec!["--admin-listen"],
            Service::Projector(subcommand) => vec![subcommand, "--admin-listen"],
        };
        all.push(&address_text);
        // ingest has its metrics at another address.
        let admin = (matches!(service, Service::Ingest | Service::LimitedIngest))
            .then(free_address)
            .transpose()
            .context("finding a free port")?;
        let admin_text = admin.map(|admin| admin.to_string());
        if let Some(admin) = &admin_text {
            all.extend(["--admin-listen", admin]);
        }
        all.extend(args);
        let name = format!("{}-{instance}", service.name());
        let environment = [("INSTANCE", instance.to_owned())].into_iter().chain(environment.iter().cloned());
        Ok(self.spawn_with(&name, service.binary(), all, environment, Some(address))?.with_admin(admin))
    }

    /// Starts a service that crashes at a fail point: `name=20*off->return` passes it 20 times first.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn start_to_crash(
        &self,
        service: Service,
        instance: &str,
        args: &[&str],
        fail_point: &str,
    ) -> anyhow::Result<Process> {
        self.start_at(service, instance, args, None, Some(fail_point))
    }

    /// Starts services and waits until all are ready.
    ///
    /// # Errors
    /// A service does not get ready; with the end of its log.
    pub async fn start_all(&self, services: &[(Service, &str, &[&str])]) -> anyhow::Result<Vec<Process>> {
        let started: anyhow::Result<Vec<_>> =
            services.iter().map(|(service, instance, args)| self.start(*service, instance, args)).collect();
        let mut processes = started?;
        for process in &mut processes {
            process.ready(READY_DEADLINE).await?;
        }
        Ok(processes)
    }

    /// Starts a binary on this installation.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn spawn(
        &self,
        name: &str,
        binary: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> anyhow::Result<Process> {
        self.spawn_with(name, binary, args, [], None)
    }

    /// Starts a binary on this installation that reports its health at `address`. [`Process::ready`] waits for it.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn spawn_listening(
        &self,
        name: &str,
        binary: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        address: SocketAddr,
    ) -> anyhow::Result<Process> {
        self.spawn_with(name, binary, args, [], Some(address))
    }

    /// Starts a binary on this installation with more environment variables. With an `address`, it reports its health there.
    ///
    /// # Errors
    /// The binary does not exist.
    pub fn spawn_as(
        &self,
        name: &str,
        binary: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: &[(&'static str, String)],
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Process> {
        self.spawn_with(name, binary, args, environment.iter().cloned(), address)
    }

    /// Runs a binary on this installation to its end, and returns its output.
    ///
    /// # Errors
    /// It does not end with exit code 0 in time.
    pub async fn run(
        &self,
        name: &str,
        binary: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        deadline: Duration,
    ) -> anyhow::Result<String> {
        let mut process = self.spawn(name, binary, args)?;
        process.succeeded(deadline).await?;
        Ok(process.log())
    }

    fn spawn_with(
        &self,
        name: &str,
        binary: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        more: impl IntoIterator<Item = (&'static str, String)>,
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Process> {
        if name.contains('/') {
            bail!("'{name}' names a process's log file, so it can't have a slash");
        }
        let environment = self.environment().into_iter().chain(self.links.iter().cloned()).chain(more);
        Process::spawn(name, binary, args, environment, &self.log_folder, address)
    }
}

/// The URL of another database of the server, with the password.
fn url_of(server: &DatabaseArgs, database: &str) -> anyhow::Result<String> {
    let mut url: reqwest::Url = server.database_url.expose().parse().context("reading DATABASE_URL")?;
    url.set_path(database);
    let (given, file) = (server.database_password.as_ref(), server.database_password_file.as_deref());
    if let Some(password) = Secret::of("DATABASE_PASSWORD", given, file)? {
        url.set_password(Some(password.expose())).ok().context("DATABASE_URL has no place for a password")?;
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use cart::contract::STAGES;

    use super::*;

    #[test]
    fn every_stage_is_started_and_documented() {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let manifests = "scripts/kubernetes/base/kustomization.yaml";
        let pages = ["README.md", "docs/architecture.md", "docs/deployment.md"];
        for file in ["scripts/stack", "docker-compose.yml", manifests].into_iter().chain(pages) {
            let text = fs::read_to_string(root.join(file)).expect("a file of the repository");
            let words: Vec<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c))).collect();
            for stage in STAGES {
                assert!(words.contains(&stage.group), "{file} lacks {}", stage.group);
            }
        }
        for file in ["README.md", "docs/architecture.md"] {
            let text = fs::read_to_string(root.join(file)).expect("a file of the repository");
            for model in READ_MODELS {
                assert!(text.contains(model.table.name()), "{file} lacks {model}");
            }
        }
    }

    #[test]
    fn installations_have_unique_names() {
        let (one, two) = (Installation::new("names").expect("settings"), Installation::new("names").expect("settings"));
        assert_ne!(one.name(), two.name());
        assert!(one.kafka().prefixed("cart-events").ends_with(".cart-events"));
        assert!(one.database_url().contains(one.name()), "{}", one.database_url());
        assert_eq!(one.cassandra().cassandra_keyspace, one.name());
        for folder in [one.folder(), two.folder()] {
            fs::remove_dir(folder).expect("it is ours, and empty");
        }
    }
}
