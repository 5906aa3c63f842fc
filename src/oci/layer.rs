//! A layer: entries written as a tar stream whose bytes depend on the entries and the epoch alone.
//!
//! Owner, mode and time are data of the entry and never read from the disk. The tar crate writes the archive, with
//! headers set here one by one: its own metadata modes read the disk, and its GNU long names are not what OCI's
//! readers are tested with, so what does not fit a ustar header goes into a PAX one.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt;
use fs_err::{File, OpenOptions};
use tar::{EntryType, Header};

use super::Error;
use super::archive::{self, Member};
use super::blocks::{BlockWriter, Packed};
use super::compression::Compression;
pub use super::entry::{Content, Entry};
use crate::step::{Cancel, Watch};

/// The largest size an octal header field of 12 bytes holds: above it, readers want a PAX record.
const OCTAL_SIZE: u64 = 1 << 33;
/// The same for the 8 bytes of an owner.
const OCTAL_OWNER: u64 = 1 << 21;

/// Bytes to a multiple of which the bytes of a member are filled up.
const RECORD: usize = 512;
/// A flag of opening that means nothing for regular files.
#[expect(clippy::cast_possible_wrap, reason = "one small bit")]
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// How a layer is compressed, and on how many threads, which the bytes do not depend on.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// The compression.
    pub compression: Compression,
    /// How many threads compress.
    pub threads: usize,
}

/// Writes a layer of `entries`, sorted by path, to `target`. `epoch` (seconds since 1970) is the time of every entry
/// that has none of its own.
///
/// Of two entries that are names of one file the one that sorts first must be the file.
pub fn write(
    mut entries: Vec<Entry>,
    epoch: u64,
    target: &Path,
    packing: Packing,
    watch: &Watch,
) -> Result<Packed, Error> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let mut layer = LayerWriter::create(target, epoch, packing, watch)?;
    let appended = entries.iter().try_for_each(|entry| layer.append(entry));
    layer.finish(appended)
}

/// Writes the entries of a tar stream as a layer, in their order; later times than `epoch` become `epoch`.
pub fn write_stream(
    stream: impl Read,
    epoch: u64,
    target: &Path,
    packing: Packing,
    watch: &Watch,
) -> Result<Packed, Error> {
    let mut layer = LayerWriter::create(target, epoch, packing, watch)?;
    let appended = layer.append_stream(stream);
    layer.finish(appended)
}

/// A layer being written.
pub struct LayerWriter<'t> {
    writer: Writer,
    target: &'t Path,
}

impl<'t> LayerWriter<'t> {
    /// Begins a layer at `target`.
    pub fn create(target: &'t Path, epoch: u64, packing: Packing, watch: &Watch) -> Result<Self, Error> {
        let blocks = BlockWriter::new(File::create(target)?, packing.compression, packing.threads);
        let writer = Writer { builder: tar::Builder::new(blocks), epoch, cancel: watch.cancel.clone() };
        Ok(Self { writer, target })
    }

    /// Adds an entry. Entries are written in the order they come.
    pub fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        self.writer.append(entry)
    }

    /// Adds every entry of a tar stream; later times than the layer's become the layer's.
    pub fn append_stream(&mut self, stream: impl Read) -> Result<(), Error> {
        self.writer.append_stream(stream)
    }

    /// Ends the layer; `appended` is what came of appending.
    pub fn finish(mut self, appended: Result<(), Error>) -> Result<Packed, Error> {
        if self.writer.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // When the disk is full the writer's end knows it; what the append saw is only that its threads are gone.
        let closed = self.writer.builder.finish();
        let finished = self.writer.builder.into_inner().and_then(BlockWriter::finish);
        let finished = finished.and_then(|packed| closed.map(|()| packed));
        match (appended, finished) {
            (Err(Error::Io(_)) | Ok(()), Err(error)) => {
                let target = self.target.display();
                Err(io::Error::new(error.kind(), format!("cannot write `{target}`: {error}")).into())
            }
            (Err(error), _) => Err(error),
            (Ok(()), Ok(packed)) => Ok(packed),
        }
    }
}

struct Writer {
    builder: tar::Builder<BlockWriter>,
    epoch: u64,
    cancel: Cancel,
}

impl Writer {
    fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        match &entry.content {
            Content::File(source) => {
                let not_packed = |what| {
                    Err(Error::NotPacked(lossy(&entry.path), format!("`{}` is {what}", source.display())))
                };
                // A pipe is not waited for; a socket cannot be opened at all.
                let opened = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(source);
                let mut file = match opened {
                    Ok(file) => file,
                    Err(_) if fs_err::metadata(source)?.file_type().is_socket() => {
                        return not_packed("a socket");
                    }
                    Err(error) => return Err(error.into()),
                };
                let meta = file.metadata()?;
                if !meta.is_file() {
                    return not_packed("no regular file");
                }
                self.put(entry, meta.len(), &mut file)
            }
            Content::Bytes(bytes) => self.put(entry, bytes.len() as u64, &mut bytes.as_slice()),
            _ => self.put(entry, 0, &mut io::empty()),
        }
    }

    fn append_stream(&mut self, stream: impl Read) -> Result<(), Error> {
        let unreadable = |error: io::Error| Error::Stream(error.to_string());
        let mut archive = archive::Archive::new(stream);
        while let Some(member) = archive.next_member().map_err(unreadable)? {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let size = if is_file(member.kind) { member.size } else { 0 };
            let mut entry = described(member)?;
            entry.mtime = entry.mtime.map(|mtime| mtime.min(self.epoch));
            self.put(&entry, size, &mut archive).map_err(|error| match error {
                Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Error::Stream(format!("it ends within `{}`", lossy(&entry.path)))
                }
                other => other,
            })?;
        }
        Ok(())
    }

    /// Writes the headers of an entry, and `size` bytes of `data`.
    fn put(&mut self, entry: &Entry, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let head = head(entry, size, self.epoch)?;
        self.builder.get_mut().write_all(&head)?;
        self.copy(&entry.path, size, data)
    }

    /// Writes the bytes of a member, exactly as many as its header promised: fewer would shift every later header.
    fn copy(&mut self, path: &[u8], size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let blocks = self.builder.get_mut();
        let mut left = size;
        while left > 0 {
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match blocks.take_from(data, left)? {
                0 => {
                    let message = format!("`{}` became shorter while it was packed", lossy(path));
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
                }
                n => left -= n as u64,
            }
        }
        Ok(blocks.write_all(&[0; RECORD][..padding(size)])?)
    }
}

/// How many zeros follow a file of `size` bytes in an archive.
pub(crate) fn padding(size: u64) -> usize {
    usize::try_from(size.next_multiple_of(RECORD as u64) - size).expect("less than a record")
}

/// The headers of an entry whose file has `size` bytes; `epoch` is its time if it has none of its own.
pub(crate) fn head(entry: &Entry, size: u64, epoch: u64) -> Result<Vec<u8>, Error> {
    let path = checked(entry)?;
    let mut header = Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(entry.mtime.unwrap_or(epoch));
    header.set_size(size);
    let mut pax: Vec<(String, Vec<u8>)> = Vec::new();
    if header.set_path(as_path(&path)).is_err() {
        let short = shortened(&entry.path);
        header.as_old_mut().name[..short.len()].copy_from_slice(short);
        pax.push(("path".into(), path));
    }
    header.set_entry_type(match &entry.content {
        Content::Directory => EntryType::Directory,
        Content::File(_) | Content::Bytes(_) => EntryType::Regular,
        Content::Symlink(_) => EntryType::Symlink,
        Content::HardLink(_) => EntryType::Link,
        Content::CharacterDevice(..) => EntryType::Char,
        Content::BlockDevice(..) => EntryType::Block,
        Content::Fifo => EntryType::Fifo,
    });
    if let Content::Symlink(target) | Content::HardLink(target) = &entry.content
        && header.set_link_name_literal(target).is_err()
    {
        pax.push(("linkpath".into(), target.clone()));
    }
    if let Content::CharacterDevice(major, minor) | Content::BlockDevice(major, minor) = &entry.content {
        header.set_device_major(*major)?;
        header.set_device_minor(*minor)?;
    }
    // The header has these too, in base 256, for readers that know no PAX.
    let large =
        [("size", size, OCTAL_SIZE), ("uid", entry.uid, OCTAL_OWNER), ("gid", entry.gid, OCTAL_OWNER)];
    for (name, value, limit) in large {
        if value >= limit {
            pax.push((name.into(), value.to_string().into_bytes()));
        }
    }
    pax.extend(entry.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone())));
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    if !pax.is_empty() {
        builder.append_pax_extensions(pax.iter().map(|(name, value)| (name.as_str(), &value[..])))?;
    }
    let mut head = std::mem::take(builder.get_mut());
    head.extend_from_slice(header.as_bytes());
    Ok(head)
}

/// The path as the header has it, if it is one.
fn checked(entry: &Entry) -> Result<Vec<u8>, Error> {
    let refused = |what: &str| Err(Error::NotPacked(lossy(&entry.path), what.to_owned()));
    let is_directory = entry.content == Content::Directory;
    let slash: &[u8] = if is_directory { b"/" } else { b"" };
    if entry.path.contains(&0) {
        return refused("a path cannot hold a zero byte");
    }
    let mut parts = entry.path.split(|byte| *byte == b'/');
    let is_root = entry.path == b"." && is_directory;
    if !is_root && parts.any(|part| matches!(part, b"" | b"." | b"..")) {
        return refused("a path in a layer is relative, without `.`, `..` and empty parts");
    }
    Ok([&entry.path, slash].concat())
}

pub(crate) fn is_file(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous)
}

/// What a member of a tar stream is as an entry, without its bytes.
pub(crate) fn described(member: Member) -> Result<Entry, Error> {
    let (path, link) = (normal(&member.path), member.link.unwrap_or_default());
    let (major, minor) = member.device;
    let content = match member.kind {
        kind if is_file(kind) => Content::Bytes(Vec::new()),
        EntryType::Directory => Content::Directory,
        EntryType::Symlink => Content::Symlink(link),
        EntryType::Link => Content::HardLink(normal(&link)),
        EntryType::Char => Content::CharacterDevice(major, minor),
        EntryType::Block => Content::BlockDevice(major, minor),
        EntryType::Fifo => Content::Fifo,
        other => {
            let kind = char::from(other.as_byte()).escape_default();
            return Err(Error::NotPacked(lossy(&path), format!("its type in the archive is `{kind}`")));
        }
    };
    let (mode, uid, gid, mtime) = (member.mode, member.uid, member.gid, Some(member.mtime));
    Ok(Entry { path, mode, uid, gid, mtime, xattrs: member.xattrs, content })
}

/// A path without what means nothing: `./a//b/` is `a/b`, `./` is `.`.
pub fn normal(path: &[u8]) -> Vec<u8> {
    let parts: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(part, [] | [b'.'])).collect();
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

/// The end of a path, short enough for a ustar header whose PAX record holds the whole.
fn shortened(path: &[u8]) -> &[u8] {
    let mut short = &path[path.len().saturating_sub(90)..];
    // Not in the midst of a character, nor as if it were absolute.
    while let [0x80..=0xbf | b'/', rest @ ..] = short {
        short = rest;
    }
    short
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
