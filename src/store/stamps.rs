//! A quick look over a big artifact: sizes and times of its files, as they were when it was last read whole.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err as fs;
use sha2::{Digest, Sha256};

use crate::step::hex;

/// The digest of every file's path, size and times. Whoever writes to a file changes its time.
pub(super) fn stamps(root: &Path) -> std::io::Result<String> {
    let mut lines = Vec::new();
    visit(root, Path::new(""), &mut lines)?;
    lines.sort();
    Ok(hex(&Sha256::digest(lines.concat().as_bytes())) + "\n")
}

fn visit(root: &Path, below: &Path, lines: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let below = below.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.is_dir() {
            lines.push(format!("{}/\n", below.display()));
            visit(root, &below, lines)?;
        } else {
            let (size, seconds, nanoseconds) = (meta.len(), meta.ctime(), meta.ctime_nsec());
            lines.push(format!("{}\t{size}\t{seconds}.{nanoseconds}\t{:o}\n", below.display(), meta.mode()));
        }
    }
    Ok(())
}
