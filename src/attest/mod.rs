//! What is told of an image beside it: what it holds (SPDX 2.3) and how it was made (in-toto, SLSA provenance v1).
//!
//! Whatever differs between two honest builds (times, run ids) is here and never in the image. Documents are bytes of
//! sorted JSON; how they come to a registry, and who signs them, is not this room's.

pub mod spdx;
pub mod statement;

use crate::step::{Class, Diagnose};

/// The media type of an SBOM, and the artifact type of the referrer that brings one.
pub const SBOM: &str = "application/spdx+json";
/// The media type of an unsigned in-toto statement, and the artifact type of the referrer that brings one.
pub const PROVENANCE: &str = "application/vnd.in-toto+json";

/// A document cannot be taken for what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no in-toto statement about SLSA provenance.
    #[error("the provenance of `{subject}` is none: {reason}")]
    NoProvenance {
        /// What it should be about: a digest, or the place it was found at.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is about something else.
    #[error("the provenance of `{subject}` is about {about}")]
    OtherSubject {
        /// What it should be about.
        subject: String,
        /// The digests it names.
        about: String,
    },
    /// It is no SBOM.
    #[error("the SBOM of `{subject}` is none: {reason}")]
    NoSbom {
        /// What it should be about.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        Class::Verification
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::OtherSubject { .. } => {
                "it was made for another image: somebody attached it to this one by mistake, or to deceive"
                    .into()
            }
            Self::NoProvenance { .. } | Self::NoSbom { .. } => {
                "it may be damaged, or of another tool: whoever published the image can attach it anew".into()
            }
        })
    }
}
