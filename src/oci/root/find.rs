//! Paths in a root file system, followed as a process inside would follow them.

use super::{Kind, LINKS, Root};

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is there.
    pub inode: usize,
    /// The way there without links, as the parts of a path.
    pub path: Vec<Vec<u8>>,
}

impl Root {
    /// What a path leads to; where `follow` is false, a link at its end is itself.
    pub fn find(&self, path: &[u8], follow: bool) -> Option<Found> {
        let split = |path: &[u8]| path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut way: Vec<(usize, Vec<u8>)> = Vec::new();
        let (mut parts, mut links) = (split(path), 0);
        while let Some(part) = parts.pop() {
            match &part[..] {
                b"" | b"." => continue,
                // Above the root is the root.
                b".." => {
                    way.pop();
                    continue;
                }
                _ => {}
            }
            let here = way.last().map_or(0, |(inode, _)| *inode);
            let Kind::Directory(names) = &self.inodes[here].kind else { return None };
            let inode = names.get(&part)?.inode;
            match &self.inodes[inode].kind {
                Kind::Symlink(target) if follow || parts.iter().any(|part| !part.is_empty()) => {
                    links += 1;
                    if links > LINKS {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    parts.extend(split(target));
                }
                _ => way.push((inode, part)),
            }
        }
        let inode = way.last().map_or(0, |(inode, _)| *inode);
        Some(Found { inode, path: way.into_iter().map(|(_, name)| name).collect() })
    }
}
