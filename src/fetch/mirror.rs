//! Which base URL or directory stands for a place: a mirror the user names, or the place's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::lock::{Base, FilePin, Lock, join};
use crate::recipe::Archive;
use crate::sandbox::Command;
use crate::step::{Cancel, Level, Watch};

use super::Error;

/// Where one file is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Over HTTP.
    Url(String),
    /// On this host: the first of these that exists.
    Path([PathBuf; 2]),
}

/// The mirrors the user names, by place, and the keys that archives there are signed with.
#[derive(Debug, Default, Clone)]
pub struct Mirrors {
    bases: BTreeMap<String, String>,
    keyrings: BTreeMap<String, String>,
}

impl Mirrors {
    /// Adds a mirror; one that is there already stays, so the strongest source is added first.
    pub fn add(&mut self, place: &str, base: &str) {
        self.bases.entry(place.to_owned()).or_insert_with(|| base.to_owned());
    }

    /// Holds the archive at a place to the keys in this file, a name below `/usr/share/keyrings` or a path.
    pub fn trust(&mut self, place: &str, keyring: &str) {
        self.keyrings.insert(place.to_owned(), keyring.to_owned());
    }

    /// The keys that are named for a place, else its own.
    pub fn keyring<'k>(&'k self, place: &str, own: &'k str) -> &'k str {
        self.keyrings.get(place).map_or(own, String::as_str)
    }

    /// The archive with the keys that are named for its place, else with its own.
    pub fn held(&self, archive: &Archive) -> Archive {
        let keyring = self.keyring(&archive.place, &archive.keyring).to_owned();
        Archive { keyring, ..archive.clone() }
    }

    /// The mirror that is named for a place, as it was named.
    pub fn named(&self, place: &str) -> Option<&str> {
        self.bases.get(place).map(String::as_str)
    }

    /// The places mirrors and keys are named for.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.bases.keys().chain(self.keyrings.keys()).map(String::as_str)
    }

    /// The environment variable that names a mirror for `place`: `IMGBUILD_MIRROR_KERNEL_ORG`.
    pub fn variable(place: &str) -> String {
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("IMGBUILD_MIRROR_{}", place.chars().map(upper).collect::<String>())
    }

    /// Where a place's files are: a mirror named for it, else its own base.
    fn base(&self, lock: &Lock, place: &str) -> Result<String, Error> {
        let apt = |label: &str| {
            let missing = || Error::NoMirror { place: place.to_owned(), label: label.to_owned() };
            apt_mirror(label).ok_or_else(missing)
        };
        match (self.bases.get(place), lock.place(place)) {
            // The lock's own word for "what apt here uses" is good for a mirror, too.
            (Some(mirror), _) => mirror.strip_prefix("apt:").map_or_else(|| Ok(mirror.clone()), apt),
            (None, Some(Base::Url(url))) => Ok(url.clone()),
            (None, Some(Base::Apt(label))) => apt(label),
            (None, None) => Err(Error::NoPlace { place: place.to_owned() }),
        }
    }

    /// Where an archive is as of a moment: at the mirror named for it; else the first of its snapshot service and its
    /// own base that answers `probe`, a path below it.
    pub fn archive(
        &self,
        lock: &Lock,
        place: &str,
        moment: &str,
        probe: &str,
        watch: &Watch,
    ) -> Result<String, Error> {
        let Some(dated) = lock.snapshot(place, moment).filter(|_| !self.bases.contains_key(place)) else {
            return self.base(lock, place);
        };
        let Err(reason) = super::download::answers(&join(&dated, probe), watch) else { return Ok(dated) };
        let Ok(base) = self.base(lock, place) else {
            let url = join(&dated, probe);
            return Err(Error::Unreachable { place: place.to_owned(), url, reason, attempts: 1 });
        };
        // The last cause says enough; before it the URL stands once more.
        let cause = reason.rsplit(": ").next().unwrap_or(&reason);
        let message = format!("`{dated}` cannot be had ({cause}): {place} is taken from its usual place");
        watch.reporter.note(Level::Info, &message);
        Ok(base)
    }

    /// Where the file of a pin is.
    pub fn locate(&self, lock: &Lock, pin: &FilePin) -> Result<Location, Error> {
        self.find(lock, &pin.place, &pin.path)
    }

    /// Where the file with this path below a place of the lock is.
    pub fn find(&self, lock: &Lock, place: &str, file: &str) -> Result<Location, Error> {
        let base = self.base(lock, place)?;
        let path = base.strip_prefix("file://").unwrap_or(&base);
        if path.starts_with("http://") || path.starts_with("https://") {
            return Ok(Location::Url(join(path, file)));
        }
        let name = file.rsplit('/').next().unwrap_or(file);
        Ok(Location::Path([join(path, file).into(), join(path, name).into()]))
    }
}

/// The mirror that this host's apt uses for the archive with this label.
fn apt_mirror(label: &str) -> Option<String> {
    let command =
        Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", &format!("Label: {label}")]);
    let output = command.output(&Cancel::default()).ok()?;
    let text = String::from_utf8(output).ok()?;
    let usable = |line: &&str| ["http://", "https://", "file:"].iter().any(|scheme| line.starts_with(scheme));
    // apt writes `file:/path` where a URL has `file:///path`.
    text.lines()
        .find(usable)
        .map(|line| line.strip_prefix("file:").map_or(line, |path| path.trim_start_matches("//")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let digest = "0".repeat(64);
        let text = format!(
            "[places]\n'kernel.org' = 'https://k.test/pub/'\n[[kernel]]\nversion = '5.10.1'\nplace = 'kernel.org'\npath = 'v5/linux.tar.xz'\nsha256 = '{digest}'\n"
        );
        Lock::parse("l", &text).unwrap()
    }

    #[test]
    fn a_mirror_replaces_the_base_and_keeps_the_path() {
        let lock = lock();
        let pin = &lock.kernels()[0];
        let mut mirrors = Mirrors::default();
        assert_eq!(
            mirrors.locate(&lock, &pin.file()).unwrap(),
            Location::Url("https://k.test/pub/v5/linux.tar.xz".into())
        );
        mirrors.add("kernel.org", "http://127.0.0.1:8/m");
        mirrors.add("kernel.org", "http://weaker.test");
        assert_eq!(
            mirrors.locate(&lock, &pin.file()).unwrap(),
            Location::Url("http://127.0.0.1:8/m/v5/linux.tar.xz".into())
        );
    }

    #[test]
    fn a_directory_is_searched_by_path_and_by_name() {
        let lock = lock();
        for base in ["/srv/m", "file:///srv/m/"] {
            let mut mirrors = Mirrors::default();
            mirrors.add("kernel.org", base);
            let paths = ["/srv/m/v5/linux.tar.xz".into(), "/srv/m/linux.tar.xz".into()];
            assert_eq!(mirrors.locate(&lock, &lock.kernels()[0].file()).unwrap(), Location::Path(paths));
        }
    }

    #[test]
    fn keys_named_for_a_place_win_over_the_recipes() {
        let recipe = crate::recipe::Catalogue::Builtin.toolchains().unwrap().remove(0);
        let mut mirrors = Mirrors::default();
        mirrors.trust("ubuntu", "ours");
        assert_eq!(mirrors.held(&recipe.archive), recipe.archive);
        mirrors.trust("debian", "/k.gpg");
        assert_eq!(mirrors.held(&recipe.archive).keyring_path(), "/k.gpg");
    }

    #[test]
    fn a_place_has_its_variable() {
        assert_eq!(Mirrors::variable("kernel.org"), "IMGBUILD_MIRROR_KERNEL_ORG");
        assert_eq!(Mirrors::variable("debian-security"), "IMGBUILD_MIRROR_DEBIAN_SECURITY");
    }
}
