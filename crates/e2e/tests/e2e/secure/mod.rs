//! The secured servers: each service has a user of its own with the least grants. The tests themselves are the user `admin`.
//! `clients` has a broker of its own.

pub(crate) mod clients;
pub(crate) mod grants;
pub(crate) mod refused;
pub(crate) mod removal;
pub(crate) mod renewal;
mod secrets;
pub(crate) mod whole;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Process, Service, free_address};

/// The timeout of every wait, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// Settings of a process, in its environment.
pub(crate) type Environment = Vec<(&'static str, String)>;

/// An installation on the secured servers.
pub(crate) struct Secured {
    pub(crate) installation: Installation,
    passwords: PathBuf,
    /// Logs have names of their own.
    runs: AtomicUsize,
}

impl Secured {
    /// With everything granted, and set up.
    pub(crate) async fn set_up(name: &str) -> anyhow::Result<Self> {
        let passwords =
            std::env::var_os("CART_TEST_SECURE").context("CART_TEST_SECURE: see `scripts/test --secure`")?;
        let secured =
            Self { installation: Installation::new(name)?, passwords: passwords.into(), runs: AtomicUsize::new(0) };
        for server in ["kafka", "cassandra", "postgres"] {
            secured.succeed("admin", "cartctl", &["grants", "--for", server, "--of", "setup", "--apply"]).await?;
        }
        for binary in ["cart-processor", "ingest", "projectors"] {
            secured.succeed("setup", binary, &["setup"]).await?;
        }
        for server in ["kafka", "cassandra", "postgres"] {
            secured.succeed("admin", "cartctl", &["grants", "--for", server, "--apply"]).await?;
        }
        Ok(secured)
    }

    /// The password of a user.
    pub(crate) fn password(&self, user: &str) -> anyhow::Result<String> {
        let path = self.passwords.join(user);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text.trim_end().to_owned())
    }

    /// The settings that make a process the user's.
    pub(crate) fn user(&self, user: &str) -> anyhow::Result<Environment> {
        let password = self.passwords.join(user).display().to_string();
        let mut database: reqwest::Url = self.installation.database_url().parse().context("reading DATABASE_URL")?;
        let is_set = database.set_username(user).is_ok() && database.set_password(None).is_ok();
        ensure!(is_set, "DATABASE_URL has no place for a user");
        Ok(vec![
            ("KAFKA_USER", user.to_owned()),
            ("KAFKA_PASSWORD_FILE", password.clone()),
            ("CASSANDRA_USER", user.to_owned()),
            ("CASSANDRA_PASSWORD_FILE", password.clone()),
            ("REGISTRY_USER", user.to_owned()),
            ("REGISTRY_PASSWORD_FILE", password.clone()),
            ("DATABASE_PASSWORD_FILE", password),
            ("DATABASE_URL", database.to_string()),
        ])
    }

    fn next(&self, name: &str) -> String {
        format!("{name}-{}", self.runs.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs a binary to its end as a user. Returns whether it succeeded, and its output.
    pub(crate) async fn run(&self, user: &str, binary: &str, args: &[&str]) -> anyhow::Result<(bool, String)> {
        let name = self.next(&format!("{binary}-{}", args.first().unwrap_or(&"run")));
        let mut process = self.installation.spawn_as(&name, binary, args, &self.user(user)?, None)?;
        let status = process.ended(DEADLINE).await?;
        Ok((status.success(), process.log()))
    }

    pub(crate) async fn succeed(&self, user: &str, binary: &str, args: &[&str]) -> anyhow::Result<String> {
        let (is_success, output) = self.run(user, binary, args).await?;
        ensure!(is_success, "{binary} {} as {user} failed: {output}", args.join(" "));
        Ok(output)
    }

    /// Starts a service as its own user, with more settings.
    pub(crate) fn start(
        &self,
        service: Service,
        args: &[&str],
        more: &[(&'static str, String)],
    ) -> anyhow::Result<Process> {
        let environment = [self.user(service.name())?, more.to_vec()].concat();
        self.installation.start_with(service, &self.next("run"), args, &environment)
    }

    /// Starts the live page as its own user. Operators may act there, as far as its user has the grants.
    pub(crate) fn start_console(&self, ingest: Option<SocketAddr>) -> anyhow::Result<Process> {
        let address = free_address()?;
        let mut environment = self.user("console")?;
        environment.push(("CONSOLE_LISTEN", address.to_string()));
        environment.push(("CONSOLE_ALLOW_OPERATIONS", "true".to_owned()));
        if let Some(ingest) = ingest {
            environment.push(("CONSOLE_INGEST_URL", format!("http://{ingest}")));
        }
        self.installation.spawn_as(&self.next("console"), "cart-console", [""; 0], &environment, Some(address))
    }

    /// Takes the grants away, and removes the installation after a test has passed.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        self.succeed("admin", "cartctl", &["grants", "--for", "kafka", "--remove"]).await?;
        self.installation.remove().await
    }
}
