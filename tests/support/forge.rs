//! Layouts written by hand with nothing of imgbuild's own code, so that each part can be wrong on purpose.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};
use tar::EntryType;

use super::sha256;

/// The kernel's release in all that is made here.
pub(crate) const RELEASE: &str = "5.10.1";

/// An entry of a layer.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) path: String,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: u64,
    pub(crate) mtime: u64,
    pub(crate) link: String,
    pub(crate) content: Vec<u8>,
}

impl Item {
    pub(crate) fn file(path: &str, content: impl AsRef<[u8]>) -> Self {
        let (path, content) = (path.to_owned(), content.as_ref().to_vec());
        let (kind, link) = (EntryType::Regular, String::new());
        Self { path, kind, mode: 0o644, owner: 0, mtime: 1_600_000_000, link, content }
    }

    pub(crate) fn directory(path: &str) -> Self {
        Self { kind: EntryType::Directory, mode: 0o755, ..Self::file(path, "") }
    }

    pub(crate) fn link(path: &str, kind: EntryType, target: &str) -> Self {
        Self { kind, mode: 0o777, link: target.to_owned(), ..Self::file(path, "") }
    }
}

/// One image for one platform.
#[derive(Clone)]
pub(crate) struct Forged {
    pub(crate) name: String,
    /// The architecture that the index lists it under, if it does.
    pub(crate) listed: Option<String>,
    /// The architecture of the configuration.
    pub(crate) arch: String,
    pub(crate) items: Vec<Item>,
    /// The entries of a second layer, if it has one.
    pub(crate) upper: Vec<Item>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The diff ids, where they are not the right ones.
    pub(crate) diff_ids: Option<Vec<String>>,
    pub(crate) layer_type: String,
    pub(crate) config_type: String,
    /// What the layer's descriptor says about its size beyond what is true.
    pub(crate) more: u64,
    /// Whether the layer is a gzip file at all.
    pub(crate) gzip: bool,
}

impl Forged {
    fn new(name: &str, role: &str, arch: &str, items: Vec<Item>) -> Self {
        let labels = [("io.imgbuild.role", role), ("io.imgbuild.kernel.release", RELEASE)];
        Self {
            name: name.to_owned(),
            listed: Some(arch.to_owned()),
            arch: arch.to_owned(),
            items,
            upper: Vec::new(),
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            diff_ids: None,
            layer_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            config_type: "application/vnd.oci.image.config.v1+json".into(),
            more: 0,
            gzip: true,
        }
    }

    /// A sound kernel image.
    pub(crate) fn kernel(arch: &str) -> Self {
        let vmlinux = if arch == "amd64" { elf(62) } else { image() };
        let items = vec![
            Item::directory("boot"),
            Item::file("boot/config-5.10.1", "CONFIG_A=y\n"),
            Item::file("boot/vmlinux", vmlinux),
        ];
        let mut forged = Self::new("kernel-bin:5.10.1", "kernel", arch, items);
        forged.label("io.imgbuild.kernel.config", &format!("sha256:{}", sha256(b"CONFIG_A=y\n")));
        forged
    }

    /// A sound modules image.
    pub(crate) fn modules(arch: &str) -> Self {
        let top = format!("lib/modules/{RELEASE}");
        let mut items: Vec<_> = ["lib", "lib/modules", &top].map(Item::directory).into();
        items.push(Item::directory(&format!("{top}/kernel")));
        items.push(Item::file(&format!("{top}/kernel/toy.ko"), elf(if arch == "amd64" { 62 } else { 183 })));
        let indexes =
            ["modules.dep", "modules.dep.bin", "modules.alias.bin", "modules.builtin", "modules.order"];
        items.extend(indexes.map(|name| Item::file(&format!("{top}/{name}"), name)));
        let links = indexes.iter().chain(&["kernel"]);
        items.extend(links.map(|name| Item::link(name, EntryType::Symlink, &format!("{top}/{name}"))));
        Self::new("kernel-modules:5.10.1", "modules", arch, items)
    }

    /// Sets a label.
    pub(crate) fn label(&mut self, name: &str, value: &str) {
        self.labels.insert(name.to_owned(), value.to_owned());
    }

    /// An entry, to be changed.
    pub(crate) fn item(&mut self, path: &str) -> &mut Item {
        self.items.iter_mut().find(|item| item.path == path).expect("it has such an entry")
    }

    /// Takes an entry away.
    pub(crate) fn without(&mut self, path: &str) {
        self.items.retain(|item| item.path != path);
    }
}

/// The header of an ELF for a machine.
pub(crate) fn elf(machine: u16) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    file.extend(machine.to_le_bytes());
    file.resize(64, 0);
    file
}

/// The header of an arm64 Image.
pub(crate) fn image() -> Vec<u8> {
    let mut file = vec![0; 64];
    file[0x38..0x3c].copy_from_slice(b"ARM\x64");
    file
}

/// Writes a layout of these images, those of one name in one index.
pub(crate) fn write(dir: &Path, images: &[Forged]) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a new directory");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a new file");
    let mut indexes: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for image in images {
        indexes.entry(&image.name).or_default().push(manifest(dir, image));
    }
    write_indexes(dir, indexes);
}

/// Writes a layout of images by name and architecture, each of layers that are packed already.
pub(crate) fn write_packed(dir: &Path, images: &[(&str, &str, Vec<Vec<u8>>)]) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a new directory");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a new file");
    let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let mut indexes: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (name, arch, layers) in images {
        let digests: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let layers: Vec<_> = layers.iter().map(|layer| blob(dir, layer_type, layer)).collect();
        let config = json!({
            "architecture": arch, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = blob(dir, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut entry = blob(dir, media_type, manifest.to_string().as_bytes());
        entry["platform"] = json!({"architecture": arch, "os": "linux"});
        indexes.entry(name).or_default().push(entry);
    }
    write_indexes(dir, indexes);
}

fn write_indexes(dir: &Path, indexes: BTreeMap<&str, Vec<Value>>) {
    let entries = indexes.into_iter().map(|(name, manifests)| {
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let mut entry = blob(dir, media_type, index.to_string().as_bytes());
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        entry
    });
    let index = json!({"schemaVersion": 2, "manifests": entries.collect::<Vec<_>>()});
    fs::write(dir.join("index.json"), index.to_string()).expect("a new file");
}

fn manifest(dir: &Path, image: &Forged) -> Value {
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for items in [&image.items, &image.upper] {
        // The first one may be empty, and is there all the same.
        if items.is_empty() && !layers.is_empty() {
            continue;
        }
        let tar = tar(items);
        diff_ids.push(format!("sha256:{}", sha256(&tar)));
        let bytes = if image.gzip { gzip(&tar) } else { tar };
        let mut layer = blob(dir, &image.layer_type, &bytes);
        layer["size"] = json!(bytes.len() as u64 + image.more);
        layers.push(layer);
    }
    let diff_ids = image.diff_ids.clone().unwrap_or(diff_ids);
    let config = json!({
        "architecture": image.arch, "os": "linux", "config": {"Labels": image.labels},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(dir, &image.config_type, config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
    let mut entry = blob(dir, media_type, manifest.to_string().as_bytes());
    if let Some(listed) = &image.listed {
        entry["platform"] = json!({"architecture": listed, "os": "linux"});
    }
    entry
}

fn blob(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digits = sha256(bytes);
    fs::write(dir.join("blobs/sha256").join(&digits), bytes).expect("a new file");
    json!({"mediaType": media_type, "digest": format!("sha256:{digits}"), "size": bytes.len()})
}

fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner);
        header.set_gid(item.owner);
        header.set_mtime(item.mtime);
        header.set_size(item.content.len() as u64);
        // Unlike set_path it takes what no honest archive has.
        header.as_old_mut().name[..item.path.len()].copy_from_slice(item.path.as_bytes());
        header.set_link_name_literal(&item.link).expect("a short link");
        header.set_cksum();
        builder.append(&header, item.content.as_slice()).expect("tar in memory");
    }
    builder.into_inner().expect("tar in memory")
}

/// Packs bytes as one gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    let mut packed = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let size = compressor.gzip_compress(bytes, &mut packed).expect("the bound is enough");
    packed.truncate(size);
    packed
}
