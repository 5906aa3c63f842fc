//! `imgbuild spec`: the images of a machine found, looked at where hosts will pull them from, and written down for those
//! who run them.

mod check;
mod offer;

use crate::arch::Arch;
use crate::handoff::{self, Document, Format, Images, Machine, Modules};
use crate::oci;
use crate::registry::reference::{Prefix, Reference};
use crate::registry::{self, Options};
use crate::step::{Class, Diagnose, Watch};
use crate::store::{self, Store};
use check::{common, kernel, release};
use offer::{Desk, Offer};

/// The label with the release of an image's kernel or modules.
const RELEASE: &str = "io.imgbuild.kernel.release";
/// The label with the Kubernetes version of a root volume.
const KUBERNETES: &str = "io.imgbuild.kubernetes.version";

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The kernel.
    Kernel,
    /// Its modules.
    Modules,
    /// The root volume.
    Root,
}

impl Use {
    /// The option that names such an image.
    fn option(self) -> &'static str {
        match self {
            Self::Kernel => "--kernel",
            Self::Modules => "--modules",
            Self::Root => "--root",
        }
    }

    /// In messages.
    fn what(self) -> &'static str {
        match self {
            Self::Kernel => "kernel image",
            Self::Modules => "modules image",
            Self::Root => "root volume",
        }
    }
}

/// An image as the command line names it.
#[derive(Debug, Clone)]
pub enum Named {
    /// In a layout: the directory, and the image, where it is named.
    Layout(std::path::PathBuf, Option<String>),
    /// At a registry.
    Reference(Reference),
}

/// Which modules go with the kernel.
#[derive(Debug, Clone)]
pub enum ModulesWish {
    /// Those that were built with it, where they lie in the same layout.
    Beside,
    /// None.
    None,
    /// These.
    Named(Named),
}

/// The images asked for, and how they are looked at.
#[derive(Debug, Clone)]
pub struct Request {
    /// The kernel image.
    pub kernel: Named,
    /// The modules image.
    pub modules: ModulesWish,
    /// The root volume; where none is named, the kernel's layout may have one.
    pub root: Option<Named>,
    /// Where the images of layouts were pushed to.
    pub prefix: Option<Prefix>,
    /// The file in the kernel image.
    pub filename: String,
    /// For hosts of this architecture alone.
    pub arch: Option<Arch>,
    /// References that no later push changes.
    pub by_digest: bool,
    /// Asks no registry.
    pub offline: bool,
}

/// Images cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be read.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The store has no room.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The consumer would refuse the document.
    #[error(transparent)]
    Handoff(#[from] handoff::Error),
    /// Nothing says where hosts pull from.
    #[error(
        "`{name}` of `{layout}` has no name that a host could pull it by: nothing says which registry it was pushed to"
    )]
    NoRegistry {
        /// The image.
        name: String,
        /// Its layout.
        layout: String,
    },
    /// The image is not where hosts would look for it.
    #[error("`{0}` is not there for a host to pull")]
    NotPushed(String),
    /// A reference that nothing is known of.
    #[error("nothing is known of `{0}` without asking its registry, not even the kernel's release")]
    Unasked(String),
    /// Several images, and none named.
    #[error("`{layout}` holds {}: which {} is meant?", crate::document::list(.names.iter().map(String::as_str)), .what.what())]
    Several {
        /// The layout.
        layout: String,
        /// What for.
        what: Use,
        /// The images.
        names: Vec<String>,
    },
    /// The image is for something else.
    #[error("`{image}` is no {}: its label io.imgbuild.role says `{role}`", .what.what())]
    WrongRole {
        /// The image.
        image: String,
        /// What it was named for.
        what: Use,
        /// What it says it is.
        role: String,
    },
    /// The image is not for this architecture.
    #[error("`{image}` is not for {wanted}: it is for {}", crate::document::list(.found.iter().map(|arch| arch.name())))]
    NoPlatform {
        /// The image.
        image: String,
        /// The architecture asked for.
        wanted: Arch,
        /// The architectures it is for.
        found: Vec<Arch>,
    },
    /// No host could run these together.
    #[error("no architecture has all of the images: {0}")]
    NothingCommon(String),
    /// The kernel image has no such file.
    #[error("`{image}` for {arch} has no file `{filename}`; {found}")]
    NoKernel {
        /// The image.
        image: String,
        /// The architecture.
        arch: Arch,
        /// The file.
        filename: String,
        /// What its directory has.
        found: String,
    },
    /// The file is none that a VMM could start.
    #[error("`{image}` for {arch}: {filename}: {what}")]
    NotAKernel {
        /// The image.
        image: String,
        /// The architecture.
        arch: Arch,
        /// The file.
        filename: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing says which release the kernel is.
    #[error("`{image}` does not tell its kernel's release, so nothing says where its modules are mounted")]
    NoRelease {
        /// The image.
        image: String,
    },
    /// No modules, or several releases'.
    #[error("`{image}` for {arch} has {found}, where one release's modules should be")]
    NoModules {
        /// The image.
        image: String,
        /// The architecture.
        arch: Arch,
        /// What is there.
        found: String,
    },
    /// Modules of another kernel.
    #[error(
        "the modules do not fit the kernel: `{modules}` is for {theirs}, the kernel in `{kernel}` is {ours}"
    )]
    OtherRelease {
        /// The modules image.
        modules: String,
        /// Its release.
        theirs: String,
        /// The kernel image.
        kernel: String,
        /// Its release.
        ours: String,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Oci(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Handoff(error) => error.class(),
            Self::NoRegistry { .. }
            | Self::Unasked(_)
            | Self::Several { .. }
            | Self::WrongRole { .. }
            | Self::NothingCommon(_)
            | Self::OtherRelease { .. } => Class::Usage,
            Self::NotPushed(_) | Self::NoPlatform { .. } => Class::Input,
            Self::NoKernel { .. }
            | Self::NotAKernel { .. }
            | Self::NoRelease { .. }
            | Self::NoModules { .. } => Class::Verification,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Oci(error) => return error.hint(),
            Self::Registry(error @ registry::Error::Unreachable { .. }) => {
                let hint = error.hint().unwrap_or_default();
                format!("{hint}; `--offline` looks at layouts alone")
            }
            Self::Registry(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::Handoff(error) => return error.hint(),
            Self::NoRegistry { .. } => "`--registry registry.example/org`, IMGBUILD_REGISTRY, or `registry = \"…\"` in the settings".into(),
            Self::NotPushed(_) => "push it first: `imgbuild push DIR --registry REGISTRY`; or look whether the registry is the right one".into(),
            Self::Unasked(_) => "without a registry, name the layout that it was pushed from".into(),
            Self::Several { layout, what, names } => {
                format!("name it: `{} {layout}:{}`", what.option(), names.first().map_or("IMAGE", String::as_str))
            }
            Self::WrongRole { what, .. } => format!("`{}` names another image", what.option()),
            Self::NoPlatform { found, .. } => {
                format!("`--arch {}`, or an image that was built with `--arch all`", found.first().map_or("ARCH", |arch| arch.name()))
            }
            Self::NothingCommon(_) => "build them for one architecture, or with `--arch all`".into(),
            Self::NoKernel { .. } => "`--filename` names the file, `--kernel` another image".into(),
            Self::NotAKernel { .. } => "`imgbuild validate` tells everything that is wrong with the image".into(),
            Self::NoRelease { .. } => "a kernel has a banner, `Linux version …`; images of ours have a label besides".into(),
            Self::NoModules { .. } => "`--modules` names another image; `--modules none` does without".into(),
            Self::OtherRelease { .. } => "take both images of one build: `--modules` names the other".into(),
        };
        Some(hint)
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Handoff(error) => error.detail(),
            _ => None,
        }
    }
}

/// Writes a machine of these images down; warnings go to the reporter's side of the result.
pub fn document(
    request: &Request,
    format: Format,
    machine: &Machine,
    options: &Options,
    store: &Store,
    watch: &Watch,
) -> Result<Document, Error> {
    let mut desk = Desk::new(request, options, store, watch);
    let kernel_offer = desk.offer(&request.kernel, Use::Kernel)?;
    let root_offer = match &request.root {
        Some(named) => Some(desk.offer(named, Use::Root)?),
        None => desk.root_beside(&request.kernel)?,
    };
    let inside = root_offer.as_ref().and_then(|root| root.label(RELEASE)).map(str::to_owned);
    let modules_offer = match &request.modules {
        ModulesWish::Beside if inside.is_some() => None,
        ModulesWish::Beside => desk.beside(&request.kernel, &kernel_offer)?,
        ModulesWish::None => None,
        ModulesWish::Named(named) => Some(desk.offer(named, Use::Modules)?),
    };
    let offers = [Some(&kernel_offer), modules_offer.as_ref(), root_offer.as_ref()];
    let offers: Vec<&Offer> = offers.into_iter().flatten().collect();
    let arches = common(&offers, request.arch, &mut desk.warnings)?;
    let ours = kernel(&kernel_offer, &request.filename, &arches, &desk)?;
    let fit = |offer: &Offer, theirs: &str| match &ours {
        Some(ours) if ours != theirs => Err(Error::OtherRelease {
            modules: offer.name(),
            theirs: theirs.to_owned(),
            kernel: kernel_offer.name(),
            ours: ours.clone(),
        }),
        Some(_) => Ok(()),
        None => Err(Error::NoRelease { image: kernel_offer.name() }),
    };
    let modules = match &modules_offer {
        None => None,
        Some(offer) => {
            let theirs = release(offer, &arches, &mut desk)?;
            fit(offer, &theirs)?;
            Some(Modules { image: offer.reference(request.by_digest), release: theirs })
        }
    };
    if let (Some(root), Some(theirs), None) = (&root_offer, &inside, &modules) {
        fit(root, theirs)?;
    }
    let images = Images {
        kernel: kernel_offer.reference(request.by_digest),
        filename: request.filename.clone(),
        modules,
        root: root_offer.as_ref().map(|offer| offer.reference(request.by_digest)),
        has_modules_inside: inside.is_some(),
        kubernetes: root_offer.as_ref().and_then(|offer| offer.label(KUBERNETES)).map(str::to_owned),
        arches,
    };
    let mut document = handoff::document(format, machine, &images)?;
    desk.warnings.append(&mut document.warnings);
    Ok(Document { warnings: desk.warnings, ..document })
}
