//! Unpacked images, beside what they must look like.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tar::EntryType;

use super::layout::{Entry, Image};
use super::sha256;

/// What a directory holds: a line for each path.
pub(crate) type Tree = BTreeMap<String, String>;

/// What an unpacked image must look like.
pub(crate) fn expected(image: &Image) -> Tree {
    let line = |entry: &Entry| match entry.kind {
        EntryType::Directory => format!("directory {:o}", entry.mode),
        EntryType::Symlink => format!("link to {}", entry.link.as_ref().expect("a link has a target")),
        EntryType::Link => {
            let target = image.entry(entry.link.as_ref().expect("a link has a target"));
            format!("file {:o} {}", target.mode, sha256(&target.content))
        }
        _ => format!("file {:o} {}", entry.mode, sha256(&entry.content)),
    };
    image.entries.iter().map(|(path, entry)| (path.clone(), line(entry))).collect()
}

/// What a directory looks like.
pub(crate) fn found(root: &Path) -> Tree {
    fn visit(root: &Path, below: &Path, tree: &mut Tree) {
        for entry in fs_err::read_dir(root.join(below)).expect("an unpacked file") {
            let entry = entry.expect("an unpacked file");
            let (path, below) = (entry.path(), below.join(entry.file_name()));
            let meta = fs_err::symlink_metadata(&path).expect("an unpacked file");
            let mode = meta.permissions().mode() & 0o7777;
            let line = if meta.is_symlink() {
                format!("link to {}", fs_err::read_link(&path).expect("an unpacked file").display())
            } else if meta.is_dir() {
                visit(root, &below, tree);
                format!("directory {mode:o}")
            } else {
                format!("file {mode:o} {}", sha256(&fs_err::read(&path).expect("an unpacked file")))
            };
            tree.insert(below.to_str().expect("an unpacked file").to_owned(), line);
        }
    }
    let mut tree = Tree::new();
    visit(root, Path::new(""), &mut tree);
    tree
}
