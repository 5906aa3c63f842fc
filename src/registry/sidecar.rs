//! Signatures as cosign 2 keeps them: layers of an image under the tag `sha256-HEX.sig`.

use std::collections::BTreeMap;

use oci_spec::image::MediaType;
use serde_json::{Value, json};

use super::Error;
use super::append::current;
use super::client::{Client, Document};
use super::referrers::{amend, blob_bytes, put};
use super::tree::{Content, Entry};

/// One thing under such a tag.
#[derive(Debug, Clone)]
pub struct Note {
    /// What it is.
    pub media_type: String,
    /// What is written beside it.
    pub annotations: BTreeMap<String, String>,
    /// Its bytes, whose digest was checked.
    pub bytes: Vec<u8>,
}

/// The tag beside an image: `.sig` of its digest.
pub fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replacen(':', "-", 1))
}

/// Everything under the tag beside an image.
pub fn read(client: &Client, repository: &str, digest: &str) -> Result<Vec<Note>, Error> {
    let Some(document) = current(client, repository, &tag(digest))? else { return Ok(Vec::new()) };
    let written: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
    let Content::Image { layers, .. } = document.content()? else {
        let what = client.name(repository, &tag(digest));
        return Err(Error::Malformed {
            what,
            reason: "signatures stand under such a tag, and this is an index".into(),
        });
    };
    let beside = written["layers"].as_array().into_iter().flatten();
    let note = |(layer, written): (&Entry, &Value)| {
        Ok(Note {
            media_type: layer.media_type.clone(),
            annotations: serde_json::from_value(written["annotations"].clone()).unwrap_or_default(),
            bytes: blob_bytes(client, repository, layer)?,
        })
    };
    layers.iter().zip(beside).map(note).collect()
}

/// Copies everything under the tag beside an image to the same image in another repository, or another registry, and keeps
/// what is there. Returns how much that was.
pub fn copy(
    from: (&Client, &str),
    (client, repository): (&Client, &str),
    digest: &str,
) -> Result<usize, Error> {
    let notes = read(from.0, from.1, digest)?;
    notes.iter().try_for_each(|note| add(client, repository, digest, note))?;
    Ok(notes.len())
}

/// Adds something under the tag beside an image, and keeps what is there.
pub fn add(client: &Client, repository: &str, digest: &str, note: &Note) -> Result<(), Error> {
    client.will_write(repository);
    let layer = json!({
        "mediaType": note.media_type,
        "digest": put(client, repository, &note.bytes)?,
        "size": note.bytes.len(),
        "annotations": note.annotations,
    });
    amend(client, repository, &tag(digest), &|before| {
        let written: Value =
            before.map_or(Value::Null, |before| serde_json::from_slice(&before.bytes).unwrap_or_default());
        let mut layers = written["layers"].as_array().cloned().unwrap_or_default();
        if layers.contains(&layer) {
            return Ok(None);
        }
        layers.push(layer.clone());
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let config = json!({
            "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "config": {
                "mediaType": MediaType::ImageConfig.to_string(),
                "digest": put(client, repository, &config)?,
                "size": config.len(),
            },
            "layers": layers,
        });
        Ok(Some(Document::new(MediaType::ImageManifest.as_ref(), manifest.to_string().into_bytes())))
    })
}
