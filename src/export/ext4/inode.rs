//! Inodes of ext4, their extents and attributes.

use super::super::attributes::Attribute;
use super::super::{BLOCK, put};
use super::geometry::INODE;
use super::{Sums, extra_time};

/// Blocks that lie side by side: the first one, and how many.
pub(super) type Run = (u64, u64);

/// Bytes an inode has beyond the first 128, without attributes.
const EXTRA: usize = 32;
/// Where attributes are in an inode, behind their magic number; and in a block of their own.
const INSIDE: usize = 128 + EXTRA;
const HEADER: usize = 32;
const MAGIC: u32 = 0xea02_0000;
/// Bytes of an attribute's entry without its name.
const ENTRY: usize = 16;
/// Extents in an inode, and in a block of extents.
const IN_INODE: usize = 4;
pub(super) const IN_BLOCK: usize = (BLOCK as usize - 12 - 4) / 12;
/// Flag of inodes whose blocks are listed as extents.
const EXTENTS: u32 = 0x8_0000;
/// A directory with more links than can be counted says 1.
const MOST_LINKS: u32 = 65_000;

/// What an inode says.
#[derive(Debug, Clone, Default)]
pub(super) struct Described {
    pub(super) number: u32,
    /// Type and permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: u64,
    /// All its other times.
    pub(super) epoch: u64,
    pub(super) size: u64,
    pub(super) links: u32,
    /// Blocks of all kinds that belong to it.
    pub(super) blocks: u64,
    pub(super) map: Map,
    /// Attributes inside, as [`inside`] makes them.
    pub(super) attributes: Vec<u8>,
    /// The block of its other attributes.
    pub(super) attribute_block: u64,
}

/// What stands where an inode lists its blocks.
#[derive(Debug, Clone)]
pub(super) enum Map {
    /// Extents, or where the blocks of extents are: 60 bytes.
    Extents([u8; 60]),
    /// Anything else: a short link's target, a device's number, addresses of blocks.
    Plain([u8; 60]),
}

impl Default for Map {
    fn default() -> Self {
        Self::Plain([0; 60])
    }
}

impl Described {
    pub(super) fn bytes(&self, sums: &Sums) -> Vec<u8> {
        let mut bytes = vec![0; INODE as usize];
        let b = &mut bytes;
        let (map, flags) = match &self.map {
            Map::Extents(map) => (map, EXTENTS),
            Map::Plain(map) => (map, 0),
        };
        let links = if self.links > MOST_LINKS { 1 } else { self.links };
        let sectors = self.blocks * BLOCK / 512;
        put(b, 0x00, (self.mode as u16).to_le_bytes());
        put(b, 0x02, (self.uid as u16).to_le_bytes());
        put(b, 0x04, (self.size as u32).to_le_bytes());
        put(b, 0x18, (self.gid as u16).to_le_bytes());
        put(b, 0x1a, (links as u16).to_le_bytes());
        put(b, 0x1c, (sectors as u32).to_le_bytes());
        put(b, 0x20, flags.to_le_bytes());
        put(b, 0x28, *map);
        put(b, 0x68, (self.attribute_block as u32).to_le_bytes());
        put(b, 0x6c, ((self.size >> 32) as u32).to_le_bytes());
        put(b, 0x74, ((sectors >> 32) as u16).to_le_bytes());
        put(b, 0x78, ((self.uid >> 16) as u16).to_le_bytes());
        put(b, 0x7a, ((self.gid >> 16) as u16).to_le_bytes());
        put(b, 0x80, (EXTRA as u16).to_le_bytes());
        // Accessed, changed, modified, made.
        for (time, at, extra_at) in [
            (self.epoch, 0x08, 0x8c),
            (self.epoch, 0x0c, 0x84),
            (self.mtime, 0x10, 0x88),
            (self.epoch, 0x90, 0x94),
        ] {
            put(b, at, (time as u32).to_le_bytes());
            put(b, extra_at, extra_time(time).to_le_bytes());
        }
        b[INSIDE..INSIDE + self.attributes.len()].copy_from_slice(&self.attributes);
        let sum = sums.of_inode(self.number, b);
        put(b, 0x7c, (sum as u16).to_le_bytes());
        put(b, 0x82, ((sum >> 16) as u16).to_le_bytes());
        bytes
    }
}

/// The map of these runs, and the blocks of extents it needs, which lie where `leaves` says.
pub(super) fn extents(runs: &[Run], leaves: &[u64], sum: &dyn Fn(&[u8]) -> u32) -> (Map, Vec<Vec<u8>>) {
    let mut logical = 0;
    let entry = |(first, count): &Run| {
        let mut bytes = [0; 12];
        put(&mut bytes, 0, (logical as u32).to_le_bytes());
        put(&mut bytes, 4, (*count as u16).to_le_bytes());
        put(&mut bytes, 8, (*first as u32).to_le_bytes());
        logical += count;
        bytes
    };
    let entries: Vec<[u8; 12]> = runs.iter().map(entry).collect();
    let mut map = [0; 60];
    if leaves.is_empty() {
        node(&mut map, &entries, IN_INODE, 0);
        return (Map::Extents(map), Vec::new());
    }
    let (mut blocks, mut roots) = (Vec::new(), Vec::new());
    for (part, leaf) in entries.chunks(IN_BLOCK).zip(leaves) {
        let mut root = [0; 12];
        root[..4].copy_from_slice(&part[0][..4]);
        put(&mut root, 4, (*leaf as u32).to_le_bytes());
        roots.push(root);
        let mut block = vec![0; BLOCK as usize];
        node(&mut block, part, IN_BLOCK, 0);
        let end = 12 + 12 * IN_BLOCK;
        let sum = sum(&block[..end]);
        put(&mut block, end, sum.to_le_bytes());
        blocks.push(block);
    }
    node(&mut map, &roots, IN_INODE, 1);
    (Map::Extents(map), blocks)
}

fn node(bytes: &mut [u8], entries: &[[u8; 12]], most: usize, depth: u16) {
    put(bytes, 0, 0xf30a_u16.to_le_bytes());
    put(bytes, 2, (entries.len() as u16).to_le_bytes());
    put(bytes, 4, (most as u16).to_le_bytes());
    put(bytes, 6, depth.to_le_bytes());
    entries.iter().enumerate().for_each(|(at, entry)| put(bytes, 12 + 12 * at, *entry));
}

/// How many blocks of extents so many runs need; none where they are too many for one level of them.
pub(super) fn leaves(runs: usize) -> Option<usize> {
    let leaves = if runs <= IN_INODE { 0 } else { runs.div_ceil(IN_BLOCK) };
    (leaves <= IN_INODE).then_some(leaves)
}

/// Attributes as they stand inside an inode, if there is room for them.
pub(super) fn inside(attributes: &[Attribute]) -> Option<Vec<u8>> {
    if attributes.is_empty() {
        return Some(Vec::new());
    }
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend(table(attributes, INODE as usize - INSIDE - 4, 0)?);
    Some(bytes)
}

/// Attributes as they stand in a block of their own, if there is room for them; the sum is still to be put in.
pub(super) fn block(attributes: &[Attribute]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    put(&mut bytes, 0, MAGIC.to_le_bytes());
    put(&mut bytes, 4, 1_u32.to_le_bytes());
    put(&mut bytes, 8, 1_u32.to_le_bytes());
    let hash = attributes.iter().fold(0_u32, |hash, one| hash.rotate_left(16) ^ hash_of(one));
    put(&mut bytes, 12, hash.to_le_bytes());
    bytes.extend(table(attributes, BLOCK as usize - HEADER, HEADER)?);
    Some(bytes)
}

/// Entries from the front, values from the back, four zeros between; offsets count from `before` bytes ahead.
fn table(attributes: &[Attribute], size: usize, before: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size];
    let (mut front, mut back) = (0, size);
    for one in attributes {
        let value = value(one);
        let entry = (ENTRY + one.name.len()).next_multiple_of(4);
        back = back.checked_sub(value.len().next_multiple_of(4))?;
        if front + entry + 4 > back {
            return None;
        }
        let offset = if value.is_empty() { 0 } else { back + before };
        bytes[front] = one.name.len() as u8;
        bytes[front + 1] = one.index;
        put(&mut bytes, front + 2, (offset as u16).to_le_bytes());
        put(&mut bytes, front + 8, (value.len() as u32).to_le_bytes());
        put(&mut bytes, front + 12, hash_of(one).to_le_bytes());
        bytes[front + ENTRY..front + ENTRY + one.name.len()].copy_from_slice(&one.name);
        bytes[back..back + value.len()].copy_from_slice(&value);
        front += entry;
    }
    Some(bytes)
}

fn hash_of(one: &Attribute) -> u32 {
    let hash = one.name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    let words = value(one);
    words.chunks(4).fold(hash, |hash, word| {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        hash.rotate_left(16) ^ u32::from_le_bytes(padded)
    })
}

/// The value as it is on the disk: of access control lists ext4 has a shorter form than programs see.
fn value(one: &Attribute) -> Vec<u8> {
    /// Entries for one user and for one group, which have a number behind them.
    const NUMBERED: [u16; 2] = [0x02, 0x08];
    if !one.is_acl() || one.value.len() % 8 != 4 || one.value[..4] != 2_u32.to_le_bytes() {
        return one.value.clone();
    }
    let mut short = 1_u32.to_le_bytes().to_vec();
    for entry in one.value[4..].chunks(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let length = if NUMBERED.contains(&tag) { 8 } else { 4 };
        short.extend(&entry[..length]);
    }
    short
}
