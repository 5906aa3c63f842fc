//! Extended attributes as ext4 and EROFS number them.

use std::collections::BTreeMap;

/// What names begin with, and the number that stands for it; whole names first.
const PREFIXES: [(&str, u8); 5] =
    [(ACCESS, 2), ("system.posix_acl_default", 3), ("user.", 1), ("trusted.", 4), ("security.", 6)];
const ACCESS: &str = "system.posix_acl_access";

/// An attribute, the beginning of its name replaced by a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Attribute {
    /// The number.
    pub(super) index: u8,
    /// How long the rest of the name is: both file systems want entries sorted by number, length, name.
    length: usize,
    /// The rest of the name.
    pub(super) name: Vec<u8>,
    /// Its value.
    pub(super) value: Vec<u8>,
}

impl Attribute {
    /// Whether it is an access control list.
    pub(super) fn is_acl(&self) -> bool {
        matches!(self.index, 2 | 3)
    }
}

/// The attributes of a file, sorted; the name of one that the file systems have no place for.
pub(super) fn attributes(xattrs: &BTreeMap<String, Vec<u8>>) -> Result<Vec<Attribute>, &str> {
    let one = |(name, value): (&'_ String, &Vec<u8>)| {
        PREFIXES.into_iter().find_map(|(prefix, index)| {
            let rest = name.strip_prefix(prefix)?;
            // `user.` alone is no name, nor is anything behind a whole one.
            if rest.is_empty() != matches!(index, 2 | 3) || rest.len() > 255 || value.len() > 0xffff {
                return None;
            }
            let name = rest.as_bytes().to_vec();
            Some(Attribute { index, length: name.len(), name, value: value.clone() })
        })
    };
    let found: Result<Vec<_>, _> = xattrs.iter().map(|entry| one(entry).ok_or(entry.0.as_str())).collect();
    let mut found = found?;
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_and_sorted_by_length_before_spelling() {
        let xattrs = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), vec![1])).collect();
        let known: BTreeMap<_, _> =
            xattrs(&["security.capability", "user.b", "user.aa", ACCESS, "trusted.x"]);
        let found = attributes(&known).unwrap();
        let found: Vec<_> = found.iter().map(|a| (a.index, a.name.as_slice(), a.is_acl())).collect();
        let expected: [(u8, &[u8], bool); 5] = [
            (1, b"b", false),
            (1, b"aa", false),
            (2, b"", true),
            (4, b"x", false),
            (6, b"capability", false),
        ];
        assert_eq!(found, expected);
        for name in ["com.apple.quarantine", "user.", "system.posix_acl_access2"] {
            assert_eq!(attributes(&xattrs(&[name])), Err(name));
        }
    }
}
