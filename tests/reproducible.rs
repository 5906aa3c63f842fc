//! The same request from another directory, by another user, in another zone, with another number of jobs and a
//! cold store: the same digests.

#[expect(clippy::allow_attributes, reason = "which helpers are used differs from file to file")]
#[allow(dead_code)]
mod support;

use support::layout::Layout;
use support::{Place, real};

#[test]
fn a_cold_build_elsewhere_gives_the_same_digests() {
    let (_warm, shared) = real::tiny();
    let download = real::download();
    let _alone = real::alone();
    let place = Place::new();
    // What the hash pins may come from any mirror, such as the shared store's own file.
    fs_err::create_dir(place.path("mirror")).unwrap();
    std::os::unix::fs::symlink(download, place.path("mirror/linux_5.10.262.orig.tar.xz")).unwrap();
    let store = place.path("a/longer/way/to/another/store");
    let outcome = place
        .imgbuild(
            "kernel 5.10.262 --flavour tiny --arch x86_64,arm64 --jobs 3 --mirror debian-security=mirror",
        )
        .option("--store", &store)
        .env("TZ", "Pacific/Kiritimati")
        .env("LANG", "de_DE.UTF-8")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("USER", "somebody-else")
        .env("LOGNAME", "somebody-else")
        .env("HOSTNAME", "another-machine")
        .env("KBUILD_BUILD_HOST", "another-machine")
        .env("SOURCE_DATE_EPOCH", "1")
        .env("CFLAGS", "-O3")
        .after("umask 077")
        .run()
        .succeeds();
    assert_eq!(outcome.stderr.matches("compile  Linux 5.10.262").count() % 2, 0);
    assert!(
        outcome.stderr.contains("compile  Linux 5.10.262 arm64"),
        "it was compiled here:\n{}",
        outcome.stderr
    );
    let cold = Layout::at(place.path("out"));
    assert_eq!(cold.images(), shared.images());
    assert_eq!(cold.blobs(), shared.blobs());
}
