//! `imgbuild boot` on real kernels: 5.10.262 tiny for both architectures, under QEMU.

use crate::support::real::{self, KERNEL};
use crate::support::source::Source;
use crate::support::{Place, names};

#[test]
fn both_architectures_boot_and_load_modules_from_the_volume() {
    let (place, _) = real::tiny();
    let _alone = real::alone();
    for (arch, machine) in [("x86_64", "x86_64"), ("arm64", "aarch64")] {
        let outcome = place.imgbuild("boot out --load virtio_rng,overlay --arch").arg(arch).run().succeeds();
        let outcome = outcome
            .prints(format!("Linux 5.10.262 {machine} booted under QEMU "))
            .prints("init after ")
            .prints("/proc/config.gz is readable")
            .prints("modules volume mounted at /lib/modules/5.10.262 (ext2)")
            .prints("  virtio_rng: loaded from the volume\n")
            .prints("  overlay: loaded from the volume\n");
        // Which accelerator, and why.
        assert!(outcome.stdout.contains("(TCG: ") || outcome.stdout.contains("(KVM: "), "{}", outcome.stdout);
    }
    assert_eq!(names(&place.path("")), ["out"], "a boot leaves nothing in the current directory");
}

#[test]
fn a_boot_for_programs_is_json() {
    let (place, _) = real::tiny();
    let _alone = real::alone();
    let outcome = place
        .imgbuild("boot out --arch arm64 --load rng-core,virtio_rng,overlay --accelerator tcg --format json")
        .run()
        .succeeds();
    let json = outcome.json();
    assert_eq!(json["release"], "5.10.262");
    assert_eq!(json["machine"], "aarch64");
    assert_eq!((&json["accelerator"], &json["accelerator_reason"]), (&"tcg".into(), &"asked for".into()));
    assert_eq!((&json["root_fs"], &json["volume_fs"]), (&"ext2".into(), &"ext2".into()));
    assert_eq!(json["config_readable"], true);
    let modules: Vec<_> =
        json["modules"].as_array().unwrap().iter().map(|module| module["name"].as_str().unwrap()).collect();
    assert_eq!(modules, ["rng_core", "virtio_rng", "overlay"]);
    let seconds = |name: &str| json[name].as_f64().unwrap();
    assert!(seconds("guest_seconds") > 0.0 && seconds("init_seconds") > 0.0, "{json}");
    assert!(seconds("whole_seconds") >= seconds("init_seconds"), "{json}");
    assert!(seconds("init_seconds") > seconds("kernel_seconds"), "{json}");
    assert_eq!((&json["vmm"], &json["expected"]), (&"qemu".into(), &serde_json::Value::Null));
    assert!(json["vmm_version"].as_str().unwrap().starts_with(|c: char| c.is_ascii_digit()), "{json}");
}

#[test]
fn a_text_that_is_waited_for_ends_the_boot_however_far_it_came() {
    let (place, _) = real::tiny();
    let _alone = real::alone();
    let words = "boot out --arch x86_64 --accelerator tcg --vmm qemu --expect";
    let outcome = place.imgbuild(words).arg("Run /init as init process").run().succeeds();
    outcome.prints("Linux 5.10.262 booted under QEMU ").prints(", `Run /init as init process` after ");
    let outcome = place.imgbuild(words).arg("never said").option("--timeout", "60").run().fails(8);
    outcome.says("error: the guest ended in the middle of init, without a panic (QEMU: exit status: 0)");
}

#[test]
fn acpi_is_for_qemus_x86() {
    let place = Place::new();
    place
        .imgbuild("boot out --arch arm64 --acpi on")
        .run()
        .fails(2)
        .says("`--acpi` is for the microvm of QEMU");
    place.imgbuild("boot out --expect").run().fails(2);
}

#[test]
fn the_console_is_printed_when_asked_for() {
    let (place, _) = real::tiny();
    let _alone = real::alone();
    let banner = "Linux version 5.10.262 (imgbuild@imgbuild)";
    place
        .imgbuild("boot out --arch x86_64 --console")
        .run()
        .succeeds()
        .prints(banner)
        .prints("booted under QEMU");
    place.imgbuild("boot out --arch x86_64").run().succeeds().does_not_print(banner);
}

#[test]
fn an_unknown_module_is_refused_with_its_neighbours_before_anything_boots() {
    let (place, _) = real::tiny();
    let outcome = place.imgbuild("boot out --arch x86_64 --load virtio_rgn,nonsense").run().fails(2);
    outcome
        .says("no module `virtio_rgn`, `nonsense` for 5.10.262")
        .says("hint: near to that are `virtio_rng`")
        .does_not_say("QEMU");
}

#[test]
fn a_guest_that_takes_too_long_is_stopped_and_its_console_shown() {
    let (place, _) = real::tiny();
    let _alone = real::alone();
    let begun = std::time::Instant::now();
    let run = place.imgbuild("boot out --arch x86_64 --accelerator tcg --timeout 0").run();
    run.fails(8).says("error: the guest was stopped before init, after 0").says("hint: ");
    assert!(begun.elapsed().as_secs() < 30);
}

#[test]
fn a_guest_that_panics_is_told_with_the_end_of_its_console_and_a_cure() {
    let mut place = Place::new();
    let cry = "[    0.310000] VFS: Cannot open root device \"vda\"\n\
               [    0.320000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n";
    Source::new().cry(cry).install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    let _alone = real::alone();
    let outcome = place.imgbuild("boot out --arch x86_64 --accelerator tcg --timeout 60").run().fails(8);
    outcome
        .says("error: the kernel panicked: VFS: Unable to mount root fs on unknown-block(0,0)")
        .says("VFS: Cannot open root device \"vda\"")
        .says("hint: the kernel found no disk: VIRTIO_MMIO, VIRTIO_BLK, VIRTIO_MMIO_CMDLINE_DEVICES or ACPI must be y");
}

#[test]
fn a_layout_without_the_architecture_is_told_with_what_it_has() {
    let (place, _) = real::tiny();
    place.imgbuild("kernel 5.10.262 --flavour tiny --arch x86_64 --output single").run().succeeds();
    place
        .imgbuild("boot single --arch arm64")
        .run()
        .fails(4)
        .says("`single` has no kernel image for arm64; it has `kernel-bin-tiny:5.10.262 (x86_64)`");
    let outcome = place.imgbuild("boot single --arch x86_64 --image kernel-bin:9").run().fails(4);
    outcome.says("no kernel image `kernel-bin:9` for x86_64").says(KERNEL);
}

#[test]
fn of_several_kernels_one_must_be_named() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    Source::new().version("5.10.9").install(&mut place);
    place.imgbuild("kernel 5.10.1 5.10.9 --arch x86_64").run().succeeds();
    place
        .imgbuild("boot out --arch x86_64")
        .run()
        .fails(2)
        .says("`out` holds `kernel-bin:5.10.1`, `kernel-bin:5.10.9` for x86_64: which one?")
        .says("hint: name it: `--image kernel-bin:5.10.1`");
}

#[test]
fn a_kernel_that_never_speaks_is_told_with_what_it_would_need_to() {
    // The made-up kernel halts at once.
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    let _alone = real::alone();
    let outcome = place.imgbuild("boot out --arch x86_64 --accelerator tcg --timeout 2").run().fails(8);
    outcome
        .says("error: the guest ")
        .says("hint: the console stayed empty: PRINTK, TTY, SERIAL_8250_CONSOLE must be y");
}

#[test]
fn a_kernel_qemu_has_no_way_into_is_refused() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.write("kconfigs/toy.config", "CONFIG_MODULES=y\nCONFIG_TOY=m\n");
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    // With the store that built it there would be its bzImage.
    let elsewhere = place.path("another-store");
    let outcome = place.imgbuild("boot out --arch x86_64").env("IMGBUILD_STORE", elsewhere).run().fails(8);
    outcome.says("has no PVH note").says("the kernel needs PVH=y");
}

#[test]
fn what_is_no_layout_is_refused() {
    let place = Place::new();
    let outcome = place.imgbuild("boot nowhere").run().fails(4);
    outcome.says("`nowhere` is no OCI layout").says("hint: `imgbuild kernel VERSION --output DIR` makes one");
    place.write("mine/thesis.txt", "three years");
    place.imgbuild("boot mine").run().fails(4).says("`mine` is no OCI layout");
}

#[test]
fn a_damaged_layout_is_refused_with_the_blob() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    let layout = crate::support::layout::Layout::at(place.path("out"));
    let image = layout.image("kernel-bin:5.10.1", "amd64");
    let layer = image.manifest["layers"][0]["digest"].as_str().unwrap();
    let path = place.path("out/blobs").join(layer.replace(':', "/"));
    let mut bytes = fs_err::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let outcome = place.imgbuild("boot out --arch x86_64").run().fails(5);
    outcome.says(&layer[7..]).says("does not have its digest").says("hint: the layout is damaged");
}
