//! A layout with made-up images: as large as a test wants them, and there in no time.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use super::{Place, noise, sha256};

/// How large the layers are, in bytes.
pub(crate) const LAYER: usize = 600_000;

/// Writes a layout of images for two platforms; those with the same seed have the same layers.
pub(crate) fn layout(place: &Place, dir: &str, images: &[(&str, u64)]) {
    let dir = place.path(dir);
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a new directory");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a new file");
    let mut entries = Vec::new();
    for (name, seed) in images {
        let members: Vec<Value> = [("amd64", 1), ("arm64", 2)]
            .into_iter()
            .map(|(architecture, number)| member(&dir, name, architecture, &noise(seed * 10 + number, LAYER)))
            .collect();
        let mut entry = index(&dir, name, &members);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        entries.push(entry);
    }
    let index = json!({ "schemaVersion": 2, "manifests": entries });
    fs::write(dir.join("index.json"), index.to_string()).expect("a new file");
}

/// A layout of one image, `kernel-bin:5.10.1`, for one platform.
pub(crate) fn layout_of_one(place: &Place, dir: &str, architecture: &str) {
    layout(place, dir, &[("kernel-bin:5.10.1", 1)]);
    let dir = place.path(dir);
    let number = if architecture == "amd64" { 1 } else { 2 };
    let name = "kernel-bin:5.10.1";
    let member = member(&dir, name, architecture, &noise(10 + number, LAYER));
    let mut entry = index(&dir, name, &[member]);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(dir.join("index.json"), index.to_string()).expect("a new file");
}

fn member(dir: &Path, name: &str, architecture: &str, layer: &[u8]) -> Value {
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Labels": { "name": name } },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))] },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(dir, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": [put(dir, "application/vnd.oci.image.layer.v1.tar", layer)],
    });
    let mut entry = put(dir, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
    entry
}

/// As imgbuild writes one: sorted keys, nothing between them.
pub(crate) fn index(dir: &Path, name: &str, members: &[Value]) -> Value {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": members, "annotations": { "of": name },
    });
    put(dir, media_type, index.to_string().as_bytes())
}

fn put(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = sha256(bytes);
    fs::write(dir.join("blobs/sha256").join(&digest), bytes).expect("a new file");
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}
