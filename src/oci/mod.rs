//! OCI images: deterministic layers, configurations, manifests, indexes, and the layout directory they lie in.
//!
//! Media types and fields follow the OCI image specification 1.1. Nothing here knows what an image is for.

pub mod archive;
pub mod blocks;
pub mod compression;
mod entry;
pub mod image;
pub mod layer;
pub mod layout;
pub mod root;
pub mod source;
pub mod unpack;

use std::path::PathBuf;

use crate::document::list;
use crate::step::{Class, Diagnose, io_hint};

/// An image cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Somebody else's directory.
    #[error("`{}` holds other files and is no OCI layout", .0.display())]
    NotALayout(PathBuf),
    /// The directory is not there, or no layout.
    #[error("`{}` is no OCI layout: it has no `{missing}`", .path.display())]
    NoLayout {
        /// The directory.
        path: PathBuf,
        /// The file it lacks.
        missing: &'static str,
    },
    /// A JSON document of a layout cannot be understood.
    #[error("`{}` is not what OCI says it should be: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob does not have its digest.
    #[error("`{}` does not have its digest: it is {actual}", .path.display())]
    Digest {
        /// The blob.
        path: PathBuf,
        /// Its digest as found.
        actual: String,
    },
    /// A blob is not there, or not what its descriptor says.
    #[error("`{place}`: blob {digest} {reason}")]
    Blob {
        /// Where it is from.
        place: String,
        /// Its digest, as its descriptor has it.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No image of this name, or none that fits.
    #[error("`{}` has no {wanted}; it has {}", .path.display(), list(.found.iter().map(String::as_str)))]
    NoImage {
        /// The layout.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What is there.
        found: Vec<String>,
    },
    /// A layer's entry would land outside, or is of a kind images here never have.
    #[error("a layer holds `{0}`, which is not unpacked: {1}")]
    Entry(String, &'static str),
    /// An entry that no layer can have, or that readers would not agree on.
    #[error("`{0}` cannot be packed: {1}")]
    NotPacked(String, String),
    /// A tar stream that is to become a layer is none.
    #[error("the tar stream cannot be read: {0}")]
    Stream(String),
    /// Stopped by the user.
    #[error("interrupted")]
    Cancelled,
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Io(_) => Class::Host,
            Self::NotALayout(_) => Class::Usage,
            Self::NoLayout { .. } | Self::NoImage { .. } | Self::NotPacked(..) | Self::Stream(_) => {
                Class::Input
            }
            Self::Malformed { .. } | Self::Digest { .. } | Self::Blob { .. } | Self::Entry(..) => {
                Class::Verification
            }
            Self::Cancelled => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(error) => io_hint(error),
            Self::NotALayout(_) => Some("name a new or empty directory with --output".into()),
            Self::NoLayout { .. } => Some("`imgbuild kernel VERSION --output DIR` makes one".into()),
            Self::Digest { .. } | Self::Blob { .. } => {
                Some("the layout is damaged: build the images again".into())
            }
            _ => None,
        }
    }
}
