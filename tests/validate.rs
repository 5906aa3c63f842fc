//! `imgbuild validate`: every kind of damage is found, all of it at once, and what is sound passes.

use crate::support::forge::{self, Forged, Item, elf, image};
use crate::support::registry::{Door, Registry};
use crate::support::source::Source;
use crate::support::{Outcome, Place, names};
use fs_err as fs;
use serde_json::Value;
use tar::EntryType;

/// What validating a layout of these images comes to.
fn validated(images: &[Forged]) -> Outcome {
    let place = Place::new();
    forge::write(&place.path("out"), images);
    place.imgbuild("validate out").run()
}

/// A kernel or modules image that is changed must be found unsound, for this reason.
fn refused(mut image: Forged, change: impl FnOnce(&mut Forged), finding: &str) {
    change(&mut image);
    let place = format!("{} {}: ", image.name, image.arch);
    let outcome = validated(&[image]).exits(5).prints(format!("{place}{finding}"));
    outcome.says("error: `out` is not sound: 1 finding\n");
}

/// A sound layout, and the path of one of its blobs: `manifest`, `config` or the first layer's `digest`.
fn sound_with_blob(part: &str) -> (Place, String, std::path::PathBuf) {
    let place = Place::new();
    forge::write(&place.path("out"), &[Forged::kernel("amd64"), Forged::modules("amd64")]);
    let json = place.imgbuild("inspect out --format json").run().succeeds().json();
    let platform = &json["images"][0]["platforms"][0];
    let digest = match part {
        "digest" => &platform["layers"][0]["digest"],
        "index" => &json["images"][0]["index"],
        part => &platform[part],
    };
    let digest = digest.as_str().unwrap().to_owned();
    let path = place.path(format!("out/blobs/{}", digest.replace(':', "/")));
    (place, digest, path)
}

#[test]
fn what_is_built_here_is_sound() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let outcome = place.imgbuild("validate out").run().succeeds();
    assert_eq!(outcome.stdout.matches(" sound: ").count(), 4, "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "");
    let json = place.imgbuild("validate out --format json").run().succeeds().json();
    assert_eq!(json["findings"], serde_json::json!([]));
    assert_eq!(json["images"][0]["files"], 3);
}

#[test]
fn what_others_make_is_sound_too() {
    let images = ["amd64", "arm64"].map(|arch| [Forged::kernel(arch), Forged::modules(arch)]).concat();
    validated(&images).succeeds();
    // No labels, plain tar, Docker's media types, a root volume with absolute links.
    let mut plain = Forged::kernel("amd64");
    plain.labels.clear();
    (plain.gzip, plain.layer_type) = (false, "application/vnd.oci.image.layer.v1.tar".into());
    let mut docker = Forged::kernel("arm64");
    docker.layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    docker.config_type = "application/vnd.docker.container.image.v1+json".into();
    let mut root = Forged::kernel("amd64");
    root.name = "root:1".into();
    root.labels.clear();
    root.items = vec![Item::directory("etc"), Item::link("etc/mtab", EntryType::Symlink, "/proc/mounts")];
    validated(&[plain, docker, root]).succeeds();
}

#[test]
fn a_missing_blob_is_found_whatever_it_is() {
    for part in ["index", "manifest", "config", "digest"] {
        let (place, digest, path) = sound_with_blob(part);
        fs::remove_file(path).unwrap();
        let outcome = place.imgbuild("validate out").run().exits(5);
        let outcome = outcome.prints(format!("blob {digest} is missing")).says("1 finding");
        // The other image is read all the same.
        outcome.prints("kernel-modules:5.10.1").prints(" sound: ");
    }
}

#[test]
fn a_damaged_byte_is_found_whatever_it_is_in() {
    for part in ["index", "manifest", "config", "digest"] {
        let (place, digest, path) = sound_with_blob(part);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let outcome = place.imgbuild("validate out").run().exits(5);
        outcome.prints(format!("blob {digest} does not have its digest: it is sha256:")).says("1 finding");
    }
}

#[test]
fn a_layer_that_was_cut_is_found() {
    let (place, digest, path) = sound_with_blob("digest");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let outcome = place.imgbuild("validate out").run().exits(5);
    let says = format!("blob {digest} has {} bytes, its descriptor says {}", bytes.len() / 2, bytes.len());
    outcome.prints(says).says("1 finding");
}

#[test]
fn damage_in_a_blob_that_nothing_refers_to_is_found() {
    let (place, ..) = sound_with_blob("digest");
    place.write(&format!("out/blobs/sha256/{}", "0".repeat(64)), "something else");
    let outcome = place.imgbuild("validate out").run().exits(5);
    outcome.prints(format!("blob sha256:{} does not have its digest", "0".repeat(64))).says("1 finding");
    // Of another image it would not be looked at.
    place.imgbuild("validate out --image kernel-bin:5.10.1").run().succeeds();
}

#[test]
fn descriptors_that_are_wrong_are_found() {
    refused(Forged::kernel("amd64"), |image| image.more = 7, "`out`: blob sha256:");
    let other = format!("sha256:{}", "1".repeat(64));
    let diff_id = "layer sha256:";
    refused(Forged::kernel("amd64"), |image| image.diff_ids = Some(vec![other]), diff_id);
    let count = "the configuration has 0 diff ids, the manifest 1 layers: containerd refuses that";
    refused(Forged::kernel("amd64"), |image| image.diff_ids = Some(Vec::new()), count);
    let is = "its configuration is application/json, which is no image's";
    refused(Forged::kernel("amd64"), |image| image.config_type = "application/json".into(), is);
    let as_tar = "application/vnd.oci.image.layer.v1.tar".to_owned();
    let unreadable = "`out`: blob sha256:";
    refused(Forged::kernel("amd64"), |image| image.layer_type = as_tar, unreadable);
    refused(Forged::kernel("amd64"), |image| image.gzip = false, unreadable);
    refused(Forged::kernel("amd64"), |image| image.layer_type = "text/plain".into(), "layer sha256:");
}

#[test]
fn a_platform_that_is_not_the_one_inside_is_found() {
    let lists = "the index lists it as arm64, its configuration says amd64";
    refused(Forged::kernel("amd64"), |image| image.listed = Some("arm64".into()), lists);
    refused(Forged::kernel("amd64"), |image| image.listed = None, "the index lists it without a platform");
    let foreign = "boot/vmlinux: it is an arm64 Image, not an uncompressed x86_64 ELF";
    let change = |forged: &mut Forged| forged.item("boot/vmlinux").content = image();
    refused(Forged::kernel("amd64"), change, foreign);
    let foreign = "boot/vmlinux: it is an x86_64 ELF, not an uncompressed arm64 Image";
    refused(Forged::kernel("arm64"), |forged| forged.item("boot/vmlinux").content = elf(62), foreign);
    let module = "lib/modules/5.10.1/kernel/toy.ko";
    let foreign = format!("{module}: it is an arm64 ELF, in an image for x86_64");
    refused(Forged::modules("amd64"), |forged| forged.item(module).content = elf(183), &foreign);
    let foreign = format!("{module}: it is an ELF of another architecture, in an image for arm64");
    refused(Forged::modules("arm64"), |forged| forged.item(module).content = elf(243), &foreign);
    let none = format!("{module}: it is a module by its name, and no ELF");
    refused(Forged::modules("arm64"), |forged| forged.item(module).content = b"text".into(), &none);
}

#[test]
fn a_foreign_program_in_a_root_volume_is_found() {
    let mut root = Forged::kernel("amd64");
    root.name = "root:1".into();
    root.labels.clear();
    let program = |path: &str, machine, mode| Item { mode, ..Item::file(path, elf(machine)) };
    root.items = vec![
        Item::directory("usr"),
        program("usr/mine", 62, 0o755),
        // BPF, and data for another machine: no program of this one.
        program("usr/bpf", 247, 0o755),
        program("usr/data", 183, 0o644),
    ];
    validated(&[root.clone()]).succeeds();
    let foreign = program("usr/foreign", 183, 0o755);
    let finding = "usr/foreign: it is an arm64 ELF, in an image for x86_64";
    refused(root, |root| root.items.push(foreign), finding);
}

#[test]
fn a_kernel_that_a_vmm_could_not_open_is_found() {
    let kernel = || Forged::kernel("amd64");
    refused(kernel(), |image| image.without("boot/vmlinux"), "boot/vmlinux: there is none");
    refused(kernel(), |image| image.item("boot/vmlinux").mode = 0o600, "boot/vmlinux: its mode is 0600");
    refused(kernel(), |image| image.item("boot").mode = 0o700, "boot: its mode is 0700");
    let link = |image: &mut Forged, kind, target: &str| {
        image.items.push(Item::file("boot/other", elf(62)));
        *image.item("boot/vmlinux") = Item::link("boot/vmlinux", kind, target);
    };
    let no_file = "boot/vmlinux: it is no regular file";
    refused(kernel(), |image| link(image, EntryType::Symlink, "other"), no_file);
    let mut hard = kernel();
    link(&mut hard, EntryType::Link, "boot/other");
    validated(&[hard.clone()]).succeeds();
    hard.item("boot/vmlinux").link = "boot/nothing".into();
    validated(&[hard]).exits(5).prints("boot/vmlinux: it is another name of boot/nothing, which is no file");
}

#[test]
fn a_configuration_that_is_not_the_labels_is_found() {
    let change = |image: &mut Forged| image.item("boot/config-5.10.1").content = b"CONFIG_B=y\n".into();
    refused(Forged::kernel("amd64"), change, "boot/config-5.10.1: it is sha256:");
    let change = |image: &mut Forged| image.without("boot/config-5.10.1");
    refused(Forged::kernel("amd64"), change, "boot/config-5.10.1: there is none");
}

#[test]
fn modules_that_modprobe_would_not_find_are_found() {
    let modules = || Forged::modules("arm64");
    let links = "kernel: no relative link to lib/modules/5.10.1/kernel: mounted at /lib/modules/5.10.1, modprobe misses it";
    refused(modules(), |image| image.without("kernel"), links);
    let misled = |image: &mut Forged| image.item("kernel").link = "lib/modules/5.10.1".into();
    refused(modules(), misled, links);
    let change = |image: &mut Forged| {
        image.without("modules.dep.bin");
        image.without("lib/modules/5.10.1/modules.dep.bin");
    };
    refused(
        modules(),
        change,
        "lib/modules/5.10.1/modules.dep.bin: there is none, and modprobe looks for it",
    );
    let second = |image: &mut Forged| image.items.push(Item::directory("lib/modules/5.10.2"));
    refused(modules(), second, "lib/modules: there must be one release's directory in it");
    let label = |image: &mut Forged| image.label("io.imgbuild.kernel.release", "5.10.2");
    refused(modules(), label, "lib/modules/5.10.1: the label io.imgbuild.kernel.release says 5.10.2");
}

#[test]
fn links_that_lead_astray_are_found() {
    for (target, finding) in [
        ("/etc/passwd", "stray: it is a link to /etc/passwd: on the host that is a file of the host"),
        ("../outside", "stray: it is a link to ../outside, out of the image"),
        ("lib/nothing", "stray: it is a link to lib/nothing, where nothing is"),
    ] {
        let change = |image: &mut Forged| image.items.push(Item::link("stray", EntryType::Symlink, target));
        refused(Forged::modules("amd64"), change, finding);
    }
    let change = |image: &mut Forged| image.items.push(Item::file("boot/../../evil", ""));
    refused(Forged::kernel("amd64"), change, "boot/../../evil: it would land outside the image");
}

#[test]
fn two_images_of_one_name_and_platform_are_found() {
    let mut other = Forged::kernel("amd64");
    other.label("a", "b");
    let outcome = validated(&[Forged::kernel("amd64"), other]).exits(5);
    outcome.prints("kernel-bin:5.10.1 amd64: there is another image of this name and platform");
}

#[test]
fn everything_is_told_at_once_with_image_platform_and_path() {
    let mut images = [Forged::kernel("amd64"), Forged::kernel("arm64"), Forged::modules("arm64")];
    images[0].item("boot/vmlinux").mode = 0o600;
    images[0].item("boot").mode = 0o700;
    images[2].without("kernel");
    let place = Place::new();
    forge::write(&place.path("out"), &images);
    let outcome = place.imgbuild("validate out").run().exits(5).says("`out` is not sound: 3 findings");
    outcome
        .prints("kernel-bin:5.10.1 amd64: boot/vmlinux: its mode is 0600")
        .prints("kernel-bin:5.10.1 amd64: boot: its mode is 0700")
        .prints("kernel-modules:5.10.1 arm64: kernel: no relative link")
        .prints("NOT sound (2)");
    let json = place.imgbuild("validate out --format json").run().exits(5).json();
    let found: Vec<_> = json["findings"].as_array().unwrap().iter().map(place_of).collect();
    let amd64 = |path| ["kernel-bin:5.10.1", "amd64", path];
    assert_eq!(found, [amd64("boot/vmlinux"), amd64("boot"), ["kernel-modules:5.10.1", "arm64", "kernel"]]);
    // One that is sound can be asked for alone.
    place.imgbuild("validate out --image kernel-bin:5.10.1 --arch arm64").run().succeeds();
}

fn place_of(finding: &Value) -> [&str; 3] {
    ["image", "platform", "path"].map(|field| finding[field].as_str().unwrap())
}

#[test]
fn what_is_no_layout_is_told_and_nothing_is_written() {
    let place = Place::new();
    place.write("mine/thesis.txt", "three years");
    place.imgbuild("validate mine").run().fails(4).says("`mine` is no OCI layout");
    assert_eq!(names(&place.path("mine")), ["thesis.txt"]);
}

#[test]
fn an_image_at_a_registry_is_looked_at_like_one_of_a_layout() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let registry = Registry::new(Door::Open);
    place.imgbuild("push out --registry").arg(registry.host()).run().succeeds();
    for name in ["kernel-bin:5.10.1", "kernel-modules:5.10.1"] {
        let (local, there) = (format!("out:{name}"), format!("{}/{name}", registry.host()));
        for verb in ["inspect --files", "validate"] {
            let [local, there] =
                [&local, &there].map(|place_| place.imgbuild(verb).arg(place_).run().succeeds().stdout);
            assert_eq!(local, there, "{verb}");
            assert!(local.contains("arm64"), "{local}");
        }
        place.imgbuild("diff").arg(&local).arg(&there).run().succeeds().prints("hold the same images");
    }
    let absent = format!("{}/kernel-bin:6.1.1", registry.host());
    for verb in ["inspect", "validate", "diff out"] {
        place.imgbuild(verb).arg(&absent).run().fails(4).says(&absent);
    }
    assert_eq!(place.half_made(), [""; 0]);
}
