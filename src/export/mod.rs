//! The root file system of an image as one file: a disk to boot from (ext4, EROFS), or a tar.
//!
//! Every byte is laid down here, by no other program: what `mke2fs` and `mkfs.erofs` write depends on their version and
//! on the order in which the host lists a directory, and owners would have to be on this host's disk for them. The
//! layers are read twice, once for everything but the bytes of files, once for those, each straight to its place.

#![expect(
    clippy::cast_possible_truncation,
    reason = "fields of the formats are narrow; what might not fit is refused before"
)]

mod attributes;
mod crc32c;
mod erofs;
mod ext4;
mod tar;

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::FileExt;
use fs_err::{self as fs, File};
use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};

use crate::oci;
use crate::oci::root::Root;
use crate::oci::source::Source;
use crate::step::{Cancel, Class, Diagnose, Unit, Watch, hex, human, io_hint};

/// Bytes per block of both file systems.
const BLOCK: u64 = 4096;

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An ext4 file system without a partition table, with so much room.
    Ext4(Room),
    /// A read-only EROFS, not compressed: the bytes of a compressor are its version's.
    Erofs,
    /// A tar archive, sorted, with PAX headers where they are needed.
    Tar,
}

/// How large an ext4 becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Half as much again as the content, but at least 256 MiB more.
    Default,
    /// The content and so many bytes that are free.
    Free(u64),
    /// So many bytes in all.
    Whole(u64),
}

/// An image to be written as one file.
#[derive(Clone, Copy)]
pub struct Export<'e> {
    /// Where its layers are.
    pub source: &'e dyn Source,
    /// Its manifest for one platform: the UUID comes from its digest.
    pub manifest: &'e Descriptor,
    /// Its layers, lowest first.
    pub layers: &'e [Descriptor],
    /// What the file is.
    pub format: Format,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Bytes, holes included.
    pub size: u64,
    /// As `sha256:…`.
    pub digest: String,
    /// How many files, directories and links it holds.
    pub files: usize,
}

/// An image cannot be written as one file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// The file cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Something is there already.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    /// Something is there that is never replaced.
    #[error("`{}` is there already, and no regular file", .0.display())]
    NoFile(PathBuf),
    /// The content needs more room.
    #[error("{asked} bytes are too few: the content needs {needed} ({})", human(*.needed))]
    TooSmall {
        /// What was asked for.
        asked: u64,
        /// The least that would do.
        needed: u64,
    },
    /// Larger than such a file system is made here.
    #[error("a disk of {0} bytes is larger than any made here")]
    TooLarge(u64),
    /// A file that the file system cannot have.
    #[error("`{path}` cannot be in {format}: {why}")]
    Unfit {
        /// Its path in the image.
        path: String,
        /// The file system.
        format: &'static str,
        /// What it has that the file system has not.
        why: String,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Oci(error) => error.class(),
            Self::Io(_) => Class::Host,
            Self::Exists(_) | Self::NoFile(_) | Self::TooSmall { .. } | Self::TooLarge(_) => Class::Usage,
            Self::Unfit { .. } => Class::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Oci(error) => error.hint(),
            Self::Io(error) => io_hint(error),
            Self::Exists(_) => Some("name another file, or replace it with `--force`".into()),
            Self::NoFile(_) => Some("name another file".into()),
            Self::TooSmall { needed, .. } => {
                Some(format!("`--size {}M` holds it, and leaves next to nothing free", needed >> 20))
            }
            Self::TooLarge(_) => Some("grow a smaller one: `truncate --size`, then `resize2fs`".into()),
            Self::Unfit { .. } => Some("`--format tar` takes whatever a layer can have".into()),
        }
    }
}

/// Where the bytes of files go, and how large all of it is.
struct Places {
    files: HashMap<usize, Vec<Segment>>,
    size: u64,
}

/// Bytes of a file that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    at: u64,
    size: u64,
}

/// A new file being filled, zeros left as holes.
struct Output<'o> {
    file: &'o File,
}

impl Output<'_> {
    fn put(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut at = at;
        for chunk in bytes.chunks(BLOCK as usize) {
            if chunk.iter().all(|byte| *byte == 0) {
                at += chunk.len() as u64;
                continue;
            }
            let mut rest = chunk;
            while !rest.is_empty() {
                let written = self.file.write_at(rest, at)?;
                rest = &rest[written..];
                at += written as u64;
            }
        }
        Ok(())
    }
}

impl Export<'_> {
    /// Writes to a new file at `path`, which is there whole or not at all; `replace` lets it take another's place.
    pub fn create(&self, path: &Path, replace: bool, watch: &Watch) -> Result<Exported, Error> {
        check_output(path, replace)?;
        let temporary = tempfile::Builder::new()
            .prefix(".imgbuild-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir_of(path))?;
        let exported = self.write(&File::from_parts(temporary.reopen()?, path), watch)?;
        temporary.as_file().sync_all()?;
        let kept = if replace { temporary.persist(path) } else { temporary.persist_noclobber(path) };
        match kept {
            Ok(_) => Ok(exported),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Error::Exists(path.to_owned()))
            }
            Err(error) => Err(error.error.into()),
        }
    }

    /// Writes to an empty file that is open for reading and writing.
    pub fn write(&self, file: &File, watch: &Watch) -> Result<Exported, Error> {
        let digest = self.manifest.digest().to_string();
        let stage = watch.reporter.begin("read", &digest[..digest.len().min(19)], None, Unit::Bytes);
        let mut content = 0;
        let mut root = Root::read(self.source, self.layers, &watch.cancel, &mut |done| {
            content = done;
            stage.set(done);
        })?;
        stage.finish(&format!("{}, {} layers", human(content), self.layers.len()));
        let mut out = Output { file };
        let identity = Sha256::digest(format!("imgbuild export {digest}"));
        let places = match self.format {
            Format::Ext4(size) => ext4::write(&mut root, size, &identity, &mut out)?,
            Format::Erofs => erofs::write(&root, &identity, &mut out)?,
            Format::Tar => tar::write(&root, &mut out)?,
        };
        let total = places.files.values().flatten().map(|segment| segment.size).sum();
        let stage = watch.reporter.begin("write", self.format.name(), Some(total), Unit::Bytes);
        let mut done = 0;
        root.fill(self.source, self.layers, &watch.cancel, &mut |inode, _, bytes| {
            for segment in &places.files[&inode] {
                copy(bytes, *segment, &mut out, &watch.cancel)?;
                done += segment.size;
                stage.set(done);
            }
            Ok(())
        })?;
        file.set_len(places.size)?;
        let digest = digest_of(file, &watch.cancel)?;
        stage.finish(&human(total));
        Ok(Exported { size: places.size, digest, files: root.walk().len() })
    }
}

/// Fails where no file can be written at `path`: something is there that is not to be replaced, or no directory.
pub fn check_output(path: &Path, replace: bool) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_file() => Err(Error::NoFile(path.to_owned())),
        Ok(_) if !replace => Err(Error::Exists(path.to_owned())),
        _ => {
            fs::metadata(dir_of(path))?;
            Ok(())
        }
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Format {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4(_) => "ext4",
            Self::Erofs => "erofs",
            Self::Tar => "tar",
        }
    }
}

/// A UUID out of the first bytes of a digest, marked as made by a rule of one's own (RFC 9562, version 8).
fn uuid(identity: &[u8]) -> [u8; 16] {
    let mut uuid: [u8; 16] = identity[..16].try_into().expect("a digest is longer");
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// Puts bytes into a structure.
fn put<const N: usize>(buffer: &mut [u8], at: usize, bytes: [u8; N]) {
    buffer[at..at + N].copy_from_slice(&bytes);
}

fn copy(
    bytes: &mut dyn Read,
    segment: Segment,
    out: &mut Output<'_>,
    cancel: &Cancel,
) -> Result<(), oci::Error> {
    let mut buffer = vec![0; segment.size.min(1 << 20) as usize];
    let Segment { mut at, size } = segment;
    let end = at + size;
    while at < end {
        if cancel.is_cancelled() {
            return Err(oci::Error::Cancelled);
        }
        let wanted = (end - at).min(buffer.len() as u64) as usize;
        let part = &mut buffer[..wanted];
        bytes.read_exact(part).map_err(|error| oci::Error::Stream(error.to_string()))?;
        out.put(at, part)?;
        at += wanted as u64;
    }
    Ok(())
}

fn digest_of(file: &File, cancel: &Cancel) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(oci::Error::Cancelled.into());
        }
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(format!("sha256:{}", hex(&hasher.finalize()))),
            n => {
                hasher.update(&buffer[..n]);
                at += n as u64;
            }
        }
    }
}
