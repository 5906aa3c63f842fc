//! The base system: a distribution's packages, installed by mmdebstrap from a signed archive, and made clean.

use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use fs_err::{self as fs, File};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::clean::{Cleaned, Contents, Rules, clean};
use super::{Error, foreign};
use crate::arch::Arch;
use crate::host::{self, Tool};
use crate::lock::trees::{Package, TreePin};
use crate::recipe::Archive;
use crate::step::{Check, Step, Unit, Watch, hex};
use crate::tree::{self, BaseOf, Depth, Pinned, Run, archive_requirements};

/// The clean system's tar, in the artifact.
const TAR: &str = "root.tar";
/// What is known of it.
const CONTENTS: &str = "contents.json";
/// What the system's packages are called in a lock: `os/ubuntu-20.04`.
const PREFIX: &str = "os/";

/// The name under which a lock pins the packages of an OS recipe.
pub fn pin_name(recipe: &str) -> String {
    format!("{PREFIX}{recipe}")
}

/// A base system for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The recipe's name.
    pub name: String,
    /// Where its packages come from.
    pub archive: Archive,
    /// The packages asked for, sorted.
    pub packages: Vec<String>,
    /// What it runs on.
    pub arch: Arch,
    /// The pinned set, if there is one.
    pub pin: Option<TreePin>,
    /// The mirror that the user names for the archive, if any: without a pin it decides what the packages are.
    pub named: Option<String>,
    /// The archive's URL as the system itself will have it, where there is one for everybody.
    pub url: Option<String>,
}

/// A base system in the store.
#[derive(Debug)]
pub struct Made {
    /// Its tar.
    pub tar: PathBuf,
    /// What it holds.
    pub contents: Contents,
}

impl Made {
    /// The base that an artifact of [`MakeBase`] holds.
    pub fn of(artifact: &Path) -> std::io::Result<Self> {
        let contents = serde_json::from_slice(&fs::read(artifact.join(CONTENTS))?)?;
        Ok(Self { tar: artifact.join(TAR), contents })
    }
}

impl Base {
    /// The canonical account of what is in it.
    pub fn record(&self) -> Value {
        let mut record = json!({
            "step": "base 2",
            "arch": self.arch.name(),
            "asked": self.packages,
            "epoch": self.archive.epoch(),
            "sources": self.sources(),
        });
        if let Some(pin) = &self.pin {
            record["packages"] = pin.packages.iter().map(ToString::to_string).collect();
        } else {
            record["archive"] = self.archive.place.as_str().into();
            record["snapshot"] = self.archive.snapshot.as_str().into();
            record["suites"] = self.archive.suites.as_slice().into();
            record["components"] = self.archive.components.as_slice().into();
            record["mirror"] = self.named.as_deref().into();
            let keys = fs::read(self.archive.keyring_path()).ok();
            record["keyring"] = keys.map(|keys| hex(&Sha256::digest(keys))).into();
        }
        record
    }

    /// The system's etc/apt/sources.list.
    fn sources(&self) -> String {
        let Some(url) = &self.url else {
            return "# Made from an archive that has no one address for everybody: name a mirror here.\n"
                .into();
        };
        let components = self.archive.components.join(" ");
        let line = |suite: &String| format!("deb {url} {suite} {components}");
        self.archive.suites.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
    }

    /// Makes the system's clean tar at `target` from the archive at `base`; what the lock pins is not looked at.
    pub fn make(&self, target: &Path, base: &str, watch: &Watch) -> Result<(Contents, Vec<Package>), Error> {
        host::require(&requirements(&self.archive))?;
        if !rustix::process::geteuid().is_root() {
            require_ids()?;
        }
        foreign::ensure(self.arch, watch)?;
        // Beside the host's other temporary files: an ordinary user's other ids may not enter the store.
        let work = tempfile::tempdir()?;
        let raw = work.path().join("raw.tar");
        let packages: Vec<_> = self.packages.iter().map(String::as_str).collect();
        let epoch = self.archive.epoch();
        let depth = Depth::Installed { epoch };
        Run { name: &self.name, archive: &self.archive, arch: self.arch, packages: &packages, depth, base }
            .make(&raw, watch)?;
        let mut out = BufWriter::with_capacity(1 << 18, File::create(target)?);
        let rules = Rules { epoch, sources: &self.sources() };
        let raw = BufReader::with_capacity(1 << 18, File::open(&raw)?);
        let Cleaned { contents, list, secrets } = clean(raw, &mut out, &rules, &watch.cancel)?;
        out.flush()?;
        if !secrets.is_empty() {
            return Err(Error::Secrets(secrets));
        }
        Ok((contents, tree::packages(&list)?))
    }
}

/// The programs that making a base of this archive needs.
pub fn requirements(archive: &Archive) -> Vec<Tool> {
    let mut tools = archive_requirements(archive);
    tools.push(if rustix::process::geteuid().is_root() {
        Tool::new(crate::sandbox::PROGRAM, "bubblewrap", "has what they start end with imgbuild")
    } else {
        Tool::new("newuidmap", "uidmap", "gives files their owners without root")
    });
    tools
}

/// Fails if this user has no further ids.
fn require_ids() -> Result<(), Error> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts.lines().find(|line| line.split(':').nth(2) == Some(&uid));
    let user = account.and_then(|line| line.split(':').next()).unwrap_or(&uid).to_owned();
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        let has =
            text.lines().any(|line| line.split(':').next().is_some_and(|name| name == user || name == uid));
        if !has {
            return Err(Error::NoIds { user, file });
        }
    }
    Ok(())
}

/// The step that makes a base system. The artifact: its tar and what it holds.
pub struct MakeBase<'a, E> {
    /// The system.
    pub base: &'a Base,
    /// The lock's name, for messages.
    pub lock: &'a str,
    /// Where the archive is.
    pub place: &'a BaseOf<'a, E>,
}

impl<E: From<Error>> Step for MakeBase<'_, E> {
    type Error = E;

    fn kind(&self) -> &'static str {
        "base"
    }

    fn record(&self) -> Value {
        self.base.record()
    }

    fn name(&self) -> String {
        format!("{} {}", self.base.name, self.base.arch)
    }

    // Hundreds of megabytes, and the layer made of it is looked at more closely.
    fn check(&self) -> Check {
        Check::Stamps
    }

    fn is_shared(&self) -> bool {
        self.base.pin.is_some()
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), E> {
        let place = (self.place)()?;
        let name = &self.base.name;
        let progress = watch.reporter.begin("base", &self.name(), None, Unit::Files);
        let (contents, packages) = self.base.make(&out.join(TAR), &place, watch)?;
        let (arch, pin) = (self.base.arch, self.base.pin.as_ref());
        let moment = &self.base.archive.snapshot;
        Pinned { name: &pin_name(name), arch, moment, lock: self.lock, pin }
            .hold(&packages, &place, progress.as_ref(), watch)
            .map_err(Error::from)?;
        let contents = serde_json::to_vec(&contents).map_err(std::io::Error::from).map_err(Error::from)?;
        Ok(fs::write(out.join(CONTENTS), contents).map_err(Error::from)?)
    }
}
