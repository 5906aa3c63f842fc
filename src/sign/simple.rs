//! Simple signing: what cosign 2 signs of an image.

use serde::Deserialize;
use serde_json::json;

use super::Error;

/// The media type of a payload, which is a layer of what stands under the tag `sha256-HEX.sig`.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The layer's annotation that has the signature, in base64.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What a payload says it is.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The payload for an image: `repository` as people call it, and its digest.
pub fn payload(repository: &str, digest: &str) -> Vec<u8> {
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": repository },
            "image": { "docker-manifest-digest": digest },
            "type": TYPE,
        },
        "optional": null,
    });
    payload.to_string().into_bytes()
}

/// The digest that a payload is about.
pub fn about(name: &str, payload: &[u8]) -> Result<String, Error> {
    let malformed =
        |reason: String| Error::Malformed { name: name.into(), form: "payload of a signature", reason };
    let payload: Payload = serde_json::from_slice(payload).map_err(|error| malformed(error.to_string()))?;
    if payload.critical.kind != TYPE {
        return Err(malformed(format!("its type is `{}`", payload.critical.kind)));
    }
    Ok(payload.critical.image.digest)
}
