//! `imgbuild spec`: documents for Flintlock, CAPMVM and hammertime, of images that lie where hosts would pull them from.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test does")]

mod support;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use serde_json::{Value, json};
use support::forge::{self, Forged, Item};
use support::registry::{Door, Registry};
use support::{Imgbuild, Outcome, Place};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB user@example";
const KERNEL: &str = "kernel-bin:5.10.1";
const MODULES: &str = "kernel-modules:5.10.1";
const ROOT: &str = "capmvm-k8s-os:1.22.8";

/// A root volume, as far as it is looked at.
fn root(arch: &str) -> Forged {
    let mut root = Forged::kernel(arch);
    root.name = ROOT.into();
    root.items = vec![Item::directory("etc"), Item::directory("usr")];
    root.labels.clear();
    root.label("io.imgbuild.role", "os");
    root.label("io.imgbuild.kubernetes.version", "1.22.8");
    root
}

/// All three images for both architectures.
fn images() -> Vec<Forged> {
    ["amd64", "arm64"]
        .iter()
        .flat_map(|arch| [Forged::kernel(arch), Forged::modules(arch), root(arch)])
        .collect()
}

/// A place with these images in `out`, and a public key.
fn place_of(images: &[Forged]) -> Place {
    let place = Place::new();
    forge::write(&place.path("out"), images);
    place.write("id.pub", format!("{KEY}\n"));
    place
}

/// The same, pushed.
fn pushed(images: &[Forged]) -> (Place, Registry) {
    let (mut place, registry) = (place_of(images), Registry::new(Door::Open));
    place.set("IMGBUILD_REGISTRY", format!("{}/org", registry.host()));
    place.imgbuild("push out").run().succeeds();
    (place, registry)
}

/// The same, for a registry that nobody asks.
fn offline(images: &[Forged]) -> Place {
    let mut place = place_of(images);
    place.set("IMGBUILD_REGISTRY", "registry.example/org");
    place
}

fn spec(place: &Place, words: &str) -> Imgbuild {
    place.imgbuild(&format!("spec {words}"))
}

fn offered(words: &str) -> Outcome {
    spec(&offline(&images()), &format!("out --offline {words}")).run()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The document must be the one in tests/golden; `IMGBUILD_GOLDEN=write` makes it so.
#[track_caller]
fn is_golden(outcome: &Outcome, name: &str) {
    if std::env::var_os("IMGBUILD_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(golden(name), &outcome.stdout).unwrap();
    }
    assert_eq!(outcome.stdout, fs::read_to_string(golden(name)).unwrap(), "tests/golden/{name}");
}

/// A text that the metadata of a machine has.
fn metadata(microvm: &Value, key: &str) -> String {
    let encoded = microvm["metadata"][key].as_str().unwrap();
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

/// Digests of the images that are made up here, which goldens have.
#[test]
fn each_document_is_as_recorded() {
    let place = offline(&images());
    let common = "out --offline --ssh-key id.pub";
    let whole = "--vcpu 4 --memory 4096 --namespace lab --cmdline quiet= --cmdline loglevel=3 --label env=lab \
                 --interface eth1,address=192.168.100.30/24,gateway=192.168.100.1/24,nameserver=192.168.100.1,bridge=br0 \
                 --interface eth2,mac=02:00:00:00:00:02";
    for (words, name) in [
        ("--format flintlock --name mvm1".to_owned(), "flintlock.json"),
        (format!("--format flintlock-http --name mvm1 {whole}"), "flintlock-http.json"),
        ("--format hammertime --digest".to_owned(), "hammertime.json"),
        ("--format hammertime --provider cloudhypervisor --interface lan,type=macvtap".to_owned(), "hammertime-cloud-hypervisor.json"),
        ("--format capmvm --name demo-control-plane --name demo-md-0 --provider firecracker".to_owned(), "capmvm.yaml"),
        ("--format capmvm --digest --namespace demo --vcpu 1 --memory 1024 --ssh-user ubuntu --cmdline quiet= --label env=lab --interface eth1,address=10.0.0.2/8".to_owned(), "capmvm-digest.yaml"),
        ("--format capmvm-env".to_owned(), "capmvm.env"),
        ("--format capmvm-env --digest --arch arm64".to_owned(), "capmvm-digest.env"),
    ] {
        is_golden(&spec(&place, &format!("{common} {words}")).run().succeeds(), name);
    }
}

#[test]
fn http_takes_the_microvm_of_the_grpc_request() {
    let place = offline(&images());
    let json =
        |format: &str| spec(&place, &format!("out --offline --format {format}")).run().succeeds().json();
    let request = json("flintlock");
    assert_eq!(request.as_object().unwrap().len(), 1);
    assert_eq!(request["microvm"], json("flintlock-http"));
    assert_eq!(request["microvm"], json("hammertime"));
}

#[test]
fn the_guest_is_told_its_name_and_keys() {
    let json = offered("--format hammertime --name mvm1 --ssh-key id.pub").succeeds().json();
    let (meta, user) = (metadata(&json, "meta-data"), metadata(&json, "user-data"));
    let meta: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(&meta).unwrap();
    let names = ["local-hostname", "local_hostname"].map(|key| meta[key].as_str());
    assert_eq!(names, ["mvm1", "mvm1"]);
    assert!(!meta.contains_key("instance_id"), "Flintlock gives one where there is none");
    assert!(user.starts_with("#cloud-config\n"), "{user}");
    let user: Value = serde_saphyr::from_str(&user).unwrap();
    let expected = json!({
        "hostname": "mvm1", "disable_root": false, "users": [{"name": "root", "ssh_authorized_keys": [KEY]}],
    });
    assert_eq!(user, expected);
}

#[test]
fn user_data_of_ones_own_goes_as_it_is() {
    let place = offline(&images());
    place.write("user-data", "#!/bin/sh\necho 'h\u{e4}'\n");
    let json =
        spec(&place, "out --offline --format hammertime --user-data user-data").run().succeeds().json();
    assert_eq!(metadata(&json, "user-data"), "#!/bin/sh\necho 'h\u{e4}'\n");
    place.write("user-data", format!("#cloud-config\nnote: {}\n", "x".repeat(51_200)));
    let words = "out --offline --format hammertime --user-data user-data";
    spec(&place, words)
        .run()
        .fails(2)
        .says("Firecracker holds 51200")
        .says("hint: have it fetch what is large");
    spec(&place, &format!("{words} --provider cloudhypervisor"))
        .run()
        .succeeds()
        .says("your user data has to say `mounts: [[\"vdc\"");
    spec(&place, "out --offline --format capmvm --user-data user-data")
        .run()
        .fails(2)
        .says("a MicrovmMachineTemplate has no field for it");
}

/// Cloud Hypervisor has cloud-init's disk at vdb, where Flintlock has the modules mounted from.
#[test]
fn under_cloud_hypervisor_the_modules_are_mounted_from_where_they_are() {
    let json = offered("--format flintlock --provider cloudhypervisor").succeeds().json();
    let microvm = &json["microvm"];
    assert_eq!(microvm["provider"], "cloudhypervisor");
    assert_eq!(microvm["additional_volumes"][0]["mount_point"], Value::Null);
    let user: Value = serde_saphyr::from_str(&metadata(microvm, "user-data")).unwrap();
    assert_eq!(user["mounts"][0], json!(["vdc", "/lib/modules/5.10.1", "auto", "defaults,nofail", "0", "2"]));
    let mac = microvm["interfaces"][0]["guest_mac"].as_str().unwrap();
    assert!(mac.starts_with("02:") && mac.len() == 17, "{mac}");
    let other = offered("--format flintlock --provider cloudhypervisor --name other").succeeds().json();
    assert_ne!(other["microvm"]["interfaces"][0]["guest_mac"], mac);
    let capmvm = offered("--format capmvm --provider cloudhypervisor").succeeds();
    capmvm
        .does_not_print("mountPoint")
        .says("warning: under Cloud Hypervisor")
        .says("put `mounts: [[\"vdc\", \"/lib/modules/5.10.1\"");
}

#[test]
fn what_hosts_pull_is_asked_for_and_looked_at() {
    let (place, registry) = pushed(&images());
    let host = registry.host();
    let words = "--format hammertime --digest";
    let outcome = spec(&place, &format!("out {words}")).run().succeeds();
    let json = outcome.says(format!("`{host}` is this machine")).does_not_say("nobody asked").json();
    let layout = support::layout::Layout::at(place.path("out"));
    let by_digest = |name: &str| format!("{host}/org/{name}@{}", layout.images()[name]);
    assert_eq!(json["kernel"]["image"], by_digest(KERNEL));
    assert_eq!(json["additional_volumes"][0]["source"]["container_source"], by_digest(MODULES));
    assert_eq!(json["root_volume"]["source"]["container_source"], by_digest(ROOT));
    assert!(
        !registry.requests().iter().any(|request| request.method == "PUT" && request.path.contains("spec"))
    );

    // By references alone it is the same document; of the root volume no layer is fetched.
    let before = registry.requests().len();
    let references =
        format!("--kernel {host}/org/{KERNEL} --modules {host}/org/{MODULES} --root {host}/org/{ROOT}");
    let same = spec(&place, &format!("{words} {references}")).run().succeeds().json();
    assert_eq!(same, json);
    let requests = registry.requests();
    let blobs = |name: &str| {
        let path = format!("/v2/org/{name}/blobs/");
        requests[before..]
            .iter()
            .filter(|request| request.method == "GET" && request.path.starts_with(&path))
            .count()
    };
    assert_eq!((blobs("kernel-bin"), blobs("kernel-modules"), blobs("capmvm-k8s-os")), (4, 4, 2));

    // A digest that is given stays, without being asked for.
    let root = by_digest(ROOT);
    let kept = format!("--format capmvm-env --kernel {host}/org/{KERNEL} --root {root}");
    spec(&place, &kept)
        .run()
        .succeeds()
        .prints(format!("MVM_ROOT_IMAGE=\"{root}\""))
        .prints(format!("MVM_KERNEL_IMAGE=\"{host}/org/{KERNEL}\""));
}

#[test]
fn an_image_that_is_not_pushed_or_another_is_told() {
    let (place, registry) = pushed(&images());
    let host = registry.host();
    let elsewhere =
        spec(&place, "out --format hammertime").option("--registry", format!("{host}/elsewhere")).run();
    elsewhere
        .fails(4)
        .says(format!("`{host}/elsewhere/{KERNEL}` is not there for a host to pull"))
        .says("hint: push it first: `imgbuild push DIR");

    // What was built anew and not pushed is not what hosts get.
    let mut newer = images();
    newer[0].item("boot/vmlinux").content.extend(b"newer");
    fs::remove_dir_all(place.path("out")).unwrap();
    forge::write(&place.path("out"), &newer);
    let outcome = spec(&place, "out --format hammertime --digest").run().succeeds();
    let layout = support::layout::Layout::at(place.path("out"));
    let outcome = outcome
        .says(format!("`{host}/org/{KERNEL}` is another image than the layout has"))
        .does_not_print(&layout.images()[KERNEL]);
    outcome.does_not_say(format!("`{host}/org/{MODULES}` is another"));

    drop(registry);
    let dead = spec(&place, "out --format hammertime").run().fails(7);
    dead.says("`--offline` looks at layouts alone");
    spec(&place, "out --format hammertime --offline")
        .run()
        .succeeds()
        .says(format!("nobody asked whether `{host}/org/{KERNEL}` is there"));
    let reference = format!("{host}/org/{KERNEL}");
    spec(&place, &format!("--kernel {reference} --format hammertime --offline"))
        .run()
        .fails(2)
        .says(format!("nothing is known of `{reference}`"));
}

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
        *kernel.item("boot/vmlinux") = Item::link("boot/vmlinux", tar::EntryType::Symlink, "config-5.10.1")
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
fn the_templates_of_capmvm_are_told_what_they_fix() {
    let outcome = offered("--format capmvm-env").succeeds();
    let outcome =
        outcome.says("mount the modules at /lib/modules/5.10.77: these belong at /lib/modules/5.10.1");
    outcome.says("sed 's/macvtap/tap/; s,/lib/modules/5.10.77,/lib/modules/5.10.1,'");
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

/// What Flintlock to 0.4.0 and CAPMVM to 0.7.0 use: kernel and modules in one image, modules in the root volume.
#[test]
fn images_that_hold_two_things_need_no_third() {
    let combined = |arch: &str| {
        let mut combined = Forged::kernel(arch);
        combined.name = "flintlock-kernel:5.10.1".into();
        combined.items.extend(Forged::modules(arch).items);
        combined.label("io.imgbuild.role", "combined");
        combined
    };
    let inside = |arch: &str, release: &str| {
        let mut inside = root(arch);
        inside.label("io.imgbuild.kernel.release", release);
        inside
    };
    let mut alias = combined("arm64");
    alias.name = "flintlock-kernel-arm:5.10.1".into();
    let kernels = || vec![combined("amd64"), combined("arm64"), alias.clone()];
    let run = |images: &[Forged], format: &str| {
        spec(&offline(images), &format!("out --offline --format {format}")).run()
    };
    let with = |more: &[Forged]| [&kernels()[..], more].concat();

    // A root volume without modules: the kernel's image is their volume too.
    let json = run(&with(&[root("amd64"), root("arm64")]), "hammertime").succeeds().json();
    let image = "registry.example/org/flintlock-kernel:5.10.1";
    assert_eq!(json["kernel"]["image"], image);
    let volume = &json["additional_volumes"][0];
    assert_eq!(
        (&volume["source"]["container_source"], &volume["mount_point"]),
        (&image.into(), &"/lib/modules/5.10.1".into())
    );

    let legacy = with(&[inside("amd64", "5.10.1"), inside("arm64", "5.10.1")]);
    let json = run(&legacy, "hammertime").succeeds().does_not_say("no modules").json();
    assert_eq!(json["additional_volumes"], Value::Null);
    run(&legacy, "capmvm-env").succeeds().does_not_print("MVM_KERNEL_MODULES_IMAGE").says("take it out");
    let other = with(&[inside("amd64", "5.10.2"), inside("arm64", "5.10.2")]);
    run(&other, "hammertime").fails(2).says("`registry.example/org/capmvm-k8s-os:1.22.8` is for 5.10.2");
    // Beside images for one thing each, theirs are not taken.
    let json = run(&[images(), kernels()].concat(), "hammertime").succeeds().json();
    assert_eq!(json["kernel"]["image"], format!("registry.example/org/{KERNEL}"));
}
