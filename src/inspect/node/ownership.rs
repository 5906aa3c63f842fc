//! Owners and special bits: those of well-known programs, those dpkg was told of, and nobody's.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::content::Content;
use super::dpkg::Database;
use crate::inspect::files::Bytes;
use crate::oci::root::Kind;

/// Programs that do their work as root for everybody, wherever a package brings them.
const SETUID: [&str; 12] = [
    "usr/bin/chfn",
    "usr/bin/chsh",
    "usr/bin/gpasswd",
    "usr/bin/mount",
    "usr/bin/newgrp",
    "usr/bin/passwd",
    "usr/bin/pkexec",
    "usr/bin/su",
    "usr/bin/sudo",
    "usr/bin/umount",
    "usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "usr/lib/openssh/ssh-keysign",
];
/// Programs that may read what a group may.
const SETGID: [(&str, &str); 3] =
    [("usr/bin/chage", "shadow"), ("usr/bin/expiry", "shadow"), ("usr/sbin/unix_chkpwd", "shadow")];
/// What has an owner, a group and a mode in every Debian and Ubuntu, where it is there.
const KNOWN: [(&str, &str, u32); 8] = [
    ("etc/shadow", "shadow", 0o640),
    ("etc/gshadow", "shadow", 0o640),
    ("etc/passwd", "root", 0o644),
    ("etc/group", "root", 0o644),
    ("root", "root", 0o700),
    ("tmp", "root", 0o1777),
    ("var/tmp", "root", 0o1777),
    ("var/mail", "mail", 0o2775),
];
/// Where root alone puts programs.
const PROGRAMS: [&str; 8] =
    ["usr/bin", "usr/sbin", "usr/lib/systemd", "usr/local/bin", "usr/local/sbin", "bin", "sbin", "opt/cni"];

/// Checks owners and bits.
pub(super) fn check(content: &Content, database: &Database, report: &mut Report) {
    let [users, groups] = ["etc/passwd", "etc/group"].map(|path| accounts(content, path));
    let overrides = overrides(content);
    let is_overridden = |path: &str| overrides.iter().any(|entry| entry.path == path);
    for path in SETUID.into_iter().filter(|path| database.owns(path) && !is_overridden(path)) {
        let Some(found) = content.file(path) else { continue };
        let inode = &content.root.inodes[found.inode];
        if inode.uid != 0 || inode.mode & 0o4000 == 0 {
            let what = format!(
                "its mode is {:04o} and its owner {}: it must be root's and setuid (4755), as its package ships it",
                inode.mode, inode.uid
            );
            report.at(&path, what);
        }
    }
    let group = |name: &str| if name == "root" { Some(0) } else { groups.get(name).copied() };
    for (path, name) in SETGID.into_iter().filter(|(path, _)| database.owns(path) && !is_overridden(path)) {
        let (Some(found), Some(gid)) = (content.file(path), group(name)) else { continue };
        let inode = &content.root.inodes[found.inode];
        if inode.gid != gid || inode.mode & 0o2000 == 0 {
            let what = format!(
                "its mode is {:04o} and its group {}: it must be setgid (2755) with the group {name}, as its package ships it",
                inode.mode, inode.gid
            );
            report.at(&path, what);
        }
    }
    for (path, name, mode) in KNOWN.into_iter().filter(|(path, ..)| !is_overridden(path)) {
        let (Some(found), Some(gid)) = (content.find(path), group(name)) else { continue };
        let inode = &content.root.inodes[found.inode];
        if (inode.uid, inode.gid, inode.mode & 0o7777) != (0, gid, mode) {
            let what = format!(
                "it is {}:{} with mode {:04o}: it must be root:{name} with {mode:04o}",
                inode.uid, inode.gid, inode.mode
            );
            report.at(&path, what);
        }
    }
    for entry in &overrides {
        overridden(entry, [&users, &groups], content, report);
    }
    let known =
        |accounts: &BTreeMap<String, u64>| accounts.values().copied().chain([0]).collect::<BTreeSet<_>>();
    let (uids, gids) = (known(&users), known(&groups));
    let (mut strangers, mut others) = (Vec::new(), Vec::new());
    for (path, number) in content.root.walk() {
        let inode = &content.root.inodes[number];
        let path = Bytes(path).to_string();
        let below = |dir: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        if !uids.contains(&inode.uid) || !gids.contains(&inode.gid) {
            strangers.push(path);
        } else if inode.uid != 0
            && !matches!(inode.kind, Kind::Symlink(_))
            && PROGRAMS.iter().any(|dir| below(dir))
            && !is_overridden(&path)
        {
            others.push(path);
        }
    }
    let nobody = "its owner or group is in neither /etc/passwd nor /etc/group: it is the builder's, or was forgotten; give it to root";
    report.at_all(&strangers, nobody);
    report
        .at_all(&others, "it is a program that its owner can change, and that is not root: give it to root");
}

/// What dpkg was told of a file's owner and mode.
struct Override {
    user: String,
    group: String,
    mode: u32,
    path: String,
}

fn overrides(content: &Content) -> Vec<Override> {
    let text = content.text("var/lib/dpkg/statoverride").unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let (user, group, mode, path) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (mode, path) = (u32::from_str_radix(&mode, 8).ok()?, path.trim_start_matches('/').to_owned());
        Some(Override { user, group, mode, path })
    };
    text.lines().filter_map(entry).collect()
}

fn overridden(
    entry: &Override,
    [users, groups]: [&BTreeMap<String, u64>; 2],
    content: &Content,
    report: &mut Report,
) {
    let Override { user, group, mode, path } = entry;
    let Some(found) = content.find(path) else { return };
    let inode = &content.root.inodes[found.inode];
    // Either a name, or a number behind a `#`.
    let number = |accounts: &BTreeMap<String, u64>, name: &str| match name.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => accounts.get(name).copied(),
    };
    let fits = (Some(inode.uid), Some(inode.gid)) == (number(users, user), number(groups, group));
    if !fits || inode.mode & 0o7777 != *mode {
        let what = format!(
            "it is {}:{} with mode {:04o}: var/lib/dpkg/statoverride says {user}:{group} with {mode:04o}",
            inode.uid, inode.gid, inode.mode
        );
        report.at(path, what);
    }
}

/// The numbers of users or groups by name.
fn accounts(content: &Content, path: &str) -> BTreeMap<String, u64> {
    let text = content.text(path).unwrap_or_default();
    let account = |line: &str| {
        let mut fields = line.split(':');
        Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(account).collect()
}
