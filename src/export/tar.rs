//! The root file system as one tar stream.

use std::collections::HashMap;

use super::{Error, Output, Places, Segment};
use crate::oci::layer::{Content, Entry, head, padding};
use crate::oci::root::{Kind, Root};

/// What an archive ends with, in bytes.
const END: u64 = 1024;

/// Writes everything but the bytes of files.
pub(super) fn write(root: &Root, out: &mut Output<'_>) -> Result<Places, Error> {
    let (mut files, mut first, mut at) = (HashMap::new(), HashMap::new(), 0);
    for (path, number) in root.walk() {
        let inode = &root.inodes[number];
        let (content, mut size) = match &inode.kind {
            Kind::Directory(_) => (Content::Directory, 0),
            Kind::File { size, .. } => (Content::Bytes(Vec::new()), *size),
            Kind::Symlink(target) => (Content::Symlink(target.clone()), 0),
            Kind::CharacterDevice(major, minor) => (Content::CharacterDevice(*major, *minor), 0),
            Kind::BlockDevice(major, minor) => (Content::BlockDevice(*major, *minor), 0),
            Kind::Fifo => (Content::Fifo, 0),
        };
        let (mode, uid, gid, mtime) = (inode.mode, inode.uid, inode.gid, Some(root.mtime(number)));
        let mut entry = Entry { path, mode, uid, gid, mtime, xattrs: inode.xattrs.clone(), content };
        if let Some(target) = first.get(&number) {
            entry.content = Content::HardLink(Vec::clone(target));
            entry.xattrs.clear();
            size = 0;
        } else if entry.content != Content::Directory {
            first.insert(number, entry.path.clone());
        }
        let head = head(&entry, size, root.newest)?;
        out.put(at, &head)?;
        at += head.len() as u64;
        if size > 0 {
            files.insert(number, vec![Segment { at, size }]);
            at += size + padding(size) as u64;
        }
    }
    Ok(Places { files, size: at + END })
}
