//! The modules volume as unpacked: which kernel it is for, and the modules it knows.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;

use super::Error;
use crate::document::nearest;

/// What the guest will find on the second disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// The kernel release in the tree's path.
    pub(super) version: String,
    /// Every module, built in or to be loaded, with `_`.
    names: BTreeSet<String>,
}

impl Volume {
    /// Reads the volume's root directory.
    pub(super) fn read(dir: &Path) -> Result<Self, Error> {
        let refuse = |why: &str| Error::Volume { dir: dir.to_owned(), why: why.to_owned() };
        let mut versions = Vec::new();
        for entry in fs::read_dir(dir.join("lib/modules"))? {
            versions.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let [version] = versions.as_slice() else {
            return Err(refuse("below lib/modules is not exactly one directory"));
        };
        let tree = dir.join("lib/modules").join(version);
        let dependencies = fs::read_to_string(tree.join("modules.dep"))?;
        // A kernel without built-in modules may come without the list.
        let builtin = fs::read_to_string(tree.join("modules.builtin")).unwrap_or_default();
        let names = dependencies.lines().chain(builtin.lines()).filter_map(name).collect();
        Ok(Self { version: version.clone(), names })
    }

    /// Up to three names that may have been meant.
    fn near(&self, name: &str) -> Vec<String> {
        let names = || self.names.iter().map(String::as_str);
        let related =
            names().filter(|known| known.contains(name) || (known.len() > 2 && name.contains(known)));
        let mut near: Vec<_> = nearest(name, names()).into_iter().chain(related).map(str::to_owned).collect();
        let mut seen = BTreeSet::new();
        near.retain(|name| seen.insert(name.clone()));
        near.truncate(3);
        near
    }
}

/// The module that a line of modules.dep or modules.builtin is about.
fn name(line: &str) -> Option<String> {
    let path = line.split(':').next()?;
    let file = path.rsplit('/').next()?.split('.').next()?;
    (!file.is_empty()).then(|| file.replace('-', "_"))
}

/// The modules asked for as the kernel writes them, each once; all must be known to the volume.
pub(super) fn wanted(load: &[String], volume: Option<&Volume>) -> Result<Vec<String>, Error> {
    let mut wanted: Vec<String> = Vec::new();
    for name in load.iter().map(|name| name.replace('-', "_")) {
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    let Some(volume) = volume else {
        return if wanted.is_empty() { Ok(wanted) } else { Err(Error::NoVolume { names: wanted }) };
    };
    let unknown: Vec<_> = wanted.iter().filter(|name| !volume.names.contains(*name)).collect();
    if unknown.is_empty() {
        return Ok(wanted);
    }
    let unknown = unknown.into_iter().map(|name| (name.clone(), volume.near(name))).collect();
    Err(Error::UnknownModules { unknown, version: volume.version.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> (tempfile::TempDir, Volume) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("lib/modules/5.10.262");
        fs::create_dir_all(&tree).unwrap();
        let dep =
            "kernel/fs/overlayfs/overlay.ko: kernel/fs/exportfs/exportfs.ko\nkernel/a/virtio-rng.ko.xz:\n";
        fs::write(tree.join("modules.dep"), dep).unwrap();
        fs::write(tree.join("modules.builtin"), "kernel/fs/ext2/ext2.ko\nkernel/b/virtio_blk.ko\n").unwrap();
        let volume = Volume::read(dir.path()).unwrap();
        (dir, volume)
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn names_are_spelled_either_way_and_asked_for_once() {
        let (_dir, volume) = volume();
        assert_eq!(volume.version, "5.10.262");
        let load = strings(&["virtio-rng", "virtio_rng", "ext2"]);
        assert_eq!(wanted(&load, Some(&volume)).unwrap(), ["virtio_rng", "ext2"]);
    }

    #[test]
    fn an_unknown_module_is_named_with_the_nearest() {
        let (_dir, volume) = volume();
        let error = wanted(&strings(&["overlai", "ext2", "virtio", "zzz"]), Some(&volume)).unwrap_err();
        let Error::UnknownModules { unknown, .. } = error else { panic!("{error}") };
        assert_eq!(
            unknown,
            [
                ("overlai".to_owned(), strings(&["overlay"])),
                ("virtio".to_owned(), strings(&["virtio_blk", "virtio_rng"])),
                ("zzz".to_owned(), vec![]),
            ]
        );
    }

    #[test]
    fn modules_need_a_volume_and_a_volume_one_version() {
        assert!(matches!(wanted(&strings(&["overlay"]), None), Err(Error::NoVolume { .. })));
        assert!(wanted(&[], None).unwrap().is_empty());
        let (dir, _) = volume();
        fs::create_dir(dir.path().join("lib/modules/6.1")).unwrap();
        assert!(matches!(Volume::read(dir.path()), Err(Error::Volume { .. })));
    }
}
