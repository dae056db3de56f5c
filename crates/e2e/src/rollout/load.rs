//! The clients during an update.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use crate::faults::{ClientOutcomes, Readers};
use crate::harness::{Installation, Process};

/// More commands than are sent in any update; the load is interrupted at its end.
const COMMANDS_MAX: &str = "10000000";

/// How long a client repeats a command without an outcome.
const RETRY_FOR: &str = "120s";

/// How long the commands in flight may take to get their outcomes.
const END_DEADLINE: Duration = Duration::from_secs(180);

/// The exit code of an interrupted replay with an answer to every command.
const INTERRUPTED: i32 = 130;

/// Clients that send commands and clients that read.
#[derive(Debug)]
pub(crate) struct Clients {
    process: Process,
    record: PathBuf,
    result: PathBuf,
    readers: Readers,
}

impl Clients {
    /// Starts them; `name` is unique.
    pub(crate) fn start(
        installation: &Installation,
        url: String,
        name: &str,
        rate: u32,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let record = installation.folder().join(format!("{name}.jsonl.gz"));
        let result = installation.folder().join(format!("{name}.json"));
        let (rate, seed) = (rate.to_string(), seed.to_string());
        let (record_text, result_text) = (record.display().to_string(), result.display().to_string());
        let args = [
            ("--url", url.as_str()),
            ("--commands", COMMANDS_MAX),
            ("--rate", &rate),
            ("--seed", &seed),
            ("--run-id", name),
            ("--record", &record_text),
            ("--json", &result_text),
            ("--members", "200"),
            ("--retry-for", RETRY_FOR),
            ("--drain-for", RETRY_FOR),
            // Longer than ingest's reply timeout in the overlays.
            ("--answer-timeout", "40s"),
        ];
        let args = args.into_iter().flat_map(|(name, value)| [name, value]).chain(["--no-send-time"]);
        let process = installation.spawn(name, "replay", args)?;
        Ok(Self { process, record, result, readers: Readers::start(vec![url])? })
    }

    /// Stops them, and waits until each command has its outcome. Returns what they got, and the file of it for the audit.
    pub(crate) async fn stop(self) -> anyhow::Result<(ClientOutcomes, PathBuf)> {
        let Self { mut process, record, result, readers } = self;
        process.interrupt()?;
        let status = process.ended(END_DEADLINE).await?;
        ensure!(status.code() == Some(INTERRUPTED), "the replay ended with {status}: {}", process.log());
        let mut outcomes = ClientOutcomes::read(&record, &result)?;
        outcomes.add(readers.stop());
        Ok((outcomes, record))
    }
}
