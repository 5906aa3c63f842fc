//! `imgbuild kernel` on a real source: what is in the images of 5.10.262 tiny, for both architectures.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::layout::Layout;
use crate::support::real::{self, KERNEL, MODULES};
use crate::support::{Place, tool};

#[test]
fn the_layout_has_both_images_for_both_architectures() {
    let (_place, layout) = real::tiny();
    assert_eq!(layout.images().into_keys().collect::<Vec<_>>(), [KERNEL, MODULES]);
    for name in [KERNEL, MODULES] {
        let index = layout.image_index(name);
        let architectures: Vec<_> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(architectures, ["amd64", "arm64"]);
        for architecture in architectures {
            let image = layout.image(name, architecture);
            assert_eq!(image.label("io.imgbuild.kernel.source"), format!("sha256:{}", real::SHA256));
            assert_eq!(
                image.label("org.opencontainers.image.source"),
                "https://tracker.debian.org/pkg/linux"
            );
            // The newest file of the tarball.
            let mtime = image.entries[0].1.mtime;
            assert!(image.entries.iter().all(|(_, entry)| entry.mtime == mtime && entry.owner == (0, 0)));
        }
    }
}

#[test]
fn a_second_build_takes_everything_from_the_store() {
    let (_place, layout) = real::tiny();
    let place = Place::with_shared_store();
    let outcome = place.imgbuild("kernel 5.10.262 --flavour tiny --arch all").run().succeeds();
    assert_eq!(outcome.stderr, "");
    assert_eq!(Layout::at(place.path("out")).images(), layout.images());
}

#[test]
fn the_kernel_is_a_stripped_elf_with_a_pvh_note_on_x86_64_and_an_image_on_arm64() {
    let (place, layout) = real::tiny();
    let image = layout.image(KERNEL, "amd64");
    let path = place.write("vmlinux", &image.entry("boot/vmlinux").content);
    let elf = tool("readelf", &["-hlnSW".as_ref(), path.as_os_str()]);
    for expected in ["Advanced Micro Devices X86-64", "EXEC (Executable file)", "  LOAD  "] {
        assert!(elf.contains(expected), "{expected} is not in\n{elf}");
    }
    // XEN_ELFNOTE_PHYS32_ENTRY.
    let is_pvh = |line: &str| line.trim_start().starts_with("Xen ") && line.contains("(0x00000012)");
    assert!(elf.lines().any(is_pvh), "{elf}");
    assert!(!elf.contains(".symtab") && !elf.contains(".debug_info"), "{elf}");

    let image = layout.image(KERNEL, "arm64");
    let kernel = &image.entry("boot/image").content;
    assert_eq!(&kernel[56..60], b"ARM\x64");
    assert_eq!(image.entry("boot/vmlinux").link.as_deref(), Some("boot/image"));
    assert_ne!(&kernel[..4], b"\x7fELF");
}

#[test]
fn modules_are_stripped_and_belong_to_the_kernel() {
    let (place, layout) = real::tiny();
    for (architecture, machine) in [("amd64", "X86-64"), ("arm64", "AArch64")] {
        let image = layout.image(MODULES, architecture);
        let modules: Vec<_> = image
            .entries
            .iter()
            .filter(|(path, _)| Path::new(path).extension() == Some("ko".as_ref()))
            .collect();
        assert_eq!(modules.len(), 4, "{:?}", image.paths());
        for (path, entry) in modules {
            let file = place.write("module.ko", &entry.content);
            let elf = tool("readelf", &["-hSW".as_ref(), file.as_os_str()]);
            assert!(elf.contains(machine) && !elf.contains(".debug_"), "{path}\n{elf}");
            let vermagic = tool("modinfo", &["-F".as_ref(), "vermagic".as_ref(), file.as_os_str()]);
            assert!(vermagic.starts_with("5.10.262 "), "{path}: {vermagic}");
        }
        let paths = image.paths();
        assert!(!paths.iter().any(|path| path.ends_with("/build") || path.ends_with("/source")), "{paths:?}");
    }
}

#[test]
fn modprobe_finds_the_modules_where_consumers_mount_the_volume() {
    let (place, layout) = real::tiny();
    for architecture in ["amd64", "arm64"] {
        // The volume stands AT lib/modules/VERSION, as Flintlock mounts it, and as the tree it holds.
        let mounted = place.path(format!("{architecture}-mounted"));
        let plain = place.path(format!("{architecture}-plain"));
        let image = layout.image(MODULES, architecture);
        for (root, volume) in [(&mounted, mounted.join("lib/modules/5.10.262")), (&plain, plain.clone())] {
            fs_err::create_dir_all(&volume).unwrap();
            image.unpack(&volume);
            let modprobe = |module: &str| {
                let args = ["-d", root.to_str().unwrap(), "-S", "5.10.262", "--show-depends", module];
                tool("modprobe", &args.map(AsRef::as_ref))
            };
            let inserted = |module: &str| -> Vec<String> {
                let text = modprobe(module);
                let name =
                    |line: &str| Path::new(line.trim()).file_name().unwrap().to_string_lossy().into_owned();
                text.lines().map(name).collect()
            };
            assert_eq!(inserted("virtio_rng"), ["rng-core.ko", "virtio-rng.ko"]);
            assert_eq!(inserted("overlay"), ["exportfs.ko", "overlay.ko"]);
            for line in modprobe("overlay").lines() {
                let path = line.trim().strip_prefix("insmod ").unwrap_or_else(|| panic!("{line}"));
                assert!(Path::new(path).is_file(), "{line}");
            }
            let args = ["-b", root.to_str().unwrap(), "-k", "5.10.262", "-F", "depends", "overlay"];
            assert_eq!(tool("modinfo", &args.map(AsRef::as_ref)).trim(), "exportfs");
        }
    }
}

#[test]
fn the_configuration_in_the_image_is_the_one_in_the_kernel() {
    let (_place, layout) = real::tiny();
    for (architecture, line) in [("amd64", "CONFIG_PVH=y"), ("arm64", "CONFIG_ARM64=y")] {
        let image = layout.image(KERNEL, architecture);
        let config = &image.entry("boot/config-5.10.262").content;
        let text = String::from_utf8(config.clone()).unwrap();
        for line in [line, "CONFIG_HW_RANDOM_VIRTIO=m", "CONFIG_LOCALVERSION=\"\"", "# CONFIG_NET is not set"]
        {
            assert!(text.lines().any(|other| other == line), "{line}");
        }
        // IKCONFIG packs it with gzip between two marks.
        let path = if architecture == "arm64" { "boot/image" } else { "boot/vmlinux" };
        let kernel = &image.entry(path).content;
        let find = |mark: &[u8]| kernel.windows(mark.len()).position(|bytes| bytes == mark).unwrap();
        let packed = &kernel[find(b"IKCFG_ST") + 8..find(b"IKCFG_ED")];
        let mut inside = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut inside).unwrap();
        assert_eq!(String::from_utf8(inside).unwrap(), text);
    }
}

#[test]
fn nothing_in_the_images_tells_who_built_them_where_or_when() {
    let (place, layout) = real::tiny();
    let hostname = tool("uname", &["-n".as_ref()]).trim().to_owned();
    let user = tool("id", &["-un".as_ref()]).trim().to_owned();
    let store = fs_err::canonicalize(place.store()).unwrap();
    let today = tool("date", &["-u".as_ref(), "+%b %e".as_ref()]).trim().to_owned();
    let year = tool("date", &["-u".as_ref(), "+%Y".as_ref()]).trim().to_owned();
    let secrets = BTreeMap::from([
        ("user and host", format!("({user}@{hostname})")),
        ("host", format!("@{hostname}")),
        ("checkout", env!("CARGO_MANIFEST_DIR").to_owned()),
        ("store", store.display().to_string()),
        ("store's work", "/work/run-".to_owned()),
        ("build directory", "/build-x86_64".to_owned()),
        ("build directory for arm64", "/build-arm64".to_owned()),
        ("place", place.work().display().to_string()),
        ("home", place.home().display().to_string()),
    ]);
    let mut banners = 0;
    for name in [KERNEL, MODULES] {
        for architecture in ["amd64", "arm64"] {
            let image = layout.image(name, architecture);
            for (path, entry) in &image.entries {
                let holds =
                    |text: &str| entry.content.windows(text.len()).any(|bytes| bytes == text.as_bytes());
                for (what, secret) in &secrets {
                    assert!(!holds(secret), "{name} {architecture}: {path} tells the {what}: {secret}");
                }
                if path == "boot/vmlinux" && architecture == "amd64" || path == "boot/image" {
                    banners += 1;
                    assert!(holds("Linux version 5.10.262 (imgbuild@imgbuild) ("), "{architecture}");
                    // The source's date, not today's.
                    let text = String::from_utf8_lossy(&entry.content);
                    let at = text.find("Linux version 5.10.262").unwrap();
                    let banner: String = text[at..].chars().take_while(|c| *c != '\n').collect();
                    let created = image.config["created"].as_str().unwrap();
                    assert!(banner.contains("#1 ") && banner.ends_with(&created[..4]), "{banner} {created}");
                    assert!(!(banner.contains(&format!(" {today} ")) && banner.ends_with(&year)), "{banner}");
                }
            }
            for document in [&image.config, &image.manifest] {
                let text = document.to_string();
                assert!(secrets.values().all(|secret| !text.contains(secret)), "{text}");
            }
        }
    }
    assert_eq!(banners, 2);
}
