//! What an archive gives today beside what the lock pins.

use std::collections::BTreeMap;
use std::fmt;

use super::Error;
use crate::arch::Arch;
use crate::lock::trees::{Package, TreePin};
use crate::step::{Level, Progress, Watch};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// Another version is there.
    Version {
        /// The package.
        name: String,
        /// What the lock has.
        pinned: String,
        /// What is there.
        found: String,
    },
    /// The same version, other bytes.
    Bytes(Package),
    /// The package came in.
    Added(Package),
    /// The package is no longer needed by any other.
    Removed(Package),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { name, pinned, found } => {
                write!(f, "{name}: {pinned} is pinned, {found} is there")
            }
            Self::Bytes(package) => {
                write!(
                    f,
                    "{} {}: the same version with other bytes, sha256 {}",
                    package.name, package.version, package.sha256
                )
            }
            Self::Added(package) => {
                write!(f, "{} {}: not pinned, but needed now", package.name, package.version)
            }
            Self::Removed(package) => {
                write!(f, "{} {}: pinned, but not needed now", package.name, package.version)
            }
        }
    }
}

/// All differences between the pinned packages and those found, by name.
pub fn drift(pinned: &[Package], found: &[Package]) -> Vec<Drift> {
    let by_name = |packages: &[Package]| -> BTreeMap<(String, String), Package> {
        packages
            .iter()
            .map(|package| ((package.name.clone(), package.arch.clone()), package.clone()))
            .collect()
    };
    let (pinned, found) = (by_name(pinned), by_name(found));
    let mut moved = Vec::new();
    for (key, package) in &pinned {
        match found.get(key) {
            None => moved.push((key, Drift::Removed(package.clone()))),
            Some(other) if other.version != package.version => {
                let (name, pinned, found) =
                    (package.name.clone(), package.version.clone(), other.version.clone());
                moved.push((key, Drift::Version { name, pinned, found }));
            }
            Some(other) if other.sha256 != package.sha256 => moved.push((key, Drift::Bytes(other.clone()))),
            Some(_) => {}
        }
    }
    let added = found.iter().filter(|(key, _)| !pinned.contains_key(key));
    moved.extend(added.map(|(key, package)| (key, Drift::Added(package.clone()))));
    moved.sort_by(|a, b| a.0.cmp(b.0));
    moved.into_iter().map(|(_, drift)| drift).collect()
}

/// The set that a lock pins for a tree, if it pins one.
pub struct Pinned<'a> {
    /// What the lock and `imgbuild lock` call the tree.
    pub name: &'a str,
    /// What it runs on.
    pub arch: Arch,
    /// The moment of the archive that its recipe asks for.
    pub moment: &'a str,
    /// The lock's name.
    pub lock: &'a str,
    /// The set.
    pub pin: Option<&'a TreePin>,
}

impl Pinned<'_> {
    /// Holds the packages of a fresh tree to the set, and ends its stage; without a set, says where they are from.
    pub fn hold(
        &self,
        packages: &[Package],
        base: &str,
        progress: &dyn Progress,
        watch: &Watch,
    ) -> Result<(), Error> {
        let Self { name, arch, moment, lock, .. } = *self;
        let Some(pin) = self.pin else {
            progress.finish(&format!("{} packages", packages.len()));
            let message = format!(
                "`{lock}` pins no packages for {name} on {arch}: they are what `{base}` has, asked for as of {moment}; `imgbuild lock {name}` pins them"
            );
            watch.reporter.note(Level::Warning, &message);
            return Ok(());
        };
        let moved = drift(&pin.packages, packages);
        if !moved.is_empty() {
            return Err(Error::Drift { tree: name.to_owned(), lock: lock.to_owned(), moved });
        }
        progress.finish(&format!("{} packages, all as pinned", packages.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_drift_is_told_by_name() {
        let set = |packages: &[(&str, &str, char)]| -> Vec<Package> {
            let line = |(name, version, digit): &(&str, &str, char)| {
                format!("{name} {version} amd64 {}", digit.to_string().repeat(64)).parse().unwrap()
            };
            packages.iter().map(line).collect()
        };
        let pinned =
            set(&[("make", "4.3", '1'), ("gcc", "10.2", '1'), ("bc", "1.07", '1'), ("kmod", "28", '1')]);
        let found =
            set(&[("make", "4.3", '1'), ("gcc", "10.3", '2'), ("kmod", "28", '2'), ("dash", "0.5", '1')]);
        let told: Vec<_> = drift(&pinned, &found).iter().map(ToString::to_string).collect();
        let bytes = format!("kmod 28: the same version with other bytes, sha256 {}", "2".repeat(64));
        assert_eq!(
            told,
            [
                "bc 1.07: pinned, but not needed now",
                "dash 0.5: not pinned, but needed now",
                "gcc: 10.2 is pinned, 10.3 is there",
                &bytes,
            ]
        );
        assert_eq!(drift(&pinned, &pinned), []);
    }
}
