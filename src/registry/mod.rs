//! Registries: credentials, tokens, and images moved to and from them by the OCI distribution specification 1.1.
//!
//! A push is never visible half: blobs come first, then manifests, the index and its tag last. Whatever comes from a
//! registry is checked against the digest it was asked by.

mod append;
mod auth;
mod blob;
mod client;
pub mod credentials;
mod hosts;
mod http;
mod parcel;
mod pull;
mod push;
pub mod reference;
pub mod referrers;
mod resolve;
pub mod sidecar;
mod space;
mod stream;
mod tags;
#[cfg(test)]
mod tests;
mod tree;
mod upload;

use crate::document::list;
use crate::oci;
use crate::step::{Class, Diagnose, human, io_hint};

pub use append::join;
pub use client::{Client, Options};
pub use parcel::{Blob, Parcel};
pub use pull::{Pulled, documents, layers, pull};
pub use push::{Known, Pushed, Source, copy, push};
pub use resolve::{Resolved, resolve};
pub use tags::{Advanced, Composed, Standing, advance, compose, lookup, tag};

/// An image could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What should name an image or a registry does not.
    #[error("`{text}` is no image reference: {reason}")]
    Reference {
        /// What was given, without anything that may be a password.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The registry did not answer rightly, however often it was asked.
    #[error("{registry}: cannot {what}: {reason} ({})", attempts(*.tries))]
    Unreachable {
        /// The registry.
        registry: String,
        /// What was to be done.
        what: String,
        /// The last reason.
        reason: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The registry asks who we are, or knows it and does not let us.
    #[error("{registry}: cannot {what}: {reason} ({who})")]
    Denied {
        /// The registry.
        registry: String,
        /// What was to be done.
        what: String,
        /// What the registry said.
        reason: String,
        /// As whom we asked.
        who: String,
        /// Whether we had credentials.
        known: bool,
    },
    /// Nothing is there.
    #[error("`{0}` is not there")]
    NotFound(String),
    /// The registry refuses, or answers what it must not.
    #[error("{registry}: cannot {what}: {reason}")]
    Refused {
        /// The registry.
        registry: String,
        /// What was to be done.
        what: String,
        /// What the registry said, or what is wrong with its answer.
        reason: String,
    },
    /// The registry sends us where it must not.
    #[error("{registry} sends us to `{to}`, {reason}: not followed")]
    Astray {
        /// The registry.
        registry: String,
        /// Where to, without what may be secret.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// Something does not have the digest it goes by.
    #[error("`{what}` does not have its digest: it should be {expected}, but is {actual}")]
    Digest {
        /// The thing.
        what: String,
        /// Its digest.
        expected: String,
        /// The digest or size found.
        actual: String,
    },
    /// A document is longer than any is.
    #[error("`{what}` is longer than {}, which no manifest is", human(*.limit))]
    TooLarge {
        /// The document.
        what: String,
        /// How long it may be, in bytes.
        limit: u64,
    },
    /// A document cannot be understood.
    #[error("`{what}` is no image: {reason}")]
    Malformed {
        /// The document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The image is not for this platform.
    #[error("`{reference}` has no image for {wanted}; it has {}", list(.found.iter().map(String::as_str)))]
    NoPlatform {
        /// The image.
        reference: String,
        /// The architecture asked for.
        wanted: String,
        /// The architectures it is for.
        found: Vec<String>,
    },
    /// Somebody else moves the same tag all the time.
    #[error("`{reference}` was changed by somebody else each time it was extended ({})", attempts(*.tries))]
    Contended {
        /// The tag.
        reference: String,
        /// How often it was tried.
        tries: u32,
    },
    /// Credentials cannot be had or kept.
    #[error(transparent)]
    Credentials(#[from] credentials::Error),
    /// The layout.
    #[error(transparent)]
    Layout(#[from] oci::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Stopped by the user.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// `text` is no reference; what stands before an `@` where a host should be may be a password.
    fn reference(text: &str, reason: &'static str) -> Self {
        let from = text.find("://").map_or(0, |at| at + 3);
        let host = text[from..].split('/').next().unwrap_or_default();
        let text = match host.rfind('@') {
            Some(at) => format!("{}…{}", &text[..from], &text[from + at..]),
            None => text.to_owned(),
        };
        Self::Reference { text, reason }
    }
}

fn attempts(tries: u32) -> String {
    if tries == 1 { "1 attempt".into() } else { format!("{tries} attempts") }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Reference { .. } => Class::Usage,
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Astray { .. }
            | Self::Contended { .. } => Class::Registry,
            Self::NotFound(_) | Self::NoPlatform { .. } => Class::Input,
            Self::Digest { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => Class::Verification,
            Self::Credentials(error) => error.class(),
            Self::Layout(error) => error.class(),
            Self::Io(_) => Class::Host,
            Self::Cancelled => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Reference { .. } => Some("write it as `registry.example/org/name:tag`".into()),
            Self::Unreachable { reason, .. } if reason.contains("certificate") => {
                Some("if a CA of your own signed it, name that CA's certificate: SSL_CERT_FILE=PATH".into())
            }
            Self::Unreachable { registry, .. } => Some(format!(
                "run the same command again: what has arrived is not sent twice; if it never answers, look whether `{registry}` is right"
            )),
            Self::Denied { registry, known: false, .. } => {
                Some(format!("`imgbuild login {registry} --username NAME --password-stdin`"))
            }
            Self::Denied { .. } => {
                Some("the password may be wrong or outdated, or the account may lack the right".into())
            }
            Self::NotFound(_) => Some("look at its repository and tag, or whether it was pushed".into()),
            Self::Astray { .. } => {
                Some("the registry, or somebody between, is damaged or lying; tell its operator".into())
            }
            Self::Digest { .. } => Some(
                "what was read is damaged: the registry, a cache between, or the layout on disk is at fault"
                    .into(),
            ),
            Self::NoPlatform { found, .. } => {
                found.first().map(|arch| format!("`--arch {arch}`, or leave it out for all"))
            }
            Self::Contended { .. } => Some("run the same command again when the other one is done".into()),
            Self::Credentials(error) => error.hint(),
            Self::Layout(error) => error.hint(),
            Self::Io(error) => io_hint(error),
            Self::Refused { .. } | Self::TooLarge { .. } | Self::Malformed { .. } | Self::Cancelled => None,
        }
    }
}
