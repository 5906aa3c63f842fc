//! One cell built, booted and pushed.

use std::path::Path;
use std::time::Duration;

use oci_spec::image::Descriptor;
use serde::Serialize;

use super::keys::repository;
use super::{Cell, Desk, Error, Kind, Registry};
use crate::arch::Arch;
use crate::boot::{Accelerator, Request};
use crate::digests::Digests;
use crate::oci::layout::Layout;
use crate::plan::boot::{Part, Parts};
use crate::plan::images::Built;
use crate::plan::{self, digests};
use crate::registry::reference::Reference;
use crate::registry::{Known, Source, push, tag};
use crate::store::Store;

/// How long a guest may take: the other architecture's instructions are translated.
const BOOTS: Duration = Duration::from_secs(600);
/// The guest's memory, in MiB.
const MEMORY: u32 = 256;

/// An image of a cell on its way.
#[derive(Debug, Clone)]
pub struct Image {
    /// What the layout calls it: `kernel-bin:5.10.77`.
    pub name: String,
    /// Its index in the layout.
    pub root: Descriptor,
    /// Where it goes, by digest.
    pub target: Reference,
}

/// An image of a cell as it is published.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// `kernel-bin:5.10.77`.
    pub image: String,
    /// The cell's tag, with the digest.
    pub reference: String,
}

/// A cell that is built, in a layout of its own.
pub struct Made {
    /// The layout.
    pub layout: Layout,
    /// Its images, the one that says "published" last.
    pub images: Vec<Image>,
    /// What its boot came to, in a sentence.
    pub booted: Option<String>,
}

impl Cell {
    /// Builds the cell into a new layout at `dir`, and boots what can boot.
    pub fn make(
        &self,
        desk: &Desk<'_>,
        registry: &Registry,
        store: &Store,
        dir: &Path,
        is_booted: bool,
    ) -> Result<Made, Error> {
        let (versions, arches) = ([self.version.clone()], [self.arch.name().to_owned()]);
        let recorded: Digests = digests::recorded(desk.catalogue)?;
        let built: Vec<Built> = match self.kind {
            Kind::Kernel => desk
                .kernels(&self.recipe, &versions, &arches)?
                .run(store, dir, &recorded, false, desk.watch)?,
            Kind::Os => desk
                .systems(&self.recipe, &versions, &arches)?
                .run(store, dir, &recorded, false, desk.watch)?,
        };
        let layout = Layout::open(dir)?;
        let booted = (is_booted && self.kind == Kind::Kernel).then(|| self.boot(&layout, dir, desk, store));
        let booted = booted.transpose()?;
        let mut images = Vec::new();
        for (name, root) in layout.names()? {
            if built.iter().any(|built| built.name == name) {
                let target = registry.reference(repository(&name), &self.version)?.at(root.digest().as_ref());
                images.push(Image { name, root, target });
            }
        }
        images.sort_by_key(|image| repository(&image.name) == self.images[0]);
        Ok(Made { layout, images, booted })
    }

    fn boot(&self, layout: &Layout, dir: &Path, desk: &Desk<'_>, store: &Store) -> Result<String, Error> {
        let request = Request::new(self.arch, BOOTS, MEMORY);
        let image = format!("{}:{}", self.images[0], self.version);
        let place = dir.display().to_string();
        let kernel = Part { place: &place, layout, image: Some(&image) };
        let report = plan::boot::boot(Parts { kernel, modules: None }, request, None, store, desk.watch)?;
        let accelerator = if report.machine.accelerator == Accelerator::Kvm { "KVM" } else { "TCG" };
        let seconds = report.init_seconds.unwrap_or(report.reached_seconds);
        Ok(format!("init after {seconds:.1} s under {} ({accelerator})", report.machine.vmm.name()))
    }

    /// Gives the images, which are pushed, the cell's tag: from now on it is published.
    pub fn publish(&self, made: &Made, registry: &Registry) -> Result<Vec<Published>, Error> {
        let host = Arch::host().ok_or(plan::Error::Host)?;
        let mut published = Vec::new();
        for Image { name, root, .. } in &made.images {
            let reference = registry.reference(repository(name), &self.tag(self.own_key(host)))?;
            let digest = root.digest().as_ref();
            tag(&reference, digest, &registry.client)?;
            published.push(Published { image: name.clone(), reference: format!("{reference}@{digest}") });
        }
        published.reverse();
        Ok(published)
    }
}

impl Made {
    /// Pushes the images by digest: they have no name yet.
    pub fn push(&self, registry: &Registry) -> Result<(), Error> {
        let known = Known::default();
        for Image { root, target, .. } in &self.images {
            push(&Source::Layout(&self.layout), root, target, &registry.client, &known, false)?;
        }
        Ok(())
    }
}
