//! `imgbuild boot --root`: a whole root volume, wired as Flintlock wires it.

use crate::support::node::{Member, layer};
use crate::support::source::Source;
use crate::support::{Outcome, Place, forge, host, real};

/// What a made-up kernel says before it halts.
const CRY: &str = "[    0.000000] Linux version 5.10.1 (imgbuild@imgbuild) #1\n\
                   [    0.500000] Run /sbin/init as init process\nnode login: ";

/// A place with a made-up `x86_64` kernel of these words in `out`, and a root volume in `node`.
fn place(cry: &str, members: &[Member]) -> Place {
    let mut place = Place::new();
    Source::new().cry(cry).install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    forge::write_packed(&place.path("node"), &[("node:1", "amd64", vec![layer(members)])]);
    place
}

fn program(path: &str) -> Member {
    Member { mode: 0o755, ..Member::file(path, "\x7fELF") }
}

/// systemd and cloud-init, where a merged /usr has them.
fn system() -> Vec<Member> {
    vec![
        Member::symlink("sbin", "usr/sbin"),
        Member::symlink("usr/sbin/init", "/lib/systemd/systemd"),
        Member::symlink("lib", "usr/lib"),
        program("usr/lib/systemd/systemd"),
        program("usr/bin/cloud-init"),
    ]
}

fn boot(place: &Place, words: &str) -> Outcome {
    let _alone = real::alone();
    place.imgbuild(&format!("boot --arch x86_64 --accelerator tcg {words}")).run()
}

/// The one boot of a real root volume: everything that is to be seen in it is looked at here.
#[test]
fn a_debian_node_comes_up_on_our_kernel() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let arch = host();
    place.imgbuild("kernel 5.10.262 --arch").arg(arch).run().succeeds();
    place.imgbuild("os --recipe debian-12 --output node --arch").arg(arch).run().succeeds();
    // On the modules volume, and wanted before that is mounted.
    place.write(
        "user-data",
        "#cloud-config\nssh_genkeytypes: [ed25519]\n\
         write_files:\n- path: /etc/modules-load.d/late.conf\n  content: |\n    ip_vs\n",
    );
    let words =
        "boot out --root node --user-data user-data --load ip-vs,vxlan --format json --accelerator tcg";
    let json = place.imgbuild(words).run().succeeds().json();
    assert_eq!((&json["release"], &json["faults"]), (&"5.10.262".into(), &serde_json::json!([])), "{json:#}");
    let seconds = |name: &str| json[name].as_f64().unwrap();
    assert!(seconds("kernel_seconds") > 0.0, "{json:#}");
    assert!(seconds("init_seconds") > seconds("kernel_seconds"), "{json:#}");
    assert!(seconds("reached_seconds") > seconds("init_seconds"), "{json:#}");
    let asked = json["metadata_requests"].as_array().unwrap();
    for path in ["/latest/meta-data", "/latest/user-data", "/latest/vendor-data"] {
        assert!(asked.contains(&path.into()), "{json:#}");
    }
    let node = &json["node"];
    assert_eq!((&node["state"], &node["failed_units"]), (&"running".into(), &serde_json::json!([])));
    assert!(node["multi_user_seconds"].as_f64().unwrap() > node["userspace_seconds"].as_f64().unwrap());
    assert!(node["system"].as_str().unwrap().starts_with("Debian GNU/Linux 12"), "{node}");
    assert_eq!(node["volume_fs"], "ext4");
    for module in ["overlay", "br_netfilter"] {
        assert!(node["node_modules"][module].is_string(), "{node}");
    }
    // The first was loaded by the unit that loads late what was not there in time.
    let modules = serde_json::json!([
        {"name": "ip_vs", "outcome": "already_there"},
        {"name": "vxlan", "outcome": "loaded"},
    ]);
    assert_eq!(node["modules"], modules);
    assert!(node["containerd"]["version"].as_str().unwrap().starts_with("1."), "{node}");
    let keys = serde_json::json!({"files": ["/etc/ssh/ssh_host_ed25519_key"], "new": true});
    assert_eq!(node["ssh_host_keys"], keys);
    assert_eq!((&node["cloud_init"]["status"], &node["vendor_data"]), (&"done".into(), &true.into()));
    assert_eq!(node["config_readable"], true);

    // The same node as Cloud Hypervisor's guests are told of themselves: by a disk, which comes before the modules.
    let words = "boot out --root node --user-data user-data --seed cidata --format json --accelerator tcg";
    let json = place.imgbuild(words).run().succeeds().json();
    assert_eq!((&json["vmm"], &json["faults"]), (&"qemu".into(), &serde_json::json!([])), "{json:#}");
    assert_eq!(json["metadata_requests"], serde_json::Value::Null);
    let node = &json["node"];
    assert_eq!((&node["volume_fs"], &node["vendor_data"]), (&"ext4".into(), &true.into()), "{node}");
    let source = node["cloud_init"]["datasource"].as_str().unwrap();
    assert!(source.contains("NoCloud") && source.contains("/dev/vdb"), "{source}");
}

/// Firecracker describes its devices by ACPI since 1.8. Without KVM a node's whole account takes three minutes so: here it has to
/// come as far as its file systems.
#[test]
fn a_kernel_and_a_debian_node_start_with_acpi() {
    if host() != "x86_64" {
        eprintln!("not tested: QEMU's microvm is x86_64's alone");
        return;
    }
    let _alone = real::alone();
    let place = Place::with_shared_store();
    place.imgbuild("kernel 5.10.262 --arch x86_64").run().succeeds();
    let json = place.imgbuild("boot out --acpi on --format json --accelerator tcg").run().succeeds().json();
    assert_eq!((&json["release"], &json["volume_fs"]), (&"5.10.262".into(), &"ext2".into()), "{json:#}");
    place.imgbuild("os --recipe debian-12 --output node --arch x86_64").run().succeeds();
    let outcome = place
        .imgbuild("boot out --root node --acpi on --accelerator tcg --console --expect")
        .arg("local-fs.target - Local File Systems.")
        .run()
        .succeeds();
    outcome
        .prints("ACPI: Interpreter enabled")
        .prints("EXT4-fs (vda): mounted filesystem")
        .prints("Reached target local-fs.target");
}

#[test]
fn a_text_that_was_waited_for_ends_the_boot() {
    let place = place(CRY, &system());
    let outcome = boot(&place, "out --root node --expect login: --timeout 60 --format json").succeeds();
    let json = outcome.json();
    assert_eq!((&json["release"], &json["expected"]), (&"5.10.1".into(), &"login:".into()));
    assert_eq!((&json["node"], &json["faults"]), (&serde_json::Value::Null, &serde_json::json!([])));
    boot(&place, "out --root node:node:1 --expect login: --timeout 60 --console")
        .succeeds()
        .prints("Run /sbin/init as init process\n")
        .prints("Linux 5.10.1 booted a root volume under QEMU ")
        .prints(" (TCG: asked for)\n")
        .prints("`login:` after ");
}

#[test]
fn a_node_that_never_comes_up_is_stopped_and_its_console_shown() {
    let place = place(CRY, &system());
    boot(&place, "out --root node --timeout 2")
        .fails(8)
        .says("error: the guest ")
        .says("in the middle of init")
        .says("Run /sbin/init as init process")
        .says("  node login:");
}

#[test]
fn a_panic_is_told_with_a_cure() {
    let place =
        place("Kernel panic - not syncing: No working init found.  Try passing init= option\n", &system());
    boot(&place, "out --root node --timeout 60")
        .fails(8)
        .says("error: the kernel panicked: No working init found.")
        .says("hint: the root disk was mounted and has no program at /sbin/init");
    let place = self::place(
        "[    1.7] systemd[1]: Failed to mount tmpfs\n[    1.8] systemd[1]: Freezing execution.\n",
        &system(),
    );
    boot(&place, "out --root node --timeout 60")
        .fails(8)
        .says("error: systemd gave up: it froze")
        .says("Failed to mount tmpfs");
}

#[test]
fn a_real_kernel_that_cannot_read_its_root_is_told_the_symbol_it_lacks() {
    // The flavour tiny reads ext2 alone.
    let (place, _) = real::tiny();
    let _alone = real::alone();
    for (arch, architecture) in [("x86_64", "amd64"), ("arm64", "arm64")] {
        forge::write_packed(&place.path(arch), &[("node:1", architecture, vec![layer(&system())])]);
        let boot = place.imgbuild("boot out --accelerator tcg --timeout 60").option("--arch", arch);
        boot.option("--root", arch)
            .run()
            .fails(8)
            .says("error: the kernel panicked: VFS: Unable to mount root fs on unknown-block(254,0)")
            .says("hint: the kernel cannot read its root disk: EXT4_FS must be y");
    }
}

#[test]
fn what_is_no_root_volume_is_refused_before_anything_boots() {
    let place = place(
        CRY,
        &[Member::symlink("sbin/init", "../usr/lib/nothing"), Member::file("bin/sh", "no program")],
    );
    boot(&place, "out --root node")
        .fails(8)
        .says("error: `node:1` has no init: no program at /sbin/init, /etc/init, /bin/init or /bin/sh")
        .says("hint: ")
        .does_not_say("QEMU");
    let without =
        system().into_iter().filter(|member| !member.path.ends_with(b"cloud-init")).collect::<Vec<_>>();
    forge::write_packed(&place.path("plain"), &[("plain:1", "amd64", vec![layer(&without)])]);
    boot(&place, "out --root plain")
        .fails(8)
        .says("error: `plain:1` has no cloud-init")
        .says("hint: `--expect 'login:'` waits for text")
        .does_not_say("QEMU");
    boot(&place, "out --root plain --expect login: --timeout 60").succeeds();
    boot(&place, "out --root out").fails(4).says("`out` has no root volume for x86_64");
    boot(&place, "out --root nowhere").fails(4).says("`nowhere` is no OCI layout");
}

#[test]
fn one_image_must_be_meant_and_be_of_the_guests_architecture() {
    let place = place(CRY, &system());
    let layers = || vec![layer(&system())];
    forge::write_packed(&place.path("arm"), &[("node:1", "arm64", layers())]);
    boot(&place, "out --root arm")
        .fails(4)
        .says("`arm` has no root volume for x86_64; it has `node:1 (arm64)`");
    // One image under two names would be the one that is meant.
    let other = system().into_iter().chain([program("usr/bin/other")]).collect::<Vec<_>>();
    let images = [("node:1", "amd64", layers()), ("node:2", "amd64", vec![layer(&other)])];
    forge::write_packed(&place.path("two"), &images);
    boot(&place, "out --root two")
        .fails(2)
        .says("`two` holds `node:1`, `node:2` for x86_64: which one?")
        .says("hint: name it: `--root two:node:1`");
}

#[test]
fn kernel_and_modules_must_belong_together() {
    let mut place = place(CRY, &system());
    Source::new().version("5.10.9").install(&mut place);
    place.imgbuild("kernel 5.10.9 --arch x86_64 --output other").run().succeeds();
    let words = "--kernel out:kernel-bin:5.10.1 --modules other --root node --expect login:";
    boot(&place, words)
        .fails(8)
        .says("error: the kernel is 5.10.1, the modules volume is for 5.10.9")
        .does_not_say("QEMU");
    boot(&place, "out --modules other")
        .fails(8)
        .says("the kernel is 5.10.1, the modules volume is for 5.10.9");
    boot(&place, "--kernel out --modules out:kernel-modules:5.10.1 --root node --expect login:").succeeds();
    boot(&place, "out --root node --load no-such").fails(2).says("no module `no_such` for 5.10.1");
    boot(&place, "--kernel node --root node").fails(4).says("`node` has no kernel image for x86_64");
    boot(&place, "--kernel node:node:1 --root node")
        .fails(5)
        .says("the kernel image `node:1` has no file boot/vmlinux");
}

#[test]
fn arguments_that_do_not_fit_together_are_refused() {
    let place = Place::new();
    for (words, said) in [
        ("boot", "<DIR>"),
        ("boot out --seed cidata", "--root"),
        ("boot out --user-data file", "--root"),
        ("boot out --interactive", "--root"),
        ("boot out --kernel out", "cannot be used with"),
        ("boot out --root node --interactive --expect x", "cannot be used with"),
    ] {
        place.imgbuild(words).run().fails(2).says(said);
    }
    let place = self::place(CRY, &system());
    boot(&place, "out --root node --user-data nowhere")
        .fails(2)
        .says("the user data cannot be read: ")
        .says("`nowhere`")
        .says("hint: `--user-data` names a file");
}
