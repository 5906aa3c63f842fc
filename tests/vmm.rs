//! `imgbuild boot` under Firecracker and Cloud Hypervisor. Where they and a KVM that runs guests are not at hand, programs of
//! their names stand in: they note how they were started, say on the console what a guest would, and wait to be ended.

use std::io::Read;

use crate::support::monitors::{DEV, Host, NO_DISK, SMALL, SYSTEM};
use crate::support::registry::{Door, Registry};
use crate::support::{Outcome, Place, host, real};
use serde_json::Value;

#[test]
fn firecracker_boots_a_kernel_from_a_configuration_file_without_a_network() {
    let host = Host::new(SMALL);
    host.boot("out --vmm firecracker")
        .run()
        .succeeds()
        .prints("Linux 5.10.1 x86_64 booted under Firecracker 1.7.0 (KVM: asked for)\n  kernel after ")
        .prints("modules volume mounted at /lib/modules/5.10.1 (ext2)");
    let arguments = host.note("arguments");
    assert!(arguments.contains("--no-api\n--config-file\nfirecracker.json\n"), "{arguments}");
    let config = host.json("firecracker.json");
    let args = config["boot-source"]["boot_args"].as_str().unwrap();
    assert!(
        args.starts_with("console=ttyS0 reboot=k panic=1 pci=off ") && args.ends_with(" init=/init"),
        "{args}"
    );
    assert_eq!(config["drives"][0]["path_on_host"], "root.ext2");
    assert_eq!(
        (&config["network-interfaces"], &config["mmds-config"]),
        (&serde_json::json!([]), &Value::Null)
    );
    host.is_clean();
}

#[test]
fn firecracker_boots_a_root_volume_with_flintlocks_metadata_in_a_network_of_its_own() {
    let host = Host::new(SYSTEM);
    let json =
        host.boot("out --vmm firecracker --root node --expect login: --format json").run().succeeds().json();
    assert_eq!((&json["vmm"], &json["vmm_version"]), (&"firecracker".into(), &"1.7.0".into()));
    assert_eq!((&json["release"], &json["expected"]), (&"5.10.1".into(), &"login:".into()));
    let config = host.json("firecracker.json");
    let interfaces = serde_json::json!({"version": "V1", "network_interfaces": ["eth0"]});
    assert_eq!(config["mmds-config"], interfaces);
    let files = |at: usize| &config["drives"][at]["path_on_host"];
    assert_eq!((files(0), files(1)), (&"root.ext4".into(), &"modules.ext4".into()));
    let latest = &host.json("metadata.json")["latest"];
    assert!(latest["vendor-data"].as_str().unwrap().contains("- [vdb, /lib/modules/5.10.1]"), "{latest}");
    assert_eq!(host.note("interfaces"), "lo\n");
    host.is_clean();
}

#[test]
fn cloud_hypervisor_boots_a_root_volume_with_its_metadata_on_a_disk() {
    let host = Host::new(SYSTEM);
    host.boot("out --vmm cloud-hypervisor --root node --expect login:")
        .run()
        .succeeds()
        .prints("booted a root volume under Cloud Hypervisor 40.0 (KVM: asked for)");
    let arguments = host.note("arguments");
    let disks =
        "--disk\npath=root.ext4\npath=cidata.img,readonly=on\npath=modules.ext4\n--memory\nsize=1024M\n";
    assert!(arguments.contains("console=hvc0 root=/dev/vda rw reboot=k panic=1\n--kernel\n"), "{arguments}");
    assert!(arguments.contains(disks), "{arguments}");
    let disk = fs_err::File::open(host.place.path("notes/cidata.img")).unwrap();
    let volume = fatfs::FileSystem::new(disk.into_parts().0, fatfs::FsOptions::new()).unwrap();
    let mut vendor = String::new();
    volume.root_dir().open_file("vendor-data").unwrap().read_to_string(&mut vendor).unwrap();
    assert!(vendor.contains("- [vdc, /lib/modules/5.10.1]"), "{vendor}");
    assert_eq!(host.note("interfaces"), "lo\n");
    host.is_clean();
}

#[test]
fn every_part_may_be_a_reference_at_a_registry() {
    let host = Host::new(SYSTEM);
    let registry = Registry::new(Door::Open);
    let prefix = format!("{}/org", registry.host());
    for layout in ["out", "node"] {
        host.place.imgbuild(&format!("push {layout} --registry {prefix}")).run().succeeds();
    }
    let words = format!(
        "boot --kernel {prefix}/kernel-bin:5.10.1 --modules {prefix}/kernel-modules:5.10.1 --root {prefix}/node:1"
    );
    host.imgbuild(&format!("{words} --vmm firecracker --expect login:"))
        .run()
        .succeeds()
        .prints("Linux 5.10.1 booted a root volume under Firecracker 1.7.0 ");
    assert_eq!(host.json("firecracker.json")["drives"][1]["path_on_host"], "modules.ext4");
    host.is_clean();
}

#[test]
fn a_guest_that_never_speaks_is_ended_and_so_is_what_runs_it() {
    for (vmm, symbol) in [("firecracker", "SERIAL_8250_CONSOLE"), ("cloud-hypervisor", "VIRTIO_CONSOLE")] {
        let host = Host::new("");
        host.boot(&format!("out --vmm {vmm} --timeout 1"))
            .run()
            .fails(8)
            .says("error: the guest was stopped before init, after 1s")
            .says("hint: the console stayed empty: ")
            .says(symbol);
        host.is_clean();
    }
    let lines: Vec<_> = (0..100).map(|number| format!("[    0.1] line {number}\n")).collect();
    let host = Host::new(&lines.concat());
    let outcome = host.boot("out --vmm firecracker --timeout 1").run().fails(8);
    outcome.says("line 70\n").says("line 99").does_not_say("line 69\n");
    host.is_clean();
}

#[test]
fn a_panic_is_classified_for_people_and_programs() {
    let host = Host::new(NO_DISK);
    host.boot("out --vmm cloud-hypervisor")
        .run()
        .fails(8)
        .says("error: the kernel panicked: VFS: Unable to mount root fs on unknown-block(0,0)")
        .says("hint: the kernel found no disk: PCI, ACPI, VIRTIO_PCI, VIRTIO_BLK must be y");
    host.is_clean();
    let json = host.boot("out --vmm firecracker --format json").run().exits(8).json();
    assert_eq!((&json["booted"], &json["panic"]["kind"]), (&false.into(), &"no_root_disk".into()));
    assert!(json["panic"]["symbols"].as_array().unwrap().contains(&"VIRTIO_BLK".into()), "{json:#}");
    assert!(json["console"][1].as_str().unwrap().contains("Kernel panic"), "{json:#}");
}

#[test]
fn a_monitor_that_fails_is_told_with_its_last_word() {
    let host = Host::new("");
    let word = "2026-01-01T00:00:00 [imgbuild-boot:main:ERROR:src/main.rs:1] no memory for the guest\n";
    host.place.write("notes/last-word", word);
    host.boot("out --vmm firecracker")
        .run()
        .fails(8)
        .says("error: the guest ended before init, without a panic (Firecracker: exit status: 1)")
        .says("no memory for the guest");
    host.place.write("notes/last-word", "Error creating KVM object: Permission denied\n");
    host.boot("out --vmm firecracker")
        .run()
        .fails(8)
        .says("error: KVM does not work here: Firecracker ended (exit status: 1): Error creating KVM object")
        .says("hint: ");
}

#[test]
fn where_a_monitor_fails_that_nobody_named_qemu_goes_on() {
    let host = Host::new("");
    // The kernel of this host's architecture halts at once under QEMU: that it was tried is what counts.
    host.place.write("notes/last-word", "Error creating KVM object: Permission denied\n");
    let _alone = real::alone();
    let outcome = host.boot("out --timeout 2").run().fails(8);
    outcome
        .says("booting under QEMU, TCG: /dev/kvm is there, but a guest died under Firecracker in it: ")
        .says("Error creating KVM object");
}

#[test]
fn what_a_monitor_cannot_do_is_refused_with_another_way() {
    let host = Host::new(SMALL);
    let other = if crate::support::host() == "arm64" { "x86_64" } else { "arm64" };
    let both = host.place.imgbuild("kernel 5.10.1 --output both --arch").arg(other).run();
    both.succeeds();
    host.boot("both --vmm firecracker --arch")
        .arg(other)
        .run()
        .fails(8)
        .says("error: Firecracker runs guests of the host's architecture alone: the kernel is for ")
        .says("hint: `--vmm qemu` translates it");
    for (words, said) in [
        ("--vmm firecracker --accelerator tcg", "Firecracker has no translator"),
        ("--vmm firecracker --acpi on", "`--acpi` is for QEMU, and Firecracker is asked for"),
        (
            "--vmm firecracker --root node --seed cidata",
            "Firecracker's guests have their metadata from a URL",
        ),
        (
            "--vmm cloud-hypervisor --root node --seed url",
            "Cloud Hypervisor's guests have their metadata from a disk",
        ),
    ] {
        host.boot(&format!("out {words}")).run().fails(2).says(said).says("hint: ");
    }
    let large = "#cloud-config\n".to_owned() + &"# filler\n".repeat(6000);
    host.place.write("large", large);
    host.boot("out --vmm firecracker --root node --expect login: --user-data large")
        .run()
        .fails(2)
        .says("Firecracker's service holds 51200");
}

#[test]
fn a_host_without_kvm_or_without_a_monitor_is_told() {
    let host = Host::new(SMALL);
    let words = "boot out --vmm firecracker";
    let bare = |words: &str, dev: &str| -> Outcome {
        let path = format!("{}:{}", host.place.path("programs").display(), std::env::var("PATH").unwrap());
        let run = host.place.imgbuild(words).env("PATH", path);
        run.under(["unshare", "--user", "--map-root-user", "--mount"]).after(dev).run()
    };
    let without = DEV.replace(" kvm net/tun", " net/tun").replace("kvm net/tun", "net/tun");
    bare(words, &without)
        .fails(8)
        .says("error: KVM does not work here: ")
        .says("No such file or directory")
        .says("hint: ")
        .says("`--vmm qemu --accelerator tcg` works on every host");
    let without = DEV.replace(" kvm net/tun", " kvm").replace("kvm net/tun", "kvm");
    bare("boot out --vmm firecracker --root node --expect login:", &without)
        .fails(8)
        .says("error: Firecracker wants a tap for the guest's network, and this host gives none: ")
        .says("hint: it takes /dev/net/tun");
    let few = host.place.path("few");
    fs_err::create_dir(&few).unwrap();
    let without = |words: &str| host.place.imgbuild(words).env("PATH", &few).run();
    without("boot out")
        .fails(4)
        .says("error: no virtual machine monitor is here: no `firecracker`, ")
        .says("hint: ");
    let outcome = host.place.imgbuild("boot out --vmm cloud-hypervisor").env("PATH", &few).run();
    outcome.fails(4).says("Cloud Hypervisor is not here");
}

/// The real thing, where there is one.
#[test]
fn a_real_kernel_boots_under_the_real_monitors_where_they_are() {
    let programs = ["firecracker", "cloud-hypervisor"];
    let here = |name: &str| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(name).is_file())
    };
    for name in programs {
        let kvm = fs_err::OpenOptions::new().read(true).write(true).open("/dev/kvm");
        if !here(name) || kvm.is_err() {
            println!("not tried: `{name}` on PATH: {}; /dev/kvm: {:?}", here(name), kvm.err());
            continue;
        }
        let _alone = real::alone();
        let place = Place::with_shared_store();
        let flavour = if name == "firecracker" { "tiny" } else { name };
        place.imgbuild("kernel 5.10.262 --flavour").arg(flavour).arg("--arch").arg(host()).run().succeeds();
        let outcome = place.imgbuild("boot out --vmm").arg(name).run();
        if outcome.stderr.contains("KVM does not work here") {
            println!("not tried: /dev/kvm runs no guests here: {}", outcome.stderr);
            continue;
        }
        outcome.succeeds().prints("booted under ");
    }
}
