//! What an artifact consists of: one line per entry, by which it is checked.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err::{self as fs, File};
use sha2::{Digest, Sha256};

use crate::step::hex;

/// The sorted lines of a directory tree; with `sync`, every file and directory is synced to disk on the way.
pub(super) fn listing(root: &Path, sync: bool) -> std::io::Result<String> {
    let mut lines = Vec::new();
    visit(root, Path::new(""), sync, &mut lines)?;
    lines.sort();
    Ok(lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect())
}

fn visit(root: &Path, below: &Path, sync: bool, lines: &mut Vec<String>) -> std::io::Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let below = below.join(entry.file_name());
        let name = below.display();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            lines.push(format!("{name}\tdirectory"));
            visit(root, &below, sync, lines)?;
        } else if kind.is_symlink() {
            lines.push(format!("{name}\tlink\t{}", fs::read_link(entry.path())?.display()));
        } else {
            let mut file = File::open(entry.path())?;
            let executable = file.metadata()?.permissions().mode() & 0o100 != 0;
            let digest = hash(&mut file)?;
            if sync {
                file.sync_all()?;
            }
            lines.push(format!("{name}\t{}\t{digest}", if executable { "program" } else { "file" }));
        }
    }
    if sync {
        File::open(&dir)?.sync_all()?;
    }
    Ok(())
}

/// The sha256 of the rest of a file.
pub(super) fn hash(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}
