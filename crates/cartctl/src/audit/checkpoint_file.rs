//! The file of a checkpoint: JSON lines, gzipped. The first line is the header, the last one the SHA-256 of all lines before it.
//!
//! ```text
//! {"format":2,"system":{...},"sealedAt":"...","commands":1000,"marks":{...},"skips":"...","carts":2,"months":1,"days":1,"ownTotals":1}
//! ["9f3c1d52-...",{"hash":"...","newest":{...}}]         a cart
//! [["c1a54a3e-...",2026,11],{"partition":0,...}]         a vendor's month
//! [["c1a54a3e-...","5d9e0f5f-...",2026,11,3],{...}]      a product's day
//! ["popular-items",1,1]                                  a group with totals of its own: its months and days follow
//! {"sha256":"..."}
//! ```

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::checkpoint::{Checkpoint, Marks, SealedTotals, System};
use super::digest::{Hash, hex};
use crate::totals::{DayKey, MonthKey};

/// The format of the file, and of what is hashed. A file with another one is not used.
const FORMAT: u32 = 2;

/// The name in the folder that `--checkpoint` gives.
const NAME: &str = "audit-checkpoint.jsonl.gz";

/// What is in the folder.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// A checkpoint of another version of this program.
    OtherFormat(u32),
    Checkpoint(Box<Checkpoint>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: u32,
    system: System,
    sealed_at: DateTime<Utc>,
    commands: u64,
    marks: Marks,
    #[serde(with = "hex")]
    skips: Hash,
    carts: usize,
    months: usize,
    days: usize,
    own_totals: usize,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Trailer {
    sha256: String,
}

/// The checkpoint's path in its folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// Reads the checkpoint of a folder.
///
/// # Errors
/// The file can't be read, or it is not what was written.
pub(super) fn load(folder: &Path) -> anyhow::Result<Found> {
    let path = path(folder);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    read(file).with_context(|| {
        format!(
            "the checkpoint {} is damaged or was changed. Find out why; `cartctl audit --full` with the same --checkpoint checks \
             everything, and replaces it if there are no findings",
            path.display()
        )
    })
}

fn read(file: File) -> anyhow::Result<Found> {
    let mut lines = Lines { input: BufReader::new(MultiGzDecoder::new(file)), sha: Sha256::new(), line: String::new() };
    lines.next()?;
    let Format { format } = serde_json::from_str(&lines.line)?;
    if format != FORMAT {
        return Ok(Found::OtherFormat(format));
    }
    let header: Header = serde_json::from_str(&lines.line)?;
    let mut checkpoint = Checkpoint {
        system: header.system,
        sealed_at: header.sealed_at,
        commands: header.commands,
        marks: header.marks,
        skips: header.skips,
        ..Checkpoint::default()
    };
    for _ in 0..header.carts {
        let (cart_id, digest) = lines.value::<(Uuid, _)>()?;
        checkpoint.carts.insert(cart_id, digest);
    }
    checkpoint.totals = lines.totals(header.months, header.days)?;
    for _ in 0..header.own_totals {
        let (group, months, days) = lines.value::<(String, usize, usize)>()?;
        checkpoint.own_totals.insert(group, lines.totals(months, days)?);
    }
    let sha256 = hex::text(&lines.sha.clone().finalize().into());
    let trailer: Trailer = lines.value()?;
    if trailer != (Trailer { sha256 }) {
        bail!("its content does not have the hash in its last line");
    }
    Ok(Found::Checkpoint(Box::new(checkpoint)))
}

struct Lines {
    input: BufReader<MultiGzDecoder<File>>,
    sha: Sha256,
    line: String,
}

impl Lines {
    fn next(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        if self.input.read_line(&mut self.line)? == 0 {
            return Err(anyhow!("it ends early"));
        }
        self.sha.update(self.line.as_bytes());
        Ok(())
    }

    fn value<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        self.next()?;
        Ok(serde_json::from_str(&self.line)?)
    }

    fn totals(&mut self, months: usize, days: usize) -> anyhow::Result<SealedTotals> {
        let mut totals = SealedTotals::default();
        for _ in 0..months {
            let ((vendor, year, month), total) = self.value::<((Uuid, i32, i32), _)>()?;
            totals.months.insert(MonthKey { vendor, year, month }, total);
        }
        for _ in 0..days {
            let ((vendor, product, year, month, day), total) = self.value::<((Uuid, Uuid, i32, i32, i32), _)>()?;
            totals.days.insert(DayKey { vendor, product, year, month, day }, total);
        }
        Ok(totals)
    }
}

/// Writes the checkpoint to its folder, which is made if it is missing. After a crash the folder has the former one or this one.
///
/// # Errors
/// The folder or the file can't be written.
pub(super) fn save(folder: &Path, checkpoint: &Checkpoint) -> anyhow::Result<()> {
    let path = path(folder);
    // Two audits at the same time have a file each, and the last rename holds.
    let unfinished = folder.join(format!("{NAME}.{}", std::process::id()));
    let write = || -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        write(checkpoint, File::create(&unfinished)?)?;
        fail_points::crash_point("checkpoint-written");
        fs::rename(&unfinished, &path)?;
        fail_points::crash_point("checkpoint-renamed");
        // Without this the rename could be lost with the machine.
        Ok(File::open(folder)?.sync_all()?)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn write(checkpoint: &Checkpoint, file: File) -> anyhow::Result<()> {
    let Checkpoint { system, sealed_at, commands, marks, skips, carts, totals, own_totals } = checkpoint;
    let header = Header {
        format: FORMAT,
        system: system.clone(),
        sealed_at: *sealed_at,
        commands: *commands,
        marks: marks.clone(),
        skips: *skips,
        carts: carts.len(),
        months: totals.months.len(),
        days: totals.days.len(),
        own_totals: own_totals.len(),
    };
    let mut out = Output { out: GzEncoder::new(BufWriter::new(file), Compression::fast()), sha: Sha256::new() };
    out.line(&header)?;
    carts.iter().try_for_each(|cart| out.line(&cart))?;
    out.totals(totals)?;
    for (group, totals) in own_totals {
        out.line(&(group, totals.months.len(), totals.days.len()))?;
        out.totals(totals)?;
    }
    fail_points::crash_point("checkpoint-unfinished");
    let sha256 = hex::text(&out.sha.clone().finalize().into());
    out.line(&Trailer { sha256 })?;
    let file = out.out.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok(file.sync_all()?)
}

struct Output {
    out: GzEncoder<BufWriter<File>>,
    sha: Sha256,
}

impl Output {
    fn line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.sha.update(&line);
        Ok(self.out.write_all(&line)?)
    }

    fn totals(&mut self, SealedTotals { months, days }: &SealedTotals) -> anyhow::Result<()> {
        for (MonthKey { vendor, year, month }, total) in months {
            self.line(&((vendor, year, month), total))?;
        }
        for (DayKey { vendor, product, year, month, day }, total) in days {
            self.line(&((vendor, product, year, month, day), total))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::super::checkpoint::{Mark, SealedTotal};
    use super::super::digest::CartDigest;
    use super::*;
    use crate::journal::Newest;

    fn checkpoint() -> Checkpoint {
        let (vendor, product) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let newest = Newest { sequence_number: 4, unchanged: 1 << 48 };
        let totals = |pieces| SealedTotals {
            months: HashMap::from([(
                MonthKey { vendor, year: 2026, month: 11 },
                SealedTotal { partition: 1, offset: 6, total: "12.345".parse().expect("a decimal") },
            )]),
            days: HashMap::from([(
                DayKey { vendor, product, year: 2026, month: 11, day: 3 },
                SealedTotal { partition: 1, offset: 6, total: (pieces, "\"mug\"\n".to_owned()) },
            )]),
        };
        Checkpoint {
            system: System { installation: "cart-".to_owned(), logs: vec!["log".to_owned()] },
            sealed_at: DateTime::from_timestamp(1_800_000_000, 0).expect("a time"),
            commands: 12,
            marks: Marks { events: vec![Mark { next: 7, hash: [9; 32], left: vec![3, 5] }], ..Marks::default() },
            skips: [5; 32],
            carts: HashMap::from([(Uuid::from_u128(3), CartDigest { hash: [7; 32], newest })]),
            totals: totals(3),
            own_totals: BTreeMap::from([("popular-items".to_owned(), totals(2))]),
        }
    }

    /// A folder of this test that is deleted at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("cartctl-checkpoint-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap_or_default();
        }
    }

    fn loaded(folder: &Folder) -> Option<Checkpoint> {
        match load(&folder.0).expect("it can be read") {
            Found::Checkpoint(checkpoint) => Some(*checkpoint),
            Found::Nothing | Found::OtherFormat(_) => None,
        }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = Folder::new("saved");
        assert!(matches!(load(&folder.0), Ok(Found::Nothing)));
        let mut checkpoint = checkpoint();
        for commands in [12, 13] {
            checkpoint.commands = commands;
            save(&folder.0, &checkpoint).expect("it can be written");
            assert_eq!(loaded(&folder).as_ref(), Some(&checkpoint));
        }
        assert_eq!(fs::read_dir(&folder.0).expect("the folder").count(), 1, "nothing unfinished is left");
    }

    /// The file's lines, written again after a change.
    fn change(folder: &Folder, change: impl FnOnce(String) -> String) {
        let path = path(&folder.0);
        let mut text = String::new();
        let file = File::open(&path).expect("the file");
        std::io::Read::read_to_string(&mut MultiGzDecoder::new(file), &mut text).expect("it is text");
        let mut out = GzEncoder::new(File::create(&path).expect("the file"), Compression::fast());
        out.write_all(change(text).as_bytes()).expect("it is written");
        out.finish().expect("it is written");
    }

    #[test]
    fn a_changed_or_cut_file_is_refused() {
        let folder = Folder::new("changed");
        let changes: [fn(String) -> String; 4] = [
            |text| text.replace("12.345", "12.346"),
            |text| text.replace("\"commands\":12", "\"commands\":11"),
            |text| text.lines().take(3).map(|line| format!("{line}\n")).collect(),
            |_| String::new(),
        ];
        for changed in changes {
            save(&folder.0, &checkpoint()).expect("it can be written");
            change(&folder, changed);
            let error = format!("{:#}", load(&folder.0).expect_err("it is not what was written"));
            assert!(error.contains("damaged or was changed") && error.contains("--full"), "{error}");
        }
        fs::write(path(&folder.0), b"no gzip").expect("it can be written");
        assert!(load(&folder.0).is_err());
    }

    #[test]
    fn a_file_of_another_version_is_not_used() {
        let folder = Folder::new("version");
        for (other, header) in [(1, "\"format\":1,"), (3, "\"format\":3,\"new\":true,")] {
            save(&folder.0, &checkpoint()).expect("it can be written");
            change(&folder, |text| text.replace("\"format\":2,", header));
            assert!(matches!(load(&folder.0), Ok(Found::OtherFormat(format)) if format == other));
        }
    }
}
