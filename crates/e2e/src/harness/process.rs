//! A child process, with its log in a file.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use procfs::ProcResult;
use procfs::process::FDTarget;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::stacks::stacks;
use super::wait_until;

/// How many of a log's last lines an error shows.
const LOG_TAIL_LINES: usize = 30;

/// The timeout of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// A running child, which is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    address: Option<SocketAddr>,
    /// Where it has its metrics, if not at its address.
    admin: Option<SocketAddr>,
}

/// The path of a binary of this workspace: cargo puts it beside the folder of the running test.
///
/// # Errors
/// It does not exist; with an instruction.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = profile_folder()?.join(name);
    if path.is_file() {
        return Ok(path);
    }
    bail!("{} is not there; `cargo build --workspace --bins` makes it", path.display())
}

/// Usually `target/debug`. Tests are in `deps` below it.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("finding out where this test is")?;
    let folder = test.parent().context("this test is in no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("deps is in no folder")? } else { folder };
    Ok(folder.to_owned())
}

/// The folder for the logs of an installation's processes: `target/e2e-logs/<installation>`.
pub(super) fn log_folder(installation: &str) -> anyhow::Result<PathBuf> {
    let profile = profile_folder()?;
    let target = profile.parent().context("the binaries are in no folder")?;
    let folder = target.join("e2e-logs").join(installation);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// An address that is free, and stays free until a process listens there. Its port is outside of the range from which the
/// kernel assigns ports to connections (`net.ipv4.ip_local_port_range`); one that the kernel chose would be inside. No
/// port is returned twice: the process that it was returned for may not listen yet, or be killed and started there again.
///
/// # Errors
/// There is no free port.
pub fn free_address() -> io::Result<SocketAddr> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 19_000;
    const ATTEMPTS: usize = 100;
    // Another run of the tests begins elsewhere.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(uuid::Uuid::new_v4().as_fields().1 % COUNT));
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..ATTEMPTS {
        let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| Some((next + 1) % COUNT));
        let port = FIRST + next.unwrap_or_default();
        result = TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The inodes of a process's sockets, as in the tables of connections.
///
/// # Errors
/// The process has ended, or is another user's.
pub(crate) fn sockets(process: &procfs::process::Process) -> ProcResult<HashSet<u64>> {
    let mut sockets = HashSet::new();
    for file in process.fd()? {
        // A file may be closed meanwhile.
        if let Ok(FDTarget::Socket(number)) = file.map(|file| file.target) {
            sockets.insert(number);
        }
    }
    Ok(sockets)
}

impl Process {
    /// Starts `binary` (a name) as `name`. With an `address`, it reports its health there.
    pub(super) fn spawn<'a>(
        name: &str,
        binary_name: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: impl IntoIterator<Item = (&'a str, String)>,
        log_folder: &Path,
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary(binary_name)?);
        command.args(args).envs(environment);
        Self::run(name, command, log_folder, address)
    }

    /// Starts a command as a container does: with these variables and no others. Binaries of this workspace are found by their
    /// names.
    ///
    /// # Errors
    /// There is no such program.
    pub fn contained(
        name: &str,
        words: &[String],
        environment: impl IntoIterator<Item = (String, String)>,
        log_folder: &Path,
        address: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let (program, args) = words.split_first().with_context(|| format!("{name} has no command"))?;
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", profile_folder()?.display());
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(environment).envs([("PATH", path.as_str()), ("RUST_LIB_BACKTRACE", "0")]);
        Self::run(name, command, log_folder, address)
    }

    fn run(name: &str, mut command: Command, log_folder: &Path, address: Option<SocketAddr>) -> anyhow::Result<Self> {
        let log = log_folder.join(format!("{name}.log"));
        // A restarted process appends to the same file.
        let output = File::options().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("sharing a log file")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log, address, admin: None })
    }

    /// Sets the address of its metrics.
    pub(crate) fn with_admin(mut self, admin: Option<SocketAddr>) -> Self {
        self.admin = admin;
        self
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address of its metrics.
    ///
    /// # Errors
    /// It has none.
    pub fn metrics_address(&self) -> anyhow::Result<SocketAddr> {
        self.admin.or(self.address).with_context(|| format!("{} has no metrics", self.name))
    }

    /// The URL of its metrics.
    ///
    /// # Errors
    /// It has none.
    pub fn metrics_url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}/metrics", self.metrics_address()?))
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; with the end of its log. Its stacks are in a file beside its log.
    pub async fn ready(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let address = self.address.with_context(|| format!("{} does not report whether it is ready", self.name))?;
        let url = format!("http://{address}/health/ready");
        let client = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).build().context("making an HTTP client")?;
        let name = self.name.clone();
        let child = &mut self.child;
        let what = format!("{name} to be ready");
        let ready = wait_until(&what, deadline, async || {
            if let Ok(Some(status)) = child.try_wait() {
                return Ok(Err(status));
            }
            match client.get(&url).send().await {
                Ok(response) if response.status().is_success() => Ok(Ok(())),
                Ok(response) => Err(response.text().await.unwrap_or_default()),
                Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
            }
        });
        match ready.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("{name} ended ({status}) instead of being ready{}", self.last_words()),
            Err(error) => bail!("{error:#}{}{}", self.stacks(), self.last_words()),
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not end in time; with the end of its log. Its stacks are in a file beside its log.
    pub async fn ended(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let name = self.name.clone();
        let child = &mut self.child;
        let what = format!("{name} to end");
        let ended = wait_until(&what, deadline, async || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it is running".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        ended.await.with_context(|| format!("{name} does not end{}{}", self.stacks(), self.last_words()))
    }

    /// Waits until it ends with exit code 0.
    ///
    /// # Errors
    /// It does not end in time, or not with exit code 0; with the end of its log.
    pub async fn succeeded(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let status = self.ended(deadline).await?;
        if status.success() {
            return Ok(());
        }
        bail!("{} failed ({status}){}", self.name, self.last_words())
    }

    /// Kills it (SIGKILL), as a crash would end it.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn kill9(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Asks it to end (SIGTERM), and waits until it has ended with exit code 0.
    ///
    /// # Errors
    /// It does not end in time, or not with exit code 0.
    pub async fn terminate(&mut self, deadline: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.succeeded(deadline).await
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// It has ended.
    pub fn interrupt(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(io::Error::other(status.to_string())),
            None => self.signal(Signal::TERM),
        }
    }

    /// Sets its soft limit of open files, and returns the former one. The hard limit stays.
    ///
    /// # Errors
    /// It has ended.
    pub fn limit_files(&self, max: u64) -> io::Result<u64> {
        let pid = Some(Pid::from_child(&self.child));
        let before = prlimit(pid, Resource::Nofile, Rlimit { current: Some(max), ..getrlimit(Resource::Nofile) })?;
        Ok(before.current.unwrap_or(u64::MAX))
    }

    /// Pauses it (SIGSTOP), as a long pause of the machine would.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Its state as in proc_pid_stat(5); `T` if it is stopped.
    #[must_use]
    pub fn state(&self) -> Option<char> {
        self.in_proc().and_then(|process| process.stat()).ok().map(|stat| stat.state)
    }

    /// The local addresses of its TCP connections.
    ///
    /// # Errors
    /// It has ended.
    pub fn local_addresses(&self) -> anyhow::Result<HashSet<SocketAddr>> {
        let own = || -> ProcResult<_> {
            let process = self.in_proc()?;
            let own = sockets(&process)?;
            let connections = process.tcp()?.into_iter().filter(|one| own.contains(&one.inode));
            Ok(connections.map(|one| one.local_address).collect())
        };
        own().with_context(|| format!("looking for the connections of {}", self.name))
    }

    fn in_proc(&self) -> ProcResult<procfs::process::Process> {
        procfs::process::Process::new(self.id().cast_signed())
    }

    /// Resumes it (SIGCONT).
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Writes the stacks of its threads to a file, and returns a note with its path.
    fn stacks(&self) -> String {
        let path = self.log.with_extension("stacks");
        match fs::write(&path, stacks(self.id())) {
            Ok(()) => format!("; where it stood: {}", path.display()),
            Err(error) => format!("; its stacks can't be read: {error}"),
        }
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("\n--- the end of {}\n{}\n---", self.log.display(), tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        match self.kill9() {
            // It has ended already.
            Err(error) if error.kind() != ErrorKind::InvalidInput => {
                let (name, id) = (&self.name, self.child.id());
                // The test is over, so the error can't be returned.
                io::Write::write_fmt(&mut io::stderr(), format_args!("killing {name} ({id}): {error}\n"))
                    .unwrap_or_default();
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[test]
    fn reports_a_missing_binary_with_an_instruction() {
        let error = binary("no-such-service").expect_err("it does not exist");
        assert!(error.to_string().ends_with("`cargo build --workspace --bins` makes it"), "{error}");
    }

    /// Uses a binary that prints its usage and ends.
    fn spawn(name: &str, args: &[&str]) -> Process {
        let folder = log_folder("self-test").expect("a folder in target");
        let log = folder.join(format!("{name}.log"));
        drop(fs::remove_file(&log));
        let output = File::create(&log).expect("a log file");
        let child = Command::new(args[0]).args(&args[1..]).stdout(output).spawn().expect("a command");
        let address = Some(free_address().expect("a free port"));
        Process { name: name.to_owned(), child, log, address, admin: None }
    }

    #[tokio::test]
    async fn reports_a_process_that_ends_early_with_the_end_of_its_log() {
        let mut process = spawn("early", &["sh", "-c", "echo these were the last; exit 3"]);
        let error = process.ready(DEADLINE).await.expect_err("it ends").to_string();
        assert!(error.contains("instead of being ready") && error.contains("these were the last"), "{error}");
        assert_eq!(process.ended(DEADLINE).await.expect("it has ended").code(), Some(3));
        assert!(process.succeeded(DEADLINE).await.is_err());
    }

    #[tokio::test]
    async fn pauses_resumes_and_terminates_a_process() {
        let mut process = spawn("pause", &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]);
        process.pause().expect("it runs");
        let stopped = wait_until("the pause", DEADLINE, async || match process.state() {
            Some('T') => Ok(()),
            other => Err(format!("{other:?}")),
        });
        stopped.await.expect("it stops");
        process.resume().expect("it is there");
        // The shell may not have set its trap yet, in which case the signal itself ends it.
        let ended = process.terminate(DEADLINE).await;
        assert!(ended.is_ok() || ended.is_err_and(|error| error.to_string().contains("signal: 15")));
    }

    #[tokio::test]
    async fn kills_a_dropped_process() {
        let process = spawn("dropped", &["sleep", "600"]);
        let proc = PathBuf::from(format!("/proc/{}", process.child.id()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }
}
