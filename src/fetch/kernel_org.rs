//! kernel.org's releases: which is the newest, and what its signed lists and tarballs say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use fs_err::File;
use liblzma::read::XzDecoder;
use serde::Deserialize;

use super::mirror::Mirrors;
use super::openpgp::{self, Keyring, Role, Seconds, Signer};
use crate::lock::{KernelPin, Lock, join};
use crate::step::{Cancel, Class, Diagnose, Progress, Unit, Watch, human};
use crate::version::Version;

/// The place of tarballs, their signatures and the lists of checksums.
pub const PLACE: &str = "kernel.org";
/// The place of `releases.json`.
pub const RELEASES: &str = "kernel.org-releases";

/// The lists have a few megabytes; nothing of the other documents comes near.
const LONGEST: u64 = 32 << 20;

/// Why a release cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be had.
    #[error(transparent)]
    Fetch(#[from] super::Error),
    /// A signature does not count.
    #[error(transparent)]
    OpenPgp(#[from] openpgp::Error),
    /// The lock does not say where to look.
    #[error("`{lock}` has no place `{place}`")]
    NoPlace {
        /// The lock.
        lock: String,
        /// The place.
        place: &'static str,
    },
    /// The list of releases is none.
    #[error("`{from}` is not kernel.org's list of releases: {reason}")]
    Releases {
        /// URL or path.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The list of checksums contradicts itself.
    #[error("`{from}` has two checksums for {file}")]
    Twice {
        /// URL or path.
        from: String,
        /// The file.
        file: String,
    },
    /// The list of checksums does not name the file.
    #[error("`{from}`, rightly signed, has no {file}")]
    Absent {
        /// URL or path.
        from: String,
        /// The file.
        file: String,
    },
    /// The tarball is not the one that the list names.
    #[error(
        "`{from}` is not what kernel.org signed as {file}: sha256 should be {expected}, but is {actual}{}; it was not kept",
        .listed.as_ref().map(|other| format!(", which is the one of {other}")).unwrap_or_default()
    )]
    Tarball {
        /// URL or path.
        from: String,
        /// The file.
        file: String,
        /// The sha256 of the list.
        expected: String,
        /// The sha256 of what arrived.
        actual: String,
        /// The file of the list that has it.
        listed: Option<String>,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Fetch(error) => error.class(),
            Self::OpenPgp(error) => error.class(),
            Self::NoPlace { .. } => Class::Recipe,
            Self::Absent { .. } => Class::Input,
            Self::Releases { .. } | Self::Twice { .. } | Self::Tarball { .. } => Class::Verification,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::OpenPgp(error) => error.hint(),
            Self::NoPlace { place, .. } => {
                let base =
                    if *place == RELEASES { "https://www.kernel.org" } else { "https://cdn.kernel.org/pub" };
                Some(format!("add `\"{place}\" = \"{base}\"` to its [places]"))
            }
            Self::Absent { .. } => {
                Some("there is no such release, or the mirror is behind: try another one".into())
            }
            Self::Releases { .. } => {
                Some(format!("is it an error page? Name another mirror: `--mirror {RELEASES}=URL`"))
            }
            Self::Twice { .. } | Self::Tarball { .. } => {
                Some(format!("the mirror is damaged or lying: try another one with `--mirror {PLACE}=URL`"))
            }
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::OpenPgp(error) => error.detail(),
            _ => None,
        }
    }
}

/// A signed list of checksums.
#[derive(Debug)]
pub struct Sums {
    from: String,
    by_file: BTreeMap<String, String>,
    /// Who signed it.
    pub signer: Signer,
}

impl Sums {
    /// Reads `sha256  file` lines; others, which the real lists do not have, are left alone.
    fn parse(from: String, text: &str, signer: Signer) -> Result<Self, Error> {
        let mut by_file: BTreeMap<String, String> = BTreeMap::new();
        for line in text.lines() {
            let Some((sum, file)) = line.split_once("  ") else { continue };
            if sum.len() != 64 || !sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                continue;
            }
            let before = by_file.insert(file.to_owned(), sum.to_owned());
            if before.is_some_and(|before| before != sum) {
                return Err(Error::Twice { from, file: file.to_owned() });
            }
        }
        Ok(Self { from, by_file, signer })
    }

    /// The sha256 of a release's tarball.
    pub fn of(&self, version: &Version) -> Result<&str, Error> {
        self.of_file(&tarball(version))
    }

    /// The sha256 of a file.
    pub fn of_file(&self, file: &str) -> Result<&str, Error> {
        let absent = || Error::Absent { from: self.from.clone(), file: file.to_owned() };
        self.by_file.get(file).map(String::as_str).ok_or_else(absent)
    }

    /// The newest release of a series that is listed.
    pub fn newest(&self, series: &str) -> Option<Version> {
        let version = |file: &String| file.strip_prefix("linux-")?.strip_suffix(".tar.xz")?.parse().ok();
        self.by_file.keys().filter_map(version).filter(|v: &Version| v.series() == series).max()
    }

    /// The file that has this sha256.
    fn file_of(&self, sum: &str) -> Option<String> {
        self.by_file.iter().find(|(_, each)| *each == sum).map(|(file, _)| file.clone())
    }
}

/// A release whose list, tarball and signatures agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its pin.
    pub pin: KernelPin,
    /// Who signed the list.
    pub sums: Signer,
    /// Who signed the tarball.
    pub tarball: Signer,
}

fn tarball(version: &Version) -> String {
    format!("linux-{version}.tar.xz")
}

fn folder(major: u32) -> String {
    format!("linux/kernel/v{major}.x")
}

/// kernel.org as it is reached from here.
pub struct KernelOrg<'a> {
    lock: &'a Lock,
    mirrors: &'a Mirrors,
    keyring: &'a Keyring,
    downloads: &'a Path,
    watch: &'a Watch,
    now: Seconds,
    sums: RefCell<BTreeMap<u32, Rc<Sums>>>,
}

impl<'a> KernelOrg<'a> {
    /// With the places of `lock`; tarballs are kept in `downloads`.
    pub fn new(
        lock: &'a Lock,
        mirrors: &'a Mirrors,
        keyring: &'a Keyring,
        downloads: &'a Path,
        watch: &'a Watch,
    ) -> Self {
        Self { lock, mirrors, keyring, downloads, watch, now: openpgp::now(), sums: RefCell::default() }
    }

    /// Fails if keys or places are missing without which nothing can be verified: asked before anything is fetched.
    pub fn require(&self, places: &[&'static str]) -> Result<(), Error> {
        for place in places {
            if self.lock.place(place).is_none() {
                return Err(Error::NoPlace { lock: self.lock.name().to_owned(), place });
            }
        }
        self.keyring.require(Role::Sums)?;
        Ok(self.keyring.require(Role::Tarball)?)
    }

    fn document(&self, place: &str, path: &str) -> Result<(String, Vec<u8>), Error> {
        let location = self.mirrors.find(self.lock, place, path)?;
        Ok(super::document(place, location, LONGEST, self.watch)?)
    }

    /// The newest release of each series that kernel.org lists: its word alone, signed by nobody.
    pub fn announced(&self) -> Result<BTreeMap<String, Version>, Error> {
        let (from, bytes) = self.document(RELEASES, "releases.json")?;
        announced(&bytes).map_err(|reason| Error::Releases { from, reason })
    }

    /// The signed list of a major version's files.
    pub fn sums(&self, major: u32) -> Result<Rc<Sums>, Error> {
        if let Some(sums) = self.sums.borrow().get(&major) {
            return Ok(sums.clone());
        }
        let (from, bytes) = self.document(PLACE, &join(&folder(major), "sha256sums.asc"))?;
        let (text, signer) = openpgp::verify_cleartext(&from, &bytes, self.keyring, Role::Sums, self.now)?;
        let sums = Rc::new(Sums::parse(from, &text, signer)?);
        self.sums.borrow_mut().insert(major, sums.clone());
        Ok(sums)
    }

    /// Fetches a release and verifies all that is signed of it.
    pub fn verify(&self, version: &Version) -> Result<Verified, Error> {
        self.require(&[PLACE])?;
        let [major, ..] = version.numbers();
        let (sums, file) = (self.sums(major)?, tarball(version));
        let path = join(&folder(major), &file);
        let sha256 = sums.of(version)?.to_owned();
        // The signature first: where it is missing, the tarball need not come.
        let signature_path = join(&folder(major), &format!("linux-{version}.tar.sign"));
        let (signature_from, signature) = self.document(PLACE, &signature_path)?;
        let mut pin = KernelPin {
            version: version.clone(),
            place: PLACE.to_owned(),
            path,
            sha256,
            size: None,
            homepage: None,
        };
        let pinned = pin.file();
        let locate = || self.mirrors.locate(self.lock, &pinned);
        let fetched =
            super::fetch(&pinned, locate, self.downloads, self.watch).map_err(|error| match error {
                super::Error::Mismatch { from, expected, actual, .. } => {
                    let listed = sums.file_of(&actual);
                    Error::Tarball { from, file: file.clone(), expected, actual, listed }
                }
                error => error.into(),
            })?;
        let progress =
            self.watch.reporter.begin("verify", &format!("linux-{version}.tar"), None, Unit::Bytes);
        let done = RefCell::new(0);
        let open = || {
            *done.borrow_mut() = 0;
            let decoder = XzDecoder::new_multi_decoder(File::open(&fetched.path)?);
            Ok(Counted { inner: decoder, done: &done, progress: &*progress, cancel: &self.watch.cancel })
        };
        let (keyring, role) = (self.keyring, Role::Tarball);
        let signer = openpgp::verify_detached(&signature_from, &signature, keyring, role, self.now, open);
        let signer = signer.map_err(|error| match error {
            openpgp::Error::Io(_) if self.watch.cancel.is_cancelled() => super::Error::Cancelled.into(),
            openpgp::Error::Io(error) => {
                super::Error::Unpack { path: fetched.path.clone(), reason: error.to_string() }.into()
            }
            error => Error::from(error),
        })?;
        progress.finish(&format!("{}, signed by {}", human(*done.borrow()), signer.owner));
        pin.size = Some(fs_err::metadata(&fetched.path)?.len());
        Ok(Verified { pin, sums: sums.signer.clone(), tarball: signer })
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        super::Error::from(error).into()
    }
}

/// The releases of the JSON document, by series.
fn announced(bytes: &[u8]) -> Result<BTreeMap<String, Version>, String> {
    #[derive(Deserialize)]
    struct Document {
        releases: Vec<Release>,
    }
    #[derive(Deserialize)]
    struct Release {
        version: String,
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let mut newest: BTreeMap<String, Version> = BTreeMap::new();
    // Release candidates and linux-next are no versions to us.
    for version in document.releases.iter().filter_map(|release| release.version.parse::<Version>().ok()) {
        let entry = newest.entry(version.series()).or_insert_with(|| version.clone());
        *entry = version.max(entry.clone());
    }
    if newest.is_empty() { Err("it lists no release".into()) } else { Ok(newest) }
}

/// A reader that tells how far it is and stops when asked to.
struct Counted<'a, R> {
    inner: R,
    done: &'a RefCell<u64>,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        let read = self.inner.read(buffer)?;
        *self.done.borrow_mut() += read as u64;
        self.progress.set(*self.done.borrow());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn releases_are_read_by_series() {
        let text = br#"{"latest_stable": {"version": "6.17.4"}, "releases": [
            {"version": "next-20251023", "moniker": "linux-next"}, {"version": "6.18-rc2", "moniker": "mainline"},
            {"version": "6.17.4", "iseol": false}, {"version": "5.10.245", "moniker": "longterm"}]}"#;
        let newest = announced(text).unwrap();
        assert_eq!(newest.into_values().collect::<Vec<_>>(), [version("5.10.245"), version("6.17.4")]);
        for garbage in
            ["", "<html>", "[]", "{}", r#"{"releases": 7}"#, r#"{"releases": []}"#, r#"{"releases": [{}]}"#]
        {
            assert!(announced(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }

    #[test]
    fn sums_are_read_and_searched() {
        let signer = Signer { fingerprint: "F".into(), owner: "o".into() };
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let text = format!(
            "{a}  linux-5.10.9.tar.xz\r\n{b}  linux-5.10.77.tar.xz\r\n{b}  linux-5.1.78.tar.xz\r\n{a}  patch-5.10.99.xz"
        );
        let sums = Sums::parse("s".into(), &text, signer.clone()).unwrap();
        assert_eq!(sums.newest("5.10"), Some(version("5.10.77")));
        assert_eq!(sums.newest("5.11"), None);
        assert_eq!(sums.of(&version("5.10.9")).unwrap(), a);
        let error = sums.of(&version("5.10.99")).unwrap_err();
        assert_eq!(error.to_string(), "`s`, rightly signed, has no linux-5.10.99.tar.xz");
        assert_eq!(error.class(), Class::Input);
        let twice = format!("{a}  x\n{b}  x\n");
        assert!(matches!(Sums::parse("s".into(), &twice, signer), Err(Error::Twice { .. })));
    }
}
