//! `--require-boot`: what is to be pushed is booted first.

use std::time::Duration;

use super::boot::{self, Part, Parts};
use super::pack::Role;
use crate::arch::Arch;
use crate::boot::node::{Node, Wish};
use crate::boot::{Machine, Request};
use crate::oci::layout::{Found, Layout};
use crate::recipe::kernel::Output;
use crate::step::{Class, Diagnose, Level, Watch};
use crate::store::Store;

/// What the label of a root volume says.
const ROOT_VOLUME: &str = "os";

/// Why nothing is pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image that does not boot.
    #[error("`{image}` for {arch} does not boot, so nothing is pushed: {source}")]
    Boot {
        /// The image.
        image: String,
        /// Its architecture.
        arch: Arch,
        /// How that ended.
        source: Box<boot::Error>,
    },
    /// An image that nothing can be said of.
    #[error("`{image}` for {arch} cannot be booted, so nothing is pushed: {why}")]
    Unbootable {
        /// The image.
        image: String,
        /// Its architecture.
        arch: Arch,
        /// Why not.
        why: &'static str,
        /// The way out.
        hint: &'static str,
    },
    /// The layout cannot be read.
    #[error(transparent)]
    Image(#[from] crate::oci::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Boot { source, .. } => source.class(),
            Self::Unbootable { .. } => Class::Boot,
            Self::Image(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Boot { source, .. } => source.hint(),
            Self::Unbootable { hint, .. } => Some((*hint).to_owned()),
            Self::Image(error) => error.hint(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Boot { source, .. } => source.detail(),
            Self::Unbootable { .. } => None,
            Self::Image(error) => error.detail(),
        }
    }
}

/// The images that have to boot.
pub struct Gate<'g> {
    /// Where they are, as the user named it.
    pub place: &'g str,
    /// The layout.
    pub layout: &'g Layout,
    /// Their names.
    pub names: &'g [String],
    /// The kernel that root volumes are booted with, if none beside them is meant.
    pub kernel: Option<Part<'g>>,
}

impl Gate<'_> {
    /// Boots every architecture of every image: kernels with a small init and their modules, root volumes with a kernel and its
    /// modules. Modules are booted with their kernel, which has to be beside them. What boots is told, and the first that does
    /// not ends it.
    pub fn pass(&self, store: &Store, watch: &Watch) -> Result<(), Error> {
        let images = self.layout.images()?;
        let chosen: Vec<&Found> = images.iter().filter(|image| self.names.contains(&image.name)).collect();
        let mut booted: Vec<(&str, Arch)> = Vec::new();
        for image in chosen {
            match image.labels.get(boot::ROLE).map(String::as_str) {
                Some(role) if [Role::Kernel.name(), Output::Combined.name()].contains(&role) => {
                    self.kernel_boots(image, &mut booted, store, watch)?;
                }
                Some(role) if role == Role::Modules.name() => {
                    let kernel = images.iter().find(|kernel| boot::belongs(kernel, image));
                    let kernel = kernel.ok_or_else(|| Error::Unbootable {
                        image: image.name.clone(),
                        arch: image.arch,
                        why: "the kernel of these modules is not in the layout",
                        hint: "`imgbuild kernel … --output DIR` puts both there",
                    })?;
                    self.kernel_boots(kernel, &mut booted, store, watch)?;
                }
                Some(ROOT_VOLUME) => self.root_boots(image, &images, store, watch)?,
                _ => {
                    return Err(Error::Unbootable {
                        image: image.name.clone(),
                        arch: image.arch,
                        why: "it is neither a kernel, nor its modules, nor a root volume of imgbuild's",
                        hint: "push it without `--require-boot`",
                    });
                }
            }
        }
        Ok(())
    }

    /// Boots a kernel, unless it has been.
    fn kernel_boots<'i>(
        &self,
        image: &'i Found,
        booted: &mut Vec<(&'i str, Arch)>,
        store: &Store,
        watch: &Watch,
    ) -> Result<(), Error> {
        if booted.contains(&(&image.name, image.arch)) {
            return Ok(());
        }
        let kernel = Part { place: self.place, layout: self.layout, image: Some(&image.name) };
        let parts = Parts { kernel, modules: None };
        let report =
            boot::boot(parts, Request::new(image.arch, Duration::from_secs(120), 256), None, store, watch);
        let report = report.map_err(|source| Self::failed(image, source))?;
        let seconds = report.init_seconds.unwrap_or(report.reached_seconds);
        Self::tell(image, &report.machine, seconds, watch);
        booted.push((&image.name, image.arch));
        Ok(())
    }

    /// Boots a root volume with the kernel that is named, or the one beside it.
    fn root_boots(&self, image: &Found, images: &[Found], store: &Store, watch: &Watch) -> Result<(), Error> {
        let is_kernel = |found: &&Found| {
            found.arch == image.arch && (boot::has_role(found, Role::Kernel) || boot::is_combined(found))
        };
        if self.kernel.is_none() && !images.iter().any(|found| is_kernel(&found)) {
            return Err(Error::Unbootable {
                image: image.name.clone(),
                arch: image.arch,
                why: "no kernel is named, and none is in the layout",
                hint: "`--boot-kernel DIR` names one, or `--boot-kernel REFERENCE`",
            });
        }
        let here = Part { place: self.place, layout: self.layout, image: None };
        let parts = Parts { kernel: self.kernel.unwrap_or(here), modules: None };
        let root = Part { image: Some(&image.name), ..here };
        let request = Request::new(image.arch, Duration::from_secs(600), 1024);
        let node = Node { request, user_data: None, wiring: None, wish: Wish::Account };
        let report = boot::boot_node(parts, root, node, store, watch);
        let report = report.and_then(|report| report.sound().map(|()| report).map_err(boot::Error::from));
        let report = report.map_err(|source| Self::failed(image, source))?;
        Self::tell(image, &report.machine, report.reached_seconds, watch);
        Ok(())
    }

    fn failed(image: &Found, source: boot::Error) -> Error {
        Error::Boot { image: image.name.clone(), arch: image.arch, source: Box::new(source) }
    }

    fn tell(image: &Found, machine: &Machine, seconds: f64, watch: &Watch) {
        let (name, arch, vmm) = (&image.name, image.arch, machine.vmm.name());
        watch.reporter.note(Level::Info, &format!("`{name}` for {arch} boots under {vmm}: {seconds:.1} s"));
    }
}
