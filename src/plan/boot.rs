//! `imgbuild boot`: a kernel, its modules and a root volume taken out of layouts and booted.

use std::path::{Path, PathBuf};

use super::pack::Role;
use crate::arch::Arch;
use crate::boot::node::{self, Node};
use crate::boot::{self, Report, Request};
use crate::export::{self, Export, Room};
use crate::inspect::{self, Image, Selection};
use crate::kernel::BZ_IMAGE;
use crate::oci;
use crate::oci::layout::{Found, Layout};
use crate::oci::root::{Kind, Root};
use crate::oci::unpack::unpack;
use crate::recipe::kernel::Output;
use crate::step::{Class, Diagnose, Watch};
use crate::store::{Store, Work};

/// Where the kernel looks for the first program, in this order.
const INITS: [&str; 4] = ["sbin/init", "etc/init", "bin/init", "bin/sh"];
/// The label that tells what an image of ours is for.
pub(super) const ROLE: &str = "io.imgbuild.role";
/// What a guest may write to a disk of its own.
const ROOM: u64 = 512 << 20;

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
        /// How one is named on the command line.
        option: &'static str,
        /// The images.
        names: Vec<String>,
    },
    /// The root volume's image cannot be read.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// The root volume's disk cannot be written.
    #[error(transparent)]
    Export(#[from] export::Error),
    /// Several images that may be root volumes, and none named.
    #[error("`{place}` holds {} for {arch}: which one?", crate::document::list(.names.iter().map(String::as_str)))]
    SeveralRoots {
        /// The place.
        place: String,
        /// The architecture.
        arch: Arch,
        /// The images.
        names: Vec<String>,
    },
    /// A kernel image without a kernel.
    #[error("the kernel image `{0}` has no file boot/vmlinux")]
    NoVmlinux(String),
    /// A root volume that no kernel can start.
    #[error("`{0}` has no init: no program at /sbin/init, /etc/init, /bin/init or /bin/sh")]
    NoInit(String),
    /// A root volume that would not give an account of itself.
    #[error("`{0}` has no cloud-init, which would bring in what tells how the boot went")]
    NoCloudInit(String),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Image(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Boot(error) => error.class(),
            Self::Inspect(error) => error.class(),
            Self::Export(error) => error.class(),
            Self::Several { .. } | Self::SeveralRoots { .. } => Class::Usage,
            Self::NoVmlinux(_) => Class::Verification,
            Self::NoInit(_) | Self::NoCloudInit(_) => Class::Boot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Image(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::Inspect(error) => error.hint(),
            Self::Export(error) => error.hint(),
            Self::Several { option, names, .. } => Some(format!("name it: `{option}{}`", names[0])),
            Self::SeveralRoots { place, names, .. } => {
                Some(format!("name it: `--root {place}:{}`", names[0]))
            }
            Self::NoVmlinux(_) => Some("another image may be meant: `--image` or `--kernel` names it".into()),
            Self::NoInit(_) => {
                Some("a root volume is a whole system, with systemd: package systemd-sysv".into())
            }
            Self::NoCloudInit(_) => Some(
                "`--expect 'login:'` waits for text on the console instead, `--interactive` leaves it to you"
                    .into(),
            ),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Boot(error) => error.detail(),
            Self::Inspect(error) => error.detail(),
            Self::Export(error) => error.detail(),
            _ => None,
        }
    }
}

/// An image to boot with: the one of this name in a layout, or the one that fits.
#[derive(Clone, Copy)]
pub struct Part<'p> {
    /// As the user named the place.
    pub place: &'p str,
    /// Where it is.
    pub layout: &'p Layout,
    /// The image, where it is named.
    pub image: Option<&'p str>,
}

/// The images a guest is made of.
#[derive(Clone, Copy)]
pub struct Parts<'p> {
    /// The kernel's.
    pub kernel: Part<'p>,
    /// The modules', where they are not beside the kernel.
    pub modules: Option<Part<'p>>,
}

/// What a guest is booted from: scratch files in the store, for as long as this lives.
struct Files {
    work: Work,
    request: Request,
    modules: Option<String>,
}

/// Boots a kernel image with its modules image and a small init. `request` has everything but the paths.
pub fn boot(
    parts: Parts<'_>,
    request: Request,
    expect: Option<&str>,
    store: &Store,
    watch: &Watch,
) -> Result<Report, Error> {
    let files = files(parts, request, store, watch)?;
    Ok(boot::boot(&files.request, expect, &files.scratch(), watch)?)
}

/// Boots a kernel image, its modules image and a whole root volume. `node` has everything but the paths.
pub fn boot_node(
    parts: Parts<'_>,
    root: Part<'_>,
    node: Node,
    store: &Store,
    watch: &Watch,
) -> Result<node::Report, Error> {
    let (files, node) = node_files(parts, root, node, true, store, watch)?;
    Ok(node::boot(&node, &files.scratch(), watch)?)
}

/// The same, with the user's terminal as the guest's console.
pub fn converse(
    parts: Parts<'_>,
    root: Part<'_>,
    node: Node,
    store: &Store,
    watch: &Watch,
) -> Result<(), Error> {
    let (files, node) = node_files(parts, root, node, false, store, watch)?;
    Ok(node::converse(&node, &files.scratch(), watch)?)
}

impl Files {
    fn scratch(&self) -> PathBuf {
        self.work.path().join("boot")
    }
}

/// Kernel and modules as files.
fn files(parts: Parts<'_>, request: Request, store: &Store, watch: &Watch) -> Result<Files, Error> {
    let layout = parts.kernel.layout;
    let images = layout.images()?;
    let kernel = kernel(parts.kernel, &images, request.arch)?;
    let others = parts.modules.map(|part| part.layout.images()).transpose()?;
    let modules = match (parts.modules, &others) {
        (Some(part), Some(images)) => Some((one(part, images, Role::Modules, request.arch)?, part.layout)),
        _ => beside(&images, kernel).map(|found| (found, layout)),
    };
    let work = store.work()?;
    let root = work.path().join("kernel");
    unpack(layout, kernel, &root, &watch.cancel)?;
    let volume = work.path().join("modules");
    if let Some((modules, layout)) = modules {
        unpack(layout, modules, &volume, &watch.cancel)?;
    }
    fs_err::create_dir(work.path().join("boot")).map_err(oci::Error::from)?;
    let image = kernel;
    let kernel = root.join("boot/vmlinux");
    if !kernel.is_file() {
        return Err(Error::NoVmlinux(image.name.clone()));
    }
    let bz_image = bz_image(&kernel, store)?;
    let request = Request {
        kernel,
        bz_image,
        config: config(&root.join("boot"))?,
        flavour: image.labels.get("io.imgbuild.flavour").cloned(),
        modules: modules.map(|_| volume),
        ..request
    };
    Ok(Files { work, request, modules: modules.map(|(found, _)| found.name.clone()) })
}

/// Kernel, modules and root volume as files, the latter two as the disks that Flintlock makes of them.
fn node_files(
    parts: Parts<'_>,
    root: Part<'_>,
    node: Node,
    is_watched: bool,
    store: &Store,
    watch: &Watch,
) -> Result<(Files, Node), Error> {
    let arch = node.request.arch;
    let image = pick(root, arch)?;
    let tree = Root::read(root.layout, image.manifest.layers(), &watch.cancel, &mut |_| ())?;
    if !INITS.iter().any(|path| is_program(&tree, path)) {
        return Err(Error::NoInit(image.name));
    }
    if is_watched && node.wish == node::Wish::Account && !is_program(&tree, "usr/bin/cloud-init") {
        return Err(Error::NoCloudInit(image.name));
    }
    drop(tree);
    let files = files(parts, node.request, store, watch)?;
    // Before the disks, which take a while.
    node::fits(&files.request, watch)?;
    disk(root, &image, &files.scratch().join(node::ROOT_DISK), watch)?;
    if let Some(name) = &files.modules {
        let part = Part { image: Some(name), ..parts.modules.unwrap_or(parts.kernel) };
        disk(part, &pick(part, arch)?, &files.scratch().join(node::MODULES_DISK), watch)?;
    }
    let node = Node { request: files.request.clone(), ..node };
    Ok((files, node))
}

/// Writes an image as an ext4 with some room in it.
fn disk(part: Part<'_>, image: &Image, path: &Path, watch: &Watch) -> Result<(), Error> {
    let format = export::Format::Ext4(Room::Free(ROOM));
    let (manifest, layers) = (&image.descriptor, image.manifest.layers());
    let open = fs_err::OpenOptions::new().read(true).write(true).create_new(true).open(path);
    let file = open.map_err(oci::Error::from)?;
    Export { source: part.layout, manifest, layers, format }.write(&file, watch)?;
    Ok(())
}

/// The image of this name, or the only one that is neither a kernel nor its modules.
fn pick(part: Part<'_>, arch: Arch) -> Result<Image, Error> {
    let selection = Selection { image: part.image.map(str::to_owned), arch: None };
    let images = inspect::sound_images(part.layout, &selection)?;
    let is_meant = |image: &&Image| {
        image.is_image() && (part.image.is_some() || image.label(ROLE).is_none_or(|role| !is_kernels(role)))
    };
    let mut meant: Vec<&Image> = Vec::new();
    for image in images.iter().filter(is_meant) {
        // One image may have two names.
        if !meant.iter().any(|other| other.descriptor.digest() == image.descriptor.digest()) {
            meant.push(image);
        }
    }
    let fits = |image: &&&Image| image.platform() == arch.oci();
    let mut fitting = meant.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(image), None) => Ok((*image).clone()),
        (None, _) => {
            let wanted = part.image.map_or_else(
                || format!("root volume for {arch}"),
                |name| format!("image `{name}` for {arch}"),
            );
            let found = images.iter().map(|image| format!("{} ({})", image.name, image.platform())).collect();
            Err(oci::Error::NoImage { path: part.place.into(), wanted, found }.into())
        }
        (Some(_), Some(_)) => {
            let names = meant.iter().filter(fits).map(|image| image.name.clone()).collect();
            Err(Error::SeveralRoots { place: part.place.to_owned(), arch, names })
        }
    }
}

fn is_kernels(role: &str) -> bool {
    Output::ALL.iter().any(|output| output.name() == role)
}

/// Whether a process inside could run what is at this path, links followed.
fn is_program(root: &Root, path: &str) -> bool {
    root.find(path.as_bytes(), true).is_some_and(|found| {
        let inode = &root.inodes[found.inode];
        matches!(inode.kind, Kind::File { .. }) && inode.mode & 0o111 != 0
    })
}

/// The modules image that was built with a kernel image, in the same layout.
fn beside<'i>(images: &'i [Found], kernel: &'i Found) -> Option<&'i Found> {
    if is_combined(kernel) {
        return Some(kernel);
    }
    images.iter().find(|image| has_role(image, Role::Modules) && belongs(kernel, image))
}

/// Whether a kernel and modules are of one build.
pub(super) fn belongs(kernel: &Found, modules: &Found) -> bool {
    let same = |label: &str| modules.labels.get(label) == kernel.labels.get(label);
    has_role(kernel, Role::Kernel)
        && modules.arch == kernel.arch
        && same("io.imgbuild.flavour")
        && same("io.imgbuild.kernel.release")
}

/// The kernel's configuration beside it, if there is just one.
fn config(boot: &Path) -> Result<Option<PathBuf>, Error> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(boot).map_err(oci::Error::from)? {
        let path = entry.map_err(oci::Error::from)?.path();
        found.extend(
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"config-"))
                .then_some(path),
        );
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
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

/// Whether a kernel image holds the modules too.
pub(super) fn is_combined(image: &Found) -> bool {
    image.labels.get(ROLE).is_some_and(|name| name == Output::Combined.name())
}

pub(super) fn has_role(image: &Found, role: Role) -> bool {
    image.labels.get(ROLE).is_some_and(|name| name == role.name())
}

fn kernel<'i>(part: Part<'_>, images: &'i [Found], arch: Arch) -> Result<&'i Found, Error> {
    one(part, images, Role::Kernel, arch)
}

/// The image of this name, or the only one of a role.
fn one<'i>(part: Part<'_>, images: &'i [Found], role: Role, arch: Arch) -> Result<&'i Found, Error> {
    let is_there = images.iter().any(|image| has_role(image, role) && image.arch == arch);
    // One that holds both serves as either, where there is no other.
    let fits = |image: &Found| has_role(image, role) || !is_there && is_combined(image);
    let mut candidates: Vec<&Found> = Vec::new();
    for image in images.iter().filter(|image| part.image.map_or(fits(image), |name| image.name == name)) {
        // One image may have two names.
        if !candidates.iter().any(|other| other.arch == image.arch && other.manifest == image.manifest) {
            candidates.push(image);
        }
    }
    let mut fitting = candidates.iter().filter(|image| image.arch == arch);
    match (fitting.next(), fitting.next()) {
        (Some(image), None) => Ok(image),
        (None, _) => {
            let wanted = part.image.map_or_else(
                || format!("{} image for {arch}", role.name()),
                |name| format!("{} image `{name}` for {arch}", role.name()),
            );
            let of_role = images.iter().filter(|image| fits(image));
            let found = of_role.map(|image| format!("{} ({})", image.name, image.arch)).collect();
            Err(oci::Error::NoImage { path: part.place.into(), wanted, found }.into())
        }
        (Some(_), Some(_)) => {
            let fitting = candidates.iter().filter(|image| image.arch == arch);
            let names = fitting.map(|image| image.name.clone()).collect();
            Err(Error::Several { layout: part.place.to_owned(), arch, option: option(role), names })
        }
    }
}

/// The option that names an image of a role.
fn option(role: Role) -> &'static str {
    match role {
        Role::Kernel => "--image ",
        Role::Modules => "--modules DIR:",
    }
}
