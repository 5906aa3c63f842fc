//! Signatures by keys: ECDSA over P-256 with SHA-256, in the forms that cosign reads and writes.
//!
//! What a signature says is in the bytes it is over; this room knows no registry and no image.

pub mod bundle;
mod cosign;
pub mod dsse;
mod key;
pub mod simple;
pub mod statement;

use crate::step::{Class, Diagnose};

pub use key::{Key, PASSWORD, Public, is_private};

/// A key or something signed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key's file cannot be read.
    #[error("no key can be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// What should hold a key does not.
    #[error("`{name}` holds no key: {reason}")]
    NoKey {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is of a kind that is not taken.
    #[error("`{name}` holds {kind}; signatures here are ECDSA over P-256")]
    Kind {
        /// The file.
        name: String,
        /// "an RSA key".
        kind: String,
    },
    /// A private key where a public one is wanted, or the other way round.
    #[error("`{name}` holds a {found} key, and a {wanted} one is wanted")]
    Half {
        /// The file.
        name: String,
        /// "private".
        found: &'static str,
        /// "public".
        wanted: &'static str,
    },
    /// The key is encrypted, and no password is known.
    #[error("`{name}` is encrypted, and {PASSWORD} is not set")]
    NoPassword {
        /// The file.
        name: String,
    },
    /// The password does not open the key.
    #[error("`{name}` cannot be opened: the password is wrong, or the file is damaged")]
    WrongPassword {
        /// The file.
        name: String,
    },
    /// What should be signed is not of the form it should have.
    #[error("`{name}` is no {form}: {reason}")]
    Malformed {
        /// What it is called.
        name: String,
        /// What it should be.
        form: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Unreadable(_) => Class::Input,
            Self::Malformed { .. } => Class::Verification,
            _ => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable(_) => "`cosign generate-key-pair` makes cosign.key and cosign.pub; so does openssl, see `imgbuild sign --help`".into(),
            Self::NoKey { .. } => {
                "a key is a PEM file: cosign.pub or cosign.key, or what openssl makes of an ECDSA key".into()
            }
            Self::Kind { .. } => "`cosign generate-key-pair` makes keys of this kind".into(),
            Self::Half { wanted: "public", .. } => "`imgbuild sign` and `--attest` sign with the private key; everything else wants cosign.pub".into(),
            Self::Half { .. } => "signing takes the private key: cosign.key".into(),
            Self::NoPassword { .. } => format!("set {PASSWORD}, as for cosign"),
            Self::WrongPassword { .. } => format!("look at {PASSWORD}: it is the password that was given when the key was made"),
            Self::Malformed { .. } => return None,
        })
    }
}
