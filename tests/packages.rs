//! `imgbuild validate` on root volumes: dpkg's database holds together, and files are as packages brought them.

use crate::support::forge::{Forged, Item};
use crate::support::volume::{STATUS, edit, package, passes, plain, programs, refused, validated};

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
