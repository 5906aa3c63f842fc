//! `imgbuild lock --add k8s`: a Kubernetes version pinned and released, against mirrors of its publishers.

use crate::support::node::architecture;
use crate::support::ubuntu::release_of;
use crate::support::volume::saying;
use crate::support::{Outcome, Place, sha256, tool};
use fs_err as fs;

const VERSION: &str = "1.24.9";
const RECIPE: &str = "recipes/os/ubuntu-20.04.toml";
const LOCK: &str = "recipes/imgbuild.lock";
/// Programs that the lock does not have yet.
const WITH: &str = "--with containerd=1.6.9 --with runc=1.1.5 --with cni-plugins=1.2.9";

/// A copy of the catalogue, and a mirror of the publishers of 1.24.9.
fn world() -> Place {
    let place = Place::new();
    for dir in ["recipes", "kconfigs", "keys"] {
        let from = format!("{}/{dir}", env!("CARGO_MANIFEST_DIR"));
        tool("cp", &["-r".as_ref(), from.as_ref(), place.work().as_os_str()]);
    }
    for arch in ["amd64", "arm64"] {
        for name in ["kubelet", "kubectl"] {
            publish_kubernetes(&place, name, arch, VERSION);
        }
        publish_kubernetes(&place, "kubeadm", arch, &format!("{VERSION}\nregistry.k8s.io/pause:3.7"));
        let file =
            format!("containerd/containerd/releases/download/v1.6.9/containerd-1.6.9-linux-{arch}.tar.gz");
        publish(&place, &file, &release_of("containerd", saying(arch, "1.6.9")), ".sha256sum");
        let file =
            format!("kubernetes-sigs/cri-tools/releases/download/v1.24.0/crictl-v1.24.0-linux-{arch}.tar.gz");
        publish(&place, &file, &release_of("crictl", saying(arch, "1.24.0")), ".sha256");
        let file = format!(
            "containernetworking/plugins/releases/download/v1.2.9/cni-plugins-linux-{arch}-v1.2.9.tgz"
        );
        publish(&place, &file, &release_of("cni-plugins", saying(arch, "1.2.9")), ".sha256");
        place.write(&format!("mirror/{}", runc(arch)), saying(arch, "1.1.5"));
    }
    let sums = ["amd64", "arm64"].map(|arch| {
        let bytes = fs::read(place.path(format!("mirror/{}", runc(arch)))).unwrap();
        format!("{}  runc.{arch}\n", sha256(&bytes))
    });
    place.write("mirror/opencontainers/runc/releases/download/v1.1.5/runc.sha256sum", sums.concat());
    place
}

fn runc(arch: &str) -> String {
    format!("opencontainers/runc/releases/download/v1.1.5/runc.{arch}")
}

fn kubernetes(name: &str, arch: &str) -> String {
    format!("release/v{VERSION}/bin/linux/{arch}/{name}")
}

/// Puts a file and, beside it, its hash with its name.
fn publish(place: &Place, file: &str, bytes: &[u8], suffix: &str) {
    let name = file.rsplit('/').next().unwrap();
    place.write(&format!("mirror/{file}{suffix}"), format!("{}  {name}\n", sha256(bytes)));
    place.write(&format!("mirror/{file}"), bytes);
}

/// Puts a program of Kubernetes that says this, and its bare hash.
fn publish_kubernetes(place: &Place, name: &str, arch: &str, said: &str) {
    let (path, bytes) = (format!("mirror/{}", kubernetes(name, arch)), saying(arch, said));
    place.write(&format!("{path}.sha256"), sha256(&bytes));
    place.write(&path, bytes);
}

fn add(place: &Place, words: &str) -> Outcome {
    let mirror = place.path("mirror").display().to_string();
    place
        .imgbuild(&format!("lock --add {words}"))
        .option("--mirror", format!("dl.k8s.io={mirror}"))
        .option("--mirror", format!("github.com={mirror}"))
        .run()
}

fn text(place: &Place, path: &str) -> String {
    fs::read_to_string(place.path(path)).unwrap()
}

/// The lines that a file has and had not.
fn added(before: &str, after: &str) -> Vec<String> {
    let mut rest = before.lines();
    let mut next = rest.next();
    let mut added = Vec::new();
    for line in after.lines() {
        if next == Some(line) {
            next = rest.next();
        } else {
            added.push(line.to_owned());
        }
    }
    assert_eq!(next, None, "nothing is taken away");
    added
}

#[test]
fn a_version_is_pinned_and_released_by_one_command() {
    let place = world();
    let (lock, recipe) = (text(&place, LOCK), text(&place, RECIPE));
    let outcome = add(&place, &format!("k8s v{VERSION} {WITH} --with runc@arm64=1.1.1")).fails(4);
    // What the lock pins already is fetched by that pin, and the mirror does not have it.
    let _ = outcome.says("runc.arm64");
    assert_eq!((text(&place, LOCK), text(&place, RECIPE)), (lock.clone(), recipe.clone()));

    let outcome = add(&place, &format!("k8s v{VERSION} {WITH}")).succeeds();
    let outcome =
        outcome.prints("containerd 1.6.9").prints("registry.k8s.io/pause:3.7").prints("14 release files");
    let _ = outcome.prints("ubuntu-20.04.toml` now: 1.24.9, to be released");
    let after = text(&place, LOCK);
    let set = "\n# 1.24.9: pinned by `imgbuild lock`: the hashes are the publishers' own, from beside the files.\n\
               [[kubernetes]]\nversion = \"1.24.9\"\npause = \"registry.k8s.io/pause:3.7\"\ncni-plugins = \"1.2.9\"\n\
               containerd = \"1.6.9\"\ncrictl = \"1.24.0\"\nrunc = \"1.1.5\"\n";
    // Behind the set of 1.23.5, and each file behind those of its program.
    let (head, rest) = after.split_once(set).unwrap_or_else(|| panic!("{after}"));
    assert!(head.ends_with("crictl = \"1.23.0\"\n"), "{head}");
    let lines = added(&lock, &format!("{head}{rest}"));
    assert_eq!(lines.iter().filter(|line| *line == "[[release]]").count(), 14, "{lines:#?}");
    let recipe = recipe.replace("\"1.23.5\"]", "\"1.23.5\", \"1.24.9\"]");
    assert_eq!(text(&place, RECIPE), recipe);

    let cells = place.imgbuild("plan --all --only os/ubuntu-20.04/1.24.9").run().succeeds();
    assert_eq!(cells.stdout.matches("os/ubuntu-20.04/1.24.9/").count(), 2);
    // Again: nothing changes, and nobody is asked.
    let lock = text(&place, LOCK);
    fs::remove_dir_all(place.path("mirror")).unwrap();
    let again = add(&place, &format!("k8s {VERSION} {WITH}")).succeeds();
    let _ = again.prints("is pinned already").prints("releases 1.24.9 already");
    assert_eq!((text(&place, LOCK), text(&place, RECIPE)), (lock, recipe));
}

#[test]
fn what_publishers_do_not_have_or_say_wrongly_is_told() {
    let place = world();
    let (lock, recipe) = (text(&place, LOCK), text(&place, RECIPE));
    let refused = |code: i32, words: &[&str]| {
        let mut outcome = add(&place, &format!("k8s {VERSION} {WITH}")).fails(code);
        for word in words {
            outcome = outcome.says(word);
        }
        assert_eq!((text(&place, LOCK), text(&place, RECIPE)), (lock.clone(), recipe.clone()));
    };
    let spoil = |path: &str, bytes: Option<&[u8]>, then: &dyn Fn()| {
        let path = place.path(format!("mirror/{path}"));
        let right = fs::read(&path).unwrap();
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        then();
        fs::write(&path, right).unwrap();
    };
    add(&place, "k8s 1.24.99")
        .fails(4)
        .says("dl.k8s.io has no kubelet 1.24.99 for x86_64")
        .says("is such a version");
    let arm64 =
        "containerd/containerd/releases/download/v1.6.9/containerd-1.6.9-linux-arm64.tar.gz.sha256sum";
    spoil(arm64, None, &|| {
        refused(4, &["github.com has no containerd 1.6.9 for arm64", "--with containerd@arm64=VERSION"]);
    });
    let hash = format!("{}.sha256", kubernetes("kubelet", "amd64"));
    spoil(&hash, Some(b"<html>no such page</html>"), &|| {
        refused(5, &["kubelet.sha256` holds no sha256 of kubelet", "nothing was pinned"]);
    });
    spoil(&hash, Some("0".repeat(64).as_bytes()), &|| refused(5, &["kubelet"]));
    // Rightly hashed, and another program.
    let other = saying("amd64", "1.24.8");
    spoil(&hash, Some(sha256(&other).as_bytes()), &|| {
        spoil(&kubernetes("kubelet", "amd64"), Some(&other), &|| {
            refused(5, &["kubelet 1.24.9 for x86_64 is not what it is called", "nothing in it says 1.24.9"]);
        });
    });
    let other = saying("arm64", VERSION);
    spoil(&hash, Some(sha256(&other).as_bytes()), &|| {
        spoil(&kubernetes("kubelet", "amd64"), Some(&other), &|| {
            refused(5, &["it is a program for arm64"]);
        });
    });
    // A kubeadm that tells nothing of images.
    let silent = saying(architecture(), VERSION);
    spoil(
        &format!("{}.sha256", kubernetes("kubeadm", architecture())),
        Some(sha256(&silent).as_bytes()),
        &|| {
            spoil(&kubernetes("kubeadm", architecture()), Some(&silent), &|| {
                refused(
                    4,
                    &["kubeadm 1.24.9 could not be asked", "it lists no pause image", "--with pause="],
                );
            });
        },
    );
    add(&place, &format!("k8s {VERSION} {WITH}")).succeeds();
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_fetched() {
    let place = world();
    fs::remove_dir_all(place.path("mirror")).unwrap();
    for (words, said) in [
        ("k8s 1.24", "`1.24` is not a Kubernetes version"),
        ("k8s newest", "`newest` is not a Kubernetes version"),
        ("image 1.24.9", "`image` is nothing that can be added; `kernel` and `k8s` are"),
        ("k8s 1.24.9 --with docker=20", "`docker` is none of `containerd`"),
        ("k8s 1.24.9 --with containerd", "names no program and version"),
        ("k8s 1.24.9 --with runc@mips=1", "unknown architecture `mips`"),
        ("k8s 1.24.9 --with pause=3.7", "`3.7` is no image"),
        ("k8s 1.24.9 --recipe debian-12", "`debian-12` is for a system without Kubernetes"),
        ("k8s 1.24.9 --recipe debain-12", "did you mean `debian-12`?"),
        ("kernel 5.10.266 --with runc=1", "`--with` is for `--add k8s`"),
        ("kernel 6.6.144 --recipe firecracker", "is made for the series"),
    ] {
        add(&place, words).fails(2).says(said);
    }
    // A kernel that is pinned is released, without asking anybody.
    add(&place, "kernel 6.1.176")
        .succeeds()
        .prints("6.1.176 is pinned already")
        .prints("6.1.176, to be released");
    let recipe = text(&place, "recipes/kernel/firecracker.toml");
    assert!(recipe.contains("\"5.10\", \"6.1.176\"]"), "{recipe}");
    let inheriting = add(&place, "kernel 6.6.144").succeeds();
    let _ = inheriting.prints("6.6.144 is not released: `firecracker` is not made for it");
}
