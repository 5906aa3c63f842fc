//! `imgbuild sbom` and `imgbuild provenance`, and what `--attest` attaches to images that are pushed.

use clap::Args;
use serde_json::Value;

use super::place::Place;
use super::push::{Transport, tagged};
use super::{Context, Failure};
use crate::arch::Arch;
use crate::attest::spdx::Claims;
use crate::attest::statement::Statement;
use crate::attest::{self, PROVENANCE, SBOM};
use crate::inspect::{Image, Selection, sound_images};
use crate::oci::layout::Layout;
use crate::plan::attest::{Attested, Error, documents, index_documents, provenance, sbom};
use crate::registry::reference::Reference;
use crate::registry::referrers::{self, Attachment};
use crate::registry::{Client, resolve};
use crate::step::{Level, Unit};

/// Which image's document is printed.
#[derive(Debug, Args)]
struct Wanted {
    /// An OCI layout, one image of it, or a reference at a registry
    #[arg(value_name = "DIR[:IMAGE]|REFERENCE")]
    place: String,
    /// Of an image for several architectures, this one's: `x86_64` (amd64) or arm64 (aarch64) [default: the host's]
    #[arg(long, value_name = "ARCH")]
    arch: Option<Arch>,
    #[command(flatten)]
    transport: Transport,
}

/// Print the SBOM of an image: SPDX 2.3 in JSON
///
/// Of a reference, the document that is attached to the image is printed. Of a layout, it is made from the image's layers,
/// and from what is known of its build if it was built with this store.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild sbom out:kernel-bin:5.10.262
  imgbuild sbom registry.example/nodes/capmvm-k8s-os:1.22.8 --arch arm64")]
pub(super) struct SbomCommand {
    #[command(flatten)]
    wanted: Wanted,
}

impl SbomCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let text = match self.wanted.open(context)? {
            Found::Here(place, image) => {
                let known = match provenance(&image, &context.store()?) {
                    Ok(statement) => Some(statement.predicate),
                    Err(Error::Unknown { .. }) => None,
                    Err(error) => return Err(error.into()),
                };
                let (inputs, created) = known.map_or_else(
                    || (Vec::new(), now()),
                    |known| {
                        let inputs = known.build_definition.resolved_dependencies;
                        (inputs, known.run_details.metadata.finished_on)
                    },
                );
                sbom(&place.layout, &image, &inputs, &created, &context.watch.cancel)?
            }
            Found::There(there) => there.fetch(SBOM, "SBOM", context, &|bytes| {
                let claims = Claims::parse(bytes, &there.digest)?;
                if claims.image == there.digest {
                    return Ok(());
                }
                let reason = format!("it is about {}", claims.image);
                Err(attest::Error::NoSbom { subject: there.digest.clone(), reason })
            })?,
        };
        print(&text, context)
    }
}

/// Print the provenance of an image: how, when, by whom and from what it was built
///
/// The provenance is an in-toto statement with SLSA's predicate (v1). It records the recipe, its fragments and the lock as
/// they were, so the image can be built again from it (`imgbuild verify --rebuild`). Of a reference, the statement that is
/// attached to the image is printed; of a layout, the one that the store has.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild provenance registry.example/kernels/kernel-bin:5.10.262 --arch arm64
  imgbuild provenance out:kernel-bin:5.10.262")]
pub(super) struct ProvenanceCommand {
    #[command(flatten)]
    wanted: Wanted,
}

impl ProvenanceCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let text = match self.wanted.open(context)? {
            Found::Here(_, image) => provenance(&image, &context.store()?)?.to_bytes(),
            Found::There(there) => there.fetch(PROVENANCE, "provenance", context, &|bytes| {
                Statement::parse(bytes, &there.digest).map(drop)
            })?,
        };
        print(&text, context)
    }
}

/// Where the image is that was named.
enum Found {
    /// In a layout.
    Here(Place, Box<Image>),
    /// In a registry.
    There(Box<There>),
}

/// One platform's image in a registry.
struct There {
    reference: Reference,
    client: Client,
    digest: String,
}

impl Wanted {
    fn open(&self, context: &Context) -> Result<Found, Failure> {
        if let Some(place) = Place::local(&self.place)? {
            let selection = Selection { image: place.image.clone(), arch: self.arch };
            let images = sound_images(&place.layout, &selection)?;
            let found: Vec<_> = images.into_iter().filter(Image::is_image).collect();
            let host = |image: &&Image| {
                Arch::host().is_some_and(|host| image.config.architecture().to_string() == host.oci())
            };
            let image = match (&found[..], &found.iter().filter(host).collect::<Vec<_>>()[..]) {
                ([image], _) => image.clone(),
                (_, [image]) if same_name(&found) => (*image).clone(),
                _ => {
                    let found = found.iter().map(|image| format!("{} {}", image.name, image.platform()));
                    return Err(Error::Several { place: self.place.clone(), found: found.collect() }.into());
                }
            };
            return Ok(Found::Here(place, Box::new(image)));
        }
        let reference = tagged(&self.place)?;
        let client = self.transport.client(&reference, context)?;
        let resolved = resolve(&reference, &client)?;
        let wanted = self.arch.or_else(Arch::host);
        let of = |arch: &str| resolved.platforms.iter().find(|(other, _)| other == arch);
        let digest = match (&resolved.platforms[..], wanted.and_then(|arch| of(arch.oci()))) {
            (_, Some((_, digest))) => digest.clone(),
            ([(_, digest)], None) if self.arch.is_none() => digest.clone(),
            (platforms, None) => {
                return Err(crate::registry::Error::NoPlatform {
                    reference: reference.to_string(),
                    wanted: wanted.map_or_else(|| "this host".into(), |arch| arch.oci().to_owned()),
                    found: platforms.iter().map(|(arch, _)| arch.clone()).collect(),
                }
                .into());
            }
        };
        Ok(Found::There(Box::new(There { reference, client, digest })))
    }
}

fn same_name(images: &[Image]) -> bool {
    images.iter().all(|image| image.name == images[0].name)
}

impl There {
    /// The first attached document of a kind that is what it should be. Others are warned of.
    fn fetch(
        &self,
        artifact_type: &str,
        what: &'static str,
        context: &Context,
        check: &dyn Fn(&[u8]) -> Result<(), attest::Error>,
    ) -> Result<Vec<u8>, Failure> {
        let repository = &self.reference.repository;
        let mut refused = None;
        let mut good = None;
        for referrer in referrers::list(&self.client, repository, &self.digest, Some(artifact_type))? {
            let bytes = referrers::fetch(&self.client, repository, &referrer)?;
            match check(&bytes) {
                Ok(()) => {
                    good.get_or_insert(bytes);
                }
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        match (good, refused) {
            (Some(bytes), refused) => {
                if let Some(error) = refused {
                    context.watch.reporter.note(Level::Warning, &format!("passed over: {error}"));
                }
                Ok(bytes)
            }
            (None, Some(error)) => Err(Error::from(error).into()),
            (None, None) => Err(Error::None { reference: self.reference.to_string(), what }.into()),
        }
    }
}

/// Prints a document for people and programs alike.
fn print(bytes: &[u8], context: &Context) -> Result<(), Failure> {
    let document: Value = serde_json::from_slice(bytes).map_err(std::io::Error::from)?;
    context.print_json(&document)
}

/// Now, as documents have it.
fn now() -> String {
    let seconds = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    crate::oci::image::rfc3339(seconds)
}

/// The documents about the platforms of the image with this digest in a layout: gathered before anything is pushed.
pub(super) fn gather(layout: &Layout, root: &str, context: &Context) -> Result<Vec<Attested>, Failure> {
    let names = layout.names()?;
    let name = names.into_iter().find(|(_, descriptor)| descriptor.digest().as_ref() == root);
    let name = name.map_or_else(|| root.to_owned(), |(name, _)| name);
    let progress = context.watch.reporter.begin("describe", &name, None, Unit::Files);
    let documents = documents(layout, &name, &context.store()?, &context.watch.cancel)?;
    progress.finish("SBOM and provenance");
    Ok(documents)
}

/// Attaches documents to images that were pushed.
pub(super) fn attach(attested: &[Attested], repository: &str, client: &Client) -> Result<(), Failure> {
    for Attested { subject, documents } in attested {
        for document in documents {
            let attachment = Attachment {
                artifact_type: document.media_type,
                media_type: document.media_type,
                bytes: &document.bytes,
                annotations: document.annotations.clone(),
            };
            referrers::attach(client, repository, subject, &attachment)?;
        }
    }
    Ok(())
}

/// Attaches documents to an index, unless it has some: its digest names all that they could say.
pub(super) fn attach_to_index(target: &Reference, digest: &str, client: &Client) -> Result<(), Failure> {
    let repository = &target.repository;
    let resolved = resolve(&target.at(digest), client)?;
    if !resolved.is_index() || !referrers::list(client, repository, digest, Some(PROVENANCE))?.is_empty() {
        return Ok(());
    }
    let name = target.short();
    attach(&[index_documents(&name, digest, &resolved.bytes)?], repository, client)
}
