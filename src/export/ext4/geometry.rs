//! How an ext4 of a given size is divided: groups, the tables in each, and what is left for content.

use super::super::BLOCK;

/// Blocks per group: as many as one block of bits counts.
pub(super) const GROUP: u64 = 8 * BLOCK;
/// Bytes of an inode and of a group's descriptor.
pub(super) const INODE: u64 = 256;
pub(super) const DESCRIPTOR: u64 = 32;
/// Inodes before the first of one's own.
pub(super) const FIRST_INODE: u32 = 11;
/// One inode for so many bytes, as mke2fs has it.
const BYTES_PER_INODE: u64 = 16 << 10;
/// The largest disk: beyond, the descriptors of its groups would leave none in reserve.
pub(super) const LARGEST: u64 = 8 << 40;
/// A last group with less than so many blocks for content is left out.
const LEAST: u64 = 50;

/// The division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// All blocks.
    pub(super) blocks: u64,
    /// How many groups.
    pub(super) groups: u64,
    /// Blocks of group descriptors, beside each superblock.
    pub(super) descriptors: u64,
    /// Blocks kept behind those, for the descriptors of a grown file system.
    pub(super) reserve: u64,
    /// Inodes per group.
    pub(super) inodes: u64,
}

impl Geometry {
    /// Divides `blocks` blocks, with at least `inodes` inodes; none where that cannot be.
    pub(super) fn new(blocks: u64, inodes: u64) -> Option<Self> {
        let groups = blocks.div_ceil(GROUP);
        if groups == 0 {
            return None;
        }
        let inodes_wanted = inodes.max(blocks * BLOCK / BYTES_PER_INODE);
        let per_group = inodes_wanted.div_ceil(groups).next_multiple_of(BLOCK / INODE);
        if per_group > GROUP {
            return None;
        }
        let descriptors = (groups * DESCRIPTOR).div_ceil(BLOCK);
        // Room to grow a thousandfold; one block of addresses is the most that the resize inode can list.
        let reserve = (groups * 1024 * DESCRIPTOR).div_ceil(BLOCK).min(BLOCK / 4).saturating_sub(descriptors);
        let geometry = Self { blocks, groups, descriptors, reserve, inodes: per_group };
        let last = blocks - (groups - 1) * GROUP;
        if last < geometry.overhead(groups - 1) + LEAST {
            return if groups == 1 { None } else { Self::new((groups - 1) * GROUP, inodes) };
        }
        Some(geometry)
    }

    /// The smallest division that has `content` blocks for content, the journal among them.
    pub(super) fn holding(content: u64, inodes: u64) -> Self {
        let mut blocks = content + journal(content);
        loop {
            match Self::new(blocks, inodes) {
                Some(geometry) if geometry.holds(content) => return geometry,
                Some(geometry) => {
                    blocks += (content + journal(blocks)).saturating_sub(geometry.room()).max(1);
                }
                None => blocks += LEAST,
            }
        }
    }

    /// Whether `content` blocks and the journal find room.
    pub(super) fn holds(&self, content: u64) -> bool {
        content + journal(self.blocks) <= self.room()
    }

    /// Blocks that no table takes.
    pub(super) fn room(&self) -> u64 {
        self.blocks - (0..self.groups).map(|group| self.overhead(group)).sum::<u64>()
    }

    /// Blocks that a group's tables take, from its first on.
    pub(super) fn overhead(&self, group: u64) -> u64 {
        let copies = if has_superblock(group) { 1 + self.descriptors + self.reserve } else { 0 };
        copies + 2 + self.table()
    }

    /// Where the bitmaps and the table of inodes of a group are: blocks, inodes, table.
    pub(super) fn tables(&self, group: u64) -> [u64; 3] {
        let first = group * GROUP + self.overhead(group) - 2 - self.table();
        [first, first + 1, first + 2]
    }

    /// How many blocks a group has.
    pub(super) fn size(&self, group: u64) -> u64 {
        (self.blocks - group * GROUP).min(GROUP)
    }

    /// Blocks of a group's table of inodes.
    pub(super) fn table(&self) -> u64 {
        self.inodes * INODE / BLOCK
    }
}

/// Blocks of the journal, as many as mke2fs gives a file system of this size.
pub(super) fn journal(blocks: u64) -> u64 {
    match blocks {
        0..32_768 => 1024,
        32_768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16_384,
        _ => 32_768,
    }
}

/// Whether a group has a copy of the superblock: 0, 1, and powers of 3, 5 and 7.
pub(super) fn has_superblock(group: u64) -> bool {
    let is_power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_that_holds_is_the_smallest() {
        for content in [1, 100, 5000, 31_000, 40_000, 1_000_000] {
            let geometry = Geometry::holding(content, 1000);
            assert!(geometry.holds(content), "{content}");
            let smaller = Geometry::new(geometry.blocks - LEAST - 1, 1000);
            assert!(smaller.is_none_or(|smaller| !smaller.holds(content)), "{content}: {geometry:?}");
        }
    }

    #[test]
    fn many_small_files_get_their_inodes() {
        let geometry = Geometry::holding(10_000, 200_000);
        assert!(geometry.groups * geometry.inodes >= 200_000, "{geometry:?}");
    }

    #[test]
    fn a_stub_of_a_group_is_left_out() {
        let geometry = Geometry::new(2 * GROUP + 100, 10).unwrap();
        assert_eq!((geometry.groups, geometry.blocks), (2, 2 * GROUP));
        assert_eq!(Geometry::new(LEAST, 10), None);
        let copies: Vec<_> = (0..50).filter(|group| has_superblock(*group)).collect();
        assert_eq!(copies, [0, 1, 3, 5, 7, 9, 25, 27, 49]);
    }
}
