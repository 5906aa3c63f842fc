//! A real kernel from the pinned tree: whoever builds it, wherever, whenever and with whatever beside, the digests
//! are the same.
//!
//! One build compiles everything and one finds it in ccache, both from a cold store; the shared one is what it is.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::{Imgbuild, Outcome, Place, host, real, shared_store, tool};
use fs_err as fs;

/// A user that is none of this machine's, with no range of ids of its own.
const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// The same request each time.
fn request(place: &Place) -> Imgbuild {
    let mirror = format!("debian-security={}", place.path("mirror").display());
    place
        .imgbuild("kernel 5.10.262 --flavour tiny --arch x86_64,arm64 --format json --verbose")
        .option("--mirror", mirror)
}

/// Names and digests of what was built.
fn digests(outcome: &Outcome) -> Vec<(String, String)> {
    let images = outcome.json()["images"].as_array().expect("there are images").clone();
    let text = |value: &serde_json::Value| value.as_str().expect("it is text").to_owned();
    images.iter().map(|image| (text(&image["name"]), text(&image["digest"]))).collect()
}

/// With a mirror that has the source.
fn mirrored(place: Place) -> Place {
    fs::create_dir(place.path("mirror")).expect("a new directory");
    symlink(real::download(), place.path("mirror/linux_5.10.262.orig.tar.xz")).expect("a new link");
    place
}

/// A place whose store has the tree of the shared one, and nothing that was compiled.
fn cold() -> Place {
    let place = mirrored(Place::new());
    let artifacts = place.store().join("artifacts");
    fs::create_dir_all(&artifacts).expect("a new directory");
    fs::copy(shared_store().join("format"), place.store().join("format")).expect("stores have one format");
    copy(&shared_store().join("artifacts/tree"), &artifacts.join("tree"));
    place
}

fn copy(from: &Path, to: &Path) {
    tool("cp", &["-r".as_ref(), "--reflink=auto".as_ref(), from.as_os_str(), to.as_os_str()]);
}

/// A directory with this host's programs except those that compile.
fn without_compilers(place: &Place) -> PathBuf {
    let dir = place.path("bin");
    fs::create_dir(&dir).expect("a new directory");
    let compiles = |name: &str| {
        [
            "gcc", "g++", "cc", "c++", "cpp", "make", "ld", "as", "strip", "objcopy", "bison", "flex", "bc",
            "depmod", "ccache",
        ]
        .iter()
        .any(|tool| {
            name == *tool || name.starts_with(&format!("{tool}-")) || name.ends_with(&format!("-{tool}"))
        })
    };
    for from in ["/usr/bin", "/bin"] {
        for name in crate::support::names(Path::new(from)) {
            if !compiles(&name) && !dir.join(&name).exists() {
                symlink(Path::new(from).join(&name), dir.join(&name)).expect("a new link");
            }
        }
    }
    dir
}

#[test]
fn nothing_beside_the_lock_decides_about_the_digests() {
    let alone = real::alone();
    // Cold from beginning to end: another user, another day, no compiler on the host.
    let mut elsewhere = cold();
    let bin = without_compilers(&elsewhere);
    elsewhere.set("PATH", &bin);
    let is_root = tool("id", &["-u".as_ref()]).trim() == "0";
    let run = request(&elsewhere)
        .env("TZ", "Pacific/Kiritimati")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("CFLAGS", "-O3")
        .env("CCACHE_DISABLE", "1")
        .after("umask 077");
    let run = if is_root {
        let place = elsewhere.work().parent().expect("it has one").to_owned();
        tool("chown", &["-R".as_ref(), "65534:65534".as_ref(), place.as_os_str()]);
        run.under(NOBODY)
    } else {
        run
    };
    let outcome = run.under(["faketime", "2031-05-06 07:08:09"]).run().succeeds();
    was_compiled(&outcome);
    let expected = digests(&outcome);

    // What the compiler's cache gives back is what the compiler gave. Where the shared store has compiled nothing yet,
    // this is its build too.
    let is_first = !shared_store().join("ccache").exists();
    let warm = if is_first { mirrored(Place::with_shared_store()) } else { cold() };
    copy(&elsewhere.store().join("ccache"), &warm.store().join("ccache"));
    let outcome = request(&warm).option("--jobs", "3").run().succeeds();
    was_compiled(&outcome);
    assert_eq!(digests(&outcome), expected);

    drop(alone);
    let (shared, _) = real::tiny();
    assert_eq!(digests(&request(&mirrored(shared)).run().succeeds()), expected);
}

#[track_caller]
fn was_compiled(outcome: &Outcome) {
    for arch in ["x86_64", "arm64"] {
        let compiled = format!("compile  Linux 5.10.262 {arch}");
        assert!(outcome.stderr.contains(&compiled), "it was compiled here:\n{}", outcome.stderr);
    }
}

#[test]
fn with_the_hosts_own_tools_the_image_says_so() {
    use crate::support::layout::Layout;
    use crate::support::source::Source;
    let mut place = Place::new();
    let _ = Source::new().install(&mut place);
    let outcome = place.imgbuild("kernel 5.10.1 --toolchain host").run().succeeds();
    let _ = outcome.says("not hermetic");
    let layout = Layout::at(place.path("out"));
    for name in layout.images().keys() {
        let arch = if host() == "arm64" { "arm64" } else { "amd64" };
        let config = format!("{:#}", layout.image(name, arch).config);
        assert!(config.contains("\"io.imgbuild.toolchain\": \"host: "), "{config}");
    }
    place.imgbuild("kernel 5.10.1 --toolchain debian-1").run().fails(2).says("did you mean `debian-11`?");
}

#[test]
fn a_kernel_older_than_pvh_leaves_a_bz_image_in_the_store_and_none_in_the_image() {
    use crate::support::layout::Layout;
    use crate::support::source::{FRAGMENT, RECIPE, Source};
    let mut place = Place::new();
    let _ = Source::new().version("4.19.1").install(&mut place);
    place.write("recipes/kernel/toy.toml", RECIPE.replace("5.10", "4.19"));
    place.write("kconfigs/toy.config", FRAGMENT.replace("[x86_64]", "[>=5.0, x86_64]"));
    place.imgbuild("kernel 4.19.1 --arch x86_64").run().succeeds();
    let layout = Layout::at(place.path("out"));
    assert!(!format!("{:?}", layout.image("kernel-bin:4.19.1", "amd64").entries).contains("bzImage"));
    let kernels = place.store().join("artifacts/kernel");
    let [key] = &place.artifacts("kernel")[..] else { panic!("one kernel was built") };
    assert!(kernels.join(key).join("files/qemu/bzImage").is_file());
}
