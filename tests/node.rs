//! `imgbuild validate` on root volumes: every fault that keeps a node from working is found, and a sound one passes.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test does")]

mod support;

use support::forge::{self, Forged, Item};
use support::node::architecture;
use support::volume::{self, VERSION, link, node, package, program, programs};
use support::{Outcome, Place};
use tar::EntryType;

const STATUS: &str = "var/lib/dpkg/status";

fn validated(image: &Forged) -> Outcome {
    let place = Place::new();
    forge::write(&place.path("out"), std::slice::from_ref(image));
    place.imgbuild("validate out").run()
}

/// The image must be unsound once it is changed, for this reason alone.
#[track_caller]
fn refused(mut image: Forged, change: impl FnOnce(&mut Forged), finding: &str) {
    change(&mut image);
    let outcome = validated(&image).exits(5).prints(format!("node:1 {}: {finding}", image.arch));
    outcome.says("error: `out` is not sound: 1 finding\n");
}

/// The image must be sound however it is changed.
#[track_caller]
fn passes(mut image: Forged, change: impl FnOnce(&mut Forged)) {
    change(&mut image);
    validated(&image).succeeds();
}

fn plain() -> Forged {
    volume::volume(architecture())
}

fn kubernetes() -> Forged {
    node(architecture())
}

/// Puts a file in the place of another, or beside it.
fn put(image: &mut Forged, item: Item) {
    image.without(&item.path);
    image.items.push(item);
}

/// Replaces text in a file.
#[track_caller]
fn edit(image: &mut Forged, path: &str, from: &str, to: &str) {
    let item = image.item(path);
    let text = String::from_utf8(std::mem::take(&mut item.content)).unwrap();
    assert!(text.contains(from), "{text}");
    item.content = text.replace(from, to).into_bytes();
}

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
        put(image, program("usr/local/bin/containerd", programs(&image.arch.clone()).free))
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
        script(image, &format!("[ ! -e /etc/passwd ] && [ ! -e /usr ] && echo v{VERSION}"))
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
fn a_volume_has_dpkg_s_database() {
    let mut image = plain();
    image.without(STATUS);
    let outcome = validated(&image)
        .exits(5)
        .prints(format!("{STATUS}: there is none: what is installed cannot be told"));
    outcome.prints("cloud-init is not installed").says("2 findings");
}

#[test]
fn what_a_package_depends_on_is_installed() {
    let depends = |image: &mut Forged, field: &str| {
        edit(image, STATUS, "libtoy (>= 2.0), editor | toy-editor", field);
    };
    for held in ["libtoy (= 2.0-1), libtoy (<< 2.1~)", "gone | libtoy:any", "editor", "toy (>= 1:0.9)", ""] {
        passes(plain(), |image| depends(image, held));
    }
    for broken in
        ["libtoy (>= 2.0-1ubuntu1)", "gone", "gone | other (<< 1)", "editor (>= 1)", "toy (<< 1:1.0-1)"]
    {
        refused(
            plain(),
            |image| depends(image, broken),
            &format!("{STATUS}: toy 1:1.0-1 depends on `{broken}`, which is not installed"),
        );
    }
    refused(
        plain(),
        |image| depends(image, "libtoy (~> 1)"),
        &format!("{STATUS}: toy 1:1.0-1 depends on `libtoy (~> 1)`, which is no dependency"),
    );
    passes(plain(), |image| {
        edit(image, STATUS, "Provides: editor", "Provides: editor (= 3)");
        depends(image, "editor (>= 2)");
    });
}

#[test]
fn every_package_is_installed_and_of_this_machine() {
    let state = "Status: install ok installed\nArchitecture: all";
    refused(
        plain(),
        |image| edit(image, STATUS, state, "Status: install ok half-configured\nArchitecture: all"),
        &format!("{STATUS}: cloud-init 25.1.2-0ubuntu0~20.04.1 is `install ok half-configured`"),
    );
    passes(plain(), |image| edit(image, STATUS, state, "Status: hold ok installed\nArchitecture: all"));
    let add = |image: &mut Forged, paragraph: &str| {
        image.item(STATUS).content.extend(paragraph.as_bytes());
        image.items.push(Item::file("var/lib/dpkg/info/extra.list", "/.\n"));
    };
    passes(plain(), |image| add(image, &package("extra", "1", "all", "")));
    refused(
        plain(),
        |image| add(image, &package("extra", "1", "riscv64", "")),
        &format!("{STATUS}: extra 1 is for riscv64, in an image for"),
    );
    refused(
        plain(),
        |image| add(image, "Package: extra\nStatus: install ok installed\nArchitecture: all\n"),
        &format!("{STATUS}: extra has no Version"),
    );
    refused(plain(), |image| add(image, "nonsense\n"), &format!("{STATUS}: `nonsense` is no field"));
    refused(
        plain(),
        |image| add(image, &package("iproute2", "5.5.0-1ubuntu1", &image.arch.clone(), "")),
        &format!("{STATUS}: iproute2 for"),
    );
    refused(
        plain(),
        |image| image.items.push(Item::file("var/lib/dpkg/updates/0001", "Package: x\n")),
        "var/lib/dpkg/updates/0001: a change that dpkg began",
    );
}

#[test]
fn what_packages_brought_is_there_as_they_brought_it() {
    refused(
        plain(),
        |image| image.without("var/lib/dpkg/info/cloud-init.list"),
        &format!("{STATUS}: cloud-init 25.1.2-0ubuntu0~20.04.1 is installed, but nothing"),
    );
    refused(
        plain(),
        |image| image.without("usr/share/toy/data"),
        "usr/share/toy/data: toy 1:1.0-1 brought it, and it is gone",
    );
    refused(
        plain(),
        |image| image.item("usr/share/toy/data").content[0] = b'S',
        "usr/share/toy/data: its bytes are not those that toy 1:1.0-1 brought",
    );
    // A layer above the one that dpkg wrote its status to was meant to change it, but not to take it away.
    passes(plain(), |image| image.upper.push(Item::file("usr/share/toy/data", "our own\n")));
    refused(
        plain(),
        |image| image.upper.push(Item::file("usr/share/toy/.wh.data", "")),
        "usr/share/toy/data: toy 1:1.0-1 brought it, and it is gone",
    );
    // Another package has moved it aside, and brought its own.
    let divert = |image: &mut Forged| {
        let text = "/usr/share/toy/data\n/usr/share/toy/data.real\nother\n";
        image.items.push(Item::file("var/lib/dpkg/diversions", text));
        image.item("usr/share/toy/data").path = "usr/share/toy/data.real".into();
    };
    passes(plain(), divert);
    refused(
        plain(),
        |image| {
            divert(image);
            image.item("usr/share/toy/data.real").content[0] = b'S';
        },
        "usr/share/toy/data.real: its bytes are not those",
    );
    let list = "var/lib/dpkg/info/toy.list";
    refused(
        plain(),
        |image| edit(image, list, "/etc/toy.conf\n", "/etc/toy.conf\n/opt/a\n/opt/b\n"),
        "opt/a: toy 1:1.0-1 brought it, and it is gone: install the package again; so it is with 1 more",
    );
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
fn owners_and_bits_are_as_packages_ship_them() {
    refused(
        plain(),
        |image| image.item("usr/bin/mount").mode = 0o755,
        "usr/bin/mount: its mode is 0755 and its owner 0: it must be root's and setuid",
    );
    let own = |image: &mut Forged, path: &str| {
        image.item("etc/passwd").content.extend(b"alice:x:1000:1000::/home/alice:/bin/sh\n");
        image.item("etc/group").content.extend(b"alice:x:1000:\n");
        image.item(path).owner = 1000;
    };
    refused(
        plain(),
        |image| own(image, "usr/bin/sh"),
        "usr/bin/sh: it is a program that its owner can change",
    );
    passes(plain(), |image| own(image, "usr/share/toy/data"));
    refused(
        plain(),
        |image| image.item("usr/share/toy/data").owner = 1000,
        "usr/share/toy/data: its owner or group is in neither /etc/passwd nor /etc/group",
    );
    refused(
        plain(),
        |image| image.item("tmp").mode = 0o755,
        "tmp: it is 0:0 with mode 0755: it must be root:root with 1777",
    );
    let expiry = |mode: u32, owner: u64| {
        move |image: &mut Forged| {
            edit(image, "var/lib/dpkg/info/toy.list", "/bin/mount\n", "/bin/mount\n/usr/bin/expiry\n");
            let content = programs(&image.arch).free;
            image.items.push(Item { mode, owner, ..Item::file("usr/bin/expiry", content) });
            image.item("etc/passwd").content.extend(b"shadow:x:42:42::/:/bin/sh\n");
        }
    };
    refused(
        plain(),
        expiry(0o755, 0),
        "usr/bin/expiry: its mode is 0755 and its group 0: it must be setgid (2755) with the group shadow",
    );
    passes(plain(), |image| {
        edit(image, "etc/group", "shadow:x:42:", "shadow:x:0:");
        expiry(0o2755, 0)(image);
    });
    // dpkg was told otherwise, and that counts.
    let told =
        |image: &mut Forged, entry: &str| image.items.push(Item::file("var/lib/dpkg/statoverride", entry));
    let open = |image: &mut Forged| image.item("usr/bin/mount").mode = 0o755;
    passes(plain(), |image| {
        open(image);
        told(image, "root root 755 /usr/bin/mount\n");
    });
    refused(
        plain(),
        |image| told(image, "root root 755 /usr/bin/mount\n"),
        "usr/bin/mount: it is 0:0 with mode 4755: var/lib/dpkg/statoverride says root:root with 0755",
    );
    refused(
        plain(),
        |image| told(image, "root #42 4755 /usr/bin/mount\n"),
        "usr/bin/mount: it is 0:0 with mode 4755: var/lib/dpkg/statoverride says root:#42",
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
    refused(
        kubernetes(),
        |image| {
            write(
                image,
                volume::config("other", pause, true)
                    .replace("\"other\".containerd", "\"io.containerd.grpc.v1.cri\".containerd"),
            )
        },
        &format!("{path}: it names no sandbox image"),
    );
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
