//! Configurations, manifests and indexes, written with sorted keys so that equal images have equal digests.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{
    ANNOTATION_CREATED, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, PlatformBuilder,
    RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::blocks::Packed;
use super::compression::Compression;
use crate::arch::Arch;
use crate::lock::ASSEMBLY;
use crate::step::hex;

/// Labels and annotations; the same set serves as both.
pub type Labels = BTreeMap<String, String>;

/// A small blob and what refers to it.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// One image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// The configuration blob.
    pub config: Blob,
    /// The manifest blob; its descriptor names the platform.
    pub manifest: Blob,
}

/// `seconds` since 1970 as RFC 3339, UTC.
pub fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// An image of these layers, lowest first, for `arch`, created at `epoch` (seconds since 1970).
pub fn image(arch: Arch, epoch: u64, layers: &[&Packed], labels: &Labels) -> Image {
    let created = rfc3339(epoch);
    let history = HistoryBuilder::default()
        .created(created.as_str())
        .created_by(format!("imgbuild, assembly {ASSEMBLY}"))
        .build();
    let history = history.expect("every field of it is optional");
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build();
    let runtime =
        ConfigBuilder::default().labels(labels.clone().into_iter().collect::<HashMap<_, _>>()).build();
    let config = ImageConfigurationBuilder::default()
        .created(created.as_str())
        .architecture(arch.oci())
        .os("linux")
        .config(runtime.expect("every field of it is optional"))
        .rootfs(rootfs.expect("it has all its fields"))
        .history(vec![history; layers.len()])
        .build()
        .expect("it has all its fields");
    let config = blob(MediaType::ImageConfig, &config);

    let descriptor = |layer: &&Packed| {
        let media_type = match layer.compression {
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd(_) => MediaType::ImageLayerZstd,
        };
        Descriptor::new(media_type, layer.size, digest(&layer.digest))
    };
    let mut annotations = labels.clone();
    annotations.insert(ANNOTATION_CREATED.to_owned(), created);
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor.clone())
        .layers(layers.iter().map(descriptor).collect::<Vec<_>>())
        .annotations(annotations.into_iter().collect::<HashMap<_, _>>())
        .build()
        .expect("it has all its fields");
    let mut manifest = blob(MediaType::ImageManifest, &manifest);
    let platform = PlatformBuilder::default().architecture(arch.oci()).os("linux").build();
    manifest.descriptor.set_platform(Some(platform.expect("it has all its fields")));
    Image { config, manifest }
}

/// An index of images for several platforms, in the order given.
pub fn index(members: &[Descriptor], labels: &Labels) -> Blob {
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(members)
        .annotations(labels.clone().into_iter().collect::<HashMap<_, _>>())
        .build()
        .expect("it has all its fields");
    blob(MediaType::ImageIndex, &index)
}

/// A descriptor with annotations.
pub(super) fn annotated(descriptor: &Descriptor, annotations: Labels) -> Descriptor {
    let mut descriptor = descriptor.clone();
    descriptor.set_annotations(Some(annotations.into_iter().collect()));
    descriptor
}

/// JSON with sorted keys: `oci-spec` keeps annotations in hash maps, `serde_json::Value` sorts them.
pub(super) fn json(document: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(document).expect("OCI documents have string keys");
    value.to_string().into_bytes()
}

fn blob(media_type: MediaType, document: &impl Serialize) -> Blob {
    let bytes = json(document);
    let descriptor = DescriptorBuilder::default()
        .media_type(media_type)
        .size(bytes.len() as u64)
        .digest(digest(&hex(&Sha256::digest(&bytes))))
        .build()
        .expect("it has all its fields");
    Blob { descriptor, bytes }
}

fn digest(hex: &str) -> Sha256Digest {
    hex.parse().expect("64 hexadecimal digits are a digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(arch: Arch) -> Image {
        let compression = Compression::Gzip;
        let layer = Packed { digest: "a".repeat(64), diff_id: "b".repeat(64), size: 7, compression };
        let labels = [("z.last", "1"), ("a.first", "2"), ("m.middle", "3")];
        let labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        image(arch, 1_785_408_960, &[&layer], &labels)
    }

    /// Fails if we ever make a change that moves an image's digest: then the assembly number has to rise too.
    #[test]
    fn golden_documents() {
        let image = sample(Arch::Arm64);
        let text = |blob: &Blob| String::from_utf8(blob.bytes.clone()).unwrap();
        assert_eq!(
            text(&image.config),
            concat!(
                r#"{"architecture":"arm64","config":{"Labels":{"a.first":"2","m.middle":"3","z.last":"1"}},"#,
                r#""created":"2026-07-30T10:56:00Z","history":[{"created":"2026-07-30T10:56:00Z","#,
                r#""created_by":"imgbuild, assembly 1"}],"os":"linux","rootfs":{"diff_ids":"#,
                r#"["sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"],"type":"layers"}}"#
            )
        );
        assert_eq!(
            text(&image.manifest),
            r#"{"annotations":{"a.first":"2","m.middle":"3","org.opencontainers.image.created":"2026-07-30T10:56:00Z","z.last":"1"},"config":{"digest":"sha256:b8a641332c8c47114cedae356933d1292df9045ce4c97890e5de59edec5fd1bd","mediaType":"application/vnd.oci.image.config.v1+json","size":331},"layers":[{"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":7}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#
        );
        assert_eq!(
            image.manifest.descriptor.digest().to_string(),
            "sha256:665b7b12dc12e8f747c57af204f550cb8741c36cf241a45f0c709ae73c4662e5"
        );
    }

    #[test]
    fn a_hundred_runs_give_one_digest() {
        let first = sample(Arch::X86_64);
        let members = [first.manifest.descriptor.clone(), sample(Arch::Arm64).manifest.descriptor];
        let labels = [("b".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())].into();
        let joined = index(&members, &labels);
        for _ in 0..100 {
            assert_eq!(sample(Arch::X86_64).manifest.bytes, first.manifest.bytes);
            assert_eq!(index(&members, &labels).bytes, joined.bytes);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(1_785_408_960), "2026-07-30T10:56:00Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
