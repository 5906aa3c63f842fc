//! docker's `config.json` and podman's `auth.json`: `auths`, `credHelpers`, `credsStore`.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use fs_err as fs;
use serde_json::{Value, json};

use super::super::reference::Host;
use super::{Credential, Error, Found, helper};

/// What Docker Hub is called in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Some tools write `auth` without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file of credentials.
pub(super) struct File {
    path: PathBuf,
    document: Value,
}

impl File {
    /// Reads a file; none if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if text.trim().is_empty() {
            return Ok(Some(Self::empty(path)));
        }
        let malformed = |reason| Error::Malformed { path: path.to_owned(), reason };
        // Where it is wrong, not what stands there.
        let document: Value = serde_json::from_str(&text).map_err(|error| {
            malformed(format!("its JSON breaks in line {}, column {}", error.line(), error.column()))
        })?;
        if !document.is_object() {
            return Err(malformed("it is no JSON object".into()));
        }
        Ok(Some(Self { path: path.to_owned(), document }))
    }

    /// A file that is not there yet.
    pub(super) fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), document: json!({}) }
    }

    /// What it has for a repository.
    pub(super) fn find(&self, host: &Host, repository: &str) -> Result<Option<Found>, Error> {
        let source = format!("`{}`", self.path.display());
        if let Some(name) = self.helper_for(host) {
            return self.ask(name, host);
        }
        for key in keys(host, repository) {
            let entries = self.document["auths"].as_object().into_iter().flatten();
            for (_, entry) in entries.filter(|(name, _)| normal(name) == key) {
                if let Some(credential) = self.entry(entry)? {
                    return Ok(Some(Found { credential, source }));
                }
            }
        }
        match self.document["credsStore"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => self.ask(name, host),
            None => Ok(None),
        }
    }

    fn helper_for(&self, host: &Host) -> Option<&str> {
        let helpers = self.document["credHelpers"].as_object()?;
        let (_, name) = helpers.iter().find(|(name, _)| normal(name) == normal(host.as_str()))?;
        name.as_str().filter(|name| !name.is_empty())
    }

    fn ask(&self, name: &str, host: &Host) -> Result<Option<Found>, Error> {
        let credential = helper::get(name, &server(host)).map_err(|reason| self.helper(name, reason))?;
        let source = format!("`docker-credential-{name}`");
        Ok(credential.map(|credential| Found { credential, source }))
    }

    fn helper(&self, name: &str, reason: String) -> Error {
        Error::Helper { name: name.to_owned(), path: self.path.clone(), reason }
    }

    /// The credential of one entry of `auths`; docker leaves empty ones for what a helper keeps.
    fn entry(&self, entry: &Value) -> Result<Option<Credential>, Error> {
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.to_owned())));
        }
        if let (Some(username), Some(password)) = (text("username"), text("password")) {
            let (username, password) = (username.to_owned(), password.to_owned());
            return Ok(Some(Credential::Password { username, password }));
        }
        let Some(auth) = text("auth") else { return Ok(None) };
        let decoded = LENIENT.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Some versions of docker end it with zero bytes.
        let pair =
            decoded.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':'));
        let (username, password) = pair.ok_or_else(|| Error::Malformed {
            path: self.path.clone(),
            reason: "an `auth` is not USER:PASSWORD in base64".into(),
        })?;
        Ok(Some(Credential::Password { username: username.to_owned(), password: password.to_owned() }))
    }

    /// Keeps a password, in the helper if the file names one; returns where.
    pub(super) fn keep(mut self, host: &Host, username: &str, password: &str) -> Result<String, Error> {
        let store = self.document["credsStore"].as_str().filter(|name| !name.is_empty());
        if let Some(name) = self.helper_for(host).or(store) {
            helper::store(name, &server(host), username, password)
                .map_err(|reason| self.helper(name, reason))?;
            return Ok(format!("`docker-credential-{name}`"));
        }
        let auths = &mut self.document["auths"];
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[server(host)] = json!({ "auth": STANDARD.encode(format!("{username}:{password}")) });
        self.write()?;
        Ok(format!("`{}`", self.path.display()))
    }

    /// Writes it whole or not at all, for the user alone; through a link, what it points to.
    fn write(&self) -> Result<(), Error> {
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let dir = target.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        // A temporary file is the user's alone from the start.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        let text = serde_json::to_string_pretty(&self.document).map_err(std::io::Error::from)?;
        file.write_all((text + "\n").as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|error| error.error)?;
        Ok(())
    }
}

/// What a host is called in `auths` and by helpers.
fn server(host: &Host) -> String {
    if normal(host.as_str()) == normal(DOCKER_HUB) { DOCKER_HUB.into() } else { host.to_string() }
}

/// The keys that fit a repository, narrowest first, as podman has them: `host/org/name`, `host/org`, `host`.
fn keys(host: &Host, repository: &str) -> Vec<String> {
    let host = normal(host.as_str());
    let mut keys = vec![host.clone()];
    let mut at = host;
    for part in repository.split('/').filter(|part| !part.is_empty()) {
        at = format!("{at}/{part}");
        keys.push(at.clone());
    }
    keys.reverse();
    keys
}

/// A key without what versions of docker put around the host.
fn normal(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = ["/v1", "/v2"].iter().find_map(|end| key.strip_suffix(end)).unwrap_or(key);
    match key.to_ascii_lowercase().as_str() {
        "docker.io" | "registry-1.docker.io" => "index.docker.io".into(),
        key => key.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(document: Value, host: &str, repository: &str) -> Result<Option<String>, String> {
        let file = File { path: "c".into(), document };
        let found = file.find(&host.parse().unwrap(), repository).map_err(|error| error.to_string())?;
        Ok(found.map(|found| match found.credential {
            Credential::Password { username, password } => format!("{username}/{password}"),
            Credential::IdentityToken(token) => token,
        }))
    }

    #[test]
    fn the_narrowest_entry_has_the_word() {
        let auth = |text: &str| json!({ "auth": STANDARD.encode(text) });
        let document = json!({ "auths": {
            "h.example": auth("a:1"), "h.example/org": auth("b:2"), "h.example/org/name": auth("c:3"),
        } });
        for (repository, expected) in [("x", "a/1"), ("org/x", "b/2"), ("org/name", "c/3"), ("organ", "a/1")]
        {
            assert_eq!(find(document.clone(), "h.example", repository), Ok(Some(expected.into())));
        }
        assert_eq!(find(document, "other.example", "org"), Ok(None));
    }

    #[test]
    fn keys_are_taken_in_every_spelling() {
        for (key, host) in [
            ("https://h.example", "h.example"),
            ("https://h.example:5000/v2/", "h.example:5000"),
            ("H.example/", "h.example"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "registry-1.docker.io"),
        ] {
            let document = json!({ "auths": { key: { "auth": "YTpiOmM" } } });
            assert_eq!(find(document, host, "x"), Ok(Some("a/b:c".into())), "{key}");
        }
    }

    #[test]
    fn entries_of_every_kind_are_read_and_bad_ones_told_without_their_content() {
        for (entry, expected) in [
            (json!({ "identitytoken": "tok", "auth": "YTpi" }), Ok(Some("tok".to_owned()))),
            (json!({ "username": "u", "password": "p" }), Ok(Some("u/p".to_owned()))),
            (json!({}), Ok(None)),
            (json!({ "auth": "" }), Ok(None)),
        ] {
            assert_eq!(find(json!({ "auths": { "h.example": entry } }), "h.example", "x"), expected);
        }
        let error =
            find(json!({ "auths": { "h.example": { "auth": "s3cret!" } } }), "h.example", "x").unwrap_err();
        assert!(error.contains("base64") && !error.contains("s3cret"), "{error}");
    }
}
