//! Each grant is taken away in turn. The service that has it must fail, and say what it may not do: so none is needless, and none
//! is missed without a word.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use cart::contract::{Contract as _, group};
use cart::{CartCommand, CartParked, ControlRecord, Generation, PurchasedItem};
use cartctl::grants::{self, Permission, Privilege, TableGenerations, acls, cql, sql};
use clap::ValueEnum as _;
use e2e::harness::{Process, Service, wait_until};
use kafka::{Acl, Admin, Operation, Producer, Record, ResourceType};
use scylla::client::session::Session;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use super::{DEADLINE, Secured};

/// How long a service may take to say what it lacks: twice what its user is promised, on a busy machine.
const SAID_WITHIN: Duration = Duration::from_secs(20);

/// How long Cassandra may go on with permissions that it has read (scripts/secured).
const VALIDITY: Duration = Duration::from_millis(1_200);

/// A grant that can be taken away.
pub(super) enum Grant {
    Kafka(Acl),
    Cassandra(Permission),
    Postgres(Privilege),
}

impl Grant {
    /// What the service must name.
    fn resource(&self) -> &str {
        match self {
            Self::Kafka(acl) => &acl.name,
            Self::Cassandra(permission) => permission.resource.rsplit(' ').next().unwrap_or_default(),
            Self::Postgres(privilege) => &privilege.object,
        }
    }
}

impl std::fmt::Display for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kafka(acl) => write!(f, "{:?} on {:?} {}", acl.operation, acl.resource_type, acl.name),
            Self::Cassandra(permission) => write!(f, "{}", permission.grant()),
            Self::Postgres(privilege) => write!(f, "{}", privilege.grant()),
        }
    }
}

/// The servers, as their administrator.
pub(super) struct Servers {
    kafka: Admin,
    cassandra: Session,
    postgres: PgConnection,
}

impl Servers {
    pub(super) async fn connect(secured: &Secured) -> anyhow::Result<Self> {
        Ok(Self {
            kafka: Admin::new(secured.installation.kafka())?,
            cassandra: cassandra::open(secured.installation.cassandra()).await?,
            postgres: secured.installation.database().options()?.connect().await?,
        })
    }

    pub(super) async fn change(&mut self, grant: &Grant, is_given: bool) -> anyhow::Result<()> {
        match grant {
            Grant::Kafka(acl) => tokio::task::block_in_place(|| match is_given {
                true => self.kafka.create_acls(std::slice::from_ref(acl)),
                false => self.kafka.remove_acls(std::slice::from_ref(acl)),
            })?,
            Grant::Cassandra(permission) => {
                let statement = if is_given { permission.grant() } else { permission.revoke() };
                self.cassandra.query_unpaged(statement, ()).await?;
                sleep(VALIDITY).await;
            }
            Grant::Postgres(privilege) => {
                let statement = if is_given { privilege.grant() } else { privilege.revoke() };
                sqlx::query(AssertSqlSafe(statement)).execute(&mut self.postgres).await?;
            }
        }
        Ok(())
    }
}

/// All grants of a service.
pub(super) fn grants_of(secured: &Secured, service: grants::Service) -> Vec<Grant> {
    let (installation, user) = (&secured.installation, service.name());
    let kafka = acls(service, &user, installation.kafka(), false).into_iter().map(Grant::Kafka);
    let generations = TableGenerations::only(Generation::FIRST);
    let cassandra = cql(service, &user, installation.name(), &generations, false).into_iter().map(Grant::Cassandra);
    let postgres = sql(service, &user, "setup", installation.name(), &generations, false);
    let postgres = postgres.into_iter().map(Grant::Postgres);
    kafka.chain(cassandra).chain(postgres).collect()
}

/// Whether a line says that something may not be done with the resource.
fn complains(text: &str, resource: &str) -> bool {
    let is_denial = |line: &str| {
        let line = line.to_lowercase();
        ["authoriz", "permission", "denied"].iter().any(|word| line.contains(word))
    };
    text.lines().any(|line| line.contains(resource) && is_denial(line))
}

pub(crate) async fn each_grant_is_needed_by_the_service_that_has_it() -> anyhow::Result<()> {
    let secured = Secured::set_up("removal").await?;
    let mut servers = Servers::connect(&secured).await?;
    let mut system = System::start(&secured).await?;
    system.buy().await.context("with all grants")?;
    let (mut wrong, mut count) = (Vec::new(), 0);
    for service in grants::Service::value_variants().iter().filter(|service| is_tried(**service)) {
        for grant in grants_of(&secured, *service).into_iter().filter(|grant| !is_missed_silently(*service, grant)) {
            count += 1;
            system.stop(*service).await?;
            servers.change(&grant, false).await?;
            let said = system.probe(*service, grant.resource()).await;
            servers.change(&grant, true).await?;
            if let Err(error) = said {
                wrong.push(format!("{}: {grant}\n{error:#}", service.name()));
            }
        }
        system.restart(*service).await.with_context(|| format!("{} with all its grants again", service.name()))?;
    }
    ensure!(
        wrong.is_empty(),
        "{} of {count} grants are not needed, or not named:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    system.end().await?;
    secured.remove().await
}

/// A grant that is used only while a cart or a row is parked, and none of this test is, or for the status of a command that has no row in
/// the journal; one on the groups of later generations, and this test has the first ones; or one that lets a group be listed, which Kafka
/// leaves out without a word.
fn is_missed_silently(service: grants::Service, grant: &Grant) -> bool {
    let acl = match grant {
        Grant::Kafka(acl) => acl,
        // Whether there are parked rows is asked with each partition that is assigned.
        Grant::Cassandra(permission) => {
            let asks = permission.permission == "SELECT" && permission.resource.ends_with("_parked");
            return permission.resource.contains("parked") && !asks;
        }
        Grant::Postgres(privilege) => {
            return privilege.object == "parked_row" && !privilege.grant().starts_with("GRANT SELECT ");
        }
    };
    let reads_log = |topic: &str| acl.name.ends_with(&format!("{topic}-reader"));
    let is_of_later_generations = acl.resource_type == ResourceType::Group && acl.is_prefix;
    let lists_members = acl.name.ends_with(group::VENDOR_BILLING_JDBC) && acl.operation == Operation::Describe;
    (service == grants::Service::CartProcessor && reads_log(CartCommand::TOPIC))
        || (service == grants::Service::Ingest && reads_log(ControlRecord::TOPIC))
        || (pipeline(service).is_some() && reads_log(PurchasedItem::TOPIC))
        || acl.name.contains(CartParked::TOPIC)
        || is_of_later_generations
        || lists_members
}

/// Not the operator's: recovery and `uninstall` would take the system apart each time.
fn is_tried(service: grants::Service) -> bool {
    service != grants::Service::Operator
}

/// The running services, of which one is stopped at a time.
struct System<'a> {
    secured: &'a Secured,
    running: Vec<(Service, Process)>,
}

/// Arguments that make a service say soon what is wrong.
fn args(service: Service) -> &'static [&'static str] {
    match service {
        Service::Ingest | Service::LimitedIngest => &[
            "--startup-timeout-s",
            "5",
            "--reply-timeout-ms",
            "4000",
            "--read-after-timeout-ms",
            "3000",
            "--lame-duck-ms",
            "0",
        ],
        Service::CartProcessor | Service::Projector(_) => &["--startup-timeout-s", "5", "--session-timeout-ms", "2000"],
    }
}

/// The service of the pipeline that a user is for.
fn pipeline(service: grants::Service) -> Option<Service> {
    let name = service.name();
    [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS).find(|other| other.name() == name)
}

impl<'a> System<'a> {
    async fn start(secured: &'a Secured) -> anyhow::Result<Self> {
        let mut running = Vec::new();
        for service in [Service::Ingest, Service::CartProcessor].into_iter().chain(Service::PROJECTORS) {
            running.push((service, secured.start(service, args(service), &[])?));
        }
        for (_, process) in &mut running {
            process.ready(DEADLINE).await?;
        }
        Ok(Self { secured, running })
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        for (_, process) in &mut self.running {
            process.terminate(DEADLINE).await?;
        }
        Ok(())
    }

    async fn stop(&mut self, service: grants::Service) -> anyhow::Result<()> {
        let position = self.running.iter().position(|(running, _)| Some(*running) == pipeline(service));
        if let Some(position) = position {
            self.running.remove(position).1.terminate(DEADLINE).await?;
        }
        Ok(())
    }

    async fn restart(&mut self, service: grants::Service) -> anyhow::Result<()> {
        let Some(service) = pipeline(service) else { return Ok(()) };
        let mut process = self.secured.start(service, args(service), &[])?;
        process.ready(DEADLINE).await?;
        self.running.push((service, process));
        Ok(())
    }

    /// A running ingest's URL.
    fn ingest(&self) -> anyhow::Result<String> {
        let ingest = self.running.iter().find(|(service, _)| *service == Service::Ingest);
        let address = ingest.and_then(|(_, ingest)| ingest.address()).context("no ingest runs")?;
        Ok(format!("http://{address}"))
    }

    /// Buys something; the answer of the checkout.
    async fn buy(&self) -> anyhow::Result<Value> {
        let cart = format!("{}/cart/{}", self.ingest()?, Uuid::new_v4());
        let item =
            json!({"productId": Uuid::new_v4(), "vendorId": VENDOR, "name": "red mug", "price": "3.5", "quantity": 1});
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        // A rejection that has a row.
        let checkout = client.post(format!("{cart}/checkout")).header("idempotency-key", "empty").json(&json!({}));
        checkout.send().await?;
        let added = client.post(&cart).json(&item).send().await?;
        ensure!(matches!(added.status().as_u16(), 200 | 202), "{}: {}", added.status(), added.text().await?);
        let bought = client.post(format!("{cart}/checkout")).json(&json!({})).send().await?;
        Ok(bought.json().await?)
    }

    /// Lets the service work, and waits until it says that it may not do something with the resource.
    async fn probe(&self, service: grants::Service, resource: &str) -> anyhow::Result<()> {
        use grants::Service::{
            Audit, CartProcessor, Console, Ingest, ItemPurchasedEvents, Operator, PopularItems, Setup, VendorBilling,
            VendorBillingJdbc,
        };
        match service {
            Setup => {
                self.probe_commands(
                    "setup",
                    &[("cart-processor", &["setup"]), ("ingest", &["setup"]), ("projectors", &["setup"])],
                    resource,
                )
                .await
            }
            Audit => self.probe_audit(resource).await,
            Console => self.probe_console(resource).await,
            Operator => bail!("it is not tried"),
            Ingest | CartProcessor | ItemPurchasedEvents | PopularItems | VendorBilling | VendorBillingJdbc => {
                let service = pipeline(service).context("a service of the pipeline")?;
                // A member writes to this topic only when there is something to answer. `ingest` only reads it.
                let is_control = service != Service::Ingest
                    && resource == self.secured.installation.kafka().prefixed(ControlRecord::TOPIC);
                if is_control {
                    let pause = ["pause", service.name(), "--reason", "a test"];
                    self.secured.succeed("operator", "cartctl", &pause).await?;
                }
                let process = self.secured.start(service, args(service), &[])?;
                if is_control {
                    let denied = self.probe_consumer(process, resource).await;
                    self.secured.succeed("operator", "cartctl", &["resume", service.name()]).await?;
                    denied
                } else if service == Service::Ingest {
                    self.probe_ingest(process, resource).await
                } else {
                    self.probe_consumer(process, resource).await
                }
            }
        }
    }

    async fn probe_commands(&self, user: &str, commands: &[(&str, &[&str])], resource: &str) -> anyhow::Result<()> {
        let mut said = String::new();
        for (binary, args) in commands {
            let (is_success, output) = self.secured.run(user, binary, args).await?;
            if !is_success && complains(&output, resource) {
                return Ok(());
            }
            said += &output;
        }
        bail!("{}", tail(&said))
    }

    async fn probe_audit(&self, resource: &str) -> anyhow::Result<()> {
        let tail = |topic| ["tail", topic, "--from", "beginning", "--until-end"];
        let topics = ["cart-commands", "cart-events", "cart-replies", "item-purchased", "cart-commands-dead-letter"];
        let tails = topics.map(tail);
        let mut commands: Vec<(&str, &[&str])> = vec![
            ("cartctl", &["audit", "--timeout-s", "5"]),
            ("cartctl", &["reconcile", "--timeout-s", "5"]),
            ("cartctl", &["log"]),
            ("cartctl", &["status"]),
        ];
        commands.extend(tails.iter().map(|args| ("cartctl", &args[..])));
        self.probe_commands("audit", &commands, resource).await
    }

    /// What it shows and logs while somebody looks at it, and buys with its form.
    async fn probe_console(&self, resource: &str) -> anyhow::Result<()> {
        let ingest = self.ingest()?;
        let process = self.secured.start_console(ingest.trim_start_matches("http://").parse().ok())?;
        let address = process.address().context("the console has an address")?;
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        wait_until(&format!("a word about {resource}"), SAID_WITHIN, async || {
            let mut said = process.log();
            let cart = Uuid::new_v4();
            let shop = format!("http://{address}/api/shop/{cart}");
            let item = json!({
                "productId": Uuid::new_v4(), "vendorId": VENDOR, "name": "red mug", "price": "3.5", "quantity": 1
            });
            drop(client.post(format!("{shop}/items")).json(&item).send().await);
            drop(client.post(format!("{shop}/checkout")).json(&json!({})).send().await);
            for path in ["/api/now", "/health/ready", &format!("/api/carts/{cart}")] {
                said += &match client.get(format!("http://{address}{path}")).send().await {
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(_) => String::new(),
                };
            }
            if complains(&said, resource) { Ok(()) } else { Err(tail(&said)) }
        })
        .await
    }

    /// A processor or projector, while there is something to do.
    async fn probe_consumer(&self, process: Process, resource: &str) -> anyhow::Result<()> {
        // A record that cannot be decoded becomes a dead letter.
        let commands = self.secured.installation.kafka().prefixed(CartCommand::TOPIC);
        let producer = Producer::durable(self.secured.installation.kafka(), &commands)?;
        producer.send(&Record { partition: None, key: None, value: Some(b"garbage".to_vec()), headers: None })?.await?;
        wait_until(&format!("a word about {resource}"), SAID_WITHIN, async || {
            drop(self.buy().await);
            let said = said(&process).await;
            if complains(&said, resource) { Ok(()) } else { Err(tail(&said)) }
        })
        .await
    }

    /// Everything that a client can ask for.
    async fn probe_ingest(&self, process: Process, resource: &str) -> anyhow::Result<()> {
        let address = process.address().context("ingest has an address")?;
        let base = format!("http://{address}");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        wait_until(&format!("a word about {resource}"), SAID_WITHIN, async || {
            let mut answers = String::new();
            // It ends, or it does not serve yet: then the log says why.
            if let Ok(()) = use_everything(&client, &base, &mut answers).await {}
            let said = said(&process).await + &answers;
            if complains(&said, resource) { Ok(()) } else { Err(tail(&said)) }
        })
        .await
    }
}

/// The vendor of all items.
const VENDOR: Uuid = Uuid::from_u128(7);

/// Adds what is answered to `answers`.
async fn use_everything(client: &reqwest::Client, base: &str, answers: &mut String) -> anyhow::Result<()> {
    let cart = format!("{base}/cart/{}", Uuid::new_v4());
    let product = Uuid::new_v4();
    let item = json!({"productId": product, "vendorId": VENDOR, "name": "red mug", "price": "3.5", "quantity": 1});
    let added = client.post(&cart).json(&item).send().await?.text().await?;
    let command =
        serde_json::from_str::<Value>(&added).ok().and_then(|body| body["commandId"].as_str().map(str::to_owned));
    answers.push_str(&added);
    let bought = client.post(format!("{cart}/checkout")).json(&json!({})).send().await?;
    let token =
        bought.headers().get("read-after-token").and_then(|token| token.to_str().ok()).unwrap_or_default().to_owned();
    answers.push_str(&bought.text().await?);
    let mut paths = vec![cart.clone(), format!("{cart}/events")];
    paths.extend(command.map(|command| format!("{cart}/commands/{command}")));
    paths.push(format!("{base}/vendors/{VENDOR}/billing?year=2026"));
    paths.push(format!("{base}/vendors/{VENDOR}/products/{product}/quantities?year=2026&month=11"));
    for path in paths {
        let request = if token.is_empty() { client.get(path) } else { client.get(path).header("read-after", &token) };
        answers.push_str(&request.send().await?.text().await?);
    }
    // The head of a stream comes at once; it wakes at the next event.
    let stream = client.get(format!("{cart}/events")).header("accept", "text/event-stream").send().await?;
    drop(stream);
    Ok(())
}

/// What a service logs and what its readiness says.
async fn said(process: &Process) -> String {
    let mut said = process.log();
    if let Some(address) = process.address()
        && let Ok(answer) = reqwest::get(format!("http://{address}/health/ready")).await
    {
        said += &answer.text().await.unwrap_or_default();
    }
    said
}

/// The last lines, for the report.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
