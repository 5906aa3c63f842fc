//! An image with one of everything that a root file system can have, in two layers.

use tar::EntryType;

use super::{Place, forge, host, noise};

pub(crate) const TIME: u64 = 1_600_000_000;
/// A file capability; its revision is followed by what would end a line.
pub(crate) const CAPABILITY: &[u8] = b"\x01\0\0\x02\n\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// An access control list as programs see it: owner, user 1000, group, mask, others.
pub(crate) const ACL: &[u8] =
    b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x05\0\xe8\x03\0\0\x04\0\x05\0\xff\xff\xff\xff\
                     \x10\0\x05\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// A member of a layer.
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) device: (u32, u32),
    pub(crate) link: String,
    pub(crate) xattrs: Vec<(&'static str, Vec<u8>)>,
    pub(crate) data: Vec<u8>,
}

impl Member {
    pub(crate) fn new(path: impl AsRef<[u8]>, kind: EntryType, mode: u32) -> Self {
        let (path, link) = (path.as_ref().to_vec(), String::new());
        let (owner, device, xattrs, data) = ((0, 0), (0, 0), Vec::new(), Vec::new());
        Self { path, kind, mode, owner, mtime: TIME, device, link, xattrs, data }
    }

    pub(crate) fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(path, EntryType::Regular, 0o644) }
    }

    pub(crate) fn directory(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, EntryType::Directory, 0o755)
    }

    pub(crate) fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(path, EntryType::Symlink, 0o777) }
    }

    pub(crate) fn hard_link(path: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(path, EntryType::Link, 0o644) }
    }
}

/// A layer of these members.
pub(crate) fn layer(members: &[Member]) -> Vec<u8> {
    forge::gzip(&archive(members))
}

pub(crate) fn archive(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_ustar();
        let mut records: Vec<(String, &[u8])> = Vec::new();
        let short = member.path.len().min(100);
        header.as_old_mut().name[..short].copy_from_slice(&member.path[..short]);
        if member.path.len() > 100 {
            records.push(("path".into(), &member.path));
        }
        if header.set_link_name_literal(&member.link).is_err() {
            records.push(("linkpath".into(), member.link.as_bytes()));
        }
        let xattr = |(name, value): &'_ (&str, Vec<u8>)| (format!("SCHILY.xattr.{name}"), value.clone());
        let xattrs: Vec<_> = member.xattrs.iter().map(xattr).collect();
        records.extend(xattrs.iter().map(|(name, value)| (name.clone(), value.as_slice())));
        if !records.is_empty() {
            builder
                .append_pax_extensions(records.iter().map(|(name, value)| (&**name, *value)))
                .expect("tar in memory");
        }
        header.set_entry_type(member.kind);
        header.set_mode(member.mode);
        header.set_uid(member.owner.0);
        header.set_gid(member.owner.1);
        header.set_mtime(member.mtime);
        header.set_device_major(member.device.0).expect("tar in memory");
        header.set_device_minor(member.device.1).expect("tar in memory");
        header.set_size(member.data.len() as u64);
        header.set_cksum();
        builder.append(&header, member.data.as_slice()).expect("tar in memory");
    }
    builder.into_inner().expect("tar in memory")
}

/// The host's architecture as images have it.
pub(crate) fn architecture() -> &'static str {
    if host() == "arm64" { "arm64" } else { "amd64" }
}

/// Writes a layout `out` of one image, `node:1`, with these layers.
pub(crate) fn write(place: &Place, layers: &[Vec<Member>]) {
    let layers = layers.iter().map(|members| layer(members)).collect();
    forge::write_packed(&place.path("out"), &[("node:1", architecture(), layers)]);
}

/// A long name, in a long path.
pub(crate) fn long() -> String {
    format!("usr/share/{}/{}", "d".repeat(120), "n".repeat(250))
}

/// Half noise, a hole, noise again: 9 MB and a bit.
pub(crate) fn large() -> Vec<u8> {
    [noise(1, 4_000_000), vec![0; 1_000_000], noise(2, 4_000_123)].concat()
}

/// A root file system with one of everything, in two layers.
pub(crate) fn node() -> Place {
    let place = Place::new();
    let dirs = ["dev", "etc", "etc/old", "home", "run", "usr", "usr/bin", "usr/lib", "usr/share", "var"];
    let mut lower = vec![Member { mode: 0o700, ..Member::directory("./") }];
    lower.extend(dirs.map(Member::directory));
    lower.extend([
        Member::symlink("lib", "usr/lib"),
        Member::file("etc/passwd", "old"),
        Member::file("etc/gone", "gone"),
        Member::file("etc/old/a", "a"),
        Member { mode: 0o4755, owner: (0, 42), mtime: 1_500_000_000, ..Member::file("usr/bin/su", "su\n") },
        Member::hard_link("usr/bin/other-su", "usr/bin/su"),
        Member {
            xattrs: vec![("security.capability", CAPABILITY.into())],
            ..Member::file("usr/bin/ping", "ping")
        },
        Member { xattrs: vec![("user.long", noise(3, 300))], ..Member::file("usr/bin/noted", "") },
        Member { xattrs: vec![("system.posix_acl_access", ACL.into())], ..Member::directory("var/journal") },
        Member { device: (1, 3), ..Member::new("dev/null", EntryType::Char, 0o666) },
        Member { device: (259, 70_000), ..Member::new("dev/disk", EntryType::Block, 0o660) },
        Member::new("run/pipe", EntryType::Fifo, 0o600),
        Member { owner: (100_000, 70_000), mode: 0o1777, ..Member::directory("home/alice") },
        Member { mtime: 5_000_000_000, ..Member::file(long(), "long") },
        Member::file(b"usr/share/caf\xe9", "latin"),
        Member::file("usr/share/two\nlines", "lines"),
        Member::symlink("usr/share/far", &"../".repeat(40)),
        Member::file("usr/share/large", large()),
    ]);
    lower.extend((0..700).map(|n| Member::file(format!("usr/share/file-number-{n}"), format!("{n}"))));
    let upper = vec![
        Member::file("etc/.wh.gone", ""),
        Member::file("etc/old/b", "b"),
        Member::file("etc/old/.wh..wh..opq", ""),
        Member::file("etc/passwd", "new"),
        Member::file("lib/new.so", "through a link"),
        Member::hard_link("usr/bin/third-su", "usr/bin/su"),
    ];
    write(&place, &[lower, upper]);
    place
}
