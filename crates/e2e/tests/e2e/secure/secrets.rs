//! Where a secret could be shown.

use std::path::Path;

use anyhow::{Context as _, ensure};
use e2e::harness::Process;

/// What can be seen of processes, by its place: command lines, environments, logs and metrics, and the files of a folder.
pub(crate) struct Places(Vec<(String, String)>);

impl Places {
    /// Looks at running processes, and at each file of the folder of their logs.
    pub(crate) async fn read(processes: impl IntoIterator<Item = &Process>, folder: &Path) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for process in processes {
            let id = process.id();
            let read = |file: &str| text(Path::new(&format!("/proc/{id}/{file}")));
            all.push((format!("the command line of process {id}"), read("cmdline")?));
            all.push((format!("the environment of process {id}"), read("environ")?));
            all.push((format!("the log of process {id}"), process.log()));
            let metrics = reqwest::get(process.metrics_url()?).await?.error_for_status()?.text().await?;
            all.push((format!("the metrics of process {id}"), metrics));
        }
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            all.push((path.display().to_string(), text(&path)?));
        }
        Ok(Self(all))
    }

    pub(crate) fn add(&mut self, place: &str, text: String) {
        self.0.push((place.to_owned(), text));
    }

    /// None of them shows the secret `name`.
    pub(crate) fn hide(&self, name: &str, secret: &str) -> anyhow::Result<()> {
        ensure!(secret.len() >= 20, "{name} is too short to be searched");
        let shown = self.0.iter().find(|(_, text)| text.contains(secret));
        ensure!(shown.is_none(), "{} shows {name}", shown.map_or("", |(place, _)| place.as_str()));
        Ok(())
    }
}

/// A file's bytes as text.
fn text(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
