//! Programs: that those which are called are there, and that everything there can be loaded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::content::{Content, Found, PATH};
use super::{Report, Volume};
use crate::inspect::files::Bytes;
use crate::oci::root::Kind;

/// What every root volume's users call.
const ANY: [(&str, &str); 4] = [
    ("init", "the kernel starts it"),
    ("mount", "cloud-init mounts the volumes with it"),
    ("ip", "cloud-init reads the network with it"),
    ("modprobe", "systemd loads modules with it"),
];
/// What containerd calls, or is called for.
const CONTAINERD: [(&str, &str); 4] = [
    ("containerd", "it is the container runtime"),
    ("containerd-shim-runc-v2", "containerd starts containers with it"),
    ("runc", "containerd starts containers with it"),
    ("ctr", "CAPMVM's templates call it"),
];
/// What kubeadm's preflight and CAPMVM's templates call.
const KUBERNETES: [(&str, &str); 13] = [
    ("kubelet", "the node is run by it"),
    ("kubeadm", "cloud-init joins the cluster with it"),
    ("kubectl", "kubeadm's users call it"),
    ("crictl", "kubeadm asks the container runtime with it"),
    ("iptables", "kubeadm refuses to begin without it"),
    ("nsenter", "kubeadm refuses to begin without it"),
    ("conntrack", "kubeadm refuses to begin without it"),
    ("ebtables", "kubeadm warns without it"),
    ("ethtool", "kubeadm warns without it"),
    ("socat", "kubeadm warns without it"),
    ("tc", "kubeadm warns without it"),
    ("touch", "kubeadm warns without it"),
    ("jq", "CAPMVM's templates call it"),
];
/// Where network plugins lie.
const PLUGINS: &str = "opt/cni/bin";
/// What lies below /usr/lib and is for another machine, or for none.
const FOREIGN: [&str; 7] =
    ["lib/firmware/", "lib/debug/", "lib/grub/", "lib32/", "libx32/", "lib/modules/", "lib/syslinux/"];

/// Checks what is called, and all that is there to be called.
pub(super) fn check(volume: &Volume<'_>, content: &Content, report: &mut Report) {
    let is_node = volume.kubernetes().is_some();
    let mut called: Vec<_> = ANY.into();
    if is_node || content.program("containerd").is_some() {
        called.extend(CONTAINERD);
    }
    if is_node {
        called.extend(KUBERNETES);
    }
    for (name, why) in called {
        if content.program(name).is_none() {
            missing(name, why, content, report);
        }
    }
    if is_node
        && !content.file(format!("{PLUGINS}/loopback")).is_some_and(|it| content.is_executable(it.inode))
    {
        let what = "there is none: containerd gives no container a network without it; add the CNI plugins";
        report.at(&format!("{PLUGINS}/loopback"), what);
    }
    let mut seen = BTreeSet::new();
    for dir in PATH.into_iter().chain([PLUGINS]) {
        for (name, _) in content.names(dir) {
            let Some(found) = content.file(format!("{dir}/{name}")) else { continue };
            if content.is_executable(found.inode) && seen.insert(found.inode) {
                loads(&found, content, report);
            }
        }
    }
    foreign(content, report);
}

/// Tells how a program is missing.
fn missing(name: &str, why: &str, content: &Content, report: &mut Report) {
    let there = PATH.iter().map(|dir| format!("{dir}/{name}")).find(|path| content.entry(path).is_some());
    let Some(path) = there else {
        return report
            .add(format!("no `{name}` is in /{}, and {why}: add the package that has it", PATH.join(":/")));
    };
    let entry = content.entry(&path).expect("it was found");
    let what = match (&content.root.inodes[entry.inode].kind, content.find(&path)) {
        (Kind::Symlink(target), None) => {
            format!("it is a link to {}, where nothing is, and {why}", Bytes(target.clone()))
        }
        (_, Some(found)) if content.is_file(found.inode) => {
            let mode = content.root.inodes[found.inode].mode;
            format!("its mode is {mode:04o}, and {why}: make it executable")
        }
        _ => format!("it is no program, and {why}: add the package that has it"),
    };
    report.at(&path, what);
}

/// Checks that a program is for this architecture, and that its loader, libraries or interpreter are there.
fn loads(program: &Found, content: &Content, report: &mut Report) {
    if let Some(words) = content.script(program.inode) {
        return interpreted(program, words, content, report);
    }
    let Some(elf) = content.elf(program.inode) else {
        if content.size(program.inode) == 0 {
            report.at(&program.path, "it is empty, and no program");
        }
        return;
    };
    if elf.arch != Some(content.arch) {
        // Told by [`foreign`], with everything else that is.
        return;
    }
    if let Some(interpreter) = &elf.interpreter
        && !content.file(interpreter).is_some_and(|it| content.is_executable(it.inode))
    {
        let loader = Bytes(interpreter.clone());
        return report
            .at(&program.path, format!("{loader} loads it, and there is no such program: add libc6"));
    }
    for (library, by) in libraries(program, content).missing {
        let by = if by == program.path { "it".to_owned() } else { format!("its library {by}") };
        let what = format!(
            "{by} needs {library}, which is in none of the loader's directories: add the package that has it"
        );
        report.at(&program.path, what);
    }
}

fn interpreted(program: &Found, words: &[String], content: &Content, report: &mut Report) {
    let interpreter = words.first().map_or("", String::as_str);
    let found = content.file(interpreter).filter(|it| content.is_executable(it.inode));
    if found.is_none() {
        let what = format!(
            "`{interpreter}` is to run it, and there is no such program: add the package that has it"
        );
        report.at(&program.path, what);
    } else if interpreter.ends_with("/env")
        && let Some(name) = words.iter().skip(1).find(|word| !word.starts_with('-') && !word.contains('='))
        && content.program(name).is_none()
    {
        let what =
            format!("`{name}` is to run it, and none is in the search path: add the package that has it");
        report.at(&program.path, what);
    }
}

/// What a program loads.
pub(super) struct Libraries {
    /// By the name that is asked for.
    pub(super) found: BTreeMap<Vec<u8>, Found>,
    /// With who asks for them.
    missing: Vec<(Bytes, Bytes)>,
}

/// Finds the libraries of a program as the dynamic loader does: breadth first, each name once.
pub(super) fn libraries(program: &Found, content: &Content) -> Libraries {
    let defaults = defaults(content);
    let mut libraries = Libraries { found: BTreeMap::new(), missing: Vec::new() };
    let mut seen = BTreeSet::new();
    let mut todo = VecDeque::from([program.clone()]);
    let main = content.elf(program.inode).map(|elf| (&elf.rpath, &program.path));
    while let Some(object) = todo.pop_front() {
        let Some(elf) = content.elf(object.inode) else { continue };
        let mut dirs = Vec::new();
        if elf.runpath.is_empty() {
            dirs.extend(elf.rpath.iter().map(|dir| expand(dir, &object.path, content)));
            let main =
                main.iter().flat_map(|(rpath, path)| rpath.iter().map(|dir| expand(dir, path, content)));
            dirs.extend(main);
        }
        dirs.extend(elf.runpath.iter().map(|dir| expand(dir, &object.path, content)));
        dirs.extend(defaults.iter().cloned());
        for name in &elf.needed {
            if !seen.insert(name.clone()) {
                continue;
            }
            // The loader passes over what is for another machine.
            let fits = |path: Vec<u8>| {
                content
                    .file(path)
                    .filter(|it| content.elf(it.inode).is_some_and(|elf| elf.arch == Some(content.arch)))
            };
            let found = if name.contains(&b'/') {
                fits(name.clone())
            } else {
                dirs.iter().find_map(|dir| fits([dir, &b"/"[..], name].concat()))
            };
            match found {
                Some(found) => {
                    libraries.found.insert(name.clone(), found.clone());
                    todo.push_back(found);
                }
                None => libraries.missing.push((Bytes(name.clone()), object.path.clone())),
            }
        }
    }
    libraries
}

/// The directories that every program's libraries are looked for in.
fn defaults(content: &Content) -> Vec<Vec<u8>> {
    let mut dirs = Vec::new();
    configured("etc/ld.so.conf", content, &mut dirs, 0);
    let triplet = content.arch.triplet();
    for dir in [format!("lib/{triplet}"), format!("usr/lib/{triplet}")] {
        dirs.push(dir.into_bytes());
    }
    dirs.extend(["lib", "usr/lib", "lib64", "usr/lib64"].map(|dir| dir.as_bytes().to_vec()));
    dirs
}

/// Reads ld.so.conf: directories, and other files by patterns.
fn configured(path: &str, content: &Content, dirs: &mut Vec<Vec<u8>>, depth: u8) {
    for line in content.text(path).unwrap_or_default().lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
            let pattern = pattern.trim();
            let (dir, name) = pattern.rsplit_once('/').unwrap_or(("etc", pattern));
            let (front, back) = name.split_once('*').unwrap_or((name, ""));
            for (name, _) in content.names(dir) {
                // Files that include each other would never end.
                if name.starts_with(front) && name.ends_with(back) && depth < 3 {
                    configured(&format!("{dir}/{name}"), content, dirs, depth + 1);
                }
            }
        } else if !line.is_empty() {
            dirs.push(line.as_bytes().to_vec());
        }
    }
}

/// A directory of RPATH or RUNPATH, its variables replaced.
fn expand(dir: &[u8], object: &Bytes, content: &Content) -> Vec<u8> {
    let origin = object.0.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
    let text = String::from_utf8_lossy(dir);
    let origin = String::from_utf8_lossy(origin);
    let library = format!("lib/{}", content.arch.triplet());
    [("ORIGIN", &*origin), ("LIB", &library)]
        .into_iter()
        .fold(text.into_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
        })
        .into_bytes()
}

/// Programs and libraries of another machine.
fn foreign(content: &Content, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for (path, inode) in content.root.walk() {
        let path = Bytes(path).to_string();
        let is_program = content.root.inodes[inode].mode & 0o111 != 0 || path.contains(".so");
        let is_for_others =
            FOREIGN.iter().any(|dir| path.strip_prefix("usr/").unwrap_or(&path).starts_with(dir));
        if let Some(elf) = content.elf(inode)
            && is_program
            && !is_for_others
            && elf.arch != Some(content.arch)
            && !elf.is_bpf
            && seen.insert(inode)
        {
            report.at(&path, format!("it is {}, in an image for {}", elf.what, content.arch));
        }
    }
}
