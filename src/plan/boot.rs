//! `imgbuild boot`: a kernel and its modules taken out of a layout and booted.

use std::path::Path;

use super::pack::Role;
use crate::arch::Arch;
use crate::boot::{self, Report, Request};
use crate::oci;
use crate::oci::layout::{Found, Layout};
use crate::oci::unpack::unpack;
use crate::step::{Class, Diagnose, Watch};
use crate::store::Store;

/// Why nothing was booted, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The images cannot be read.
    #[error(transparent)]
    Image(#[from] oci::Error),
    /// The store has no room.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The boot.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// Several kernels, and none named.
    #[error("`{layout}` holds {} for {arch}: which one?", crate::document::list(.names.iter().map(String::as_str)))]
    Several {
        /// The layout.
        layout: String,
        /// The architecture.
        arch: Arch,
        /// The kernel images.
        names: Vec<String>,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Image(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Boot(error) => error.class(),
            Self::Several { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::Several { names, .. } => Some(format!("name it: `--image {}`", names[0])),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Boot(error) => error.detail(),
            _ => None,
        }
    }
}

/// Boots the kernel image called `name` (or the only one) in the layout at `dir`, with the modules image that
/// belongs to it. `request` has everything but the two paths.
pub fn boot(
    dir: &Path,
    name: Option<&str>,
    request: Request,
    store: &Store,
    watch: &Watch,
) -> Result<Report, Error> {
    let layout = Layout::open(dir)?;
    let images = layout.images()?;
    let kernel = kernel(dir, &images, name, request.arch)?;
    let belongs = |image: &&Found| {
        let same = |label: &str| image.labels.get(label) == kernel.labels.get(label);
        has_role(image, Role::Modules)
            && image.arch == kernel.arch
            && same("io.imgbuild.flavour")
            && same("io.imgbuild.kernel.release")
    };
    let modules = images.iter().find(belongs);
    let work = store.work()?;
    let root = work.path().join("kernel");
    unpack(&layout, kernel, &root, &watch.cancel)?;
    let volume = work.path().join("modules");
    if let Some(modules) = modules {
        unpack(&layout, modules, &volume, &watch.cancel)?;
    }
    let scratch = work.path().join("boot");
    fs_err::create_dir(&scratch).map_err(oci::Error::from)?;
    let request = Request { kernel: root.join("boot/vmlinux"), modules: modules.map(|_| volume), ..request };
    Ok(boot::boot(&request, &scratch, watch)?)
}

fn has_role(image: &Found, role: Role) -> bool {
    image.labels.get("io.imgbuild.role").is_some_and(|name| name == role.name())
}

fn kernel<'i>(dir: &Path, images: &'i [Found], name: Option<&str>, arch: Arch) -> Result<&'i Found, Error> {
    let kernels: Vec<&Found> = images.iter().filter(|image| has_role(image, Role::Kernel)).collect();
    let fits = |image: &&&Found| image.arch == arch && name.is_none_or(|name| name == image.name);
    let mut fitting = kernels.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(kernel), None) => Ok(kernel),
        (None, _) => {
            let wanted = name.map_or_else(
                || format!("kernel image for {arch}"),
                |name| format!("kernel image `{name}` for {arch}"),
            );
            let found = kernels.iter().map(|image| format!("{} ({})", image.name, image.arch)).collect();
            Err(oci::Error::NoImage { path: dir.to_owned(), wanted, found }.into())
        }
        (Some(_), Some(_)) => {
            let names =
                kernels.iter().filter(|image| image.arch == arch).map(|image| image.name.clone()).collect();
            Err(Error::Several { layout: dir.display().to_string(), arch, names })
        }
    }
}
