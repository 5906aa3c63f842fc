//! `~/.config/imgbuild/config.toml`: what a user would otherwise type every time.

use std::path::PathBuf;

use super::Failure;
use crate::document::Document;

/// The user's settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where the store is.
    pub(super) store: Option<PathBuf>,
    /// Where images are pushed to.
    pub(super) registry: Option<String>,
    /// Repositories that are looked into for what others have made.
    pub(super) caches: Vec<String>,
    /// Whether what is made here is put into the first of them.
    pub(super) cache_write: bool,
    /// Public keys whose entries are used, and no others.
    pub(super) cache_trust: Vec<PathBuf>,
    /// The private key that entries are signed with.
    pub(super) cache_key: Option<PathBuf>,
    /// Mirrors by place.
    pub(super) mirrors: Vec<(String, String)>,
}

impl Settings {
    /// Reads the settings, if there are any.
    pub(super) fn load() -> Result<Self, Failure> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
        let Some(path) = config.map(|dir| dir.join("imgbuild/config.toml")) else {
            return Ok(Self::default());
        };
        match fs_err::read_to_string(&path) {
            Ok(text) => Self::parse(&path.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        Ok(Document::new(name, text).read(|fields| Self {
            store: fields.text("store").map(|text| text.value.into()),
            registry: fields.text("registry").map(|text| text.value),
            caches: fields.texts("cache").into_iter().map(|text| text.value).collect(),
            cache_write: fields.boolean("cache-write"),
            cache_trust: fields.texts("cache-trust").into_iter().map(|text| text.value.into()).collect(),
            cache_key: fields.text("cache-key").map(|text| text.value.into()),
            mirrors: fields
                .named_texts("mirror")
                .into_iter()
                .map(|(place, base)| (place, base.value))
                .collect(),
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_mistakes_told() {
        let settings =
            Settings::parse("c", "store = '/s'\nregistry = 'h.example/org'\ncache = ['h.example/cache']\ncache-write = true\n[mirror]\n'kernel.org' = '/m'\n")
                .unwrap();
        let expected = Settings {
            store: Some("/s".into()),
            registry: Some("h.example/org".into()),
            caches: vec!["h.example/cache".into()],
            cache_write: true,
            cache_trust: Vec::new(),
            cache_key: None,
            mirrors: vec![("kernel.org".into(), "/m".into())],
        };
        assert_eq!(settings, expected);
        assert!(Settings::parse("c", "mirrors = 1\n").is_err());
    }
}
