//! The programs of a Kubernetes node: which versions go together, and their release files.

use std::collections::BTreeMap;

use super::{Base, Error, FilePin, Lock};
use crate::arch::Arch;
use crate::document::Fields;

/// The programs that are brought as release files: by the names their pins have.
pub const PROGRAMS: [&str; 7] =
    ["kubelet", "kubeadm", "kubectl", "crictl", "containerd", "runc", "cni-plugins"];

/// A release file of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The program: one of [`PROGRAMS`].
    pub name: String,
    /// Its version, without a `v`.
    pub version: String,
    /// The architecture it runs on.
    pub arch: Arch,
    /// The file.
    pub file: FilePin,
}

/// The versions that go with a Kubernetes version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSet {
    /// The Kubernetes version, without a `v`.
    pub version: String,
    /// The sandbox image that this version's kubeadm means: a whole reference.
    pub pause: String,
    /// By program and, where one architecture differs, that architecture.
    programs: BTreeMap<(String, Option<Arch>), String>,
}

/// The programs whose versions a set names; the others have the version of the set.
pub const MATCHED: [&str; 4] = ["containerd", "runc", "cni-plugins", "crictl"];

impl NodeSet {
    /// A set for another version with the programs of `like`; its crictl is the first of its own series.
    #[must_use]
    pub fn like(&self, version: &str) -> Self {
        let series = |version: &str| version.rsplit_once('.').map(|(series, _)| series.to_owned());
        let mut set = Self { version: version.to_owned(), ..self.clone() };
        if let Some(series) = series(version).filter(|own| Some(own) != series(&self.version).as_ref()) {
            set.set("crictl", None, &format!("{series}.0"));
        }
        set
    }

    /// Gives a program another version: on one architecture, or on all.
    pub fn set(&mut self, name: &str, arch: Option<Arch>, version: &str) {
        if arch.is_none() {
            self.programs.retain(|(other, _), _| other != name);
        }
        self.programs.insert((name.to_owned(), arch), version.to_owned());
    }

    /// The versions that it names, by program and, where one architecture differs, that architecture.
    pub fn programs(&self) -> impl Iterator<Item = (&str, Option<Arch>, &str)> {
        self.programs.iter().map(|((name, arch), version)| (name.as_str(), *arch, version.as_str()))
    }

    /// The version of a program; kubelet, kubeadm and kubectl have the version of the set.
    pub fn version_of(&self, name: &str, arch: Arch) -> &str {
        let own = self.programs.get(&(name.to_owned(), Some(arch)));
        own.or_else(|| self.programs.get(&(name.to_owned(), None))).map_or(&self.version, |version| version)
    }
}

pub(super) fn releases(top: &Fields<'_>, places: &BTreeMap<String, Base>) -> Vec<Release> {
    let mut releases: Vec<Release> = Vec::new();
    for release in top.tables("release", |fields| release(fields, places)).into_iter().flatten() {
        let same = |other: &Release| {
            (&other.name, &other.version, other.arch) == (&release.name, &release.version, release.arch)
        };
        if releases.iter().any(same) {
            let Release { name, version, arch, .. } = &release;
            top.mistake_here(format!("{name} {version} for {arch} is pinned twice"), None);
        }
        releases.push(release);
    }
    releases
}

fn release(fields: &Fields<'_>, places: &BTreeMap<String, Base>) -> Option<Release> {
    let (name, version, arch) = (fields.required("name"), fields.required("version"), fields.parsed("arch"));
    if let Some(name) = name.as_ref().filter(|name| !PROGRAMS.contains(&name.value.as_str())) {
        let help = format!("the programs are {}", crate::document::list(PROGRAMS));
        fields.mistake(name, format!("`{}` is no program of a node", name.value), Some(help));
    }
    let file = super::file(fields, places);
    Some(Release { name: name?.value, version: version?.value, arch: arch?, file: file? })
}

pub(super) fn read(fields: &Fields<'_>) -> Option<NodeSet> {
    let (version, pause) = (fields.required("version"), fields.required("pause"));
    if let Some(pause) =
        pause.as_ref().filter(|pause| !pause.value.contains('/') || !pause.value.contains(':'))
    {
        let help = "a whole reference: `registry.k8s.io/pause:3.9`";
        fields.mistake(pause, format!("`{}` is no image", pause.value), Some(help.into()));
    }
    let mut programs = BTreeMap::new();
    for name in MATCHED {
        let version = fields.required(name)?;
        programs.insert((name.to_owned(), None), version.value);
    }
    fields.named_tables("arch", |key, table| {
        let arch =
            key.value.parse::<Arch>().map_err(|error| table.mistake(key, error.to_string(), None)).ok()?;
        for name in MATCHED {
            if let Some(version) = table.text(name) {
                programs.insert((name.to_owned(), Some(arch)), version.value);
            }
        }
        Some(())
    });
    Some(NodeSet { version: version?.value, pause: pause?.value, programs })
}

impl Lock {
    /// The Kubernetes versions there are sets for, in the lock's order.
    pub fn nodes(&self) -> &[NodeSet] {
        &self.nodes
    }

    /// The set of a Kubernetes version.
    pub fn node(&self, asked: &str) -> Result<&NodeSet, Error> {
        let asked = asked.trim_start_matches('v');
        self.nodes.iter().find(|set| set.version == asked).ok_or_else(|| Error::UnknownKubernetes {
            asked: asked.to_owned(),
            lock: self.name.clone(),
            pinned: self.nodes.iter().map(|set| set.version.clone()).collect(),
        })
    }

    /// The release file of a program.
    pub fn release(&self, name: &str, version: &str, arch: Arch) -> Result<&Release, Error> {
        let ours =
            || self.releases.iter().filter(move |release| release.name == name && release.arch == arch);
        ours().find(|release| release.version == version).ok_or_else(|| Error::NoRelease {
            name: name.to_owned(),
            version: version.to_owned(),
            arch,
            lock: self.name.clone(),
            pinned: ours().map(|release| release.version.clone()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Mistakes;
    use crate::recipe::{Catalogue, catalogue};
    use crate::step::Diagnose;

    fn shipped() -> Lock {
        Lock::parse("imgbuild.lock", &Catalogue::Builtin.read(catalogue::LOCK).unwrap()).unwrap()
    }

    #[test]
    fn every_program_of_every_shipped_set_is_pinned_on_both_architectures() {
        let lock = shipped();
        let versions: Vec<_> = lock.nodes().iter().map(|set| set.version.as_str()).collect();
        assert_eq!(versions, ["1.21.8", "1.22.3", "1.22.8", "1.23.5", "1.30.14", "1.33.11"]);
        let mut pinned = 0;
        for (set, arch) in lock.nodes().iter().flat_map(|set| Arch::ALL.map(|arch| (set, arch))) {
            for name in PROGRAMS {
                let version = set.version_of(name, arch);
                let release = lock.release(name, version, arch).unwrap();
                let path = &release.file.path;
                assert!(path.contains(&format!("/v{version}/")) && path.contains(arch.oci()), "{path}");
                pinned += 1;
            }
        }
        assert_eq!(pinned, versions.len() * 2 * PROGRAMS.len());
    }

    #[test]
    fn an_architecture_may_have_versions_of_its_own() {
        let lock = shipped();
        let set = lock.node("v1.22.8").unwrap();
        // Before 1.6 there is no release file of containerd for arm64.
        assert_eq!(set.version_of("containerd", Arch::X86_64), "1.5.8");
        assert_eq!(set.version_of("containerd", Arch::Arm64), "1.6.4");
        assert_eq!(set.version_of("cni-plugins", Arch::Arm64), "1.0.1");
        assert_eq!(set.version_of("kubeadm", Arch::Arm64), "1.22.8");
        let error = lock.release("containerd", "1.5.8", Arch::Arm64).unwrap_err();
        assert!(error.to_string().contains("no containerd 1.5.8 for arm64"), "{error}");
        assert!(error.hint().unwrap().contains("`1.6.4`"), "{:?}", error.hint());
        let error = lock.node("1.22.9").unwrap_err().to_string();
        assert!(error.contains("1.22.9") && error.contains("`1.22.8`"), "{error}");
    }

    #[test]
    fn mistakes_are_told() {
        let digest = "0".repeat(64);
        let file = format!("place = 'p'\npath = 'f'\nsha256 = '{digest}'\n");
        let runc = format!("[[release]]\nname = 'runc'\nversion = '1'\narch = 'arm64'\n{file}");
        let other = format!("[[release]]\nname = 'rkt'\nversion = '1'\narch = 'mips'\n{file}");
        let set = "[[kubernetes]]\nversion = '1.22.8'\npause = '3.5'\ncontainerd = '1'\nrunc = '1'\ncni-plugins = '1'\ncrictl = '1'\n[kubernetes.arch.mips]\n";
        let text = format!("assembly = 1\n[places]\np = 'https://p.test'\n{runc}{runc}{other}{set}");
        let detail = Lock::parse("l", &text).map_err(|mistakes: Mistakes| mistakes.detail()).unwrap_err();
        let detail = detail.unwrap();
        for expected in [
            "runc 1 for arm64 is pinned twice",
            "`rkt` is no program of a node",
            "`3.5` is no image",
            "`mips`",
        ] {
            assert!(detail.contains(expected), "{expected} is not in\n{detail}");
        }
    }
}
