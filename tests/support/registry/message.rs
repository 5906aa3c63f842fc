//! Requests and replies of the registry, as HTTP/1.1 has them.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde_json::json;

pub(super) struct Head {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) fields: BTreeMap<String, String>,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Head {
    /// The bytes of its body.
    pub(super) fn length(&self) -> usize {
        self.fields.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Path and query.
    pub(super) fn target(&self) -> String {
        let query: Vec<_> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, query.join("&")) }
    }
}

pub(super) fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Head>> {
    let mut lines = reader.by_ref().lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut fields = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut parts: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = value
            .replace("%3A", ":")
            .replace("%2F", "/")
            .replace("%2C", ",")
            .replace('+', " ")
            .replace("%2B", "+");
        // Several scopes come as several fields.
        parts.entry(name.to_owned()).and_modify(|all| *all += &format!(" {value}")).or_insert(value);
    }
    Ok(Some(Head { method: method.to_owned(), path: path.to_owned(), query: parts, fields }))
}

/// Repository, kind and name of `/v2/org/name/manifests/tag`.
pub(super) fn parts(path: &str) -> (String, String, String) {
    let path = path.strip_prefix("/v2/").unwrap_or_default();
    for kind in ["/manifests/", "/referrers/", "/blobs/uploads/", "/blobs/"] {
        if let Some((repository, name)) = path.split_once(kind) {
            let kind = kind.trim_matches('/').rsplit('/').next().unwrap_or_default();
            return (repository.to_owned(), kind.to_owned(), name.to_owned());
        }
    }
    <(String, String, String)>::default()
}

pub(super) fn reply(status: u16, head: String, body: Vec<u8>) -> Reply {
    Reply { status, head, body }
}

pub(super) fn error(status: u16, code: &str, message: &str, lines: &str) -> Reply {
    let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
    reply(status, lines.to_owned(), body.into_bytes())
}

pub(super) fn first_byte(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}
