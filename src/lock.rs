//! The lock: every input's place and sha256, and the assembly number.

pub mod edit;
pub mod node;
pub mod trees;

use std::collections::BTreeMap;

use crate::arch::Arch;
use crate::document::{Document, Fields, Mistakes, list};
use crate::host;
use crate::step::{Class, Diagnose};
use crate::version::Version;
use node::{NodeSet, Release};
use trees::TreePin;

/// The assembly number this program writes: it counts changes of layer framing, encoder and image layout.
pub const ASSEMBLY: u64 = 1;

/// Where a place's files are by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Below this URL.
    Url(String),
    /// At the mirror this host's own apt uses for the archive of this label ("Debian-Security").
    Apt(String),
}

/// A pinned kernel source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPin {
    /// Its version, as the lock writes it.
    pub version: Version,
    /// The name of the place it comes from, such as `kernel.org`.
    pub place: String,
    /// Its path below the place's base.
    pub path: String,
    /// The sha256 of the file, 64 lower-case digits.
    pub sha256: String,
    /// Its size in bytes, where known.
    pub size: Option<u64>,
    /// A public page about this source, where the place has no canonical URL.
    pub homepage: Option<String>,
}

/// A file of a place and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePin {
    /// The name of the place it comes from, such as `kernel.org`.
    pub place: String,
    /// Its path below the place's base.
    pub path: String,
    /// The sha256 of the file, 64 lower-case digits.
    pub sha256: String,
    /// Its size in bytes, where known.
    pub size: Option<u64>,
}

impl FilePin {
    /// What the file is called where it comes from.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

impl KernelPin {
    /// The file alone.
    pub fn file(&self) -> FilePin {
        let (place, path, sha256) = (self.place.clone(), self.path.clone(), self.sha256.clone());
        FilePin { place, path, sha256, size: self.size }
    }
}

/// A source package of a Debian archive whose upstream tarballs are kernel sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceList {
    /// The archive's place.
    pub place: String,
    /// The suite below `dists/`.
    pub suite: String,
    /// The component.
    pub component: String,
    /// The source package.
    pub package: String,
    /// The file with the keys that the archive may be signed with.
    pub keyring: String,
    /// A public page about the package.
    pub homepage: Option<String>,
}

/// The parsed lock.
#[derive(Debug, Clone)]
pub struct Lock {
    name: String,
    text: String,
    places: BTreeMap<String, Base>,
    snapshots: BTreeMap<String, String>,
    kernels: Vec<KernelPin>,
    trees: Vec<TreePin>,
    sources: Vec<SourceList>,
    releases: Vec<Release>,
    nodes: Vec<NodeSet>,
}

/// A request that the lock cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock's text is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// No pin for this version.
    #[error("kernel {asked} is not pinned in `{lock}`; pinned are {}", list(.pinned.iter().map(String::as_str)))]
    UnknownVersion {
        /// What was asked for.
        asked: Version,
        /// The lock's path.
        lock: String,
        /// All pinned versions, oldest first.
        pinned: Vec<String>,
    },
    /// No set for this Kubernetes version.
    #[error("Kubernetes {asked} is not pinned in `{lock}`; pinned are {}", list(.pinned.iter().map(String::as_str)))]
    UnknownKubernetes {
        /// What was asked for.
        asked: String,
        /// The lock's path.
        lock: String,
        /// All pinned versions.
        pinned: Vec<String>,
    },
    /// A program of a set has no pin.
    #[error("`{lock}` pins no {name} {version} for {arch}")]
    NoRelease {
        /// The program.
        name: String,
        /// Its version.
        version: String,
        /// The architecture.
        arch: Arch,
        /// The lock's path.
        lock: String,
        /// The versions that are pinned for the architecture.
        pinned: Vec<String>,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Mistakes(mistakes) => mistakes.class(),
            Self::UnknownVersion { .. } | Self::UnknownKubernetes { .. } => Class::Usage,
            Self::NoRelease { .. } => Class::Recipe,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Mistakes(mistakes) => mistakes.hint(),
            Self::UnknownVersion { lock, .. } => Some(format!(
                "add a [[kernel]] entry with version, place, path and sha256 to a copy of `{lock}` and name it with --lock"
            )),
            Self::UnknownKubernetes { lock, .. } => Some(format!(
                "a [[kubernetes]] entry in a copy of `{lock}` names the versions that go together, [[release]] entries their files; name the copy with --lock"
            )),
            Self::NoRelease { name, arch, pinned, .. } if pinned.is_empty() => Some(format!(
                "no {name} is pinned for {arch} at all: a [[release]] entry with place, path and sha256 adds one"
            )),
            Self::NoRelease { name, arch, pinned, .. } => Some(format!(
                "pinned for {arch} are {}; a [[release]] entry with place, path and sha256 adds another {name}",
                list(pinned.iter().map(String::as_str))
            )),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Mistakes(mistakes) => mistakes.detail(),
            _ => None,
        }
    }
}

impl Lock {
    /// Parses the text of the lock called `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, Mistakes> {
        let (places, snapshots, kernels, trees, sources, releases, nodes) =
            Document::new(name, text).read(|top| {
                if let Some(number) = top.number("assembly")
                    && number != ASSEMBLY
                {
                    let message =
                        format!("assembly {number} is not known: this imgbuild writes assembly {ASSEMBLY}");
                    top.mistake_here(message, Some("use the imgbuild that wrote this lock".into()));
                }
                let places: BTreeMap<_, _> = top
                    .named_texts("places")
                    .into_iter()
                    .map(|(place, base)| match base.value.strip_prefix("apt:") {
                        Some(label) => (place, Base::Apt(label.to_owned())),
                        None => (place, Base::Url(base.value)),
                    })
                    .collect();
                let mut kernels: Vec<KernelPin> = Vec::new();
                for pin in top.tables("kernel", |fields| kernel(fields, &places)).into_iter().flatten() {
                    if kernels.iter().any(|other| other.version == pin.version) {
                        top.mistake_here(format!("kernel {} is pinned twice", pin.version), None);
                    }
                    kernels.push(pin);
                }
                kernels.sort_by(|a, b| a.version.cmp(&b.version));
                let trees = top.tables("tree", trees::read).into_iter().flatten().collect();
                let sources =
                    top.tables("sources", |fields| source_list(fields, &places)).into_iter().flatten();
                let sources = sources.collect();
                let releases = node::releases(top, &places);
                let nodes = top.tables("kubernetes", node::read).into_iter().flatten().collect();
                (places, snapshots(top), kernels, trees, sources, releases, nodes)
            })?;
        let (name, text) = (name.to_owned(), text.to_owned());
        Ok(Self { name, text, places, snapshots, kernels, trees, sources, releases, nodes })
    }

    /// What messages call it: its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text, with the pins that were taken in.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes a pin in that was verified elsewhere; the file is not changed.
    pub fn admit(&mut self, pin: KernelPin) {
        let text = edit::add_kernel(&self.text, &pin, "verified for one build");
        self.text = text.expect("a text that was parsed can be added to");
        self.kernels.push(pin);
        self.kernels.sort_by(|a, b| a.version.cmp(&b.version));
    }

    /// The base of a place. Every pin's place has one.
    pub fn place(&self, name: &str) -> Option<&Base> {
        self.places.get(name)
    }

    /// Where a place is to be had as of a moment, if it has a service for that.
    pub fn snapshot(&self, place: &str, moment: &str) -> Option<String> {
        Some(self.snapshots.get(place)?.replace(DATE, moment))
    }

    /// The pinned package set of a tree that runs on `arch`.
    pub fn tree(&self, name: &str, arch: Arch) -> Option<&TreePin> {
        self.trees.iter().find(|pin| pin.name == name && pin.arch == arch)
    }

    /// The archives that are asked for newer kernel sources.
    pub fn sources(&self) -> &[SourceList] {
        &self.sources
    }

    /// The names of all places.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// The pins, oldest first.
    pub fn kernels(&self) -> &[KernelPin] {
        &self.kernels
    }

    /// The pin of a version; a series (`5.10`) means its newest pinned version.
    pub fn kernel(&self, asked: &Version) -> Result<&KernelPin, Error> {
        let is_series = asked.to_string() == asked.series();
        let meant = |pin: &&KernelPin| {
            if is_series { pin.version.series() == asked.series() } else { pin.version == *asked }
        };
        self.kernels.iter().rfind(meant).ok_or_else(|| Error::UnknownVersion {
            asked: asked.clone(),
            lock: self.name.clone(),
            pinned: self.kernels.iter().map(|pin| pin.version.to_string()).collect(),
        })
    }

    /// The public page or canonical URL of a pin's source: the same on every host and mirror.
    pub fn source_url(&self, pin: &KernelPin) -> Option<String> {
        match self.place(&pin.place) {
            Some(Base::Url(base)) => Some(join(base, &pin.path)),
            _ => pin.homepage.clone(),
        }
    }
}

/// A base URL or directory and a path below it.
pub fn join(base: &str, path: &str) -> String {
    format!("{}/{path}", base.trim_end_matches('/'))
}

/// What stands for the moment in the URL of a snapshot service.
const DATE: &str = "{date}";

/// Reads the URLs of snapshot services.
fn snapshots(top: &Fields<'_>) -> BTreeMap<String, String> {
    let texts = top.named_texts("snapshots");
    for (_, url) in texts.iter().filter(|(_, url)| !url.value.contains(DATE)) {
        top.mistake(url, format!("the URL of a snapshot service holds `{DATE}`"), None);
    }
    texts.into_iter().map(|(place, url)| (place, url.value)).collect()
}

/// Whether this is a sha256 as the lock writes it.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn source_list(fields: &Fields<'_>, places: &BTreeMap<String, Base>) -> Option<SourceList> {
    let text = |name| fields.required(name).map(|text| text.value);
    let place = known_place(fields, places);
    let (suite, component, package) = (text("suite"), text("component"), text("package"));
    let keyring = text("keyring").map(|keyring| host::keyring_path(&keyring));
    let homepage = fields.text("homepage").map(|text| text.value);
    Some(SourceList {
        place: place?,
        suite: suite?,
        component: component?,
        package: package?,
        keyring: keyring?,
        homepage,
    })
}

/// The field `place`, which is to be one of the lock's.
fn known_place(fields: &Fields<'_>, places: &BTreeMap<String, Base>) -> Option<String> {
    let place = fields.required("place")?;
    if !places.contains_key(&place.value) {
        let help = format!("the places are {}", list(places.keys().map(String::as_str)));
        fields.mistake(&place, format!("unknown place `{}`", place.value), Some(help));
    }
    Some(place.value)
}

fn kernel(fields: &Fields<'_>, places: &BTreeMap<String, Base>) -> Option<KernelPin> {
    let version = fields.parsed("version");
    let file = file(fields, places);
    let homepage = fields.text("homepage").map(|text| text.value);
    let (version, FilePin { place, path, sha256, size }) = (version?, file?);
    Some(KernelPin { version, place, path, sha256, size, homepage })
}

/// The fields of a pinned file.
fn file(fields: &Fields<'_>, places: &BTreeMap<String, Base>) -> Option<FilePin> {
    let place = known_place(fields, places);
    let path = fields.required("path");
    let sha256 = fields.required("sha256");
    let size = fields.number("size");
    if let Some(digest) = &sha256
        && !is_sha256(&digest.value)
    {
        fields.mistake(digest, "a sha256 is 64 lower-case hexadecimal digits", None);
    }
    if let Some(path) = &path
        && path.value.split('/').any(|part| matches!(part, "" | "." | ".."))
    {
        fields.mistake(path, "a path is relative to its place and holds no `..`", None);
    }
    Some(FilePin { place: place?, path: path?.value, sha256: sha256?.value, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e03766e4b2c246a20c9e2770aa599ee25c336d33b31c0980950230634e195339";

    fn lock(versions: &[&str]) -> Result<Lock, Mistakes> {
        let mut text =
            String::from("assembly = 1\n[places]\n'kernel.org' = 'https://k.test/pub/'\nd = 'apt:Debian'\n");
        for version in versions {
            text += &format!(
                "[[kernel]]\nversion = '{version}'\nplace = 'kernel.org'\npath = 'a/{version}.tar.xz'\nsha256 = '{DIGEST}'\n"
            );
        }
        Lock::parse("imgbuild.lock", &text)
    }

    #[test]
    fn a_series_means_its_newest_pin() {
        let lock = lock(&["5.10.77", "5.10.262", "4.19.215", "5.12"]).unwrap();
        let pinned = |text: &str| lock.kernel(&text.parse().unwrap()).map(|pin| pin.version.to_string());
        assert_eq!(pinned("5.10").unwrap(), "5.10.262");
        assert_eq!(pinned("5.10.77").unwrap(), "5.10.77");
        assert_eq!(pinned("5.12").unwrap(), "5.12");
        assert_eq!(pinned("5.12.0").unwrap(), "5.12");
        let error = pinned("5.10.78").unwrap_err();
        assert!(error.to_string().contains("`4.19.215`, `5.10.77`, `5.10.262`, `5.12`"), "{error}");
        assert_eq!(error.class(), Class::Usage);
    }

    #[test]
    fn the_source_url_never_names_a_mirror() {
        let lock = lock(&["5.10.77"]).unwrap();
        assert_eq!(lock.source_url(&lock.kernels()[0]).unwrap(), "https://k.test/pub/a/5.10.77.tar.xz");
        assert_eq!(lock.place("d"), Some(&Base::Apt("Debian".into())));
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(lock(&["5.10.77", "5.10.77"]).is_err());
        assert!(lock(&["5.10.x"]).is_err());
        let text = "assembly = 2\n[[kernel]]\nversion = '5.10'\nplace = 'p'\npath = '../x'\nsha256 = 'AB'\n";
        let detail = Lock::parse("l", text).unwrap_err().detail().unwrap();
        for expected in ["assembly 2 is not known", "unknown place `p`", "64 lower-case", "holds no `..`"] {
            assert!(detail.contains(expected), "{expected} is not in\n{detail}");
        }
    }
}
