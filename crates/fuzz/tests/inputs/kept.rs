//! The inputs in the repository: seeds, findings and golden records.

use std::fs;
use std::path::{Path, PathBuf};

/// An input, and the file that it comes from.
pub(crate) struct Input {
    pub(crate) file: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// `folder` of this crate.
fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// What `folder` contains, in the order of names; nothing if there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The names of the folders in `folder`.
pub(crate) fn folders(folder: &str) -> Vec<String> {
    let folders = entries(&here(folder)).into_iter().filter(|path| path.is_dir());
    folders.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Inputs that the target accepts.
pub(crate) fn seeds(target: &str) -> Vec<Input> {
    let mut seeds = files(&here("seeds").join(target));
    if target == "records" {
        seeds.extend(golden());
    }
    seeds
}

/// Inputs that once made the target fail.
pub(crate) fn findings(target: &str) -> Vec<Input> {
    files(&here("findings").join(target))
}

fn files(folder: &Path) -> Vec<Input> {
    entries(folder).into_iter().map(|file| Input { bytes: fs::read(&file).unwrap(), file }).collect()
}

/// The golden records of `crates/cart`, each behind the byte that chooses its topic.
fn golden() -> Vec<Input> {
    let input = |file: PathBuf| {
        let topic = file.file_name()?.to_str()?.strip_suffix(".hex")?.split_once('.')?.0;
        let number = fuzz::records::TOPICS.iter().position(|name| *name == topic)?;
        let text = fs::read_to_string(&file).unwrap();
        // Each line has 16 bytes in hexadecimal digits, then the same bytes as text.
        let pairs = text.lines().flat_map(|line| line[..47].split_whitespace());
        let datum = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap());
        Some(Input { bytes: [u8::try_from(number).unwrap()].into_iter().chain(datum).collect(), file })
    };
    entries(&newest_generation()).into_iter().filter_map(input).collect()
}

/// The folder of the newest golden records, which today's schemas read.
fn newest_generation() -> PathBuf {
    let number = |folder: &PathBuf| folder.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap();
    entries(&here("../cart/tests/golden")).into_iter().max_by_key(number).unwrap()
}
