//! The examples of README.md and docs/api.md are run as a reader would run them, in the order of the page, and their answers
//! are compared with those on the page.
//!
//! * [`page`]: which lines are commands, which are answers.
//! * [`shell`]: bash and curl.
//! * [`answer`]: the comparison, and the placeholders.
//! * [`checks`]: errors of a page are reported.

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

/// The address of the service of `scripts/stack` on the pages.
const STACK: &str = "127.0.0.1:9001";

const NOT_RUN: &[NotRun] = &[
    NotRun { page: README, begins: "HTTP ─▶", reason: "it is a diagram" },
    NotRun { page: README, begins: "scripts/demo", reason: "it starts another installation, and takes minutes" },
    NotRun { page: README, begins: "scripts/test", reason: "it runs this test" },
    NotRun { page: API, begins: "$(scripts/python-env", reason: "downstream.rs runs it" },
];

/// An `ingest` that a page starts.
struct Started {
    /// Its address on the page.
    shown: String,
    process: Process,
    has_tls: bool,
}

impl Started {
    /// Starts it with the page's options at a free address. Files of its options are in `folder`.
    fn new(installation: &Installation, folder: &Path, place: &str, args: &[&str]) -> anyhow::Result<Self> {
        let listen = args.iter().position(|arg| *arg == "--listen").with_context(|| format!("{place}: no --listen"))?;
        let shown = args.get(listen + 1).with_context(|| format!("{place}: --listen has no address"))?;
        ensure!(*shown != STACK, "{place}: {STACK} is the address of the stack");
        let pairs = args.windows(2).map(|pair| (pair[0], pair[1]));
        let addresses = pairs.filter(|(option, _)| ["--listen", "--admin-listen"].contains(option));
        let addresses: Vec<_> = addresses.flat_map(|(option, address)| [option, address]).collect();
        let others = args.iter().filter(|arg| !addresses.contains(*arg));
        let in_folder = |arg: &&str| match folder.join(arg) {
            file if file.is_file() => file.display().to_string(),
            _ => (*arg).to_owned(),
        };
        let others: Vec<_> = others.map(in_folder).collect();
        let others: Vec<_> = others.iter().map(String::as_str).collect();
        let (_, port) = shown.rsplit_once(':').with_context(|| format!("{place}: {shown} has no port"))?;
        let process = installation.start(Service::Ingest, port, &others).with_context(|| place.to_owned())?;
        Ok(Self { shown: (*shown).to_owned(), process, has_tls: args.contains(&"--tls-cert") })
    }

    async fn ready(&mut self, certificate: &Pair) -> anyhow::Result<()> {
        if !self.has_tls {
            return self.process.ready(DEADLINE).await;
        }
        let address = self.process.address().context("ingest has an address")?;
        wait_until("ingest to answer over TLS", DEADLINE, async || certificate.version(address).await).await?;
        Ok(())
    }
}

fn pages() -> anyhow::Result<Vec<Vec<Example>>> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let read = |page: &str| {
        let text = fs::read_to_string(root.join(page)).with_context(|| format!("reading {page}"))?;
        page::examples(page, &text, NOT_RUN)
    };
    [README, API].into_iter().map(read).collect()
}

/// Runs an example. A read whose answer is an outcome is repeated until its command is no longer pending.
async fn run(shell: &Shell, example: &Example) -> anyhow::Result<Run> {
    let is_pending = |text: &str| text.contains(r#""status":"pending""#);
    let has_outcome = !example.command.contains("-X ") && !is_pending(&example.answer);
    let what = format!("the outcome at {}", example.place);
    let run = wait_until(&what, DEADLINE, async || match tokio::task::block_in_place(|| shell.run(example)) {
        Ok(run) if has_outcome && is_pending(&run.output) => Err(run.output),
        run => Ok(run),
    });
    run.await?
}

pub(crate) async fn the_service_answers_as_the_pages_show() -> anyhow::Result<()> {
    let pages = pages()?;
    let installation = Installation::new("examples")?;
    installation.setup().await?;
    let folder = installation.folder().join("examples");
    fs::create_dir_all(&folder)?;
    let signer = Signer::read("ed", Algorithm::EdDSA)?;
    write_keys(&folder.join("keys.json"), &[&signer])?;
    let certificate = Pair::make(&folder, "cert")?;

    let mut ingests = Vec::new();
    for example in pages.iter().flatten() {
        if let Some(args) = example.ingest_args() {
            ingests.push(Started::new(&installation, &folder, &example.place, &args)?);
        }
    }
    // The pages show the answers of an idle machine.
    let patient = ["--allow-client-time", "--reply-timeout-ms", "60000", "--read-after-timeout-ms", "60000"];
    let mut services: Vec<(Service, &str, &[&str])> =
        vec![(Service::Ingest, "0", &patient), (Service::CartProcessor, "0", &[])];
    services.extend(Service::PROJECTORS.map(|projector| (projector, "0", &[][..])));
    let processes = installation.start_all(&services).await?;
    let address = |process: &Process| process.address().map(|address| address.to_string());
    let stack = address(&processes[0]).context("ingest has an address")?;
    let mut addresses = vec![(STACK.to_owned(), stack.clone())];
    for ingest in &mut ingests {
        ingest.ready(&certificate).await?;
        addresses.push((ingest.shown.clone(), address(&ingest.process).context("ingest has an address")?));
    }

    let programs = binary("cart")?.parent().context("a binary is in a folder")?.display().to_string();
    let mut environment = installation.environment();
    environment.extend([
        ("PATH", format!("{programs}:{}", std::env::var("PATH").context("reading PATH")?)),
        ("CART_URL", format!("http://{stack}")),
        ("CART_TIMEOUT_MS", "120000".to_owned()),
        ("TOKEN", signer.sign(&claims("operator", "carts"))?),
    ]);
    let shell = Shell { folder, addresses, environment };
    let mut comparison = Comparison::default();
    let mut wrong = Vec::new();
    for examples in &pages {
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
