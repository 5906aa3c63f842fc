//! What is in the images: read back from the layout with nothing of imgbuild's own code.

use std::collections::BTreeSet;

use crate::support::layout::{Image, Layout};
use crate::support::source::{EPOCH, Source};
use crate::support::{Place, sha256};
use tar::EntryType;

/// The layout of a made-up kernel for both architectures, and the sha256 of its source.
fn built() -> (Place, Layout, String) {
    let mut place = Place::new();
    let source = Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64,arm64").run().succeeds();
    let layout = Layout::at(place.path("out"));
    (place, layout, source)
}

fn each_image(layout: &Layout, mut look: impl FnMut(&str, &Image)) {
    for name in ["kernel-bin:5.10.1", "kernel-modules:5.10.1"] {
        for architecture in ["amd64", "arm64"] {
            look(&format!("{name} {architecture}"), &layout.image(name, architecture));
        }
    }
}

#[test]
fn the_layout_names_both_images_for_podman_and_for_containerd() {
    let (place, layout, _) = built();
    let text = fs_err::read_to_string(place.path("out/oci-layout")).unwrap();
    assert_eq!(text, r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(
        layout.images().into_keys().collect::<Vec<_>>(),
        ["kernel-bin:5.10.1", "kernel-modules:5.10.1"]
    );
    let index = layout.index();
    for entry in index["manifests"].as_array().unwrap() {
        let annotation = |name: &str| entry["annotations"][name].as_str().unwrap();
        let name = annotation("org.opencontainers.image.ref.name");
        assert_eq!(annotation("io.containerd.image.name"), format!("localhost/{name}"));
    }
}

#[test]
fn an_index_lists_its_platforms_in_the_same_order_however_they_were_asked_for() {
    let (place, layout, _) = built();
    for name in ["kernel-bin:5.10.1", "kernel-modules:5.10.1"] {
        let index = layout.image_index(name);
        assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
        let platforms: Vec<_> =
            index["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"].clone()).collect();
        let platform = |architecture| serde_json::json!({"architecture": architecture, "os": "linux"});
        assert_eq!(platforms, [platform("amd64"), platform("arm64")]);
    }
    place.imgbuild("kernel 5.10.1 --arch aarch64,amd64,x86_64 --output other").run().succeeds();
    assert_eq!(Layout::at(place.path("other")).images(), layout.images());
    place.imgbuild("kernel 5.10.1 --arch all --output third").run().succeeds();
    assert_eq!(Layout::at(place.path("third")).images(), layout.images());
}

#[test]
fn the_layout_holds_no_blob_that_nothing_refers_to() {
    let (_place, layout, _) = built();
    let mut named = BTreeSet::new();
    named.extend(layout.images().into_values());
    each_image(&layout, |_, image| {
        let digest = |value: &serde_json::Value| value["digest"].as_str().unwrap().to_owned();
        named.extend([digest(&image.manifest["config"]), digest(&image.manifest["layers"][0])]);
    });
    for name in layout.images().keys() {
        for member in layout.image_index(name)["manifests"].as_array().unwrap() {
            named.insert(member["digest"].as_str().unwrap().to_owned());
        }
    }
    let blobs: BTreeSet<_> = layout.blobs().into_iter().map(|name| format!("sha256:{name}")).collect();
    assert_eq!(blobs, named);
}

#[test]
fn every_entry_belongs_to_root_and_has_the_time_of_the_sources_newest_file() {
    let (_place, layout, _) = built();
    each_image(&layout, |name, image| {
        for (path, entry) in &image.entries {
            let mode = match entry.kind {
                EntryType::Directory => 0o755,
                EntryType::Symlink => 0o777,
                _ => 0o644,
            };
            assert_eq!((entry.owner, entry.mtime, entry.mode), ((0, 0), EPOCH, mode), "{name}: {path}");
        }
        let paths = image.paths();
        let mut sorted = paths.clone();
        sorted.sort_unstable();
        assert_eq!(paths, sorted, "{name}");
        assert_eq!(image.config["created"], "2020-09-13T12:39:37Z", "{name}");
        assert_eq!(image.config["history"][0]["created"], "2020-09-13T12:39:37Z", "{name}");
    });
}

#[test]
fn the_kernel_image_holds_an_elf_on_x86_64_and_an_image_under_both_names_on_arm64() {
    let (_place, layout, _) = built();
    let amd64 = layout.image("kernel-bin:5.10.1", "amd64");
    assert_eq!(amd64.paths(), ["boot", "boot/config-5.10.1", "boot/vmlinux"]);
    let kernel = &amd64.entry("boot/vmlinux").content;
    assert_eq!((&kernel[..5], kernel[18]), (&b"\x7fELF\x02"[..], 62));

    let arm64 = layout.image("kernel-bin:5.10.1", "arm64");
    assert_eq!(arm64.paths(), ["boot", "boot/config-5.10.1", "boot/image", "boot/vmlinux"]);
    assert_eq!(&arm64.entry("boot/image").content[56..60], b"ARM\x64");
    assert_eq!(arm64.entry("boot/image").kind, EntryType::Regular);
    let link = arm64.entry("boot/vmlinux");
    assert_eq!((link.kind, link.link.as_deref()), (EntryType::Link, Some("boot/image")));
}

#[test]
fn the_modules_image_works_as_a_tree_and_mounted_at_its_place() {
    let (_place, layout, _) = built();
    for architecture in ["amd64", "arm64"] {
        let image = layout.image("kernel-modules:5.10.1", architecture);
        let tree = "lib/modules/5.10.1/";
        let module = image.entry("lib/modules/5.10.1/kernel/drivers/toy.ko");
        assert!(module.content.windows(15).any(|part| part == b"vermagic=5.10.1"));
        // Only what the kernel's own modules_install and depmod made: no links into anybody's build directory.
        let top: BTreeSet<_> = image
            .paths()
            .into_iter()
            .filter_map(|path| path.strip_prefix(tree))
            .map(|below| below.split('/').next().unwrap())
            .collect();
        assert!(top.contains("modules.dep.bin") && top.contains("kernel"), "{top:?}");
        assert!(!top.contains("build") && !top.contains("source"), "{top:?}");
        let links: BTreeSet<_> = image
            .entries
            .iter()
            .filter(|(_, entry)| entry.kind == EntryType::Symlink)
            .map(|(path, entry)| {
                assert_eq!(entry.link.as_deref(), Some(format!("{tree}{path}").as_str()));
                path.as_str()
            })
            .collect();
        assert_eq!(links, top, "the volume's root has a link to each thing in the tree, and no other");
        assert_eq!(image.paths().iter().find(|path| path.ends_with("/build")), None);
    }
}

#[test]
fn labels_say_what_it_is_where_it_came_from_and_how_it_was_configured() {
    let (_place, layout, source) = built();
    each_image(&layout, |name, image| {
        let architecture = image.config["architecture"].as_str().unwrap();
        let is_kernel = name.starts_with("kernel-bin");
        let expected = [
            ("org.opencontainers.image.title", if is_kernel { "kernel-bin" } else { "kernel-modules" }),
            ("org.opencontainers.image.version", "5.10.1"),
            ("org.opencontainers.image.licenses", "GPL-2.0-only WITH Linux-syscall-note"),
            ("org.opencontainers.image.source", "https://kernel.test/pub/v5.x/linux-5.10.1.tar.xz"),
            ("io.imgbuild.role", if is_kernel { "kernel" } else { "modules" }),
            ("io.imgbuild.flavour", "toy"),
            ("io.imgbuild.kernel.release", "5.10.1"),
            ("io.imgbuild.architecture", if architecture == "amd64" { "x86_64" } else { "arm64" }),
        ];
        for (label, value) in expected {
            assert_eq!(image.label(label), value, "{name}");
            assert_eq!(image.manifest["annotations"][label], value, "{name}");
        }
        assert_eq!(image.label("io.imgbuild.kernel.source"), format!("sha256:{source}"));
        let kernel = layout.image("kernel-bin:5.10.1", architecture);
        let config = &kernel.entry("boot/config-5.10.1").content;
        assert_eq!(image.label("io.imgbuild.kernel.config"), format!("sha256:{}", sha256(config)));
    });
}

#[test]
fn the_configuration_in_the_image_is_the_resolved_one() {
    let (_place, layout, _) = built();
    let image = layout.image("kernel-bin:5.10.1", "arm64");
    let config = String::from_utf8(image.entry("boot/config-5.10.1").content.clone()).unwrap();
    for line in
        ["CONFIG_TOY=m", "CONFIG_NUMBER=3", "# CONFIG_EXTRA is not set", "# CONFIG_ARM64_TOY is not set"]
    {
        assert!(config.lines().any(|other| other == line), "{line} is not in\n{config}");
    }
    assert!(!config.contains("PVH"), "{config}");
}

#[test]
fn the_kernels_banner_names_no_person_no_machine_and_the_sources_date() {
    let (_place, layout, _) = built();
    for architecture in ["amd64", "arm64"] {
        let image = layout.image("kernel-bin:5.10.1", architecture);
        let path = if architecture == "arm64" { "boot/image" } else { "boot/vmlinux" };
        let text = String::from_utf8_lossy(&image.entry(path).content).into_owned();
        let banner = "Linux version 5.10.1 (imgbuild@imgbuild) number 1 Sun Sep 13 12:39:37 UTC 2020";
        assert!(text.contains(banner), "{text}");
    }
}

#[test]
fn a_kernel_without_modules_has_no_modules_image() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.write("kconfigs/toy.config", "CONFIG_NUMBER=3\n");
    place.imgbuild("kernel 5.10.1").run().succeeds().does_not_print("kernel-modules");
    let images = Layout::at(place.path("out")).images();
    assert_eq!(images.into_keys().collect::<Vec<_>>(), ["kernel-bin:5.10.1"]);
}

#[test]
fn the_images_are_the_same_from_another_directory_home_umask_zone_and_job_count() {
    let (_place, layout, _) = built();
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
        .imgbuild("kernel 5.10.1 --arch all --jobs 1")
        .env("TZ", "Pacific/Kiritimati")
        .env("LANG", "de_DE.UTF-8")
        .env("USER", "somebody")
        .env("KBUILD_BUILD_USER", "somebody")
        .after("umask 077")
        .run()
        .succeeds();
    assert_eq!(Layout::at(place.path("out")).images(), layout.images());
}
