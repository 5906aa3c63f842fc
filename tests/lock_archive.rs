//! `imgbuild lock` and kernel sources out of a signed apt archive.

use crate::support::archive::Archive;
use crate::support::source::{RECIPE, pin};
use crate::support::{Place, sha256};
use fs_err as fs;

const LOCK: &str = "recipes/imgbuild.lock";

/// A place whose lock looks for the package `linux` in an archive that has 5.10.7 and 5.10.9; nothing is pinned.
fn offered() -> (Place, Archive) {
    let place = Place::new();
    let mut archive = Archive::new(&place);
    archive.source("linux", "5.10.7", b"seven");
    archive.source("linux", "5.10.9", b"nine");
    archive.source("linux-tools", "5.10.11", b"eleven");
    archive.publish("ours");
    let (dir, keyring) = (place.path("archive"), archive.keyring("ours"));
    place.write(
        LOCK,
        format!(
            "# why\nassembly = 1\n[places]\ntest = \"{}\"\n[[sources]]\nplace = \"test\"\nsuite = \"toybox\"\n\
             component = \"main\"\npackage = \"linux\"\nkeyring = \"{}\"\nhomepage = \"https://toys.test/linux\"\n",
            dir.display(),
            keyring.display()
        ),
    );
    place.write("recipes/kernel/toy.toml", RECIPE);
    (place, archive)
}

/// One more entry at the lock's end.
fn pinned(place: &Place, version: &str, content: &[u8]) {
    let entry = pin(version, &format!("linux_{version}.orig.tar.xz"), &sha256(content));
    let text = fs::read_to_string(place.path(LOCK)).expect("the lock");
    place.write(LOCK, text + &entry);
}

#[test]
fn the_newest_source_is_found_and_pinned() {
    let (place, _archive) = offered();
    let before = fs::read_to_string(place.path(LOCK)).unwrap();
    let check = place.imgbuild("lock test --check").run().exits(3);
    check.prints("test: 5.10.9 is new, nothing is pinned").says("is behind: test has 5.10.9");
    assert_eq!(fs::read_to_string(place.path(LOCK)).unwrap(), before);

    place
        .imgbuild("lock test")
        .run()
        .succeeds()
        .prints("5.10.9 of test: list signed by ours <nobody@localhost>");
    let after = fs::read_to_string(place.path(LOCK)).unwrap();
    assert!(after.starts_with(&before) && after.contains(&sha256(b"nine")), "{after}");
    assert!(after.contains("homepage = \"https://toys.test/linux\""), "{after}");
    let check = place.imgbuild("lock test --check").run().succeeds();
    check.prints("test: 5.10.9 is the newest").prints("1 pin is what test signs");
    place.imgbuild("lock test").run().succeeds();
    assert_eq!(fs::read_to_string(place.path(LOCK)).unwrap(), after);
    place.imgbuild("fetch 5.10.9").run().succeeds();
}

#[test]
fn a_newer_one_comes_beside_the_older_and_one_that_is_gone_is_told() {
    let (place, _archive) = offered();
    pinned(&place, "5.10.5", b"five");
    pinned(&place, "5.10.7", b"seven");
    let outcome = place.imgbuild("lock test").run().succeeds();
    outcome
        .prints("test: 5.10.9 is new, pinned is 5.10.7")
        .prints("test: 5.10.5 is pinned, but no longer there")
        .prints("1 pin is what test signs");
    let text = fs::read_to_string(place.path(LOCK)).unwrap();
    assert_eq!(text.matches("[[kernel]]").count(), 3, "{text}");
}

#[test]
fn a_pin_that_is_not_what_is_signed_is_told() {
    let (place, _archive) = offered();
    pinned(&place, "5.10.9", b"another nine");
    let outcome = place.imgbuild("lock test").run().fails(5);
    outcome
        .says("does not pin what test signs: `5.10.9`")
        .says(sha256(b"nine"))
        .says(sha256(b"another nine"));
}

#[test]
fn a_list_that_is_not_signed_as_it_must_be_is_refused() {
    let (place, archive) = offered();
    let list = archive.path("dists/toybox/main/source/Sources.xz");
    let mut bytes = fs::read(&list).unwrap();
    bytes.push(0);
    fs::write(&list, bytes).unwrap();
    place.imgbuild("lock test").run().fails(5).says("Sources.xz` is not what its archive signed");
    archive.key("theirs");
    archive.publish("theirs");
    place.imgbuild("lock test").run().fails(5).says("a key nobody listed");
    fs::write(archive.path("dists/toybox/InRelease"), "SHA256:\n").unwrap();
    place.imgbuild("lock test").run().fails(5).says("InRelease` is refused");
}

#[test]
fn what_is_not_there_is_named() {
    let (place, archive) = offered();
    let text = fs::read_to_string(place.path(LOCK)).unwrap();
    place.write(LOCK, text.replace("\"linux\"", "\"linus\""));
    place.imgbuild("lock test").run().fails(4).says("has no upstream tarball of the package `linus`");
    place.write(LOCK, text.replace("\"main\"", "\"side\""));
    place.imgbuild("lock test").run().fails(4).says("has no side/source/Sources").says("[[sources]]");
    place.write(LOCK, text.replace("ours.gpg", "nobodys.gpg"));
    place.imgbuild("lock test").run().fails(4).says("the keys of the archive `test`").says("nobodys.gpg");
    place.write(LOCK, text.replace("place = \"test\"", "place = \"tset\""));
    place.imgbuild("lock").run().fails(3).says("unknown place `tset`");
    place.write(LOCK, text);
    fs::remove_dir_all(archive.path("dists")).unwrap();
    place.imgbuild("lock test").run().fails(4).says("InRelease");
    let unknown = place.imgbuild("lock tset").run().fails(2);
    unknown.says("`tset` is nothing that can be pinned").says("`kernel.org`, `test`, `toy-1`");
}
