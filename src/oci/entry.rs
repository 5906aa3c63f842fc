//! What a layer is made of: entries, each with its owner, mode and time, which never come from the disk by themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
    Symlink(Vec<u8>),
    /// Another name of a file earlier in the layer.
    HardLink(Vec<u8>),
    /// A character device: major and minor number.
    CharacterDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry of a layer. Paths are bytes, as the kernel has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the image's root, without a leading `/`; `.` is the root itself.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// Its time in seconds since 1970, where it is not the layer's.
    pub mtime: Option<u64>,
    /// Extended attributes by their whole names (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// What it is.
    pub content: Content,
}

impl Entry {
    /// An entry that belongs to root.
    pub fn new(path: impl Into<Vec<u8>>, mode: u32, content: Content) -> Self {
        Self { path: path.into(), mode, uid: 0, gid: 0, mtime: None, xattrs: BTreeMap::new(), content }
    }

    /// A directory of mode 0755.
    pub fn directory(path: impl Into<Vec<u8>>) -> Self {
        Self::new(path, 0o755, Content::Directory)
    }

    /// A file of mode 0644 with the bytes of a file on this disk.
    pub fn file(path: impl Into<Vec<u8>>, source: impl Into<PathBuf>) -> Self {
        Self::new(path, 0o644, Content::File(source.into()))
    }

    /// A symbolic link.
    pub fn symlink(path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        Self::new(path, 0o777, Content::Symlink(target.into()))
    }

    /// Another name, of mode 0644, of a file that sorts before it.
    pub fn hard_link(path: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Self {
        Self::new(path, 0o644, Content::HardLink(target.into()))
    }

    /// What takes away the file or directory that lower layers have at `path` (image specification, layer.md).
    pub fn whiteout(path: impl Into<Vec<u8>>) -> Self {
        let mut path = path.into();
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        path.splice(name..name, *b".wh.");
        Self::new(path, 0o644, Content::Bytes(Vec::new()))
    }

    /// With an owner and a group.
    #[must_use]
    pub fn owned_by(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }
}
