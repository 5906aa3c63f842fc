//! An OCI layout as its readers see it, every digest checked on the way.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::Value;

use super::{names, sha256};

/// A layout directory.
pub(crate) struct Layout(PathBuf);

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: tar::EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) link: Option<String>,
    pub(crate) content: Vec<u8>,
}

/// An image for one platform.
pub(crate) struct Image {
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    /// The layer's entries in their order.
    pub(crate) entries: Vec<(String, Entry)>,
}

impl Layout {
    pub(crate) fn at(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    pub(crate) fn index(&self) -> Value {
        json(&fs::read(self.0.join("index.json")).expect("a layout has an index"))
    }

    /// Names and digests of the images.
    pub(crate) fn images(&self) -> BTreeMap<String, String> {
        let index = self.index();
        let entries = index["manifests"].as_array().expect("an index lists manifests");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let images: BTreeMap<_, _> = entries
            .iter()
            .map(|entry| {
                (text(&entry["annotations"]["org.opencontainers.image.ref.name"]), text(&entry["digest"]))
            })
            .collect();
        assert_eq!(images.len(), entries.len(), "two images have one name: {index}");
        images
    }

    /// The multi-arch index of an image.
    pub(crate) fn image_index(&self, name: &str) -> Value {
        let images = self.images();
        let digest = images.get(name).unwrap_or_else(|| panic!("no {name} among {images:?}"));
        json(&self.blob(digest))
    }

    /// The bytes of a blob, which have its digest.
    pub(crate) fn blob(&self, digest: &str) -> Vec<u8> {
        let digits = digest.strip_prefix("sha256:").expect("a sha256 digest");
        let bytes = fs::read(self.0.join("blobs/sha256").join(digits)).expect("a blob of the layout");
        assert_eq!(sha256(&bytes), digits);
        bytes
    }

    /// The digests of all blobs that lie there.
    pub(crate) fn blobs(&self) -> Vec<String> {
        names(&self.0.join("blobs/sha256"))
    }

    /// An image for one platform (`amd64`), read whole; all of ours but root volumes have one layer.
    pub(crate) fn image(&self, name: &str, architecture: &str) -> Image {
        let image = self.layered(name, architecture);
        assert_eq!(image.layers().len(), 1, "{}", image.manifest);
        image
    }

    /// An image for one platform, the entries of its layers one after the other.
    pub(crate) fn layered(&self, name: &str, architecture: &str) -> Image {
        let index = self.image_index(name);
        let members = index["manifests"].as_array().expect("an index lists manifests");
        let fits = |member: &&Value| member["platform"]["architecture"] == architecture;
        let member = members.iter().find(fits).unwrap_or_else(|| panic!("no {architecture} in {index}"));
        let sized = |descriptor: &Value| {
            let bytes = self.blob(descriptor["digest"].as_str().expect("a digest"));
            assert_eq!(descriptor["size"], bytes.len(), "{descriptor}");
            bytes
        };
        let manifest = json(&sized(member));
        let config = json(&sized(&manifest["config"]));
        let (mut found, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in manifest["layers"].as_array().expect("a manifest lists layers") {
            let blob = sized(layer);
            let mut stream = Vec::new();
            if layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd" {
                zstd::stream::copy_decode(&blob[..], &mut stream).expect("a layer is zstd");
            } else {
                assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
                flate2::read::MultiGzDecoder::new(&blob[..])
                    .read_to_end(&mut stream)
                    .expect("a layer is gzip");
            }
            diff_ids.push(format!("sha256:{}", sha256(&stream)));
            found.extend(entries(&stream));
        }
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
        Image { manifest, config, entries: found }
    }
}

impl Image {
    /// An entry by its path.
    pub(crate) fn entry(&self, path: &str) -> &Entry {
        let found = self.entries.iter().find(|(name, _)| name == path);
        &found.unwrap_or_else(|| panic!("no {path} among {:?}", self.paths())).1
    }

    /// The digests of its layers, lowest first.
    pub(crate) fn layers(&self) -> Vec<&str> {
        let layers = self.manifest["layers"].as_array().expect("a manifest lists layers");
        layers.iter().map(|layer| layer["digest"].as_str().expect("a digest")).collect()
    }

    /// All paths, in the layer's order.
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.entries.iter().map(|(path, _)| path.as_str()).collect()
    }

    /// A label of the configuration.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.config["config"]["Labels"][name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.config))
    }

    /// Writes the layer's files and links below `dir`, as any unpacker does.
    pub(crate) fn unpack(&self, dir: &Path) {
        for (path, entry) in &self.entries {
            let path = dir.join(path);
            match entry.kind {
                tar::EntryType::Directory => fs::create_dir_all(path).expect("a new directory"),
                tar::EntryType::Symlink => {
                    let target = entry.link.as_ref().expect("a link has a target");
                    std::os::unix::fs::symlink(target, path).expect("a new link");
                }
                tar::EntryType::Link => {
                    let target = entry.link.as_ref().expect("a link has a target");
                    fs::hard_link(dir.join(target), path).expect("a new link");
                }
                _ => fs::write(path, &entry.content).expect("a new file"),
            }
        }
    }
}

fn entries(stream: &[u8]) -> Vec<(String, Entry)> {
    let mut archive = tar::Archive::new(stream);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.expect("a layer is a tar");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("a path is UTF-8");
        let link = entry.link_name_bytes().map(|link| String::from_utf8(link.into_owned()).expect("UTF-8"));
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("a layer is a tar");
        let header = entry.header();
        let number = |value: std::io::Result<u64>| value.expect("a number in a header");
        let owner = (number(header.uid()), number(header.gid()));
        let mode = header.mode().expect("a number in a header");
        let (kind, mtime) = (header.entry_type(), number(header.mtime()));
        (path.trim_end_matches('/').to_owned(), Entry { kind, mode, owner, mtime, link, content })
    };
    archive.entries().expect("a layer is a tar").map(read).collect()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}
