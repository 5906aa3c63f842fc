//! `imgbuild lock`: the pins against what upstream signs, and versions the lock does not have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::add::Kubernetes;
use crate::document::list;
use crate::fetch::archive::{self, Listed};
use crate::fetch::kernel_org::{self, KernelOrg, PLACE, RELEASES, Verified};
use crate::fetch::mirror::Mirrors;
use crate::fetch::openpgp::{self, Keyring, Signer};
use crate::lock::trees::{TreePin, with_tree};
use crate::lock::{self, KernelPin, Lock, SourceList, edit};
use crate::recipe::{self, Catalogue};
use crate::step::{Class, Diagnose, Level, Watch};
use crate::store::Store;
use crate::version::Version;

/// Why the lock cannot be brought up to date, or a version outside it not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Upstream cannot be asked or believed.
    #[error(transparent)]
    Upstream(#[from] kernel_org::Error),
    /// The recipes cannot be read.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// The lock has no answer.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// A version is not in the lock and cannot be verified either.
    #[error("kernel {asked} is not pinned in `{lock}`, and cannot be verified: {because}")]
    Outside {
        /// What was asked for.
        asked: Version,
        /// The lock.
        lock: String,
        /// All pinned versions.
        pinned: Vec<String>,
        /// Why not.
        because: Box<kernel_org::Error>,
    },
    /// kernel.org has no release of the series.
    #[error("kernel.org has no release of the series {0}")]
    NoSeries(String),
    /// An archive's list cannot be had or believed.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// Something newer exists.
    #[error("`{lock}` is behind: {}", .newer.join(", "))]
    Behind {
        /// The lock.
        lock: String,
        /// "5.10.266 is out, pinned is 5.10.265".
        newer: Vec<String>,
    },
    /// Pins that are not what their place signs.
    #[error("`{lock}` does not pin what {place} signs: {}", list(.differing.iter().map(|pin| pin.version.as_str())))]
    Differs {
        /// The lock.
        lock: String,
        /// The place.
        place: String,
        /// The pins.
        differing: Vec<Differing>,
    },
    /// The lock is no file.
    #[error("`{0}` is built into this program and cannot be changed")]
    Builtin(String),
    /// The lock's text cannot be edited.
    #[error("`{0}` cannot be edited: {1}")]
    Edit(String, Box<toml_edit::TomlError>),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A pin that is not what its place signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    version: String,
    pinned: String,
    signed: String,
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Upstream(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Recipe(error) => error.class(),
            Self::Lock(error) => error.class(),
            Self::Outside { because, .. } => match **because {
                // Without keys nothing was tried: it is a version that is not there.
                kernel_org::Error::OpenPgp(openpgp::Error::NoMaterial { .. }) => Class::Usage,
                _ => because.class(),
            },
            Self::NoSeries(_) | Self::Builtin(_) => Class::Usage,
            Self::Behind { .. } | Self::Edit(..) => Class::Recipe,
            Self::Differs { .. } => Class::Verification,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Upstream(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Recipe(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Outside { because, .. } => because.hint(),
            Self::NoSeries(_) => Some("a series is a major and a minor number, as 5.10".into()),
            Self::Behind { .. } => Some("without --check the same command verifies and pins it".into()),
            Self::Differs { .. } => Some(
                "find out which one is wrong before changing the lock by hand: no pin is ever replaced for you".into(),
            ),
            Self::Builtin(_) => Some("run it in a checkout, or name a copy with --lock".into()),
            Self::Edit(..) => None,
            Self::Io(error) => crate::step::io_hint(error),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Upstream(error) => error.detail(),
            Self::Archive(error) => error.detail(),
            Self::Recipe(error) => error.detail(),
            Self::Lock(error) => error.detail(),
            Self::Outside { asked, pinned, because, .. } => {
                let pinned = list(pinned.iter().map(String::as_str));
                let own = format!(
                    "pinned are {pinned}\nonce it can be verified, `imgbuild lock --add kernel {asked}` pins it"
                );
                Some(because.detail().map_or_else(|| own.clone(), |detail| format!("{detail}\n{own}")))
            }
            Self::Differs { differing, .. } => {
                let line = |pin: &Differing| {
                    format!(
                        "{}: pinned is {}\n{:>w$}  signed is {}",
                        pin.version,
                        pin.pinned,
                        "",
                        pin.signed,
                        w = pin.version.len()
                    )
                };
                Some(differing.iter().map(line).collect::<Vec<_>>().join("\n"))
            }
            _ => None,
        }
    }
}

/// The keys of a catalogue.
pub fn keyring(catalogue: &Catalogue) -> Result<Keyring, Error> {
    let keyring = Keyring::load(|path| catalogue.name(path), |path| catalogue.read(path));
    Ok(keyring.map_err(kernel_org::Error::from)?)
}

/// The series that the recipes of a catalogue track.
pub fn tracked(catalogue: &Catalogue) -> Result<BTreeSet<String>, Error> {
    let mut series = BTreeSet::new();
    for flavour in catalogue.flavours()? {
        series.extend(catalogue.flavour(&flavour)?.series);
    }
    Ok(series)
}

/// What upstream has of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// Its name: `5.10`.
    pub name: String,
    /// The newest pinned version.
    pub pinned: Option<Version>,
    /// The newest release.
    pub newest: Version,
    /// Whether kernel.org still announces releases of it.
    pub is_maintained: bool,
}

impl Series {
    /// Whether there is something newer than what is pinned.
    pub fn is_behind(&self) -> bool {
        self.pinned.as_ref().is_none_or(|pinned| *pinned < self.newest)
    }
}

/// Looks at each series (all of `tracked`, or the one asked for) and compares the pins with what is signed.
pub fn survey(
    upstream: &KernelOrg<'_>,
    lock: &Lock,
    series: &BTreeSet<String>,
    all_pins: bool,
    watch: &Watch,
) -> Result<(Vec<Series>, usize), Error> {
    upstream.require(&[PLACE, RELEASES])?;
    let major = |name: &str| name.split('.').next().and_then(|major| major.parse().ok());
    let major = |name: &String| major(name).ok_or_else(|| Error::NoSeries(name.clone()));
    let announced = upstream.announced().inspect_err(|error| {
        // Without a network all places fail: each is told once, the first one as the error.
        let first = series.first().and_then(|name| major(name).ok());
        if error.class() == Class::Input
            && let Some(Err(other)) = first.map(|major| upstream.sums(major))
            && other.class() == Class::Input
        {
            let hint = other.hint().unwrap_or_default();
            watch.reporter.note(Level::Warning, &format!("{other} as well; {hint}"));
        }
    })?;
    let mut found = Vec::new();
    for name in series {
        let sums = upstream.sums(major(name)?)?;
        let listed = sums.newest(name);
        if let Some(version) = announced.get(name) {
            // What is announced must be signed for; what is signed may be newer than a stale announcement.
            sums.of(version)?;
        }
        let newest = listed.max(announced.get(name).cloned()).ok_or_else(|| Error::NoSeries(name.clone()))?;
        let pinned = lock.kernels().iter().rfind(|pin| pin.version.series() == *name);
        found.push(Series {
            name: name.clone(),
            pinned: pinned.map(|pin| pin.version.clone()),
            newest,
            is_maintained: announced.contains_key(name),
        });
    }
    let (mut differing, mut agreeing) = (Vec::new(), 0);
    let is_meant =
        |pin: &&KernelPin| pin.place == PLACE && (all_pins || series.contains(&pin.version.series()));
    for pin in lock.kernels().iter().filter(is_meant) {
        let [major, ..] = pin.version.numbers();
        let sums = upstream.sums(major)?;
        let signed = sums.of_file(pin.path.rsplit('/').next().unwrap_or(&pin.path))?;
        if signed == pin.sha256 {
            agreeing += 1;
        } else {
            let (version, pinned) = (pin.version.to_string(), pin.sha256.clone());
            differing.push(Differing { version, pinned, signed: signed.to_owned() });
        }
    }
    if differing.is_empty() {
        Ok((found, agreeing))
    } else {
        Err(Error::Differs { lock: lock.name().to_owned(), place: PLACE.to_owned(), differing })
    }
}

/// What an archive has, beside what the lock pins of it.
#[derive(Debug)]
pub struct Offered {
    /// Its newest kernel source.
    pub newest: KernelPin,
    /// Who signed for it.
    pub signer: Signer,
    /// The newest version pinned there.
    pub pinned: Option<Version>,
    /// How many pins are what is signed.
    pub agreeing: usize,
    /// The pinned versions that the archive has no more.
    pub gone: Vec<Version>,
}

impl Offered {
    /// Whether there is something newer than what is pinned.
    pub fn is_newer(&self) -> bool {
        self.pinned.as_ref().is_none_or(|pinned| *pinned < self.newest.version)
    }
}

/// Asks an archive for its kernel sources and compares the pins with what is signed.
pub fn survey_archive(
    list: &SourceList,
    lock: &Lock,
    mirrors: &Mirrors,
    watch: &Watch,
) -> Result<Offered, Error> {
    let Listed { mut pins, signer } = archive::kernels(list, lock, mirrors, watch)?;
    let (mut differing, mut agreeing, mut gone) = (Vec::new(), 0, Vec::new());
    let own = || lock.kernels().iter().filter(|pin| pin.place == list.place);
    for pin in own() {
        match pins.iter().find(|listed| listed.version == pin.version) {
            Some(listed) if listed.sha256 == pin.sha256 => agreeing += 1,
            Some(listed) => differing.push(Differing {
                version: pin.version.to_string(),
                pinned: pin.sha256.clone(),
                signed: listed.sha256.clone(),
            }),
            None => gone.push(pin.version.clone()),
        }
    }
    if !differing.is_empty() {
        return Err(Error::Differs { lock: lock.name().to_owned(), place: list.place.clone(), differing });
    }
    let newest = pins.pop().unwrap_or_else(|| unreachable!("a list without tarballs is refused"));
    let pinned = own().next_back().map(|pin| pin.version.clone());
    Ok(Offered { newest, signer, pinned, agreeing, gone })
}

/// What goes into the lock.
#[derive(Debug)]
pub enum Entry {
    /// A kernel source, and the comment above it.
    Kernel(KernelPin, String),
    /// The package set of a tree.
    Tree(TreePin),
    /// A Kubernetes version and its release files.
    Kubernetes(Kubernetes),
}

impl From<&Verified> for Entry {
    fn from(Verified { pin, sums, tarball }: &Verified) -> Self {
        let comment = format!(
            "{}: verified by `imgbuild lock`: list signed by {}, tarball by {} ({}).",
            pin.version, sums.fingerprint, tarball.fingerprint, tarball.owner
        );
        Self::Kernel(pin.clone(), comment)
    }
}

impl From<&Offered> for Entry {
    fn from(Offered { newest, signer, .. }: &Offered) -> Self {
        let comment = format!(
            "{}: verified by `imgbuild lock`: the archive's list signed by {} ({}).",
            newest.version, signer.fingerprint, signer.owner
        );
        Self::Kernel(newest.clone(), comment)
    }
}

/// Writes entries into the lock's file, whole or not at all.
pub fn write(path: &Path, entries: &[Entry]) -> Result<(), Error> {
    let mut text = fs::read_to_string(path)?;
    for entry in entries {
        text = match entry {
            Entry::Tree(pin) => Ok(with_tree(&text, pin)),
            Entry::Kernel(pin, comment) => edit::add_kernel(&text, pin, comment),
            Entry::Kubernetes(Kubernetes { set, releases }) => {
                let comment = format!(
                    "{}: pinned by `imgbuild lock`: the hashes are the publishers' own, from beside the files.",
                    set.version
                );
                edit::add_kubernetes(&text, set, releases, &comment)
            }
        }
        .map_err(|error| Error::Edit(path.display().to_string(), Box::new(error)))?;
    }
    // What we write, we can read.
    Lock::parse(&path.display().to_string(), &text).map_err(lock::Error::from)?;
    replace(path, &text)
}

/// Puts a version into a list of a recipe's file, whole or not at all; whether it was not there.
pub fn release(path: &Path, field: &str, after: &str, version: &str) -> Result<bool, Error> {
    let text = fs::read_to_string(path)?;
    let changed = recipe::edit::add_version(&text, field, after, version);
    match changed.map_err(|error| Error::Edit(path.display().to_string(), Box::new(error)))? {
        Some(text) => replace(path, &text).map(|()| true),
        None => Ok(false),
    }
}

/// Changes a file's text in one step.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let target = fs::canonicalize(path)?;
    let mut beside = target.clone().into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::write(&beside, text)?;
    fs::File::open(&beside)?.sync_all()?;
    Ok(fs::rename(&beside, &target)?)
}

/// What the store remembers of a version that was verified and is in no lock.
#[derive(Serialize, Deserialize)]
struct Remembered {
    keys: String,
    path: String,
    sha256: String,
    size: Option<u64>,
}

/// Takes the versions that the lock does not pin into it, in memory: verified now, or remembered from the first use.
pub fn admit(
    lock: &mut Lock,
    versions: &[Version],
    catalogue: &Catalogue,
    mirrors: &Mirrors,
    store: &Store,
    watch: &Watch,
) -> Result<(), Error> {
    for asked in versions {
        let Err(unknown) = lock.kernel(asked) else { continue };
        // A series is a question to the lock alone; and without keys there is nothing to verify with.
        if asked.to_string() == asked.series() {
            return Err(unknown.into());
        }
        let outside = |lock: &Lock, because: kernel_org::Error| Error::Outside {
            asked: asked.clone(),
            lock: lock.name().to_owned(),
            pinned: lock.kernels().iter().map(|pin| pin.version.to_string()).collect(),
            because: Box::new(because),
        };
        let keyring = match Keyring::load(|path| catalogue.name(path), |path| catalogue.read(path)) {
            Ok(keyring) => keyring,
            Err(openpgp::Error::NoRoles { .. }) => return Err(unknown.into()),
            Err(error) => return Err(outside(lock, error.into())),
        };
        let record = store.root().join("records/verified").join(format!("linux-{asked}.json"));
        if let Some(pin) = remembered(&record, asked, &keyring) {
            lock.admit(pin);
            continue;
        }
        let downloads = store.downloads();
        let verified = KernelOrg::new(lock, mirrors, &keyring, &downloads, watch).verify(asked);
        let Verified { pin, sums, tarball } = verified.map_err(|error| outside(lock, error))?;
        remember(&record, &pin, &keyring)?;
        let message = format!(
            "kernel {asked} is not in the lock: its list is signed by {}, its tarball by {}; `imgbuild lock --add \
             kernel {asked}` pins it",
            sums.owner, tarball.owner
        );
        watch.reporter.note(Level::Info, &message);
        lock.admit(pin);
    }
    Ok(())
}

fn remembered(record: &Path, asked: &Version, keyring: &Keyring) -> Option<KernelPin> {
    let Remembered { keys, path, sha256, size } = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
    let pin = KernelPin { version: asked.clone(), place: PLACE.into(), path, sha256, size, homepage: None };
    (keys == keyring.digest()).then_some(pin)
}

fn remember(record: &Path, pin: &KernelPin, keyring: &Keyring) -> std::io::Result<()> {
    let (path, sha256) = (pin.path.clone(), pin.sha256.clone());
    let remembered = Remembered { keys: keyring.digest().to_owned(), path, sha256, size: pin.size };
    let dir = record.parent().expect("a record lies in its folder");
    fs::create_dir_all(dir)?;
    let file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&file, &remembered)?;
    file.persist(record).map_err(|error| error.error)?;
    Ok(())
}
