//! Images signed in a registry, in the forms that cosign reads.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::registry::referrers::{self, Attachment};
use crate::registry::sidecar::{self, Note};
use crate::registry::{self, Client};
use crate::sign::bundle::{self, BUNDLE, CONTENT, PREDICATE};
use crate::sign::dsse::Envelope;
use crate::sign::statement::{self, SIGNATURE, STATEMENT, Statement};
use crate::sign::{self, Key, simple};
use crate::step::{Class, Diagnose};

/// Something cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The key, or what is to be signed.
    #[error(transparent)]
    Sign(#[from] sign::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Registry(error) => error.class(),
            Self::Sign(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Sign(error) => error.hint(),
        }
    }
}

/// Signs a digest of a repository, for every cosign: as a bundle that is attached to it, which cosign 3 reads, and under
/// the tag `sha256-HEX.sig`, which cosign 2 reads. What is signed so already stays as it is.
pub fn sign(client: &Client, repository: &str, digest: &str, key: &Key) -> Result<(), Error> {
    let statement = statement::write(digest, None, SIGNATURE, &serde_json::json!({}));
    attach_statement(client, repository, digest, &statement, key)?;
    let payload = simple::payload(&format!("{}/{repository}", client.host()), digest);
    let signature = STANDARD.encode(key.sign(&payload));
    let annotations = BTreeMap::from([(simple::SIGNATURE.to_owned(), signature)]);
    let note = Note { media_type: simple::PAYLOAD.to_owned(), annotations, bytes: payload };
    sidecar::add(client, repository, digest, &note)?;
    Ok(())
}

/// Signs an in-toto statement and attaches it to a digest: what `cosign verify-attestation` reads. Returns the digest of
/// what brings it.
pub fn attach_statement(
    client: &Client,
    repository: &str,
    digest: &str,
    statement: &[u8],
    key: &Key,
) -> Result<String, Error> {
    let predicate = Statement::parse("what is to be signed", statement)?.predicate_type;
    let envelope = Envelope::seal(key, STATEMENT, statement);
    let annotations = [(CONTENT.0, CONTENT.1.to_owned()), (PREDICATE, predicate)];
    let attachment = Attachment {
        artifact_type: BUNDLE,
        media_type: BUNDLE,
        bytes: &bundle::write(&envelope, &key.public()),
        annotations: annotations.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    Ok(referrers::attach(client, repository, digest, &attachment)?)
}
