//! `--require-boot`: nothing is pushed that does not boot. What boots it here is a stand-in; see tests/vmm.rs.

use crate::support::forge::{self, Forged, Item};
use crate::support::monitors::{Host, NO_DISK, SMALL};
use crate::support::registry::{Door, Registry};
use crate::support::{Imgbuild, host, sha256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

fn architecture() -> &'static str {
    if host() == "arm64" { "arm64" } else { "amd64" }
}

/// The command, pushing to `registry`.
fn push(host: &Host, registry: &Registry, words: &str) -> Imgbuild {
    host.imgbuild(words).option("--registry", format!("{}/org", registry.host())).arg("--require-boot")
}

/// Nothing was sent.
fn is_untouched(registry: &Registry) {
    assert_eq!(registry.requests().len(), 0);
}

/// A root volume in `place`, with nothing that would run.
fn root_volume(name: &str) -> Forged {
    let mut forged = Forged::kernel(architecture());
    forged.name = name.into();
    forged.label("io.imgbuild.role", "os");
    let program = |path: &str| Item { mode: 0o755, ..Item::file(path, "\x7fELF") };
    forged.items = ["sbin", "usr", "usr/bin"].map(Item::directory).into();
    forged.items.extend(["sbin/init", "usr/bin/cloud-init"].map(program));
    forged
}

#[test]
fn a_kernel_is_pushed_with_its_modules_once_it_has_booted() {
    let (host, registry) = (Host::new(SMALL), Registry::new(Door::Open));
    push(&host, &registry, &format!("kernel 5.10.1 --push --arch {}", crate::support::host()))
        .run()
        .succeeds()
        .says(format!("`kernel-bin:5.10.1` for {} boots under Firecracker: ", crate::support::host()));
    for repository in ["org/kernel-bin", "org/kernel-modules"] {
        assert!(registry.manifest(repository, "5.10.1").is_some(), "{repository}");
    }
}

#[test]
fn what_does_not_boot_is_not_pushed() {
    let (host, registry) = (Host::new(NO_DISK), Registry::new(Door::Open));
    // The modules alone, too: their kernel is what boots.
    for words in ["push out", "push out kernel-modules:5.10.1"] {
        push(&host, &registry, words)
            .run()
            .fails(8)
            .says("error: `kernel-bin:5.10.1` for ")
            .says(" does not boot, so nothing is pushed: the kernel panicked: VFS: Unable to mount root fs")
            .says("Kernel panic - not syncing")
            .says("hint: the kernel found no disk: ");
    }
    is_untouched(&registry);
}

#[test]
fn what_cannot_be_booted_is_refused() {
    let (host, registry) = (Host::new(SMALL), Registry::new(Door::Open));
    let words = "push node";
    push(&host, &registry, words).run().fails(8).says("error: `node:1` for ").says(
        " cannot be booted, so nothing is pushed: it is neither a kernel, nor its modules, nor a root volume",
    );
    forge::write(&host.place.path("volume"), &[root_volume("node:1")]);
    push(&host, &registry, "push volume")
        .run()
        .fails(8)
        .says("cannot be booted, so nothing is pushed: no kernel is named, and none is in the layout")
        .says("hint: `--boot-kernel DIR` names one");
    forge::write(&host.place.path("modules"), &[Forged::modules(architecture())]);
    push(&host, &registry, "push modules")
        .run()
        .fails(8)
        .says("cannot be booted, so nothing is pushed: the kernel of these modules is not in the layout");
    is_untouched(&registry);
    host.imgbuild("kernel 5.10.1 --require-boot")
        .run()
        .fails(2)
        .says("say how to push, and nothing is pushed");
    host.imgbuild("push volume --boot-kernel out").run().fails(2).says("--require-boot");
}

#[test]
fn a_root_volume_is_pushed_once_it_is_sound_on_the_kernel_named() {
    let account = r#"{"release": "5.10.1", "machine": "x86_64", "system": "Made up", "userspace_seconds": 1.5,
        "multi_user_seconds": 3.5, "state": "running", "failed_units": [], "volume_fs": "ext4", "modules": [],
        "node_modules": {}, "containerd": null, "ssh_host_keys": {"files": [], "new": true},
        "cloud_init": {"status": "done", "datasource": "NoCloud", "errors": []}, "vendor_data": true,
        "config_readable": true}"#;
    let console = |account: &str| {
        let text = STANDARD.encode(account);
        let sum = sha256(text.as_bytes());
        format!(
            "[ 0.0] Linux version 5.10.1 (a@b) #1\n[ 0.5] Run /sbin/init as init process\n\
             @imgbuild account {sum} {text} @\n"
        )
    };
    let (host, registry) = (Host::new(&console(account)), Registry::new(Door::Open));
    forge::write(&host.place.path("volume"), &[root_volume("node:1")]);
    push(&host, &registry, "push volume --boot-kernel out").run().succeeds().says("`node:1` for ");
    assert!(registry.manifest("org/node", "1").is_some());
    let unsound = account.replace("\"running\"", "\"degraded\"");
    let (host, registry) = (Host::new(&console(&unsound)), Registry::new(Door::Open));
    forge::write(&host.place.path("volume"), &[root_volume("node:1")]);
    push(&host, &registry, "push volume --boot-kernel out:kernel-bin:5.10.1")
        .run()
        .fails(8)
        .says("does not boot, so nothing is pushed: the node is not sound: systemd says `degraded`");
    is_untouched(&registry);
}
