//! Root volumes: a base system made clean, and over it a Kubernetes node's programs and the configuration, as plain data.

pub mod base;
pub mod clean;
pub mod configuration;
pub mod foreign;
pub mod kubernetes;
pub mod overlay;
pub mod path;
pub mod scan;
pub mod units;

use scan::Secret;

use crate::document::list;
use crate::host;
use crate::oci;
use crate::step::{Class, Diagnose, io_hint};
use crate::tree;

/// A root volume cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base system cannot be had.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A program is missing.
    #[error(transparent)]
    Missing(#[from] host::Missing),
    /// An archive or a layer cannot be read or written.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The system holds what nobody else may have.
    #[error("{} in the image that must not be there", if .0.len() == 1 { "something is".into() } else { format!("{} things are", .0.len()) })]
    Secrets(Vec<Secret>),
    /// A path of a recipe leads astray.
    #[error("`/{path}` {reason}")]
    Path {
        /// The path as the recipe has it.
        path: String,
        /// Why, to follow the path.
        reason: &'static str,
    },
    /// Two layers have different things at one path.
    #[error("`/{path}` is in {} and in {second} too", .first)]
    Fight {
        /// The path.
        path: String,
        /// The lower layer.
        first: &'static str,
        /// The upper layer.
        second: &'static str,
    },
    /// There is no such unit.
    #[error("no unit `{unit}`: neither the packages nor the recipe have it")]
    NoUnit {
        /// The unit.
        unit: String,
    },
    /// A unit that nothing starts cannot be started at boot.
    #[error("the unit `{unit}` cannot be enabled: it has no [Install] section that says by what")]
    NotEnabled {
        /// The unit.
        unit: String,
    },
    /// An archive of programs lacks one.
    #[error("`{archive}` holds no {wanted}; it holds {}", list(.found.iter().map(String::as_str)))]
    NoMember {
        /// The archive's name.
        archive: String,
        /// What should be in it.
        wanted: &'static str,
        /// What is.
        found: Vec<String>,
    },
    /// Programs of the other architecture cannot be run.
    #[error("programs for {arch} cannot be run on this host: {reason}")]
    Foreign {
        /// The architecture.
        arch: crate::arch::Arch,
        /// Why not.
        reason: String,
    },
    /// This user has no further ids for the owners of files.
    #[error(
        "user `{user}` has no subordinate ids in `{file}`, which an ordinary user needs to install packages"
    )]
    NoIds {
        /// The user.
        user: String,
        /// The file that lacks them.
        file: &'static str,
    },
    /// Stopped by the user.
    #[error("interrupted")]
    Cancelled,
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Tree(error) => error.class(),
            Self::Missing(error) => error.class(),
            Self::Oci(error) => error.class(),
            Self::Io(_) => Class::Host,
            Self::Secrets(_) | Self::NoMember { .. } => Class::Verification,
            Self::Path { .. } | Self::Fight { .. } | Self::NoUnit { .. } | Self::NotEnabled { .. } => {
                Class::Recipe
            }
            Self::Foreign { .. } | Self::NoIds { .. } => Class::Input,
            Self::Cancelled => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tree(error) => error.hint(),
            Self::Missing(error) => error.hint(),
            Self::Oci(error) => error.hint(),
            Self::Io(error) => io_hint(error),
            Self::Secrets(_) => Some(
                "a file of the recipe's own must hold none; a package whose script makes some is left out with `without`, its files are made at the first boot instead"
                    .into(),
            ),
            Self::Path { .. } => Some("the paths of a recipe stay below the image's root".into()),
            Self::Fight { .. } => Some("if the upper one is meant, say `replace = true` in its [[file]]".into()),
            Self::NoUnit { .. } => Some("name the package that brings it, or write it as a [[unit]]".into()),
            Self::NotEnabled { .. } => Some("add `[Install]` with `WantedBy=multi-user.target`".into()),
            Self::Foreign { .. } => Some(
                "`sudo apt-get install qemu-user-static binfmt-support` brings what runs them".into(),
            ),
            Self::NoIds { user, .. } => Some(format!(
                "`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`, or build as root"
            )),
            Self::NoMember { .. } | Self::Cancelled => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Tree(error) => error.detail(),
            Self::Oci(error) => error.detail(),
            Self::Secrets(secrets) => {
                let lines = secrets.iter().map(|secret| format!("/{}: {}", secret.path, secret.what));
                Some(lines.collect::<Vec<_>>().join("\n"))
            }
            _ => None,
        }
    }
}
