//! EROFS, as Linux reads it from 5.4 on: nothing compressed, the ends of files behind their inodes where they fit.
//!
//! Superblock at 1024, inodes with their attributes and ends after it, whole blocks after those.

use std::collections::HashMap;

use super::attributes::{Attribute, attributes};
use super::{BLOCK, Error, Output, Places, Segment, put, uuid};
use crate::oci::root::{Inode, Kind, Root};

/// Where the superblock is, and how long it and an inode (in its longer form) are, in bytes.
const SUPERBLOCK: usize = 1024;
const SUPERBLOCK_SIZE: usize = 128;
const INODE: u64 = 64;
/// Inodes are numbered by their place in units of so many bytes.
const SLOT: u64 = 32;
/// Attributes begin with a header of so many bytes; all is counted in words.
const ATTRIBUTES: usize = 12;
const WORD: usize = 4;
/// Bytes of a directory entry without its name.
const ENTRY: usize = 12;

/// An inode and where it comes to lie.
struct Laid {
    number: usize,
    at: u64,
    attributes: Vec<u8>,
    /// What it holds, where that is not the bytes of a file.
    data: Vec<u8>,
    size: u64,
    /// How much of its end lies behind it.
    tail: u64,
    /// The first of its blocks.
    block: u64,
}

/// Writes everything but the bytes of files.
pub(super) fn write(root: &Root, identity: &[u8], out: &mut Output<'_>) -> Result<Places, Error> {
    let mut at = (SUPERBLOCK + SUPERBLOCK_SIZE) as u64;
    let (mut laid, mut index) = (Vec::new(), HashMap::new());
    let mut links: HashMap<usize, u32> = HashMap::new();
    for (path, number) in root.walk() {
        *links.entry(number).or_default() += 1;
        if index.contains_key(&number) {
            continue;
        }
        index.insert(number, laid.len());
        let inode = &root.inodes[number];
        let attributes = body(&checked(inode, &path)?);
        let (data, size) = match &inode.kind {
            // As long as it will be; the numbers in it are not known yet.
            Kind::Directory(_) => {
                let data = directory(&entries(root, number, number, &|_| 0));
                let size = data.len() as u64;
                (data, size)
            }
            Kind::File { size, .. } => (Vec::new(), *size),
            Kind::Symlink(target) => (target.clone(), target.len() as u64),
            _ => (Vec::new(), 0),
        };
        let head = INODE + attributes.len() as u64;
        let mut tail = size % BLOCK;
        if head + tail > BLOCK {
            tail = 0;
        }
        at = at.next_multiple_of(SLOT);
        // Neither an inode nor the end of a file may lie across two blocks.
        let together = if tail > 0 { head + tail } else { INODE };
        if at % BLOCK + together > BLOCK {
            at = at.next_multiple_of(BLOCK);
        }
        laid.push(Laid { number, at, attributes, data, size, tail, block: 0 });
        at += head + tail;
    }
    let mut block = at.div_ceil(BLOCK);
    for one in &mut laid {
        one.block = block;
        block += blocks(one);
    }
    if u32::try_from(block).is_err() {
        return Err(Error::TooLarge(block * BLOCK));
    }
    let nid = |number: usize| laid[index[&number]].at / SLOT;
    let parents = root.parents();
    let mut files = HashMap::new();
    for (position, one) in laid.iter().enumerate() {
        let is_directory = matches!(root.inodes[one.number].kind, Kind::Directory(_));
        let links = if is_directory { 2 + root.subdirectories(one.number) } else { links[&one.number] };
        let mut bytes = inode(root, one, position, links);
        bytes.extend(&one.attributes);
        out.put(one.at, &bytes)?;
        let whole = one.size - one.tail;
        let places = [
            Segment { at: one.block * BLOCK, size: whole },
            Segment { at: one.at + bytes.len() as u64, size: one.tail },
        ];
        let places = places.into_iter().filter(|segment| segment.size > 0).collect::<Vec<_>>();
        match &root.inodes[one.number].kind {
            Kind::File { .. } => drop(files.insert(one.number, places)),
            kind => {
                let fresh = matches!(kind, Kind::Directory(_))
                    .then(|| directory(&entries(root, one.number, parents[&one.number], &nid)));
                let mut data = fresh.as_ref().unwrap_or(&one.data).as_slice();
                for segment in places {
                    let (part, rest) = data.split_at(segment.size as usize);
                    out.put(segment.at, part)?;
                    data = rest;
                }
            }
        }
    }
    out.put(0, &superblock(root, laid.len(), nid(0), block, identity))?;
    Ok(Places { files, size: block * BLOCK })
}

fn checked(inode: &Inode, path: &[u8]) -> Result<Vec<Attribute>, Error> {
    let unfit =
        |why: String| Error::Unfit { path: String::from_utf8_lossy(path).into_owned(), format: "erofs", why };
    if inode.uid.max(inode.gid) > u64::from(u32::MAX) {
        return Err(unfit("its owner's number is too large".into()));
    }
    attributes(&inode.xattrs).map_err(|name| unfit(format!("it has no place for the attribute `{name}`")))
}

/// How many blocks of its own a file has.
fn blocks(laid: &Laid) -> u64 {
    (laid.size - laid.tail).div_ceil(BLOCK)
}

fn inode(root: &Root, laid: &Laid, position: usize, links: u32) -> Vec<u8> {
    let inode = &root.inodes[laid.number];
    let mut bytes = vec![0; INODE as usize];
    // The longer form; data in blocks, or its end behind the inode.
    let form: u16 = if laid.tail > 0 { 0b101 } else { 0b001 };
    let words = match laid.attributes.len() {
        0 => 0,
        size => (size - ATTRIBUTES) / WORD + 1,
    };
    let place = match inode.kind {
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
        }
        _ if blocks(laid) == 0 => 0,
        _ => laid.block as u32,
    };
    put(&mut bytes, 0, form.to_le_bytes());
    put(&mut bytes, 2, (words as u16).to_le_bytes());
    put(&mut bytes, 4, ((inode.mode | inode.kind.mode()) as u16).to_le_bytes());
    put(&mut bytes, 8, laid.size.to_le_bytes());
    put(&mut bytes, 16, place.to_le_bytes());
    put(&mut bytes, 20, (position as u32 + 1).to_le_bytes());
    put(&mut bytes, 24, (inode.uid as u32).to_le_bytes());
    put(&mut bytes, 28, (inode.gid as u32).to_le_bytes());
    put(&mut bytes, 32, root.mtime(laid.number).to_le_bytes());
    put(&mut bytes, 44, links.to_le_bytes());
    bytes
}

/// Attributes as they lie behind an inode; nothing where there are none.
fn body(attributes: &[Attribute]) -> Vec<u8> {
    if attributes.is_empty() {
        return Vec::new();
    }
    let mut bytes = vec![0; ATTRIBUTES];
    for Attribute { index, name, value, .. } in attributes {
        bytes.extend([name.len() as u8, *index]);
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(name);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(WORD), 0);
    }
    bytes
}

/// The names in a directory, sorted, with the number and type of what they name.
fn entries(root: &Root, dir: usize, parent: usize, nid: &dyn Fn(usize) -> u64) -> Vec<(Vec<u8>, u64, u8)> {
    let names = root.names(dir).map(|(name, entry)| (name.clone(), entry.inode));
    let mut all: Vec<_> = names.chain([(b".".to_vec(), dir), (b"..".to_vec(), parent)]).collect();
    all.sort_unstable();
    all.into_iter().map(|(name, inode)| (name, nid(inode), root.inodes[inode].kind.number())).collect()
}

/// A directory's blocks: in each the entries, then their names. The last one ends with its last name.
fn directory(entries: &[(Vec<u8>, u64, u8)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut size = 0;
        let fits = |(name, ..): &&(Vec<u8>, u64, u8)| {
            size += ENTRY + name.len();
            size as u64 <= BLOCK
        };
        let count = rest.iter().take_while(fits).count();
        let (here, later) = rest.split_at(count);
        let mut name_at = count * ENTRY;
        for (name, nid, kind) in here {
            bytes.extend(nid.to_le_bytes());
            bytes.extend((name_at as u16).to_le_bytes());
            bytes.extend([*kind, 0]);
            name_at += name.len();
        }
        here.iter().for_each(|(name, ..)| bytes.extend(name));
        rest = later;
        if !rest.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        }
    }
    bytes
}

/// The first block up to where inodes begin.
fn superblock(root: &Root, inodes: usize, root_nid: u64, blocks: u64, identity: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; SUPERBLOCK + SUPERBLOCK_SIZE];
    let sb = &mut bytes[SUPERBLOCK..];
    put(sb, 0, 0xe0f5_e1e2_u32.to_le_bytes());
    sb[12] = BLOCK.ilog2() as u8;
    put(sb, 14, (root_nid as u16).to_le_bytes());
    put(sb, 16, (inodes as u64).to_le_bytes());
    put(sb, 24, root.newest.to_le_bytes());
    put(sb, 36, (blocks as u32).to_le_bytes());
    put(sb, 48, uuid(identity));
    bytes
}
