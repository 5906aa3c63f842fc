//! `imgbuild lock --add k8s`: the release files of a Kubernetes version and of what goes with it, pinned from what their
//! publishers say their hashes are, and looked into.

use std::path::Path;

use fs_err as fs;

use crate::arch::Arch;
use crate::fetch::mirror::Mirrors;
use crate::fetch::{self, fetch};
use crate::kernel::header;
use crate::lock::node::{NodeSet, PROGRAMS, Release};
use crate::lock::{self, FilePin, Lock};
use crate::oci::layer::Content;
use crate::rootfs::{self, kubernetes};
use crate::sandbox::{self, Sandbox};
use crate::step::{Class, Diagnose, Level, Watch};
use crate::store::{self, Store};

/// A file of hashes is not longer, in bytes.
const HASHES: u64 = 64 << 10;

/// Why a version cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be had, or is not what its hash says.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A release file cannot be taken apart.
    #[error(transparent)]
    Rootfs(#[from] rootfs::Error),
    /// The lock has no set to begin with.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no such release, or not for this architecture.
    #[error("{place} has no {name} {version} for {arch}: its hash is not there ({reason})")]
    NoBuild {
        /// Where it should be.
        place: String,
        /// The program.
        name: &'static str,
        /// Its version.
        version: String,
        /// The architecture.
        arch: Arch,
        /// What was asked for, and the answer.
        reason: Box<fetch::Error>,
    },
    /// A file of hashes does not have the file's.
    #[error("`{from}` holds no sha256 of {file}")]
    NoHash {
        /// The file of hashes.
        from: String,
        /// The file.
        file: String,
    },
    /// A program is not what it is published as.
    #[error("{name} {version} for {arch} is not what it is called: {reason}")]
    Lies {
        /// The program.
        name: String,
        /// The version it should be.
        version: String,
        /// The architecture it should be for.
        arch: Arch,
        /// What is wrong.
        reason: String,
    },
    /// Nobody says which sandbox image kubeadm means.
    #[error("kubeadm {version} could not be asked for its sandbox image: {reason}")]
    NoPause {
        /// The version.
        version: String,
        /// Why not.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Fetch(error) => error.class(),
            Self::Rootfs(error) => error.class(),
            Self::Lock(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::NoBuild { reason, .. } => reason.class(),
            Self::NoHash { .. } | Self::Lies { .. } => Class::Verification,
            Self::NoPause { .. } => Class::Input,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.hint(),
            Self::Rootfs(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::NoBuild { name: "kubelet" | "kubeadm" | "kubectl", place, .. } => Some(format!(
                "look whether there is such a version; a mirror is named by `--mirror {place}=URL`"
            )),
            Self::NoBuild { name, arch, .. } => Some(format!(
                "choose another version: `--with {name}=VERSION`, or on this architecture alone `--with {name}@{arch}=VERSION`"
            )),
            Self::NoHash { .. } | Self::Lies { .. } => {
                Some("the mirror is damaged or lying: nothing was pinned, try another one".into())
            }
            Self::NoPause { .. } => Some("name it: `--with pause=registry.k8s.io/pause:3.9`".into()),
            Self::Io(error) => crate::step::io_hint(error),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Fetch(error) => error.detail(),
            Self::Rootfs(error) => error.detail(),
            _ => None,
        }
    }
}

/// One word of `--with`: a program or `pause`, an architecture, a version.
pub type With = (String, Option<Arch>, String);

/// A Kubernetes version and all that goes with it, verified.
#[derive(Debug)]
pub struct Kubernetes {
    /// Its set.
    pub set: NodeSet,
    /// The release files that the lock does not have yet.
    pub releases: Vec<Release>,
}

/// Brings what goes with a version, from the set that is nearest to it and what `with` says otherwise.
pub fn kubernetes(
    version: &str,
    with: &[With],
    lock: &Lock,
    mirrors: &Mirrors,
    store: &Store,
    watch: &Watch,
) -> Result<Kubernetes, Error> {
    let nodes = lock.nodes();
    let older = nodes.iter().filter(|set| numbers(&set.version) <= numbers(version));
    let nearest = older.max_by_key(|set| numbers(&set.version)).or_else(|| nodes.first());
    // Without any set there is nothing to begin with: the lock says what it has.
    let nearest = nearest.map_or_else(|| lock.node(version), Ok)?;
    let mut set = nearest.like(version);
    let mut pause = None;
    for (name, arch, version) in with {
        if name == "pause" {
            pause = Some(version.clone());
        } else {
            set.set(name, *arch, version);
        }
    }
    let add = Add { lock, mirrors, store, watch };
    // What is not there at all is told before a gigabyte is fetched.
    let mut found = Vec::new();
    for name in PROGRAMS {
        for arch in Arch::ALL {
            let version = set.version_of(name, arch).to_owned();
            let (release, is_new) = match lock.release(name, &version, arch) {
                Ok(release) => (release.clone(), false),
                Err(_) => (add.published(name, &version, arch)?, true),
            };
            found.push((release, is_new));
        }
    }
    for arch in Arch::ALL {
        add.check(&set, arch, &found)?;
    }
    set.pause = match pause {
        Some(pause) => pause,
        None => add.pause(&set, nearest, &found)?,
    };
    let releases = found.into_iter().filter(|(_, is_new)| *is_new).map(|(release, _)| release);
    Ok(Kubernetes { set, releases: releases.collect() })
}

/// What everything is brought with.
struct Add<'a> {
    lock: &'a Lock,
    mirrors: &'a Mirrors,
    store: &'a Store,
    watch: &'a Watch,
}

impl Add<'_> {
    /// A release file with the hash that its publisher gives.
    fn published(&self, name: &'static str, version: &str, arch: Arch) -> Result<Release, Error> {
        let (place, path, hashes) = location(name, version, arch);
        let place = place.to_owned();
        let found = self.mirrors.find(self.lock, &place, &hashes)?;
        let document = fetch::document(&place, found, HASHES, self.watch);
        let (from, bytes) = document.map_err(|error| match error {
            fetch::Error::NoFile { .. } | fetch::Error::Gone { .. } => Error::NoBuild {
                place: place.clone(),
                name,
                version: version.to_owned(),
                arch,
                reason: Box::new(error),
            },
            error => error.into(),
        })?;
        let file = path.rsplit('/').next().unwrap_or(&path).to_owned();
        let text = String::from_utf8_lossy(&bytes);
        let sha256 = hash_of(&text, &file).ok_or(Error::NoHash { from, file })?;
        let file = FilePin { place, path, sha256, size: None };
        Ok(Release { name: name.to_owned(), version: version.to_owned(), arch, file })
    }

    /// Fetches the programs of an architecture and looks whether each is for it, and says its version.
    fn check(&self, set: &NodeSet, arch: Arch, found: &[(Release, bool)]) -> Result<(), Error> {
        let (mut files, mut kept) = (kubernetes::Releases::new(), Vec::new());
        for name in PROGRAMS {
            let fetched = self.fetch(name, arch, found)?;
            files.insert(name, fetched.path.clone());
            kept.push(fetched);
        }
        let work = self.store.work()?;
        let entries = kubernetes::entries(set, arch, &files, work.path(), &self.watch.cancel)?;
        for name in PROGRAMS {
            let path =
                if name == "cni-plugins" { "opt/cni/bin/bridge".into() } else { format!("usr/bin/{name}") };
            let file = entries.iter().find_map(|upper| match &upper.entry.content {
                Content::File(file) if upper.entry.path == path.as_bytes() => Some(file.clone()),
                _ => None,
            });
            let version = set.version_of(name, arch);
            let reason = match file {
                Some(file) => doubt(&fs::read(file)?, version, arch),
                None => Some(format!("it has no {path}")),
            };
            if let Some(reason) = reason {
                let (name, version) = (name.to_owned(), version.to_owned());
                return Err(Error::Lies { name, version, arch, reason });
            }
        }
        Ok(())
    }

    fn fetch(&self, name: &str, arch: Arch, found: &[(Release, bool)]) -> Result<fetch::Fetched, Error> {
        let is_it = |(release, _): &&(Release, bool)| release.name == name && release.arch == arch;
        let (release, _) = found.iter().find(is_it).expect("every program was looked up");
        let file = &release.file;
        Ok(fetch(file, || self.mirrors.locate(self.lock, file), &self.store.downloads(), self.watch)?)
    }

    /// The sandbox image that kubeadm itself names; where it cannot be asked, that of a set of the same series.
    fn pause(&self, set: &NodeSet, nearest: &NodeSet, found: &[(Release, bool)]) -> Result<String, Error> {
        let said = self.ask(&set.version, found)?;
        let series = |version: &str| version.rsplit_once('.').map(|(series, _)| series.to_owned());
        match said {
            Ok(pause) => Ok(pause),
            Err(reason) if series(&set.version) == series(&nearest.version) => {
                let message = format!(
                    "kubeadm could not be asked for its sandbox image ({reason}): taken from {}",
                    nearest.version
                );
                self.watch.reporter.note(Level::Warning, &message);
                Ok(nearest.pause.clone())
            }
            Err(reason) => Err(Error::NoPause { version: set.version.clone(), reason }),
        }
    }

    /// Runs this host's kubeadm, shut in: it names its images without a network.
    fn ask(&self, version: &str, found: &[(Release, bool)]) -> Result<Result<String, String>, Error> {
        if sandbox::find(sandbox::PROGRAM).is_none() {
            return Ok(Err("bubblewrap is missing".into()));
        }
        let Some(host) = Arch::host() else { return Ok(Err("this host is neither x86_64 nor arm64".into())) };
        let kubeadm = self.fetch("kubeadm", host, found)?;
        let work = self.store.work()?;
        let tree = work.path().join("tree");
        fs::create_dir(&tree)?;
        copy_program(&kubeadm.path, &tree.join("kubeadm"))?;
        let version = format!("v{version}");
        let command = Sandbox::tree(&tree).bare().command("/kubeadm");
        let command = command.args(["config", "images", "list", "--kubernetes-version", &version]);
        let output = match command.output(&self.watch.cancel) {
            Ok(output) => String::from_utf8_lossy(&output).into_owned(),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let pause = output.lines().map(str::trim).find(|line| line.contains("/pause:"));
        Ok(pause.map(str::to_owned).ok_or_else(|| "it lists no pause image".into()))
    }
}

fn copy_program(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

/// Where a program's release file is, and the file with its hash: a place, and paths below it.
fn location(name: &str, version: &str, arch: Arch) -> (&'static str, String, String) {
    let arch = arch.oci();
    let github = |repository: &str, file: &str| format!("{repository}/releases/download/v{version}/{file}");
    let beside = |path: String, suffix: &str| {
        let hashes = format!("{path}{suffix}");
        ("github.com", path, hashes)
    };
    match name {
        "containerd" => {
            let file = format!("containerd-{version}-linux-{arch}.tar.gz");
            beside(github("containerd/containerd", &file), ".sha256sum")
        }
        "runc" => {
            let repository = "opencontainers/runc";
            let file = github(repository, &format!("runc.{arch}"));
            ("github.com", file, github(repository, "runc.sha256sum"))
        }
        "cni-plugins" => {
            let file = format!("cni-plugins-linux-{arch}-v{version}.tgz");
            beside(github("containernetworking/plugins", &file), ".sha256")
        }
        "crictl" => {
            let file = format!("crictl-v{version}-linux-{arch}.tar.gz");
            beside(github("kubernetes-sigs/cri-tools", &file), ".sha256")
        }
        kubernetes => {
            let path = format!("release/v{version}/bin/linux/{arch}/{kubernetes}");
            let hashes = format!("{path}.sha256");
            ("dl.k8s.io", path, hashes)
        }
    }
}

/// The sha256 of a file in a list of `HASH  FILE` lines, or the one hash that is all of the text.
fn hash_of(text: &str, file: &str) -> Option<String> {
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let named = words.iter().find_map(|words| match words[..] {
        [hash, name] if name.trim_start_matches(['*', '.', '/']) == file => Some(hash),
        _ => None,
    });
    let alone = match &words[..] {
        [only] if only.len() == 1 => Some(only[0]),
        _ => None,
    };
    named.or(alone).filter(|hash| is_hash(hash)).map(str::to_ascii_lowercase)
}

/// Why a program is not what it should be, if it is not.
fn doubt(bytes: &[u8], version: &str, arch: Arch) -> Option<String> {
    match header::elf_arch(bytes) {
        Some(Some(found)) if found == arch => {}
        Some(Some(found)) => return Some(format!("it is a program for {found}")),
        _ => return Some(format!("it is {}", header::describe(bytes))),
    }
    let says = memchr::memmem::find(bytes, version.as_bytes()).is_some();
    (!says).then(|| format!("nothing in it says {version}"))
}

/// The numbers of a version, to compare it by.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Catalogue, catalogue};

    #[test]
    fn files_are_looked_for_where_the_pinned_ones_are() {
        let lock = Lock::parse("l", &Catalogue::Builtin.read(catalogue::LOCK).unwrap()).unwrap();
        for set in lock.nodes() {
            for (name, arch) in PROGRAMS.into_iter().flat_map(|name| Arch::ALL.map(|arch| (name, arch))) {
                let release = lock.release(name, set.version_of(name, arch), arch).unwrap();
                let (place, path, _) = location(name, &release.version, arch);
                assert_eq!((place, &path), (release.file.place.as_str(), &release.file.path));
            }
        }
    }

    #[test]
    fn hashes_are_read_as_their_publishers_write_them() {
        let hash = "0A".repeat(32);
        let lower = hash.to_lowercase();
        for (text, expected) in [
            (hash.clone(), Some(&lower)),
            (format!("{hash}\n"), Some(&lower)),
            (format!("{hash}  runc.amd64\n"), Some(&lower)),
            (format!("{}  runc.arm64\n{hash} *runc.amd64\n", "1".repeat(64)), Some(&lower)),
            (format!("{hash}  ./runc.amd64\n"), Some(&lower)),
            (format!("{hash}  runc.arm64\n"), None),
            ("<html>Not found</html>".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(hash_of(&text, "runc.amd64").as_ref(), expected, "{text}");
        }
    }
}
