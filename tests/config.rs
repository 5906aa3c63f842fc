//! `imgbuild config` on the real source of 5.10.262: the shipped flavours are complete, and what cannot be had is
//! told apart.

use std::path::Path;

use crate::support::{Place, real};
use imgbuild::arch::Arch;
use imgbuild::inspect::roles::{self, Subject, judge};
use imgbuild::kernel::kconfig::Config;

/// What every node's kernel is for.
const NODES: &[&str] = &["qemu-microvm", "flintlock", "systemd", "kubeadm", "workloads", "cilium", "ipvs"];
/// Firecracker, with ACPI and without.
const FIRECRACKERS: &[&str] = &["firecracker", "firecracker-no-acpi"];

/// Checks a shipped flavour for both architectures, and that it is fit for these roles with nothing late.
#[track_caller]
fn is_complete(flavour: &str, roles: &[&str]) {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let run = place.imgbuild("config 5.10.262 --arch all --output configs --flavour").arg(flavour);
    let outcome = run.run().succeeds().does_not_say("warning: ").does_not_print("no reason given");
    for arch in ["x86_64", "arm64"] {
        assert!(outcome.stdout.contains(&format!("Linux 5.10.262 {arch}: every symbol as asked, ")));
        let path = format!("configs/config-5.10.262-{arch}");
        assert!(outcome.stdout.contains(&format!("written to `{path}`")));
        let config = fs_err::read_to_string(place.path(path)).unwrap();
        // Without a /proc/config.gz kubeadm refuses the node, and QEMU's boot test has nothing to read.
        for symbol in ["MODULES", "IKCONFIG", "IKCONFIG_PROC", "VIRTIO_BLK", "DEVTMPFS"] {
            assert!(config.contains(&format!("\nCONFIG_{symbol}=y\n")), "{flavour} {arch} lacks {symbol}");
        }
        is_fit(flavour, arch.parse().unwrap(), &config, roles);
    }
}

/// Checks that a resolved configuration is fit for these roles, where there are guests of its architecture in them, and
/// that nothing is late or missing.
fn is_fit(flavour: &str, arch: Arch, text: &str, roles: &[&str]) {
    let config = Config::parse(text);
    let version = real::VERSION.parse().unwrap();
    let kubernetes = ["1.21.8".parse().unwrap(), "1.35.0".parse().unwrap()];
    for role in roles.iter().map(|name| roles::role(name).unwrap()).filter(|role| role.is_for(arch)) {
        for kubernetes in &kubernetes {
            let kubernetes = Some(kubernetes);
            let subject = Subject { config: &config, arch, version: &version, modules: None, kubernetes };
            let fitness = judge(role, &subject);
            let told = format!("{flavour} {arch} {}: {}", role.name, fitness.line(usize::MAX));
            assert!(fitness.fit && fitness.late.is_empty() && fitness.optional.is_empty(), "{told}");
        }
    }
}

#[test]
fn every_shipped_flavour_is_tested_here() {
    let place = Place::new();
    let outcome = place.imgbuild("kernel 5.10.262 --flavour none").run().fails(2);
    // `flintlock` is `firecracker` in another image; tests/legacy.rs holds the keys of both side by side.
    outcome.says("known are `cloud-hypervisor`, `firecracker`, `flintlock`, `tiny`, `tracing`\n");
}

#[test]
fn tiny_comes_out_as_asked_and_gives_a_reason_for_each_absence() {
    is_complete("tiny", &[]);
}

#[test]
fn firecracker_comes_out_as_asked_and_gives_a_reason_for_each_absence() {
    is_complete("firecracker", &[FIRECRACKERS, NODES].concat());
}

#[test]
fn cloud_hypervisor_comes_out_as_asked_and_gives_a_reason_for_each_absence() {
    is_complete("cloud-hypervisor", &[FIRECRACKERS, NODES, &["cloud-hypervisor"]].concat());
}

#[test]
fn tracing_comes_out_as_asked_and_gives_a_reason_for_each_absence() {
    is_complete("tracing", &[FIRECRACKERS, NODES].concat());
}

/// scripts/bench compares the flavour with it: a reference that lacks what a role asks for would flatter nobody.
#[test]
fn the_reference_of_the_bench_satisfies_the_same_roles_in_full() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/smallest/complete.toml");
    let run = place.imgbuild("config 5.10.262 --arch x86_64 --output configs").option("--recipe", recipe);
    run.run().succeeds().prints("every symbol as asked, ");
    let config = fs_err::read_to_string(place.path("configs/config-5.10.262-x86_64")).unwrap();
    is_fit("complete", Arch::X86_64, &config, &[FIRECRACKERS, NODES].concat());
}

#[test]
fn what_cannot_be_had_is_told_apart_with_fragment_and_line_before_anything_is_compiled() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let recipe = "kind = \"kernel\"\nname = \"mine\"\nextends = \"tiny\"\nfragments = [\"./bad.config\"]\n";
    place.write("my.toml", recipe);
    let fragment = "# What cannot be had, each for another reason, and one that can.\n\
                    CONFIG_NO_SUCH_DRIVER_ANYWHERE=y\n\
                    CONFIG_VIRTIO_BLKK=y\n\
                    CONFIG_ARM64_VHE=y\n\
                    CONFIG_IP_VS=m\n\
                    CONFIG_SERIAL_8250_NR_UARTS=2\n\
                    CONFIG_EXT2_FS=\"yes\"\n\
                    CONFIG_LOG_BUF_SHIFT=99\n\
                    CONFIG_DEBUG_INFO=y\n";
    place.write("bad.config", fragment);
    place
        .imgbuild("kernel 5.10.262 --arch x86_64 --recipe my.toml")
        .run()
        .fails(3)
        .says("6 misses, 1 reproducibility leak")
        .says("bad.config:2: CONFIG_NO_SUCH_DRIVER_ANYWHERE: no such symbol in Linux 5.10.262\n")
        .says("bad.config:3: CONFIG_VIRTIO_BLKK: no such symbol in Linux 5.10.262; did you mean CONFIG_VIRTIO_BLK?")
        .says("bad.config:4: CONFIG_ARM64_VHE: a symbol of arm64, not of x86_64")
        .says("bad.config:5: CONFIG_IP_VS: asked for =m, got off: needs NET (off), NETFILTER (off), INET (off)")
        .says("bad.config:7: CONFIG_EXT2_FS: asked for =\"yes\", got nothing: it takes y, m or n")
        .says("bad.config:8: CONFIG_LOG_BUF_SHIFT: asked for =99, got =")
        .says("it takes 12 to 25")
        .says("bad.config:9: CONFIG_DEBUG_INFO=y is not reproducible")
        .does_not_say("SERIAL_8250_NR_UARTS")
        .does_not_say("compile ");
    assert!(!place.path("out").exists());
}
