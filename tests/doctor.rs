//! `imgbuild doctor`: what this host lacks, and the one command that brings it.

use std::path::Path;

use crate::support::source::Source;
use crate::support::{Imgbuild, Place, tool};

/// Has the command find these programs only, and those in the system's own `sbin`.
fn with_only(place: &Place, programs: &[&str], run: Imgbuild) -> Imgbuild {
    let dir = place.path("few");
    let _ = fs_err::remove_dir_all(&dir);
    fs_err::create_dir(&dir).unwrap();
    for program in programs {
        let path = std::env::var_os("PATH").unwrap();
        let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
        let found = found.unwrap_or_else(|| panic!("{program} is not here, which the tests need"));
        std::os::unix::fs::symlink(found, dir.join(program)).unwrap();
    }
    run.env("PATH", dir)
}

/// What a command to install packages begins with.
fn apt_get() -> String {
    let sudo = if tool("id", &["-u".as_ref()]).trim() == "0" { "" } else { "sudo " };
    format!("{sudo}apt-get install --no-install-recommends")
}

const HOST: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };

#[test]
fn a_host_that_has_everything_is_told_so() {
    let place = Place::new();
    let outcome = place.imgbuild("doctor --arch all").run().succeeds();
    // Which monitors and what of KVM is here is the host's affair; nothing of it is missing.
    let (monitors, lines): (Vec<_>, Vec<_>) =
        outcome.stdout.lines().partition(|line| line.starts_with("  monitors: "));
    assert_eq!(monitors.len(), 2);
    for line in monitors {
        let named = ["Firecracker", "Cloud Hypervisor", "QEMU ", "; /dev/kvm: "];
        assert!(named.iter().all(|part| line.contains(part)), "{line}");
    }
    assert_eq!(
        lines,
        [
            "build x86_64 kernels: everything is here",
            "boot x86_64 kernels: everything is here",
            "build arm64 kernels: everything is here",
            "boot arm64 kernels: everything is here",
            "sandbox: it works",
        ]
    );
    let outcome = place.imgbuild("doctor kernel --toolchain host").run().succeeds();
    assert_eq!(outcome.stdout, format!("build {HOST} kernels: everything is here\n"));
}

#[test]
fn a_tree_needs_what_makes_it_and_what_shuts_it_in() {
    let place = Place::new();
    let outcome = with_only(&place, &["bwrap"], place.imgbuild("doctor kernel")).run().exits(4);
    outcome
        .prints(format!("build {HOST} kernels: missing mmdebstrap\n"))
        .says("error: this host lacks `mmdebstrap` (makes root trees)")
        .says(format!("hint: on Debian and Ubuntu: `{} mmdebstrap`", apt_get()));
    let outcome = place.imgbuild("doctor kernel --toolchain debian-1").run().fails(2);
    outcome.says("did you mean `debian-11`?");
}

#[test]
fn what_is_missing_is_named_with_the_one_command_that_brings_it() {
    let place = Place::new();
    let run = place.imgbuild("doctor kernel --toolchain host");
    let outcome = with_only(&place, &["make", "gcc", "perl", "gzip"], run).run().exits(4);
    outcome
        .prints(format!("build {HOST} kernels: missing "))
        .prints("bc")
        .says("error: this host lacks `bc` (computes the kernel's time constants), `bison` (")
        .says("`flex` (generates kconfig's lexer), `ld` (links the kernel)")
        .does_not_say("`make`")
        .says(format!("hint: on Debian and Ubuntu: `{} bc binutils bison flex`", apt_get()));
}

#[test]
fn kernel_says_the_same_instead_of_failing_inside_make() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    let programs = ["make", "gcc", "perl", "gzip"];
    for command in ["kernel 5.10.1", "kernel 5.10.1 --dry-run", "config 5.10.1"] {
        let run = place.imgbuild(command);
        with_only(&place, &programs, run)
            .run()
            .fails(4)
            .says("error: this host lacks `bc` (computes the kernel's time constants), `bison` (")
            .says(format!("hint: on Debian and Ubuntu: `{} bc binutils bison flex`", apt_get()))
            .does_not_say("fetch")
            .does_not_say("configure");
    }
    assert!(!place.path("out").exists());
}

#[test]
fn the_other_architecture_needs_its_cross_compiler() {
    let place = Place::new();
    let (arch, package, gcc) = if HOST == "x86_64" {
        ("arm64", "binutils-aarch64-linux-gnu gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc")
    } else {
        ("x86_64", "binutils-x86-64-linux-gnu gcc-x86-64-linux-gnu", "x86_64-linux-gnu-gcc")
    };
    let native = ["make", "gcc", "ld", "flex", "bison", "bc", "perl", "gzip"];
    let run = place.imgbuild("doctor kernel --toolchain host --arch").arg(arch);
    let outcome = with_only(&place, &native, run).run().exits(4);
    outcome
        .prints(format!("build {arch} kernels: missing"))
        .says(format!("`{gcc}` (compiles for {arch})"))
        .says(format!("`{} {package}`", apt_get()));
    // The host's own is not touched by that.
    with_only(&place, &native, place.imgbuild("doctor kernel --toolchain host")).run().succeeds();
}

#[test]
fn booting_needs_the_architectures_qemu() {
    let place = Place::new();
    for (arch, program, package) in [
        ("x86_64", "qemu-system-x86_64", "qemu-system-x86"),
        ("arm64", "qemu-system-aarch64", "qemu-system-arm"),
    ] {
        let run = place.imgbuild("doctor boot --arch").arg(arch);
        let outcome = with_only(&place, &["gcc"], run).run().exits(4);
        outcome.says(format!("`{program}` (runs the guest)")).says(package).does_not_say("flex");
    }
}

#[test]
fn an_empty_path_is_a_host_that_lacks_all() {
    let place = Place::new();
    let outcome = place.imgbuild("doctor kernel --toolchain host").env("PATH", "").run().exits(4);
    outcome.says("`make`").says("`gcc`").says(" make").says("perl-base");
    assert!(Path::new("/usr/include/stdio.h").exists(), "libc6-dev is not asked for where its headers are");
}
