//! Everything read back: documents, digests, sizes, diff ids, platforms, and what the images' users rely on.

use std::collections::BTreeSet;
use std::fmt::Display;

use oci_spec::image::MediaType;
use serde::Serialize;

use super::files::{self, Kind, Tree};
use super::node::{self, Volume};
use super::roles::{self, judged::Parts};
use super::{Error, Finding, Image, Selection, images, listed, rules};
use crate::arch::Arch;
use crate::oci;
use crate::oci::layer::normal;
use crate::oci::source::{Framing, Source, check, read_through};
use crate::step::Cancel;

/// What was read, and what is wrong with it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The images that were read, sound or not.
    pub images: Vec<Read>,
    /// All that is wrong, in the order of the images.
    pub findings: Vec<Finding>,
    /// What could not be checked on this host, and why; what is odd.
    pub notes: Vec<Finding>,
    /// What its kernels' fitness is told from.
    #[serde(skip)]
    pub parts: Parts,
}

/// An image that was read.
#[derive(Debug, Serialize)]
pub struct Read {
    /// Its name.
    pub image: String,
    /// Its platform.
    pub platform: String,
    /// How many layers it has.
    pub layers: usize,
    /// How many entries they come to, one above the other.
    pub files: usize,
    /// The size of its layers' blobs in bytes.
    pub size: u64,
}

/// Reads the selected images whole; without a selection, every other blob of the source as well.
pub fn validate(source: &dyn Source, selection: &Selection, cancel: &Cancel) -> Result<Verdict, Error> {
    let mut verdict =
        Verdict { images: Vec::new(), findings: Vec::new(), notes: Vec::new(), parts: Parts::default() };
    let mut seen = BTreeSet::new();
    let mut places = BTreeSet::new();
    for image in images(source, selection)? {
        let image = match image {
            Ok(image) => image,
            Err(finding) => {
                verdict.findings.push(finding);
                continue;
            }
        };
        let mut faults = Faults { image: &image, found: Vec::new(), notes: Vec::new() };
        if !places.insert((image.name.clone(), image.platform())) {
            faults.add("there is another image of this name and platform");
        }
        let tree = faults.image(source, &mut verdict.parts, cancel)?;
        verdict.images.push(Read {
            image: image.name.clone(),
            platform: image.platform(),
            layers: image.manifest.layers().len(),
            files: tree.len(),
            size: image.manifest.layers().iter().map(oci_spec::image::Descriptor::size).sum(),
        });
        verdict.findings.append(&mut faults.found);
        verdict.notes.append(&mut faults.notes);
        let descriptors = image.manifest.layers().iter().chain([image.manifest.config(), &image.descriptor]);
        seen.extend(descriptors.chain(&image.index).map(|descriptor| descriptor.digest().to_string()));
    }
    if selection.image.is_none() && selection.arch.is_none() {
        for blob in source.blobs()? {
            if seen.contains(blob.digest().as_ref()) {
                continue;
            }
            if let Err(error) = interruptible(read_through(source, &blob, cancel))? {
                let what = error.to_string();
                // What was told about an image need not be told again about its blob.
                if !verdict.findings.iter().any(|finding| finding.what.contains(blob.digest().as_ref())) {
                    verdict.findings.push(Finding { image: None, platform: None, path: None, what });
                }
            }
        }
    }
    Ok(verdict)
}

/// An error is a finding, unless the user asked for the end.
fn interruptible<T>(result: Result<T, oci::Error>) -> Result<Result<T, oci::Error>, Error> {
    match result {
        Err(oci::Error::Cancelled) => Err(oci::Error::Cancelled.into()),
        other => Ok(other),
    }
}

/// The findings about one image.
pub(super) struct Faults<'i> {
    pub(super) image: &'i Image,
    found: Vec<Finding>,
    notes: Vec<Finding>,
}

impl Faults<'_> {
    /// Something is wrong with the image.
    pub(super) fn add(&mut self, what: impl Into<String>) {
        self.push(None, what.into());
    }

    /// Something is wrong with a file of it.
    pub(super) fn at(&mut self, path: &dyn Display, what: impl Into<String>) {
        self.push(Some(path.to_string()), what.into());
    }

    fn push(&mut self, path: Option<String>, what: String) {
        let (image, platform) = (Some(self.image.name.clone()), Some(self.image.platform()));
        self.found.push(Finding { image, platform, path, what });
    }

    fn image(&mut self, source: &dyn Source, parts: &mut Parts, cancel: &Cancel) -> Result<Tree, Error> {
        let image = self.image;
        self.documents();
        let diff_ids = image.config.rootfs().diff_ids();
        let layers = image.manifest.layers();
        if image.is_image() && diff_ids.len() != layers.len() {
            self.add(format!(
                "the configuration has {} diff ids, the manifest {} layers: containerd refuses that",
                diff_ids.len(),
                layers.len()
            ));
        }
        let mut whole = true;
        for layer in layers {
            if Framing::of(layer.media_type()).is_none() {
                whole = false;
                if image.is_image() {
                    let media_type = layer.media_type();
                    self.add(format!("layer {}: {media_type} is no media type of a layer", layer.digest()));
                }
                if let Err(error) = interruptible(read_through(source, layer, cancel))? {
                    self.add(error.to_string());
                }
            }
        }
        let tree = files::tree(source, image, cancel, &mut |number, sums| {
            let descriptor = &layers[number];
            let (blob, stream) = match sums {
                Ok(sums) => sums,
                Err(Error::Oci(oci::Error::Cancelled)) => return Err(oci::Error::Cancelled.into()),
                Err(error) => {
                    whole = false;
                    // Whether it is damaged, or was never a layer, its digest tells.
                    let damaged = interruptible(read_through(source, descriptor, cancel))?.err();
                    self.add(damaged.map_or_else(|| error.to_string(), |damaged| damaged.to_string()));
                    return Ok(());
                }
            };
            if let Err(error) = check(source, descriptor, &blob) {
                self.add(error.to_string());
            }
            if let Some(diff_id) = diff_ids.get(number)
                && *diff_id != stream.digest
            {
                let layer = descriptor.digest();
                self.add(format!("layer {layer}: its tar is {}, its diff id {diff_id}", stream.digest));
            }
            Ok(())
        })?;
        // What a damaged layer lacks says nothing about the image.
        if whole && image.is_image() {
            self.entries(&tree);
            rules::check(self, &tree);
            self.node(source, cancel)?;
            self.parts(source, &tree, parts, cancel)?;
        }
        Ok(tree)
    }

    /// What the fitness of kernels is told from.
    fn parts(
        &mut self,
        source: &dyn Source,
        tree: &Tree,
        parts: &mut Parts,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let image = self.image;
        let modules = roles::kernel::modules(image, tree.values().map(|node| &node.file));
        if roles::kernel::is_one(tree.keys())
            && let Some(kernel) = roles::kernel::read(source, image, cancel)?
        {
            kernel.contradictions().into_iter().for_each(|(path, what)| self.at(&path, what));
            for (path, what) in kernel.oddities() {
                let (image, platform) = (Some(image.name.clone()), Some(image.platform()));
                self.notes.push(Finding { image, platform, path: Some(path), what });
            }
            parts.kernels.push(kernel);
        } else {
            parts.modules.extend(modules);
        }
        let kubernetes = image.label("io.imgbuild.kubernetes.version");
        parts.kubernetes.extend(kubernetes.and_then(|version| version.parse().ok()));
        Ok(())
    }

    /// What the users of a root volume rely on.
    fn node(&mut self, source: &dyn Source, cancel: &Cancel) -> Result<(), Error> {
        let image = self.image;
        let arch = image.config.architecture().to_string();
        if image.label("io.imgbuild.role") != Some("os") {
            return Ok(());
        }
        let Ok(arch) = arch.parse::<Arch>() else {
            self.add(format!("it is for {arch}, which no root volume here is for"));
            return Ok(());
        };
        let layers = image.manifest.layers();
        let labels = image.config.config().as_ref().and_then(|config| config.labels().clone());
        let labels = labels.unwrap_or_default().into_iter().collect();
        match node::check(&Volume { source, layers, arch, labels: &labels }, cancel) {
            Ok(report) => {
                let (name, platform) = (Some(image.name.clone()), Some(image.platform()));
                let named = |finding| Finding { image: name.clone(), platform: platform.clone(), ..finding };
                self.found.extend(report.findings.into_iter().map(named));
                self.notes.extend(report.notes.into_iter().map(named));
            }
            // A path that leads outside, say: a tree that no host would unpack.
            Err(Error::Oci(error @ oci::Error::Entry(..))) => self.add(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Media types, and the platform as index and configuration have it.
    fn documents(&mut self) {
        let image = self.image;
        let said = image.documents[0].get("mediaType").and_then(|value| value.as_str());
        let listed_as = image.descriptor.media_type().as_ref();
        if let Some(said) = said
            && said != listed_as
        {
            self.add(format!("its manifest says that it is {said}, the index that it is {listed_as}"));
        }
        let config = image.manifest.config().media_type();
        if *config != MediaType::ImageConfig
            && config.as_ref() != "application/vnd.docker.container.image.v1+json"
        {
            self.add(format!("its configuration is {config}, which is no image's: containerd cannot use it"));
        }
        match image.descriptor.platform() {
            Some(platform) if listed(platform) != image.platform() => self.add(format!(
                "the index lists it as {}, its configuration says {}",
                listed(platform),
                image.platform()
            )),
            // Without one, every host would take it for its own.
            None if image.index.is_some() => self.add("the index lists it without a platform"),
            _ => {}
        }
    }

    /// What no image may hold.
    fn entries(&mut self, tree: &Tree) {
        for (path, node) in tree {
            if path.0.split(|byte| *byte == b'/').any(|part| part == b"..") {
                self.at(&path, "it would land outside the image");
            }
            match node.file.kind {
                Kind::Other => self.at(&path, "it is of a kind that layers cannot have"),
                Kind::HardLink => {
                    let target = node.file.link.clone().unwrap_or_default();
                    let there = tree.get(&files::Bytes(normal(&target.0)));
                    if there.is_none_or(|there| there.file.kind == Kind::Directory) {
                        self.at(
                            path,
                            format!("it is another name of {target}, which is no file of the image"),
                        );
                    }
                }
                _ => {}
            }
        }
    }
}
