//! `imgbuild validate` tells what a kernel is fit for, and fails where that was demanded and is not so.

use crate::support::forge::{self, Forged, Item, elf, gzip};
use crate::support::registry::{Door, Registry};
use crate::support::{Place, real, sha256};
use imgbuild::inspect::roles;

/// The top of a configuration as kconfig writes it.
const HEADING: &str =
    "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 5.10.1 Kernel Configuration\n#\n";

/// A configuration with all that these roles may want, with a value.
fn config(roles: &[&str], value: &str) -> String {
    let lists = roles.iter().flat_map(|name| roles::role(name).unwrap().lists());
    let symbols = lists.flat_map(|list| list.symbols.iter().flatten());
    symbols.fold(HEADING.to_owned(), |text, symbol| text + &format!("CONFIG_{symbol}={value}\n"))
}

/// A kernel image with this configuration.
fn kernel(config: &str) -> Forged {
    let mut forged = Forged::kernel("amd64");
    forged.item("boot/config-5.10.1").content = config.into();
    forged.label("io.imgbuild.kernel.config", &format!("sha256:{}", sha256(config.as_bytes())));
    forged
}

/// A kernel that has this configuration embedded.
fn with_embedded(config: &str) -> Vec<u8> {
    [&elf(62)[..], b"IKCFG_ST", &gzip(config.as_bytes()), b"IKCFG_ED", b"more"].concat()
}

/// A modules image with these modules.
fn modules(names: &[&str]) -> Forged {
    let mut forged = Forged::modules("amd64");
    let module = |name: &&str| Item::file(&format!("lib/modules/5.10.1/kernel/{name}.ko"), elf(62));
    forged.items.extend(names.iter().map(module));
    forged
}

/// A place with these images in `out`.
fn place(images: &[Forged]) -> Place {
    let place = Place::new();
    forge::write(&place.path("out"), images);
    place
}

#[test]
fn a_real_kernel_is_told_what_it_is_fit_for_in_a_line_each() {
    let (place, _) = real::tiny();
    let outcome = place.imgbuild("validate out").run().succeeds();
    let needs = "  firecracker          not fit: needs CONFIG_ACPI (off), CONFIG_PCI (off)\n";
    outcome
        .prints(needs)
        .prints("  firecracker-no-acpi  fit; late: HW_RANDOM_VIRTIO; 11 optional missing: VIRTIO_NET, ")
        .prints("  qemu-microvm         fit; late: HW_RANDOM_VIRTIO; 1 optional missing: VIRTIO_NET\n")
        .prints("  kubeadm              not fit: needs CONFIG_NAMESPACES (off), ")
        .does_not_print("no modules image");
    place.imgbuild("validate out --role qemu-microvm --arch arm64").run().succeeds();
    let outcome = place.imgbuild("validate out --role qemu-microvm,firecracker").run().exits(5);
    outcome
        .says("error: `out` is not fit for `qemu-microvm`, `firecracker`\n")
        .says("  kernel-bin-tiny:5.10.262 amd64: firecracker: not fit: needs CONFIG_ACPI (off), CONFIG_PCI (off)\n")
        .does_not_say("arm64");
}

#[test]
fn what_is_late_and_what_is_not_in_the_modules_image_is_told() {
    let text = config(&["flintlock", "ipvs"], "m") + "CONFIG_VIRTIO_BLK=y\nCONFIG_EXT4_FS=y\n";
    let alone = place(&[kernel(&text)]);
    let outcome = alone.imgbuild("validate out --role ipvs,flintlock").run().succeeds();
    outcome
        .prints("  no modules image beside it: each =m is taken to be there; --modules names one\n")
        .prints("  flintlock            fit; late: VIRTIO_NET, PACKET, INET, BLK_DEV_INITRD and 3 more\n")
        .prints("  ipvs                 fit\n");
    let outcome = alone.imgbuild("validate out -v").run().succeeds();
    outcome.prints("    late     CONFIG_PACKET (=m): metadata over the network, by which ");
    // The same with modules, one of which has another spelling and one is compressed.
    let all = ["ip-vs", "ip_vs_rr", "dummy", "xt_set"];
    let with = place(&[kernel(&text), modules(&all)]);
    let outcome = with.imgbuild("validate out").run().succeeds();
    let missing = "CONFIG_IP_VS_WRR (=m, but not in the modules image)";
    outcome.prints(missing).does_not_print("CONFIG_IP_VS_RR (").does_not_print("CONFIG_DUMMY (");
    with.imgbuild("validate out --role ipvs").run().exits(5).says(missing).says("CONFIG_IP_SET (=m");
}

#[test]
fn programs_are_told_all_of_it() {
    let place = place(&[kernel(&config(&["kubeadm"], "y")), modules(&[])]);
    let json = place.imgbuild("validate out --kubernetes v1.34.1 --format json").run().succeeds().json();
    let kernel = &json["kernels"][0];
    assert_eq!(kernel["image"], "kernel-bin:5.10.1");
    assert_eq!((&kernel["release"], &kernel["config"]), (&"5.10.1".into(), &"boot/config-5.10.1".into()));
    assert_eq!((&kernel["modules"], &kernel["unjudged"]), (&"kernel-modules:5.10.1".into(), &().into()));
    let of =
        |role: &str| kernel["fitness"].as_array().unwrap().iter().find(|one| one["role"] == role).unwrap();
    assert_eq!((&of("kubeadm")["fit"], &of("kubeadm")["kubernetes"]), (&true.into(), &"1.34.1".into()));
    let need = &of("firecracker")["needs"][0];
    assert_eq!(need["symbols"], serde_json::json!(["VIRTIO_MMIO"]));
    assert_eq!((&need["state"], &need["level"]), (&"off".into(), &"built-in".into()));
    assert!(need["source"].as_str().unwrap().starts_with("firecracker docs/"));
}

#[test]
fn kubernetes_versions_are_asked_for_or_those_of_the_root_volumes() {
    let mut root = Forged::kernel("amd64");
    (root.name, root.items) = ("root:1".into(), vec![Item::directory("etc")]);
    root.labels = [("io.imgbuild.kubernetes.version".to_owned(), "1.34.1".to_owned())].into();
    let mut old = kernel(&config(&["kubeadm"], "y").replace("5.10.1", "4.19.215"));
    old.label("io.imgbuild.kernel.release", "4.19.215");
    old.item("boot/config-5.10.1").path = "boot/config-4.19.215".into();
    let place = place(&[old, root]);
    let refusal = "kubeadm 1.34.1       not fit: takes Linux 5.4, 5.10, 5.15, 6.0 or newer, not 4.19.215\n";
    place.imgbuild("validate out").run().succeeds().prints(refusal);
    let outcome = place.imgbuild("validate out --role kubeadm").run().exits(5);
    outcome.says("kubeadm 1.34.1: not fit: takes Linux 5.4, ");
    let outcome = place.imgbuild("validate out --kubernetes 1.23.5").run().succeeds();
    outcome.prints("kubeadm 1.23.5       fit\n").prints(refusal);
    let outcome = place.imgbuild("validate out --kubernetes 1.23.5,1.35").run().exits(5);
    outcome.says("error: `out` is not fit for `kubeadm 1.23.5`, `kubeadm 1.35`\n");
    let outcome = place.imgbuild("validate out --kubernetes soon").run().exits(2);
    outcome.says("error: `--kubernetes soon` is not a version of Kubernetes\nhint: such as 1.34.1");
}

#[test]
fn a_role_that_nobody_knows_is_told_with_the_nearest() {
    let place = place(&[kernel(HEADING)]);
    let outcome = place.imgbuild("validate out --role kubeadmin").run().exits(2);
    outcome
        .says("error: unknown role `kubeadmin`; known are `firecracker`, ")
        .says("hint: did you mean `kubeadm`?");
    let outcome = place.imgbuild("validate out --role node").run().exits(2);
    outcome.says("hint: `imgbuild list roles` tells what each is");
}

#[test]
fn a_place_without_a_kernel_is_fit_for_nothing() {
    let outcome = place(&[modules(&[])]).imgbuild("validate out --role ipvs").run().exits(2);
    outcome.says("error: `out` holds no kernel that could be fit for anything\nhint: ");
}

#[test]
fn a_kernel_without_a_configuration_says_so_unless_it_has_it_embedded() {
    let mut bare = kernel("");
    bare.without("boot/config-5.10.1");
    bare.labels.clear();
    let told = "there is no boot/config-RELEASE, and the kernel has none embedded (CONFIG_IKCONFIG)";
    let foreign = place(&[bare.clone()]);
    foreign
        .imgbuild("validate out")
        .run()
        .succeeds()
        .prints(format!("  what it is fit for cannot be told: {told}\n"));
    let outcome = foreign.imgbuild("validate out --role ipvs").run().exits(5);
    outcome.says(format!("  kernel-bin:5.10.1 amd64: cannot be told: {told}\n"));
    bare.item("boot/vmlinux").content = with_embedded(&config(&["ipvs"], "y"));
    let place = place(&[bare]);
    let json = place.imgbuild("validate out --role ipvs --format json").run().succeeds().json();
    assert_eq!(json["kernels"][0]["config"], "embedded in boot/vmlinux");
    assert_eq!(json["kernels"][0]["release"], "5.10.1");
}

/// A kernel image whose configuration is not what it should be is found unsound for this reason.
#[track_caller]
fn is_found(image: Forged, finding: &str) {
    let outcome = place(&[image]).imgbuild("validate out").run().exits(5);
    outcome.prints(format!("kernel-bin:5.10.1 amd64: {finding}")).says("1 finding");
}

#[test]
fn a_configuration_that_is_cut_off_or_of_another_kernel_is_found() {
    let whole = config(&["ipvs"], "y");
    let path = "boot/config-5.10.1: it";
    let cut = |text: &str, end| is_found(kernel(text), &format!("{path} is cut off: it ends in `{end}`\n"));
    cut(whole.trim_end_matches("y\n"), "CONFIG_NETFILTER_XT_MATCH_IPVS=");
    cut(&format!("{whole}# CONFIG_A is n"), "# CONFIG_A is n");
    cut(&format!("{whole}CONFIG_B=\"b"), "CONFIG_B=\"b");
    // Some that are kept elsewhere lack the end of their last line.
    place(&[kernel(whole.trim_end())]).imgbuild("validate out").run().succeeds();
    let wrong = format!("{path} is no kernel configuration: line 5 is neither a symbol nor a comment\n");
    is_found(kernel(&format!("{HEADING}<html>\nCONFIG_A=y\n")), &wrong);
    is_found(kernel("text\n"), &format!("{path} is no kernel configuration: there is no symbol in it\n"));
    let other = format!("{path} is a configuration of Linux 5.15.2 for x86_64, beside 5.10.1 for x86_64\n");
    is_found(kernel(&whole.replace("x86 5.10.1", "x86 5.15.2")), &other);
    let odd = place(&[kernel(&whole.replace("x86 5.10.1", "x86 5.10.0"))]);
    let note =
        "note: kernel-bin:5.10.1 amd64: boot/config-5.10.1: it is a configuration of Linux 5.10.0 for ";
    odd.imgbuild("validate out").run().succeeds().prints(note);
    let other = format!("{path} is a configuration of Linux 5.10.1 for arm64, beside 5.10.1 for x86_64\n");
    is_found(kernel(&whole.replace("x86 5.10.1", "arm64 5.10.1")), &other);
    let mut image = kernel(&whole);
    image.item("boot/vmlinux").content = with_embedded(&whole);
    place(&[image.clone()]).imgbuild("validate out").run().succeeds();
    image.item("boot/vmlinux").content = with_embedded(&whole.replace("IP_VS=y", "IP_VS=m"));
    is_found(image, &format!("{path} is not the configuration that boot/vmlinux has embedded\n"));
}

#[test]
fn modules_are_named_and_those_of_another_kernel_are_found() {
    let text = config(&["ipvs"], "m");
    let place = place(&[kernel(&text)]);
    let named = |image: Forged| {
        forge::write(&place.path("named"), &[image]);
        let outcome = place.imgbuild("validate out --modules named").run();
        fs_err::remove_dir_all(place.path("named")).unwrap();
        outcome
    };
    let outcome = named(modules(&["ip_vs"])).succeeds();
    outcome
        .prints("ipvs                 not fit: needs CONFIG_IP_VS_PROTO_TCP (=m, but not in")
        .does_not_print("CONFIG_IP_VS (");
    let mut other = modules(&[]);
    for item in &mut other.items {
        item.path = item.path.replace("5.10.1", "5.10.2");
    }
    let finding = "kernel-modules:5.10.1 amd64: its modules are of 5.10.2, the kernel of kernel-bin:5.10.1 is 5.10.1: \
                   modprobe looks for lib/modules/5.10.1\n";
    named(other).exits(5).prints(finding);
    let mut tiny = modules(&[]);
    tiny.label("io.imgbuild.flavour", "tiny");
    tiny.label("io.imgbuild.kernel.config", &format!("sha256:{}", "1".repeat(64)));
    let finding = "its modules (flavour tiny) were built with another configuration than kernel-bin:5.10.1 (flavour unknown)";
    named(tiny).exits(5).prints(finding);
    let outcome = named(kernel(&text)).exits(2);
    outcome.says("error: `--modules named` has no modules: nothing in lib/modules\n");
}

#[test]
fn images_at_a_registry_are_judged_too() {
    let text = config(&["ipvs"], "m");
    let (registry, place) = (Registry::new(Door::Open), place(&[kernel(&text), modules(&["ip_vs"])]));
    let prefix = format!("{}/kernels", registry.host());
    place.imgbuild(&format!("push out --registry {prefix}")).run().succeeds();
    let kernel = format!("validate {prefix}/kernel-bin:5.10.1 --role ipvs");
    place.imgbuild(&kernel).run().succeeds().prints("no modules image beside it");
    let outcome =
        place.imgbuild(&format!("{kernel} --modules {prefix}/kernel-modules:5.10.1")).run().exits(5);
    outcome.says("ipvs: not fit: needs CONFIG_IP_VS_PROTO_TCP");
}
