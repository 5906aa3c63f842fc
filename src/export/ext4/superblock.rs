//! The superblock, the descriptors of groups, and their bitmaps.

use super::super::crc32c::crc32c;
use super::super::{BLOCK, Error, Output, put, uuid};
use super::geometry::{DESCRIPTOR, FIRST_INODE, GROUP, Geometry, has_superblock};
use super::inode::{Described, Map};
use super::{Allocator, JOURNAL, Sums};

/// A journal, attributes, a resize inode, hash trees in directories.
const COMPATIBLE: u32 = 0x4 | 0x8 | 0x10 | 0x20;
/// Types in directories, extents.
const INCOMPATIBLE: u32 = 0x2 | 0x40;
/// Few superblocks, large files, huge files, many subdirectories, large inodes, checksums.
const READ_ONLY: u32 = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400;
/// What a mount is given unless told otherwise: attributes and access control lists.
const MOUNT: u32 = 0x4 | 0x8;
/// A group whose table of inodes is zeros where it is not used, so that Linux need not write it.
const ZEROED: u16 = 0x4;

/// What tells one file system from another.
pub(super) struct Identity {
    pub(super) uuid: [u8; 16],
    hash_seed: [u8; 16],
    epoch: u64,
}

impl Identity {
    /// Out of a digest of 32 bytes; `epoch` is when it was made, in seconds since 1970.
    pub(super) fn new(digest: &[u8], epoch: u64) -> Self {
        Self { uuid: uuid(digest), hash_seed: uuid(&digest[16..]), epoch }
    }

    /// An inode of the file system's own.
    pub(super) fn described(&self) -> Described {
        Described { mtime: self.epoch, epoch: self.epoch, ..Described::default() }
    }
}

/// What was laid down.
pub(super) struct Summary<'s> {
    pub(super) geometry: Geometry,
    /// The last inode that is used.
    pub(super) inodes: u64,
    /// How many of each group's inodes are directories.
    pub(super) directories: &'s [u64],
    pub(super) journal: &'s Described,
}

/// Writes bitmaps, descriptors and superblocks, with all their copies.
pub(super) fn write(
    summary: &Summary<'_>,
    allocator: &Allocator,
    id: &Identity,
    sums: &Sums,
    out: &mut Output<'_>,
) -> Result<(), Error> {
    let geometry = &summary.geometry;
    let mut descriptors = Vec::new();
    let mut free = 0;
    for group in 0..geometry.groups {
        let tables = geometry.tables(group);
        let (size, used) = (geometry.size(group), allocator.used(group));
        let used_inodes = summary.inodes.saturating_sub(group * geometry.inodes).min(geometry.inodes);
        // What is beyond the end counts as used.
        let blocks = bitmap(&[0..used, size..GROUP]);
        let inodes = bitmap(&[0..used_inodes, geometry.inodes..GROUP]);
        out.put(tables[0] * BLOCK, &blocks)?;
        out.put(tables[1] * BLOCK, &inodes)?;
        free += size - used;
        let unused = (geometry.inodes - used_inodes) as u16;
        let mut one = vec![0; DESCRIPTOR as usize];
        tables.iter().zip([0, 4, 8]).for_each(|(table, at)| put(&mut one, at, (*table as u32).to_le_bytes()));
        let directories = summary.directories[group as usize] as u16;
        let blocks_sum = sums.of(&blocks) as u16;
        let inodes_sum = sums.of(&inodes[..geometry.inodes as usize / 8]) as u16;
        for (at, number) in [
            (12, (size - used) as u16),
            (14, unused),
            (16, directories),
            (18, ZEROED),
            (24, blocks_sum),
            (26, inodes_sum),
            (28, unused),
        ] {
            put(&mut one, at, number.to_le_bytes());
        }
        let sum = crc32c(sums.of(&(group as u32).to_le_bytes()), &one);
        put(&mut one, 30, (sum as u16).to_le_bytes());
        descriptors.extend(one);
    }
    for group in (0..geometry.groups).filter(|group| has_superblock(*group)) {
        // The very first block begins with room for a boot sector.
        let at = if group == 0 { 1024 } else { group * GROUP * BLOCK };
        out.put(at, &superblock(summary, free, group, id))?;
        out.put((group * GROUP + 1) * BLOCK, &descriptors)?;
    }
    Ok(())
}

/// A block of bits, those of `ranges` set.
fn bitmap(ranges: &[std::ops::Range<u64>]) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    for bit in ranges.iter().cloned().flatten() {
        bytes[bit as usize / 8] |= 1 << (bit % 8);
    }
    bytes
}

fn superblock(summary: &Summary<'_>, free: u64, group: u64, id: &Identity) -> Vec<u8> {
    let geometry = &summary.geometry;
    let inodes = geometry.groups * geometry.inodes;
    let epoch = id.epoch as u32;
    let block_bits = BLOCK.ilog2() - 10;
    let mut bytes = vec![0; 1024];
    let b = &mut bytes;
    for (at, number) in [
        (0x00, inodes as u32),
        (0x04, geometry.blocks as u32),
        // A hundredth is root's.
        (0x08, (geometry.blocks / 100) as u32),
        (0x0c, free as u32),
        (0x10, (inodes - summary.inodes) as u32),
        (0x18, block_bits),
        (0x1c, block_bits),
        (0x20, GROUP as u32),
        (0x24, GROUP as u32),
        (0x28, geometry.inodes as u32),
        (0x30, epoch),
        (0x40, epoch),
        // The revision with features.
        (0x4c, 1),
        (0x54, FIRST_INODE),
        (0x5c, COMPATIBLE),
        (0x60, INCOMPATIBLE),
        (0x64, READ_ONLY),
        (0xe0, JOURNAL),
        (0x100, MOUNT),
        (0x108, epoch),
        // Hashes of names take bytes as signed, on every architecture.
        (0x160, 1),
    ] {
        put(b, at, u32::to_le_bytes(number));
    }
    for (at, number) in [
        // Never checked because of the number of mounts.
        (0x36, u16::MAX),
        (0x38, 0xef53),
        // Clean; go on after errors.
        (0x3a, 1),
        (0x3c, 1),
        (0x58, 256),
        (0x5a, group as u16),
        (0xce, geometry.reserve as u16),
        (0x15c, 32),
        (0x15e, 32),
    ] {
        put(b, at, number.to_le_bytes());
    }
    put(b, 0x68, id.uuid);
    put(b, 0xec, id.hash_seed);
    // Half MD4; a copy of the journal's inode below; CRC-32C.
    (b[0xfc], b[0xfd], b[0x175]) = (1, 1, 1);
    let Described { map: Map::Extents(map) | Map::Plain(map), size, .. } = summary.journal;
    put(b, 0x10c, *map);
    put(b, 0x148, ((size >> 32) as u32).to_le_bytes());
    put(b, 0x14c, (*size as u32).to_le_bytes());
    let high = (id.epoch >> 32) as u8;
    // The high bytes of the three times above.
    (b[0x274], b[0x276], b[0x277]) = (high, high, high);
    let sum = crc32c(!0, &b[..1020]);
    put(b, 1020, sum.to_le_bytes());
    bytes
}
