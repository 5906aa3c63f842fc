//! The files of an image: its layers' entries one by one, and what they come to one above the other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use oci_spec::image::Descriptor;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{Error, Image};
use crate::arch::Arch;
use crate::kernel::header;
use crate::oci::archive::{Archive, Member};
use crate::oci::layer::normal;
use crate::oci::source::{Framing, Layer, Source, Sum, blob_error};
use crate::oci::{self};
use crate::step::{Cancel, hex};

/// As much of a file as tells what it is: an ELF header, the magic of a bzImage at 0x202.
const HEAD: usize = 0x400;
/// A file of a layer that takes away the one it is named after (image specification, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// One that takes away all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file.
    HardLink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// Something that has no business in a layer.
    Other,
}

impl Kind {
    /// The letter `ls` has for it; a hard link is an `h`, as GNU tar lists it.
    pub fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Directory => 'd',
            Self::Symlink => 'l',
            Self::HardLink => 'h',
            Self::CharacterDevice => 'c',
            Self::BlockDevice => 'b',
            Self::Fifo => 'p',
            Self::Other => '?',
        }
    }
}

/// Bytes that are mostly text: a path, a link's target, an attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Display for Bytes {
    /// As text; what is no text, or would move the terminal's cursor, as `\x..`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An entry of a layer, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// Its path below the root, without a leading or trailing `/`; the root itself is `.`.
    pub path: Bytes,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u64,
    /// The group's number.
    pub gid: u64,
    /// Its time, in seconds since 1970.
    pub mtime: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where a link points to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Bytes>,
    /// Major and minor number of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Extended attributes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Bytes>,
}

/// Whom each entry of a layer is shown to, with its bytes.
pub type Visit<'v> = dyn FnMut(&File, &mut dyn Read) -> Result<(), Error> + 'v;

/// Reads a layer from end to end; returns what blob and tar came to.
pub fn visit(
    source: &dyn Source,
    descriptor: &Descriptor,
    cancel: &Cancel,
    visit: &mut Visit<'_>,
) -> Result<(Sum, Sum), Error> {
    let unreadable = |error: std::io::Error| {
        Error::from(blob_error(source, descriptor, format!("cannot be read as a layer: {error}")))
    };
    let mut layer = Layer::open(source, descriptor)?;
    let mut archive = Archive::new(&mut layer);
    while let Some(member) = archive.next_member().map_err(unreadable)? {
        if cancel.is_cancelled() {
            return Err(oci::Error::Cancelled.into());
        }
        visit(&file(member), &mut archive)?;
    }
    layer.finish(cancel).map_err(|error| match error {
        oci::Error::Io(error) => unreadable(error),
        other => other.into(),
    })
}

fn file(member: Member) -> File {
    let kind = match member.kind {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::CharacterDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Fifo => Kind::Fifo,
        _ => Kind::Other,
    };
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    File {
        path: Bytes(normal(&member.path)),
        kind,
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        size: member.size,
        link: member.link.map(Bytes),
        device: is_device.then_some(member.device),
        xattrs: member.xattrs.into_iter().map(|(name, value)| (name, Bytes(value))).collect(),
    }
}

/// What the first bytes of a file say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binary {
    /// The machine of a 64-bit ELF: one of ours, or another.
    pub machine: Option<Option<Arch>>,
    /// Whether it is an arm64 Image.
    pub arm64_image: bool,
    /// In words.
    pub what: &'static str,
}

/// A file of an image, with what is known of its bytes.
#[derive(Debug, Clone)]
pub struct Node {
    /// The entry.
    pub file: File,
    /// The sha256 of a regular file's bytes, 64 digits.
    pub sha256: String,
    /// What a regular file is.
    pub binary: Binary,
    /// The layer it is from, counted from 0.
    pub layer: usize,
}

/// The files of an image by their paths, as its layers come to one above the other.
pub type Tree = BTreeMap<Bytes, Node>;

/// Who is told what each layer, by its number, came to: its blob and its tar.
pub type Summed<'s> = dyn FnMut(usize, Result<(Sum, Sum), Error>) -> Result<(), Error> + 's;

/// Reads all layers of an image; `summed` is told what each came to.
pub fn tree(
    source: &dyn Source,
    image: &Image,
    cancel: &Cancel,
    summed: &mut Summed<'_>,
) -> Result<Tree, Error> {
    let mut tree = Tree::new();
    for (number, descriptor) in image.manifest.layers().iter().enumerate() {
        if Framing::of(descriptor.media_type()).is_none() {
            continue;
        }
        let sums = visit(source, descriptor, cancel, &mut |file, bytes| {
            let unreadable =
                |error| blob_error(source, descriptor, format!("cannot be read as a layer: {error}"));
            let (sha256, binary) = look(bytes).map_err(unreadable)?;
            apply(&mut tree, Node { file: file.clone(), sha256, binary, layer: number });
            Ok(())
        });
        summed(number, sums)?;
    }
    Ok(tree)
}

/// Shows the bytes of the files at `paths`, each from the layer that counts.
pub fn show(
    (source, image): (&dyn Source, &Image),
    tree: &Tree,
    paths: &BTreeSet<Bytes>,
    cancel: &Cancel,
    show: &mut dyn FnMut(&Bytes, &mut dyn Read) -> std::io::Result<()>,
) -> Result<(), Error> {
    for (number, layer) in image.manifest.layers().iter().enumerate() {
        let counts =
            |path: &Bytes| paths.contains(path) && tree.get(path).is_some_and(|node| node.layer == number);
        if !paths.iter().any(counts) {
            continue;
        }
        visit(source, layer, cancel, &mut |file, bytes| {
            if file.kind == Kind::File && counts(&file.path) { Ok(show(&file.path, bytes)?) } else { Ok(()) }
        })?;
    }
    Ok(())
}

/// Digest and kind of what a reader yields.
fn look(bytes: &mut dyn Read) -> std::io::Result<(String, Binary)> {
    let mut head = Vec::new();
    bytes.take(HEAD as u64).read_to_end(&mut head)?;
    let mut hasher = Sha256::new();
    hasher.update(&head);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match bytes.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let binary = Binary {
        machine: header::elf_arch(&head),
        arm64_image: header::is_arm64_image(&head),
        what: header::describe(&head),
    };
    Ok((hex(&hasher.finalize()), binary))
}

/// Puts an entry above what is there.
fn apply(tree: &mut Tree, node: Node) {
    let path = node.file.path.0.clone();
    let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, name) = path.split_at(cut);
    if name == OPAQUE {
        tree.retain(|other, old| old.layer == node.layer || other.0 == b"." || !other.0.starts_with(parent));
    } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
        let gone = [parent, gone].concat();
        tree.retain(|other, old| old.layer == node.layer || !is_at_or_below(&other.0, &gone));
    } else {
        if node.file.kind != Kind::Directory {
            // A file in a directory's place hides what was in the directory.
            let old = tree.get(&node.file.path).map(|old| old.file.kind);
            if old == Some(Kind::Directory) {
                tree.retain(|other, _| !is_at_or_below(&other.0, &path));
            }
        }
        tree.insert(Bytes(path), node);
    }
}

fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(path: &str, kind: Kind, layer: usize) -> Node {
        let file = File {
            path: Bytes(path.into()),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            link: None,
            device: None,
            xattrs: BTreeMap::new(),
        };
        let binary = Binary { machine: None, arm64_image: false, what: "" };
        Node { file, sha256: String::new(), binary, layer }
    }

    fn paths(nodes: &[(&str, Kind, usize)]) -> Vec<String> {
        let mut tree = Tree::new();
        nodes.iter().for_each(|(path, kind, layer)| apply(&mut tree, node(path, *kind, *layer)));
        tree.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn upper_layers_hide_and_take_away_what_lower_ones_have() {
        use Kind::{Directory, File};
        let lower = [("a", Directory, 0), ("a/b", File, 0), ("a/c", File, 0), ("ab", File, 0)];
        let with = |upper: &[(&str, Kind, usize)]| paths(&[&lower[..], upper].concat());
        assert_eq!(with(&[("a/.wh.b", File, 1)]), ["a", "a/c", "ab"]);
        assert_eq!(with(&[(".wh.a", File, 1)]), ["ab"]);
        assert_eq!(with(&[("a/.wh..wh..opq", File, 1), ("a/d", File, 1)]), ["a", "a/d", "ab"]);
        // A whiteout is for the layers below its own, wherever it stands in it.
        assert_eq!(with(&[("a/d", File, 1), ("a/.wh..wh..opq", File, 1)]), ["a", "a/d", "ab"]);
        assert_eq!(with(&[("a", File, 1)]), ["a", "ab"]);
        assert_eq!(with(&[("a", Directory, 1)]), ["a", "a/b", "a/c", "ab"]);
    }

    #[test]
    fn paths_are_shown_as_text() {
        assert_eq!(Bytes(b"caf\xe9\n\x1b[2J\xc3\xa9".to_vec()).to_string(), "caf\\xe9\\n\\u{1b}[2J\u{e9}");
    }
}
