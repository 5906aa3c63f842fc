//! ext4, with the features that Linux has had since 4.19 and before: extents, checksums, a journal, room to grow.
//!
//! Content is laid down from the first block on, in the order of paths; so what is used of a group is its beginning.
//! Directories have no hash tree: Linux makes one when a directory grows.

mod allocator;
mod geometry;
mod inode;
mod superblock;

use std::collections::HashMap;

use super::attributes::{Attribute, attributes};
use super::crc32c::crc32c;
use super::{BLOCK, Error, Output, Places, Room, Segment, put};
use crate::oci::root::{Kind, Root};
use allocator::Allocator;
use geometry::{FIRST_INODE, GROUP, Geometry, INODE, LARGEST, has_superblock, journal};
use inode::{Described, Map, Run, extents, leaves};

const ROOT: u32 = 2;
const RESIZE: u32 = 7;
const JOURNAL: u32 = 8;
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Blocks that an empty lost+found has, so that e2fsck need not find any.
const LOST_BLOCKS: u64 = 4;
/// Bytes of a directory's block that entries may have: the rest is its checksum.
const ENTRIES: usize = BLOCK as usize - 12;
/// A link's target that is shorter stands in its inode.
const SHORT: usize = 60;
/// The last second that an inode's 34 bits can tell.
const LAST_SECOND: u64 = 0x3_7fff_ffff;
const MOST_NAMES: u32 = 65_000;
/// Blocks of content that any group has at least.
const LEAST_RUN: u64 = GROUP * 3 / 4;

/// The checksums of one file system.
pub(super) struct Sums {
    seed: u32,
}

impl Sums {
    fn of(&self, bytes: &[u8]) -> u32 {
        crc32c(self.seed, bytes)
    }

    /// What the checksums of an inode and of its blocks begin with.
    fn seed_of(&self, inode: u32) -> u32 {
        crc32c(crc32c(self.seed, &inode.to_le_bytes()), &[0; 4])
    }

    fn of_inode(&self, number: u32, bytes: &[u8]) -> u32 {
        crc32c(self.seed_of(number), bytes)
    }
}

/// The high bits of a time: its first 32 are read as a signed number.
fn extra_time(time: u64) -> u32 {
    ((time.wrapping_add(1 << 31) >> 32) & 3) as u32
}

/// A file that is to be laid down.
struct Planned {
    inode: usize,
    number: u32,
    attributes: Vec<Attribute>,
    /// Whether they need a block.
    is_outside: bool,
    /// Blocks of data.
    blocks: u64,
}

/// Writes everything but the bytes of files.
pub(super) fn write(
    root: &mut Root,
    size: Room,
    identity: &[u8],
    out: &mut Output<'_>,
) -> Result<Places, Error> {
    let lost = root.ensure_directory(LOST_AND_FOUND, 0o700);
    let lost = lost.ok_or_else(|| unfit(LOST_AND_FOUND, "a file of this name has to be a directory"))?;
    let (plan, links) = plan(root, lost)?;
    let most = plan.iter().map(|planned| planned.number).max().expect("there is a root");
    let geometry = geometry(&plan, u64::from(most), size)?;
    let id = superblock::Identity::new(identity, root.newest);
    let sums = Sums { seed: crc32c(!0, &id.uuid) };
    let mut allocator = Allocator::new(geometry);

    let mut inodes = vec![
        write_resize(&geometry, &mut allocator, &id, out)?,
        write_journal(&geometry, &mut allocator, &id, &sums, out)?,
    ];
    let journal = inodes[1].clone();
    let numbers = plan.iter().map(|planned| (planned.inode, planned.number)).collect();
    let tree = Tree { root, numbers, links, parents: root.parents(), sums: &sums };
    let mut files = HashMap::new();
    let mut directories = vec![0_u64; geometry.groups as usize];
    for planned in &plan {
        let (inode, runs) = tree.write(planned, &mut allocator, out)?;
        match &root.inodes[planned.inode].kind {
            Kind::File { size, .. } => drop(files.insert(planned.inode, segments(&runs, *size))),
            Kind::Directory(_) => directories[place(&geometry, planned.number).0 as usize] += 1,
            _ => {}
        }
        inodes.push(inode);
    }
    for inode in &inodes {
        let (group, at) = place(&geometry, inode.number);
        out.put(geometry.tables(group)[2] * BLOCK + at * INODE, &inode.bytes(&sums))?;
    }
    let summary = superblock::Summary {
        geometry,
        inodes: u64::from(most),
        directories: &directories,
        journal: &journal,
    };
    superblock::write(&summary, &allocator, &id, &sums, out)?;
    Ok(Places { files, size: if let Room::Whole(size) = size { size } else { geometry.blocks * BLOCK } })
}

fn unfit(path: &[u8], why: &str) -> Error {
    let path = String::from_utf8_lossy(path).into_owned();
    Error::Unfit { path, format: "ext4", why: why.to_owned() }
}

/// All files, each once, with their numbers; and how many names each has.
fn plan(root: &Root, lost: usize) -> Result<(Vec<Planned>, HashMap<usize, u32>), Error> {
    let mut links: HashMap<usize, u32> = HashMap::new();
    let (mut plan, mut next) = (Vec::new(), FIRST_INODE + 1);
    for (path, inode) in root.walk() {
        let names = links.entry(inode).or_default();
        *names += 1;
        if *names > MOST_NAMES {
            return Err(unfit(&path, "it has more names than a file can have"));
        }
        if *names > 1 {
            continue;
        }
        let mut planned = planned(root, inode, lost).map_err(|why| unfit(&path, &why))?;
        planned.number = match inode {
            0 => ROOT,
            inode if inode == lost => FIRST_INODE,
            _ => {
                next += 1;
                next - 1
            }
        };
        plan.push(planned);
    }
    Ok((plan, links))
}

/// The files to be laid down, and how they hang together.
struct Tree<'t> {
    root: &'t Root,
    numbers: HashMap<usize, u32>,
    links: HashMap<usize, u32>,
    parents: HashMap<usize, usize>,
    sums: &'t Sums,
}

impl Tree<'_> {
    /// Writes all of a file that is not its bytes; returns its inode, and where its blocks are.
    fn write(
        &self,
        planned: &Planned,
        allocator: &mut Allocator,
        out: &mut Output<'_>,
    ) -> Result<(Described, Vec<Run>), Error> {
        let index = planned.inode;
        let inode = &self.root.inodes[index];
        let mut described = Described {
            number: planned.number,
            mode: inode.mode | inode.kind.mode(),
            uid: inode.uid as u32,
            gid: inode.gid as u32,
            mtime: self.root.mtime(index),
            epoch: self.root.newest,
            links: self.links[&index],
            blocks: planned.blocks,
            ..Described::default()
        };
        if planned.is_outside {
            described.attribute_block = allocator.one();
            described.blocks += 1;
            let mut block = inode::block(&planned.attributes).expect("it was seen to fit");
            let sum = crc32c(self.sums.of(&described.attribute_block.to_le_bytes()), &block);
            put(&mut block, 16, sum.to_le_bytes());
            out.put(described.attribute_block * BLOCK, &block)?;
        } else {
            described.attributes = inode::inside(&planned.attributes).expect("it was seen to fit");
        }
        let data = match &inode.kind {
            Kind::Directory(_) => {
                described.links = 2 + self.root.subdirectories(index);
                described.size = planned.blocks * BLOCK;
                self.directory(index, planned.blocks)
            }
            Kind::File { size, .. } => {
                described.size = *size;
                Vec::new()
            }
            Kind::Symlink(target) => {
                described.size = target.len() as u64;
                target.clone()
            }
            _ => Vec::new(),
        };
        let runs = allocator.take(planned.blocks);
        if runs.is_empty() && !matches!(inode.kind, Kind::File { .. }) {
            described.map = Map::Plain(plain(&inode.kind));
            return Ok((described, runs));
        }
        let leaves = leaves(runs.len()).ok_or(Error::TooLarge(described.size))?;
        let leaves: Vec<u64> = (0..leaves).map(|_| allocator.one()).collect();
        let seed = self.sums.seed_of(planned.number);
        let (map, parts) = extents(&runs, &leaves, &|bytes| crc32c(seed, bytes));
        described.map = map;
        described.blocks += leaves.len() as u64;
        for (leaf, part) in leaves.iter().zip(parts) {
            out.put(leaf * BLOCK, &part)?;
        }
        let mut rest = data.as_slice();
        for Segment { at, size } in segments(&runs, data.len() as u64) {
            let (part, later) = rest.split_at(size as usize);
            out.put(at, part)?;
            rest = later;
        }
        Ok((described, runs))
    }

    /// The blocks of a directory.
    fn directory(&self, dir: usize, blocks: u64) -> Vec<u8> {
        let names = self.root.names(dir).map(|(name, entry)| (name.as_slice(), entry.inode));
        let own = [(&b"."[..], dir), (b"..", self.parents[&dir])];
        let all: Vec<(&[u8], usize)> = own.into_iter().chain(names).collect();
        let mut rest = all.as_slice();
        let mut counts = pack(all.iter().map(|(name, _)| name.len()));
        counts.resize(blocks as usize, 0);
        let mut bytes = Vec::new();
        for count in counts {
            let mut block = vec![0; BLOCK as usize];
            let (here, later) = rest.split_at(count);
            rest = later;
            let mut at = 0;
            for (position, (name, inode)) in here.iter().enumerate() {
                let size =
                    if position + 1 == count { ENTRIES - at } else { (8 + name.len()).next_multiple_of(4) };
                put(&mut block, at, self.numbers[inode].to_le_bytes());
                put(&mut block, at + 4, (size as u16).to_le_bytes());
                block[at + 6] = name.len() as u8;
                block[at + 7] = self.root.inodes[*inode].kind.number();
                block[at + 8..at + 8 + name.len()].copy_from_slice(name);
                at += size;
            }
            if count == 0 {
                put(&mut block, 4, (ENTRIES as u16).to_le_bytes());
            }
            // An entry that names nothing, of type 0xde, has the checksum.
            put(&mut block, ENTRIES + 4, 12_u16.to_le_bytes());
            block[ENTRIES + 7] = 0xde;
            let sum = crc32c(self.sums.seed_of(self.numbers[&dir]), &block[..ENTRIES]);
            put(&mut block, ENTRIES + 8, sum.to_le_bytes());
            bytes.extend(block);
        }
        bytes
    }
}

/// Where the bytes of a file go that has these blocks.
fn segments(runs: &[Run], size: u64) -> Vec<Segment> {
    let mut left = size;
    let one = |(first, count): &Run| {
        let size = left.min(count * BLOCK);
        left -= size;
        Segment { at: first * BLOCK, size }
    };
    runs.iter().map(one).collect()
}

/// What a file needs; an error says what ext4 has no place for.
fn planned(root: &Root, index: usize, lost: usize) -> Result<Planned, String> {
    let inode = &root.inodes[index];
    if inode.uid.max(inode.gid) > u64::from(u32::MAX) {
        return Err("its owner's number is too large".into());
    }
    if root.mtime(index) > LAST_SECOND {
        return Err("its time is too far away".into());
    }
    let attributes =
        attributes(&inode.xattrs).map_err(|name| format!("it has no place for the attribute `{name}`"))?;
    let is_outside = inode::inside(&attributes).is_none();
    if is_outside && inode::block(&attributes).is_none() {
        return Err("its attributes do not fit into one block".into());
    }
    let blocks = match &inode.kind {
        Kind::Directory(names) => {
            let blocks = pack([1, 2].into_iter().chain(names.keys().map(Vec::len))).len() as u64;
            if index == lost { blocks.max(LOST_BLOCKS) } else { blocks }
        }
        Kind::File { size, .. } => size.div_ceil(BLOCK),
        Kind::Symlink(target) if target.len() >= SHORT => 1,
        _ => 0,
    };
    Ok(Planned { inode: index, number: 0, attributes, is_outside, blocks })
}

/// The division of the disk that holds all that is planned.
fn geometry(plan: &[Planned], inodes: u64, room: Room) -> Result<Geometry, Error> {
    let of_one = |planned: &Planned| {
        let runs = planned.blocks / LEAST_RUN + 2;
        let extents = leaves(runs as usize).unwrap_or_default() as u64;
        planned.blocks + u64::from(planned.is_outside) + extents
    };
    // One block is the resize inode's.
    let content = 1 + plan.iter().map(of_one).sum::<u64>();
    let least = |content| Geometry::holding(content, inodes);
    // Whole mebibytes read better; a stub of a group may be left out of them.
    let rounded = |content: u64| {
        let mut blocks = least(content).blocks;
        loop {
            blocks = (blocks + 1).next_multiple_of((1 << 20) / BLOCK);
            match Geometry::new(blocks, inodes) {
                Some(geometry) if geometry.holds(content) && geometry.blocks == blocks => return geometry,
                _ => {}
            }
        }
    };
    let geometry = match room {
        Room::Default => rounded(content + (content / 2).max((256 << 20) / BLOCK)),
        Room::Free(free) if free > LARGEST => return Err(Error::TooLarge(free)),
        Room::Free(free) => rounded(content + free.div_ceil(BLOCK)),
        Room::Whole(size) => {
            let geometry = Geometry::new(size.min(LARGEST + 1) / BLOCK, inodes);
            geometry.filter(|geometry| geometry.holds(content)).ok_or_else(|| {
                let needed = rounded(content).blocks * BLOCK;
                Error::TooSmall { asked: size, needed }
            })?
        }
    };
    let size = if let Room::Whole(size) = room { size } else { geometry.blocks * BLOCK };
    if size > LARGEST { Err(Error::TooLarge(size)) } else { Ok(geometry) }
}

/// The group of an inode, and its place in the group's table.
fn place(geometry: &Geometry, number: u32) -> (u64, u64) {
    (u64::from(number - 1) / geometry.inodes, u64::from(number - 1) % geometry.inodes)
}

/// What stands in the inode of a short link or a device.
fn plain(kind: &Kind) -> [u8; 60] {
    let mut bytes = [0; 60];
    match kind {
        Kind::Symlink(target) => bytes[..target.len()].copy_from_slice(target),
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            if *major < 256 && *minor < 256 {
                put(&mut bytes, 0, ((major << 8) | minor).to_le_bytes());
            } else {
                let new = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
                put(&mut bytes, 4, new.to_le_bytes());
            }
        }
        _ => {}
    }
    bytes
}

/// How many entries each block of a directory has, given the lengths of the names.
fn pack(names: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut counts, mut used) = (vec![0], 0);
    for length in names {
        let size = (8 + length).next_multiple_of(4);
        if used + size > ENTRIES {
            counts.push(0);
            used = 0;
        }
        used += size;
        *counts.last_mut().expect("there is one from the beginning") += 1;
    }
    counts
}

/// Makes an empty journal.
fn write_journal(
    geometry: &Geometry,
    allocator: &mut Allocator,
    id: &superblock::Identity,
    sums: &Sums,
    out: &mut Output<'_>,
) -> Result<Described, Error> {
    let blocks = journal(geometry.blocks);
    let runs = allocator.take(blocks);
    let mut first = vec![0; 1024];
    // The numbers of a journal have their high bytes first: magic, type, then size of a block, blocks, first, sequence.
    for (at, number) in
        [(0, 0xc03b_3998), (4, 4), (12, BLOCK as u32), (16, blocks as u32), (20, 1), (24, 1), (64, 1)]
    {
        put(&mut first, at, u32::to_be_bytes(number));
    }
    out.put(runs[0].0 * BLOCK, &first)?;
    let leaves = leaves(runs.len()).expect("a journal lies in a few groups");
    assert_eq!(leaves, 0, "a journal lies in a few groups");
    let seed = sums.seed_of(JOURNAL);
    let (map, _) = extents(&runs, &[], &|bytes| crc32c(seed, bytes));
    let (mode, size) = (0o100_600, blocks * BLOCK);
    Ok(Described { number: JOURNAL, mode, size, links: 1, blocks, map, ..id.described() })
}

/// Makes the inode that owns the blocks kept for the descriptors of a grown file system.
fn write_resize(
    geometry: &Geometry,
    allocator: &mut Allocator,
    id: &superblock::Identity,
    out: &mut Output<'_>,
) -> Result<Described, Error> {
    const ADDRESSES: u64 = BLOCK / 4;
    let list = allocator.one();
    let mut lists = vec![0; BLOCK as usize];
    let copies: Vec<u64> = (1..geometry.groups).filter(|group| has_superblock(*group)).collect();
    for number in 0..geometry.reserve {
        let kept = 1 + geometry.descriptors + number;
        let at = ((geometry.descriptors + number) % ADDRESSES) as usize * 4;
        put(&mut lists, at, (kept as u32).to_le_bytes());
        let addresses: Vec<u8> =
            copies.iter().flat_map(|group| ((kept + group * GROUP) as u32).to_le_bytes()).collect();
        out.put(kept * BLOCK, &addresses)?;
    }
    out.put(list * BLOCK, &lists)?;
    let mut map = [0; 60];
    // The fourteenth address: a block of addresses of blocks of addresses.
    put(&mut map, 13 * 4, (list as u32).to_le_bytes());
    let size = (ADDRESSES * ADDRESSES + ADDRESSES + 12) * BLOCK;
    let blocks = 1 + geometry.reserve * (1 + copies.len() as u64);
    let (mode, map) = (0o100_600, Map::Plain(map));
    Ok(Described { number: RESIZE, mode, size, links: 1, blocks, map, ..id.described() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_to_be_free_is_free_in_whole_mebibytes() {
        for free in [0, 1, 100 << 20, 40 << 30] {
            let made = geometry(&[], 12, Room::Free(free)).unwrap();
            let left = (made.room() - journal(made.blocks) - 1) * BLOCK;
            assert!(left >= free && left <= free + free / 20 + (2 << 20), "{free}: {left} of {made:?}");
            assert_eq!(made.blocks * BLOCK % (1 << 20), 0);
        }
        assert!(matches!(geometry(&[], 12, Room::Free(u64::MAX)), Err(Error::TooLarge(_))));
        assert!(matches!(geometry(&[], 12, Room::Whole(u64::MAX)), Err(Error::TooLarge(_))));
    }

    #[test]
    fn times_beyond_2038_have_their_high_bits() {
        for (time, extra) in
            [(0, 0), (0x7fff_ffff, 0), (0x8000_0000, 1), (5_000_000_000, 1), (LAST_SECOND, 3)]
        {
            assert_eq!(extra_time(time), extra, "{time}");
        }
    }
}
