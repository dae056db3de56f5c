//! A run's results as JSON, and their folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::measurement::{Figure, Measurement, summarise};
use super::plot;

/// The results of a run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    pub(crate) measured_at: DateTime<Utc>,
    /// The command line.
    pub(crate) command: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) figures: Vec<Figure>,
    pub(crate) measurements: Vec<Measurement>,
}

/// The machine of servers, services and load.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
}

impl Machine {
    fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kb = field(&read("/proc/meminfo"), "MemTotal")
            .and_then(|memory| memory.split(' ').next()?.parse::<f64>().ok())
            .unwrap_or_default();
        Self {
            processors: std::thread::available_parallelism().map_or(0, Into::into),
            model: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            memory_gb: memory_kb / 1e6,
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        }
    }
}

impl Results {
    pub(crate) fn of(measurements: Vec<Measurement>) -> Self {
        Self {
            measured_at: Utc::now(),
            command: std::env::args().skip(1).collect(),
            machine: Machine::this(),
            figures: summarise(&measurements),
            measurements,
        }
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        serde_json::from_reader(std::io::BufReader::new(file)).with_context(|| format!("reading {}", path.display()))
    }

    /// Writes results.json and the plots to `folder`, or to a new one in `target/bench`.
    pub(crate) fn write(&self, folder: Option<&Path>) -> anyhow::Result<PathBuf> {
        let folder = folder.map_or_else(|| self.new_folder(), |folder| Ok(folder.to_owned()))?;
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join("results.json");
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        serde_json::to_writer_pretty(file, self).with_context(|| format!("writing {}", path.display()))?;
        plot::write(&self.figures, &folder)?;
        Ok(folder)
    }

    fn new_folder(&self) -> anyhow::Result<PathBuf> {
        let program = std::env::current_exe().context("finding out where this program is")?;
        let target = program.parent().and_then(Path::parent).context("this program is in no folder")?;
        let name = self.measured_at.to_rfc3339_opts(SecondsFormat::Secs, true).replace(':', "");
        Ok(target.join("bench").join(name))
    }

    /// The system's median of a figure.
    pub(crate) fn system(&self, bench: &str, case: &str, name: &str) -> Option<f64> {
        let figure = |figure: &&Figure| figure.bench == bench && figure.case == case && figure.name == name;
        Some(self.figures.iter().find(figure)?.system?.median)
    }
}
