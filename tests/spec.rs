//! `imgbuild spec`: documents for Flintlock, CAPMVM and hammertime, of images that lie where hosts would pull them from.

use std::path::{Path, PathBuf};

use crate::support::forge::{self, Forged};
use crate::support::machine::{
    KERNEL, KEY, MODULES, ROOT, images, metadata, offered, offline, pushed, root, spec,
};
use crate::support::{Outcome, consumers};
use fs_err as fs;
use serde_json::{Value, json};

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
        let outcome = spec(&place, &format!("{common} {words}")).run().succeeds();
        is_golden(&outcome, name);
        // What each consumer says to it, by rules that are not ours.
        let kind = name.rsplit('.').next();
        if kind == Some("yaml") {
            let documents: Vec<Value> = serde_saphyr::from_multiple(&outcome.stdout).unwrap();
            documents.iter().for_each(|document| assert_eq!(consumers::template(document).len(), 3));
        } else if kind == Some("json") {
            let json = outcome.json();
            let microvm = json.get("microvm").unwrap_or(&json);
            assert_eq!(consumers::microvm(microvm).len(), 3);
        }
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
    let hammertime = offered("--format hammertime --provider cloudhypervisor").succeeds();
    // Its Flintlock is older than the field, and Go passes over what it does not know.
    hammertime.does_not_print("\"provider\"").says("started with `--default-provider cloudhypervisor`");
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
    let layout = crate::support::layout::Layout::at(place.path("out"));
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
    let layout = crate::support::layout::Layout::at(place.path("out"));
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
fn the_templates_of_capmvm_are_told_what_they_fix() {
    let outcome = offered("--format capmvm-env").succeeds();
    let outcome =
        outcome.says("mount the modules at /lib/modules/5.10.77: these belong at /lib/modules/5.10.1");
    outcome.says("sed 's/macvtap/tap/; s,/lib/modules/5.10.77,/lib/modules/5.10.1,'");
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
