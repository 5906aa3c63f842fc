//! Blocks handed out one after the other, so that what is used of a group is its beginning.

use super::geometry::{GROUP, Geometry};
use super::inode::Run;

/// Hands out blocks from the first on, leaving out the tables.
pub(super) struct Allocator {
    geometry: Geometry,
    group: u64,
    /// The first block of the group that is free, counted from the group's first.
    next: u64,
}

impl Allocator {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self { geometry, group: 0, next: geometry.overhead(0) }
    }

    /// So many blocks in as few runs as can be.
    pub(super) fn take(&mut self, mut count: u64) -> Vec<Run> {
        let mut runs = Vec::new();
        while count > 0 {
            let free = self.geometry.size(self.group) - self.next;
            if free == 0 {
                self.group += 1;
                self.next = self.geometry.overhead(self.group);
                continue;
            }
            let part = free.min(count);
            runs.push((self.group * GROUP + self.next, part));
            self.next += part;
            count -= part;
        }
        runs
    }

    pub(super) fn one(&mut self) -> u64 {
        self.take(1)[0].0
    }

    /// How many blocks of a group are used: its first ones.
    pub(super) fn used(&self, group: u64) -> u64 {
        match group.cmp(&self.group) {
            std::cmp::Ordering::Less => self.geometry.size(group),
            std::cmp::Ordering::Equal => self.next,
            std::cmp::Ordering::Greater => self.geometry.overhead(group),
        }
    }
}
