//! The package sets of root trees: read from the lock, and written into its text.

use std::fmt;
use std::str::FromStr;

use crate::arch::Arch;
use crate::document::Fields;

/// One package of a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as the archive writes it.
    pub version: String,
    /// Its architecture: Debian's name for it, or `all`.
    pub arch: String,
    /// The sha256 of the file, 64 lower-case digits.
    pub sha256: String,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, arch, sha256 } = self;
        write!(f, "{name} {version} {arch} {sha256}")
    }
}

/// A line that is no package.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not `NAME VERSION ARCHITECTURE SHA256`")]
pub struct NotAPackage(String);

impl FromStr for Package {
    type Err = NotAPackage;

    fn from_str(line: &str) -> Result<Self, NotAPackage> {
        let words: Vec<_> = line.split(' ').collect();
        let [name, version, arch, sha256] = words[..] else { return Err(NotAPackage(line.to_owned())) };
        if words.iter().any(|word| word.is_empty()) || !super::is_sha256(sha256) {
            return Err(NotAPackage(line.to_owned()));
        }
        let [name, version, arch, sha256] = [name, version, arch, sha256].map(str::to_owned);
        Ok(Self { name, version, arch, sha256 })
    }
}

/// The pinned package set of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreePin {
    /// The recipe's name.
    pub name: String,
    /// The architecture that the tree runs on.
    pub arch: Arch,
    /// All packages, sorted.
    pub packages: Vec<Package>,
}

impl TreePin {
    /// As the lock writes it.
    fn to_text(&self) -> String {
        let mut text =
            format!("[[tree]]\nname = \"{}\"\narch = \"{}\"\npackages = [\n", self.name, self.arch);
        let mut packages = self.packages.clone();
        packages.sort();
        packages.iter().for_each(|package| text += &format!("    \"{package}\",\n"));
        text + "]\n"
    }
}

pub(super) fn read(fields: &Fields<'_>) -> Option<TreePin> {
    let (name, arch) = (fields.required("name"), fields.parsed("arch"));
    let mut packages = Vec::new();
    for line in fields.texts("packages") {
        match line.value.parse::<Package>() {
            Ok(package) => packages.push(package),
            Err(error) => fields.mistake(&line, error.to_string(), None),
        }
    }
    packages.sort();
    if packages.is_empty() {
        fields.mistake_here("`packages` is missing or empty", None);
    }
    Some(TreePin { name: name?.value, arch: arch?, packages })
}

/// The lock's text with this set in place of the one it had for the same tree and architecture, or at its end.
/// Comments stay. The text is to be a lock that parses.
pub fn with_tree(text: &str, pin: &TreePin) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let starts = (0..lines.len()).filter(|at| lines[*at].trim() == "[[tree]]");
    let is_meant = |at: &usize| {
        // A table ends where the next header begins; the lines of the array are indented.
        let table = lines[at + 1..].iter().take_while(|line| !line.starts_with('['));
        let value = |name: &str| {
            table.clone().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
            })
        };
        value("name").as_deref() == Some(&pin.name) && value("arch").as_deref() == Some(pin.arch.name())
    };
    let Some(start) = starts.clone().find(is_meant) else {
        return format!("{}\n\n{}", text.trim_end(), pin.to_text());
    };
    let length =
        lines[start..].iter().position(|line| line.trim() == "]").map_or(lines.len() - start, |end| end + 1);
    let part = |lines: &[&str]| lines.iter().flat_map(|line| [*line, "\n"]).collect::<String>();
    format!("{}{}{}", part(&lines[..start]), pin.to_text(), part(&lines[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(name: &str, packages: &[&str]) -> TreePin {
        let digest = "0".repeat(64);
        let packages =
            packages.iter().map(|package| format!("{package} {digest}").parse().unwrap()).collect();
        TreePin { name: name.into(), arch: Arch::X86_64, packages }
    }

    #[test]
    fn a_set_is_written_in_its_place_and_read_back() {
        let lock = "assembly = 1\n[places]\n# why\nd = 'apt:Debian'\n";
        let one = with_tree(lock, &pin("debian-11", &["gcc 1:10.2 amd64", "dash 0.5 amd64"]));
        let two = with_tree(&one, &pin("debian-12", &["gcc 1:12 amd64"]));
        let text = with_tree(&(two + "\n# the end\n"), &pin("debian-11", &["gcc 1:10.3 amd64"]));
        assert!(text.contains("# why") && text.ends_with("\n\n# the end\n"), "{text}");
        let lock = super::super::Lock::parse("l", &text).unwrap();
        let versions = |name| {
            let packages = &lock.tree(name, Arch::X86_64).unwrap().packages;
            packages.iter().map(|package| package.version.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            (versions("debian-11"), versions("debian-12")),
            (vec!["1:10.3".into()], vec!["1:12".into()])
        );
        assert_eq!(lock.tree("debian-11", Arch::Arm64), None);
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let digest = "a".repeat(64);
        for line in [
            "gcc",
            "gcc 1 amd64",
            "gcc 1 amd64 ff",
            &format!("gcc  1 amd64 {digest}"),
            &format!("gcc 1 amd64 {digest} x"),
        ] {
            assert!(line.parse::<Package>().is_err(), "{line}");
        }
    }
}
