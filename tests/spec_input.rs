//! `imgbuild spec` on what consumers would refuse: told before they do, with the thing, the place and the way out.

use crate::support::Outcome;
use crate::support::forge::{self, Forged, Item};
use crate::support::machine::{KERNEL, MODULES, ROOT, images, offered, offline, place_of, root, spec};

#[test]
fn references_without_a_host_are_refused() {
    let place = place_of(&images());
    for name in ["org/kernel-bin:5.10.1", "kernel-bin:5.10.1"] {
        let outcome = spec(&place, &format!("--format hammertime --kernel {name}")).run().fails(2);
        outcome.says(format!("`{name}` is neither a layout nor a reference")).says("no registry host");
    }
    spec(&place, "out --format hammertime --offline")
        .run()
        .fails(2)
        .says("which registry it was pushed to")
        .says("hint: `--registry");
    let run = spec(&place, "out --format hammertime --offline --registry org").run();
    run.fails(2).says("`org` is no image reference: it has no registry host");
    spec(&place, "--format hammertime --kernel registry.example/kernel-bin")
        .run()
        .fails(2)
        .says("neither tag nor digest");
}

#[test]
fn sizes_out_of_range_are_refused() {
    for (words, reason) in [
        ("--memory 1023", "memory is 1023 MiB: Flintlock takes 1024 to 32768"),
        ("--memory 32769", "memory is 32769 MiB"),
        ("--vcpu 0", "vcpu is 0: Flintlock takes 1 to 64"),
        ("--vcpu 65", "vcpu is 65: Flintlock takes 1 to 64"),
        ("--vcpu 34", "vcpu is 34: Firecracker takes at most 32"),
        ("--vcpu 3", "vcpu is 3: Firecracker takes 1 or an even number"),
    ] {
        for format in ["flintlock", "flintlock-http", "hammertime", "capmvm"] {
            offered(&format!("--format {format} {words}"))
                .fails(2)
                .says(format!("error: {reason}"))
                .says("hint: `--");
        }
    }
    for words in [
        "--memory 1024",
        "--memory 32768",
        "--vcpu 1",
        "--vcpu 32",
        "--vcpu 3 --arch arm64",
        "--vcpu 64 --provider cloudhypervisor",
    ] {
        offered(&format!("--format hammertime {words}")).succeeds();
    }
    // All at once.
    let both = offered("--format hammertime --vcpu 0 --memory 5 --name A").fails(2);
    both.says("error: 3 values would be refused")
        .says("  the name is `A`")
        .says("  vcpu is 0")
        .says("  memory is 5 MiB");
}

#[test]
fn names_are_what_hosts_and_kubernetes_take() {
    for name in ["a", "demo-md-0", "0"] {
        offered(&format!("--format hammertime --name {name} --namespace {name}")).succeeds();
    }
    for name in ["A", "a_b", "-a", "a-", "ns/a", "a.b", &"a".repeat(64)] {
        let reason = format!("is `{name}`: it is of a-z");
        offered("--format flintlock").succeeds();
        let with = |option: &str| {
            spec(&offline(&images()), "out --offline --format flintlock")
                .arg(format!("{option}={name}"))
                .run()
        };
        with("--name").fails(2).says(format!("the name {reason}"));
        with("--namespace").fails(2).says(format!("the namespace {reason}"));
    }
    offered("--format capmvm --name demo.example").succeeds();
    offered("--format capmvm --namespace demo.example").fails(2).says("the namespace is `demo.example`");
    offered("--format hammertime --name a --name b").fails(2).says("one machine has one name, not `a`, `b`");
}

#[test]
fn interfaces_are_what_flintlock_takes() {
    for (words, reason) in [
        ("--interface eth0", "`eth0` is Flintlock's own interface"),
        ("--interface Eth1", "the interface is called `Eth1`"),
        ("--interface eth1 --interface eth1", "two interfaces are called `eth1`"),
        ("--interface eth1,type=macvtap", "Flintlock refuses those with Firecracker"),
        ("--interface eth1,type=macvtap --provider firecracker", "Flintlock refuses those with Firecracker"),
        ("--interface eth1,address=192.168.1.2", "no address with a prefix"),
        ("--interface eth1,address=192.168.1.2/33", "no address with a prefix"),
        ("--interface eth1,address=10.0.0.2/8,gateway=10.0.0.1", "no gateway with a prefix"),
        ("--interface eth1,gateway=10.0.0.1/8", "no address they go with"),
        ("--interface eth1,mac=02:00", "is no MAC address"),
        ("--interface eth1,mtu=9000", "`mtu=9000` is not understood"),
    ] {
        offered(&format!("--format hammertime {words}")).fails(2).says(reason).says("hint: ");
    }
    offered("--format capmvm --interface eth1,address=10.0.0.2/8,gateway=10.0.0.1/8")
        .fails(2)
        .says("CAPMVM's interfaces have no field");
    offered("--format hammertime --interface eth1,type=macvtap --provider cloudhypervisor").succeeds();
    // Not to be found by its name in the guest, so it gets an address of its own.
    let json = offered("--format hammertime --interface lan --interface eth2").succeeds().json();
    assert!(
        json["interfaces"][0]["guest_mac"].is_string() && json["interfaces"][1]["guest_mac"].is_null(),
        "{json}"
    );
}

/// What comes of a layout with one image changed.
fn changed(number: usize, change: impl FnOnce(&mut Forged), words: &str) -> Outcome {
    let mut images = images();
    change(&mut images[number]);
    spec(&offline(&images), &format!("out --offline --format hammertime {words}")).run()
}

#[test]
fn the_kernels_file_is_looked_at() {
    let without = changed(0, |kernel| kernel.without("boot/vmlinux"), "").fails(5);
    without.says(format!(
        "`registry.example/org/{KERNEL}` for x86_64 has no file `boot/vmlinux`; boot has `config-5.10.1`"
    ));
    let arm = |words: &str| changed(3, |kernel| kernel.without("boot/vmlinux"), words);
    arm("").fails(5).says("for arm64 has no file `boot/vmlinux`");
    arm("--arch x86_64").succeeds();
    let link = |kernel: &mut Forged| {
        *kernel.item("boot/vmlinux") = Item::link("boot/vmlinux", tar::EntryType::Symlink, "config-5.10.1");
    };
    changed(0, link, "").fails(5).says("boot/vmlinux: it is no regular file");
    changed(0, |kernel| kernel.item("boot/vmlinux").mode = 0o600, "").fails(5).says("its mode is 0600");
    changed(0, |kernel| kernel.item("boot/vmlinux").content = forge::image(), "")
        .fails(5)
        .says("it is an arm64 Image, not an uncompressed x86_64 ELF");
    offered("--format hammertime --filename boot/Image").fails(5).says("has no file `boot/Image`; boot has");
    offered("--format hammertime --filename /boot/vmlinux").fails(2).says("it is a path in the image");
    offered("--format hammertime --filename ../vmlinux").fails(5).says("has no file `../vmlinux`");
    offered("--format capmvm-env --filename boot/config-5.10.1").fails(5).says("it is no kernel");
    let renamed = |kernel: &mut Forged| kernel.item("boot/vmlinux").path = "boot/bzImage".into();
    let mut images = images();
    [0, 3].into_iter().for_each(|number| renamed(&mut images[number]));
    let words = |format: &str| format!("out --offline --format {format} --filename boot/bzImage");
    let place = offline(&images);
    let json = spec(&place, &words("hammertime")).run().succeeds().json();
    assert_eq!(json["kernel"]["filename"], "boot/bzImage");
    spec(&place, &words("capmvm-env")).run().fails(2).says("no variable for it");
}

#[test]
fn modules_are_the_kernels() {
    let other = |images: &mut Vec<Forged>| {
        for number in [1, 4] {
            for item in &mut images[number].items {
                item.path = item.path.replace("5.10.1", "5.10.2");
                item.link = item.link.replace("5.10.1", "5.10.2");
            }
        }
    };
    let mut mixed = images();
    other(&mut mixed);
    let outcome = spec(&offline(&mixed), "out --offline --format hammertime").run().fails(2);
    outcome
        .says("the modules do not fit the kernel")
        .says("is for 5.10.2, the kernel in")
        .says("is 5.10.1")
        .says("hint: take both images of one build");
    // The banner in the kernel counts for more than its label.
    let banner =
        |kernel: &mut Forged| kernel.item("boot/vmlinux").content.extend(b"Linux version 5.10.9 (a@b)");
    changed(0, banner, "--arch x86_64").fails(2).says("the kernel in").says("is 5.10.9");
    let empty = |modules: &mut Forged| modules.items = vec![Item::directory("lib")];
    changed(1, empty, "").fails(5).says("has nothing in lib/modules");
    let nested = |modules: &mut Forged| modules.items.retain(|item| item.path.starts_with("lib"));
    changed(1, nested, "")
        .succeeds()
        .says("warning: `registry.example/org/kernel-modules:5.10.1` has nothing at its root");
    offered("--format hammertime --modules none")
        .succeeds()
        .says("there is no modules volume")
        .does_not_print("additional_volumes");
    offered("--format capmvm --modules none").succeeds().does_not_print("volumes:");
}

#[test]
fn images_are_held_to_what_they_are_named_for() {
    let place = offline(&images());
    let run = |words: &str| spec(&place, &format!("--offline --format hammertime {words}")).run();
    run(&format!("--kernel out:{MODULES}"))
        .fails(2)
        .says("is no kernel image: its label io.imgbuild.role says `modules`");
    run(&format!("--kernel out --root out:{KERNEL}")).fails(2).says("is no root volume");
    run("--kernel out:kernel-bin:9")
        .fails(4)
        .says("`out` has no kernel image `kernel-bin:9`; it has `capmvm-k8s-os:1.22.8`, `kernel-bin:5.10.1`");
    let mut two = images();
    let mut second = root("amd64");
    second.name = "capmvm-k8s-os:1.23.5".into();
    two.push(second);
    let place = offline(&two);
    let outcome = spec(&place, "out --offline --format hammertime").run().fails(2);
    outcome.says("which root volume is meant?").says("hint: name it: `--root out:capmvm-k8s-os:1.22.8`");
    spec(&place, &format!("out --offline --format hammertime --root out:{ROOT}")).run().succeeds();
}

#[test]
fn a_root_volume_is_needed_but_for_the_variables() {
    let without: Vec<_> = images().into_iter().filter(|image| image.name != ROOT).collect();
    let place = offline(&without);
    for format in ["capmvm", "flintlock", "flintlock-http", "hammertime"] {
        let outcome = spec(&place, &format!("out --offline --format {format}")).run().fails(2);
        outcome.says(format!("a {format} document needs a root volume")).says("hint: `--root DIR[:IMAGE]`");
    }
    let outcome = spec(&place, "out --offline --format capmvm-env").run().succeeds();
    outcome.does_not_print("MVM_ROOT_IMAGE").says("the cluster template takes one of its own");
}

#[test]
fn every_image_is_for_the_architecture_asked_for() {
    let arm: Vec<_> = images().into_iter().filter(|image| image.arch == "arm64").collect();
    let place = offline(&arm);
    let run = |words: &str| spec(&place, &format!("out --offline --format hammertime {words}")).run();
    run("--arch amd64")
        .fails(4)
        .says(format!("`registry.example/org/{KERNEL}` is not for x86_64: it is for `arm64`"))
        .says("hint: `--arch arm64`");
    run("").succeeds();
    // A root volume for one of two architectures serves hosts of that one.
    let narrow: Vec<_> =
        images().into_iter().filter(|image| image.name != ROOT || image.arch == "amd64").collect();
    let place = offline(&narrow);
    let run = |words: &str| spec(&place, &format!("out --offline --format hammertime {words}")).run();
    run("")
        .succeeds()
        .says("warning: this fits `x86_64` hosts alone")
        .says(format!("{ROOT}` is for `x86_64`"));
    run("--arch arm64").fails(4).says(format!("{ROOT}` is not for arm64"));
    let apart: Vec<_> =
        images().into_iter().filter(|image| (image.name == ROOT) == (image.arch == "arm64")).collect();
    spec(&offline(&apart), "out --offline --format hammertime")
        .run()
        .fails(2)
        .says("no architecture has all of the images");
}

#[test]
fn what_is_no_such_format_or_key_is_refused() {
    let place = offline(&images());
    spec(&place, "out --format ignite").run().exits(2).says("invalid value 'ignite'").says("hammertime");
    spec(&place, "out").run().exits(2).says("--format");
    place.write("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n");
    let outcome = spec(&place, "out --offline --format hammertime --ssh-key id").run().fails(2);
    outcome.says("`id` holds no public key").does_not_say("b3Bl");
    spec(&place, "out --offline --format hammertime --ssh-key gone")
        .run()
        .fails(2)
        .says("what `--ssh-key` names cannot be read");
    spec(&place, "out --offline --format hammertime --label env")
        .run()
        .fails(2)
        .says("names no key and value");
    spec(&place, "nowhere --offline --format hammertime").run().fails(4).says("`nowhere` is no OCI layout");
}
