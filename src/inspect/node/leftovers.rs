//! What a volume must not hold: another kernel, another machine's identity, and what its making left behind.

use super::Report;
use super::content::Content;
use super::dpkg::{self, Database};
use crate::inspect::files::Bytes;
use crate::oci::root::Kind;

/// Where systemd-resolved has the configuration that programs are to read.
const STUB: &str = "run/systemd/resolve/stub-resolv.conf";
/// cloud-init before this one ignores vendor-data from a seed URL: no modules volume, no ssh keys.
const CLOUD_INIT: &str = "20.4";

/// Checks what is left, and the two programs that give a volume what was taken away.
pub(super) fn check(content: &Content, database: &Database, report: &mut Report) {
    services(content, database, report);
    kernels(content, database, report);
    identity(content, report);
    let files = |dir: &str| content.below(dir).into_iter().filter(|(_, inode)| content.is_file(*inode));
    let paths = |dir: &str, is_left: &dyn Fn(&str, u64) -> bool| -> Vec<String> {
        let left = files(dir).filter(|(path, inode)| is_left(path, content.size(*inode)));
        left.map(|(path, _)| path).collect()
    };
    let clean = "delete it, and keep it out of the base";
    let lists = paths("var/lib/apt/lists", &|path, _| !path.ends_with("/lock"));
    report.at_all(&lists, &format!("it is a list of apt's, old as soon as the image is: {clean}"));
    let mut caches = paths("var/cache/apt", &|path, _| !path.ends_with("/lock"));
    caches.extend(paths("var/cache/ldconfig", &|_, _| true));
    caches.extend(paths("var/cache/debconf", &|path, _| path.ends_with("-old")));
    report.at_all(&caches, &format!("it is a cache, other bytes in every build: {clean}"));
    let logs = paths("var/log", &|_, size| size > 0);
    report.at_all(&logs, &format!("it is a log of the build: {clean}"));
    let temporary: Vec<_> =
        ["tmp", "var/tmp", "run"].iter().flat_map(|dir| paths(dir, &|_, _| true)).collect();
    report.at_all(&temporary, &format!("it was temporary when the image was made: {clean}"));
    let accounts =
        ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"].map(|name| format!("etc/{name}-"));
    let backups: Vec<_> = accounts.into_iter().filter(|path| content.entry(path).is_some()).collect();
    report.at_all(&backups, &format!("it is a backup of accounts as they were before: {clean}"));
    let compiled: Vec<_> =
        content.root.walk().into_iter().filter(|(path, _)| path.ends_with(b".pyc")).collect();
    let compiled: Vec<_> = compiled.into_iter().map(|(path, _)| Bytes(path).to_string()).collect();
    report.at_all(&compiled, &format!("Python compiles it anew, with times of its own in it: {clean}"));
}

fn services(content: &Content, database: &Database, report: &mut Report) {
    match database.package("cloud-init") {
        None => report.add("cloud-init is not installed: nothing mounts the modules volume nor lets anybody in; add the package"),
        Some(package) if dpkg::holds(&package.version, ">=", CLOUD_INIT) != Some(true) => report.add(format!(
            "cloud-init {} ignores vendor-data of a seed URL, so that no modules volume is mounted: {CLOUD_INIT} or newer is in the updates pocket",
            package.version
        )),
        Some(_) => {}
    }
    if super::units::unit(content, "systemd-resolved.service").is_none() {
        report.add("there is no systemd-resolved.service, and CAPMVM's nodes resolve names by it: add systemd-resolved");
    }
    // JSON for routes came with it, and CAPMVM's templates read them.
    if let Some(package) = database.package("iproute2")
        && dpkg::holds(&package.version, ">=", "4.16") != Some(true)
    {
        report.add(format!(
            "iproute2 {} cannot print routes as JSON (`ip -j route`): 4.16 or newer can",
            package.version
        ));
    }
    let resolv = "etc/resolv.conf";
    let link = content.entry(resolv).map(|found| &content.root.inodes[found.inode].kind);
    let leads = match link {
        Some(Kind::Symlink(target)) => {
            let target = String::from_utf8_lossy(target);
            [format!("/{STUB}"), format!("../{STUB}")].contains(&target.into_owned())
        }
        _ => false,
    };
    if !leads {
        report.at(
            &resolv,
            format!("it must be the link to ../{STUB}, and not the configuration of who built the image"),
        );
    }
}

fn kernels(content: &Content, database: &Database, report: &mut Report) {
    for name in database.names().filter(|name| name.starts_with("linux-image-")) {
        report.add(format!("the package {name} brings a second kernel, which nobody boots: leave it out"));
    }
    let boot = content.names("boot").into_iter().map(|(name, _)| format!("boot/{name}"));
    let top = content.names("").into_iter().map(|(name, _)| name);
    let is_kernel = |path: &String| path.rsplit('/').next().is_some_and(|name| name.starts_with("vmlinuz"));
    let kernels: Vec<_> = boot.chain(top).filter(is_kernel).collect();
    report.at_all(&kernels, "it is a second kernel, which nobody boots: leave it out");
}

fn identity(content: &Content, report: &mut Report) {
    let keys: Vec<_> = content
        .names("etc/ssh")
        .into_iter()
        .filter(|(name, _)| name.starts_with("ssh_host_") && name.contains("_key"))
        .map(|(name, _)| format!("etc/ssh/{name}"))
        .collect();
    report.at_all(
        &keys,
        "it is the key of every machine with this image: delete it, each makes its own at first boot",
    );
    let id = "etc/machine-id";
    match content.file(id) {
        None => report.at(&id, "there is none: with an empty one systemd makes it at first boot, without one it cannot on a read-only root"),
        Some(found) if content.size(found.inode) > 0 => {
            report.at(&id, "it is not empty: every machine with this image would be the same one; empty it");
        }
        Some(_) => {}
    }
    let other = "var/lib/dbus/machine-id";
    if content.entry(other).is_some_and(|found| content.is_file(found.inode) && content.size(found.inode) > 0)
    {
        report.at(
            &other,
            "it names the machine that built the image: delete it, or link it to /etc/machine-id",
        );
    }
    let hostname = content.text("etc/hostname").unwrap_or_default();
    if !["", "localhost"].contains(&hostname.trim()) {
        let what = format!(
            "it says `{}`, as if every machine were called so: delete it, cloud-init writes it",
            hostname.trim()
        );
        report.at(&"etc/hostname", what);
    }
}
