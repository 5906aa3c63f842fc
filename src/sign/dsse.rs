//! DSSE envelopes: a payload with its type and the signatures over both.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Error, Key, Public};

/// A payload and who signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Base64.
    payload: String,
    payload_type: String,
    signatures: Vec<Signed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signed {
    /// Base64, of DER.
    sig: String,
}

impl Envelope {
    /// Signs a payload of this type.
    pub fn seal(key: &Key, payload_type: &str, payload: &[u8]) -> Self {
        let sig = STANDARD.encode(key.sign(&encoding(payload_type, payload)));
        Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signed { sig }],
        }
    }

    /// What the payload is.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload, which anybody may have written: see [`Envelope::signers`].
    pub fn payload(&self) -> Result<Vec<u8>, Error> {
        let malformed = |error: base64::DecodeError| Error::Malformed {
            name: "the envelope".into(),
            form: "DSSE envelope",
            reason: format!("its payload is no base64: {error}"),
        };
        STANDARD.decode(&self.payload).map_err(malformed)
    }

    /// Those of `keys` that signed this payload as being of this type.
    pub fn signers<'k>(&self, keys: &'k [Public]) -> Result<Vec<&'k Public>, Error> {
        let signed = encoding(&self.payload_type, &self.payload()?);
        let signatures: Vec<Vec<u8>> =
            self.signatures.iter().filter_map(|signed| STANDARD.decode(&signed.sig).ok()).collect();
        let is_by = |key: &&Public| signatures.iter().any(|signature| key.verify(&signed, signature));
        Ok(keys.iter().filter(is_by).collect())
    }
}

/// The bytes that are signed: type and payload, each with its length.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The example of its protocol.md.
        let encoded = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
