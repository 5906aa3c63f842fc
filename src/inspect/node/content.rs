//! A volume's files as a process in it would see them, and what was learnt of their bytes when they went by.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use md5::{Digest, Md5};
use tempfile::TempDir;

use super::Volume;
use super::elf::Elf;
use crate::arch::Arch;
use crate::inspect::Error;
use crate::inspect::files::Bytes;
use crate::oci::layer::normal;
use crate::oci::root::{Kind, Root};
use crate::step::Cancel;

/// As much as Linux reads of a script's first line.
const FIRST_LINE: u64 = 256;
/// No configuration is larger, nor dpkg's database of any system.
const TEXT: u64 = 64 << 20;
/// Nor is any program; of a larger one the beginning says what it is.
const PROGRAM: u64 = 1 << 30;
/// Where a login and systemd's services look for programs.
pub(super) const PATH: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// Layer and member that have a file's bytes.
type Origin = (usize, usize);

/// A volume's files.
pub(super) struct Content {
    /// All but their bytes.
    pub(super) root: Root,
    pub(super) arch: Arch,
    facts: HashMap<Origin, Facts>,
    /// Holds the copies of programs that are to be run.
    copies: TempDir,
}

/// What is known of a file's bytes.
#[derive(Default)]
struct Facts {
    md5: String,
    elf: Option<Elf>,
    /// The first line's words, of a script.
    script: Option<Vec<String>>,
    text: Option<Vec<u8>>,
    copy: Option<PathBuf>,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) inode: usize,
    /// The way there without links.
    pub(super) path: Bytes,
}

impl Content {
    /// Reads the layers.
    pub(super) fn read(volume: &Volume<'_>, cancel: &Cancel) -> Result<Self, Error> {
        let copies = TempDir::with_prefix("imgbuild-node-")?;
        let mut facts = HashMap::new();
        let root =
            Root::read_and_show(volume.source, volume.layers, cancel, &mut |origin, member, bytes| {
                if member.kind.is_file() {
                    let path = normal(&member.path);
                    let copy = is_run(volume, &path)
                        .then(|| copies.path().join(format!("{}-{}", origin.0, origin.1)));
                    facts.insert(origin, Facts::read(&path, member.size, copy, bytes)?);
                }
                Ok(())
            })?;
        Ok(Self { root, arch: volume.arch, facts, copies })
    }

    /// A directory for what is to be run.
    pub(super) fn copies(&self) -> &Path {
        self.copies.path()
    }

    /// What a path leads to, links and all.
    pub(super) fn find(&self, path: impl AsRef<[u8]>) -> Option<Found> {
        self.walk(path.as_ref(), true)
    }

    /// What a path names: a link at its end is itself.
    pub(super) fn entry(&self, path: impl AsRef<[u8]>) -> Option<Found> {
        self.walk(path.as_ref(), false)
    }

    fn walk(&self, path: &[u8], follow: bool) -> Option<Found> {
        let found = self.root.find(path, follow)?;
        Some(Found { inode: found.inode, path: Bytes(found.path.join(&b'/')) })
    }

    /// What a path leads to, if that is a regular file.
    pub(super) fn file(&self, path: impl AsRef<[u8]>) -> Option<Found> {
        self.find(path).filter(|found| self.is_file(found.inode))
    }

    pub(super) fn is_file(&self, inode: usize) -> bool {
        matches!(self.root.inodes[inode].kind, Kind::File { .. })
    }

    /// Whether it is a regular file that may be executed.
    pub(super) fn is_executable(&self, inode: usize) -> bool {
        self.is_file(inode) && self.root.inodes[inode].mode & 0o111 != 0
    }

    pub(super) fn size(&self, inode: usize) -> u64 {
        match self.root.inodes[inode].kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }

    /// The program of this name along the search path.
    pub(super) fn program(&self, name: &str) -> Option<Found> {
        let on = |dir: &str| self.file(format!("{dir}/{name}"));
        PATH.into_iter().find_map(|dir| on(dir).filter(|found| self.is_executable(found.inode)))
    }

    /// The names in a directory, with what they name; none where there is no directory.
    pub(super) fn names(&self, dir: impl AsRef<[u8]>) -> Vec<(String, usize)> {
        let Some(dir) = self.find(dir) else { return Vec::new() };
        let text = |name: &Vec<u8>| Bytes(name.clone()).to_string();
        self.root.names(dir.inode).map(|(name, entry)| (text(name), entry.inode)).collect()
    }

    /// Every name below a directory with its whole path, if it is there.
    pub(super) fn below(&self, dir: &str) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (name, inode) in self.names(dir) {
            let path = format!("{dir}/{name}");
            if matches!(self.root.inodes[inode].kind, Kind::Directory(_)) {
                found.extend(self.below(&path));
            }
            found.push((path, inode));
        }
        found
    }

    fn facts(&self, inode: usize) -> Option<&Facts> {
        let Kind::File { origin, .. } = self.root.inodes[inode].kind else { return None };
        self.facts.get(&origin)
    }

    /// The layer a file is from; none for what is no regular file.
    pub(super) fn layer(&self, inode: usize) -> Option<usize> {
        let Kind::File { origin, .. } = self.root.inodes[inode].kind else { return None };
        Some(origin.0)
    }

    /// A regular file's MD5, 32 digits.
    pub(super) fn md5(&self, inode: usize) -> Option<&str> {
        self.facts(inode).map(|facts| facts.md5.as_str())
    }

    /// The file as an ELF.
    pub(super) fn elf(&self, inode: usize) -> Option<&Elf> {
        self.facts(inode)?.elf.as_ref()
    }

    /// The interpreter of a script, and its argument.
    pub(super) fn script(&self, inode: usize) -> Option<&[String]> {
        self.facts(inode)?.script.as_deref()
    }

    /// Where a program that is to be run was copied to.
    pub(super) fn copy(&self, inode: usize) -> Option<&Path> {
        self.facts(inode)?.copy.as_deref()
    }

    /// The text of a configuration file, where it was kept.
    pub(super) fn text(&self, path: impl AsRef<[u8]>) -> Option<String> {
        let text = self.facts(self.file(path)?.inode)?.text.as_ref()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

impl Facts {
    fn read(path: &[u8], size: u64, copy: Option<PathBuf>, bytes: &mut dyn Read) -> std::io::Result<Self> {
        let mut kept = Vec::new();
        bytes.take(FIRST_LINE).read_to_end(&mut kept)?;
        let mut hasher = Md5::new();
        hasher.update(&kept);
        let is_elf = kept.starts_with(b"\x7fELF");
        let is_text = is_text(path) && size <= TEXT;
        let script = kept.strip_prefix(b"#!").map(|rest| {
            let line = String::from_utf8_lossy(rest.split(|byte| *byte == b'\n').next().unwrap_or_default());
            line.split_whitespace().map(str::to_owned).collect()
        });
        let is_kept = is_text || size <= PROGRAM && (is_elf || copy.is_some());
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = bytes.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            if is_kept {
                kept.extend_from_slice(&buffer[..n]);
            }
        }
        if let Some(copy) = &copy {
            write_program(copy, &kept)?;
        }
        let elf = is_elf.then(|| Elf::read(&kept));
        let md5 = crate::step::hex(&hasher.finalize());
        Ok(Self { md5, elf, script, text: is_text.then_some(kept), copy })
    }
}

/// Writes a file that can be executed.
pub(super) fn write_program(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, bytes)?;
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Whether a file's text is looked at: dpkg's database, and configuration wherever a layer may lead to it.
fn is_text(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"usr/").unwrap_or(path);
    [&b"etc/"[..], b"var/lib/dpkg/", b"lib/systemd/system/", b"var/lib/kubelet/"]
        .iter()
        .any(|top| path.starts_with(top))
}

/// Whether it may be a program that is run for its version.
fn is_run(volume: &Volume<'_>, path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    super::run::PROGRAMS
        .iter()
        .any(|(program, label)| program.as_bytes() == name && volume.label(label).is_some())
}
