//! A signed apt archive of made-up packages, and the catalogue with a toolchain of them.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Place, sha256, tool};

/// The toolchain of the archive's packages.
pub(crate) const TREE: &str = "toy-1";

/// An archive below a place's directory.
pub(crate) struct Archive {
    dir: PathBuf,
    packages: Vec<(String, String)>,
    sources: String,
}

impl Archive {
    /// An archive with `toy-tool`, which needs `toy-library`, signed by a key of its own; and the catalogue beside it.
    pub(crate) fn new(place: &Place) -> Self {
        let mut archive = Self { dir: place.path("archive"), packages: Vec::new(), sources: String::new() };
        fs::create_dir_all(archive.dir.join("pool")).expect("a new directory");
        archive.key("ours");
        archive.package(
            "toy-library",
            "1.0",
            "",
            &[("usr/lib/toy/library", "one\n"), ("usr/share/doc/toy/README", "read\n")],
        );
        archive.package(
            "toy-tool",
            "2:1.0-1",
            "toy-library",
            &[("usr/bin/toy-tool", "#!/bin/sh\necho toy\n")],
        );
        archive.publish("ours");
        let keyring = archive.keyring("ours");
        place.write(
            "recipes/toolchains/toy-1.toml",
            format!(
                "kind = \"toolchain\"\nname = \"{TREE}\"\narchive = \"toys\"\nsuites = [\"toybox\"]\ncomponents = [\"main\"]\n\
                 snapshot = \"20260901T000000Z\"\nkeyring = \"{}\"\npackages = [\"toy-tool\"]\n[links]\n\"bin/toy\" = \"../usr/bin/toy-tool\"\n\
                 [kernels]\nbefore = \"9.0\"\n",
                keyring.display()
            ),
        );
        let dir = archive.dir.display();
        place.write("recipes/imgbuild.lock", format!("assembly = 1\n[places]\ntoys = \"{dir}\"\n"));
        place.write("recipes/kernel/.keep", "");
        archive
    }

    /// The keys of this name, for readers.
    pub(crate) fn keyring(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.gpg"))
    }

    /// Where an archive's file is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a key.
    pub(crate) fn key(&self, name: &str) {
        let home = self.dir.join(name);
        fs::create_dir(&home).expect("a new directory");
        fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .expect("our own directory");
        let user = format!("{name} <nobody@localhost>");
        gpg(&home, &["--passphrase", "", "--quick-gen-key", &user, "ed25519", "sign", "0"]);
        let keyring = self.keyring(name);
        gpg(&home, &["--output", &keyring.display().to_string(), "--export"]);
    }

    /// Adds a package, in place of one of the same name.
    pub(crate) fn package(&mut self, name: &str, version: &str, depends: &str, files: &[(&str, &str)]) {
        let tree = tempfile::tempdir().expect("a temporary directory");
        let mut control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: a toy\n"
        );
        if !depends.is_empty() {
            control += &format!("Depends: {depends}\n");
        }
        for (path, content) in [("DEBIAN/control", control.as_str())].iter().chain(files) {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a new directory");
            fs::write(&path, content).expect("a new file");
            let mode = if path.starts_with(tree.path().join("usr/bin")) { 0o755 } else { 0o644 };
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                .expect("our own file");
        }
        let file = format!("pool/{name}_{}.deb", version.replace(':', "%3a"));
        let deb = self.dir.join(&file);
        let words =
            ["--root-owner-group".as_ref(), "--build".as_ref(), tree.path().as_os_str(), deb.as_os_str()];
        tool("dpkg-deb", &words);
        let bytes = fs::read(&deb).expect("our own file");
        let entry =
            format!("{control}Filename: {file}\nSize: {}\nSHA256: {}\n\n", bytes.len(), sha256(&bytes));
        self.packages.retain(|(other, _)| other != name);
        self.packages.push((name.to_owned(), entry));
    }

    /// Adds a source package with an upstream tarball, which it writes.
    pub(crate) fn source(&mut self, package: &str, version: &str, content: &[u8]) {
        let name = format!("{package}_{version}.orig.tar.xz");
        fs::write(self.dir.join("pool").join(&name), content).expect("a new file");
        self.sources += &format!(
            "Package: {package}\nVersion: {version}-1\nDirectory: pool\nChecksums-Sha256:\n {} {} {name}\n\n",
            sha256(content),
            content.len()
        );
    }

    /// Takes a package out.
    pub(crate) fn remove(&mut self, name: &str) {
        self.packages.retain(|(other, _)| other != name);
    }

    /// Writes the index and signs it with the key of this name.
    pub(crate) fn publish(&self, key: &str) {
        let index: String = self.packages.iter().map(|(_, entry)| entry.as_str()).collect();
        let suite = self.dir.join("dists/toybox");
        let mut listed = String::new();
        for arch in ["amd64", "arm64"] {
            let path = format!("main/binary-{arch}/Packages");
            fs::create_dir_all(suite.join(&path).parent().expect("it lies deep")).expect("a new directory");
            fs::write(suite.join(&path), &index).expect("a new file");
            listed += &format!("\n {} {} {path}", sha256(index.as_bytes()), index.len());
        }
        let (sources, list) = (suite.join("main/source"), "main/source/Sources.xz");
        fs::create_dir_all(&sources).expect("a new directory");
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(self.sources.as_bytes()).expect("xz in memory");
        let packed = encoder.finish().expect("xz in memory");
        fs::write(suite.join(list), &packed).expect("a new file");
        let release = format!(
            "Origin: Toys\nLabel: Toys\nSuite: toybox\nCodename: toybox\nDate: Tue, 01 Sep 2026 00:00:00 UTC\n\
             Architectures: amd64 arm64\nComponents: main\nSHA256:{listed}\n {} {} {list}\n",
            sha256(&packed),
            packed.len(),
        );
        fs::write(suite.join("Release"), release).expect("a new file");
        let [from, to] = ["Release", "InRelease"].map(|name| suite.join(name).display().to_string());
        let _ = fs::remove_file(&to);
        gpg(&self.dir.join(key), &["--output", &to, "--clearsign", &from]);
    }
}

fn gpg(home: &Path, words: &[&str]) {
    let common: [&OsStr; 4] =
        ["--batch".as_ref(), "--quiet".as_ref(), "--homedir".as_ref(), home.as_os_str()];
    let words: Vec<&OsStr> = common.into_iter().chain(words.iter().map(|word| OsStr::new(*word))).collect();
    tool("gpg", &words);
}
