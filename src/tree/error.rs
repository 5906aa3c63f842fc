//! Why there is no tree: mmdebstrap's and apt's words, told apart.

use super::drift::Drift;
use crate::host;
use crate::recipe::Archive;
use crate::sandbox;
use crate::step::{Class, Diagnose, io_hint};

/// A tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program or the archive's keys are missing.
    #[error(transparent)]
    Missing(#[from] host::Missing),
    /// The archive's signature does not hold.
    #[error("the archive of {tree} at `{base}` is not signed as it must be: {reason}")]
    Signature {
        /// The tree.
        tree: String,
        /// The archive's base.
        base: String,
        /// What apt said.
        reason: String,
        /// The keys that count.
        keyring: String,
    },
    /// The archive, or a file of it, is not there.
    #[error("the archive of {tree} at `{base}` cannot be had: {reason}")]
    Unreachable {
        /// The tree.
        tree: String,
        /// The archive's base.
        base: String,
        /// What apt said.
        reason: String,
        /// Its place in the lock.
        place: String,
    },
    /// The archive has no such package, or no longer.
    #[error("gone upstream: the archive of {tree} at `{base}` has no {package}")]
    Gone {
        /// The tree.
        tree: String,
        /// The archive's base.
        base: String,
        /// What is gone.
        package: String,
        /// Its place in the lock.
        place: String,
    },
    /// The packages are not those that the lock pins.
    #[error("the packages of {tree} are not those that `{lock}` pins: {} moved", .moved.len())]
    Drift {
        /// The tree.
        tree: String,
        /// The lock.
        lock: String,
        /// What moved.
        moved: Vec<Drift>,
    },
    /// mmdebstrap failed for another reason.
    #[error("the tree {tree} cannot be made: {reason}")]
    Failed {
        /// The tree.
        tree: String,
        /// What mmdebstrap said first.
        reason: String,
        /// The end of what it said.
        output: String,
    },
    /// mmdebstrap cannot be run.
    #[error(transparent)]
    Command(#[from] sandbox::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Missing(error) => error.class(),
            Self::Unreachable { .. } | Self::Gone { .. } => Class::Input,
            Self::Signature { .. } | Self::Drift { .. } => Class::Verification,
            Self::Failed { .. } => Class::Build,
            Self::Command(error) => error.class(),
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(error) => error.hint(),
            Self::Signature { keyring, .. } => Some(format!(
                "only the keys in `{keyring}` count: is this the archive that the recipe means?"
            )),
            Self::Unreachable { place, .. } | Self::Gone { place, .. } => Some(format!(
                "another mirror may have it: `--mirror {place}=URL`, or `--mirror {place}=apt:LABEL` for the one apt uses here"
            )),
            Self::Drift { tree, .. } => Some(format!(
                "a mirror with the pinned packages builds the pinned tree (the archive's snapshot service has them); \
                 `imgbuild lock {tree}` accepts what is there now, and digests move"
            )),
            Self::Command(error) => error.hint(),
            Self::Io(error) => io_hint(error),
            Self::Failed { .. } => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Drift { moved, .. } => {
                Some(moved.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
            Self::Failed { output, .. } => Some(output.clone()),
            Self::Command(error) => error.detail(),
            _ => None,
        }
    }
}

impl Error {
    /// What the output of a failed mmdebstrap means.
    pub(super) fn of(name: &str, archive: &Archive, base: &str, output: &str) -> Self {
        let (tree, base, place) = (name.to_owned(), base.to_owned(), archive.place.clone());
        let with = |sign: &str| output.lines().find(|line| line.contains(sign));
        let said = |line: &str| {
            let line = line.trim_start_matches(['E', 'W', 'N', ':', ' ']);
            line.strip_prefix("The repository ").unwrap_or(line).to_owned()
        };
        let signatures =
            ["NO_PUBKEY", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "KEYEXPIRED", "is not signed", "signature"];
        if let Some(line) = signatures.iter().find_map(|sign| with(sign)) {
            return Self::Signature { tree, base, reason: said(line), keyring: archive.keyring_path() };
        }
        for (sign, end) in
            [("Unable to locate package ", ""), ("has no installation candidate", "'"), ("Package '", "'")]
        {
            if let Some(line) = with(sign) {
                let package = match line.split_once("Unable to locate package ") {
                    Some((_, name)) => name.to_owned(),
                    None => line.split(end).nth(1).unwrap_or(line).to_owned(),
                };
                return Self::Gone { tree, base, package: format!("package `{}`", package.trim()), place };
            }
        }
        let failed = |line: &&str| line.starts_with("E: Failed to fetch") || line.starts_with("  404");
        if let Some(line) = output.lines().find(failed) {
            if line.contains(".deb") {
                let file = line.split_whitespace().find(|word| word.contains(".deb")).unwrap_or(line);
                let package = format!("`{}`", file.rsplit('/').next().unwrap_or(file));
                return Self::Gone { tree, base, package, place };
            }
            return Self::Unreachable { tree, base, reason: said(line), place };
        }
        if let Some(line) = with("does not have a Release file").or_else(|| with("Could not resolve")) {
            return Self::Unreachable { tree, base, reason: said(line), place };
        }
        let reason = with("E: ").map_or_else(|| "mmdebstrap failed".into(), said);
        let lines: Vec<_> = output.lines().collect();
        Self::Failed { tree, reason, output: lines[lines.len().saturating_sub(20)..].join("\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Catalogue;

    #[test]
    fn apts_words_are_told_apart() {
        let recipe = Catalogue::Builtin.toolchains().unwrap().remove(0);
        let of = |output: &str| Error::of(&recipe.name, &recipe.archive, "http://a.test/debian", output);
        let unsigned = of(
            "I: running apt-get update...\nE: The repository 'http://a.test/debian bullseye Release' is not signed.\nE: apt-get update failed",
        );
        assert_eq!(unsigned.class(), Class::Verification);
        assert!(
            unsigned.to_string().contains("'http://a.test/debian bullseye Release' is not signed."),
            "{unsigned}"
        );
        let key = of(
            "W: GPG error: http://a.test bullseye InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 1234\n",
        );
        assert_eq!(key.class(), Class::Verification);
        for (output, package) in [
            ("E: Unable to locate package gcc-99\n", "package `gcc-99`"),
            ("E: Package 'bc' has no installation candidate\n", "package `bc`"),
            (
                "E: Failed to fetch http://a.test/pool/b/bc_1_amd64.deb  404  Not Found [IP: 1.2.3.4 80]\n",
                "`bc_1_amd64.deb`",
            ),
        ] {
            let gone = of(output);
            assert_eq!(gone.class(), Class::Input);
            assert_eq!(
                gone.to_string(),
                format!("gone upstream: the archive of debian-11 at `http://a.test/debian` has no {package}")
            );
            assert!(gone.hint().unwrap().contains("--mirror debian=URL"));
        }
        let lost = of(
            "E: Failed to fetch http://a.test/debian/dists/bullseye/InRelease  Could not resolve 'a.test'\n",
        );
        assert!(matches!(lost, Error::Unreachable { .. }), "{lost:?}");
        assert_eq!(of("E: no space\n").to_string(), "the tree debian-11 cannot be made: no space");
    }
}
