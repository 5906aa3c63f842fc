//! The root file system that an image's layers come to, one above the other: everything but the bytes of its files.
//!
//! Paths are followed as a process inside would follow them: a link leads at most to the image's own root. Nothing is
//! unpacked, so that owners and devices need nobody's privileges.

mod find;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Read;

use oci_spec::image::Descriptor;
use tar::EntryType;

use super::Error;
use super::archive::{Archive, Member};
use super::layer::normal;
use super::source::{Layer, Source, blob_error, check};
use crate::step::Cancel;
pub use find::Found;

/// A file of a layer that takes away the one it is named after (image specification, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// One that takes away all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS keeps for itself, which no other file system shows.
const AUFS: &[u8] = b".wh..wh.";
/// As many links as Linux follows in one path.
const LINKS: usize = 40;
/// Linux's limits, in bytes.
const NAME: usize = 255;
const PATH: usize = 4096;
/// Directories one in another; more than a path of Linux can name.
const DEPTH: usize = PATH / 2;

/// The root file system of an image. Inode 0 is its root directory.
#[derive(Debug)]
pub struct Root {
    /// All that any layer had; what was taken away has no name.
    pub inodes: Vec<Inode>,
    /// The newest time in it, in seconds since 1970.
    pub newest: u64,
}

/// A file, whatever its names.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// Its time in seconds since 1970; none where no layer gives one.
    pub mtime: Option<u64>,
    /// Extended attributes by their whole names.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory and the names in it.
    Directory(BTreeMap<Vec<u8>, Name>),
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Layer and member that have its bytes, both counted from 0.
        origin: (usize, usize),
    },
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    CharacterDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// The bits that stand for it in a mode, as Linux has them.
    pub fn mode(&self) -> u32 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharacterDevice(..) => 0o020_000,
            Self::Directory(_) => 0o040_000,
            Self::BlockDevice(..) => 0o060_000,
            Self::File { .. } => 0o100_000,
            Self::Symlink(_) => 0o120_000,
        }
    }

    /// The number that stands for it in the directories of ext4 and EROFS.
    pub fn number(&self) -> u8 {
        match self {
            Self::File { .. } => 1,
            Self::Directory(_) => 2,
            Self::CharacterDevice(..) => 3,
            Self::BlockDevice(..) => 4,
            Self::Fifo => 5,
            Self::Symlink(_) => 7,
        }
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// What it is a name of.
    pub inode: usize,
    /// The layer that gave it.
    layer: usize,
}

/// Who is shown each member of a layer, by its number, with its bytes.
type Visit<'v> = dyn FnMut(usize, Member, &mut dyn Read) -> Result<(), Error> + 'v;

/// Who is shown each regular file, by its inode and size, with its bytes.
pub type Fill<'f> = dyn FnMut(usize, u64, &mut dyn Read) -> Result<(), Error> + 'f;

/// Who is shown each member of all layers with its bytes, by layer and member, both counted from 0.
pub type Show<'s> = dyn FnMut((usize, usize), &Member, &mut dyn Read) -> Result<(), Error> + 's;

impl Root {
    /// Reads all layers, lowest first; `done` is told how many bytes of files went by.
    pub fn read(
        source: &dyn Source,
        layers: &[Descriptor],
        cancel: &Cancel,
        done: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        let mut bytes = 0;
        Self::read_and_show(source, layers, cancel, &mut |_, member, _| {
            bytes += member.size;
            done(bytes);
            Ok(())
        })
    }

    /// Reads all layers and shows every member on the way, those too that a later one hides.
    pub fn read_and_show(
        source: &dyn Source,
        layers: &[Descriptor],
        cancel: &Cancel,
        show: &mut Show<'_>,
    ) -> Result<Self, Error> {
        let mut root = Self { inodes: vec![directory()], newest: 0 };
        for (layer, descriptor) in layers.iter().enumerate() {
            visit(source, descriptor, cancel, &mut |number, member, bytes| {
                show((layer, number), &member, bytes)?;
                root.apply(member, (layer, number))
            })?;
        }
        Ok(root)
    }

    /// Reads the layers once more for the bytes of the files.
    pub fn fill(
        &self,
        source: &dyn Source,
        layers: &[Descriptor],
        cancel: &Cancel,
        fill: &mut Fill<'_>,
    ) -> Result<(), Error> {
        let mut wanted = HashMap::new();
        for (_, inode) in self.walk() {
            if let Kind::File { size: 1.., origin } = self.inodes[inode].kind {
                wanted.insert(origin, inode);
            }
        }
        for (layer, descriptor) in layers.iter().enumerate() {
            if !wanted.keys().any(|(from, _)| *from == layer) {
                continue;
            }
            visit(source, descriptor, cancel, &mut |number, member, bytes| match wanted
                .remove(&(layer, number))
            {
                Some(inode) => fill(inode, member.size, bytes),
                None => Ok(()),
            })?;
        }
        assert!(wanted.is_empty(), "the layers have the digests they had when they were read first");
        Ok(())
    }

    /// Every name with its whole path, directories before what is in them, sorted; the root itself is `.`.
    pub fn walk(&self) -> Vec<(Vec<u8>, usize)> {
        let mut names = vec![(b".".to_vec(), 0)];
        self.walk_into(0, &mut Vec::new(), &mut names);
        names
    }

    fn walk_into(&self, dir: usize, path: &mut Vec<u8>, names: &mut Vec<(Vec<u8>, usize)>) {
        for (name, entry) in self.names(dir) {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend(name);
            names.push((path.clone(), entry.inode));
            if matches!(self.inodes[entry.inode].kind, Kind::Directory(_)) {
                self.walk_into(entry.inode, path, names);
            }
            path.truncate(length);
        }
    }

    /// The names in a directory; none where the inode is no directory.
    pub fn names(&self, dir: usize) -> impl Iterator<Item = (&Vec<u8>, &Name)> {
        match &self.inodes[dir].kind {
            Kind::Directory(names) => Some(names.iter()),
            _ => None,
        }
        .into_iter()
        .flatten()
    }

    /// The parent of every directory; the root's is the root.
    pub fn parents(&self) -> HashMap<usize, usize> {
        let mut parents = HashMap::from([(0, 0)]);
        for (_, dir) in self.walk() {
            parents.extend(self.names(dir).map(|(_, name)| (name.inode, dir)));
        }
        parents.retain(|inode, _| matches!(self.inodes[*inode].kind, Kind::Directory(_)));
        parents
    }

    /// How many directories a directory has.
    pub fn subdirectories(&self, dir: usize) -> u32 {
        let is_directory =
            |(_, name): &(&Vec<u8>, &Name)| matches!(self.inodes[name.inode].kind, Kind::Directory(_));
        u32::try_from(self.names(dir).filter(is_directory).count()).expect("as many as names in memory")
    }

    /// The time of an inode; of directories that no layer has, the newest time there is.
    pub fn mtime(&self, inode: usize) -> u64 {
        self.inodes[inode].mtime.unwrap_or(self.newest)
    }

    /// The directory of this name at the root, made with this mode if it is not there; none where it is no directory.
    pub fn ensure_directory(&mut self, name: &[u8], mode: u32) -> Option<usize> {
        if let Some(found) = self.lookup(0, name) {
            let is_directory = matches!(self.inodes[found.inode].kind, Kind::Directory(_));
            return is_directory.then_some(found.inode);
        }
        Some(self.insert(0, name.to_vec(), Inode { mode, ..directory() }, usize::MAX))
    }

    fn lookup(&self, dir: usize, name: &[u8]) -> Option<Name> {
        match &self.inodes[dir].kind {
            Kind::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    fn link(&mut self, dir: usize, name: Vec<u8>, entry: Name) {
        let Kind::Directory(names) = &mut self.inodes[dir].kind else { unreachable!("it was walked into") };
        names.insert(name, entry);
    }

    fn insert(&mut self, dir: usize, name: Vec<u8>, inode: Inode, layer: usize) -> usize {
        let number = self.inodes.len();
        self.inodes.push(inode);
        self.link(dir, name, Name { inode: number, layer });
        number
    }

    /// Puts a member of a layer above what is there.
    fn apply(&mut self, member: Member, origin: (usize, usize)) -> Result<(), Error> {
        let path = normal(&member.path);
        let refuse = |why| Err(Error::Entry(String::from_utf8_lossy(&path).into_owned(), why));
        if !is_inside(&path) {
            return refuse("a path in a layer leads nowhere but down: `..` is refused");
        }
        if path.contains(&0) || path.len() > PATH || path.split(|byte| *byte == b'/').any(|n| n.len() > NAME)
        {
            return refuse("Linux has no such paths");
        }
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = path.split_at(cut);
        let layer = origin.0;
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            if matches!(gone, b"" | b"." | b"..") {
                return refuse("it takes away what is no name");
            }
            let dir = match self.follow(parent, None) {
                Ok(Some(dir)) => dir,
                Ok(None) => return Ok(()),
                Err(why) => return refuse(why),
            };
            if name == OPAQUE {
                self.clear(dir, layer);
            } else if !name.starts_with(AUFS) {
                self.remove(dir, gone, layer);
            }
            return Ok(());
        }
        let target = normal(member.link.as_deref().unwrap_or_default());
        let kind = match member.kind {
            EntryType::Regular | EntryType::Continuous => Kind::File { size: member.size, origin },
            EntryType::Directory => Kind::Directory(BTreeMap::new()),
            EntryType::Symlink => Kind::Symlink(member.link.unwrap_or_default()),
            EntryType::Char => Kind::CharacterDevice(member.device.0, member.device.1),
            EntryType::Block => Kind::BlockDevice(member.device.0, member.device.1),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Link if is_inside(&target) => match self.named(&target) {
                Ok(Some(inode)) => match self.follow(parent, Some(layer)) {
                    Ok(Some(dir)) => {
                        self.link(dir, name.to_vec(), Name { inode, layer });
                        return Ok(());
                    }
                    Ok(None) => unreachable!("what is missing was made"),
                    Err(why) => return refuse(why),
                },
                Ok(None) => return refuse("no file is where this other name of one points to"),
                Err(why) => return refuse(why),
            },
            EntryType::Link => return refuse("it is another name of a file outside"),
            _ => return refuse("it is nothing that a file system has"),
        };
        match &kind {
            Kind::Symlink(target) if target.is_empty() || target.len() >= PATH || target.contains(&0) => {
                return refuse("Linux has no links to such a target");
            }
            _ => {}
        }
        self.newest = self.newest.max(member.mtime);
        let (mode, uid, gid, mtime) = (member.mode, member.uid, member.gid, Some(member.mtime));
        let inode = Inode { mode, uid, gid, mtime, xattrs: member.xattrs, kind };
        if path == b"." {
            return match inode.kind {
                Kind::Directory(_) => {
                    self.update(0, inode);
                    Ok(())
                }
                _ => refuse("the root of a file system is a directory"),
            };
        }
        let dir = match self.follow(parent, Some(layer)) {
            Ok(dir) => dir.expect("what is missing was made"),
            Err(why) => return refuse(why),
        };
        match (self.lookup(dir, name), &inode.kind) {
            (Some(Name { inode: old, .. }), Kind::Directory(_))
                if matches!(self.inodes[old].kind, Kind::Directory(_)) =>
            {
                self.update(old, inode);
                self.link(dir, name.to_vec(), Name { inode: old, layer });
            }
            _ => drop(self.insert(dir, name.to_vec(), inode, layer)),
        }
        Ok(())
    }

    /// Gives a directory new properties; what is in it stays.
    fn update(&mut self, dir: usize, new: Inode) {
        let old = &mut self.inodes[dir];
        let kind = std::mem::replace(&mut old.kind, Kind::Fifo);
        *old = Inode { kind, ..new };
    }

    /// The inode that a path names, if any does and it is no directory; a link at its end is not followed.
    fn named(&mut self, path: &[u8]) -> Result<Option<usize>, &'static str> {
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let Some(dir) = self.follow(&path[..cut], None)? else { return Ok(None) };
        let found = self.lookup(dir, &path[cut..]).map(|name| name.inode);
        Ok(found.filter(|inode| !matches!(self.inodes[*inode].kind, Kind::Directory(_))))
    }

    /// The directory that a path leads to, links followed. What is missing is made for `layer`, if one is given.
    fn follow(&mut self, path: &[u8], layer: Option<usize>) -> Result<Option<usize>, &'static str> {
        let mut way = vec![0];
        let mut parts: VecDeque<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = parts.pop_front() {
            let here = *way.last().expect("the root is never left");
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    way.truncate((way.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let next = match (self.lookup(here, &part), layer) {
                (Some(name), _) => name.inode,
                (None, Some(layer)) => self.insert(here, part, directory(), layer),
                (None, None) => return Ok(None),
            };
            match &self.inodes[next].kind {
                Kind::Directory(_) => way.push(next),
                Kind::Symlink(target) => {
                    links += 1;
                    if links > LINKS {
                        return Err("its path leads through links without end");
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    for part in target.rsplit(|byte| *byte == b'/') {
                        parts.push_front(part.to_vec());
                    }
                }
                _ => return Err("its path leads through a file that is no directory"),
            }
            if way.len() > DEPTH {
                return Err("it lies deeper than Linux can name");
            }
        }
        Ok(way.last().copied())
    }

    /// Takes a name away, and what is below it, unless this very layer gave it.
    fn remove(&mut self, dir: usize, name: &[u8], layer: usize) {
        let Some(entry) = self.lookup(dir, name) else { return };
        let is_directory = matches!(self.inodes[entry.inode].kind, Kind::Directory(_));
        let is_kept = is_directory && self.clear(entry.inode, layer);
        if let Kind::Directory(names) = &mut self.inodes[dir].kind
            && !is_kept
            && entry.layer != layer
        {
            names.remove(name);
        }
    }

    /// Takes away what lower layers have in a directory; returns whether anything is left.
    fn clear(&mut self, dir: usize, layer: usize) -> bool {
        let names: Vec<_> = self.names(dir).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove(dir, name, layer));
        self.names(dir).next().is_some()
    }
}

/// A directory that no layer has an entry for.
fn directory() -> Inode {
    let kind = Kind::Directory(BTreeMap::new());
    Inode { mode: 0o755, uid: 0, gid: 0, mtime: None, xattrs: BTreeMap::new(), kind }
}

fn is_inside(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').all(|part| part != b"..")
}

/// Reads a layer from end to end and checks its digest.
fn visit(
    source: &dyn Source,
    descriptor: &Descriptor,
    cancel: &Cancel,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let unreadable =
        |error: std::io::Error| blob_error(source, descriptor, format!("cannot be read as a layer: {error}"));
    let mut layer = Layer::open(source, descriptor)?;
    let mut archive = Archive::new(&mut layer);
    let mut number = 0;
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        visit(number, member, &mut archive)?;
        number += 1;
    }
    let (blob, _) = layer.finish(cancel).map_err(|error| match error {
        Error::Io(error) => unreadable(error),
        other => other,
    })?;
    check(source, descriptor, &blob)
}
