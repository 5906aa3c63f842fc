//! An image's layers as files in a directory, for looking at and for building disks from.

use std::io::Read;
use std::path::Path;

use fs_err as fs;
use tar::EntryType;

use super::Error;
use super::layout::{Found, Layout};
use super::source::Layer;
use crate::step::Cancel;

/// Unpacks the layers of `image` into `dir`. Owners are the caller's; other kinds than files, directories and links
/// are refused, as are entries that would land outside.
pub fn unpack(layout: &Layout, image: &Found, dir: &Path, cancel: &Cancel) -> Result<(), Error> {
    fs::create_dir_all(dir)?;
    for layer in image.manifest.layers() {
        layout.sound(layer.digest().as_ref())?;
        unpack_stream(Layer::open(layout, layer)?, dir, cancel)?;
    }
    Ok(())
}

/// Unpacks one tar stream into `dir`, with the same care.
pub fn unpack_stream(stream: impl Read, dir: &Path, cancel: &Cancel) -> Result<(), Error> {
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link => {}
            _ => return Err(Error::Entry(name, "it is no file, directory or link")),
        }
        if !entry.unpack_in(dir)? {
            return Err(Error::Entry(name, "it would land outside the directory"));
        }
    }
    Ok(())
}
