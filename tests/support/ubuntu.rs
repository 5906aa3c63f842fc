//! What stands in for Ubuntu's archive, made by `scripts/standin`, and for the release files of a node's programs.

use std::path::{Path, PathBuf};

use fs_err as fs;
use toml_edit::{DocumentMut, value};

use super::node::{Member, layer};
use super::{Imgbuild, Place, host, sha256, volume};

const LOCK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/imgbuild.lock");

/// The stand-in archive and its keys.
pub(crate) fn standin() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/standin");
    let dir = std::env::var_os("IMGBUILD_TEST_STANDIN").map_or_else(own, PathBuf::from);
    assert!(dir.join("complete").exists(), "there is no archive in {}: run scripts/standin", dir.display());
    dir
}

/// A store that the tests of one file share, so that they make a base once; it is empty when the first begins.
pub(crate) fn store() -> PathBuf {
    static STORE: std::sync::LazyLock<PathBuf> = std::sync::LazyLock::new(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("os");
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("our own directory");
        }
        fs::create_dir_all(&dir).expect("a new directory");
        dir.join("store")
    });
    STORE.clone()
}

/// A place where the recipes built in find packages and release files.
pub(crate) fn place() -> Place {
    let place = Place::new();
    releases(&place);
    place
}

/// `imgbuild os` there, with these words after it.
pub(crate) fn os(place: &Place, words: &str) -> Imgbuild {
    let run = place.imgbuild(&format!("os {words}")).option("--lock", place.path("standin.lock"));
    with_standin(run, place)
}

/// A run that finds the stand-in's packages, and the place's release files.
pub(crate) fn with_standin(run: Imgbuild, place: &Place) -> Imgbuild {
    options(place).into_iter().fold(run, Imgbuild::arg)
}

/// The options that it takes to find them.
pub(crate) fn options(place: &Place) -> Vec<String> {
    let (dir, files) = (standin(), place.path("releases"));
    let named = |name: &str, path: &Path| format!("{name}={}", path.display());
    let mut options = Vec::new();
    let mut option = |name: &str, value| options.extend([name.to_owned(), value]);
    for name in ["ubuntu", "ubuntu-ports"] {
        option("--mirror", named(name, &dir.join("archive")));
        option("--keyring", named(name, &dir.join("keyring.gpg")));
    }
    option("--mirror", named("dl.k8s.io", &files));
    option("--mirror", named("github.com", &files));
    options
}

/// Writes a program that says its version in the place of each release file for this host that the lock pins, and the
/// lock with their hashes.
pub(crate) fn releases(place: &Place) {
    let mut lock: DocumentMut = fs::read_to_string(LOCK).expect("the lock").parse().expect("TOML");
    let tables = lock["release"].as_array_of_tables_mut().expect("the lock has releases");
    for table in tables.iter_mut().filter(|table| table["arch"].as_str() == Some(host())) {
        let text = |field: &str| table[field].as_str().expect("a string").to_owned();
        let (name, version, path) = (text("name"), text("version"), text("path"));
        let bytes = release(&name, &version);
        table["sha256"] = value(sha256(&bytes));
        place.write(&format!("releases/{path}"), bytes);
    }
    place.write("standin.lock", lock.to_string());
}

/// A release file as its makers lay it out.
fn release(name: &str, version: &str) -> Vec<u8> {
    release_of(name, says(version))
}

/// A release file with this program in it, whatever it is called.
pub(crate) fn release_of(name: &str, program: Vec<u8>) -> Vec<u8> {
    let member = |path: &str| Member { mode: 0o755, ..Member::file(path, &program) };
    match name {
        "containerd" => {
            let names = ["containerd", "containerd-shim-runc-v2", "ctr"];
            let mut members = vec![Member::directory("bin/")];
            members.extend(names.map(|name| member(&format!("bin/{name}"))));
            layer(&members)
        }
        "crictl" => layer(&[member("crictl")]),
        "cni-plugins" => {
            let names = ["./bridge", "./host-local", "./loopback", "./portmap"];
            let mut members = vec![Member::directory("./"), Member::file("./LICENSE", "Apache-2.0\n")];
            members.extend(names.map(member));
            layer(&members)
        }
        _ => program,
    }
}

/// A program that says this version: the one that volumes made by hand have, with its text changed.
fn says(version: &str) -> Vec<u8> {
    let mut bytes = volume::programs(super::node::architecture()).free;
    let said = format!(" v{} ", volume::VERSION);
    let said = said.trim_end().as_bytes();
    let at = bytes.windows(said.len()).position(|window| window == said).expect("it says its version");
    // Longer ones end early; no test runs those.
    let text = format!(" v{version:<width$}", width = volume::VERSION.len());
    bytes[at..at + said.len()].copy_from_slice(&text.as_bytes()[..said.len()]);
    bytes
}
