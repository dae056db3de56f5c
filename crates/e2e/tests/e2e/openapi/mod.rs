//! The API matches `/openapi.json`: the paths and methods are the same, each example fits its schema, and schemathesis, which
//! generates requests and sequences of them from the document, gets only answers that are in it.
//!
//! Needs python3 with venv: `scripts/python-env` installs schemathesis into the target folder.

pub(crate) mod page;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Process, Service, root};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(180);

/// How long schemathesis generates requests.
const MAX_TIME_S: &str = "40";

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The methods that a path has in the document.
fn documented(operations: &Value) -> BTreeSet<String> {
    operations.as_object().into_iter().flat_map(|object| object.keys()).map(|name| name.to_uppercase()).collect()
}

/// Checks that each path accepts the methods of the document, and lists them for other methods.
async fn methods_are_documented(url: &str) -> anyhow::Result<()> {
    let client = Client::new();
    let document: Value = client.get(format!("{url}/openapi.json")).send().await?.json().await?;
    ensure!(document["openapi"] == "3.1.0", "it is {}", document["openapi"]);
    let paths = document["paths"].as_object().context("the document has paths")?;
    ensure!(paths.len() == 8, "there are {} paths", paths.len());
    for (path, operations) in paths {
        let mut place = path.clone();
        for name in ["cartId", "productId", "vendorId", "commandId"] {
            place = place.replace(&format!("{{{name}}}"), "6ba7b811-9dad-11d1-80b4-00c04fd430c8");
        }
        let documented = documented(operations);
        for method in METHODS {
            let response = client.request(method.clone(), format!("{url}{place}")).send().await?;
            let is_refused = response.status() == StatusCode::METHOD_NOT_ALLOWED;
            let is_known = documented.contains(method.as_str());
            ensure!(is_refused != is_known, "{method} {path} is answered with {}", response.status());
            if is_refused {
                let allow = response.headers()["allow"].to_str()?;
                let allowed: BTreeSet<_> = allow.split(", ").map(str::to_owned).collect();
                ensure!(allowed == documented, "{path} allows {allow}");
            }
        }
    }
    let root = Client::builder().redirect(Policy::none()).build()?.get(format!("{url}/")).send().await?;
    let (status, location) = (root.status(), root.headers().get("location"));
    ensure!(
        status == StatusCode::TEMPORARY_REDIRECT && location.is_some_and(|to| to == "/docs"),
        "/ is answered {root:?}"
    );
    let page = client.get(format!("{url}/docs")).send().await?;
    ensure!(page.status() == StatusCode::OK, "/docs is answered with {}", page.status());
    let policy = page.headers()["content-security-policy"].to_str()?.to_owned();
    ensure!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = page.text().await?;
    // What the page loads is there, in the type that its browser insists on.
    let addresses = html.split(['"', ' ']).filter(|word| word.starts_with("/docs/"));
    let mut types = Vec::new();
    for address in addresses {
        let file = client.get(format!("{url}{address}")).send().await?;
        ensure!(file.status() == StatusCode::OK, "{address} is answered with {}", file.status());
        ensure!(file.headers()["x-content-type-options"] == "nosniff", "{address}: {:?}", file.headers());
        types.push(file.headers()["content-type"].to_str()?.to_owned());
        let text = file.text().await?;
        ensure!(
            !address.contains("page.js") || text.contains("\"/openapi.json\""),
            "{address} does not load the document"
        );
    }
    let of = |kind: &str| types.iter().filter(|found| **found == format!("{kind}; charset=utf-8")).count();
    ensure!((of("text/css"), of("text/javascript")) == (2, 2), "{types:?}");
    Ok(())
}

/// Checks that a request's id, the client's or a generated one, is in the header, in a problem's body and in the log.
async fn requests_have_ids(url: &str, ingest: &Process) -> anyhow::Result<()> {
    let client = Client::new();
    let own = client.get(format!("{url}/cart/x")).header("x-request-id", "checkout-7").send().await?;
    ensure!(own.headers()["x-request-id"] == "checkout-7", "the id is {:?}", own.headers()["x-request-id"]);
    let problem: Value = own.json().await?;
    ensure!(problem["requestId"] == "checkout-7", "{problem}");
    let log = ingest.log();
    let line =
        log.lines().find(|line| line.contains("checkout-7")).context("no line of the log has the request's id")?;
    ensure!(["invalid-id", "400", "a request was rejected"].iter().all(|part| line.contains(part)), "{line}");
    let made = client.get(format!("{url}/health/live")).send().await?;
    ensure!(made.headers()["x-request-id"].len() == 36, "the id is {:?}", made.headers()["x-request-id"]);
    Ok(())
}

/// The folder in which schemathesis is installed.
fn python() -> anyhow::Result<PathBuf> {
    let made = Command::new(root().join("scripts/python-env")).arg("schemathesis").output()?;
    ensure!(made.status.success(), "installing schemathesis failed: {}", text(&made));
    Ok(Path::new(String::from_utf8(made.stdout)?.trim()).join("bin"))
}

fn examples_fit(url: &str, python: &Path) -> anyhow::Result<()> {
    let script = root().join("scripts/python/examples.py");
    let run = Command::new(python.join("python")).arg(script).arg(format!("{url}/openapi.json")).output()?;
    let report = text(&run);
    ensure!(run.status.success(), "an example does not fit: {report}");
    let checked: usize = report.split(' ').next().unwrap_or_default().parse().context(report.clone())?;
    ensure!(checked > 150, "{report}");
    Ok(())
}

fn schemathesis(url: &str, python: &Path) -> anyhow::Result<()> {
    let run = Command::new(python.join("schemathesis"))
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("SCHEMATHESIS_HOOKS", root().join("scripts/python/refusals.py"))
        .arg("--config-file")
        .arg(root().join("scripts/python/schemathesis.toml"))
        .args(["run", &format!("{url}/openapi.json"), "--max-time", MAX_TIME_S, "--max-examples", "25", "--no-color"])
        .arg("--generation-deterministic")
        .output()
        .context("running schemathesis")?;
    let report = text(&run);
    ensure!(run.status.success(), "schemathesis has found something: {report}");
    ensure!(report.contains("Tested: 10"), "not every operation was tested: {report}");
    Ok(())
}

pub(crate) async fn the_service_matches_its_document() -> anyhow::Result<()> {
    let installation = Installation::new("openapi")?;
    installation.setup().await?;
    let services = [
        (Service::Ingest, "0", &["--allow-client-time", "--log", "info,ingest=debug"][..]),
        (Service::CartProcessor, "0", &[][..]),
    ];
    let mut processes: Vec<Process> = installation.start_all(&services).await?;
    let url = format!("http://{}", processes[0].address().context("ingest has an address")?);
    methods_are_documented(&url).await?;
    requests_have_ids(&url, &processes[0]).await?;
    tokio::task::block_in_place(|| {
        let python = python()?;
        examples_fit(&url, &python)?;
        schemathesis(&url, &python)
    })?;
    for process in &mut processes {
        process.terminate(DEADLINE).await?;
    }
    installation.remove().await
}
