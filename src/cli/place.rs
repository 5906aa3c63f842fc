//! Images as commands name them: a layout on this disk, one image of it, or a reference at a registry.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::push::{Transport, tagged};
use super::{Context, Failure};
use crate::arch::Arch;
use crate::oci::layout::Layout;
use crate::plan::boot::Part;
use crate::plan::handoff::Named;
use crate::registry::pull;
use crate::registry::reference::Reference;
use crate::store::Work;

/// A layout to look at: the user's own, or one that an image was pulled into for as long as this lives.
pub(super) struct Place {
    /// As the user named it.
    name: String,
    /// The layout.
    pub(super) layout: Layout,
    /// The image meant, where one is.
    pub(super) image: Option<String>,
    _work: Option<Work>,
}

impl Place {
    /// A layout of the user's own.
    pub(super) fn open(dir: &Path, image: Option<String>) -> Result<Self, Failure> {
        Ok(Self { name: dir.display().to_string(), layout: Layout::open(dir)?, image, _work: None })
    }

    /// Opens what an argument names, if that is on this disk: none for a reference.
    pub(super) fn local(argument: &str) -> Result<Option<Self>, Failure> {
        match named(argument)? {
            Named::Layout(dir, image) => Self::open(&dir, image).map(Some),
            Named::Reference(_) => Ok(None),
        }
    }

    /// The image meant, to boot with.
    pub(super) fn part(&self) -> Part<'_> {
        Part { place: &self.name, layout: &self.layout, image: self.image.as_deref() }
    }
}

impl Context {
    /// Opens what an argument names: `DIR`, `DIR:IMAGE`, or a reference, whose image is pulled.
    pub(super) fn place(&self, argument: &str, transport: &Transport) -> Result<Place, Failure> {
        self.place_for(argument, transport, None)
    }

    /// The same; of a reference's image, no more is pulled than one architecture needs.
    pub(super) fn place_for(
        &self,
        argument: &str,
        transport: &Transport,
        arch: Option<Arch>,
    ) -> Result<Place, Failure> {
        let reference = match named(argument)? {
            Named::Layout(dir, image) => return Place::open(&dir, image),
            Named::Reference(reference) => reference,
        };
        let client = transport.client(&reference, self)?;
        let work = self.store()?.work()?;
        let layout = Layout::create(&work.path().join("pulled"))?;
        let pulled = pull(&reference, arch, &client, &layout)?;
        Ok(Place { name: argument.to_owned(), layout, image: Some(pulled.name), _work: Some(work) })
    }
}

/// The image that an argument names, without looking at it: `DIR`, `DIR:IMAGE`, or a reference.
pub(super) fn named(argument: &str) -> Result<Named, Failure> {
    let (dir, image) = split(argument);
    if dir.is_dir() || !is_reference(argument) {
        return Ok(Named::Layout(dir, image));
    }
    Ok(Named::Reference(tagged(argument)?))
}

/// Whether this can only be a reference: it has a registry's host, and does not begin as paths do.
fn is_reference(argument: &str) -> bool {
    !argument.starts_with(['.', '/', '~']) && Reference::from_str(argument).is_ok()
}

/// Splits `DIR:IMAGE`. Both may have colons: the shortest beginning that is a directory is the directory.
fn split(argument: &str) -> (PathBuf, Option<String>) {
    let whole = (PathBuf::from(argument), None);
    if whole.0.is_dir() {
        return whole;
    }
    let splits = argument.match_indices(':').map(|(at, _)| (&argument[..at], &argument[at + 1..]));
    let mut splits = splits.filter(|(dir, image)| !dir.is_empty() && !image.is_empty());
    let first = splits.clone().next();
    let split = splits.find(|(dir, _)| Path::new(dir).is_dir()).or(first);
    split.map_or(whole, |(dir, image)| (dir.into(), Some(image.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_an_image_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let both = |dir: &str, image: &str| (PathBuf::from(dir), Some(image.to_owned()));
        assert_eq!(split(dir), (PathBuf::from(dir), None));
        assert_eq!(split(&format!("{dir}:kernel:5.10")), both(dir, "kernel:5.10"));
        fs_err::create_dir(format!("{dir}:x")).unwrap();
        assert_eq!(split(&format!("{dir}:x")), (PathBuf::from(format!("{dir}:x")), None));
        fs_err::remove_dir(format!("{dir}:x")).unwrap();
        assert_eq!(split("not/there:kernel:5.10"), both("not/there", "kernel:5.10"));
        assert_eq!(split("not/there"), (PathBuf::from("not/there"), None));
    }

    #[test]
    fn a_path_is_no_reference() {
        for reference in ["registry.example/kernels/kernel-bin:5.10.1", "127.0.0.1:5000/kernel-bin:5.10.1"] {
            assert!(is_reference(reference), "{reference}");
        }
        for path in ["out", "./out", "../out:kernel-bin:1", "/srv/out", "not/there", "out/kernel-bin:1"] {
            assert!(!is_reference(path), "{path}");
        }
    }
}
