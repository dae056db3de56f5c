//! The files of a table in Cassandra, and a damage to one of them, as by a bad disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::servers::{OwnServers, Server, State};

/// The longest time in which Cassandra writes its tables to files and ends, on a busy machine.
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks whether it has ended.
const STOP_PAUSE: Duration = Duration::from_millis(100);

impl OwnServers {
    /// Stops Cassandra (SIGTERM). It writes its tables to files before it ends. [`OwnServers::up`] starts it again.
    ///
    /// # Errors
    /// It does not run, or does not end in time.
    pub fn stop_cassandra(&self) -> anyhow::Result<()> {
        self.signal(Server::Cassandra.into(), Signal::TERM)?;
        let started_at = Instant::now();
        while self.state(Server::Cassandra)? != State::Down {
            let elapsed = started_at.elapsed();
            ensure!(elapsed < STOP_DEADLINE, "Cassandra runs {} s after SIGTERM: see its log", elapsed.as_secs());
            std::thread::sleep(STOP_PAUSE);
        }
        Ok(())
    }

    /// The files with the rows of a table in Cassandra.
    ///
    /// # Errors
    /// The keyspace has no folder, or a folder can't be listed.
    pub fn table_files(&self, keyspace: &str, table: &str) -> anyhow::Result<BTreeSet<PathBuf>> {
        let keyspace = self.folder().join("data/cassandra/data").join(keyspace);
        // A table's id is behind its name.
        let prefix = format!("{table}-");
        let mut files = BTreeSet::new();
        for folder in entries(&keyspace)?.iter().filter(|folder| name(folder).starts_with(&prefix)) {
            files.extend(entries(folder)?.into_iter().filter(|file| name(file).ends_with("-Data.db")));
        }
        Ok(files)
    }
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// A file with a wrong byte, which its checksum shows. The whole file is kept in memory.
#[derive(Debug)]
pub struct DamagedFile {
    path: PathBuf,
    whole: Vec<u8>,
}

impl DamagedFile {
    /// Changes the byte in the middle of a file that no process has open.
    ///
    /// # Errors
    /// The file is empty, or can't be read or written.
    pub fn damage(path: &Path) -> anyhow::Result<Self> {
        let whole = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let (mut damaged, middle) = (whole.clone(), whole.len() / 2);
        let byte = damaged.get_mut(middle).with_context(|| format!("{} is empty", path.display()))?;
        *byte = !*byte;
        fs::write(path, damaged).with_context(|| format!("damaging {}", path.display()))?;
        Ok(Self { path: path.to_owned(), whole })
    }

    /// Puts the whole file back.
    ///
    /// # Errors
    /// It can't be written.
    pub fn repair(self) -> anyhow::Result<()> {
        fs::write(&self.path, &self.whole).with_context(|| format!("repairing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_differs_in_a_byte_until_it_is_repaired() {
        let path = std::env::temp_dir().join(format!("damaged-{}", uuid::Uuid::new_v4()));
        fs::write(&path, [1_u8, 2, 3]).expect("a file");
        let damaged = DamagedFile::damage(&path).expect("it has a byte");
        assert_eq!(fs::read(&path).expect("it is there"), [1, 0xfd, 3]);
        damaged.repair().expect("it is ours");
        assert_eq!(fs::read(&path).expect("it is there"), [1, 2, 3]);
        fs::write(&path, b"").expect("it is ours");
        DamagedFile::damage(&path).expect_err("it is empty");
        fs::remove_file(&path).expect("it is ours");
    }
}
