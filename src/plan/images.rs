//! Images for several platforms: from packed layers to names in a layout, compared with what is recorded.

use std::path::Path;

use serde::Serialize;

use super::pack::PackedLayer;
use super::{Error, digests};
use crate::arch::Arch;
use crate::attest::statement::Definition;
use crate::digests::{Digests, Entry, Verdict};
use crate::oci::compression::Compression;
use crate::oci::image::{Image, Labels, index};
use crate::oci::layout::Layout;
use crate::step::Watch;

/// One image as it stands in the layout.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Built {
    /// `kernel-bin:5.10.262`.
    pub name: String,
    /// The digest of its index, or of its one platform where that stands alone.
    pub digest: String,
    /// Its platforms.
    pub platforms: Vec<Platform>,
}

/// One platform of an image.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Platform {
    /// `amd64` or `arm64`.
    pub architecture: &'static str,
    /// The digest of its manifest.
    pub digest: String,
    /// The size of its layer, compressed, in bytes.
    pub size: u64,
    /// How its digest compares with the recorded one.
    pub recorded: Verdict,
}

/// One platform of an image that is to be.
pub(super) struct Member {
    /// Its architecture.
    pub(super) arch: Arch,
    /// Its documents.
    pub(super) image: Image,
    /// Its layers, lowest first.
    pub(super) layers: Vec<PackedLayer>,
    /// What may be recorded of it.
    pub(super) entry: Entry,
    /// What it was made from.
    pub(super) definition: Definition,
}

impl Member {
    fn platform(&self, recorded: &Digests) -> Platform {
        // Digests are recorded of gzip alone.
        let is_gzip = self.layers.iter().all(|layer| layer.packed.compression == Compression::Gzip);
        Platform {
            architecture: self.arch.oci(),
            digest: self.entry.digest.clone(),
            size: self.layers.iter().map(|layer| layer.packed.size).sum(),
            recorded: if is_gzip { recorded.compare(&self.entry) } else { Verdict::None },
        }
    }
}

/// An image for several platforms that is to be.
pub(super) struct Joined {
    /// Its name: repository and tag.
    pub(super) name: String,
    /// What all its platforms say.
    pub(super) labels: Labels,
    /// Its platforms.
    pub(super) members: Vec<Member>,
    /// The name under which its platform arm64 stands alone, for specs that know no index.
    pub(super) alias: Option<String>,
}

/// What old specs call an image for arm64: `flintlock-kernel-arm:5.10.77`.
pub(super) fn arm_name(name: &str) -> String {
    match name.split_once(':') {
        Some((repository, tag)) => format!("{repository}-arm:{tag}"),
        None => format!("{name}-arm"),
    }
}

/// Says which images are not what is recorded; with `locked` that is an error.
pub(super) fn judge(images: &[Joined], recorded: &Digests, locked: bool, watch: &Watch) -> Result<(), Error> {
    let of = |image: &Joined| {
        let platform = |member: &Member| (image.name.clone(), member.platform(recorded));
        image.members.iter().map(platform).collect::<Vec<_>>()
    };
    let platforms: Vec<_> = images.iter().flat_map(of).collect();
    let platforms: Vec<_> = platforms.iter().map(|(name, platform)| (name.as_str(), platform)).collect();
    digests::judge(&platforms, locked, watch)
}

/// Writes all blobs into the layout at `output`, then gives all images their names at once.
pub(super) fn assemble(images: &[Joined], recorded: &Digests, output: &Path) -> Result<Vec<Built>, Error> {
    let layout = Layout::create(output)?;
    let (mut names, mut built) = (Vec::new(), Vec::new());
    for image in images {
        let mut platforms = Vec::new();
        for member in &image.members {
            for layer in &member.layers {
                layout.add_file(&format!("sha256:{}", layer.packed.digest), &layer.path)?;
            }
            layout.add(&member.image.config)?;
            layout.add(&member.image.manifest)?;
            platforms.push(member.platform(recorded));
        }
        let manifests: Vec<_> =
            image.members.iter().map(|member| member.image.manifest.descriptor.clone()).collect();
        let joined = index(&manifests, &image.labels);
        layout.add(&joined)?;
        let arm = image.members.iter().position(|member| member.arch == Arch::Arm64);
        if let (Some(alias), Some(arm)) = (&image.alias, arm) {
            let manifest = &image.members[arm].image.manifest.descriptor;
            let (name, digest) = (alias.clone(), manifest.digest().to_string());
            built.push(Built { name, digest, platforms: vec![platforms[arm].clone()] });
            names.push((alias.clone(), manifest.clone()));
        }
        let digest = joined.descriptor.digest().to_string();
        built.push(Built { name: image.name.clone(), digest, platforms });
        names.push((image.name.clone(), joined.descriptor));
    }
    layout.name(&names)?;
    Ok(built)
}
