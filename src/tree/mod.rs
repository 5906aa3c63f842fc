//! Root trees: packages of a signed archive, unpacked by mmdebstrap, held to the set that the lock pins.
//!
//! No script of a package is run. What such scripts do (caches, alternatives, users) differs from machine to machine
//! and wants root or a range of user ids; a tree to compile in needs the files alone. So root and any ordinary user
//! get the same bytes.

mod drift;
mod error;
mod mmdebstrap;

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

pub use drift::{Drift, Pinned, drift};
pub use error::Error;
pub use mmdebstrap::{Depth, LIST, Run, requirements as archive_requirements};

use crate::arch::Arch;
use crate::host::{self, Tool};
use crate::lock::trees::{Package, TreePin};
use crate::recipe::ToolchainRecipe;
use crate::sandbox;
use crate::step::{Check, Key, Step, Unit, Watch};

/// What is in packages for people, for the machine they would be installed on, or for apt: no compiler reads it.
const LEFT_OUT: [&str; 17] = [
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "boot",
    "home",
    "root",
    "var",
    "etc/apt",
    "etc/resolv.conf",
    "etc/hostname",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
];
/// The programs that making a tree of this recipe needs.
pub fn requirements(recipe: &ToolchainRecipe) -> Vec<Tool> {
    let mut tools = mmdebstrap::requirements(&recipe.archive);
    tools.push(Tool::new(sandbox::PROGRAM, "bubblewrap", "shuts the compilation into it"));
    tools
}

/// A toolchain's tree for one architecture to run on, with what the lock says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// What goes into it.
    pub recipe: ToolchainRecipe,
    /// The architecture of this host.
    pub arch: Arch,
    /// The pinned set, if there is one.
    pub pin: Option<TreePin>,
}

impl Tree {
    /// The canonical account of what is in it. With a pinned set the archive's date does not matter.
    pub fn record(&self) -> Value {
        let recipe = &self.recipe;
        let mut record = json!({
            "step": "tree 1",
            "arch": self.arch.name(),
            "asked": recipe.packages(self.arch),
            "links": recipe.links,
        });
        if let Some(pin) = &self.pin {
            record["packages"] = pin.packages.iter().map(ToString::to_string).collect();
        } else {
            record["archive"] = recipe.archive.place.as_str().into();
            record["snapshot"] = recipe.archive.snapshot.as_str().into();
            record["suites"] = recipe.archive.suites.as_slice().into();
            record["components"] = recipe.archive.components.as_slice().into();
        }
        record
    }

    /// The digest of the account.
    pub fn key(&self) -> Key {
        Key::of(&self.record())
    }

    /// Makes the tree at `root`, an empty directory, from the archive at `base`; returns the packages in it.
    ///
    /// What the lock pins is not looked at.
    pub fn make(&self, root: &Path, base: &str, watch: &Watch) -> Result<Vec<Package>, Error> {
        host::require(&requirements(&self.recipe))?;
        let recipe = &self.recipe;
        let run = Run {
            name: &recipe.name,
            archive: &recipe.archive,
            arch: self.arch,
            packages: &recipe.packages(self.arch),
            depth: Depth::Unpacked,
            base,
        };
        run.make(root, watch)?;
        let packages = list(root)?;
        normalise(root, recipe)?;
        Ok(packages)
    }
}

/// Takes the list of packages out of a fresh tree.
fn list(root: &Path) -> Result<Vec<Package>, Error> {
    let path = root.join(LIST);
    let text = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    Ok(packages(&text)?)
}

/// The packages of a list at [`LIST`], sorted.
pub fn packages(list: &str) -> std::io::Result<Vec<Package>> {
    let parse = |line: &str| {
        line.parse().map_err(|error| std::io::Error::other(format!("mmdebstrap's hook: {error}")))
    };
    let mut packages = list.lines().map(parse).collect::<std::io::Result<Vec<Package>>>()?;
    packages.sort();
    Ok(packages)
}

/// Leaves in a fresh tree what compilers read, with one mode for files and one for programs, and adds the links.
fn normalise(root: &Path, recipe: &ToolchainRecipe) -> Result<(), Error> {
    for name in LEFT_OUT {
        let path = root.join(name);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path)?,
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (path, target) in &recipe.links {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a link lies in the tree"))?;
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path)?;
        }
        fs_err::os::unix::fs::symlink(target, &path)?;
    }
    modes(root)
}

/// Gives every file and directory its plain mode: readable by all, and nobody else's rights.
fn modes(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let set = |path: &Path, mode| fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    set(dir, 0o755)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            modes(&entry.path())?;
        } else if meta.is_file() {
            set(&entry.path(), if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 })?;
        }
    }
    Ok(())
}

/// Brings the URL or directory of an archive when a tree is really made of it.
pub type BaseOf<'a, E> = dyn Fn() -> Result<String, E> + 'a;

/// The step that makes a tree. The artifact is the tree's root.
pub struct MakeTree<'a, E> {
    /// The tree.
    pub tree: &'a Tree,
    /// The lock's name, for messages.
    pub lock: &'a str,
    /// Where the archive is.
    pub base: &'a BaseOf<'a, E>,
}

impl<E: From<Error>> Step for MakeTree<'_, E> {
    type Error = E;

    fn kind(&self) -> &'static str {
        "tree"
    }

    fn record(&self) -> Value {
        self.tree.record()
    }

    fn name(&self) -> String {
        format!("{} on {}", self.tree.recipe.name, self.tree.arch)
    }

    // Hundreds of megabytes, used by each compilation: read when made, looked over when used.
    fn check(&self) -> Check {
        Check::Stamps
    }

    fn is_shared(&self) -> bool {
        self.tree.pin.is_some()
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), E> {
        let base = (self.base)()?;
        let name = &self.tree.recipe.name;
        let progress = watch.reporter.begin("tree", name, None, Unit::Files);
        let packages = self.tree.make(out, &base, watch)?;
        let (arch, pin) = (self.tree.arch, self.tree.pin.as_ref());
        let moment = &self.tree.recipe.archive.snapshot;
        Pinned { name, arch, moment, lock: self.lock, pin }.hold(
            &packages,
            &base,
            progress.as_ref(),
            watch,
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Catalogue;

    fn tree(pin: Option<&str>) -> Tree {
        let recipe = Catalogue::Builtin.toolchains().unwrap().remove(0);
        let packages =
            |version: &str| vec![format!("gcc {version} amd64 {}", "0".repeat(64)).parse().unwrap()];
        let pin = pin.map(|version| TreePin {
            name: recipe.name.clone(),
            arch: Arch::X86_64,
            packages: packages(version),
        });
        Tree { recipe, arch: Arch::X86_64, pin }
    }

    #[test]
    fn a_pinned_tree_is_known_by_its_packages_and_an_unpinned_one_by_its_date() {
        let later = |mut tree: Tree| {
            tree.recipe.archive.snapshot = "20270101T000000Z".into();
            tree
        };
        assert_eq!(tree(Some("1")).key(), later(tree(Some("1"))).key());
        assert_ne!(tree(Some("1")).key(), tree(Some("2")).key());
        assert_ne!(tree(None).key(), later(tree(None)).key());
        assert_ne!(tree(None).key(), tree(Some("1")).key());
        let mut other = tree(Some("1"));
        other.recipe.links.insert("bin/x".into(), "y".into());
        assert_ne!(other.key(), tree(Some("1")).key());
    }

    #[test]
    fn a_fresh_tree_keeps_what_compilers_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for path in
            ["usr/bin/gcc", "usr/share/doc/gcc/README", "etc/apt/sources.list", "etc/hostname", "var/log/x"]
        {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), path).unwrap();
        }
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(dir.path().join("usr/bin/gcc"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(dir.path().join("usr/bin"), std::fs::Permissions::from_mode(0o700)).unwrap();
        normalise(dir.path(), &tree(None).recipe).unwrap();
        assert_eq!((mode("usr/bin/gcc"), mode("usr/bin")), (0o755, 0o755));
        for gone in ["usr/share/doc", "etc/apt", "etc/hostname", "var"] {
            assert!(!dir.path().join(gone).exists(), "{gone}");
        }
        assert_eq!(fs::read_link(dir.path().join("bin/sh")).unwrap(), Path::new("dash"));
    }
}
