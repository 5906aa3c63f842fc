//! Artifacts that are no images: one blob and a small configuration under a tag.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::image::MediaType;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::Error;
use super::client::{Client, Document, MANIFEST_LIMIT, sha256};
use super::reference::Reference;
use super::tree::{Content, Entry};

/// What a parcel says of itself; its blob is brought by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The media type of the configuration, which tells parcels apart from all else.
    pub kind: &'static str,
    /// The configuration.
    pub config: Vec<u8>,
    /// What is written beside it.
    pub annotations: BTreeMap<String, String>,
    /// The blob.
    pub blob: Blob,
}

/// A parcel's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// `sha256:` and 64 digits.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

impl Blob {
    fn entry(&self) -> Entry {
        let Self { media_type, digest, size } = self.clone();
        Entry { media_type, digest, size, platform: None, what: String::new() }
    }
}

impl Parcel {
    /// What lies under the reference's tag; none if nothing does. What is no parcel of this kind is an error.
    pub fn find(kind: &'static str, reference: &Reference, client: &Client) -> Result<Option<Self>, Error> {
        let repository = &reference.repository;
        let document = match client.manifest(repository, reference.wanted().unwrap_or_default()) {
            Ok(document) => document,
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let malformed =
            |reason: &str| Error::Malformed { what: reference.to_string(), reason: reason.into() };
        let Content::Image { config, layers } = document.content()? else {
            return Err(malformed("it is an index"));
        };
        let [blob] = &layers[..] else { return Err(malformed("it does not have one blob")) };
        if config.media_type != kind {
            return Err(malformed("it is of another kind"));
        }
        if config.size > MANIFEST_LIMIT {
            return Err(Error::TooLarge { what: config.digest, limit: MANIFEST_LIMIT });
        }
        let mut file = NamedTempFile::new()?;
        client.fetch_blob(repository, &config, &mut file, &|_| {})?;
        let written: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let annotations = serde_json::from_value(written["annotations"].clone()).unwrap_or_default();
        let Entry { media_type, digest, size, .. } = blob.clone();
        let blob = Blob { media_type, digest, size };
        Ok(Some(Self { kind, config: fs_err::read(file.path())?, annotations, blob }))
    }

    /// Whether anything lies under the reference's tag.
    pub fn is_there(reference: &Reference, client: &Client) -> Result<bool, Error> {
        Ok(client.resolve(&reference.repository, reference.wanted().unwrap_or_default())?.is_some())
    }

    /// Brings the blob into an empty file and checks it; `progress` is told how much of it has come.
    pub fn bring(
        &self,
        reference: &Reference,
        client: &Client,
        file: &mut NamedTempFile,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        client.fetch_blob(&reference.repository, &self.blob.entry(), file, progress)
    }

    /// Puts the parcel under the reference's tag, its blob from the file at `path`; the tag comes last.
    pub fn put(
        &self,
        path: &Path,
        reference: &Reference,
        client: &Client,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let repository = &reference.repository;
        client.will_write(repository);
        let mut file = NamedTempFile::new()?;
        std::io::Write::write_all(&mut file, &self.config)?;
        let config = Blob {
            media_type: self.kind.to_owned(),
            digest: sha256(&self.config),
            size: self.config.len() as u64,
        };
        for (blob, path) in [(&self.blob, path), (&config, file.path())] {
            if !client.has_blob(repository, &blob.entry())? {
                client.upload(repository, &blob.entry(), path, progress)?;
            }
        }
        let described =
            |blob: &Blob| json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size });
        let media_type = MediaType::ImageManifest.to_string();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "artifactType": self.kind,
            "config": described(&config),
            "layers": [described(&self.blob)],
            "annotations": self.annotations,
        });
        let document = Document::new(&media_type, manifest.to_string().into_bytes());
        client.put_manifest(repository, reference.wanted().unwrap_or_default(), &document)
    }

    /// From now on the reference's repository is written to: one right is enough for reading it and writing to it.
    pub fn will_write(reference: &Reference, client: &Client) {
        client.will_write(&reference.repository);
    }
}
