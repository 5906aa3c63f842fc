//! Recipes: as written (TOML with its places kept) and as meant (typed, resolved, checked).

pub mod archive;
pub mod catalogue;
pub mod kernel;
pub mod os;
pub mod toolchain;

pub use archive::Archive;
pub use catalogue::Catalogue;
pub use kernel::KernelRecipe;
pub use os::OsRecipe;
pub use toolchain::ToolchainRecipe;

use crate::document::{Mistakes, list, nearest};
use crate::step::{Class, Diagnose};

/// A recipe that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe's text is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No recipe of this name.
    #[error("unknown flavour `{asked}`; known are {}", list(.known.iter().map(String::as_str)))]
    UnknownFlavour {
        /// What was asked for.
        asked: String,
        /// All flavours of the catalogue.
        known: Vec<String>,
    },
    /// No OS recipe of this name.
    #[error("unknown OS recipe `{asked}`; known are {}", list(.known.iter().map(String::as_str)))]
    UnknownSystem {
        /// What was asked for.
        asked: String,
        /// All OS recipes of the catalogue.
        known: Vec<String>,
    },
    /// No recipe says `default = true`.
    #[error("no recipe in `{place}` is the default")]
    NoDefault {
        /// The catalogue's place.
        place: String,
    },
    /// `extends` comes back to where it began.
    #[error("the recipes {} extend one another in a circle", list(.0.iter().map(String::as_str)))]
    Circle(Vec<String>),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Mistakes(_) | Self::Circle(_) | Self::NoDefault { .. } => Class::Recipe,
            Self::Io(error) if error.kind() == std::io::ErrorKind::NotFound => Class::Usage,
            Self::Io(_) => Class::Host,
            Self::UnknownFlavour { .. } | Self::UnknownSystem { .. } => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownFlavour { asked, known } | Self::UnknownSystem { asked, known } => {
                Some(match nearest(asked, known.iter().map(String::as_str)) {
                    Some(near) => {
                        format!("did you mean `{near}`? A recipe of your own is a file: `--recipe PATH`")
                    }
                    None => "a recipe of your own is a file: `--recipe PATH`".into(),
                })
            }
            Self::NoDefault { .. } => Some("name one with --flavour or --recipe".into()),
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Mistakes(mistakes) => mistakes.detail(),
            _ => None,
        }
    }
}
