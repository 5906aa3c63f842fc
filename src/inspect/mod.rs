//! Images looked at: what they hold (`report`), whether they are sound (`validate`), how two differ (`diff`).
//!
//! Everything is read through [`Source`], so a layout on disk is one place of several that images can lie in.

pub mod diff;
pub mod files;
pub mod node;
pub mod report;
pub mod roles;
mod rules;
pub mod validate;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Platform};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arch::Arch;
use crate::oci::source::{Named, Source, document};
use crate::oci::{self, source};
use crate::step::{Class, Diagnose};

/// Indexes may hold indexes; deeper than any that was ever made.
const DEPTH: u8 = 4;

/// Images cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They cannot be read.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// A part of one is not as it should be.
    #[error("{0}")]
    Broken(Finding),
    /// A file in between cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Oci(error) => error.class(),
            Self::Broken(_) => Class::Verification,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Oci(error) => error.hint(),
            Self::Broken(_) => Some("`imgbuild validate` tells everything that is wrong".into()),
            Self::Io(error) => crate::step::io_hint(error),
        }
    }
}

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The image's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Its platform: `amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The file in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(image) = &self.image {
            f.write_str(image)?;
            if let Some(platform) = &self.platform {
                write!(f, " {platform}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// One image for one platform, its documents read and checked.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// The index it is listed in, if it is in one.
    pub index: Option<Descriptor>,
    /// Its manifest's descriptor, where the platform it is listed under stands.
    pub descriptor: Descriptor,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Manifest and configuration as they are written, unknown fields and all.
    pub documents: [Value; 2],
}

impl Image {
    /// The platform of the configuration, for people: `amd64`, `linux/arm/v7`.
    pub fn platform(&self) -> String {
        let (os, architecture) = (self.config.os().to_string(), self.config.architecture().to_string());
        spell(&os, &architecture, self.config.variant().as_deref())
    }

    /// A label of the configuration.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.config().as_ref()?.labels().as_ref()?.get(name).map(String::as_str)
    }

    /// Whether it is an image at all, not an attestation that build tools put beside one.
    pub fn is_image(&self) -> bool {
        self.config.os().to_string() != "unknown"
    }
}

/// Which images are meant.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of this name alone.
    pub image: Option<String>,
    /// For this architecture alone.
    pub arch: Option<Arch>,
}

/// Reads the documents of every image that is selected. What cannot be read is a finding in its place; no image at
/// all is an error.
pub fn images(source: &dyn Source, selection: &Selection) -> Result<Vec<Result<Image, Finding>>, Error> {
    let named = source.named()?;
    let mut found = Vec::new();
    for Named { name, descriptor } in &named {
        if selection.image.as_ref().is_none_or(|wanted| wanted == name) {
            walk(source, name, descriptor, None, DEPTH, &mut found);
        }
    }
    found.retain(|image| match (image, selection.arch) {
        (Ok(image), Some(arch)) => image.config.architecture().to_string() == arch.oci(),
        _ => true,
    });
    let wanted = match (&selection.image, selection.arch) {
        (Some(name), Some(arch)) => format!("image `{name}` for {arch}"),
        (Some(name), None) => format!("image `{name}`"),
        (None, Some(arch)) => format!("image for {arch}"),
        (None, None) => return Ok(found),
    };
    if found.is_empty() {
        let found = named.into_iter().map(|named| named.name).collect();
        return Err(oci::Error::NoImage { path: source.name().into(), wanted, found }.into());
    }
    Ok(found)
}

/// The selected images, all of which must be readable.
pub fn sound_images(source: &dyn Source, selection: &Selection) -> Result<Vec<Image>, Error> {
    images(source, selection)?.into_iter().collect::<Result<_, _>>().map_err(Error::Broken)
}

fn walk(
    source: &dyn Source,
    name: &str,
    descriptor: &Descriptor,
    index: Option<&Descriptor>,
    depth: u8,
    found: &mut Vec<Result<Image, Finding>>,
) {
    let platform = descriptor.platform().as_ref().map(listed);
    let finding = |what: String| {
        Err(Finding { image: Some(name.to_owned()), platform: platform.clone(), path: None, what })
    };
    if !is_index(descriptor.media_type()) {
        let image = read(source, name, descriptor, index);
        return found.push(image.or_else(|error| finding(error.to_string())));
    }
    match document::<ImageIndex>(source, descriptor) {
        _ if depth == 0 => found.push(finding("indexes within indexes, too deep to be meant".into())),
        Ok(members) => members
            .manifests()
            .iter()
            .for_each(|member| walk(source, name, member, Some(descriptor), depth - 1, found)),
        Err(error) => found.push(finding(error.to_string())),
    }
}

fn read(
    source: &dyn Source,
    name: &str,
    descriptor: &Descriptor,
    index: Option<&Descriptor>,
) -> Result<Image, oci::Error> {
    let whole: Value = document(source, descriptor)?;
    let malformed = |descriptor: &Descriptor, error: serde_json::Error| {
        source::blob_error(source, descriptor, format!("is not what its media type says: {error}"))
    };
    let manifest = ImageManifest::deserialize(&whole).map_err(|error| malformed(descriptor, error))?;
    let config_whole: Value = document(source, manifest.config())?;
    let config = ImageConfiguration::deserialize(&config_whole)
        .map_err(|error| malformed(manifest.config(), error))?;
    Ok(Image {
        name: name.to_owned(),
        index: index.cloned(),
        descriptor: descriptor.clone(),
        manifest,
        config,
        documents: [whole, config_whole],
    })
}

/// OCI's index, or Docker's.
fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex
        || media_type.as_ref() == "application/vnd.docker.distribution.manifest.list.v2+json"
}

/// A platform as an index lists it, for people.
fn listed(platform: &Platform) -> String {
    let variant = platform.variant().as_deref();
    spell(&platform.os().to_string(), &platform.architecture().to_string(), variant)
}

fn spell(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match (os, variant) {
        // arm64 has but one variant, and listing it or not means the same.
        ("linux", None) => architecture.to_owned(),
        ("linux", Some("v8")) if architecture == "arm64" => architecture.to_owned(),
        (os, None) => format!("{os}/{architecture}"),
        (os, Some(variant)) => format!("{os}/{architecture}/{variant}"),
    }
}
