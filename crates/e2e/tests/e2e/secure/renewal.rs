//! New certificates of the servers, under load: they take them while they run, and each service connects to them when it is replaced.

use std::process::Command;

use anyhow::{Context as _, ensure};
use e2e::harness::{Service, root};
use e2e::upgrade::{Build, Environments, Running};
use tokio::task::block_in_place;

use super::Secured;

const RATE: u32 = 50;

/// The servers whose certificate a client sees, by the setting that has their port, with what OpenSSL is to begin with.
const SERVERS: [(&str, &[&str]); 4] = [
    ("KAFKA_PORT", &[]),
    ("CASSANDRA_PORT", &[]),
    ("POSTGRES_PORT", &["-starttls", "postgres"]),
    ("REGISTRY_PORT", &[]),
];

pub(crate) async fn servers_take_new_certificates_without_an_error_of_a_client() -> anyhow::Result<()> {
    let secured = Secured::set_up("renewal").await?;
    let services = [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS);
    let environments = services.map(|service| Ok((service.name(), secured.user(service.name())?)));
    let environments = environments.collect::<anyhow::Result<Environments>>()?;
    let today = Build::of_today();
    let mut running = Running::start(&secured.installation, &today, &environments, RATE, 1).await?;

    let before = block_in_place(certificates)?;
    // It returns when the servers show the new ones.
    block_in_place(renew)?;
    let after = block_in_place(certificates)?;
    for ((before, after), (server, _)) in before.iter().zip(&after).zip(SERVERS) {
        ensure!(before != after, "the server at {server} still has its old certificate: {after}");
    }
    running.replace_all(&today, &[]).await?;
    let outcome = running.finish().await?;
    let (acknowledged, reads) = (outcome.acknowledged, outcome.clients.reads);
    anstream::println!("  {acknowledged} commands acknowledged, {reads} reads, {} errors", outcome.clients.errors);
    ensure!(outcome.findings.is_empty(), "{:?}", outcome.findings);
    secured.remove().await
}

fn renew() -> anyhow::Result<()> {
    let mut command = Command::new(root().join("scripts/services"));
    let output = command.arg("renew").env("CART_SECURE", "1").output().context("running scripts/services renew")?;
    ensure!(output.status.success(), "scripts/services renew: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The fingerprints of the servers' certificates, as a new connection gets them.
fn certificates() -> anyhow::Result<Vec<String>> {
    SERVERS.into_iter().map(|(port, options)| certificate(port, options)).collect()
}

fn certificate(port: &str, options: &[&str]) -> anyhow::Result<String> {
    let port = std::env::var(port).with_context(|| format!("{port} is not set: see `scripts/test --secure`"))?;
    let script = "openssl s_client -connect \"$@\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256";
    let at = format!("127.0.0.1:{port}");
    let output =
        Command::new("sh").args(["-c", script, "sh", &at]).args(options).output().context("running openssl")?;
    ensure!(output.status.success(), "no certificate at {at}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
