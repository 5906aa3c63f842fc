//! Images brought from a registry into a layout, every byte checked.

use oci_spec::image::{Descriptor, MediaType, Sha256Digest};
use serde::Serialize;

use super::Error;
use super::client::{Client, Document};
use super::push::each;
use super::reference::Reference;
use super::tree::{Content, Entry, Tree};
use crate::arch::Arch;
use crate::oci::layout::Layout;
use crate::step::{Unit, human};

/// An image as it now is in a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// What the layout calls it: `kernel-bin:5.10.262`.
    pub name: String,
    /// Its digest.
    pub digest: String,
}

/// Pulls an image, all its platforms or the one for `arch`, into a layout.
///
/// Where a pull fails, the blobs that have come whole stay in the layout without a name, for a second try to find. Nothing
/// else takes them away: blobs that no image refers to may be somebody else's, about to get their name.
pub fn pull(
    reference: &Reference,
    arch: Option<Arch>,
    client: &Client,
    layout: &Layout,
) -> Result<Pulled, Error> {
    let mut root = root(reference, client)?;
    if let Some(arch) = arch {
        root = for_arch(root, arch, reference, client)?;
    }
    let tree = below(root, reference, client)?;
    each(client, &tree.blobs, |blob| bring(blob, reference, client, layout))?;
    keep(&tree, reference, layout)
}

/// Pulls the documents of an image alone, for all its platforms: index, manifests and configurations. Its layers can be
/// brought one by one.
pub fn documents(reference: &Reference, client: &Client, layout: &Layout) -> Result<Pulled, Error> {
    let tree = below(root(reference, client)?, reference, client)?;
    let configs: Vec<Entry> = tree.blobs.iter().filter(|blob| blob.is_config()).cloned().collect();
    each(client, &configs, |blob| bring(blob, reference, client, layout))?;
    keep(&tree, reference, layout)
}

/// Brings layers of an image whose documents are in a layout.
pub fn layers(
    reference: &Reference,
    layers: &[Descriptor],
    client: &Client,
    layout: &Layout,
) -> Result<(), Error> {
    let entry = |layer: &Descriptor| Entry {
        media_type: layer.media_type().to_string(),
        digest: layer.digest().to_string(),
        size: layer.size(),
        platform: None,
        what: "layer".into(),
    };
    let entries: Vec<Entry> = layers.iter().map(entry).collect();
    each(client, &entries, |blob| bring(blob, reference, client, layout))
}

/// The index, or the only manifest, of an image.
fn root(reference: &Reference, client: &Client) -> Result<Document, Error> {
    let wanted = reference.wanted();
    let wanted =
        wanted.ok_or_else(|| Error::reference(&reference.to_string(), "it has neither tag nor digest"))?;
    client.manifest(&reference.repository, wanted)
}

fn below(root: Document, reference: &Reference, client: &Client) -> Result<Tree, Error> {
    Tree::read(root, &mut |entry| client.manifest(&reference.repository, &entry.digest))
}

/// Puts the manifests of an image whose blobs are there into a layout, and gives it its name.
fn keep(tree: &Tree, reference: &Reference, layout: &Layout) -> Result<Pulled, Error> {
    for document in tree.members.iter().chain([&tree.root]) {
        layout.put(&document.digest, &document.bytes)?;
    }
    let digest: Sha256Digest = tree.root.digest["sha256:".len()..].parse().expect("it is a digest");
    let media_type = MediaType::from(tree.root.media_type.as_str());
    let descriptor = Descriptor::new(media_type, tree.root.bytes.len() as u64, digest);
    layout.name(&[(reference.short(), descriptor)])?;
    Ok(Pulled { name: reference.short(), digest: tree.root.digest.clone() })
}

/// The member of an index for one architecture, or the manifest itself if it is for it.
fn for_arch(root: Document, arch: Arch, reference: &Reference, client: &Client) -> Result<Document, Error> {
    let source = super::push::Source::Registry(client, &reference.repository);
    let members = super::append::members(&root, &source)?;
    let fits =
        |platform: &super::tree::Platform| platform.architecture == arch.oci() && platform.os == "linux";
    let Some((_, member)) = members.iter().find(|(platform, _)| fits(platform)) else {
        return Err(Error::NoPlatform {
            reference: reference.to_string(),
            wanted: arch.oci().to_owned(),
            found: members.iter().map(|(platform, _)| platform.to_string()).collect(),
        });
    };
    match (root.content()?, member["digest"].as_str()) {
        (Content::Manifests(_), Some(digest)) => client.manifest(&reference.repository, digest),
        _ => Ok(root),
    }
}

fn bring(blob: &Entry, reference: &Reference, client: &Client, layout: &Layout) -> Result<(), Error> {
    let name = format!("{} {} {}", reference.short(), blob.what, &blob.digest[..19]);
    let progress = client.watch.reporter.begin("pull", &name, Some(blob.size), Unit::Bytes);
    if layout.sound(&blob.digest).is_ok() {
        progress.finish("there already");
        return Ok(());
    }
    let mut file = layout.temporary()?;
    client.fetch_blob(&reference.repository, blob, &mut file, &|got| progress.set(got))?;
    layout.keep(&blob.digest, file)?;
    progress.finish(&human(blob.size));
    Ok(())
}
