//! What the users of kernel and modules images rely on: Flintlock, CAPMVM and hammertime, by way of containerd.
//!
//! Each rule is from their sources, as the issue that asked for it has them; an image that breaks one looks fine in
//! a registry and fails on a host.

use std::collections::BTreeSet;

use super::files::{Bytes, Kind, Node, Tree};
use super::validate::Faults;
use crate::arch::Arch;
use crate::oci::layer::normal;

/// Where every consumer looks for the kernel.
const KERNEL: &str = "boot/vmlinux";
/// Where modules lie.
const MODULES: &str = "lib/modules";

/// Checks an image by what it is.
pub(super) fn check(faults: &mut Faults<'_>, tree: &Tree) {
    let arch = faults.image.config.architecture().to_string().parse::<Arch>().ok();
    let has = |path: &str| tree.contains_key(&at(path));
    // A root volume may have a kernel and modules too, and rules of its own.
    let is_root = has("usr") || has("etc");
    let (kernel, modules) = match faults.image.label("io.imgbuild.role") {
        Some("kernel") => (true, false),
        Some("modules") => (false, true),
        Some("combined") => (true, true),
        Some(_) => (false, false),
        None if is_root => (false, false),
        // Legacy kernel images hold the modules as well, for the root volume to have them copied in.
        None => (has(KERNEL), has(MODULES) && !has(KERNEL)),
    };
    let Some(arch) = arch else {
        if kernel || modules {
            let named = faults.image.config.architecture().to_string();
            faults.add(format!("it is for {named}, which no kernel here is for"));
        }
        return;
    };
    if kernel {
        check_kernel(faults, tree, arch);
    }
    if modules {
        check_modules(faults, tree);
    }
    if faults.image.label("io.imgbuild.role") == Some("headers") {
        check_headers(faults, tree);
    }
    for (path, node) in tree {
        if node.file.kind == Kind::Symlink && (kernel || modules) {
            check_link(faults, tree, path, node);
        }
        // The kernel itself has been looked at, more closely.
        let looked_at = kernel && [KERNEL, "boot/image"].iter().any(|kernel| path.0 == kernel.as_bytes());
        let program = kernel || modules || node.file.mode & 0o111 != 0;
        // A root volume may hold what no processor runs: BPF, firmware. One of ours has a closer look of its own.
        let is_node = faults.image.label("io.imgbuild.role") == Some("os");
        let foreign =
            |machine: Option<Arch>| !is_node && machine.map_or(kernel || modules, |machine| machine != arch);
        match node.binary.machine {
            _ if node.file.kind != Kind::File || looked_at => {}
            Some(machine) if program && foreign(machine) => {
                faults.at(&path, format!("it is {}, in an image for {arch}", node.binary.what));
            }
            None if modules && path.0.ends_with(b".ko") => {
                faults.at(&path, "it is a module by its name, and no ELF");
            }
            _ => {}
        }
    }
}

fn check_kernel(faults: &mut Faults<'_>, tree: &Tree, arch: Arch) {
    let Some(node) = tree.get(&at(KERNEL)) else {
        return faults.at(&KERNEL, "there is none, and every consumer looks for the kernel there");
    };
    // A hard link is a regular file once it is unpacked.
    let target = match (node.file.kind, &node.file.link) {
        (Kind::HardLink, Some(link)) => tree.get(&Bytes(normal(&link.0))),
        _ => Some(node),
    };
    let Some(target) = target.filter(|target| target.file.kind == Kind::File) else {
        return faults
            .at(&KERNEL, "it is no regular file: a link is followed on the host, where it leads astray");
    };
    if target.file.mode & 0o004 == 0 {
        let mode = target.file.mode;
        faults.at(&KERNEL, format!("its mode is {mode:04o}: a VMM that is not root cannot read it"));
    }
    if let Some(boot) = tree.get(&at("boot"))
        && boot.file.mode & 0o001 == 0
    {
        faults.at(
            &"boot",
            format!("its mode is {:04o}: a VMM that is not root cannot enter it", boot.file.mode),
        );
    }
    let (fits, wanted) = match arch {
        Arch::X86_64 => (target.binary.machine == Some(Some(arch)), "an uncompressed x86_64 ELF"),
        Arch::Arm64 => (target.binary.arm64_image, "an uncompressed arm64 Image"),
    };
    if !fits {
        faults.at(&KERNEL, format!("it is {}, not {wanted}", target.binary.what));
    }
    check_config(faults, tree);
}

/// The configuration in the image must be the one that its label names.
fn check_config(faults: &mut Faults<'_>, tree: &Tree) {
    let (Some(release), Some(digest)) =
        (faults.image.label("io.imgbuild.kernel.release"), faults.image.label("io.imgbuild.kernel.config"))
    else {
        return;
    };
    let path = format!("boot/config-{release}");
    match tree.get(&at(&path)) {
        None => faults.at(&path, "there is none, although the labels name its digest"),
        Some(node) if format!("sha256:{}", node.sha256) != digest => {
            let found =
                format!("it is sha256:{}, the label io.imgbuild.kernel.config says {digest}", node.sha256);
            faults.at(&path, found);
        }
        Some(_) => {}
    }
}

/// The tree lies at lib/modules/RELEASE, and the volume is mounted there too: its root must lead to the same.
fn check_modules(faults: &mut Faults<'_>, tree: &Tree) {
    let below = |top: &str| -> BTreeSet<Bytes> {
        let prefix = [top.as_bytes(), b"/"].concat();
        let names = tree.keys().filter_map(|path| path.0.strip_prefix(&prefix[..]));
        names.filter(|rest| !rest.contains(&b'/')).map(|name| Bytes(name.to_vec())).collect()
    };
    let releases = below(MODULES);
    let mut releases = releases.iter();
    let (Some(release), None) = (releases.next(), releases.next()) else {
        return faults.at(&MODULES, "there must be one release's directory in it");
    };
    let top = format!("{MODULES}/{release}");
    if let Some(label) = faults.image.label("io.imgbuild.kernel.release")
        && label != release.to_string()
    {
        let what = format!("the label io.imgbuild.kernel.release says {label}");
        faults.at(&top, what);
    }
    for index in ["modules.dep", "modules.dep.bin", "modules.alias.bin", "modules.builtin", "modules.order"] {
        if !tree.contains_key(&at(&format!("{top}/{index}"))) {
            faults.at(&format!("{top}/{index}"), "there is none, and modprobe looks for it");
        }
    }
    for name in below(&top) {
        let there = tree.get(&name).map(|node| (node.file.kind, &node.file.link));
        let leads = match there {
            Some((Kind::Symlink, Some(link))) => {
                resolve(&name.0, &link.0) == Some(at(&format!("{top}/{name}")).0)
            }
            _ => false,
        };
        if !leads {
            let what = format!("no relative link to {top}/{name}: mounted at /{top}, modprobe misses it");
            faults.at(&name, what);
        }
    }
}

/// Kbuild finds its files where the label's release says, and nothing in them is for one machine alone.
fn check_headers(faults: &mut Faults<'_>, tree: &Tree) {
    let Some(release) = faults.image.label("io.imgbuild.kernel.release") else {
        return faults.add("no label io.imgbuild.kernel.release says whose headers they are");
    };
    let top = format!("usr/src/linux-headers-{release}");
    for name in ["Makefile", "GNUmakefile", "Module.symvers", ".config", "include/generated/utsrelease.h"] {
        let path = format!("{top}/{name}");
        if !tree.contains_key(&at(&path)) {
            faults.at(&path, "there is none, and modules are compiled by it");
        }
    }
    let link = format!("usr/lib/modules/{release}/build");
    let leads =
        |node: &Node| node.file.link.as_ref().is_some_and(|link| link.0 == format!("/{top}").as_bytes());
    if !tree.get(&at(&link)).is_some_and(leads) {
        faults.at(&link, format!("no link to /{top}: makefiles of modules miss it"));
    }
    for (path, node) in tree {
        if node.binary.machine.is_some() {
            faults.at(&path, format!("it is {}: headers hold sources alone", node.binary.what));
        }
    }
}

fn check_link(faults: &mut Faults<'_>, tree: &Tree, path: &Bytes, node: &Node) {
    let target = node.file.link.clone().unwrap_or_default();
    if target.0.starts_with(b"/") {
        return faults.at(&path, format!("it is a link to {target}: on the host that is a file of the host"));
    }
    match resolve(&path.0, &target.0) {
        None => faults.at(&path, format!("it is a link to {target}, out of the image")),
        Some(end) if !tree.contains_key(&Bytes(end.clone())) => {
            faults.at(&path, format!("it is a link to {target}, where nothing is"));
        }
        Some(_) => {}
    }
}

/// Where a relative link at `path` leads; none if that is outside.
fn resolve(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(normal(&parts.join(&b'/')))
}

fn at(path: &str) -> Bytes {
    Bytes(path.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_image() {
        let led = |path: &str, target: &str| {
            resolve(path.as_bytes(), target.as_bytes()).map(|end| String::from_utf8(end).unwrap())
        };
        assert_eq!(led("kernel", "lib/modules/5/kernel").as_deref(), Some("lib/modules/5/kernel"));
        assert_eq!(led("a/b/c", "../d").as_deref(), Some("a/d"));
        assert_eq!(led("a/b", "../../etc/passwd"), None);
        assert_eq!(led("a/b", "./.").as_deref(), Some("a"));
    }
}
