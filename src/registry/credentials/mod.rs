//! Credentials as docker and podman keep them: read from their files and helpers, and kept there by `imgbuild login`.
//!
//! The crate `docker_credential` would read them, but knows neither podman's keys for a part of a registry nor identity
//! tokens in files, waits for a helper for ever, puts what it printed into its errors, and keeps nothing.

mod file;
mod helper;

use std::fmt;
use std::path::PathBuf;

use super::reference::Host;
use crate::step::{Class, Diagnose, io_hint};
use file::File;

/// Credentials cannot be had or kept. No variant holds any.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file cannot be understood.
    #[error("`{}` holds no credentials as docker and podman write them: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A credential helper did not do its work.
    #[error("`docker-credential-{name}`, which `{}` names, {reason}", .path.display())]
    Helper {
        /// The helper's name.
        name: String,
        /// The file that names it.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// There is no home directory to keep them in.
    #[error("there is no place for credentials: neither DOCKER_CONFIG nor HOME is set")]
    NoPlace,
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Io(_) | Self::NoPlace => Class::Host,
            Self::Malformed { .. } => Class::Usage,
            Self::Helper { .. } => Class::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(error) => io_hint(error),
            Self::Malformed { .. } => Some("correct it, or move it away and log in again".into()),
            Self::Helper { name, path, .. } => Some(format!(
                "try `docker-credential-{name} list`, or take `{name}` out of `{}`",
                path.display()
            )),
            Self::NoPlace => Some("set DOCKER_CONFIG to a directory".into()),
        }
    }
}

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that brings other tokens.
    IdentityToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "the password of {username:?}"),
            Self::IdentityToken(_) => f.write_str("an identity token"),
        }
    }
}

/// A credential and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// For messages: "`/root/.docker/config.json`".
    pub source: String,
}

/// What the user keeps for a repository of a registry: the first file that has something has the word.
pub fn find(host: &Host, repository: &str) -> Result<Option<Found>, Error> {
    for path in places() {
        if let Some(file) = File::read(&path)?
            && let Some(found) = file.find(host, repository)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Keeps a password where docker does, or podman if `REGISTRY_AUTH_FILE` says so. Returns where that is, for messages.
pub fn keep(host: &Host, username: &str, password: &str) -> Result<String, Error> {
    let path = set("REGISTRY_AUTH_FILE").or_else(docker).ok_or(Error::NoPlace)?;
    let file = File::read(&path)?.unwrap_or_else(|| File::empty(&path));
    file.keep(host, username, password)
}

/// Where credentials may be, strongest first.
fn places() -> impl Iterator<Item = PathBuf> {
    let runtime = set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json"));
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let config = config.map(|dir| dir.join("containers/auth.json"));
    [set("REGISTRY_AUTH_FILE"), docker(), runtime, config].into_iter().flatten()
}

fn docker() -> Option<PathBuf> {
    let dir = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(dir.join("config.json"))
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
