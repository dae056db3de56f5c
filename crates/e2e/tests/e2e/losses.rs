//! A server that has lost all its data is restored as docs/operations.md says ("Back up and restore"), and the audit is clean
//! afterwards. Prints the time of each step. Runs on servers of its own, alone: `scripts/test --own-servers`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cart::contract::READ_MODELS;
use e2e::harness::{Installation, OwnServers, Process, Server, Service};
use tokio::task::block_in_place;

const DEADLINE: Duration = Duration::from_secs(300);
const SESSION: [&str; 2] = ["--session-timeout-ms", "2000"];

/// The commands of each load.
const COMMANDS: &str = "5000";

/// Prints the time of a step.
fn took(started_at: Instant, step: &str) {
    anstream::println!("    {:6.1} s  {step}", started_at.elapsed().as_secs_f32());
}

/// A shop on servers that lose their data.
struct Shop {
    servers: OwnServers,
    installation: Installation,
    processes: Vec<Process>,
    loads: u32,
}

impl Shop {
    async fn start(&mut self) -> anyhow::Result<()> {
        let ingest = (Service::Ingest, "0", &["--allow-client-time"][..]);
        let mut services = vec![ingest, (Service::CartProcessor, "0", &SESSION[..])];
        services.extend(Service::PROJECTORS.iter().map(|projector| (*projector, "0", &SESSION[..])));
        self.processes = self.installation.start_all(&services).await?;
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        for mut process in self.processes.drain(..) {
            process.terminate(DEADLINE).await?;
        }
        Ok(())
    }

    /// Sends commands that were not sent before.
    async fn sell(&mut self) -> anyhow::Result<()> {
        self.loads += 1;
        let url = format!("http://{}", self.processes[0].address().context("ingest has an address")?);
        let run = format!("load-{}", self.loads);
        let args = ["--url", &url, "--concurrency", "16", "--commands", COMMANDS, "--run-id", &run];
        let shop = ["--members", "200", "--products", "100"];
        self.installation.run(&run, "replay", args.into_iter().chain(shop), DEADLINE).await?;
        Ok(())
    }

    /// Runs a command as docs/operations.md has it.
    async fn does(&self, command: &str) -> anyhow::Result<()> {
        let mut words = command.split(' ');
        let binary = words.next().context("a command has a binary")?;
        let started_at = Instant::now();
        self.installation.run(&command.replace(' ', "-"), binary, words, DEADLINE).await?;
        took(started_at, command);
        Ok(())
    }

    /// A server loses its data while the services are stopped; `restore` is what an operator does then. The audit is clean at
    /// once, and after new commands.
    async fn lose(&mut self, server: Server, restore: &[&str]) -> anyhow::Result<()> {
        anstream::println!("  {server} has lost all its data");
        self.stop().await?;
        let schemas = self.schemas().await?;
        block_in_place(|| self.servers.lose(server))?;
        let started_at = Instant::now();
        if server == Server::Kafka {
            self.restore_schemas(schemas).await?;
        }
        for command in restore {
            self.does(command).await?;
        }
        self.start().await?;
        self.does("cartctl audit").await?;
        took(started_at, "in all, with the start of the services");
        self.sell().await?;
        self.does("cartctl audit").await
    }

    /// The registry's backup: all schemas with their ids.
    async fn schemas(&self) -> anyhow::Result<Vec<u8>> {
        let response = reqwest::get(self.registry("export")).await?.error_for_status()?;
        Ok(response.bytes().await?.to_vec())
    }

    async fn restore_schemas(&self, backup: Vec<u8>) -> anyhow::Result<()> {
        let started_at = Instant::now();
        let import = reqwest::Client::new().post(self.registry("import")).header("content-type", "application/zip");
        let answer = import.body(backup).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "the import of the schemas: {status}: {}", answer.text().await?);
        took(started_at, "the import of the schemas");
        Ok(())
    }

    /// An operation of Apicurio's own API.
    fn registry(&self, operation: &str) -> String {
        let url = self.installation.kafka().schema_registry_url.replace("/apis/ccompat/v7", "");
        format!("{url}/apis/registry/v3/admin/{operation}")
    }
}

pub(crate) async fn each_server_loses_all_its_data_and_is_restored() -> anyhow::Result<()> {
    let servers = block_in_place(|| OwnServers::start("losses"))?;
    let installation = Installation::on("losses", &servers)?;
    installation.setup().await?;
    let mut shop = Shop { servers, installation, processes: Vec::new(), loads: 0 };
    shop.start().await?;
    shop.sell().await?;
    shop.does("cartctl audit").await?;

    let rebuild = READ_MODELS.map(|model| format!("cartctl rebuild {} --in-place", model.group));
    let [popular_items, vendor_billing, in_postgres] = rebuild.each_ref().map(String::as_str);
    shop.lose(Server::Postgres, &["projectors setup", in_postgres]).await?;
    let journal =
        ["cartctl restore-journal", "cart-processor setup", "projectors setup", popular_items, vendor_billing];
    shop.lose(Server::Cassandra, &journal).await?;
    let all_of_kafka = [
        "cart-processor setup --accept-new-log",
        "cartctl republish",
        "projectors setup --accept-new-log",
        popular_items,
        vendor_billing,
        in_postgres,
    ];
    shop.lose(Server::Kafka, &all_of_kafka).await?;
    shop.stop().await?;
    shop.installation.remove().await
}
