//! What is attached to an image, listed as registries of the distribution specification 1.1 do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::message::{Head, Reply, reply};

/// Media types and bytes by repository and tag or digest.
type Manifests = BTreeMap<(String, String), (String, Vec<u8>)>;

/// A page of what has `subject`, of one type if so asked.
pub(super) fn page(manifests: &Manifests, repository: &str, subject: &str, head: &Head) -> Reply {
    const PAGE: usize = 2;
    let wanted = head.query.get("artifactType");
    let mut entries = Vec::new();
    for ((other, name), (kind, bytes)) in manifests {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if other != repository || document["subject"]["digest"] != subject || !name.starts_with("sha256:") {
            continue;
        }
        let own = document.get("artifactType").unwrap_or(&document["config"]["mediaType"]);
        if wanted.is_none_or(|wanted| own == wanted) {
            entries.push(json!({
                "mediaType": kind, "digest": name, "size": bytes.len(), "artifactType": own,
                "annotations": document["annotations"],
            }));
        }
    }
    let from = head.query.get("from").and_then(|from| from.parse().ok()).unwrap_or(0);
    let page: Vec<&Value> = entries.iter().skip(from).take(PAGE).collect();
    let mut lines = "Content-Type: application/vnd.oci.image.index.v1+json\r\n".to_owned();
    if wanted.is_some() {
        lines += "OCI-Filters-Applied: artifactType\r\n";
    }
    if entries.len() > from + PAGE {
        let filter =
            wanted.map_or_else(String::new, |wanted| format!("&artifactType={}", wanted.replace('+', "%2B")));
        lines += &format!("Link: <{}?from={}{filter}>; rel=\"next\"\r\n", head.path, from + PAGE);
    }
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": page,
    });
    reply(200, lines, index.to_string().into_bytes())
}
