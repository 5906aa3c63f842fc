//! `imgbuild validate` on root volumes: every fault that keeps a node from working is found, and a sound one passes.

use crate::support::Place;
use crate::support::forge::{self, Forged, Item};
use crate::support::node::architecture;
use crate::support::volume::{
    self, STATUS, VERSION, edit, kubernetes, link, node, package, passes, plain, program, programs, put,
    refused, validated,
};
use tar::EntryType;

#[test]
fn sound_volumes_of_both_architectures_pass() {
    for arch in ["amd64", "arm64"] {
        for image in [volume::volume(arch), node(arch)] {
            let outcome = validated(&image).succeeds().prints(" sound: ").does_not_print("note: ");
            assert_eq!(outcome.stderr, "");
        }
    }
    // Another's root volume, about which nothing is claimed, is no business of these rules.
    passes(plain(), |image| {
        image.labels.clear();
        image.without("usr/sbin/init");
    });
}

#[test]
fn a_tool_that_is_missing_is_found_with_who_misses_it() {
    refused(
        plain(),
        |image| image.without("usr/sbin/init"),
        "no `init` is in /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin, and the kernel starts it",
    );
    for (name, why) in [
        ("jq", "CAPMVM's templates call it"),
        ("conntrack", "kubeadm refuses to begin without it"),
        ("socat", "kubeadm warns without it"),
    ] {
        let without = |image: &mut Forged| image.without(&format!("usr/bin/{name}"));
        refused(kubernetes(), without, &format!("no `{name}` is in "));
        refused(
            kubernetes(),
            without,
            &format!(
                "no `{name}` is in /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin, and {why}"
            ),
        );
    }
    // Whoever has containerd needs what goes with it, and no more.
    let containerd = |image: &mut Forged| {
        let content = programs(&image.arch).free;
        put(image, program("usr/local/bin/containerd", content));
    };
    let with_containerd = || {
        let mut image = plain();
        containerd(&mut image);
        for name in ["ctr", "runc", "containerd-shim-runc-v2"] {
            let content = programs(&image.arch).free;
            put(&mut image, program(&format!("usr/local/bin/{name}"), content));
        }
        image
    };
    passes(with_containerd(), |_| {});
    refused(with_containerd(), |image| image.without("usr/local/bin/runc"), "no `runc` is in ");
    refused(
        kubernetes(),
        |image| image.without("opt/cni/bin/loopback"),
        "opt/cni/bin/loopback: there is none",
    );
}

#[test]
fn tools_resolve_through_links_to_files_that_can_be_executed() {
    let alternative = |image: &mut Forged, target: &str| {
        put(image, link("usr/bin/jq", "/etc/alternatives/jq"));
        put(image, link("etc/alternatives/jq", target));
    };
    passes(kubernetes(), |image| alternative(image, "/usr/bin/touch"));
    refused(
        kubernetes(),
        |image| alternative(image, "/usr/bin/gone"),
        "usr/bin/jq: it is a link to /etc/alternatives/jq, where nothing is",
    );
    refused(
        kubernetes(),
        |image| alternative(image, "jq"),
        "usr/bin/jq: it is a link to /etc/alternatives/jq, where nothing is",
    );
    // Links that lead out of the root lead to the root.
    passes(kubernetes(), |image| alternative(image, "../../../../usr/bin/touch"));
    refused(kubernetes(), |image| image.item("usr/bin/jq").mode = 0o644, "usr/bin/jq: its mode is 0644");
    refused(kubernetes(), |image| put(image, Item::directory("usr/bin/jq")), "usr/bin/jq: it is no program");
}

#[test]
fn libraries_are_looked_for_as_the_loader_does() {
    let missing = "usr/bin/ip: it needs libone.so.1, which is in none of the loader's directories";
    refused(plain(), |image| image.without("usr/lib/toy/libone.so.1"), missing);
    let second = "usr/bin/ip: its library usr/lib/toy/libone.so.1 needs libtwo.so.2, which is in none";
    refused(plain(), |image| image.without("opt/toy/lib/libtwo.so.2"), second);
    // Without the line of ld.so.conf it lies where nobody looks.
    refused(plain(), |image| image.item("etc/ld.so.conf").content.clear(), second);
    let triplet = if architecture() == "amd64" { "x86_64-linux-gnu" } else { "aarch64-linux-gnu" };
    passes(plain(), |image| {
        image.item("etc/ld.so.conf").content.clear();
        image.item("opt/toy/lib/libtwo.so.2").path = format!("usr/lib/{triplet}/libtwo.so.2");
    });
    refused(
        plain(),
        |image| image.without("usr/lib/toy-loader"),
        "usr/bin/ip: /lib/toy-loader loads it, and there is no such program",
    );
    passes(plain(), |image| {
        image.item("usr/lib/toy/libone.so.1").path = "usr/lib/toy/libone.so.1.0".into();
        put(image, link("usr/lib/toy/libone.so.1", "libone.so.1.0"));
    });
}

#[test]
fn scripts_need_what_interprets_them() {
    let script = |image: &mut Forged, line: &str| image.item("usr/bin/kmod").content = line.into();
    passes(plain(), |image| script(image, "#! /bin/sh -e\ntrue\n"));
    refused(
        plain(),
        |image| script(image, "#!/usr/bin/perl\n"),
        "usr/bin/kmod: `/usr/bin/perl` is to run it",
    );
    refused(
        plain(),
        |image| script(image, "#!/usr/bin/env -S python3 -u\n"),
        "usr/bin/kmod: `python3` is to run it",
    );
}

#[test]
fn programs_and_libraries_of_another_machine_are_found() {
    let (host, other) = if architecture() == "amd64" { ("x86_64", "arm64") } else { ("arm64", "x86_64") };
    // The field that names the machine, in a program that is otherwise the same.
    let patch = |image: &mut Forged, path: &str, machine: u16| {
        image.item(path).content[18..20].copy_from_slice(&machine.to_le_bytes());
    };
    let machine = if other == "arm64" { 183 } else { 62 };
    let foreign = |path: &str| format!("{path}: it is an {other} ELF, in an image for {host}");
    refused(plain(), |image| patch(image, "usr/bin/sh", machine), &foreign("usr/bin/sh"));
    refused(kubernetes(), |image| patch(image, "usr/bin/kubelet", machine), &foreign("usr/bin/kubelet"));
    let mut image = plain();
    patch(&mut image, "usr/lib/toy/libone.so.1", machine);
    // The loader passes over it, so it is missing too.
    let outcome = validated(&image).exits(5).says("2 findings").prints(foreign("usr/lib/toy/libone.so.1"));
    outcome.prints("usr/bin/ip: it needs libone.so.1");
    refused(
        plain(),
        |image| image.item("usr/bin/sh").content[4] = 1,
        &format!("usr/bin/sh: it is a 32-bit ELF, in an image for {host}"),
    );
    // BPF, firmware, and data are for whoever reads them.
    passes(plain(), |image| {
        image.items.push(program("usr/bin/filter", forge::elf(247)));
        image.items.push(program("usr/lib/firmware/radio.so", forge::elf(machine)));
        image.items.push(Item::file("usr/share/toy/sample", forge::elf(machine)));
    });
}

#[test]
fn versions_asked_are_versions_found() {
    for (name, label) in [
        ("kubelet", "kubernetes"),
        ("kubeadm", "kubernetes"),
        ("kubectl", "kubernetes"),
        ("containerd", "containerd"),
    ] {
        for arch in ["amd64", "arm64"] {
            let path = format!("usr/bin/{name}");
            let finding =
                format!("{path}: it is {name} v1.23.5, the label io.imgbuild.{label}.version says {VERSION}");
            refused(node(arch), |image| image.item(&path).content = programs(arch).other, &finding);
        }
    }
    let mute = "usr/bin/kubelet: it does not tell its version: it printed `hello`";
    let script = |image: &mut Forged, line: &str| {
        for item in volume::shell_of_this_host() {
            put(image, item);
        }
        image.item("usr/bin/kubelet").content = format!("#!/bin/sh\n{line}\n").into();
    };
    // A script is run by the image's own shell, with the image's own libraries.
    passes(kubernetes(), |image| script(image, &format!("echo Kubernetes v{VERSION}")));
    refused(kubernetes(), |image| script(image, "echo hello"), mute);
    refused(
        kubernetes(),
        |image| script(image, "exit 3"),
        "usr/bin/kubelet: it does not tell its version: exit status 3",
    );
    // Neither a link nor another name of it is in the way.
    passes(kubernetes(), |image| {
        image.item("usr/bin/kubelet").path = "opt/kubelet-1.22.8".into();
        put(image, link("usr/bin/kubelet", "/opt/kubelet-1.22.8"));
        image.item("usr/bin/kubectl").path = "opt/kubectl-1.22.8".into();
        image.items.push(Item::link("usr/bin/kubectl", EntryType::Link, "opt/kubectl-1.22.8"));
    });
    let garbage = |image: &mut Forged| image.item("usr/bin/kubelet").content = b"\0garbage".into();
    refused(kubernetes(), garbage, "usr/bin/kubelet: it does not tell its version: execvp /program");
    // It is shut in: nothing of this host is there.
    passes(kubernetes(), |image| {
        script(image, &format!("[ ! -e /etc/passwd ] && [ ! -e /usr ] && echo v{VERSION}"));
    });
}

#[test]
fn what_cannot_be_run_here_is_said() {
    let foreign = if architecture() == "amd64" { "arm64" } else { "amd64" };
    let place = Place::new();
    forge::write(&place.path("out"), &[node(foreign)]);
    let tools = place.path("tools");
    fs_err::create_dir(&tools).unwrap();
    let run = || place.imgbuild("validate out").env("PATH", &tools).run().succeeds();
    run()
        .prints("note: node:1 ")
        .prints("the version of kubelet could not be asked for: bubblewrap is missing");
    std::os::unix::fs::symlink(imgbuild::sandbox::find("bwrap").unwrap(), tools.join("bwrap")).unwrap();
    run().prints("-static is missing: install qemu-user-static");
    let json = place.imgbuild("validate out --format json").env("PATH", &tools).run().succeeds().json();
    assert_eq!((json["findings"].as_array().unwrap().len(), json["notes"].as_array().unwrap().len()), (0, 4));
}

#[test]
fn what_every_volume_needs_is_there() {
    refused(
        plain(),
        |image| edit(image, STATUS, "25.1.2-0ubuntu0~20.04.1", "20.1-10-g71af48df-0ubuntu5"),
        "cloud-init 20.1-10-g71af48df-0ubuntu5 ignores vendor-data of a seed URL",
    );
    passes(plain(), |image| edit(image, STATUS, "25.1.2-0ubuntu0~20.04.1", "20.4-0ubuntu1~20.04.1"));
    refused(
        plain(),
        |image| edit(image, STATUS, "5.5.0-1ubuntu1", "4.15.0-2ubuntu1"),
        "iproute2 4.15.0-2ubuntu1 cannot print routes as JSON",
    );
    refused(
        plain(),
        |image| {
            image.without("usr/lib/systemd/system/systemd-resolved.service");
            image.without("etc/systemd/system/multi-user.target.wants/systemd-resolved.service");
        },
        "there is no systemd-resolved.service",
    );
    let resolver = "etc/resolv.conf: it must be the link to ../run/systemd/resolve/stub-resolv.conf";
    refused(plain(), |image| image.without("etc/resolv.conf"), resolver);
    refused(plain(), |image| put(image, Item::file("etc/resolv.conf", "nameserver 10.0.0.1\n")), resolver);
    refused(plain(), |image| put(image, link("etc/resolv.conf", "../run/resolvconf/resolv.conf")), resolver);
    passes(plain(), |image| put(image, link("etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf")));
    refused(plain(), |image| image.without("etc/machine-id"), "etc/machine-id: there is none");
    refused(
        plain(),
        |image| put(image, Item::file("etc/machine-id", "0123\n")),
        "etc/machine-id: it is not empty",
    );
}

#[test]
fn what_was_left_behind_is_found() {
    for (path, content, finding) in [
        ("etc/ssh/ssh_host_ed25519_key", "", "it is the key of every machine"),
        ("var/lib/dbus/machine-id", "0123\n", "it names the machine that built"),
        ("etc/hostname", "anvil\n", "it says `anvil`"),
        ("var/lib/apt/lists/archive_dists_focal_InRelease", "", "it is a list of apt's"),
        ("var/cache/apt/pkgcache.bin", "", "it is a cache"),
        ("var/cache/apt/archives/toy.deb", "", "it is a cache"),
        ("var/cache/ldconfig/aux-cache", "", "it is a cache"),
        ("var/cache/debconf/config.dat-old", "", "it is a cache"),
        ("var/log/dpkg.log", "anvil", "it is a log"),
        ("var/tmp/x", "", "it was temporary"),
        ("run/x", "", "it was temporary"),
        ("etc/shadow-", "", "it is a backup of accounts"),
        ("etc/subuid-", "", "it is a backup of accounts"),
        ("usr/lib/python3/__pycache__/x.cpython-38.pyc", "", "Python compiles it anew"),
        ("boot/vmlinuz-5.4.0-1-generic", "", "it is a second kernel"),
        ("vmlinuz", "", "it is a second kernel"),
    ] {
        refused(plain(), |image| image.items.push(Item::file(path, content)), &format!("{path}: {finding}"));
    }
    for path in [
        "var/lib/apt/lists/lock",
        "var/log/wtmp",
        "etc/hostname",
        "var/cache/apt/archives/lock",
        "boot/config",
        "etc/ssh/ssh_config",
    ] {
        passes(plain(), |image| image.items.push(Item::file(path, "")));
    }
    refused(
        plain(),
        |image| {
            image
                .item(STATUS)
                .content
                .extend(package("linux-image-5.4.0-1-generic", "5.4", "all", "").into_bytes());
            image.items.push(Item::file("var/lib/dpkg/info/linux-image-5.4.0-1-generic.list", "/.\n"));
        },
        "the package linux-image-5.4.0-1-generic brings a second kernel",
    );
}

#[test]
fn units_that_must_start_are_enabled() {
    let wants = "etc/systemd/system/multi-user.target.wants";
    for (unit, why) in [
        ("kubelet", "nothing starts the node's kubelet"),
        ("containerd", "nothing starts the node's container runtime"),
        ("systemd-networkd", "nothing brings the network up"),
        ("systemd-resolved", "nothing resolves names"),
    ] {
        let path = format!("usr/lib/systemd/system/{unit}.service");
        refused(
            kubernetes(),
            |image| image.without(&format!("{wants}/{unit}.service")),
            &format!("{path}: it is not enabled, and so {why}"),
        );
    }
    refused(
        kubernetes(),
        |image| {
            image.without(&format!("{wants}/kubelet.service"));
            image.without("usr/lib/systemd/system/kubelet.service");
        },
        "there is no kubelet.service",
    );
    refused(
        plain(),
        |image| image.items.push(link(&format!("{wants}/gone.service"), "/lib/systemd/system/gone.service")),
        &format!("{wants}/gone.service: it enables /lib/systemd/system/gone.service, which is no unit file"),
    );
    // An instance of a template, and a link whose target another directory has.
    passes(plain(), |image| {
        image.items.push(Item::file("usr/lib/systemd/system/getty@.service", ""));
        image.items.push(link(&format!("{wants}/getty@tty1.service"), "/lib/systemd/system/getty@.service"));
        image.items.push(Item::file("etc/systemd/system/mine.service", ""));
        image.items.push(link(&format!("{wants}/mine.service"), "/usr/lib/systemd/system/mine.service"));
    });
    let masked = "etc/systemd/system/systemd-networkd.service";
    refused(
        plain(),
        |image| image.items.push(link(masked, "/dev/null")),
        &format!("{masked}: it is masked, and so nothing brings the network up"),
    );
}

#[test]
fn containerd_and_kubelet_are_told_the_same() {
    let path = "etc/containerd/config.toml";
    let pause = "registry.k8s.io/pause:3.5";
    let write = |image: &mut Forged, text: String| image.item(path).content = text.into();
    let one = "io.containerd.grpc.v1.cri";
    refused(kubernetes(), |image| image.without(path), &format!("{path}: there is none"));
    refused(
        kubernetes(),
        |image| write(image, volume::config(one, pause, false)),
        &format!("{path}: SystemdCgroup of runc's options must be true"),
    );
    refused(
        kubernetes(),
        |image| write(image, volume::config(one, "k8s.gcr.io/pause:3.2", true)),
        &format!("{path}: its sandbox image is k8s.gcr.io/pause:3.2, this version's kubeadm means {pause}"),
    );
    // The cgroup driver is right, the image stands where nobody looks.
    let elsewhere = volume::config("other", pause, true)
        .replace("\"other\".containerd", "\"io.containerd.grpc.v1.cri\".containerd");
    refused(kubernetes(), |image| write(image, elsewhere), &format!("{path}: it names no sandbox image"));
    refused(
        kubernetes(),
        |image| write(image, "version = \n".into()),
        &format!("{path}: containerd does not start with it"),
    );
    let two = format!(
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{pause}'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
    );
    passes(kubernetes(), |image| write(image, two));
}

#[test]
fn kubelet_is_given_the_flags_that_its_version_has() {
    let path = "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";
    let docker = format!("kubelet {VERSION} looks for Docker unless it is told");
    refused(kubernetes(), |image| edit(image, path, "--container-runtime=remote ", ""), &docker);
    refused(kubernetes(), |image| edit(image, path, "containerd.sock", "docker.sock"), &docker);
    refused(kubernetes(), |image| edit(image, path, "Environment", "#Environment"), &docker);
    // Of a version that the programs here do not have: the label alone is what counts for flags.
    let newer = |version: &str| {
        let mut image = kubernetes();
        image.label("io.imgbuild.kubernetes.version", version);
        let version = format!("echo v{version}");
        for item in volume::shell_of_this_host() {
            put(&mut image, item);
        }
        for name in ["kubelet", "kubeadm", "kubectl"] {
            image.item(&format!("usr/bin/{name}")).content = format!("#!/bin/sh\n{version}\n").into();
        }
        image
    };
    passes(newer("1.26.15"), |_| {});
    passes(newer("1.30.14"), |image| edit(image, path, "--container-runtime=remote ", ""));
    refused(
        newer("1.27.1"),
        |_| {},
        &format!("{path}: kubelet 1.27.1 does not start with --container-runtime, which 1.27 dropped"),
    );
    refused(
        newer("1.24.17"),
        |image| edit(image, path, "ARGS=", "ARGS=--network-plugin=cni "),
        &format!("{path}: kubelet 1.24.17 does not start with --network-plugin, which 1.24 dropped"),
    );
}
