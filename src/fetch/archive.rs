//! A Debian archive's list of source packages: which upstream kernel tarballs it has, on the word of its signature.

use std::io::{self, Read};
use std::path::Path;

use fs_err as fs;
use liblzma::read::XzDecoder;
use sha2::{Digest, Sha256};

use super::mirror::Mirrors;
use super::openpgp::{self, Keyring, Role, Signer};
use crate::lock::{KernelPin, Lock, SourceList, join};
use crate::step::{Class, Diagnose, Watch, hex};
use crate::version::Version;

/// The longest list of Debian has a few ten megabytes, packed or not.
const LONGEST: u64 = 256 << 20;

/// Why an archive's list cannot be had or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be had.
    #[error(transparent)]
    Fetch(#[from] super::Error),
    /// The signature does not count.
    #[error(transparent)]
    OpenPgp(#[from] openpgp::Error),
    /// The keys that the archive is signed with are not on this host.
    #[error("the keys of the archive `{place}` cannot be read: {source}")]
    NoKeyring {
        /// The place.
        place: String,
        /// The system's reason, with the path.
        source: io::Error,
    },
    /// What is signed names no such list.
    #[error("`{from}`, rightly signed, has no {file}")]
    Absent {
        /// URL or path.
        from: String,
        /// The list, or the package.
        file: String,
    },
    /// The list is not the one that is signed.
    #[error("`{from}` is not what its archive signed: sha256 should be {expected}, but is {actual}")]
    List {
        /// URL or path.
        from: String,
        /// What is signed.
        expected: String,
        /// What arrived.
        actual: String,
    },
    /// The list cannot be unpacked.
    #[error("`{from}` cannot be unpacked: {source}")]
    Packed {
        /// URL or path.
        from: String,
        /// Why.
        source: io::Error,
    },
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Fetch(error) => error.class(),
            Self::OpenPgp(error) => error.class(),
            Self::NoKeyring { .. } | Self::Absent { .. } => Class::Input,
            Self::List { .. } | Self::Packed { .. } => Class::Verification,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::OpenPgp(error) => error.hint(),
            Self::NoKeyring { .. } => {
                let owner = "install the package that brings the file (Debian's: debian-archive-keyring)";
                Some(format!("{owner}, or correct `keyring` in the lock's [[sources]]"))
            }
            Self::Absent { .. } => Some("correct its entry in the lock's [[sources]]".into()),
            Self::List { .. } | Self::Packed { .. } => {
                Some("the mirror is being updated, damaged or lying: try again, or try another one".into())
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

/// The upstream tarballs of one source package.
#[derive(Debug)]
pub struct Listed {
    /// As pins, oldest first; there is at least one.
    pub pins: Vec<KernelPin>,
    /// Who signed for them.
    pub signer: Signer,
}

/// Asks the archive of `list` for its source package.
pub fn kernels(list: &SourceList, lock: &Lock, mirrors: &Mirrors, watch: &Watch) -> Result<Listed, Error> {
    let path = mirrors.keyring(&list.place, &list.keyring);
    let keys =
        fs::read(Path::new(path)).map_err(|source| Error::NoKeyring { place: list.place.clone(), source })?;
    let keyring = Keyring::of_archive(path, &keys)?;
    let bring = |path: &str| {
        let location = mirrors.find(lock, &list.place, path)?;
        super::document(&list.place, location, LONGEST, watch)
    };
    let suite = join("dists", &list.suite);
    let (from, release) = bring(&join(&suite, "InRelease"))?;
    let (release, signer) =
        openpgp::verify_cleartext(&from, &release, &keyring, Role::Archive, openpgp::now())?;
    let plain = join(&list.component, "source/Sources");
    let packed = format!("{plain}.xz");
    let entry = [&packed, &plain].into_iter().find_map(|path| Some((path, sum_of(&release, path)?)));
    let Some((path, expected)) = entry else { return Err(Error::Absent { from, file: plain }) };

    let (from, bytes) = bring(&join(&suite, path))?;
    let actual = hex(&Sha256::digest(&bytes));
    if actual != expected {
        return Err(Error::List { from, expected, actual });
    }
    let text = unpacked(path, &bytes).map_err(|source| Error::Packed { from: from.clone(), source })?;
    let mut pins = tarballs(&text, list);
    pins.sort_by(|a, b| a.version.cmp(&b.version));
    if pins.is_empty() {
        return Err(Error::Absent {
            from,
            file: format!("upstream tarball of the package `{}`", list.package),
        });
    }
    Ok(Listed { pins, signer })
}

fn unpacked(path: &str, bytes: &[u8]) -> io::Result<String> {
    let is_packed = Path::new(path).extension().is_some_and(|extension| extension == "xz");
    if !is_packed {
        return Ok(String::from_utf8_lossy(bytes).into_owned());
    }
    let mut text = Vec::new();
    XzDecoder::new(bytes).take(LONGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The sha256 that a Release file has for `path`.
fn sum_of(release: &str, path: &str) -> Option<String> {
    let mut lines = release.lines().skip_while(|line| *line != "SHA256:").skip(1);
    let sum = |line: &str| {
        let mut words = line.split_whitespace();
        let (sum, name) = (words.next()?, words.nth(1)?);
        (name == path).then(|| sum.to_owned())
    };
    lines.by_ref().take_while(|line| line.starts_with(' ')).find_map(sum)
}

/// The upstream tarballs of the package, as its paragraphs list them.
fn tarballs(text: &str, list: &SourceList) -> Vec<KernelPin> {
    let mut pins: Vec<KernelPin> = Vec::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
        };
        let (Some(package), Some(directory)) = (field("Package"), field("Directory")) else { continue };
        if package != list.package {
            continue;
        }
        let sums = paragraph.lines().skip_while(|line| !line.starts_with("Checksums-Sha256:")).skip(1);
        for line in sums.take_while(|line| line.starts_with(' ')) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [sha256, size, name] = words[..] else { continue };
            let Some(version) = version(name, package) else { continue };
            if pins.iter().all(|pin| pin.version != version) {
                pins.push(KernelPin {
                    version,
                    place: list.place.clone(),
                    path: join(directory, name),
                    sha256: sha256.to_owned(),
                    size: size.parse().ok(),
                    homepage: list.homepage.clone(),
                });
            }
        }
    }
    pins
}

/// `linux_5.10.262.orig.tar.xz` → 5.10.262.
fn version(name: &str, package: &str) -> Option<Version> {
    name.strip_prefix(package)?.strip_prefix('_')?.strip_suffix(".orig.tar.xz")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> SourceList {
        SourceList {
            place: "d".into(),
            suite: "s".into(),
            component: "main".into(),
            package: "linux".into(),
            keyring: "/k".into(),
            homepage: None,
        }
    }

    #[test]
    fn the_tarballs_of_one_package_are_read_off_its_paragraphs() {
        let text = "Package: linux\nVersion: 5.10.262-1\nDirectory: pool/l/linux\nFiles:\n 00 1 linux_5.10.262.orig.tar.xz\n\
                    Checksums-Sha256:\n aa 122 linux_5.10.262-1.dsc\n bb 7 linux_5.10.262.orig.tar.xz\n\n\
                    Package: linux-tools\nDirectory: pool/x\nChecksums-Sha256:\n cc 7 linux_5.10.9.orig.tar.xz\n\n\
                    Package: linux\nDirectory: pool/l/linux\nChecksums-Sha256:\n dd 8 linux_5.10.46.orig.tar.xz\n ee 8 odd\n";
        let pins: Vec<_> = tarballs(text, &list())
            .into_iter()
            .map(|pin| (pin.version.to_string(), pin.path, pin.sha256, pin.size))
            .collect();
        let pin = |version: &str, sum: &str, size| {
            let path = format!("pool/l/linux/linux_{version}.orig.tar.xz");
            (version.to_owned(), path, sum.to_owned(), Some(size))
        };
        assert_eq!(pins, [pin("5.10.262", "bb", 7), pin("5.10.46", "dd", 8)]);
    }

    #[test]
    fn a_sum_is_taken_from_its_own_section() {
        let release = "Suite: s\nMD5Sum:\n 11 5 main/source/Sources\nSHA256:\n 22 5 main/source/Sources.xz\n \
                       33 5 main/source/Sources\nAcquire-By-Hash: yes\n 44 5 main/source/Other\n";
        assert_eq!(sum_of(release, "main/source/Sources").as_deref(), Some("33"));
        assert_eq!(sum_of(release, "main/source/Sources.xz").as_deref(), Some("22"));
        assert_eq!(sum_of(release, "main/source/Other"), None);
    }
}
