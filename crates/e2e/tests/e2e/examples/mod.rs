//! The examples of README.md and docs/api.md: each is run as a reader would run it, in the order of the page, and its answer is
//! compared with the one that the page shows.
//!
//! * [`page`]: which lines are commands, which are answers.
//! * [`shell`]: bash and curl.
//! * [`answer`]: the comparison, and what a placeholder stands for.
//! * [`checks`]: a page that is wrong is reported.

mod answer;
pub(crate) mod checks;
mod page;
mod shell;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Installation, Process, Service, binary, wait_until};
use jsonwebtoken::Algorithm;

use crate::auth::{Signer, claims, write_keys};
use crate::tls::Pair;
use answer::{Comparison, Run};
use page::{Example, NotRun};
use shell::Shell;

const DEADLINE: Duration = Duration::from_secs(180);

const README: &str = "README.md";
const API: &str = "docs/api.md";

/// Where the pages have the service of `scripts/stack`.
const STACK: &str = "127.0.0.1:9001";

const NOT_RUN: &[NotRun] = &[
    NotRun { page: README, begins: "HTTP ─▶", reason: "it is a diagram" },
    NotRun { page: README, begins: "scripts/demo", reason: "it starts another installation, and takes minutes" },
    NotRun { page: README, begins: "scripts/test", reason: "it runs this test" },
    NotRun { page: API, begins: "$(scripts/python-env", reason: "downstream.rs runs it" },
];

/// Starts an `ingest` as a page says, at a free address. Its files are those in `folder`.
fn start(
    installation: &Installation,
    folder: &Path,
    example: &Example,
    args: &[&str],
) -> anyhow::Result<(String, Process)> {
    let place = &example.place;
    let listen = args.iter().position(|arg| *arg == "--listen").with_context(|| format!("{place}: no --listen"))?;
    let shown = args.get(listen + 1).with_context(|| format!("{place}: --listen has no address"))?;
    let others = args[..listen].iter().chain(&args[listen + 2..]);
    let args: Vec<_> = others
        .map(|arg| match folder.join(arg) {
            file if file.is_file() => file.display().to_string(),
            _ => (*arg).to_owned(),
        })
        .collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let instance = shown.rsplit(':').next().unwrap_or_default();
    let process = installation.start(Service::Ingest, instance, &args).with_context(|| place.clone())?;
    Ok(((*shown).to_owned(), process))
}

/// Runs an example; where the page shows an outcome, until the command is no longer pending.
async fn run(shell: &Shell, example: &Example) -> anyhow::Result<Run> {
    let is_pending = |text: &str| text.contains(r#""status":"pending""#);
    let has_outcome = !example.answer.is_empty() && !is_pending(&example.answer);
    let what = format!("the outcome at {}", example.place);
    let run = wait_until(&what, DEADLINE, async || match tokio::task::block_in_place(|| shell.run(example)) {
        Ok(run) if has_outcome && is_pending(&run.output) => Err(run.output),
        run => Ok(run),
    });
    run.await?
}

pub(crate) async fn what_the_pages_show_is_what_the_service_answers() -> anyhow::Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut pages = Vec::new();
    for page in [README, API] {
        let text = fs::read_to_string(root.join(page)).with_context(|| format!("reading {page}"))?;
        pages.push(page::examples(page, &text, NOT_RUN)?);
    }

    let installation = Installation::new("examples")?;
    installation.setup().await?;
    let folder = installation.folder().join("examples");
    fs::create_dir_all(&folder)?;
    let signer = Signer::read("ed", Algorithm::EdDSA)?;
    write_keys(&folder.join("keys.json"), &[&signer])?;
    let certificate = Pair::make(&folder, "cert")?;

    let mut addresses = Vec::new();
    let mut ingests = Vec::new();
    for example in pages.iter().flatten() {
        let Some(args) = example.ingest_args() else { continue };
        let (shown, process) = start(&installation, &folder, example, &args)?;
        let real = process.address().context("ingest has an address")?;
        ensure!(shown != STACK, "{}: {STACK} is that of the stack", example.place);
        addresses.push((shown, real.to_string()));
        ingests.push((process, args.contains(&"--tls-cert")));
    }
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::Ingest, "0", &["--allow-client-time"]), (Service::CartProcessor, "0", &[])];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let processes = installation.start_all(&services).await?;
    let stack = processes[0].address().context("ingest has an address")?.to_string();
    for (process, is_tls) in &mut ingests {
        let address = process.address().context("ingest has an address")?;
        if *is_tls {
            wait_until("ingest to answer over TLS", DEADLINE, async || certificate.version(address).await).await?;
        } else {
            process.ready(DEADLINE).await?;
        }
    }

    let mut environment = installation.environment();
    let programs = binary("cart")?.parent().context("a binary is in a folder")?.display().to_string();
    environment.push(("PATH", format!("{programs}:{}", std::env::var("PATH").context("reading PATH")?)));
    environment.push(("CART_URL", format!("http://{stack}")));
    environment.push(("TOKEN", signer.sign(&claims("operator", "carts"))?));
    addresses.push((STACK.to_owned(), stack));
    let shell = Shell { folder, addresses, environment };

    let mut comparison = Comparison::default();
    let mut wrong = Vec::new();
    for examples in pages {
        shell.begin()?;
        for example in examples.iter().filter(|example| example.ingest_args().is_none()) {
            let run = run(&shell, example).await?;
            if let Err(difference) = comparison.compare(&example.answer, &run) {
                let Example { place, command, answer } = example;
                let output = &run.output;
                wrong.push(format!("{place}: {difference}\n{command}\n--- shown:\n{answer}--- answered:\n{output}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} examples are wrong:\n\n{}", wrong.len(), wrong.join("\n\n"));
    drop((processes, ingests));
    installation.remove().await
}
