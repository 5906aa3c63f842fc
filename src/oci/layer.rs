//! A layer: entries written as a tar stream whose bytes depend on the entries and the epoch alone.
//!
//! Owner, mode and time are data of the entry and never read from the disk. The tar crate writes the archive, with
//! headers set here one by one: its own metadata modes read the disk, and its GNU long names are not what OCI's
//! readers are tested with, so what does not fit a ustar header goes into a PAX one.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use tar::{EntryType, Header};

use super::Error;
use super::blocks::{BlockWriter, Packed};
use crate::step::{Cancel, Watch};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file with the bytes of a file on this disk.
    File(PathBuf),
    /// A regular file with these bytes.
    Bytes(Vec<u8>),
    /// A symbolic link to this target.
    Symlink(String),
    /// Another name of a file earlier in the layer.
    HardLink(String),
}

/// One entry of a layer, owned by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the image's root, without a leading `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub content: Content,
}

impl Entry {
    /// A directory of mode 0755.
    pub fn directory(path: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o755, content: Content::Directory }
    }

    /// A file of mode 0644 with the bytes of a file on this disk.
    pub fn file(path: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: 0o644, content: Content::File(source.into()) }
    }

    /// A symbolic link.
    pub fn symlink(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o777, content: Content::Symlink(target.into()) }
    }
}

/// Writes a gzip layer of `entries`, sorted by path, to `target`. `epoch` (seconds since 1970) is every entry's time.
///
/// Of two entries that are names of one file the one that sorts first must be the file.
pub fn write(
    mut entries: Vec<Entry>,
    epoch: u64,
    target: &Path,
    threads: usize,
    watch: &Watch,
) -> Result<Packed, Error> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut builder = tar::Builder::new(BlockWriter::new(File::create(target)?, threads));
    let appended = entries.iter().try_for_each(|entry| append(&mut builder, entry, epoch, &watch.cancel));
    if watch.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    // When the disk is full the writer's end knows it; what the append saw is only that its threads are gone.
    let finished = builder.into_inner().and_then(BlockWriter::finish);
    match (appended, finished) {
        (Err(Error::Io(_)) | Ok(()), Err(error)) => {
            Err(io::Error::new(error.kind(), format!("cannot write `{}`: {error}", target.display())).into())
        }
        (Err(error), _) => Err(error),
        (Ok(()), Ok(packed)) => Ok(packed),
    }
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    entry: &Entry,
    epoch: u64,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut header = Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch);
    header.set_size(0);
    let mut pax: Vec<(&str, &[u8])> = Vec::new();
    let slash = if entry.content == Content::Directory { "/" } else { "" };
    let path = format!("{}{slash}", entry.path);
    if header.set_path(&path).is_err() {
        pax.push(("path", path.as_bytes()));
        header.set_path(shortened(&entry.path))?;
    }
    header.set_entry_type(match &entry.content {
        Content::Directory => EntryType::Directory,
        Content::File(_) | Content::Bytes(_) => EntryType::Regular,
        Content::Symlink(_) => EntryType::Symlink,
        Content::HardLink(_) => EntryType::Link,
    });
    if let Content::Symlink(target) | Content::HardLink(target) = &entry.content
        && header.set_link_name_literal(target).is_err()
    {
        pax.push(("linkpath", target.as_bytes()));
    }
    if !pax.is_empty() {
        builder.append_pax_extensions(pax)?;
    }
    match &entry.content {
        Content::File(source) => {
            let file = File::open(source)?;
            let size = file.metadata()?.len();
            header.set_size(size);
            header.set_cksum();
            let mut data = Exact { file, left: size, cancel, path: source };
            builder.append(&header, &mut data)?;
        }
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            builder.append(&header, bytes.as_slice())?;
        }
        _ => {
            header.set_cksum();
            builder.append(&header, io::empty())?;
        }
    }
    Ok(())
}

/// The end of a path, short enough for a ustar header whose PAX record holds the whole.
fn shortened(path: &str) -> String {
    let mut start = path.len().saturating_sub(90);
    while !path.is_char_boundary(start) {
        start += 1;
    }
    path[start..].trim_start_matches('/').to_owned()
}

/// A file read to the size its header promised: one that shrinks meanwhile would shift every later header.
struct Exact<'a> {
    file: File,
    left: u64,
    cancel: &'a Cancel,
    path: &'a Path,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        if self.left == 0 {
            return Ok(0);
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read(&mut buffer[..wanted])?;
        if n == 0 {
            let message = format!("`{}` became shorter while it was packed", self.path.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::tests::silent;
    use std::os::unix::fs::PermissionsExt;

    fn entries(file: &Path) -> Vec<Entry> {
        let long = format!("lib/{}/{}", "d".repeat(120), "f".repeat(130));
        vec![
            Entry::symlink("modules.dep", "lib/modules/5.10.262/modules.dep"),
            Entry::directory("lib"),
            Entry::file("lib/file", file),
            Entry { path: "lib/name".into(), mode: 0o644, content: Content::HardLink("lib/file".into()) },
            Entry { path: long, mode: 0o600, content: Content::Bytes(b"long".to_vec()) },
            Entry::symlink("far", "t".repeat(200)),
        ]
    }

    fn packed(order: impl Fn(&mut Vec<Entry>)) -> (Packed, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("source");
        fs_err::write(&file, "bytes").unwrap();
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o4711)).unwrap();
        let mut entries = entries(&file);
        order(&mut entries);
        let target = dir.path().join("layer");
        let packed = write(entries, 1_785_408_960, &target, 2, &silent()).unwrap();
        (packed, fs_err::read(&target).unwrap())
    }

    /// Fails if we ever make a change that moves a layer's bytes: then the assembly number has to rise too.
    #[test]
    fn golden_layer() {
        let (layer, _) = packed(|_| {});
        assert_eq!(layer.diff_id, "694136e4f453a12c75bbb02cccad199c7ae4914fa313baad7295eff5fa466410");
        assert_eq!(layer.digest, "6d0462007eb969018009bbe6b5d021e81fba09ace751d58fba3d32bd7503b106");
        assert_eq!(packed(|entries| entries.reverse()).0, layer, "the order of the caller does not matter");
    }

    #[test]
    fn every_entry_comes_back_as_data_of_the_entry_says() {
        let (_, bytes) = packed(|_| {});
        let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&bytes[..]));
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.mtime().unwrap(), 1_785_408_960);
            let mode = header.mode().unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let link = entry.link_name_bytes().map(|link| link.len());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            seen.push((path.len(), mode, link, text));
        }
        let none = String::new;
        assert_eq!(
            seen,
            [
                (3, 0o777, Some(200), none()),
                (4, 0o755, None, none()),
                (255, 0o600, None, "long".into()),
                (8, 0o644, None, "bytes".into()),
                (8, 0o644, Some(8), none()),
                (11, 0o777, Some(32), none()),
            ]
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::file("boot/vmlinux", dir.path().join("not-there"));
        let error = write(vec![entry], 0, &dir.path().join("layer"), 1, &silent()).unwrap_err();
        assert!(error.to_string().contains("not-there"), "{error}");
    }
}
