//! Packs a directory as a layer, for `scripts/bench pack`: pack DIRECTORY LAYER [COMPRESSION] [THREADS].
//!
//! Owners, modes and times are the directory's, as `tar` takes them: imgbuild itself never does that.

#![expect(clippy::print_stdout, reason = "it is a program of its own")]

use std::collections::HashMap;
use std::error::Error;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use imgbuild::oci::layer::{self, Content, Entry, Packing};
use imgbuild::step::{Cancel, Level, Progress, Reporter, Unit, Watch};

struct Silent;

impl Reporter for Silent {
    fn begin(&self, _: &str, _: &str, _: Option<u64>, _: Unit) -> Box<dyn Progress> {
        Box::new(Self)
    }
    fn note(&self, _: Level, _: &str) {}
}

impl Progress for Silent {
    fn set(&self, _: u64) {}
    fn finish(&self, _: &str) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(root), Some(target)) = (args.first(), args.get(1)) else {
        return Err("usage: pack DIRECTORY LAYER [COMPRESSION] [THREADS]".into());
    };
    let compression =
        args.get(2).map_or(Ok(imgbuild::oci::compression::Compression::Gzip), |text| text.parse())?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.get(3).map_or(Ok(processors), |text| text.parse())?;
    let mut entries = Vec::new();
    walk(Path::new(root), b"", &mut entries)?;
    link(&mut entries);
    let entries = entries.into_iter().map(|(_, entry)| entry).collect();
    let watch = Watch { reporter: Arc::new(Silent), cancel: Cancel::default() };
    let packed = layer::write(entries, 0, Path::new(target), Packing { compression, threads }, &watch)?;
    println!("sha256:{} {}", packed.digest, packed.size);
    Ok(())
}

/// Which file of the disk an entry is, where it has other names too.
type Inode = Option<(u64, u64)>;

fn walk(dir: &Path, path: &[u8], entries: &mut Vec<(Inode, Entry)>) -> Result<(), Box<dyn Error>> {
    for found in fs_err::read_dir(dir)? {
        let found = found?;
        let (source, meta) = (found.path(), found.metadata()?);
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let path = [path, slash, found.file_name().as_bytes()].concat();
        let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let kind = meta.file_type();
        let content = if kind.is_dir() {
            walk(&source, &path, entries)?;
            Content::Directory
        } else if kind.is_symlink() {
            Content::Symlink(fs_err::read_link(&source)?.as_os_str().as_bytes().to_vec())
        } else if kind.is_char_device() {
            Content::CharacterDevice(device().0, device().1)
        } else if kind.is_block_device() {
            Content::BlockDevice(device().0, device().1)
        } else if kind.is_fifo() {
            Content::Fifo
        } else {
            Content::File(source)
        };
        let mut entry = Entry::new(path, meta.mode() & 0o7777, content);
        entry = entry.owned_by(meta.uid().into(), meta.gid().into());
        entry.mtime = u64::try_from(meta.mtime()).ok();
        let shared = kind.is_file() && meta.nlink() > 1;
        entries.push((shared.then(|| (meta.dev(), meta.ino())), entry));
    }
    Ok(())
}

/// Makes hard links of the names after the first of each file.
fn link(entries: &mut [(Inode, Entry)]) {
    entries.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
    let mut first: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    for (inode, entry) in entries {
        let Some(inode) = inode else { continue };
        match first.get(inode) {
            Some(path) => entry.content = Content::HardLink(path.clone()),
            None => drop(first.insert(*inode, entry.path.clone())),
        }
    }
}
