//! A second set of servers, which a test may kill and pause without harm to other tests: one of each, or a cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, os::unix};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use super::disk::FullDisk;

/// The offset of this set's ports from the usual ones.
const PORT_OFFSET: u16 = 20_000;

/// How many attempts a start has.
const UP_ATTEMPTS: u32 = 3;

/// The size of each store's separate disk, in MiB: room for hours of a fault run's load, and not more than a machine can spare
/// while one of them is full.
const DISK_MIB: &str = "1024";

/// Until a killed process is looked for again.
const DYING_PAUSE: Duration = Duration::from_millis(100);

/// The usual ports, as scripts/environment names them.
const PORTS: [(&str, u16); 6] = [
    ("KAFKA_PORT", 9092),
    ("KAFKA_CONTROLLER_PORT", 9093),
    ("CASSANDRA_PORT", 9042),
    ("CASSANDRA_STORAGE_PORT", 7000),
    ("POSTGRES_PORT", 5432),
    ("REGISTRY_PORT", 8081),
];

/// The broker's second port, at which clients get the proxy's address.
const KAFKA_PROXIED_PORT: u16 = 9094;

/// The offset of a proxy's port from its server's.
const PROXY_OFFSET: u16 = 100;

/// The number of brokers and of Cassandra nodes of a cluster, and of the replicas of everything. Any one may be away.
pub const CLUSTER_NODES: u8 = 3;

/// The settings of a cluster, whose six nodes are on one machine: small heaps, and time to start one after the other.
const CLUSTER_SETTINGS: [(&str, &str); 3] =
    [("KAFKA_HEAP", "384m"), ("CASSANDRA_HEAP", "512m"), ("CART_SERVICES_TIMEOUT_S", "300")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The broker.
    Kafka,
    /// The only node.
    Cassandra,
    /// The database.
    Postgres,
    /// The schema registry.
    Registry,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Cassandra => "cassandra",
            Self::Postgres => "postgres",
            Self::Registry => "registry",
        }
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Cassandra, Self::Postgres, Self::Registry];

    fn port(self) -> u16 {
        PORT_OFFSET
            + match self {
                Self::Kafka => 9092,
                Self::Cassandra => 9042,
                Self::Postgres => 5432,
                Self::Registry => 8081,
            }
    }

    /// The address of the proxy in front of it, and the address to which that forwards.
    #[must_use]
    pub fn proxied(self) -> (SocketAddr, SocketAddr) {
        let server = if self == Self::Kafka { PORT_OFFSET + KAFKA_PROXIED_PORT } else { self.port() };
        (local(self.port() + PROXY_OFFSET), local(server))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One server of a cluster; numbers start from 1, as Kafka's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its kind.
    pub server: Server,
    pub number: u8,
}

impl Node {
    /// All brokers, or nodes, of a cluster.
    #[must_use]
    pub fn all(server: Server) -> Vec<Self> {
        (1..=CLUSTER_NODES).map(|number| Self { server, number }).collect()
    }
}

impl From<Server> for Node {
    fn from(server: Server) -> Self {
        Self { server, number: 1 }
    }
}

impl std::fmt::Display for Node {
    /// Its name in scripts/services.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            1 => write!(f, "{}", self.server),
            number => write!(f, "{}-{number}", self.server),
        }
    }
}

/// The state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It answers.
    Up,
    /// It runs without answering.
    Silent,
    /// It does not run.
    Down,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The services' settings for servers at these ports.
fn addresses(nodes: u8, port: impl Fn(Server) -> u16) -> [(&'static str, String); 4] {
    let all = |server| {
        let at = |number| SocketAddr::from((Ipv4Addr::new(127, 0, 0, number), port(server))).to_string();
        (1..=nodes).map(at).collect::<Vec<_>>().join(",")
    };
    [
        ("KAFKA_BOOTSTRAP_SERVERS", all(Server::Kafka)),
        ("CASSANDRA_NODES", all(Server::Cassandra)),
        ("SCHEMA_REGISTRY_URL", format!("http://{}/apis/ccompat/v7", local(port(Server::Registry)))),
        ("DATABASE_URL", format!("postgres://cart:cart@{}/cart", local(port(Server::Postgres)))),
    ]
}

/// The servers of `scripts/services`, in a separate folder and on other ports. They are always processes of Maven's downloads,
/// since only processes can be paused by their ids. Stopped, and their data deleted, when this is dropped.
#[derive(Debug)]
pub struct OwnServers {
    folder: PathBuf,
    nodes: u8,
    has_disks: bool,
    /// Variables of `scripts/services`.
    settings: Vec<(String, String)>,
}

impl OwnServers {
    /// Starts them; `name` is part of the folder's name. Uses the downloads of the usual set.
    ///
    /// # Errors
    /// A server does not start.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, 1, false, &[])
    }

    /// Starts one of each with more variables of `scripts/services`, such as `KAFKA_SETTINGS`.
    ///
    /// # Errors
    /// As [`OwnServers::start`].
    pub fn start_with_settings(name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_with(name, 1, false, settings)
    }

    /// Starts three brokers and three Cassandra nodes, without proxies.
    ///
    /// # Errors
    /// A server does not start.
    pub fn start_cluster(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, CLUSTER_NODES, false, &[])
    }

    /// Starts one of each, with a separate disk in memory for each store ([`OwnServers::fill_disk`]). Needs
    /// [`super::may_mount`].
    ///
    /// # Errors
    /// As [`OwnServers::start`].
    pub fn start_on_disks(name: &str) -> anyhow::Result<Self> {
        Self::start_with(name, 1, true, &[])
    }

    fn start_with(name: &str, nodes: u8, has_disks: bool, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = root().join("target").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let usual = std::env::var_os("CART_SERVICES_DIR").map_or_else(|| root().join(".services"), PathBuf::from);
        let (own, usual) = (folder.join("dist"), usual.join("dist"));
        if !own.exists() && usual.exists() {
            unix::fs::symlink(&usual, &own).context("linking the downloaded servers")?;
        }
        // Marks the folder for scripts/services.
        fs::write(folder.join("way"), "maven\n").context("marking the folder")?;
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let servers = Self { folder, nodes, has_disks, settings };
        servers.reset()?;
        servers.up()?;
        Ok(servers)
    }

    /// Starts the servers that do not run, and returns when all answer.
    ///
    /// # Errors
    /// A server does not answer.
    pub fn up(&self) -> anyhow::Result<()> {
        // PostgreSQL's children outlive it for a moment, and until then it can't be restarted.
        (1..UP_ATTEMPTS).find_map(|_| self.services("up").ok()).map_or_else(|| self.services("up"), Ok)
    }

    /// Deletes the data, and keeps the shared downloads.
    fn reset(&self) -> anyhow::Result<()> {
        self.services("reset")
    }

    fn services(&self, action: &str) -> anyhow::Result<()> {
        let output = self.command(action).output().context("running scripts/services")?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scripts/services {action} failed for {}: {text}", self.folder.display());
        Ok(())
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(root().join("scripts/services"));
        command.arg(action).env("CART_SERVICES_DIR", &self.folder).env("CART_SERVICES", "maven");
        // They are restarted often, and have little load.
        command.env("CART_SERVICES_JIT", "quick");
        command.env("CART_CLUSTER", self.nodes.to_string());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        for (name, usual) in PORTS {
            command.env(name, (usual + PORT_OFFSET).to_string());
        }
        if self.has_disks {
            command.env("CART_SERVICES_DISK_MIB", DISK_MIB);
        }
        if self.is_cluster() {
            command.envs(CLUSTER_SETTINGS);
        } else {
            let (proxy, server) = Server::Kafka.proxied();
            command.env("KAFKA_PROXIED_PORTS", format!("{} {}", server.port(), proxy.port()));
        }
        command.stdin(Stdio::null());
        command
    }

    /// Whether there are several brokers and nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.nodes > 1
    }

    /// Runs one of Kafka's command-line tools, by its class, on these brokers.
    ///
    /// # Errors
    /// It fails; with its output.
    pub fn kafka_tool(&self, class: &str, args: &[&str]) -> anyhow::Result<String> {
        let [(_, brokers), ..] = addresses(self.nodes, Server::port);
        // It runs for a second, too short for the optimising compiler.
        let output = Command::new("java")
            .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"])
            .arg(self.folder.join("dist/kafka/*"))
            .args([class, "--bootstrap-server", &brokers])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {class}"))?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
        ensure!(output.status.success(), "{class} failed: {said}");
        Ok(said)
    }

    /// A folder for a tool's input.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The number of replicas of everything.
    #[must_use]
    pub fn replication(&self) -> u8 {
        self.nodes
    }

    /// Their addresses, as arguments.
    pub(super) fn addresses(&self) -> impl Iterator<Item = String> + use<> {
        let option = |name: &str| name.to_lowercase().replace('_', "-");
        let all = addresses(self.nodes, Server::port).into_iter();
        all.map(move |(name, value)| format!("--{}={value}", option(name)))
    }

    /// The proxies' addresses, as settings of the services.
    #[must_use]
    pub fn proxied_addresses() -> [(&'static str, String); 4] {
        addresses(1, |server| server.port() + PROXY_OFFSET)
    }

    /// A port beside those of the servers, which the kernel does not assign to connections.
    #[must_use]
    pub fn port_beside(usual: u16) -> SocketAddr {
        local(usual + PORT_OFFSET)
    }

    /// Kills a server (SIGKILL), as a crash would end it.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill9(&self, server: impl Into<Node>) -> anyhow::Result<()> {
        self.signal(server.into(), Signal::KILL)
    }

    /// Kills a server and deletes all its data, then starts it anew, empty. The registry's data is in Kafka, so it is lost with it.
    ///
    /// # Errors
    /// It does not run, or does not start.
    pub fn lose(&self, server: Server) -> anyhow::Result<()> {
        let lost = if server == Server::Kafka { vec![server, Server::Registry] } else { vec![server] };
        let folders = self.data_folders()?;
        for one in lost {
            self.kill9(one)?;
            while self.state(one)? != State::Down {
                std::thread::sleep(DYING_PAUSE);
            }
            for folder in folders.iter().map(|folder| folder.join(one.name())).filter(|folder| folder.exists()) {
                fs::remove_dir_all(&folder).with_context(|| format!("deleting {}", folder.display()))?;
            }
        }
        self.up()
    }

    /// Where the servers have their data, each in a folder of its name.
    fn data_folders(&self) -> anyhow::Result<Vec<PathBuf>> {
        let output = self.command("status").output().context("running scripts/services")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let after =
            |line: &str| line.split_once("data: ").map(|(_, rest)| rest.split(';').next().unwrap_or_default().into());
        Ok(text.lines().filter_map(after).collect())
    }

    /// Pauses a server with all its children, as a long pause of its machine would.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, server: impl Into<Node>) -> anyhow::Result<()> {
        self.signal(server.into(), Signal::STOP)
    }

    /// Resumes a server.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self, server: impl Into<Node>) -> anyhow::Result<()> {
        self.signal(server.into(), Signal::CONT)
    }

    /// Fills a store's disk, until the returned value is dropped.
    ///
    /// # Errors
    /// It has no separate disk, as with [`OwnServers::start_on_disks`].
    pub fn fill_disk(&self, server: Server) -> anyhow::Result<FullDisk> {
        FullDisk::fill(&self.folder.join("disk").join(server.name()))
    }

    /// Whether a server runs, and whether it answers.
    ///
    /// # Errors
    /// The state can't be read.
    pub fn state(&self, server: Server) -> anyhow::Result<State> {
        let output = self.command("status").output().context("running scripts/services")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let state = line.into_iter().find(|words| words.first() == Some(&server.name()));
        match state.as_ref().and_then(|words| words.get(1)).copied() {
            Some("up") => Ok(State::Up),
            Some("silent") => Ok(State::Silent),
            Some("down") => Ok(State::Down),
            Some(_) | None => bail!("scripts/services status does not tell of {server}: {text}"),
        }
    }

    /// The log of a server since its start, and the error file of its virtual machine.
    #[must_use]
    pub fn log(&self, server: Server) -> String {
        let read = |name: String| fs::read(self.folder.join("log").join(name)).unwrap_or_default();
        let bytes = [read(format!("{server}.log")), read(format!("{server}.crash.log"))].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A connection to PostgreSQL itself, without a proxy.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn database(&self) -> anyhow::Result<sqlx::PgConnection> {
        let [.., (_, url)] = addresses(self.nodes, Server::port);
        let options: sqlx::postgres::PgConnectOptions = url.parse()?;
        options.connect().await.context("connecting to PostgreSQL")
    }

    /// Closes all connections to PostgreSQL, and returns their number.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn end_connections(&self) -> anyhow::Result<u64> {
        let mut connection = self.database().await?;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND client_addr IS NOT NULL";
        let ended = connection.fetch_all(end).await.context("ending the connections")?.len();
        connection.close().await?;
        Ok(ended as u64)
    }

    pub(super) fn signal(&self, node: Node, signal: Signal) -> anyhow::Result<()> {
        let name = node.to_string();
        let file = self.folder.join("run").join(&name);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let pid = text.split(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("{} names no process: {text}", file.display()))?;
        // PostgreSQL has many processes. When the parent is killed, its children notice it and end.
        let others = if signal == Signal::KILL { Vec::new() } else { children(pid) };
        kill_process(pid, signal).map_err(io::Error::from).with_context(|| format!("sending a signal to {name}"))?;
        for pid in others {
            // It may have ended meanwhile.
            kill_process(pid, signal).unwrap_or_default();
        }
        Ok(())
    }
}

/// The children of a process.
fn children(parent: Pid) -> Vec<Pid> {
    let process = procfs::process::Process::new(parent.as_raw_pid());
    let children = process.and_then(|process| process.task_main_thread()?.children()).unwrap_or_default();
    children.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect()
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        if let Err(error) = self.reset() {
            tracing::warn!(error = format!("{error:#}"), "ending the servers");
        }
    }
}

/// The folder of this repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
