//! What a kernel tree's Kconfig files say, for one architecture: who depends on what, and who selects whom.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fs_err as fs;

use super::expr::{Expr, Operand};
use super::reader::read;
use crate::arch::Arch;

/// A symbol's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Tristate,
    Int,
    Hex,
    String,
}

/// One `config` block.
#[derive(Debug)]
pub(super) struct Definition {
    /// `file:line` below the tree's root.
    pub(super) place: String,
    /// What must all hold: its own dependencies and those of the blocks around it.
    pub(super) depends: Vec<Arc<Expr>>,
    /// What must hold besides for its prompt to show; `None` where it has no prompt.
    pub(super) prompt: Option<Vec<Arc<Expr>>>,
    /// The choice it is a member of.
    pub(super) choice: Option<usize>,
    /// Bounds of a number, and when they apply.
    pub(super) ranges: Vec<(Operand, Operand, Option<Expr>)>,
    /// What `visible if` around it asks of any prompt.
    pub(super) visible: Vec<Arc<Expr>>,
}

/// All that is said of one symbol.
#[derive(Debug, Default)]
pub(super) struct Symbol {
    pub(super) kind: Option<Kind>,
    pub(super) definitions: Vec<Definition>,
}

impl Symbol {
    /// Whether a user can ever decide about it.
    pub(super) fn has_prompt(&self) -> bool {
        self.definitions.iter().any(|definition| definition.prompt.is_some())
    }
}

/// The Kconfig files of one tree, as one architecture sees them.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: PathBuf,
    pub(super) arch: Arch,
    pub(super) symbols: HashMap<String, Symbol>,
    pub(super) selectors: HashMap<String, Vec<(String, Option<Expr>)>>,
    pub(super) choices: Vec<Vec<String>>,
    /// Which `arch/` directories define a symbol; read when first asked for.
    elsewhere: OnceLock<HashMap<String, BTreeSet<String>>>,
}

impl Tree {
    /// Reads the tree at `root`.
    pub(super) fn read(root: &Path, arch: Arch) -> io::Result<Self> {
        read(Self {
            root: root.to_owned(),
            arch,
            symbols: HashMap::new(),
            selectors: HashMap::new(),
            choices: Vec::new(),
            elsewhere: OnceLock::new(),
        })
    }

    pub(super) fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(name)
    }

    /// The symbols that select `name`, each with its condition.
    pub(super) fn selectors(&self, name: &str) -> &[(String, Option<Expr>)] {
        self.selectors.get(name).map_or(&[], Vec::as_slice)
    }

    /// The members of a choice.
    pub(super) fn members(&self, choice: usize) -> &[String] {
        &self.choices[choice]
    }

    /// The other architectures that define `name` below their `arch/` directory.
    pub(super) fn arches_with(&self, name: &str) -> Vec<String> {
        let elsewhere = self.elsewhere.get_or_init(|| elsewhere(&self.root, self.arch).unwrap_or_default());
        elsewhere.get(name).map(|arches| arches.iter().cloned().collect()).unwrap_or_default()
    }

    /// The symbol whose name is most like `name`, if any is like it at all.
    pub(super) fn nearest(&self, name: &str) -> Option<&str> {
        let allowed = (name.len() / 4).clamp(1, 3);
        let near = self.symbols.iter().filter(|(other, _)| other.len().abs_diff(name.len()) <= allowed);
        near.map(|(other, symbol)| (strsim::osa_distance(name, other), !symbol.has_prompt(), other.as_str()))
            .filter(|(distance, ..)| *distance <= allowed)
            .min()
            .map(|(.., other)| other)
    }
}

/// Every symbol defined below `arch/` outside `arch`'s own directory.
fn elsewhere(root: &Path, arch: Arch) -> io::Result<HashMap<String, BTreeSet<String>>> {
    let mut found = HashMap::<String, BTreeSet<String>>::new();
    for entry in fs::read_dir(root.join("arch"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == arch.srcarch() || !entry.file_type()?.is_dir() {
            continue;
        }
        let mut folders = vec![entry.path()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name().to_string_lossy().starts_with("Kconfig") {
                    for line in String::from_utf8_lossy(&fs::read(entry.path())?).lines() {
                        let mut words = line.split_whitespace();
                        if let (Some("config" | "menuconfig"), Some(symbol)) = (words.next(), words.next()) {
                            found.entry(symbol.to_owned()).or_default().insert(name.clone());
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tree of these files, read for `x86_64`.
    pub(in super::super) fn tree(files: &[(&str, &str)]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), text).unwrap();
        }
        let tree = Tree::read(dir.path(), Arch::X86_64).unwrap();
        // The other architectures are read when first asked about; by then the directory is gone.
        if dir.path().join("arch").exists() {
            tree.arches_with("");
        }
        tree
    }

    #[test]
    fn the_nearest_name_is_found() {
        let tree = tree(&[(
            "Kconfig",
            "config BTRFS_FS\n\tbool\nconfig NETFILTER_XT_MATCH_COMMENT\n\tbool\nconfig XFS_FS\n\tbool\n",
        )]);
        let cases = [
            ("BTRFS_SF", Some("BTRFS_FS")),
            ("NETFILTER_XT_MATCH_COMENT", Some("NETFILTER_XT_MATCH_COMMENT")),
            ("XFS", None),
            ("SOMETHING_ELSE", None),
        ];
        for (name, expected) in cases {
            assert_eq!(tree.nearest(name), expected, "{name}");
        }
    }
}
