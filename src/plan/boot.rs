//! `imgbuild boot`: a kernel and its modules taken out of a layout and booted.

use std::path::{Path, PathBuf};

use super::pack::Role;
use crate::arch::Arch;
use crate::boot::{self, Report, Request};
use crate::kernel::BZ_IMAGE;
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
    let kernel = root.join("boot/vmlinux");
    let bz_image = bz_image(&kernel, store)?;
    let request = Request { kernel, bz_image, modules: modules.map(|_| volume), ..request };
    Ok(boot::boot(&request, &scratch, watch)?)
}

/// The bzImage that was built with this kernel, if the store has it: no image does.
fn bz_image(kernel: &Path, store: &Store) -> Result<Option<PathBuf>, Error> {
    let read = |path: &Path| fs_err::read(path).map_err(oci::Error::from);
    let size = |path: &Path| fs_err::metadata(path).map(|meta| meta.len()).ok();
    for artifact in store.artifacts("kernel") {
        let (bz_image, same) = (artifact.join(BZ_IMAGE), artifact.join("boot/vmlinux"));
        if bz_image.is_file() && size(&same) == size(kernel) && read(&same)? == read(kernel)? {
            return Ok(Some(bz_image));
        }
    }
    Ok(None)
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
