//! The files of a crate, and the arrows between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};

use super::source::{Import, Source};

/// A module by its path in the crate; empty for `lib.rs`.
pub(super) type Module = Vec<String>;

/// The names for which a file needs another one.
pub(super) type Arrows = BTreeMap<(Module, Module), BTreeSet<String>>;

/// A module's path as it is printed.
pub(super) fn shown(module: &[String]) -> String {
    if module.is_empty() { "lib.rs".to_owned() } else { module.join("::") }
}

/// The files of a crate's library.
#[derive(Debug, Default)]
pub(super) struct Graph {
    files: BTreeMap<Module, Source>,
}

impl Graph {
    /// Reads the library of the crate in `folder`.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut graph = Self::default();
        let source = folder.join("src");
        graph.add(Module::new(), &source.join("lib.rs"), &source)?;
        Ok(graph)
    }

    /// Adds a file and its children, which are in `folder`.
    fn add(&mut self, module: Module, file: &Path, folder: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let source = Source::parse(&text).with_context(|| format!("reading {}", file.display()))?;
        for child in &source.children {
            let (own, inside) = (folder.join(format!("{child}.rs")), folder.join(child));
            let inner = inside.join("mod.rs");
            let module = [module.as_slice(), std::slice::from_ref(child)].concat();
            match (own.exists(), inner.exists()) {
                (true, _) => self.add(module, &own, &inside)?,
                (false, true) => self.add(module, &inner, &inside)?,
                (false, false) => bail!("{} has no file for its module {child}", file.display()),
            }
        }
        self.files.insert(module, source);
        Ok(())
    }

    /// A crate of these files: the path of each module, and its text.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let module = |path: &str| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let files = files.iter().map(|(path, text)| Ok((module(path), Source::parse(text)?)));
        Ok(Self { files: files.collect::<anyhow::Result<_>>()? })
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (module, source) in &self.files {
            for import in &source.imports {
                let Some(target) = self.target(module, import, &mut BTreeSet::new()) else { continue };
                let is_used = import.name.as_ref().is_some_and(|name| source.mentioned.contains(name));
                let is_reexport = import.is_public && target.starts_with(module) && !is_used;
                if target != *module && !is_reexport {
                    arrows.entry((module.clone(), target)).or_default().insert(import.path.join("::"));
                }
            }
        }
        arrows
    }

    /// The arrows between top-level modules, with all that is in them.
    pub(super) fn room_arrows(&self) -> BTreeSet<(String, String)> {
        let room = |module: &[String]| shown(&module[..module.len().min(1)]);
        let arrows = self.arrows().into_keys().map(|(from, to)| (room(&from), room(&to)));
        arrows.filter(|(from, to)| from != to).collect()
    }

    /// The sets of two or more files that reach each other by arrows.
    pub(super) fn circles(&self) -> Vec<BTreeSet<Module>> {
        let mut next: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, to) in self.arrows().into_keys() {
            next.entry(from).or_default().insert(to);
        }
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            next.keys().map(|module| (module, reachable(module, &next))).collect();
        let reaches = |from: &Module, to: &Module| reached.get(from).is_some_and(|reached| reached.contains(to));
        let mut circles = BTreeSet::new();
        for module in next.keys() {
            let circle: BTreeSet<Module> =
                next.keys().filter(|other| reaches(module, other) && reaches(other, module)).cloned().collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    /// The file of this crate that defines what `module` imports.
    fn target(&self, module: &[String], import: &Import, seen: &mut BTreeSet<(Module, String)>) -> Option<Module> {
        let path = import.path.as_slice();
        match path.first()?.as_str() {
            "crate" => self.find(Module::new(), &path[1..], seen),
            "self" => self.find(module.to_vec(), &path[1..], seen),
            "super" => {
                let supers = path.iter().take_while(|segment| *segment == "super").count();
                let up = module.len().checked_sub(supers.saturating_sub(import.depth))?;
                self.find(module[..up].to_vec(), &path[supers..], seen)
            }
            child if import.depth == 0 && self.files[module].children.iter().any(|name| name == child) => {
                self.find(module.to_vec(), path, seen)
            }
            _ => None,
        }
    }

    /// The file that defines the first of the `names` that is no module, beginning in `module`.
    fn find(&self, module: Module, names: &[String], seen: &mut BTreeSet<(Module, String)>) -> Option<Module> {
        let source = self.files.get(&module)?;
        let [name, rest @ ..] = names else { return Some(module) };
        if source.children.contains(name) {
            return self.find([module.as_slice(), std::slice::from_ref(name)].concat(), rest, seen);
        }
        if name == "*" {
            return Some(module);
        }
        if !seen.insert((module.clone(), name.clone())) {
            return None;
        }
        let of_file = || source.imports.iter().filter(|import| import.depth == 0);
        if let Some(import) = of_file().find(|import| import.name.as_ref() == Some(name)) {
            let path = [import.path.as_slice(), rest].concat();
            // `None` for a name of another crate.
            return self.target(&module, &Import { path, name: None, ..*import }, seen);
        }
        if !source.defined.contains(name) {
            for glob in of_file().filter(|import| import.name.as_deref() == Some("*")) {
                let Some(target) = self.target(&module, glob, seen) else { continue };
                let found = self.find(target.clone(), names, seen);
                if let Some(found) =
                    found.filter(|found| *found != target || self.files[&target].defined.contains(name))
                {
                    return Some(found);
                }
            }
        }
        Some(module)
    }
}

fn reachable<'a>(module: &Module, next: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<_> = next.get(module).into_iter().flatten().collect();
    while let Some(module) = left.pop() {
        if reached.insert(module) {
            left.extend(next.get(module).into_iter().flatten());
        }
    }
    reached
}
