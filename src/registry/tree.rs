//! All that an image consists of: its index, manifests and blobs, in the order in which they are put.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Error;
use super::client::{Document, sha256};
use super::reference::is_digest;

/// How deep indexes may lie in indexes.
const DEPTH: usize = 4;
/// How many manifests an image may have.
const MEMBERS: usize = 1000;

/// What a configuration is called in messages.
const CONFIG: &str = "config";

/// A platform, as descriptors have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// A descriptor: what it describes, and how large that is, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    /// "arm64 layer", for messages.
    #[serde(skip)]
    pub(super) what: String,
}

impl Entry {
    /// Whether it is a configuration, in an image's tree.
    pub(super) fn is_config(&self) -> bool {
        self.what.ends_with(CONFIG)
    }
}

/// Index or manifest, as far as it says what is below it.
#[derive(Debug, Deserialize)]
struct Below {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<Vec<Entry>>,
    config: Option<Entry>,
    layers: Option<Vec<Entry>>,
}

/// What a document refers to.
#[derive(Debug)]
pub(super) enum Content {
    /// Of an index.
    Manifests(Vec<Entry>),
    /// Of a manifest.
    Image { config: Entry, layers: Vec<Entry> },
}

/// An image.
#[derive(Debug)]
pub(super) struct Tree {
    /// Its index, or its only manifest.
    pub(super) root: Document,
    /// The manifests below the root, each after all that it refers to.
    pub(super) members: Vec<Document>,
    /// Configurations and layers, each once.
    pub(super) blobs: Vec<Entry>,
}

impl Document {
    /// What it refers to; fails if it cannot be told whether it is an index or a manifest.
    pub(super) fn content(&self) -> Result<Content, Error> {
        let malformed = |reason: &str| Error::Malformed { what: self.digest.clone(), reason: reason.into() };
        let below: Below =
            serde_json::from_slice(&self.bytes).map_err(|error| malformed(&error.to_string()))?;
        if below.media_type.is_some_and(|said| !self.media_type.is_empty() && said != self.media_type) {
            return Err(malformed("it says another media type than its descriptor"));
        }
        let content = match (below.manifests, below.config, below.layers) {
            (Some(manifests), None, None) => Content::Manifests(manifests),
            (None, Some(config), layers) => Content::Image { config, layers: layers.unwrap_or_default() },
            (None, None, _) => return Err(malformed("it is neither index nor manifest")),
            // Who reads it as the one gets another image than who reads it as the other.
            _ => return Err(malformed("it is index and manifest at once")),
        };
        let entries: Vec<&Entry> = match &content {
            Content::Manifests(entries) => entries.iter().collect(),
            Content::Image { config, layers } => layers.iter().chain([config]).collect(),
        };
        match entries.iter().find(|entry| !is_digest(&entry.digest)) {
            Some(_) => Err(malformed("it names a digest that is not a sha256")),
            None => Ok(content),
        }
    }
}

impl Tree {
    /// Reads all manifests below `root`; `read` brings one of them.
    pub(super) fn read(
        root: Document,
        read: &mut dyn FnMut(&Entry) -> Result<Document, Error>,
    ) -> Result<Self, Error> {
        let (mut members, mut blobs) = (Vec::new(), BTreeMap::new());
        walk(&root, "", 0, &mut members, &mut blobs, read)?;
        let mut blobs: Vec<Entry> = blobs.into_values().collect();
        // Large ones first, so that the last one to end is small.
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        Ok(Self { root, members, blobs })
    }
}

fn walk(
    document: &Document,
    platform: &str,
    depth: usize,
    members: &mut Vec<Document>,
    blobs: &mut BTreeMap<String, Entry>,
    read: &mut dyn FnMut(&Entry) -> Result<Document, Error>,
) -> Result<(), Error> {
    match document.content()? {
        Content::Manifests(entries) => {
            if depth == DEPTH || members.len() + entries.len() > MEMBERS {
                let reason = "its indexes lie too deep or list too much".into();
                return Err(Error::Malformed { what: document.digest.clone(), reason });
            }
            for entry in entries {
                if members.iter().any(|member| member.digest == entry.digest) {
                    continue;
                }
                let member = read(&entry)?;
                check(&entry, &member)?;
                let platform =
                    entry.platform.as_ref().map_or_else(String::new, |platform| format!("{platform} "));
                walk(&member, &platform, depth + 1, members, blobs, read)?;
                members.push(member);
            }
        }
        Content::Image { config, layers } => {
            let named = layers.into_iter().map(|layer| (layer, "layer")).chain([(config, CONFIG)]);
            for (mut entry, kind) in named {
                entry.what = format!("{platform}{kind}");
                let known = blobs.entry(entry.digest.clone()).or_insert_with(|| entry.clone());
                if known.size != entry.size {
                    let reason = format!("it gives {} two sizes", entry.digest);
                    return Err(Error::Malformed { what: document.digest.clone(), reason });
                }
            }
        }
    }
    Ok(())
}

/// Whether a document is what its descriptor says.
fn check(entry: &Entry, document: &Document) -> Result<(), Error> {
    let wrong =
        |expected: String, actual: String| Error::Digest { what: entry.digest.clone(), expected, actual };
    let size = document.bytes.len() as u64;
    if document.digest != entry.digest {
        return Err(wrong(entry.digest.clone(), document.digest.clone()));
    }
    if size != entry.size {
        return Err(wrong(format!("{} bytes", entry.size), format!("{size} bytes")));
    }
    Ok(())
}

/// An entry for bytes at hand.
pub(super) fn entry(media_type: &str, bytes: &[u8], platform: Option<Platform>) -> Entry {
    Entry {
        media_type: media_type.to_owned(),
        digest: sha256(bytes),
        size: bytes.len() as u64,
        platform,
        what: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    fn described(bytes: &[u8]) -> Value {
        json!({ "mediaType": MANIFEST, "digest": sha256(bytes), "size": bytes.len() })
    }

    fn read(root: &Value, media_type: &str, members: &[Vec<u8>]) -> Result<Tree, String> {
        let root = Document::new(media_type, root.to_string().into_bytes());
        let mut find = |entry: &Entry| {
            let bytes = members.iter().find(|bytes| sha256(bytes) == entry.digest);
            bytes
                .map(|bytes| Document::new(MANIFEST, bytes.clone()))
                .ok_or_else(|| Error::NotFound("x".into()))
        };
        Tree::read(root, &mut find).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_is_its_manifests_and_its_blobs_once_large_ones_first() {
        let manifest = |layer: &[u8]| {
            json!({ "config": described(b"c"), "layers": [described(layer), described(layer)] }).to_string()
        };
        let members = [manifest(b"long layer").into_bytes(), manifest(b"layer").into_bytes()];
        let index =
            json!({ "manifests": [described(&members[0]), described(&members[1]), described(&members[0])] });
        let tree = read(&index, INDEX, &members).unwrap();
        assert_eq!(tree.members.len(), 2);
        assert_eq!(tree.blobs.iter().map(|blob| blob.size).collect::<Vec<_>>(), [10, 5, 1]);
        assert_eq!(tree.blobs[2].what, "config");
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let good = described(b"x");
        for (root, reason) in [
            (json!({ "manifests": [], "config": good, "layers": [] }), "index and manifest at once"),
            (json!({ "layers": [] }), "neither index nor manifest"),
            (json!([]), "no image"),
            (json!({ "mediaType": MANIFEST, "manifests": [] }), "another media type"),
            (json!({ "config": { "digest": "sha256:../../x", "size": 1 } }), "not a sha256"),
            (json!({ "config": good, "layers": [{ "digest": sha256(b"x"), "size": 2 }] }), "two sizes"),
        ] {
            let error = read(&root, INDEX, &[]).unwrap_err();
            assert!(error.contains(reason), "{root}: {error}");
        }
    }

    #[test]
    fn a_member_of_another_size_than_described_is_refused() {
        let member = json!({ "config": described(b"c") }).to_string().into_bytes();
        let mut entry = described(&member);
        entry["size"] = json!(1);
        let error = read(&json!({ "manifests": [entry] }), INDEX, &[member]).unwrap_err();
        assert!(error.contains("it should be 1 bytes"), "{error}");
    }
}
