//! What an image holds: its packages as it tells them itself, and its files as its layers have them.

use std::collections::{BTreeMap, BTreeSet};

use sha1::{Digest, Sha1};

use super::Error;
use crate::attest::spdx::{Contents, File, Package, Program};
use crate::inspect::Image;
use crate::inspect::files::{self, Bytes, Kind, Tree};
use crate::lock::trees;
use crate::oci::source::{Source, blob_error};
use crate::rootfs::clean::{PACKAGES, RECORDS};
use crate::step::{Cancel, hex};

/// What dpkg itself has of its packages: read where the image has no list with digests.
const STATUS: &str = "var/lib/dpkg/status";
/// What a distribution says of itself; the first is a link to the second in most.
const RELEASE: [&str; 2] = ["usr/lib/os-release", "etc/os-release"];

/// Reads what an image holds. Files of the layer that has the distribution's packages are accounted for by those; all
/// others are listed one by one.
pub fn contents(source: &dyn Source, image: &Image, cancel: &Cancel) -> Result<Contents, Error> {
    let tree = files::tree(source, image, cancel, &mut |_, sums| sums.map(drop))?;
    let programs = format!("{RECORDS}/programs.json");
    let at = |path: &str| Bytes(path.as_bytes().to_vec());
    let list = [PACKAGES, STATUS].into_iter().find(|path| tree.contains_key(&at(path)));
    let base = list.map(|path| tree[&at(path)].layer);
    let own: Vec<_> = tree.iter().filter(|(_, node)| Some(node.layer) != base).collect();
    // A hard link has the bytes of the file it is another name of.
    let file_of = |path: &Bytes| -> Option<Bytes> {
        let node = tree.get(path)?;
        match node.file.kind {
            Kind::File => Some(path.clone()),
            Kind::HardLink => node.file.link.clone().map(|link| Bytes(crate::oci::layer::normal(&link.0))),
            _ => None,
        }
    };
    let mut wanted: BTreeSet<Bytes> = own.iter().filter_map(|(path, _)| file_of(path)).collect();
    let texts: Vec<_> = list.into_iter().chain(RELEASE).chain([programs.as_str()]).map(at).collect();
    wanted.extend(texts.iter().filter(|path| tree.contains_key(*path)).cloned());
    let (mut sums, mut read) = (BTreeMap::new(), BTreeMap::new());
    files::show((source, image), &tree, &wanted, cancel, &mut |path, bytes| {
        let mut hasher = Sha1::new();
        let is_text = texts.contains(path);
        let (mut text, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let n = bytes.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            if is_text {
                text.extend_from_slice(&buffer[..n]);
            }
        }
        sums.insert(path.clone(), hex(&hasher.finalize()));
        if is_text {
            read.insert(path.clone(), String::from_utf8_lossy(&text).into_owned());
        }
        Ok(())
    })?;
    let mut contents = Contents { packages_layer: base.unwrap_or(0), ..Contents::default() };
    for (path, node) in &own {
        let Some(file) = file_of(path) else { continue };
        let (Some(sha1), Some(bytes)) = (sums.get(&file), tree.get(&file)) else { continue };
        let (sha1, sha256) = (sha1.clone(), bytes.sha256.clone());
        contents.files.push(File { path: path.to_string(), sha1, sha256, layer: node.layer });
    }
    let unreadable = |path: &str, reason: String| {
        let layer = tree.get(&at(path)).map_or(0, |node| node.layer);
        let layers = image.manifest.layers();
        let error =
            blob_error(source, &layers[layer.min(layers.len() - 1)], format!("has `{path}`, which {reason}"));
        Error::from(error)
    };
    if let Some(path) = list {
        let text = read.get(&at(path)).map_or("", String::as_str);
        contents.packages = if path == PACKAGES { listed(text) } else { Ok(installed(text)) }
            .map_err(|reason| unreadable(path, reason))?;
    }
    if let Some(text) = read.get(&at(&programs)) {
        contents.programs = serde_json::from_str::<Vec<Program>>(text)
            .map_err(|error| unreadable(&programs, format!("is no list of programs: {error}")))?;
        contents.programs_layer = layer_of(&tree, &programs);
    }
    contents.distribution = RELEASE.into_iter().find_map(|path| distribution(read.get(&at(path))?));
    Ok(contents)
}

fn layer_of(tree: &Tree, path: &str) -> usize {
    tree.get(&Bytes(path.as_bytes().to_vec())).map_or(0, |node| node.layer)
}

/// The packages of a list as imgbuild writes it.
fn listed(text: &str) -> Result<Vec<Package>, String> {
    let package = |line: &str| {
        let trees::Package { name, version, arch, sha256 } =
            line.parse().map_err(|error| format!("is no list of packages: {error}"))?;
        Ok(Package { name, version, arch, sha256: Some(sha256) })
    };
    let mut packages = text.lines().map(package).collect::<Result<Vec<_>, String>>()?;
    packages.sort();
    Ok(packages)
}

/// The packages that dpkg has installed.
fn installed(status: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        let field = |name: &str| {
            let mut lines = paragraph.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(value.trim().to_owned())
        };
        let is_installed = field("Status")?.ends_with(" installed");
        let (name, version, arch) = (field("Package")?, field("Version")?, field("Architecture")?);
        is_installed.then_some(Package { name, version, arch, sha256: None })
    };
    let mut packages: Vec<_> = status.split("\n\n").filter_map(package).collect();
    packages.sort();
    packages
}

/// `ID` and `VERSION_ID` of an os-release.
fn distribution(text: &str) -> Option<(String, String)> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned())
    };
    Some((field("ID")?, field("VERSION_ID").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_either_list() {
        let digest = "a".repeat(64);
        let line = |name: &str| format!("{name} 1:2 amd64 {digest}\n");
        let names = |packages: &[Package]| packages.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&listed(&(line("b") + &line("a"))).unwrap()), ["a", "b"]);
        assert!(listed("a 1\n").unwrap_err().contains("`a 1` is not"));
        let paragraph = |name: &str, state: &str| {
            format!("Package: {name}\nStatus: {state}\nVersion: 1\nArchitecture: all\n\n")
        };
        let status = paragraph("b", "install ok installed")
            + &paragraph("gone", "deinstall ok config-files")
            + &paragraph("a", "install ok installed");
        assert_eq!(names(&installed(&status)), ["a", "b"]);
    }

    #[test]
    fn the_distribution_tells_its_name() {
        let text = "NAME=\"Ubuntu\"\nID=ubuntu\nVERSION_ID=\"20.04\"\n";
        assert_eq!(distribution(text), Some(("ubuntu".into(), "20.04".into())));
        assert_eq!(distribution("NAME=x\n"), None);
    }
}
