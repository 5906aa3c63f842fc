//! `imgbuild tree`: root trees out of a signed archive, held to the packages that the lock pins.

use std::path::{Path, PathBuf};

use crate::support::archive::Archive;
use crate::support::{Outcome, Place, host, tool};
use fs_err as fs;

const LOCK: &str = "recipes/imgbuild.lock";

/// A place with an archive whose packages are pinned.
fn pinned() -> (Place, Archive) {
    let place = Place::new();
    let archive = Archive::new(&place);
    place
        .imgbuild("lock toy-1")
        .run()
        .succeeds()
        .prints(format!("toy-1 on {}: 2 packages, none is pinned", host()))
        .prints(format!("in `{LOCK}` now: the 2 packages of toy-1 on {}", host()));
    (place, archive)
}

/// The digest of a tree's files and where they lie, as the command printed them.
fn tree(outcome: &Outcome) -> (String, PathBuf) {
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    (words[2].to_owned(), words[5].into())
}

#[test]
fn a_tree_is_made_once_of_what_is_pinned() {
    let (place, _archive) = pinned();
    let lock = fs::read_to_string(place.path(LOCK)).unwrap();
    assert!(lock.contains("\"toy-tool 2:1.0-1 "), "{lock}");
    let made = place.imgbuild("tree").run().succeeds().says("2 packages, all as pinned");
    let (digest, root) = tree(&made);
    for (path, is_there) in
        [("usr/lib/toy/library", true), ("usr/share/doc", false), ("etc/apt", false), ("var", false)]
    {
        assert_eq!(root.join(path).exists(), is_there, "{path}");
    }
    assert_eq!(fs::read_link(root.join("bin/toy")).unwrap(), Path::new("../usr/bin/toy-tool"));
    let again = place.imgbuild("tree").run().succeeds().does_not_say("tree");
    assert_eq!(tree(&again), (digest, root));
}

#[test]
fn the_trees_of_machines_of_the_other_architecture_can_be_pinned_here() {
    let (place, _archive) = pinned();
    let other = if host() == "arm64" { "x86_64" } else { "arm64" };
    place
        .imgbuild("lock toy-1 --arch all")
        .run()
        .succeeds()
        .prints(format!("toy-1 on {}: 2 packages, all as pinned", host()))
        .prints(format!("in `{LOCK}` now: the 2 packages of toy-1 on {other}"));
    place.imgbuild("lock toy-1 --arch riscv64").run().fails(2).says("riscv64");
}

#[test]
fn another_user_and_umask_make_the_same_tree() {
    let (place, _archive) = pinned();
    let mine = tree(&place.imgbuild("tree").run().succeeds()).0;
    // Root becomes nobody; nobody cannot become root.
    let other = place.path("other");
    fs::create_dir(&other).unwrap();
    let run = place
        .imgbuild("tree")
        .option("--store", other.join("store"))
        .env("TZ", "Asia/Kolkata")
        .after("umask 077");
    let run = if tool("id", &["-u".as_ref()]).trim() == "0" {
        let nobody = "65534:65534";
        tool("chown", &[nobody.as_ref(), other.as_os_str()]);
        tool("chmod", &["-R".as_ref(), "a+rX".as_ref(), place.work().parent().unwrap().as_os_str()]);
        run.under(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
    } else {
        run
    };
    assert_eq!(tree(&run.run().succeeds()).0, mine);
}

#[test]
fn what_moved_is_listed_and_accepted_by_pinning_anew() {
    let (place, mut archive) = pinned();
    archive.package("toy-library", "1.1", "", &[("usr/lib/toy/library", "two\n")]);
    archive.package(
        "toy-tool",
        "2:1.0-1",
        "toy-library, toy-extra",
        &[("usr/bin/toy-tool", "#!/bin/sh\necho other\n")],
    );
    archive.package("toy-extra", "3", "", &[("usr/lib/toy/extra", "x\n")]);
    archive.publish("ours");
    place
        .imgbuild("tree")
        .run()
        .fails(5)
        .says("the packages of toy-1 are not those that `recipes/imgbuild.lock` pins: 3 moved")
        .says("toy-extra 3: not pinned, but needed now")
        .says("toy-library: 1.0 is pinned, 1.1 is there")
        .says("toy-tool 2:1.0-1: the same version with other bytes")
        .says("`imgbuild lock toy-1` accepts what is there now");
    assert_eq!(place.half_made(), [""; 0]);
    let check = place.imgbuild("lock toy-1 --check").run().exits(3);
    check.prints("3 packages, 3 moved").prints("toy-library: 1.0 is pinned, 1.1 is there").says("is behind");
    place.imgbuild("lock toy-1").run().succeeds();
    place.imgbuild("lock toy-1 --check").run().succeeds().prints("3 packages, all as pinned");
    place.imgbuild("tree").run().succeeds().says("3 packages, all as pinned");
}

#[test]
fn an_archive_signed_by_nobody_or_somebody_else_is_refused() {
    let (place, archive) = pinned();
    archive.key("theirs");
    archive.publish("theirs");
    place.imgbuild("tree").run().fails(5).says("is not signed as it must be").says("ours.gpg");
    // Whoever names these keys for the place takes its packages.
    let theirs = format!("toys={}", archive.keyring("theirs").display());
    place.imgbuild("tree").option("--keyring", &theirs).run().succeeds().says("all as pinned");
    fs::remove_dir_all(place.store()).unwrap();
    fs::remove_file(archive.path("dists/toybox/InRelease")).unwrap();
    place.imgbuild("tree").run().fails(5).says("is not signed");
}

#[test]
fn what_is_gone_upstream_is_named_with_where_to_look() {
    let (place, mut archive) = pinned();
    fs::remove_file(archive.path("pool/toy-library_1.0.deb")).unwrap();
    let gone = place.imgbuild("tree").run().fails(4).says("gone upstream").says("toy-library_1.0.deb");
    let _ = gone.says("--mirror toys=URL");
    archive.remove("toy-tool");
    archive.publish("ours");
    place.imgbuild("tree").run().fails(4).says("gone upstream").says("has no package `toy-tool`");
    place.imgbuild("tree --mirror toys=/nowhere").run().fails(4).says("cannot be had");
}

#[test]
fn a_mirror_has_the_same_packages() {
    let (place, archive) = pinned();
    fs::rename(archive.path(""), place.path("elsewhere")).unwrap();
    fs::create_dir_all(archive.path("")).unwrap();
    fs::copy(place.path("elsewhere/ours.gpg"), archive.keyring("ours")).unwrap();
    let mirror = format!("toys={}", place.path("elsewhere").display());
    place.imgbuild("tree").option("--mirror", mirror).run().succeeds().says("all as pinned");
}

#[test]
fn without_pins_the_date_decides_and_it_is_said() {
    let place = Place::new();
    let _archive = Archive::new(&place);
    place
        .imgbuild("tree")
        .run()
        .succeeds()
        .says("pins no packages for toy-1")
        .says("20260901T000000Z")
        .says("`imgbuild lock toy-1` pins them");
}

#[test]
fn a_missing_keyring_is_named_with_its_package() {
    let (place, _archive) = pinned();
    let path = "recipes/toolchains/toy-1.toml";
    let text = fs::read_to_string(place.path(path)).unwrap();
    let ours = text.lines().find(|line| line.starts_with("keyring")).unwrap();
    place.write(path, text.replace(ours, "keyring = \"toys-archive-keyring\""));
    place
        .imgbuild("tree")
        .run()
        .fails(4)
        .says("`/usr/share/keyrings/toys-archive-keyring.gpg`")
        .says("apt-get install --no-install-recommends toys-archive-keyring");
}

#[test]
fn a_damaged_tree_is_said_and_made_again_and_a_moved_one_is_not_damaged() {
    let (mut place, _archive) = pinned();
    let (digest, root) = tree(&place.imgbuild("tree").run().succeeds());
    fs::write(root.join("usr/lib/toy/library"), "bad\n").unwrap();
    let again = place.imgbuild("tree").run().succeeds().says("is damaged").says("all as pinned");
    assert_eq!(tree(&again).0, digest);

    let moved = place.path("moved");
    tool("cp", &["-r".as_ref(), place.store().as_os_str(), moved.as_os_str()]);
    place.set("IMGBUILD_STORE", moved);
    let there = place.imgbuild("tree").run().succeeds().does_not_say("damaged").does_not_say("packages");
    assert_eq!(tree(&there).0, digest);
}
