//! The kernel: its configuration, its compilation, and what comes out of it.

mod compile;
mod failure;
pub mod header;
pub mod headers;
pub mod kconfig;
mod split;
pub mod toolchain;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use compile::{Compile, Site};

use crate::sandbox;
use crate::step::{Class, Diagnose, io_hint};

/// Where an artifact keeps the bzImage of a kernel without a PVH note: QEMU boots it, and no image holds it.
pub const BZ_IMAGE: &str = "qemu/bzImage";

/// What a kernel artifact says about itself, in its `kernel.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `make kernelrelease`: what `uname -r` will say.
    pub release: String,
    /// The source's own date, in seconds since 1970.
    pub epoch: u64,
    /// How many files were compiled or assembled.
    pub compiled: u64,
    /// Symbols that `alldefconfig` would have turned on with the same fragments.
    pub absences: Vec<String>,
    /// Whether there are modules.
    pub modules: bool,
}

/// A kernel could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration is refused.
    #[error(transparent)]
    Configure(#[from] kconfig::Error),
    /// The compiler refused something.
    #[error("compiling Linux {release} for {arch} failed: {first}")]
    Compile {
        /// The kernel's release.
        release: String,
        /// Its architecture.
        arch: String,
        /// The first line of the log that tells an error.
        first: String,
        /// The lines around it.
        context: String,
        /// The whole log.
        log: PathBuf,
    },
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] sandbox::Error),
    /// What was built is not what was asked for.
    #[error("the build made something else than was asked for: {0}")]
    Artifact(String),
    /// The kernel's make does not work in directories of this name.
    #[error("the kernel cannot be built below `{}`: its make takes no spaces or colons in a path", .0.display())]
    Path(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Configure(error) => error.class(),
            Self::Compile { .. } => Class::Build,
            Self::Command(error) => error.class(),
            Self::Artifact(_) => Class::Verification,
            Self::Path(_) => Class::Usage,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Configure(error) => error.hint(),
            Self::Compile { log, .. } => Some(format!("the whole output is in `{}`", log.display())),
            Self::Command(error) => error.hint(),
            Self::Artifact(_) => {
                Some("this is a fault of the build, not of the recipe: please report it with the log".into())
            }
            Self::Path(_) => Some("put the store somewhere else with --store or IMGBUILD_STORE".into()),
            Self::Io(error) => io_hint(error),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Configure(error) => error.detail(),
            Self::Compile { context, .. } => Some(context.clone()),
            Self::Command(error) => error.detail(),
            _ => None,
        }
    }
}
