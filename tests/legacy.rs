//! Images for Flintlock up to 0.4.0 and CAPMVM up to 0.7.0: kernel and modules in one, root volumes with modules inside,
//! and names for arm64 alone. All of them are made of what the other images are made of.

use crate::support::layout::Layout;
use crate::support::real;
use crate::support::registry::{Door, Registry};
use crate::support::source::{FRAGMENT, Gate, RECIPE, Source};
use crate::support::{Place, host, tool};

const KERNEL: &str = "kernel-bin:5.10.1";
const MODULES: &str = "kernel-modules:5.10.1";
const COMBINED: &str = "flintlock-kernel:5.10.1";
const ARM: &str = "flintlock-kernel-arm:5.10.1";
const BOTH: &str = "--arch x86_64,arm64";

/// A place that is a catalogue of one flavour.
fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

#[test]
fn a_combined_image_is_the_layers_of_the_other_two_and_nothing_is_compiled_for_it() {
    let mut place = Place::new();
    let gate = Gate::open_in(&place);
    Source::new().gate(&gate).install(&mut place);
    place.imgbuild(&format!("kernel 5.10.1 {BOTH}")).run().succeeds();
    let (plain, begun, made) =
        (Layout::at(place.path("out")).images(), gate.begun(), place.artifacts("layer"));
    let outcome = place
        .imgbuild(&format!("kernel 5.10.1 {BOTH} --outputs kernel,combined,modules --output both"))
        .run()
        .succeeds();
    let layout = Layout::at(place.path("both"));
    let images = layout.images();
    assert_eq!(images.keys().collect::<Vec<_>>(), [ARM, COMBINED, KERNEL, MODULES]);
    assert_eq!((&images[KERNEL], &images[MODULES]), (&plain[KERNEL], &plain[MODULES]));
    assert_eq!(
        (gate.begun(), place.artifacts("layer")),
        (begun, made),
        "nothing is compiled or packed again"
    );
    let _ = outcome.does_not_say("compile").prints(format!("{COMBINED}\n  index   sha256:"));

    for architecture in ["amd64", "arm64"] {
        let (kernel, modules) = (layout.image(KERNEL, architecture), layout.image(MODULES, architecture));
        let combined = layout.layered(COMBINED, architecture);
        assert_eq!(combined.layers(), [kernel.layers(), modules.layers()].concat());
        for (label, value) in [
            ("org.opencontainers.image.title", "flintlock-kernel"),
            ("io.imgbuild.role", "combined"),
            ("io.imgbuild.kernel.release", "5.10.1"),
            ("io.imgbuild.kernel.config", kernel.label("io.imgbuild.kernel.config")),
        ] {
            assert_eq!(combined.label(label), value);
        }
        let _ = combined.entry("boot/vmlinux");
        let _ = combined.entry("lib/modules/5.10.1/kernel/drivers/toy.ko");
    }
    place.imgbuild("validate both").run().succeeds().prints(" sound: ");
}

#[test]
fn the_name_for_arm64_is_the_member_itself_and_there_only_with_it() {
    let place = toys();
    let outcome =
        place.imgbuild(&format!("kernel 5.10.1 {BOTH} --outputs combined --format json")).run().succeeds();
    let layout = Layout::at(place.path("out"));
    let images = layout.images();
    assert_eq!(images.keys().collect::<Vec<_>>(), [ARM, COMBINED]);
    let index = layout.image_index(COMBINED);
    assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
    assert_eq!(index["manifests"][1]["digest"], images[ARM]);
    // No index: a manifest, with the kernel where specs for arm64 look for it.
    let manifest = layout.image_index(ARM);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(layout.layered(COMBINED, "arm64").entry("boot/image").kind, tar::EntryType::Regular);
    let json = outcome.json();
    let built = json["images"].as_array().unwrap_or_else(|| panic!("{json}"));
    let alias = built.iter().find(|image| image["name"] == ARM).unwrap_or_else(|| panic!("{json}"));
    assert_eq!(alias["digest"], alias["platforms"][0]["digest"]);
    assert_eq!(alias["platforms"][0]["architecture"], "arm64");

    let text = place.imgbuild(&format!("kernel 5.10.1 {BOTH} --outputs combined")).run().succeeds();
    text.prints(format!("{ARM}\n  arm64   sha256:"));
    place.imgbuild("kernel 5.10.1 --arch x86_64 --outputs combined --output alone").run().succeeds();
    assert_eq!(Layout::at(place.path("alone")).images().into_keys().collect::<Vec<_>>(), [COMBINED]);
}

#[test]
fn a_registry_with_the_other_images_gets_no_layer_twice() {
    let (place, registry) = (toys(), Registry::new(Door::Tokens));
    registry.log_in(&place);
    place.imgbuild(&format!("kernel 5.10.1 {BOTH} --outputs kernel,modules,combined")).run().succeeds();
    let push = format!("push out --format json --registry {}/org", registry.host());
    let json = place.imgbuild(&push).run().succeeds().json();
    let images = json["images"].as_array().unwrap_or_else(|| panic!("{json}"));
    let sum = |what: &str| images.iter().filter_map(|image| image[what].as_u64()).sum::<u64>();
    // Four layers, and a configuration for each of two platforms of three images; all else is there by then.
    assert_eq!((sum("sent"), sum("mounted")), (10, 7), "{json:#}");
    assert_eq!(registry.blobs("org/flintlock-kernel").len(), 6);
    assert_eq!(registry.blobs("org/flintlock-kernel-arm").len(), 3);
    let pushed = registry.manifest("org/flintlock-kernel-arm", "5.10.1");
    assert_eq!(
        pushed,
        Some(Layout::at(place.path("out")).blob(&Layout::at(place.path("out")).images()[ARM]))
    );
}

#[test]
fn a_recipe_names_its_images_and_plan_tells_them() {
    let place = toys();
    let recipe = format!("outputs = [\"combined\"]\n{RECIPE}\n[image]\ncombined = \"old/both\"\n");
    place.write("recipes/kernel/toy.toml", &recipe);
    place
        .imgbuild(&format!("plan 5.10.1 {BOTH}"))
        .run()
        .succeeds()
        .prints("assemble  old/both:5.10.1")
        .prints("from the kernel and modules of amd64 and arm64")
        .prints("name  old/both-arm:5.10.1")
        .prints("from arm64 of old/both:5.10.1")
        .does_not_print("kernel-bin");
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    assert_eq!(Layout::at(place.path("out")).images().into_keys().collect::<Vec<_>>(), ["old/both:5.10.1"]);
    // One's own recipe makes the same, and the command line has the last word.
    place.write("mine.toml", "kind = \"kernel\"\nname = \"mine\"\nextends = \"toy\"\n");
    let mine = "kernel 5.10.1 --arch x86_64 --recipe mine.toml --output";
    place.imgbuild(&format!("{mine} mine")).run().succeeds().prints("flintlock-kernel-mine:5.10.1");
    place.imgbuild(&format!("{mine} own --outputs kernel")).run().succeeds().prints("kernel-bin-mine:5.10.1");
}

#[test]
fn what_is_shipped_for_old_consumers_is_the_same_kernel() {
    let place = Place::new();
    let steps = |words: &str| {
        let json = place.imgbuild(&format!("{words} --format json")).run().succeeds().json();
        json["steps"].as_array().cloned().unwrap_or_else(|| panic!("{json}"))
    };
    let keys = |flavour: &str| {
        let steps = steps(&format!("plan 5.10.77 4.19.215 --arch all --flavour {flavour}"));
        let compiled = steps.iter().filter(|step| step["step"] == "compile");
        compiled.map(|step| step["key"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let (new, old) = (keys("firecracker"), keys("flintlock"));
    assert_eq!((new.len(), &new), (4, &old));
    let old = steps("os --recipe capmvm-kubernetes --k8s 1.22.8 --arch all --dry-run");
    let named: Vec<_> = old.iter().filter_map(|step| step["what"].as_str()).collect();
    for what in
        ["capmvm-kubernetes:1.22.8", "capmvm-kubernetes-arm:1.22.8", "modules 5.10.77 arm64 in the root"]
    {
        assert!(named.contains(&what), "{what} is not in {named:?}");
    }
    let compiled: Vec<_> = old.iter().filter(|step| step["step"] == "compile").collect();
    assert_eq!(compiled.len(), 2, "{compiled:?}");
    assert!(compiled.iter().all(|step| new.contains(&step["key"].as_str().map(str::to_owned))));
}

#[test]
fn a_combined_image_boots_with_the_modules_it_holds() {
    let (place, _) = real::tiny();
    let _alone = real::alone();
    let words = format!("kernel 5.10.262 --flavour tiny {BOTH} --outputs combined --output legacy");
    place.imgbuild(&words).run().succeeds();
    // For arm64 it has two names.
    for (arch, machine) in [("x86_64", "x86_64"), ("arm64", "aarch64")] {
        let boot = format!("boot legacy --arch {arch} --load virtio_rng,overlay");
        place
            .imgbuild(&boot)
            .run()
            .succeeds()
            .prints(format!("Linux 5.10.262 {machine} booted under QEMU"))
            .prints("  virtio_rng: loaded from the volume\n")
            .prints("  overlay: loaded from the volume\n");
    }
}

#[test]
fn a_root_volume_holds_a_kernels_modules_where_its_lib_leads() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let arch = host();
    place.imgbuild("os --recipe debian-12 --arch").arg(arch).run().succeeds();
    let words = "os --recipe debian-12 --modules-of tiny/5.10.262 --output old --arch";
    place.imgbuild(words).arg(arch).run().succeeds().prints("debian-os-with-modules:12");
    let architecture = crate::support::node::architecture();
    let plain = Layout::at(place.path("out")).layered("debian-os:12", architecture);
    let layout = Layout::at(place.path("old"));
    let old = layout.layered("debian-os-with-modules:12", architecture);
    // The same volume, and one layer on top.
    let (last, below) =
        old.layers().split_last().map(|(last, below)| (*last, below.to_vec())).expect("layers");
    assert_eq!(below, plain.layers());
    assert_ne!(plain.layers().last(), Some(&last));
    assert_eq!(old.label("io.imgbuild.role"), "os");
    assert_eq!(old.label("io.imgbuild.kernel.release"), "5.10.262");
    assert_eq!(old.label("io.imgbuild.flavour"), "tiny");
    let top: Vec<_> = old.entries[plain.entries.len()..].iter().map(|(path, _)| path.as_str()).collect();
    assert!(top.contains(&"usr/lib/modules/5.10.262/modules.dep.bin"), "{top:?}");
    assert!(top.iter().all(|path| path.starts_with("usr/lib/modules")), "lib is a link of the base: {top:?}");
    assert!(!top.contains(&"kernel") && !top.contains(&"usr/lib/modules/kernel"), "{top:?}");
    // As modprobe finds it in the unpacked root.
    for (path, entry) in &old.entries[plain.entries.len()..] {
        if entry.kind.is_file() {
            place.write(&format!("root/{path}"), &entry.content);
        }
    }
    std::os::unix::fs::symlink("usr/lib", place.path("root/lib")).expect("a new link");
    let root = place.path("root");
    let args =
        ["-d".as_ref(), root.as_os_str(), "-S".as_ref(), "5.10.262".as_ref(), "--show-depends".as_ref()];
    let shown = tool("modprobe", &[&args[..], &["overlay".as_ref()]].concat());
    assert!(shown.contains("/kernel/fs/exportfs/exportfs.ko"), "{shown}");
    place.imgbuild("validate old").run().succeeds().prints(" sound: ");
}

#[test]
fn outputs_that_are_none_are_refused_on_the_command_line_and_in_recipes() {
    let place = toys();
    place
        .imgbuild("kernel 5.10.1 --outputs kernel,combine")
        .run()
        .fails(2)
        .says("unknown output `combine`; known are `kernel`, `modules`, `combined`, `headers`");
    place.write("recipes/kernel/toy.toml", format!("outputs = [\"combine\", \"kernel\"]\n{RECIPE}"));
    place
        .imgbuild("kernel 5.10.1")
        .run()
        .fails(3)
        .says("unknown output `combine`; known are")
        .says("recipes/kernel/toy.toml:1:12")
        .says("did you mean `combined`?");
    place.write("recipes/kernel/toy.toml", format!("outputs = []\n{RECIPE}"));
    place.imgbuild("kernel 5.10.1").run().fails(3).says("`outputs` is empty: nothing would be built");
    assert!(!place.path("out").exists());
}

#[test]
fn images_of_modules_that_a_kernel_has_not_are_refused_before_it_is_compiled() {
    let place = toys();
    let bare = FRAGMENT.replace("CONFIG_MODULES=y\n", "").replace("CONFIG_TOY=m\n", "");
    place.write("kconfigs/toy.config", bare);
    for (outputs, told) in
        [("combined", "`combined`"), ("kernel,headers", "`headers`"), ("modules,kernel", "`modules`")]
    {
        place
            .imgbuild(&format!("kernel 5.10.1 --arch x86_64 --outputs {outputs}"))
            .run()
            .fails(2)
            .says(format!(
                "Linux 5.10.1 for x86_64 of flavour `toy` has no modules, so there is no output {told}"
            ))
            .says("hint: `CONFIG_MODULES=y` in a fragment of the recipe, or `--outputs kernel`");
    }
    assert!(place.artifacts("kernel").is_empty() && !place.path("out").exists());
    // Where nobody asked, there are no modules and that is all.
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds().does_not_print("kernel-modules");
}

#[test]
fn no_two_images_have_one_name() {
    let place = toys();
    let call = |name: &str| {
        place.write("recipes/kernel/toy.toml", format!("{RECIPE}\n[image]\ncombined = \"{name}\"\n"));
        place.imgbuild("kernel 5.10.1 --outputs kernel,combined").run()
    };
    call("kernel-bin")
        .fails(3)
        .says("the recipe `toy` calls two images `kernel-bin`: its kernel and its combined")
        .says("hint: give each a name of its own in the table `[image]`");
    place.write(
        "recipes/kernel/toy.toml",
        format!("{RECIPE}\n[image]\nkernel = \"x-arm\"\ncombined = \"x\"\n"),
    );
    place
        .imgbuild("kernel 5.10.1 --outputs kernel,combined")
        .run()
        .fails(3)
        .says("the recipe `toy` calls two images `x-arm`");
    assert!(!place.path("out").exists());
}

/// An OS recipe beside the toys.
fn system(place: &Place, more: &str) {
    let recipe = format!(
        "kind = \"os\"\nname = \"plain\"\nversion = \"1\"\narchive = \"test\"\nsuites = [\"s\"]\ncomponents = [\"main\"]\n\
         snapshot = \"20260901T000000Z\"\nkeyring = \"debian-archive-keyring\"\npackages = [\"base-files\"]\n{more}"
    );
    place.write("recipes/os/plain.toml", recipe);
}

#[test]
fn modules_that_a_root_volume_cannot_have_are_refused_before_it_is_made() {
    let place = toys();
    system(&place, "");
    let os =
        |words: &str| place.imgbuild(&format!("os --recipe plain --arch x86_64 --modules-of {words}")).run();
    os("5.10.x").fails(2).says("`5.10.x` is not a kernel version");
    os("none/5.10.1").fails(2).says("unknown flavour `none`");
    os("5.10.9").fails(2).says("kernel 5.10.9 is not pinned");
    place.write(
        "recipes/kernel/other.toml",
        "kind = \"kernel\"\nname = \"other\"\nseries = [\"5.10\"]\n[arch.arm64]\nfragments = [\"toy.config\"]\n",
    );
    os("other/5.10.1").fails(2).says("flavour `other` is not made for x86_64");
    place.write("kconfigs/bare.config", "CONFIG_NUMBER=3\n");
    place.write(
        "recipes/kernel/bare.toml",
        "kind = \"kernel\"\nname = \"bare\"\nseries = [\"5.10\"]\nfragments = [\"bare.config\"]\n",
    );
    os("bare/5.10.1").fails(2).says("of flavour `bare` has no modules");
    system(&place, "[image]\nname = \"root\"\ncombined = \"root\"\n");
    os("5.10.1").fails(3).says("calls two images `root`: its plain image and its image with modules");
    system(&place, "modules-of = \"toy/five\"\n");
    place
        .imgbuild("os --recipe plain --arch x86_64")
        .run()
        .fails(3)
        .says("`five` is not a kernel version")
        .says("a kernel: `5.10.77`, or with its flavour `firecracker/5.10.77`");
    assert!(place.artifacts("base").is_empty() && !place.path("out").exists());
}
