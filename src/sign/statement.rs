//! in-toto statements, as far as who signs them has to know them: about which digests, and of which type.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Error;

/// The payload type of a statement in an envelope.
pub const STATEMENT: &str = "application/vnd.in-toto+json";
/// The predicate that says no more than that the signer signed.
pub const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";
/// What a statement says it is; the older one is read too.
const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// A statement.
#[derive(Debug, Clone, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    /// Of which type the predicate is.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said.
    #[serde(default)]
    pub predicate: Value,
}

#[derive(Debug, Clone, Deserialize)]
struct Subject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

/// A statement's bytes: `predicate` holds for the digest `subject` (`sha256:…`).
pub fn write(subject: &str, name: Option<&str>, predicate_type: &str, predicate: &Value) -> Vec<u8> {
    let digits = subject.strip_prefix("sha256:").unwrap_or(subject);
    let mut resource = json!({ "digest": { "sha256": digits } });
    if let Some(name) = name {
        resource["name"] = json!(name);
    }
    let statement = json!({
        "_type": TYPES[0],
        "subject": [resource],
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    statement.to_string().into_bytes()
}

impl Statement {
    /// Reads a statement.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let malformed =
            |reason: String| Error::Malformed { name: name.into(), form: "in-toto statement", reason };
        let statement: Self = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if !TYPES.contains(&statement.kind.as_str()) {
            return Err(malformed(format!("its type is `{}`", statement.kind)));
        }
        Ok(statement)
    }

    /// The digests it is about: `sha256:…`.
    pub fn subjects(&self) -> Vec<String> {
        let digests = self.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
        digests.map(|digits| format!("sha256:{digits}")).collect()
    }
}
