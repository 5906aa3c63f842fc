//! Everything that lies beside a digest in a registry, brought once. Whatever of it cannot be read is kept as the reason:
//! anybody who may push can put rubbish there, and what is good beside it still counts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::attest::statement::{PREDICATE, Statement as Provenance};
use crate::attest::{PROVENANCE, SBOM};
use crate::registry::referrers::{self, Referrer};
use crate::registry::sidecar::{self, Note};
use crate::registry::{self, Client};
use crate::sign::bundle::{self, BUNDLE};
use crate::sign::dsse::Envelope;
use crate::sign::statement::{SIGNATURE, STATEMENT, Statement};
use crate::sign::{self, Public, simple};

/// What lies beside a digest.
pub struct Beside {
    /// The digest.
    pub digest: String,
    notes: Vec<Note>,
    bundles: Vec<Result<Bundle, String>>,
    statements: Vec<Result<Vec<u8>, String>>,
    sboms: Vec<Result<Vec<u8>, String>>,
}

/// A signed statement, whoever signed it.
pub(super) struct Bundle {
    envelope: Envelope,
    payload: Vec<u8>,
    /// What is said.
    pub(super) statement: Statement,
}

/// A signature of the image itself.
pub(super) enum Signature<'b> {
    /// In cosign 2's form.
    Note(&'b Note),
    /// In cosign 3's.
    Bundle(&'b Bundle),
    /// One that cannot be read.
    Broken(&'b str),
}

/// A provenance.
pub(super) enum Claim<'b> {
    /// Just so.
    Bare(&'b Result<Vec<u8>, String>),
    /// Signed.
    Signed(&'b Bundle),
}

impl Beside {
    /// Brings what lies beside `digest`.
    pub fn read(client: &Client, repository: &str, digest: &str) -> Result<Self, registry::Error> {
        let notes = sidecar::read(client, repository, digest)?;
        let mut beside = Self {
            digest: digest.to_owned(),
            notes: notes.into_iter().filter(|note| note.media_type == simple::PAYLOAD).collect(),
            bundles: Vec::new(),
            statements: Vec::new(),
            sboms: Vec::new(),
        };
        for referrer in referrers::list(client, repository, digest, None)? {
            match referrer.artifact_type.as_str() {
                BUNDLE => {
                    let bytes = fetch(client, repository, &referrer)?;
                    let opened = bytes.and_then(|bytes| {
                        Bundle::open(&referrer.digest, &bytes).map_err(|error| error.to_string())
                    });
                    beside.bundles.push(opened);
                }
                PROVENANCE => beside.statements.push(fetch(client, repository, &referrer)?),
                SBOM => beside.sboms.push(fetch(client, repository, &referrer)?),
                _ => {}
            }
        }
        Ok(beside)
    }

    /// What claims to be a signature.
    pub(super) fn signatures(&self) -> Vec<Signature<'_>> {
        let bundles = self.bundles.iter().filter_map(|bundle| match bundle {
            Ok(bundle) if bundle.statement.predicate_type == SIGNATURE => Some(Signature::Bundle(bundle)),
            Ok(_) => None,
            Err(reason) => Some(Signature::Broken(reason)),
        });
        self.notes.iter().map(Signature::Note).chain(bundles).collect()
    }

    /// What claims to be a provenance, signed ones first.
    pub(super) fn provenances(&self) -> impl Iterator<Item = Claim<'_>> {
        self.signed(PREDICATE).map(Claim::Signed).chain(self.statements.iter().map(Claim::Bare))
    }

    /// Signed statements of one type.
    pub(super) fn signed<'b>(&'b self, predicate: &'b str) -> impl Iterator<Item = &'b Bundle> {
        self.bundles.iter().flatten().filter(move |bundle| bundle.statement.predicate_type == predicate)
    }

    pub(super) fn sboms(&self) -> impl Iterator<Item = Result<&[u8], String>> {
        self.sboms.iter().map(|sbom| sbom.as_deref().map_err(Clone::clone))
    }
}

/// What is attached, or why that cannot be used. A registry that does not answer is an error.
fn fetch(
    client: &Client,
    repository: &str,
    referrer: &Referrer,
) -> Result<Result<Vec<u8>, String>, registry::Error> {
    match referrers::fetch(client, repository, referrer) {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(
            error @ (registry::Error::Digest { .. }
            | registry::Error::Malformed { .. }
            | registry::Error::TooLarge { .. }
            | registry::Error::NotFound(_)),
        ) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

impl Bundle {
    fn open(name: &str, bytes: &[u8]) -> Result<Self, sign::Error> {
        let envelope = bundle::parse(name, bytes)?;
        let payload = envelope.payload()?;
        if envelope.payload_type() != STATEMENT {
            return Err(sign::Error::Malformed {
                name: name.to_owned(),
                form: "signed statement",
                reason: format!("its payload is `{}`", envelope.payload_type()),
            });
        }
        let statement = Statement::parse(name, &payload)?;
        Ok(Self { envelope, payload, statement })
    }

    /// Those of `keys` that signed it.
    pub(super) fn signers<'k>(&self, keys: &'k [Public]) -> Vec<&'k Public> {
        self.envelope.signers(keys).unwrap_or_default()
    }

    /// Fails unless it is about this digest.
    pub(super) fn about(&self, digest: &str) -> Result<(), String> {
        let subjects = self.statement.subjects();
        if subjects.iter().any(|subject| subject == digest) {
            return Ok(());
        }
        Err(format!("about another digest, {}", subjects.join(" and ")))
    }
}

impl Signature<'_> {
    /// Those of `keys` that signed this digest, or why it does not count.
    pub(super) fn check<'k>(&self, digest: &str, keys: &'k [Public]) -> Result<Vec<&'k Public>, String> {
        let signers = match self {
            Self::Broken(reason) => return Err((*reason).to_owned()),
            Self::Bundle(bundle) => {
                bundle.about(digest)?;
                bundle.signers(keys)
            }
            Self::Note(note) => {
                let about = simple::about(&sidecar::tag(digest), &note.bytes);
                let about = about.map_err(|error| error.to_string())?;
                if about != digest {
                    return Err(format!("about another digest, {about}"));
                }
                let written = note.annotations.get(simple::SIGNATURE).map_or("", String::as_str);
                let signature = STANDARD.decode(written).unwrap_or_default();
                keys.iter().filter(|key| key.verify(&note.bytes, &signature)).collect()
            }
        };
        if signers.is_empty() {
            return Err("signed, but by none of the keys".into());
        }
        Ok(signers)
    }
}

impl Claim<'_> {
    /// The statement, if it is about this digest.
    pub(super) fn statement(&self, digest: &str) -> Result<Provenance, String> {
        let bytes = match self {
            Self::Bare(bytes) => bytes.as_ref().map_err(Clone::clone)?,
            Self::Signed(bundle) => &bundle.payload,
        };
        Provenance::parse(bytes, digest).map_err(|error| error.to_string())
    }

    /// Who of `keys` signed it, by name; none if it is not signed at all.
    pub(super) fn signers(&self, keys: &[Public]) -> Option<Vec<String>> {
        match self {
            Self::Bare(_) => None,
            Self::Signed(bundle) => {
                Some(bundle.signers(keys).into_iter().map(|key| key.name().to_owned()).collect())
            }
        }
    }
}
