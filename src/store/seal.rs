//! What an entry is checked by: beside `files/` lie the step's name and record, and a list of the files, or the digest
//! of their sizes and times, or both.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err::{self as fs, File};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::listing::listing;
use crate::step::{Check, Key, hex};

/// What people call the step.
pub(super) const NAME: &str = "name";
/// The step's record.
pub(super) const RECORD: &str = "record.json";
/// The list of the files, each with its hash.
const LIST: &str = "files.list";
/// The digest of the files' sizes and times.
const STAMPS: &str = "files.stamps";

/// Seals the entry whose files are all there, and syncs it; returns the key of its content.
pub(super) fn seal(entry: &Path, name: &str, record: &Value, check: Check) -> std::io::Result<Key> {
    let files = entry.join("files");
    let mut texts = vec![(NAME, name.to_owned()), (RECORD, format!("{record:#}\n"))];
    if check != Check::StampsAlone {
        // Thousands of small files are synced together: one by one takes longer than making them did.
        texts.push((LIST, listing(&files, check == Check::Bytes)?));
    }
    if check != Check::Bytes {
        texts.push((STAMPS, stamps(&files)?));
    }
    // By stamps alone no sync is needed: what a crash cut short has another size.
    if check == Check::Stamps {
        rustix::fs::syncfs(File::open(&files)?)?;
    }
    for (name, text) in &texts {
        let mut file = File::create(entry.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    File::open(entry)?.sync_all()?;
    Ok(key(&texts[2].1))
}

/// The key of what an entry holds, as it says; none if it says nothing.
pub(super) fn content(entry: &Path) -> Option<Key> {
    read(entry, LIST).or_else(|| read(entry, STAMPS)).map(|text| key(&text))
}

/// The key of what an entry holds, if its files are what it says: by their stamps if it has them, else read whole.
pub(super) fn sound(entry: &Path) -> std::io::Result<Option<Key>> {
    if let (Some(known), Ok(now)) = (read(entry, STAMPS), stamps(&entry.join("files")))
        && known == now
    {
        return Ok(content(entry));
    }
    whole(entry)
}

/// The same, with every file read where the entry has a list of them.
pub(super) fn whole(entry: &Path) -> std::io::Result<Option<Key>> {
    let files = entry.join("files");
    let known = read(entry, STAMPS);
    let Some(list) = read(entry, LIST) else {
        return Ok(known
            .filter(|known| stamps(&files).is_ok_and(|now| now == *known))
            .map(|known| key(&known)));
    };
    if listing(&files, false).ok().as_ref() != Some(&list) {
        return Ok(None);
    }
    if let Some(known) = known
        && let now = stamps(&files)?
        && now != known
    {
        // Found sound, as after the store was moved: quick again from now on.
        let mut file = tempfile::NamedTempFile::new_in(entry)?;
        file.write_all(now.as_bytes())?;
        file.persist(entry.join(STAMPS)).map_err(|error| error.error)?;
    }
    Ok(Some(key(&list)))
}

fn read(entry: &Path, name: &str) -> Option<String> {
    fs::read_to_string(entry.join(name)).ok()
}

fn key(list: &str) -> Key {
    Key::of(&serde_json::json!(list.lines().collect::<Vec<_>>()))
}

/// The digest of every file's path, size and times. Whoever writes to a file changes its time.
fn stamps(root: &Path) -> std::io::Result<String> {
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
