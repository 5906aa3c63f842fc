//! The layout in the hands of those who use it: skopeo, umoci, containerd.

use std::ffi::OsStr;
use std::path::Path;

use crate::support::containerd::Containerd;
use crate::support::layout::Layout;
use crate::support::real::{self, KERNEL, MODULES};
use crate::support::unpacked::{expected, found};
use crate::support::{Place, host, tool};
use serde_json::Value;

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

fn run(program: &str, args: &[String]) -> String {
    tool(program, &args.iter().map(OsStr::new).collect::<Vec<_>>())
}

fn skopeo(words: &str, last: &[String]) -> String {
    let words = words.split_whitespace().map(str::to_owned);
    run("skopeo", &words.chain(last.iter().cloned()).collect::<Vec<_>>())
}

/// An image of a layout, as skopeo names it.
fn oci(dir: &Path, name: &str) -> String {
    format!("oci:{}:{name}", dir.display())
}

#[test]
fn skopeo_inspects_each_image_for_each_architecture() {
    let (place, layout) = real::tiny();
    for name in [KERNEL, MODULES] {
        for architecture in ARCHITECTURES {
            let words = format!("inspect --override-os linux --override-arch {architecture}");
            let json: Value =
                serde_json::from_str(&skopeo(&words, &[oci(&place.path("out"), name)])).unwrap();
            let image = layout.image(name, architecture);
            assert_eq!((&json["Architecture"], &json["Os"]), (&architecture.into(), &"linux".into()));
            assert_eq!(json["Labels"], image.config["config"]["Labels"]);
            assert_eq!(json["Created"], image.config["created"]);
            assert_eq!(json["Layers"][0], image.manifest["layers"][0]["digest"]);
        }
    }
}

#[test]
fn skopeo_copies_all_architectures_to_another_layout_and_back_unchanged() {
    let (place, layout) = real::tiny();
    let (there, back) = (place.path("there"), place.path("back"));
    for name in [KERNEL, MODULES] {
        skopeo("--insecure-policy copy --all", &[oci(&place.path("out"), name), oci(&there, name)]);
        skopeo("--insecure-policy copy --all", &[oci(&there, name), oci(&back, name)]);
    }
    for dir in [there, back] {
        let copy = Layout::at(dir);
        assert_eq!(copy.images(), layout.images(), "the digest of the index is the same");
        assert_eq!(copy.blobs(), layout.blobs());
    }
}

#[test]
fn umoci_unpacks_each_image_to_the_files_in_its_layer() {
    let (place, layout) = real::tiny();
    for name in [KERNEL, MODULES] {
        for architecture in ARCHITECTURES {
            // umoci takes layouts of one platform.
            let single = place.path(format!("single-{architecture}"));
            let words = format!("--insecure-policy --override-os linux --override-arch {architecture} copy");
            let tag = name.split(':').next().unwrap();
            skopeo(&words, &[oci(&place.path("out"), name), oci(&single, tag)]);
            let bundle = place.path(format!("bundle-{tag}-{architecture}"));
            let image = format!("{}:{tag}", single.display());
            let args = ["unpack", "--rootless", "--image", &image, bundle.to_str().unwrap()];
            run("umoci", &args.map(str::to_owned));
            let rootfs = bundle.join("rootfs");
            assert_eq!(found(&rootfs), expected(&layout.image(name, architecture)), "{name} {architecture}");
        }
    }
}

#[test]
fn containerd_imports_and_mounts_the_images_with_each_snapshotter() {
    let (place, _) = real::tiny();
    containerd_reads(&place, "out");
}

#[test]
fn containerd_reads_zstd_layers_too() {
    let (place, _) = real::tiny();
    let command = "kernel 5.10.262 --flavour tiny --arch x86_64,arm64 --compression zstd --output zstd";
    place.imgbuild(command).run().succeeds();
    containerd_reads(&place, "zstd");
}

/// Imports a layout of the place, and mounts each image with each snapshotter.
fn containerd_reads(place: &Place, dir: &str) {
    let layout = Layout::at(place.path(dir));
    let containerd = Containerd::start(place);
    let archive = place.path("layout.tar");
    tool(
        "tar",
        &["-C".as_ref(), place.path(dir).as_os_str(), "-cf".as_ref(), archive.as_os_str(), ".".as_ref()],
    );
    containerd.ctr(&["images", "import", "--all-platforms", "--no-unpack", archive.to_str().unwrap()]);
    let listed = containerd.ctr(&["images", "list"]);
    for (name, digest) in layout.images() {
        let line = listed.lines().find(|line| line.starts_with(&format!("localhost/{name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{listed}"));
        assert!(
            line.contains(&digest) && line.contains("linux/amd64") && line.contains("linux/arm64"),
            "{line}"
        );
    }
    for snapshotter in ["native", "overlayfs"] {
        for name in [KERNEL, MODULES] {
            for architecture in ARCHITECTURES {
                let at =
                    place.path(format!("{snapshotter}-{architecture}-{}", name.split(':').next().unwrap()));
                fs_err::create_dir(&at).unwrap();
                let (platform, reference) = (format!("linux/{architecture}"), format!("localhost/{name}"));
                let at = at.to_str().unwrap();
                containerd.ctr(&[
                    "images",
                    "mount",
                    "--snapshotter",
                    snapshotter,
                    "--platform",
                    &platform,
                    &reference,
                    at,
                ]);
                let tree = found(&containerd.sees(at));
                assert_eq!(
                    tree,
                    expected(&layout.image(name, architecture)),
                    "{snapshotter} {name} {architecture}"
                );
                containerd.ctr(&["images", "unmount", at]);
            }
        }
    }
}

#[test]
fn podman_style_readers_find_the_hosts_architecture_by_themselves() {
    let (place, _) = real::tiny();
    let json: Value = serde_json::from_str(&skopeo("inspect", &[oci(&place.path("out"), KERNEL)])).unwrap();
    assert_eq!(json["Architecture"], if host() == "x86_64" { "amd64" } else { "arm64" });
}
