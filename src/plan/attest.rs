//! The documents that stand beside an image: gathered from its own layers and from what is remembered of its build.

mod contents;

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex};
use serde_json::json;

use super::account::{self, kept};
use crate::attest::spdx::{self, Claims, Subject};
use crate::attest::statement::{Definition, PREDICATE, Resource, Run, RunDetails, Statement};
use crate::attest::{self, PROVENANCE, SBOM};
use crate::document::list;
use crate::inspect::{self, Finding, Image, Selection, sound_images};
use crate::oci::image::Labels;
use crate::oci::source::Source;
use crate::step::{Cancel, Class, Diagnose};
use crate::store::Store;

pub use contents::contents;

/// The annotation that tells which predicate a statement has.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// There are no documents to be had, or they are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// A document is not what it should be.
    #[error(transparent)]
    Attest(#[from] attest::Error),
    /// Nobody remembers how the image was made.
    #[error("nothing is known here of how {image} for {architecture} was built ({digest})")]
    Unknown {
        /// The image.
        image: String,
        /// Its architecture.
        architecture: String,
        /// The digest of its manifest.
        digest: String,
    },
    /// No document of this kind stands beside the image.
    #[error("`{reference}` has no {what}")]
    None {
        /// The image.
        reference: String,
        /// Which document.
        what: &'static str,
    },
    /// Several platforms were meant where one is wanted.
    #[error("`{place}` holds {}: one is wanted", list(.found.iter().map(String::as_str)))]
    Several {
        /// The place.
        place: String,
        /// The images with their architectures.
        found: Vec<String>,
    },
    /// The store.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<crate::oci::Error> for Error {
    fn from(error: crate::oci::Error) -> Self {
        Self::Inspect(error.into())
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Inspect(error) => error.class(),
            Self::Attest(error) => error.class(),
            Self::Unknown { .. } | Self::None { .. } => Class::Input,
            Self::Several { .. } => Class::Usage,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Inspect(error) => error.hint(),
            Self::Attest(error) => error.hint(),
            Self::Unknown { .. } => Some(
                "what is known of a build is in the store it was built with: name that one with --store, or build the image again"
                    .into(),
            ),
            Self::None { .. } => Some(
                "it was pushed without: `imgbuild push … --attest` from the store it was built with attaches it".into(),
            ),
            Self::Several { .. } => Some("name the image, `DIR:IMAGE`, and its architecture, `--arch`".into()),
            Self::Io(error) => crate::step::io_hint(error),
        }
    }
}

/// A document that stands beside an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its media type, and the artifact type of what brings it.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What is told of it before it is read.
    pub annotations: BTreeMap<String, String>,
}

impl Document {
    fn sbom(bytes: Vec<u8>) -> Self {
        Self { media_type: SBOM, bytes, annotations: BTreeMap::new() }
    }

    fn provenance(statement: &Statement) -> Self {
        let annotations = [(PREDICATE_TYPE.to_owned(), PREDICATE.to_owned())].into();
        Self { media_type: PROVENANCE, bytes: statement.to_bytes(), annotations }
    }
}

/// A manifest or an index, and the documents about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// Its digest: `sha256:…`.
    pub subject: String,
    /// Its SBOM and its provenance.
    pub documents: Vec<Document>,
}

/// The documents about each platform of an image. Fails where one of them was not built with this store.
pub fn documents(
    source: &dyn Source,
    name: &str,
    store: &Store,
    cancel: &Cancel,
) -> Result<Vec<Attested>, Error> {
    let images = sound_images(source, &Selection { image: Some(name.to_owned()), arch: None })?;
    let mut attested = Vec::new();
    for image in images.iter().filter(|image| image.is_image()) {
        let subject = image.descriptor.digest().to_string();
        let statement = provenance(image, store)?;
        let created = &statement.predicate.run_details.metadata.finished_on;
        let inputs = &statement.predicate.build_definition.resolved_dependencies;
        let sbom = sbom(source, image, inputs, created, cancel)?;
        let documents = vec![Document::sbom(sbom), Document::provenance(&statement)];
        attested.push(Attested { subject, documents });
    }
    Ok(attested)
}

/// The documents about an index of platforms that have their own. `bytes` are the index as it lies in the registry.
pub fn index_documents(name: &str, digest: &str, bytes: &[u8]) -> Result<Attested, Error> {
    let run = Run::begin().end();
    let index: ImageIndex = serde_json::from_slice(bytes).map_err(|error| attest::Error::NoProvenance {
        subject: digest.to_owned(),
        reason: format!("`{digest}` is no index: {error}"),
    })?;
    let member = |member: &Descriptor| {
        let platform = member.platform().as_ref();
        let architecture = platform.map_or_else(String::new, |platform| platform.architecture().to_string());
        (architecture, member.digest().to_string())
    };
    let members: Vec<_> = index.manifests().iter().map(member).collect();
    let sbom = spdx::index_document(name, digest, &members, &run.metadata.finished_on);
    let statement = index_statement(name, digest, &members, run);
    let documents = vec![Document::sbom(sbom), Document::provenance(&statement)];
    Ok(Attested { subject: digest.to_owned(), documents })
}

fn index_statement(name: &str, digest: &str, members: &[(String, String)], run: RunDetails) -> Statement {
    let platforms: BTreeMap<_, _> = members.iter().map(|(arch, digest)| (arch, digest)).collect();
    let input = |(architecture, digest): &(String, String)| {
        let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
        Resource::new(format!("{name} {architecture}"), "", digits).with("role", "platform")
    };
    let definition = Definition {
        build_type: account::INDEX.to_owned(),
        external_parameters: json!({ "image": name, "platforms": platforms }),
        internal_parameters: json!({}),
        resolved_dependencies: members.iter().map(input).collect(),
    };
    Statement::new(name, digest, definition, run)
}

/// The provenance of an image that was built with this store.
pub fn provenance(image: &Image, store: &Store) -> Result<Statement, Error> {
    let digest = image.descriptor.digest().to_string();
    kept(&digest, store)?.ok_or_else(|| Error::Unknown {
        image: image.name.clone(),
        architecture: image.platform(),
        digest,
    })
}

/// The SBOM of an image; `inputs` are the dependencies of its statement, as far as there is one.
pub fn sbom(
    source: &dyn Source,
    image: &Image,
    inputs: &[Resource],
    created: &str,
    cancel: &Cancel,
) -> Result<Vec<u8>, Error> {
    let contents = contents(source, image, cancel)?;
    let digest = image.descriptor.digest().to_string();
    let architecture = image.config.architecture().to_string();
    let layers: Vec<_> = image.manifest.layers().iter().map(|layer| layer.digest().to_string()).collect();
    let labels: Labels = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.labels().clone())
        .unwrap_or_default()
        .into_iter()
        .collect();
    let (name, layers) = (short(&image.name), &layers[..]);
    let subject = Subject { name, digest: &digest, architecture: &architecture, layers, labels: &labels };
    Ok(spdx::document(&subject, &contents, inputs, created))
}

/// Whether an SBOM says what is in the layers of an image: how it does not.
pub fn check_sbom(
    document: &[u8],
    source: &dyn Source,
    image: &Image,
    cancel: &Cancel,
) -> Result<Vec<Finding>, Error> {
    let claims = Claims::parse(document, image.descriptor.digest().as_ref())?;
    let truth = Claims::parse(&sbom(source, image, &[], "", cancel)?, "this imgbuild")?;
    let finding = |(path, what): (Option<String>, String)| Finding {
        image: Some(image.name.clone()),
        platform: Some(image.platform()),
        path,
        what,
    };
    Ok(claims.differ(&truth).into_iter().map(finding).collect())
}

/// The last part of a name's path, with the tag: what the image is called wherever it was pushed to.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
