//! `docker-compose.yml` and the image. No engine runs where the tests run: what the file starts is started from the binaries of the
//! tests, with the file's environment, an address for each service, and the servers of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{Installation, Process, binary, wait_until};
use serde_json::{Map, Value};

use super::{document, is_no_option, options_of, root, server_versions, strings, text};

const FILE: &str = "docker-compose.yml";

const DEADLINE: Duration = Duration::from_secs(120);

/// The folder of the audit's checkpoint.
const CHECKPOINT: &str = "AUDIT_CHECKPOINT";

/// Options that the file does not pass from the environment, and why.
const NOT_PASSED: [(&str, &[&str]); 6] = [
    ("it is for a single look, not for --watch", &["AUDIT_FULL"]),
    (
        "the servers are those of the file",
        &[
            "CASSANDRA_DATACENTER",
            "CASSANDRA_USER",
            "CASSANDRA_PASSWORD",
            "CASSANDRA_PASSWORD_FILE",
            "CASSANDRA_CA_CERT",
            "CASSANDRA_CLIENT_CERT",
            "CASSANDRA_CLIENT_KEY",
            "CASSANDRA_TLS_VERIFY",
            "DATABASE_PASSWORD_FILE",
            "KAFKA_SECURITY",
            "KAFKA_SASL_MECHANISM",
            "KAFKA_USER",
            "KAFKA_PASSWORD_FILE",
            "KAFKA_TOKEN_FILE",
            "KAFKA_CA_CERT",
            "KAFKA_CLIENT_CERT",
            "KAFKA_CLIENT_KEY",
            "REGISTRY_USER",
            "REGISTRY_PASSWORD_FILE",
            "REGISTRY_TOKEN_FILE",
            "REGISTRY_CA_CERT",
        ],
    ),
    ("each container has a name of its own", &["INSTANCE"]),
    ("a later generation is kept by a service of its own", &["READ_MODEL_GENERATION"]),
    ("files of this machine are not in a container", &["TLS_CERT", "TLS_KEY", "AUDIT_RECORD"]),
    ("the file's command sets it", &["AUDIT_JSON", "AUDIT_WATCH", "CONSOLE_INGEST_URL"]),
];

/// The services of the file whose image is this project's.
fn own_services() -> anyhow::Result<BTreeMap<String, Value>> {
    let file = document(FILE)?;
    let services = file["services"].as_object().context("the file has services")?;
    let own = services.iter().filter(|(_, service)| service["image"] == "cart");
    Ok(own.map(|(name, service)| (name.clone(), service.clone())).collect())
}

fn variables(service: &Value) -> anyhow::Result<&Map<String, Value>> {
    service["environment"].as_object().context("it has an environment")
}

pub(crate) async fn the_file_is_valid() -> anyhow::Result<()> {
    let made = Command::new(root().join("scripts/python-env")).arg("compose").output()?;
    ensure!(made.status.success(), "installing check-jsonschema failed: {}", String::from_utf8_lossy(&made.stderr));
    let folder = String::from_utf8(made.stdout)?;
    let check = format!("{}/bin/check-jsonschema", folder.trim());
    succeeds(&[check.as_str(), "--builtin-schema", "vendor.compose-spec", FILE])
}

/// Compose and HAProxy read the file and the balancer's configuration, which needs no engine. A long test, since neither can be
/// installed on every machine that can run the others: `scripts/prerequisites compose`.
pub(crate) async fn compose_and_haproxy_accept_their_files() -> anyhow::Result<()> {
    let args = ["--profile", "observability", "config", "--quiet"];
    succeeds(&[compose()?, &args].concat())?;
    // Debian has haproxy where only root looks. A warning is an error too.
    succeeds(&["sh", "-c", "PATH=$PATH:/usr/sbin exec haproxy -dW -c -f scripts/balancer/haproxy.cfg"])
}

/// The words that start compose: version 2 or 1.
fn compose() -> anyhow::Result<&'static [&'static str]> {
    const VERSIONS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    for words in VERSIONS {
        let version = Command::new(words[0]).args(&words[1..]).arg("version").output();
        if version.is_ok_and(|output| output.status.success()) {
            return Ok(words);
        }
    }
    bail!("compose is missing: `scripts/prerequisites compose` says how to install it")
}

/// Runs a command in the repository's folder. It must succeed.
fn succeeds(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(root()).output();
    let output = output.with_context(|| format!("running {words:?}"))?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{words:?}: {said}");
    Ok(())
}

pub(crate) async fn each_setting_reaches_the_services() -> anyhow::Result<()> {
    let services = own_services()?;
    let mut options = BTreeMap::new();
    for (name, service) in &services {
        options.insert(name, options_of(name, &strings(&service["command"]))?);
    }
    let every: BTreeSet<_> = options.values().flatten().collect();
    let not_passed: BTreeSet<&str> = NOT_PASSED.iter().flat_map(|(_, names)| *names).copied().collect();
    for (name, service) in &services {
        let (passed, options) = (variables(service)?, &options[name]);
        for option in options.iter().filter(|option| !passed.contains_key(*option)) {
            ensure!(not_passed.contains(option.as_str()), "{FILE} does not pass {option} to {name}");
        }
        for variable in passed.keys() {
            ensure!(is_no_option(variable) || every.contains(variable), "{FILE}: {variable} of {name} is no option");
            ensure!(!not_passed.contains(variable.as_str()), "{FILE} passes {variable} to {name}");
        }
        for port in strings(&service["ports"]) {
            ensure!(port.starts_with("127.0.0.1:"), "{FILE}: port {port} of {name} is open to other machines");
        }
        ensure!(service["read_only"] == true, "{FILE}: the files of {name} can be written");
    }
    Ok(())
}

/// Its folder is a volume, which takes the owner of the image's folder: otherwise it would be root's.
pub(crate) async fn the_audit_can_keep_its_checkpoint() -> anyhow::Result<()> {
    let file = document(FILE)?;
    let audit = &file["services"]["audit"];
    let folder = variables(audit)?.get(CHECKPOINT).and_then(Value::as_str).context("the audit has a checkpoint")?;
    let (mounted, volumes) = (format!(":{folder}"), strings(&audit["volumes"]));
    let volume = volumes.iter().find_map(|volume| volume.strip_suffix(mounted.as_str()));
    let volume = volume.with_context(|| format!("{FILE}: {folder} is no volume of the audit: {volumes:?}"))?;
    ensure!(file["volumes"].get(volume).is_some(), "{FILE} does not keep volume {volume}");
    let dockerfile = text("scripts/Dockerfile")?;
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).context("the image has a user")?;
    let (user, group) = user.split_once(':').context("the image has a group")?;
    let made = format!("RUN install -d -o {user} -g {group} {folder}\n");
    ensure!(dockerfile.contains(&made), "scripts/Dockerfile lacks '{}'", made.trim_end());
    Ok(())
}

pub(crate) async fn images_have_the_versions_of_the_tests() -> anyhow::Result<()> {
    let file = document(FILE)?;
    let versions = server_versions()?;
    for (service, property) in
        [("kafka", "kafka"), ("cassandra", "cassandra"), ("registry", "apicurio"), ("postgres", "postgres")]
    {
        let image = file["services"][service]["image"].as_str().context("it has an image")?;
        let (_, tag) = image.split_once(':').context("it has a tag")?;
        // The version of PostgreSQL's binaries has a third number of their own.
        let version = &versions[property];
        let is_same =
            version == tag || (service == "postgres" && version.rsplit_once('.').is_some_and(|(v, _)| v == tag));
        ensure!(is_same, "{FILE} has {image}, scripts/servers/pom.xml has {version}");
    }
    let manifest = text("Cargo.toml")?;
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).context("a version of Rust")?;
    let builder = format!("FROM rust:{}-", rust.trim_matches('"'));
    ensure!(text("scripts/Dockerfile")?.contains(&builder), "scripts/Dockerfile lacks '{builder}'");
    Ok(())
}

pub(crate) async fn the_image_has_what_is_started() -> anyhow::Result<()> {
    let dockerfile = text("scripts/Dockerfile")?;
    let words: Vec<_> = dockerfile.split_whitespace().collect();
    let built: BTreeSet<_> = words.windows(2).filter(|pair| pair[0] == "--bin").map(|pair| pair[1]).collect();
    ensure!(built.contains("cartctl") && built.len() >= 5, "scripts/Dockerfile builds {built:?}");
    for name in &built {
        binary(name)?;
        let copied = format!("target/dist/{name}");
        ensure!(words.contains(&copied.as_str()), "scripts/Dockerfile builds {name}, but does not copy {copied}");
    }
    for (name, service) in own_services()? {
        let command = strings(&service["command"]);
        ensure!(built.contains(command[0].as_str()), "the image does not have {} of {name}", command[0]);
    }
    // Cargo reads the manifest of each member, also of those that are not built.
    let ignored = text(".dockerignore")?;
    let (is_all, kept): (Vec<_>, Vec<_>) = ignored.lines().partition(|line| *line == "*");
    ensure!(is_all == ["*"], ".dockerignore does not begin with everything");
    let manifest = text("Cargo.toml")?;
    let (_, members) = manifest.split_once("members = [").context("members")?;
    let (members, _) = members.split_once(']').context("the end of the members")?;
    let members = members.split('"').skip(1).step_by(2).map(|member| member.split('/').next().unwrap_or_default());
    for needed in members.chain(["Cargo.toml", "Cargo.lock", "schemas"]) {
        ensure!(kept.contains(&format!("!{needed}").as_str()), ".dockerignore keeps {needed} out of the image's build");
    }
    for line in kept.iter().filter_map(|line| line.strip_prefix('!')) {
        ensure!(root().join(line).exists(), ".dockerignore names {line}, which does not exist");
    }
    Ok(())
}

/// The servers' health checks are the scripts of `scripts/servers`, and for the registry curl, with the real servers of the tests. Those
/// have no `pg_isready`.
pub(crate) async fn health_checks_of_servers_ask_them() -> anyhow::Result<()> {
    let file = document(FILE)?;
    let installation = Installation::new("answers")?;
    let (kafka, cassandra) = (installation.kafka(), installation.cassandra());
    let addresses = [("kafka", &kafka.kafka_bootstrap_servers), ("cassandra", &cassandra.cassandra_nodes[0])];
    // A port at which nothing answers, although it is open.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let silent = silent.local_addr()?.to_string();
    for (service, address) in addresses {
        let check = strings(&file["services"][service]["healthcheck"]["test"]);
        let expected = ["CMD", "bash", "/cart/answers", service];
        ensure!(check.len() == 6 && check[..4] == expected, "{FILE}: the check of {service} is {check:?}");
        let volumes = strings(&file["services"][service]["volumes"]);
        ensure!(volumes.iter().any(|volume| volume == "./scripts/servers/answers:/cart/answers:ro"), "{volumes:?}");
        for (address, is_up) in [(address.as_str(), true), (&silent, false)] {
            let (host, port) =
                address.split_once(',').map_or(address, |(first, _)| first).split_once(':').context("a port")?;
            let mut script = Command::new("timeout");
            let output =
                script.arg("3").arg(root().join("scripts/servers/answers")).args([service, host, port]).output()?;
            ensure!(output.status.success() == is_up, "{service} at {address}: {output:?}");
        }
    }
    let registry: reqwest::Url = kafka.schema_registry_url.parse().context("reading SCHEMA_REGISTRY_URL")?;
    let registry = registry.origin().ascii_serialization();
    let check = strings(&file["services"]["registry"]["healthcheck"]["test"]);
    ensure!(check.len() > 2 && check[0] == "CMD", "{FILE}: the check of the registry is {check:?}");
    for (origin, is_up) in [(registry, true), (format!("http://{silent}"), false)] {
        let words = check[1..].iter().map(|word| word.replace("http://127.0.0.1:8080", &origin));
        let words: Vec<_> = words.collect();
        ensure!(words != check[1..], "{FILE}: the registry is checked at another address: {check:?}");
        let output =
            Command::new(&words[0]).args(&words[1..]).output().with_context(|| format!("running {words:?}"))?;
        ensure!(output.status.success() == is_up, "{words:?}: {output:?}");
    }
    Ok(std::fs::remove_dir(installation.folder())?)
}

/// A container that was started without an engine.
struct Container {
    process: Process,
    ip: Ipv4Addr,
    check: Vec<String>,
}

/// The value where the variable is not set: `${NAME:-value}`.
fn default_of(value: &str) -> &str {
    let default = value.strip_prefix("${").and_then(|rest| rest.split_once(":-")).map(|(_, rest)| rest);
    default.map_or(value, |default| default.trim_end_matches('}'))
}

/// The environment of a service with the servers, names and folder of the test; `0.0.0.0` is its own address.
fn environment(service: &Value, installation: &Installation, ip: Ipv4Addr) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (name, value) in variables(service)? {
        let Some(value) = value.as_str() else { continue };
        all.insert(name.clone(), default_of(value).replace("0.0.0.0", &ip.to_string()));
    }
    all.extend(installation.environment().into_iter().map(|(name, value)| (name.to_owned(), value)));
    if let Some(folder) = all.get_mut(CHECKPOINT) {
        *folder = installation.folder().join("checkpoint").display().to_string();
    }
    Ok(all)
}

/// Each service is started as the file says, and becomes healthy by its own check; Prometheus finds the metrics where its
/// configuration looks for them.
pub(crate) async fn what_it_starts_answers_its_checks() -> anyhow::Result<()> {
    let installation = Installation::new("compose")?;
    installation.setup().await?;
    let mut containers = BTreeMap::new();
    let services = own_services()?;
    let services = services.iter().filter(|(name, _)| !name.starts_with("setup-"));
    for ((name, service), last) in services.zip(1..) {
        // All of 127.0.0.0/8 is this machine.
        let ip = Ipv4Addr::new(127, 78, 0, last);
        let environment = environment(service, &installation, ip)?;
        let words = strings(&service["command"]);
        // Only the balancer has the name by which the page would find it.
        let words: Vec<_> = words.iter().map(|word| word.replace("balancer:", "127.78.0.250:")).collect();
        let process = Process::contained(name, &words, environment, installation.folder(), None)?;
        let check = strings(&service["healthcheck"]["test"]);
        ensure!(check.first().is_some_and(|word| word == "CMD"), "{FILE}: the check of {name} is {check:?}");
        let check = check[1..].iter().map(|word| word.replace("127.0.0.1", &ip.to_string())).collect();
        containers.insert(name.clone(), Container { process, ip, check });
    }
    for (name, container) in &containers {
        let what = format!("{name} to be healthy");
        let healthy = wait_until(&what, DEADLINE, async || {
            let output = Command::new(&container.check[0]).args(&container.check[1..]).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(format!("{:?}: {}; {}", container.check, output.status, container.process.log())),
                Err(error) => Err(error.to_string()),
            }
        });
        healthy.await?;
    }
    for (name, address) in scraped(&containers)? {
        let answer = reqwest::get(format!("http://{address}/metrics")).await.with_context(|| name.clone())?;
        ensure!(answer.error_for_status()?.text().await?.contains("cart_ready"), "{name} has no metrics at {address}");
    }
    balanced(containers["ingest"].ip).await?;
    audited(&containers).await?;
    drop(containers);
    installation.remove().await
}

/// Where Prometheus looks for the metrics of each service.
fn scraped(containers: &BTreeMap<String, Container>) -> anyhow::Result<BTreeMap<String, SocketAddr>> {
    let prometheus = document("scripts/observability/prometheus-docker.yml")?;
    let mut addresses = BTreeMap::new();
    for looked_up in prometheus["scrape_configs"][0]["dns_sd_configs"].as_array().into_iter().flatten() {
        let port = looked_up["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("it has a port")?;
        for name in strings(&looked_up["names"]) {
            let container = containers.get(&name).with_context(|| format!("{FILE} has no service {name}"))?;
            addresses.insert(name, SocketAddr::from((container.ip, port)));
        }
    }
    ensure!(addresses.len() == containers.len(), "Prometheus reads {:?}", addresses.keys());
    Ok(addresses)
}

/// The page, and `cartctl status` in the audit's container, look for the audit where its metrics are.
async fn audited(containers: &BTreeMap<String, Container>) -> anyhow::Result<()> {
    let services = own_services()?;
    for (service, variable) in [("console", "CONSOLE_AUDIT_URL"), ("audit", "STATUS_AUDIT_URL")] {
        let started = services.get(service).with_context(|| format!("{FILE} has no service {service}"))?;
        let given = variables(started)?.get(variable).and_then(Value::as_str);
        let given = given.with_context(|| format!("{FILE}: {service} has no {variable}"))?;
        let mut url: reqwest::Url = default_of(given).parse()?;
        let host = url.host_str().context("it has a host")?;
        // A container is at its loopback address too.
        let name = if host == "127.0.0.1" { service } else { host };
        let container = containers.get(name).with_context(|| format!("{FILE} has no service {name}"))?;
        url.set_host(Some(&container.ip.to_string()))?;
        let answer = reqwest::get(url).await?.error_for_status()?.text().await?;
        ensure!(answer.contains("audit_runs_total"), "{given} has no metrics of an audit: {answer}");
    }
    Ok(())
}

/// The balancer's check is answered where it sends its requests.
async fn balanced(ingest: Ipv4Addr) -> anyhow::Result<()> {
    let config = text("scripts/balancer/haproxy.cfg")?;
    let line = |start: &str| {
        let line = config.lines().find_map(|line| line.trim().strip_prefix(start));
        line.with_context(|| format!("haproxy.cfg has no '{start}'"))
    };
    let server = line("server-template ingest ")?;
    let port = server.rsplit_once("ingest:").context("the service's name and port")?.1;
    let path = line("http-check send meth GET uri ")?.split(' ').next().unwrap_or_default();
    let answer = reqwest::get(format!("http://{ingest}:{port}{path}")).await?;
    ensure!(answer.status().is_success(), "the balancer's check gets {}", answer.status());
    let file = document(FILE)?;
    let (published, listens) = (strings(&file["services"]["balancer"]["ports"]), line("bind :")?);
    ensure!(published.iter().all(|port| port.ends_with(&format!(":{listens}"))), "{published:?}, but {listens}");
    Ok(())
}
