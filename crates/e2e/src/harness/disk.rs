//! Fills a disk.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// The sizes of appends: large ones first, down to the block size of any disk.
const BLOCK_LENS: [usize; 3] = [1 << 20, 64 << 10, 4 << 10];

/// How often room is taken that a server has freed by deleting or compacting.
const PAUSE: Duration = Duration::from_millis(20);

/// The bit of CAP_SYS_ADMIN, which mounting needs. Source: capability.h of Linux.
const CAP_SYS_ADMIN: u32 = 21;

/// How a user who is not root gets the rights of [`may_mount`], without leaving a mount behind.
pub const HOW_TO_MOUNT: &str = "faults of full disks mount a disk, which needs root or a namespace of its own: \
    unshare --mount --map-current-user --keep-caps scripts/faults ...";

/// Whether this process may mount a disk.
#[must_use]
pub fn may_mount() -> bool {
    let status = procfs::process::Process::myself().and_then(|process| process.status());
    status.is_ok_and(|status| status.capeff >> CAP_SYS_ADMIN & 1 == 1)
}

/// A file that takes all room of a disk, including what becomes free meanwhile. Removed when this is dropped.
#[derive(Debug)]
pub struct FullDisk {
    file: PathBuf,
    is_over: Arc<AtomicBool>,
    filler: Option<JoinHandle<io::Result<()>>>,
}

impl FullDisk {
    /// Fills the disk of a folder, which must be a separate disk of [`super::OwnServers`]. Returns when it is full.
    ///
    /// # Errors
    /// The folder is not a separate disk, or can't be written to.
    pub(super) fn fill(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("there is no disk at {}", folder.display()))?;
        let mounts = fs::read_to_string("/proc/mounts").context("reading what is mounted")?;
        let is_own = mounts.lines().any(|mount| {
            let mut fields = mount.split(' ').skip(1);
            fields.next().is_some_and(|at| Path::new(at) == folder) && fields.next() == Some("tmpfs")
        });
        ensure!(is_own, "{} is no disk of its own: it is not filled", folder.display());
        let file = folder.join("filler");
        let mut opened = File::create(&file).with_context(|| format!("creating {}", file.display()))?;
        fill(&mut opened).with_context(|| format!("filling {}", folder.display()))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let is_stopped = is_over.clone();
        let refill = move || {
            while !is_stopped.load(Ordering::Relaxed) {
                fill(&mut opened)?;
                std::thread::sleep(PAUSE);
            }
            Ok(())
        };
        Ok(Self { file, is_over, filler: Some(std::thread::spawn(refill)) })
    }

    /// Frees the disk.
    ///
    /// # Errors
    /// The disk could not be kept full, or can't be freed.
    pub fn free(mut self) -> anyhow::Result<()> {
        self.end().context("the disk was not kept full")
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(filler) = self.filler.take() else { return Ok(()) };
        self.is_over.store(true, Ordering::Relaxed);
        let filled = filler.join().unwrap_or_else(|_| Err(io::Error::other("the filler panicked")));
        fs::remove_file(&self.file).and(filled)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, file = %self.file.display(), "giving a disk's room back");
        }
    }
}

/// Appends until there is no room left.
fn fill(file: &mut File) -> io::Result<()> {
    for len in BLOCK_LENS {
        let block = vec![0; len];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
