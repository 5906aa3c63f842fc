//! Packs a directory as a layer, for `scripts/bench pack`: pack DIRECTORY LAYER [COMPRESSION] [THREADS].
//!
//! Owners, modes and times are the directory's, as `tar` takes them: imgbuild itself never does that.

#![expect(clippy::print_stdout, reason = "it is a program of its own")]

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::error::Error;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use imgbuild::oci::layer::{Content, Entry, LayerWriter, Packing};
use imgbuild::step::Watch;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(root), Some(target)) = (args.first(), args.get(1)) else {
        return Err("usage: pack DIRECTORY LAYER [COMPRESSION] [THREADS]".into());
    };
    let compression =
        args.get(2).map_or(Ok(imgbuild::oci::compression::Compression::Gzip), |text| text.parse())?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.get(3).map_or(Ok(processors), |text| text.parse())?;
    let watch = Watch::silent();
    let target = Path::new(target);
    let mut layer = LayerWriter::create(target, 0, Packing { compression, threads }, &watch)?;
    walk(Path::new(root), b"", &mut layer, &mut HashMap::new())?;
    let packed = layer.finish(Ok(()))?;
    println!("sha256:{} {}", packed.digest, packed.size);
    Ok(())
}

/// The first name of each file that has several.
type First = HashMap<(u64, u64), Vec<u8>>;

/// Packs what is below a directory, in the order of the bytes of whole paths: `a`, `a-b`, `a/b`.
fn walk(
    dir: &Path,
    path: &[u8],
    layer: &mut LayerWriter<'_>,
    first: &mut First,
) -> Result<(), Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        let path = [path, entry.file_name().as_bytes()].concat();
        // Relative to the open directory, as tar asks too.
        let meta = entry.metadata()?;
        if meta.is_dir() {
            found.push(([&path[..], b"/"].concat(), entry.path(), meta.clone()));
        }
        found.push((path, entry.path(), meta));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, source, meta) in found {
        if path.ends_with(b"/") {
            walk(&source, &path, layer, first)?;
        } else {
            layer.append(&entry(path, source, &meta, first)?)?;
        }
    }
    Ok(())
}

fn entry(
    path: Vec<u8>,
    source: PathBuf,
    meta: &Metadata,
    first: &mut First,
) -> Result<Entry, Box<dyn Error>> {
    let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let kind = meta.file_type();
    let content = if kind.is_dir() {
        Content::Directory
    } else if kind.is_symlink() {
        Content::Symlink(fs_err::read_link(&source)?.as_os_str().as_bytes().to_vec())
    } else if kind.is_char_device() {
        Content::CharacterDevice(device().0, device().1)
    } else if kind.is_block_device() {
        Content::BlockDevice(device().0, device().1)
    } else if kind.is_fifo() {
        Content::Fifo
    } else if meta.nlink() > 1 {
        match first.entry((meta.dev(), meta.ino())) {
            Occupied(name) => Content::HardLink(name.get().clone()),
            Vacant(none) => {
                none.insert(path.clone());
                Content::File(source)
            }
        }
    } else {
        Content::File(source)
    };
    let entry = Entry::new(path, meta.mode() & 0o7777, content);
    let mtime = u64::try_from(meta.mtime()).ok();
    Ok(Entry { mtime, ..entry.owned_by(meta.uid().into(), meta.gid().into()) })
}
