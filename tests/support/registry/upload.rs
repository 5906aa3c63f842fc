//! How blobs come in.

use super::super::sha256;
use super::State;
use super::message::{Head, Reply, error, reply};

/// An upload begun, gone on with, asked after, taken back or ended; a mount too.
pub(super) fn upload(
    state: &mut State,
    repository: &str,
    id: &str,
    head: &Head,
    body: Vec<u8>,
    lost: bool,
) -> Reply {
    if head.method == "POST" {
        if let (Some(digest), Some(from)) = (head.query.get("mount"), head.query.get("from"))
            && let Some(bytes) = state.blobs.get(&(from.clone(), digest.clone())).cloned()
        {
            state.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            return reply(201, format!("Location: /v2/{repository}/blobs/{digest}\r\n"), Vec::new());
        }
        state.begun += 1;
        let id = format!("upload-{}", state.begun);
        state.uploads.insert(id.clone(), Vec::new());
        return reply(202, format!("Location: /v2/{repository}/blobs/uploads/{id}?_state=x\r\n"), Vec::new());
    }
    let Some(bytes) = state.uploads.get_mut(id) else {
        return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown", "");
    };
    let begins = head.fields.get("content-range").and_then(|range| range.split('-').next()?.parse().ok());
    if begins.is_some_and(|begins: usize| begins != bytes.len()) {
        return reply(416, format!("Range: 0-{}\r\n", bytes.len().saturating_sub(1)), Vec::new());
    }
    if !lost {
        bytes.extend(body);
    }
    let lines = format!(
        "Location: /v2/{repository}/blobs/uploads/{id}?_state=y\r\nRange: 0-{}\r\n",
        bytes.len().saturating_sub(1)
    );
    match head.method.as_str() {
        "GET" => reply(204, lines, Vec::new()),
        "PATCH" => reply(202, lines, Vec::new()),
        "DELETE" => {
            state.uploads.remove(id);
            reply(204, String::new(), Vec::new())
        }
        _ => {
            let bytes = state.uploads.remove(id).unwrap_or_default();
            let digest = format!("sha256:{}", sha256(&bytes));
            if head.query.get("digest") != Some(&digest) {
                return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content", "");
            }
            state.blobs.insert((repository.to_owned(), digest.clone()), bytes);
            reply(201, format!("Docker-Content-Digest: {digest}\r\n"), Vec::new())
        }
    }
}
