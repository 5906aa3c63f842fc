//! What was read of a catalogue: kept while recipes are read, and a catalogue of its own afterwards.
//!
//! Nothing is left out that a recipe's meaning depends on, because the reading itself keeps it; and nothing of it lies
//! on a disk when it is read again, so no name in it can lead anywhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Files by the names they were asked for: `recipes/kernel/tiny.toml` and `kconfigs/base.config` of the catalogue;
/// `./toy.toml` and what it names (`./toy.config`, `../shared.config`) for a recipe in a file of one's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Copied(BTreeMap<String, Content>);

/// A file's bytes: as text where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Bytes { base64: String },
}

impl Copied {
    /// A file's bytes.
    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
        match self.0.get(name)? {
            Content::Text(text) => Some(text.clone().into_bytes()),
            // What is no base64 is no file of ours.
            Content::Bytes { base64 } => STANDARD.decode(base64).ok(),
        }
    }

    /// A file's text, or why there is none.
    pub(super) fn text(&self, name: &str) -> std::io::Result<String> {
        let missing = || {
            let message = format!("no `{name}` among the files that were recorded");
            std::io::Error::new(std::io::ErrorKind::NotFound, message)
        };
        let bytes = self.get(name).ok_or_else(missing)?;
        String::from_utf8(bytes).map_err(|_| std::io::Error::other(format!("`{name}` is no text")))
    }

    /// All files, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, Vec<u8>)> {
        self.0.keys().filter_map(|name| Some((name.as_str(), self.get(name)?)))
    }

    /// Leaves out files.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    /// Adds a file, or another content of it.
    pub fn add(&mut self, name: &str, text: &str) {
        self.put(name, text.as_bytes());
    }

    fn put(&mut self, name: &str, bytes: &[u8]) {
        let content = match std::str::from_utf8(bytes) {
            Ok(text) => Content::Text(text.to_owned()),
            Err(_) => Content::Bytes { base64: STANDARD.encode(bytes) },
        };
        self.0.insert(name.to_owned(), content);
    }
}

/// Where what is read is kept; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Copier(Arc<Mutex<Copied>>);

impl Copier {
    /// What was read so far.
    pub fn copied(&self) -> Copied {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn keep(&self, name: &str, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(name, bytes);
    }
}

/// The name under which a recipe in a file of one's own is kept.
pub fn own_name(path: &Path) -> String {
    format!("./{}", path.file_name().unwrap_or_default().to_string_lossy())
}
