//! OpenPGP signatures, and which of them count: rPGP does the arithmetic, the policy is ours.
//!
//! A signature counts if it is by a key that `keys/roles.toml` lists for the role, by its fingerprint; if the key is
//! not revoked, has not expired (neither by the signature's time nor by now) and says that it may sign; and if the
//! signature is by a strong hash, not from the future, and without critical parts that nobody here understands.

mod cleartext;
mod keyring;
mod policy;
#[cfg(test)]
mod tests;

pub use keyring::{Keyring, Role, Trusted};

use std::cell::RefCell;
use std::io::{self, Read};

use pgp::composed::{Deserializable, DetachedSignature};
use pgp::packet::{Signature, SignatureType};

use crate::document::Mistakes;
use crate::step::{Class, Diagnose};

/// A moment, in seconds since 1970.
pub type Seconds = u32;

/// The present.
pub fn now() -> Seconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The fingerprint that the key is trusted by.
    pub fingerprint: String,
    /// Whose key it is.
    pub owner: String,
}

/// Why a signed document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of keys is wrong.
    #[error(transparent)]
    Roles(#[from] Mistakes),
    /// There is no list of keys.
    #[error("`{path}` does not exist, so no signature counts")]
    NoRoles {
        /// Where it would be.
        path: String,
    },
    /// The public part of a key that is needed is not there.
    #[error("no public key for {role}: {}", .missing.iter().map(|key| format!("{} ({})", key.fingerprint, key.owner)).collect::<Vec<_>>().join(", "))]
    NoMaterial {
        /// What it would sign.
        role: Role,
        /// Whose keys are missing.
        missing: Vec<Signer>,
        /// Where the file of the first one belongs.
        path: String,
    },
    /// A key file is not what it should be.
    #[error("`{path}` is not the key it should be: {reason}")]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The document is not believed.
    #[error("`{document}` is refused: {reason}")]
    Refused {
        /// URL or path.
        document: String,
        /// Why.
        reason: Refusal,
    },
    /// Something cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is wrong with a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be parsed.
    #[error("it is not {0}")]
    Malformed(String),
    /// It is not of the kind that signs documents like this one.
    #[error("its signature is of another kind ({0})")]
    Kind(String),
    /// It does not say whose it is.
    #[error("its signature does not say which key made it")]
    Anonymous,
    /// Nobody we know made it.
    #[error("it is signed by {0}, a key nobody listed")]
    UnknownSigner(String),
    /// It is by a key that may sign other things.
    #[error("it is signed by {signer}, whose key signs {theirs}, not {ours}")]
    OtherRole {
        /// Whose key.
        signer: String,
        /// What the key signs.
        theirs: Role,
        /// What was to be signed.
        ours: Role,
    },
    /// Its hash can be forged.
    #[error("its signature is by {0}, which can be forged")]
    WeakHash(String),
    /// It holds something critical that is not understood.
    #[error("its signature has a critical part of a kind that is not known here ({0})")]
    Critical(String),
    /// It is from the future.
    #[error("its signature was made on {0}, which is in the future")]
    Future(String),
    /// It is no longer valid.
    #[error("its signature expired on {0}")]
    Expired(String),
    /// The key was revoked.
    #[error("the key {signer} is revoked")]
    KeyRevoked {
        /// Whose key.
        signer: String,
    },
    /// The key has expired.
    #[error("the key {signer} expired on {date}")]
    KeyExpired {
        /// Whose key.
        signer: String,
        /// When.
        date: String,
    },
    /// The signature is older than the key.
    #[error("its signature is older than the key {signer}")]
    BeforeKey {
        /// Whose key.
        signer: String,
    },
    /// The key may not sign.
    #[error("the key {signer} is not one for signing")]
    NotForSigning {
        /// Whose key.
        signer: String,
    },
    /// The key says nothing about itself that holds.
    #[error("the key {signer} has no valid statement of its owner")]
    NoSelfSignature {
        /// Whose key.
        signer: String,
    },
    /// The arithmetic does not work out: another text was signed, or another key signed.
    #[error("the signature of {signer} is not over this content")]
    Wrong {
        /// Whose key.
        signer: String,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Roles(mistakes) => mistakes.class(),
            Self::NoRoles { .. } | Self::NoMaterial { .. } => Class::Input,
            Self::KeyFile { .. } | Self::Refused { .. } => Class::Verification,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Roles(mistakes) => mistakes.hint(),
            Self::NoRoles { .. } => {
                Some("a catalogue that is to verify new versions needs keys/, as the project's has".into())
            }
            Self::NoMaterial { path, .. } => {
                let (place, path) = match path.strip_prefix("<built-in>/") {
                    Some(path) => ("in a checkout of imgbuild, ", path),
                    None => ("", path.as_str()),
                };
                Some(format!(
                    "{place}put its ASCII-armoured public key at `{path}` (see keys/README.md), or pin the version by hand"
                ))
            }
            Self::KeyFile { .. } => {
                Some("each file holds one public key and is named after its fingerprint".into())
            }
            Self::Refused { reason, .. } => Some(reason.hint().into()),
            Self::Io(error) => crate::step::io_hint(error),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Roles(mistakes) => mistakes.detail(),
            _ => None,
        }
    }
}

impl Refusal {
    fn hint(&self) -> &'static str {
        match self {
            Self::Future(_) => "is this machine's clock right?",
            Self::KeyExpired { .. } => {
                "owners extend their keys under the same fingerprint: bring the key's fresh file into keys/"
            }
            Self::KeyRevoked { .. } => "nothing it signed can be trusted any more: its owner names a new key",
            Self::Malformed(_) => "the mirror is damaged, or this is an error page: try another mirror",
            _ => "the mirror is damaged or lying: try another one, and take nothing from this one",
        }
    }
}

/// Verifies a clearsigned document; returns its text, as it was signed, and who signed it.
pub fn verify_cleartext(
    document: &str,
    bytes: &[u8],
    keyring: &Keyring,
    role: Role,
    now: Seconds,
) -> Result<(String, Signer), Error> {
    let refused = |reason| Error::Refused { document: document.to_owned(), reason };
    let split = cleartext::split(bytes).map_err(|reason| refused(Refusal::Malformed(reason)))?;
    let signatures = signatures(split.signature.as_bytes()).map_err(refused)?;
    let holds = |signature: &Signature, key: &policy::Component<'_>| {
        Ok(policy::verify(signature, key, split.text.as_bytes()))
    };
    let signer = accept(document, &signatures, SignatureType::Text, keyring, role, now, holds)?;
    Ok((split.text, signer))
}

/// Verifies a detached signature over what `open` yields; it is read once for each signature that may count.
pub fn verify_detached<R: Read>(
    document: &str,
    signature: &[u8],
    keyring: &Keyring,
    role: Role,
    now: Seconds,
    open: impl Fn() -> io::Result<R>,
) -> Result<Signer, Error> {
    let refused = |reason| Error::Refused { document: document.to_owned(), reason };
    let signatures = signatures(signature).map_err(refused)?;
    let holds = |signature: &Signature, key: &policy::Component<'_>| {
        // rPGP tells a failed read as a wrong signature: the difference is ours to keep.
        let failure = RefCell::new(None);
        let holds = policy::verify(signature, key, Watched { inner: open()?, failure: &failure });
        failure.into_inner().map_or(Ok(holds), Err)
    };
    accept(document, &signatures, SignatureType::Binary, keyring, role, now, holds)
}

/// The first signature that counts and holds; else why the first one does not.
fn accept(
    document: &str,
    signatures: &[Signature],
    kind: SignatureType,
    keyring: &Keyring,
    role: Role,
    now: Seconds,
    holds: impl Fn(&Signature, &policy::Component<'_>) -> io::Result<bool>,
) -> Result<Signer, Error> {
    let mut first = None;
    for signature in signatures {
        let judged = policy::sound(signature, kind, now).and_then(|made| {
            let found = keyring.signer_of(signature, role)?;
            policy::judge(&found, made, now).map_err(policy::Rejection::from).map(|()| found)
        });
        let reason = match judged {
            Ok(found) if holds(signature, &found.component)? => return Ok(found.trusted.signer()),
            Ok(found) => Refusal::Wrong { signer: found.trusted.name() },
            Err(policy::Rejection::Refusal(reason)) => reason,
            Err(policy::Rejection::NoMaterial(error)) => {
                first.get_or_insert(*error);
                continue;
            }
        };
        first.get_or_insert(Error::Refused { document: document.to_owned(), reason });
    }
    Err(first.unwrap_or_else(|| {
        let reason = Refusal::Malformed("signed".into());
        Error::Refused { document: document.to_owned(), reason }
    }))
}

/// The signature packets of an armoured block, which holds nothing else.
fn signatures(armored: &[u8]) -> Result<Vec<Signature>, Refusal> {
    let malformed = |_| Refusal::Malformed("an OpenPGP signature".into());
    let (parsed, _) = DetachedSignature::from_armor_many(armored).map_err(malformed)?;
    parsed.map(|each| each.map(|detached| detached.signature).map_err(malformed)).collect()
}

/// A day, for people.
fn date(seconds: Seconds) -> String {
    jiff::Timestamp::from_second(i64::from(seconds))
        .map_or_else(|_| seconds.to_string(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// A reader that keeps the error it stopped at.
struct Watched<'f, R> {
    inner: R,
    failure: &'f RefCell<Option<io::Error>>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                *self.failure.borrow_mut() = Some(error);
            }
            kind.into()
        })
    }
}
