//! A toolchain recipe: which packages of which archive, as of which day, make a root tree to compile in.

use std::collections::BTreeMap;

use super::archive::{self, Archive, checked};
use super::by_arch;
use crate::arch::Arch;
use crate::document::Fields;
use crate::version::Version;

/// Which kernel series a toolchain is the default for: from the first, up to but not including the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The first; none means every earlier one.
    pub from: Option<Version>,
    /// The first that is not; none means every later one.
    pub before: Option<Version>,
}

impl Range {
    /// Whether a version is in it.
    pub fn holds(&self, version: &Version) -> bool {
        self.from.as_ref().is_none_or(|from| version >= from)
            && self.before.as_ref().is_none_or(|before| version < before)
    }
}

/// A toolchain recipe, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolchainRecipe {
    /// Its name.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// Where its packages come from.
    pub archive: Archive,
    /// Symbolic links, from the tree's root: path and target.
    pub links: BTreeMap<String, String>,
    /// The kernels it is the default for, if any.
    pub kernels: Option<Range>,
    /// The most address space one process may have, in MiB.
    pub memory_mib: Option<u64>,
    /// The most processor time one process may have, in minutes.
    pub processor_minutes: Option<u64>,
    packages: Vec<String>,
    arch_packages: BTreeMap<Arch, Vec<String>>,
}

impl ToolchainRecipe {
    /// The packages asked for in a tree that runs on `host`, sorted.
    pub fn packages(&self, host: Arch) -> Vec<&str> {
        let own = self.arch_packages.get(&host).into_iter().flatten();
        let mut packages: Vec<_> = self.packages.iter().chain(own).map(String::as_str).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }
}

/// Reads a recipe's fields; `None` only when a mistake was told.
pub(super) fn read(fields: &Fields<'_>) -> Option<ToolchainRecipe> {
    let kind = fields.required("kind");
    if let Some(kind) = &kind
        && kind.value != "toolchain"
    {
        fields.mistake(kind, format!("`{}` is not a toolchain", kind.value), None);
    }
    let name = fields.required("name");
    let description = fields.text("description").map(|text| text.value).unwrap_or_default();
    let archive = archive::read(fields);
    let packages = checked(fields, "packages", fields.texts("packages"));
    let arch_packages = by_arch(fields, |table| checked(table, "packages", table.texts("packages")));
    let mut links = BTreeMap::new();
    for (path, target) in fields.named_texts("links") {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            fields.mistake(&target, "a link's path is relative to the tree and holds no `..`", None);
        }
        links.insert(path, target.value);
    }
    let version = |table: &Fields<'_>, name| table.text(name).and_then(|_| table.parsed(name));
    let kernels = fields
        .table("kernels", |table| Range { from: version(table, "from"), before: version(table, "before") });
    let limits =
        fields.table("limits", |table| (table.number("memory_mib"), table.number("processor_minutes")));
    let (memory_mib, processor_minutes) = limits.unwrap_or_default();
    Some(ToolchainRecipe {
        name: name?.value,
        description,
        archive: archive?,
        links,
        kernels,
        memory_mib,
        processor_minutes,
        packages,
        arch_packages,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;
    use crate::recipe::Catalogue;
    use crate::step::Diagnose;

    #[test]
    fn the_shipped_toolchains_are_right_and_leave_no_kernel_out() {
        let all = Catalogue::Builtin.toolchains().unwrap();
        let names: Vec<_> = all.iter().map(|recipe| recipe.name.as_str()).collect();
        assert_eq!(names, ["debian-11", "debian-12", "ubuntu-20.04"]);
        for (version, expected) in [
            ("4.19.325", "debian-11"),
            ("5.10.1", "debian-11"),
            ("5.15", "debian-11"),
            ("6.1.1", "debian-12"),
            ("6.12", "debian-12"),
        ] {
            let version = version.parse().unwrap();
            let default = all
                .iter()
                .filter(|recipe| recipe.kernels.as_ref().is_some_and(|range| range.holds(&version)));
            assert_eq!(default.map(|recipe| recipe.name.as_str()).collect::<Vec<_>>(), [expected]);
        }
        assert!(all[0].packages(Arch::X86_64).contains(&"gcc-aarch64-linux-gnu"));
        assert!(all[0].packages(Arch::Arm64).contains(&"gcc-x86-64-linux-gnu"));
        assert_eq!(all[2].archive.keyring_path(), "/usr/share/keyrings/ubuntu-archive-keyring.gpg");
        assert_eq!(all[2].archive.keyring_package(), "ubuntu-keyring");
    }

    #[test]
    fn every_mistake_is_told() {
        let text = "kind = 'kernel'\nname = 'x'\narchive = 'debian'\nsuites = ['bull seye']\ncomponents = []\n\
                    snapshot = 'yesterday'\nkeyring = 'k'\npackages = ['gcc', '--option']\n[links]\n'../sh' = 'dash'\n\
                    [kernels]\nfrom = 'six'\n[arch.amd64]\npackages = ['gcc']\n";
        let detail = Document::new("t", text).read(read).unwrap_err().detail().unwrap();
        for expected in [
            "`kernel` is not a toolchain",
            "`bull seye` is no name",
            "`components` is missing or empty",
            "`yesterday` is not a moment",
            "`--option` is no name",
            "holds no `..`",
            "`six` is not a kernel version",
            "a recipe writes `x86_64`",
        ] {
            assert!(detail.contains(expected), "{expected} is not in\n{detail}");
        }
    }
}
