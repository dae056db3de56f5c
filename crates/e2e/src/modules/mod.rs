//! The modules of each crate, what they import from each other, and the circles among them. The binary of that name.
//!
//! * A **module** is a file of a crate's library. An inline `mod name { … }` belongs to its file.
//! * An **arrow** goes from a file to another one of the same crate of which it names something: in a `use`, or by a path that
//!   begins with `crate::`, `super::`, `self::` or a child module. The arrow goes to the file that defines the name. A name
//!   that `lib.rs` or `mod.rs` re-exports is followed to that file, so the file with the re-export has no part in it.
//! * A re-export is no arrow, unless the file with the re-export uses the name itself.
//! * An arrow goes **back up** when it ends at a file of an ancestor module: the parent's `mod.rs`, or `lib.rs`. An arrow to
//!   a sibling of the parent does not.
//! * A **circle** is a set of two or more files, each of which can be reached from each other one by arrows.
//!
//! Whatever is `#[cfg(test)]` does not count. A name is looked up in the text, not by a compiler: methods and names that macros
//! make are not seen, except as their path says.

mod graph;
mod source;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Parser;

use graph::{Graph, shown};

/// Prints the modules of each crate, the arrows between them and their circles
///
/// Exit code 0: no circle. 1: a circle. 2: a file cannot be read.
#[derive(Debug, Parser)]
#[command(name = "modules", version, max_term_width = 110)]
#[command(
    after_help = "Examples:\n  scripts/modules\n  scripts/modules client cartctl\n  scripts/modules --arrows ingest"
)]
pub struct Cli {
    /// The crates, by the names of their folders; by default all of the workspace
    crates: Vec<String>,

    /// Print the arrows between the top-level modules of one crate
    #[arg(long, value_name = "CRATE", conflicts_with = "crates")]
    arrows: Option<String>,
}

/// Prints to `out`; returns whether there is no circle.
///
/// # Errors
/// A file cannot be read or written, or there is no such crate.
pub fn main(cli: &Cli, out: &mut impl Write) -> anyhow::Result<bool> {
    let all = crates(&workspace())?;
    if let Some(name) = &cli.arrows {
        for (from, to) in Graph::read(&folder(&all, name)?)?.room_arrows() {
            writeln!(out, "{from} -> {to}")?;
        }
        return Ok(true);
    }
    let folders = match cli.crates.as_slice() {
        [] => all,
        names => names.iter().map(|name| folder(&all, name)).collect::<Result<_, _>>()?,
    };
    let mut is_free = true;
    for folder in folders {
        let graph = Graph::read(&folder)?;
        is_free &= graph.circles().is_empty();
        write(&name(&folder), &graph, out)?;
    }
    Ok(is_free)
}

fn write(name: &str, graph: &Graph, out: &mut impl Write) -> anyhow::Result<()> {
    let (arrows, circles) = (graph.arrows(), graph.circles());
    let up: Vec<_> = arrows.iter().filter(|((from, to), _)| from.starts_with(to)).collect();
    writeln!(
        out,
        "{name}: {} modules, {} arrows, {} back up, {} circles",
        graph.len(),
        arrows.len(),
        up.len(),
        circles.len()
    )?;
    for ((from, to), names) in up {
        writeln!(out, "  back up: {} -> {} ({})", shown(from), shown(to), list(names))?;
    }
    for circle in circles {
        writeln!(out, "  circle: {}", list(circle.iter().map(|module| shown(module))))?;
        for ((from, to), names) in &arrows {
            if circle.contains(from) && circle.contains(to) {
                writeln!(out, "    {} -> {} ({})", shown(from), shown(to), list(names))?;
            }
        }
    }
    Ok(())
}

fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    names.join(", ")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folders of the workspace's crates that have a library.
fn crates(workspace: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let manifest = workspace.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let members = text.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let (members, _) = members.with_context(|| format!("{} has no list of members", manifest.display()))?;
    let folders = members.split('"').skip(1).step_by(2).map(|member| workspace.join(member));
    Ok(folders.filter(|folder| folder.join("src/lib.rs").exists()).collect())
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder(all: &[PathBuf], wanted: &str) -> anyhow::Result<PathBuf> {
    match all.iter().find(|folder| name(folder) == wanted) {
        Some(folder) => Ok(folder.clone()),
        None => bail!("there is no crate '{wanted}': {}", list(all.iter().map(|folder| name(folder)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(files: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        write("fixture", &Graph::of(files).expect("a good fixture"), &mut out).expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn finds_a_circle_through_a_reexport() {
        let files = [
            ("", "mod cart;\nmod outer;\npub use cart::Cart;\npub use outer::inner::Rule as TheRule;"),
            ("cart", "use crate::TheRule;\npub struct Cart(TheRule);"),
            ("outer", "pub mod inner;"),
            ("outer::inner", "pub struct Rule;\nfn of(_: &crate::Cart) -> Rule { Rule }"),
        ];
        let expected = "fixture: 4 modules, 2 arrows, 0 back up, 1 circles\n  \
                          circle: cart, outer::inner\n    \
                            cart -> outer::inner (crate::TheRule)\n    \
                            outer::inner -> cart (crate::Cart)\n";
        assert_eq!(report(&files), expected);
    }

    #[test]
    fn finds_a_circle_of_parent_and_child() {
        let files = [
            ("", "mod check;"),
            ("check", "mod log;\nstruct Shown;\nfn check() { log::replay() }"),
            ("check::log", "use super::Shown;\npub(super) fn replay() {}"),
        ];
        let expected = "fixture: 3 modules, 2 arrows, 1 back up, 1 circles\n  \
                          back up: check::log -> check (super::Shown)\n  \
                          circle: check, check::log\n    \
                            check -> check::log (log::replay)\n    \
                            check::log -> check (super::Shown)\n";
        assert_eq!(report(&files), expected);
    }

    #[test]
    fn a_reexport_is_an_arrow_only_where_the_name_is_used() {
        let child = ("a", "use super::B;\npub struct A;");
        assert!(report(&[("", "mod a;\npub use a::A;\npub struct B;"), child]).contains(" 0 circles"));
        assert!(report(&[("", "mod a;\npub use a::A;\npub struct B(A);"), child]).contains(" 1 circles"));
    }

    #[test]
    fn follows_globs_and_nested_imports_and_ignores_test_code() {
        let files = [
            ("", "mod a;\nmod b;\nmod c;\npub use a::*;"),
            ("a", "pub struct A;\n#[cfg(test)]\nuse crate::b::B;\n#[cfg(test)]\nmod tests { use crate::b::B; }"),
            ("b", "use std::fmt;\nuse crate::{A, c::{self, C as Other}};\npub struct B; // crate::c::C"),
            ("c", "pub(crate) struct C;\nconst TEXT: &str = \"crate::b::B\";"),
        ];
        let graph = Graph::of(&files).expect("a good fixture");
        let arrows: Vec<_> =
            graph.arrows().into_iter().map(|((from, to), names)| (shown(&from), shown(&to), list(names))).collect();
        let arrow = |to: &str, names: &str| ("b".to_owned(), to.to_owned(), names.to_owned());
        assert_eq!(arrows, [arrow("a", "crate::A"), arrow("c", "crate::c, crate::c::C")]);
        assert!(graph.circles().is_empty());
    }

    #[test]
    fn no_circle_in_the_workspace() {
        let mut out = Vec::new();
        let is_free = main(&Cli { crates: Vec::new(), arrows: None }, &mut out).expect("all files can be read");
        assert!(is_free, "modules import each other in circles:\n{}", String::from_utf8_lossy(&out));
    }
}
