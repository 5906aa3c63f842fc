//! What a place holds: its images, their platforms, layers, labels and files.

use std::collections::BTreeMap;

use serde::Serialize;

use super::files::{self, File};
use super::{Error, Image, Selection, sound_images};
use crate::oci::source::{Framing, Source};
use crate::step::Cancel;

/// An image by its name.
#[derive(Debug, Serialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The digest of its index; none where the name stands for a single manifest.
    pub index: Option<String>,
    /// Its platforms, in the index's order.
    pub platforms: Vec<Platform>,
}

/// One platform of an image.
#[derive(Debug, Serialize)]
pub struct Platform {
    /// `amd64`.
    pub platform: String,
    /// The digest of its manifest.
    pub manifest: String,
    /// The digest of its configuration.
    pub config: String,
    /// When it says it was made, RFC 3339.
    pub created: Option<String>,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// One layer.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// The digest of the blob.
    pub digest: String,
    /// The digest of its tar.
    pub diff_id: Option<String>,
    /// How the tar is wrapped up: `gzip`; the media type where it is no layer's.
    pub framing: String,
    /// The size of the blob in bytes.
    pub size: u64,
    /// Its entries in their order, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<File>>,
}

/// Tells what the selected images are; with `files`, reads their layers too.
pub fn report(
    source: &dyn Source,
    selection: &Selection,
    files: bool,
    cancel: &Cancel,
) -> Result<Vec<Named>, Error> {
    let mut named: Vec<Named> = Vec::new();
    for image in sound_images(source, selection)? {
        let platform = platform(source, &image, files, cancel)?;
        let index = image.index.map(|index| index.digest().to_string());
        match named.iter_mut().find(|named| named.name == image.name && named.index == index) {
            Some(named) => named.platforms.push(platform),
            None => named.push(Named { name: image.name, index, platforms: vec![platform] }),
        }
    }
    Ok(named)
}

fn platform(source: &dyn Source, image: &Image, files: bool, cancel: &Cancel) -> Result<Platform, Error> {
    let mut layers = Vec::new();
    let mut diff_ids = image.config.rootfs().diff_ids().iter();
    for descriptor in image.manifest.layers() {
        let framing = Framing::of(descriptor.media_type());
        let mut listed = None;
        if files && framing.is_some() {
            let mut entries = Vec::new();
            files::visit(source, descriptor, cancel, &mut |file, _| {
                entries.push(file.clone());
                Ok(())
            })?;
            listed = Some(entries);
        }
        layers.push(Layer {
            digest: descriptor.digest().to_string(),
            diff_id: diff_ids.next().map(ToString::to_string),
            framing: framing.map_or_else(|| descriptor.media_type().to_string(), |f| f.name().to_owned()),
            size: descriptor.size(),
            files: listed,
        });
    }
    let labels = image.config.config().as_ref().and_then(|config| config.labels().clone());
    Ok(Platform {
        platform: image.platform(),
        manifest: image.descriptor.digest().to_string(),
        config: image.manifest.config().digest().to_string(),
        created: image.config.created().clone(),
        layers,
        labels: labels.unwrap_or_default().into_iter().collect(),
    })
}
