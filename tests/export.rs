//! `imgbuild export`: an image as one file, read back by the tools of each format.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::node::{
    ACL, CAPABILITY, Member, TIME, architecture, archive, large, layer, long, node, write,
};
use crate::support::registry::{Door, Registry};
use crate::support::{Imgbuild, Outcome, Place, forge, host, names, noise, sha256, tool};
use fs_err as fs;
use rustix::process::Signal;
use tar::EntryType;

/// A user that is none of this machine's.
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn export(place: &Place, words: &str) -> Imgbuild {
    place.imgbuild(&format!("export out {words}"))
}

/// What the file system's own checker says is sound.
#[track_caller]
fn is_sound(image: &Path) {
    tool("e2fsck", &["-fn".as_ref(), image.as_os_str()]);
}

/// What debugfs answers, which need not be UTF-8 where names are not.
fn debugfs(image: &Path, command: impl AsRef<[u8]>) -> String {
    let command = OsStr::from_bytes(command.as_ref());
    let output = Command::new("debugfs").arg("-R").arg(command).arg(image).output();
    let output = output.expect("the tests need debugfs, of e2fsprogs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The bytes that debugfs writes to a file.
fn debugged(place: &Place, image: &Path, command: &str) -> Vec<u8> {
    let into = place.path("debugged");
    let _ = debugfs(image, command.replace("FILE", into.to_str().unwrap()));
    let bytes = fs::read(&into).unwrap_or_else(|_| panic!("`{command}` writes nothing"));
    fs::remove_file(into).unwrap();
    bytes
}

/// An archive as GNU tar lists it.
fn listed(archive: &Path) -> String {
    let words = "--list --verbose --numeric-owner --utc --full-time --quoting-style=escape --file";
    let words = words.split(' ').map(OsStr::new).chain([archive.as_os_str()]);
    tool("tar", &words.collect::<Vec<_>>())
}

/// The digest that was told, which the file has.
#[track_caller]
fn digest(outcome: &Outcome, file: &Path) -> String {
    let digest = outcome.stdout.lines().find_map(|line| line.trim().strip_prefix("digest  sha256:"));
    assert_eq!(digest.unwrap(), sha256(&fs::read(file).unwrap()), "{}", outcome.stdout);
    digest.unwrap().to_owned()
}

#[test]
fn an_ext4_has_what_the_layers_come_to() {
    let place = node();
    let image = place.path("root.ext4");
    let outcome = export(&place, "root.ext4").run().succeeds();
    outcome.prints("root.ext4\n  ext4    ").prints("node:1 sha256:");
    is_sound(&image);
    let meta = fs::metadata(&image).unwrap();
    assert!(meta.len() > 256 << 20 && meta.blocks() * 512 < 32 << 20, "{meta:?}");

    let stat = |path: &str, parts: &[&str]| {
        let told = debugfs(&image, format!("stat \"{path}\""));
        // Columns are as wide as the widest number may be.
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        parts.iter().for_each(|part| assert!(told.contains(part), "{path} lacks `{part}`:\n{told}"));
    };
    let old = format!("mtime: 0x{:08x}:", 1_500_000_000);
    stat("/usr/bin/su", &["Type: regular", "Mode: 04755", "User: 0 Group: 42", "Links: 3", &old]);
    stat("/usr/bin/third-su", &["Links: 3", "Mode: 04755"]);
    stat("/home/alice", &["Type: directory", "Mode: 01777", "User: 100000 Group: 70000", "Links: 2"]);
    stat("/", &["Mode: 0700", &format!("mtime: 0x{TIME:08x}:")]);
    stat("/dev/null", &["Type: character special", "Mode: 0666", "Device major/minor number: 01:03"]);
    stat("/dev/disk", &["Type: block special", "Mode: 0660", "Device major/minor number: 259:70000"]);
    stat("/run/pipe", &["Type: FIFO", "Mode: 0600"]);
    stat("/lib", &["Type: symlink", "Fast link dest: \"usr/lib\""]);
    stat("/usr/share/far", &["Type: symlink", "Size: 120"]);
    stat(&format!("/{}", long()), &["Size: 4", "2128"]);
    stat("/lost+found", &["Type: directory", "Mode: 0700", "Size: 16384"]);
    assert!(debugfs(&image, b"stat /usr/share/caf\xe9").contains("Size: 5"));

    let dump = |path: &str| debugged(&place, &image, &format!("dump {path} FILE"));
    assert_eq!(dump("/etc/passwd"), b"new");
    assert_eq!(dump("/usr/lib/new.so"), b"through a link");
    assert_eq!(dump("/usr/share/file-number-699"), b"699");
    assert!(dump("/usr/share/large") == large());
    let entries = debugfs(&image, "ls -p /etc/old") + &debugfs(&image, "ls -p /etc");
    assert!(entries.contains("/b/") && !entries.contains("/a/") && !entries.contains("gone"), "{entries}");
    assert_eq!(debugfs(&image, "ls -p /usr/share").matches("/file-number-").count(), 700);

    let attribute = |path, name| debugged(&place, &image, &format!("ea_get -f FILE {path} {name}"));
    assert_eq!(attribute("/usr/bin/ping", "security.capability"), CAPABILITY);
    assert_eq!(attribute("/usr/bin/noted", "user.long"), noise(3, 300));
    // Where an entry has no number, Linux tells -1 and debugfs 0.
    let acl: Vec<u8> = ACL.iter().map(|byte| if *byte == 0xff { 0 } else { *byte }).collect();
    assert_eq!(attribute("/var/journal", "system.posix_acl_access"), acl);
}

#[test]
fn a_tar_has_what_the_layers_come_to_sorted() {
    let place = node();
    let outcome = export(&place, "root.tar --format tar").run().succeeds();
    digest(&outcome, &place.path("root.tar"));
    let listing = listed(&place.path("root.tar"));
    let few: Vec<_> = listing.lines().filter(|line| !line.contains("file-number-")).collect();
    let few = few.join("\n");
    let time = "2020-09-13 12:26:40";
    let expected = format!(
        "drwx------ 0/0               0 {time} ./
drwxr-xr-x 0/0               0 {time} dev/
brw-rw---- 0/0       259,70000 {time} dev/disk
crw-rw-rw- 0/0             1,3 {time} dev/null
drwxr-xr-x 0/0               0 {time} etc/
drwxr-xr-x 0/0               0 {time} etc/old/
-rw-r--r-- 0/0               1 {time} etc/old/b
-rw-r--r-- 0/0               3 {time} etc/passwd
drwxr-xr-x 0/0               0 {time} home/
drwxrwxrwt 100000/70000      0 {time} home/alice/
lrwxrwxrwx 0/0               0 {time} lib -> usr/lib
drwxr-xr-x 0/0               0 {time} run/
prw------- 0/0               0 {time} run/pipe
drwxr-xr-x 0/0               0 {time} usr/
drwxr-xr-x 0/0               0 {time} usr/bin/
-rw-r--r-- 0/0               0 {time} usr/bin/noted
-rwsr-xr-x 0/42              3 2017-07-14 02:40:00 usr/bin/other-su
-rw-r--r-- 0/0               4 {time} usr/bin/ping
hrwsr-xr-x 0/42              0 2017-07-14 02:40:00 usr/bin/su link to usr/bin/other-su
hrwsr-xr-x 0/42              0 2017-07-14 02:40:00 usr/bin/third-su link to usr/bin/other-su
drwxr-xr-x 0/0               0 {time} usr/lib/
-rw-r--r-- 0/0              14 {time} usr/lib/new.so
drwxr-xr-x 0/0               0 {time} usr/share/
-rw-r--r-- 0/0               5 {time} usr/share/caf\\351
"
    );
    assert!(few.starts_with(&expected), "{few}\nis not\n{expected}");
    assert!(few.contains(&long()) && few.contains(r"usr/share/two\nlines"), "{few}");
    // GNU tar finds the same bytes, and a program's pipe gets the same archive.
    let piped = export(&place, "- --format tar").option("--arch", host());
    let to = place.path("piped.tar");
    let outcome = piped.under(["sh", "-c", "\"$@\" > piped.tar", "sh"]).run().succeeds();
    assert_eq!(outcome.stdout, "");
    assert!(fs::read(&to).unwrap() == fs::read(place.path("root.tar")).unwrap());
    let large_file = place.path("x");
    fs::create_dir(&large_file).unwrap();
    tool(
        "tar",
        &["-C".as_ref(), large_file.as_os_str(), "-xf".as_ref(), to.as_os_str(), "usr/share/large".as_ref()],
    );
    assert!(fs::read(large_file.join("usr/share/large")).unwrap() == large());
}

#[test]
fn an_erofs_has_what_the_layers_come_to() {
    let place = node();
    let image = place.path("root.erofs");
    let outcome = export(&place, "root.erofs --format erofs").run().succeeds();
    digest(&outcome, &image);
    let into = place.path("extracted");
    let extract = format!("--extract={}", into.display());
    tool("fsck.erofs", &[extract.as_ref(), image.as_os_str()]);
    assert_eq!(fs::read(into.join("etc/passwd")).unwrap(), b"new");
    assert_eq!(names(&into.join("etc/old")), ["b"]);
    assert_eq!(names(&into.join("usr/share")).len(), 705);
    assert_eq!(fs::read(into.join(long())).unwrap(), b"long");
    assert_eq!(fs::read(into.join(OsStr::from_bytes(b"usr/share/caf\xe9"))).unwrap(), b"latin");
    assert_eq!(fs::read(into.join("usr/share/file-number-699")).unwrap(), b"699");
    assert_eq!(fs::read_link(into.join("lib")).unwrap(), Path::new("usr/lib"));
    assert!(fs::read(into.join("usr/share/large")).unwrap() == large());
    let bytes = fs::read(&image).unwrap();
    // The mode is read where the inode is: dump.erofs leaves setuid out, and fsck.erofs does not restore it.
    let dump = |path: &str, mode: u16, parts: &[&str]| {
        let path = format!("--path={path}");
        let told = tool("dump.erofs", &[path.as_ref(), image.as_os_str()]);
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        parts.iter().for_each(|part| assert!(told.contains(part), "{path} lacks `{part}`:\n{told}"));
        let nid = told.split("NID: ").nth(1).unwrap().split(' ').next().unwrap();
        let at = nid.parse::<usize>().unwrap() * 32 + 4;
        assert_eq!(u16::from_le_bytes([bytes[at], bytes[at + 1]]), mode, "{path}");
    };
    dump("/usr/bin/third-su", 0o104_755, &["Links: 3", "Uid: 0 Gid: 42", "2017-07-14"]);
    dump("/home/alice", 0o041_777, &["Uid: 100000 Gid: 70000"]);
    dump("/usr/bin/ping", 0o100_644, &["Xattr size: 48"]);
    dump("/dev/disk", 0o060_660, &["Links: 1"]);
    for value in [CAPABILITY.to_vec(), noise(3, 300), ACL.to_vec()] {
        assert!(bytes.windows(value.len()).any(|part| part == value), "an attribute is not there");
    }
}

#[test]
fn nothing_beside_the_image_decides_about_the_bytes() {
    let place = node();
    for (format, file) in [("ext4", "a.ext4"), ("tar", "a.tar"), ("erofs", "a.erofs")] {
        let first = export(&place, file).option("--format", format).run().succeeds();
        let first = digest(&first, &place.path(file));
        let elsewhere = Place::new();
        tool("cp", &["-r".as_ref(), place.path("out").as_os_str(), elsewhere.path("out").as_os_str()]);
        let run = export(&elsewhere, "b").option("--format", format);
        let mut setpriv = Vec::new();
        if tool("id", &["-u".as_ref()]).trim() == "0" {
            let all = elsewhere.work().parent().unwrap().to_owned();
            tool("chown", &["-R".as_ref(), "65534:65534".as_ref(), all.as_os_str()]);
            setpriv.extend(NOBODY);
        }
        let run = run.env("TZ", "Pacific/Kiritimati").after("umask 077").under(setpriv);
        let outcome = run.under(["faketime", "2031-05-06 07:08:09"]).run().succeeds();
        assert_eq!(digest(&outcome, &elsewhere.path("b")), first, "{format}");
        assert_eq!(fs::metadata(elsewhere.path("b")).unwrap().mode() & 0o777, 0o600);
    }
}

/// Fails if a change moves the bytes: CHANGELOG.md then says so.
#[test]
fn the_bytes_are_these() {
    let place = Place::new();
    let members = [
        Member::directory("usr"),
        Member::file("usr/file", "file"),
        Member { device: (1, 3), ..Member::new("null", EntryType::Char, 0o666) },
    ];
    // Packed by hand, so that no compressor's version decides about the UUID.
    let mut layer = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let tar = archive(&members);
    let size = u16::try_from(tar.len()).unwrap();
    layer.push(1);
    layer.extend(size.to_le_bytes());
    layer.extend((!size).to_le_bytes());
    layer.extend(&tar);
    layer.extend(libdeflater::crc32(&tar).to_le_bytes());
    layer.extend(u32::from(size).to_le_bytes());
    forge::write_packed(&place.path("out"), &[("node:1", "amd64", vec![layer])]);
    let digests = ["ext4", "tar", "erofs"].map(|format| {
        let run = export(&place, format).option("--format", format).option("--arch", "amd64");
        digest(&run.run().succeeds(), &place.path(format))
    });
    assert_eq!(
        digests,
        [
            "522e14d6c2c4db264f91a1ed01b17049a7f021c5d9d8fba48f5865b4d6078b62",
            "e91a1a5aa282228320e0f35c191448b39a75a7a1894b2eedfc1ccd68cd2c0f70",
            "d3eb548b6b1fa3f3f9911ceff0985badcf3ff0e71f5dfe9f55c6028ae83dafe4",
        ]
    );
}

#[test]
fn no_other_program_is_needed() {
    let place = node();
    for format in ["ext4", "tar", "erofs"] {
        export(&place, format).option("--format", format).env("PATH", "").run().succeeds();
    }
}

#[test]
fn a_disk_is_as_large_as_asked_for_or_says_what_it_needs() {
    let place = node();
    let before = names(&place.work());
    let outcome = export(&place, "root.ext4 --size 8M").run().fails(2);
    let outcome = outcome.says("8388608 bytes are too few: the content needs ").says("hint: `--size ");
    assert_eq!(names(&place.work()), before);
    let needed = outcome.stderr.split("--size ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    for (file, size) in [("least", needed.as_str()), ("large", "20G"), ("odd", "300000K")] {
        export(&place, file).option("--size", size).run().succeeds();
        is_sound(&place.path(file));
    }
    assert_eq!(fs::metadata(place.path("large")).unwrap().len(), 20 << 30);
    assert_eq!(fs::metadata(place.path("odd")).unwrap().len(), 300_000 << 10);
    let less: u64 = needed.trim_end_matches('M').parse().unwrap();
    export(&place, "less").option("--size", format!("{}M", less - 1)).run().fails(2);
    export(&place, "huge --size 100T").run().fails(2).says("larger than any made here").says("resize2fs");
    export(&place, "x --size 2GB").run().fails(2).says("such as `2G`");
    export(&place, "x --format tar --size 2G")
        .run()
        .fails(2)
        .says("hint: `--size` goes with `--format ext4`");
    export(&place, "x --format squashfs").run().fails(2).says("squashfs");
    export(&place, "-").run().fails(2).says("hint: name a file, or ask for `--format tar`");
}

#[test]
fn what_is_there_is_replaced_only_if_asked() {
    let place = node();
    place.write("thesis", "three years");
    export(&place, "thesis --format tar").run().fails(2).says("`thesis` exists already").says("`--force`");
    assert_eq!(fs::read(place.path("thesis")).unwrap(), b"three years");
    export(&place, "thesis --format tar --force").run().succeeds();
    assert!(listed(&place.path("thesis")).contains("etc/passwd"));
    fs::create_dir(place.path("dir")).unwrap();
    export(&place, "dir --force").run().fails(2).says("`dir` is there already, and no regular file");
    export(&place, "nowhere/x").run().fails(1).says("nowhere");
}

/// The paths of an image of these layers.
fn paths(layers: &[Vec<Member>]) -> Vec<String> {
    let place = Place::new();
    write(&place, layers);
    export(&place, "x --format tar").run().succeeds();
    let listing = tool("tar", &["-tf".as_ref(), place.path("x").as_os_str()]);
    listing.lines().map(str::to_owned).collect()
}

#[test]
fn links_are_followed_as_inside_and_nothing_lands_outside() {
    let link = Member::symlink;
    assert_eq!(
        paths(&[vec![
            link("up", "../../.."),
            Member::file("up/evil", ""),
            link("tmp-link", "/tmp/imgbuild-export-test"),
            Member::file("tmp-link/evil", ""),
            Member::file("/etc//absolute", ""),
            link("here", "."),
            Member::file("here/up/here/deep/x", ""),
        ]]),
        [
            "./",
            "deep/",
            "deep/x",
            "etc/",
            "etc/absolute",
            "evil",
            "here",
            "tmp/",
            "tmp/imgbuild-export-test/",
            "tmp/imgbuild-export-test/evil",
            "tmp-link",
            "up"
        ]
        .map(str::to_owned)
    );
    assert!(!Path::new("/tmp/imgbuild-export-test").exists());
    for (members, path) in [
        (vec![Member::file("../evil", "")], "../evil"),
        (vec![Member::file("a/../../evil", "")], "a/../../evil"),
        (vec![Member::hard_link("shadow", "../etc/shadow")], "shadow"),
        (vec![Member::hard_link("shadow", "etc/shadow")], "shadow"),
        (vec![link("a", "b"), link("b", "a"), Member::file("a/x", "")], "a/x"),
        (vec![Member::file("a", ""), Member::file("a/x", "")], "a/x"),
        (vec![Member::file(".", "")], "."),
        (vec![Member::new("x", EntryType::new(b'Z'), 0o644)], "x"),
        (vec![Member::file("etc/.wh...", "")], "etc/.wh..."),
    ] {
        let place = Place::new();
        write(&place, &[members]);
        for format in ["ext4", "tar", "erofs"] {
            let outcome = export(&place, "x").option("--format", format).run().fails(5);
            outcome.says(format!("a layer holds `{path}`, which is not unpacked: "));
        }
        assert_eq!(names(&place.work()), ["out"]);
    }
}

#[test]
fn upper_layers_hide_and_take_away_what_lower_ones_have() {
    let file = |path: &str| Member::file(path, path);
    let lower = || vec![Member::directory("a"), file("a/b"), file("a/c"), file("ab")];
    let with = |upper: Vec<Member>| paths(&[lower(), upper])[1..].join(" ");
    assert_eq!(with(vec![file("a/.wh.b")]), "a/ a/c ab");
    assert_eq!(with(vec![file(".wh.a")]), "ab");
    assert_eq!(with(vec![file("a/.wh..wh..opq"), file("a/d")]), "a/ a/d ab");
    assert_eq!(with(vec![file("a/d"), file("a/.wh..wh..opq")]), "a/ a/d ab");
    assert_eq!(with(vec![file("a/d"), file(".wh.a")]), "a/ a/d ab");
    assert_eq!(with(vec![file("a")]), "a ab");
    assert_eq!(with(vec![Member::directory("a")]), "a/ a/b a/c ab");
    assert_eq!(with(vec![Member::symlink("a", "ab")]), "a ab");
    assert_eq!(with(vec![file("none/.wh.x"), file(".wh..wh.plnk")]), "a/ a/b a/c ab");
    // Another name stays when the first one goes.
    assert_eq!(with(vec![Member::hard_link("z", "a/b"), file(".wh.a")]), "ab z");
}

#[test]
fn what_a_file_system_cannot_have_is_told_with_the_file() {
    let place = Place::new();
    let strange = |xattr| Member { xattrs: vec![(xattr, vec![1; 5000])], ..Member::file("a", "") };
    for (member, format, why) in [
        (strange("com.apple.quarantine"), "ext4", "it has no place for the attribute `com.apple.quarantine`"),
        (
            strange("com.apple.quarantine"),
            "erofs",
            "it has no place for the attribute `com.apple.quarantine`",
        ),
        (strange("user.a"), "ext4", "its attributes do not fit into one block"),
        (Member { mtime: 1 << 34, ..Member::file("a", "") }, "ext4", "its time is too far away"),
        (Member { owner: (1 << 32, 0), ..Member::file("a", "") }, "erofs", "its owner's number is too large"),
    ] {
        write(&place, &[vec![Member::directory("."), member]]);
        let outcome = export(&place, "x").option("--format", format).run().fails(4);
        outcome.says(format!("`a` cannot be in {format}: {why}")).says("hint: `--format tar`");
        export(&place, "x --force --format tar").run().succeeds();
        fs::remove_file(place.path("x")).unwrap();
    }
}

#[test]
fn one_image_for_one_platform_is_meant() {
    let place = Place::new();
    let one = |content: &str| vec![layer(&[Member::file("who", content)])];
    let images =
        [("a:1", "amd64", one("a amd64")), ("a:1", "arm64", one("a arm64")), ("b:1", "arm64", one("b"))];
    forge::write_packed(&place.path("out"), &images);
    let who = |words: &str| {
        place.imgbuild(&format!("export {words} x --format tar --force")).run().succeeds();
        tool("tar", &["-xOf".as_ref(), place.path("x").as_os_str(), "who".as_ref()])
    };
    assert_eq!(who("out:a:1 --arch arm64"), "a arm64");
    assert_eq!(who("out:a:1"), format!("a {}", architecture()));
    assert_eq!(who("out --arch x86_64"), "a amd64");
    let outcome = export(&place, "y --arch arm64").run().fails(2);
    outcome.says("`out` holds `a:1`, `b:1` for arm64: which one?").says("hint: name it: `out:a:1`");
    let outcome = place.imgbuild("export out:b:1 y --arch amd64").run().fails(4);
    outcome.says("`out:b:1` has no image for x86_64; it has `b:1 (arm64)`");
    place.imgbuild("export out:c:1 y").run().fails(4).says("no image `c:1`; it has `a:1`, `b:1`");
    export(&place, "y --arch mips").run().fails(2).says("unknown architecture `mips`");
    place.imgbuild("export nowhere y").run().fails(4).says("`nowhere` is no OCI layout");

    let registry = Registry::new(Door::Open);
    place.imgbuild("push out --registry").arg(registry.host()).run().succeeds();
    assert_eq!(who(&format!("{}/a:1 --arch arm64", registry.host())), "a arm64");
    assert!(!place.path("y").exists());
}

#[test]
fn a_damaged_layer_leaves_nothing() {
    let place = node();
    let blobs = place.path("out/blobs/sha256");
    let largest = names(&blobs).into_iter().max_by_key(|name| fs::metadata(blobs.join(name)).unwrap().len());
    let path = blobs.join(largest.unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    export(&place, "x").run().fails(5).says("blob sha256:");
    assert_eq!(names(&place.work()), ["out"]);
}

/// A layer with a file of so many zeros, 64 MiB at a time.
fn zeros(parts: usize) -> Vec<u8> {
    const PART: usize = 64 << 20;
    let mut header = tar::Header::new_ustar();
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_entry_type(EntryType::Regular);
    header.set_size((parts * PART) as u64);
    header.set_cksum();
    let mut packed = forge::gzip(header.as_bytes());
    packed.extend(forge::gzip(&vec![0; PART]).repeat(parts));
    packed.extend(forge::gzip(&[0; 1024]));
    packed
}

#[test]
fn a_large_file_lies_in_many_groups_and_takes_no_memory() {
    let place = Place::new();
    forge::write_packed(&place.path("out"), &[("zeros:1", architecture(), vec![zeros(16)])]);
    // In an address space that the file would not fit into by half.
    export(&place, "x").after("ulimit -v 524288").run().succeeds();
    is_sound(&place.path("x"));
    assert!(debugfs(&place.path("x"), "stat /zeros").contains("(ETB0):"), "its extents need a block");
    assert!(fs::metadata(place.path("x")).unwrap().blocks() * 512 < 16 << 20);
}

#[test]
fn interrupted_it_leaves_nothing() {
    let place = Place::new();
    forge::write_packed(&place.path("out"), &[("zeros:1", architecture(), vec![zeros(16)])]);
    let mut run = export(&place, "x --format tar").start();
    run.until("half-way", |said| said.contains("read  "));
    run.signal(Signal::INT);
    run.ends().fails(130).says("error: interrupted");
    assert_eq!(names(&place.work()), ["out"]);
}
