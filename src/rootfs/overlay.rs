//! Layers over a base: each path follows the base's links, gets the directories it lacks, and is one layer's alone.

use std::collections::BTreeMap;

use super::Error;
use super::clean::Contents;
use super::path::resolve;
use crate::oci::layer::{Content, Entry};

/// An entry over the base, and whether it may take the place of one below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upper {
    /// The entry.
    pub entry: Entry,
    /// Whether it may take the place of another layer's.
    pub replace: bool,
}

impl From<Entry> for Upper {
    fn from(entry: Entry) -> Self {
        Self { entry, replace: false }
    }
}

/// What the layers so far have.
pub struct Overlay<'b> {
    base: &'b Contents,
    /// Who has what above the base.
    taken: BTreeMap<String, &'static str>,
}

impl<'b> Overlay<'b> {
    /// Layers over a base.
    pub fn new(base: &'b Contents) -> Self {
        Self { base, taken: BTreeMap::new() }
    }

    /// A layer that is there already has these paths.
    pub fn take(&mut self, layer: &'static str, paths: &[String]) {
        self.taken.extend(paths.iter().map(|path| (path.clone(), layer)));
    }

    /// Puts a layer on top; returns its entries as they are to be written, sorted, parents first.
    pub fn add(&mut self, layer: &'static str, uppers: Vec<Upper>) -> Result<Vec<Entry>, Error> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        let mut mine = BTreeMap::new();
        for Upper { mut entry, replace } in uppers {
            let written = String::from_utf8_lossy(&entry.path).into_owned();
            let path = resolve(&written, &self.base.links)
                .map_err(|reason| Error::Path { path: written, reason })?;
            entry.path = path.clone().into_bytes();
            if entry.content == Content::Directory {
                // A link to a directory is one.
                let end = resolve(&format!("{path}/."), &self.base.links)
                    .map_err(|reason| Error::Path { path: path.clone(), reason })?;
                if !self.base.directories.contains(&end) {
                    self.parents(&format!("{end}/"), &mut entries, layer)?;
                    entry.path = end.clone().into_bytes();
                    entries.insert(end, entry);
                }
                continue;
            }
            // A package's script may have enabled what we enable.
            let same = matches!((&entry.content, self.base.links.get(&path)), (Content::Symlink(target), Some(there)) if target == there.as_bytes());
            if same {
                continue;
            }
            let below =
                self.taken.get(&path).copied().or(self.base.files.contains(&path).then_some("the base"));
            let first =
                if self.base.directories.contains(&path) { Some("the base, as a directory,") } else { below };
            if let Some(first) = first.filter(|_| !replace || self.base.directories.contains(&path)) {
                return Err(Error::Fight { path, first, second: layer });
            }
            self.parents(&path, &mut entries, layer)?;
            mine.insert(path.clone(), layer);
            match entries.insert(path.clone(), entry) {
                // What is in the directory would end up somewhere else.
                Some(other) if other.content == Content::Directory => {
                    return Err(Error::Fight { path, first: "a directory", second: layer });
                }
                Some(_) if !replace => return Err(Error::Fight { path, first: layer, second: layer }),
                _ => {}
            }
        }
        self.taken.extend(mine);
        Ok(entries.into_values().collect())
    }

    /// Adds the directories on the way to `path` that nobody has yet.
    fn parents(
        &self,
        path: &str,
        entries: &mut BTreeMap<String, Entry>,
        layer: &'static str,
    ) -> Result<(), Error> {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if self.base.files.contains(parent) || self.taken.contains_key(parent) {
                return Err(Error::Fight {
                    path: parent.to_owned(),
                    first: "a lower layer, as a file,",
                    second: layer,
                });
            }
            if !self.base.directories.contains(parent) {
                let there = entries.entry(parent.to_owned()).or_insert_with(|| Entry::directory(parent));
                if there.content != Content::Directory {
                    let path = parent.to_owned();
                    return Err(Error::Fight { path, first: "a file", second: layer });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Contents {
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Contents {
            files: set(&["usr/bin/sh", "lib", "etc/enabled"]),
            directories: set(&[".", "usr", "usr/lib", "usr/bin", "etc"]),
            links: [("lib".into(), "usr/lib".into()), ("etc/enabled".into(), "/x".into())].into(),
            units: BTreeMap::new(),
        }
    }

    fn file(path: &str) -> Upper {
        Entry::new(path, 0o644, Content::Bytes(Vec::new())).into()
    }

    fn paths(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
    }

    #[test]
    fn links_are_followed_and_directories_made() {
        let base = base();
        let mut overlay = Overlay::new(&base);
        let entries = overlay
            .add("one", vec![file("lib/systemd/x"), file("opt/cni/bin/bridge"), file("etc/x")])
            .unwrap();
        assert_eq!(
            paths(&entries),
            [
                "etc/x",
                "opt",
                "opt/cni",
                "opt/cni/bin",
                "opt/cni/bin/bridge",
                "usr/lib/systemd",
                "usr/lib/systemd/x"
            ]
        );
        let enabled = Entry::symlink("etc/enabled", "/x").into();
        assert!(overlay.add("two", vec![enabled]).unwrap().is_empty());
    }

    #[test]
    fn two_layers_do_not_fight() {
        let base = base();
        let mut overlay = Overlay::new(&base);
        overlay.add("the Kubernetes layer", vec![file("usr/bin/kubelet")]).unwrap();
        let told = |overlay: &mut Overlay<'_>, upper| {
            overlay.add("the configuration", vec![upper]).unwrap_err().to_string()
        };
        assert_eq!(
            told(&mut overlay, file("usr/bin/kubelet")),
            "`/usr/bin/kubelet` is in the Kubernetes layer and in the configuration too"
        );
        assert!(told(&mut overlay, file("usr/bin/sh")).contains("is in the base and in"));
        assert!(told(&mut overlay, file("usr/bin/sh/x")).contains("as a file"));
        assert!(told(&mut overlay, file("usr/lib")).contains("as a directory"));
        let link = || Upper { entry: Entry::symlink("srv/x", "/etc"), replace: true };
        for uppers in [vec![link(), file("srv/x/shadow")], vec![file("srv/x/shadow"), link()]] {
            assert!(overlay.add("the configuration", uppers).unwrap_err().to_string().contains("`/srv/x`"));
        }
        assert!(told(&mut overlay, Entry::directory("usr/bin/sh").into()).contains("`/usr/bin/sh`"));
        assert!(overlay.add("the configuration", vec![Entry::directory("lib").into()]).unwrap().is_empty());
        let replacing = Upper { replace: true, ..file("usr/bin/sh") };
        assert_eq!(paths(&overlay.add("the configuration", vec![replacing]).unwrap()), ["usr/bin/sh"]);
    }
}
