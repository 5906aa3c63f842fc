//! A made-up kernel that the pinned tree of the shared store compiles: as any machine would.

use std::os::unix::fs::symlink;
use std::path::Path;

use fs_err as fs;

use super::source::Source;
use super::{Imgbuild, Place, host, names, shared_store};

/// The toolchain of the series.
const TOOLCHAIN: &str = "debian-11";

/// A place with the catalogue of a made-up kernel, and a store that has the pinned tree and nothing else.
pub(crate) fn place() -> Place {
    let place = bare();
    give_tree(place.store());
    place
}

/// The same with an empty store.
pub(crate) fn bare() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recipe = format!("recipes/toolchains/{TOOLCHAIN}.toml");
    place.write(&recipe, fs::read(repository.join(&recipe)).expect("our own recipe"));
    let lock = fs::read_to_string(repository.join("recipes/imgbuild.lock")).expect("our own lock");
    let begins = format!("[[tree]]\nname = \"{TOOLCHAIN}\"\narch = \"{}\"\n", host());
    let pin = &lock[lock.find(&begins).expect("the tree is pinned")..];
    let pin = &pin[..pin.find("\n]\n").expect("its packages end") + 3];
    let own = fs::read_to_string(place.path("recipes/imgbuild.lock")).expect("a lock");
    let own = own.replace("[places]\n", "[places]\ndebian = \"apt:Debian\"\n");
    place.write("recipes/imgbuild.lock", format!("{own}\n{pin}"));
    place
}

/// Makes a store that has the pinned tree.
pub(crate) fn give_tree(store: &Path) {
    let artifacts = store.join("artifacts");
    fs::create_dir_all(&artifacts).expect("a new directory");
    fs::copy(shared_store().join("format"), store.join("format")).expect("stores have one format");
    symlink(shared_store().join("artifacts/tree"), artifacts.join("tree")).expect("a new link");
}

/// The tags of the shared store's trees in a cache.
pub(crate) fn tree_tags() -> Vec<String> {
    let trees = names(&shared_store().join("artifacts/tree"));
    trees.iter().map(|key| format!("tree-{key}")).collect()
}

/// Builds with the pinned tree.
pub(crate) fn build(place: &Place, words: &str) -> Imgbuild {
    place.imgbuild(&format!("kernel 5.10.1 {words}")).without("IMGBUILD_TOOLCHAIN")
}
