//! Sigstore bundles (v0.3): an envelope, and a hint at the key it was signed with.

use serde_json::{Value, json};

use super::dsse::Envelope;
use super::{Error, Public};

/// The media type of a bundle, and the artifact type of the referrer that brings one.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// In this annotation of its manifest a bundle says what it holds.
pub const CONTENT: (&str, &str) = ("dev.sigstore.bundle.content", "dsse-envelope");
/// And in this one, of which type the statement's predicate is.
pub const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// A bundle of an envelope that the owner of `key` signed.
pub fn write(envelope: &Envelope, key: &Public) -> Vec<u8> {
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": key.hint() } },
        "dsseEnvelope": envelope,
    });
    bundle.to_string().into_bytes()
}

/// The envelope in a bundle.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Envelope, Error> {
    let malformed = |reason: String| Error::Malformed { name: name.into(), form: "sigstore bundle", reason };
    let mut bundle: Value = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let envelope = bundle["dsseEnvelope"].take();
    if envelope.is_null() {
        return Err(malformed("it has no DSSE envelope".into()));
    }
    serde_json::from_value(envelope).map_err(|error| malformed(error.to_string()))
}
