//! `kernel-headers`: what modules of one's own are compiled against, the same from every machine, and of use on each.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::support::layout::Layout;
use crate::support::node::{Member, layer};
use crate::support::real::{self, MODULES};
use crate::support::source::{EPOCH, Gate, Source};
use crate::support::{Place, forge, names, shared_store, tool};
use fs_err as fs;
use imgbuild::sandbox::Sandbox;
use imgbuild::step::Cancel;

const HEADERS: &str = "kernel-headers:5.10.1";
const BOTH: &str = "--arch x86_64,arm64";

/// A place with the headers of a made-up kernel in `out`.
fn built(place: &mut Place) -> Layout {
    Source::new().install(place);
    place.imgbuild(&format!("kernel 5.10.1 {BOTH} --outputs headers")).run().succeeds();
    Layout::at(place.path("out"))
}

#[test]
fn headers_are_where_debian_has_them_and_hold_nothing_of_the_machine_that_made_them() {
    let mut place = Place::new();
    let layout = built(&mut place);
    assert_eq!(layout.images().into_keys().collect::<Vec<_>>(), [HEADERS]);
    for (architecture, own, other) in [("amd64", "x86", "arm64"), ("arm64", "arm64", "x86")] {
        let image = layout.image(HEADERS, architecture);
        assert_eq!(image.label("io.imgbuild.role"), "headers");
        let top = "usr/src/linux-headers-5.10.1";
        let paths = image.paths();
        let expected = [
            ".config".to_owned(),
            "GNUmakefile".into(),
            "Makefile".into(),
            "Module.symvers".into(),
            format!("arch/{own}/include/asm/toy.h"),
            "include/config/auto.conf".into(),
            "include/generated/utsrelease.h".into(),
            "include/linux/toy.h".into(),
            "scripts/kconfig.awk".into(),
            "usr/include/linux/toy.h".into(),
        ];
        let files = image.entries.iter().filter(|(_, entry)| entry.kind.is_file());
        let files: Vec<_> = files.filter_map(|(path, _)| path.strip_prefix(&format!("{top}/"))).collect();
        assert_eq!(files, expected);
        assert!(!paths.iter().any(|path| path.contains(&format!("arch/{other}"))), "{paths:?}");
        let link = image.entry("usr/lib/modules/5.10.1/build");
        assert_eq!(
            (link.kind, link.link.as_deref()),
            (tar::EntryType::Symlink, Some("/usr/src/linux-headers-5.10.1"))
        );
        let symbols = &image.entry(&format!("{top}/Module.symvers")).content;
        let symbols = String::from_utf8_lossy(symbols);
        assert_eq!(
            symbols,
            "0x00000000\tbanner\tvmlinux\tEXPORT_SYMBOL\t\n0x00000000\ttoy\tdrivers/toy\tEXPORT_SYMBOL\t\n"
        );
        assert!(image.entries.iter().all(|(_, entry)| entry.mtime == EPOCH && entry.owner == (0, 0)));
        for (path, entry) in &image.entries {
            assert!(!entry.content.starts_with(b"\x7fELF"), "{path} is a program");
            let work = place.work();
            let work = work.as_os_str().as_encoded_bytes();
            assert!(!entry.content.windows(work.len()).any(|bytes| bytes == work), "{path} names a path");
        }
    }
    place.imgbuild("validate out").run().succeeds().prints(" sound: ");
}

#[test]
fn every_place_and_user_makes_the_same_headers() {
    let images = built(&mut Place::new()).images();
    let mut place = Place::new();
    Source::new().install(&mut place);
    let run = place
        .imgbuild(&format!("kernel 5.10.1 {BOTH} --outputs headers,kernel --jobs 1"))
        .env("IMGBUILD_STORE", place.path("a/rather/longer/path"))
        .env("TZ", "Asia/Kolkata")
        .env("USER", "somebody")
        .after("umask 077");
    run.run().succeeds();
    assert_eq!(Layout::at(place.path("out")).images()[HEADERS], images[HEADERS]);
}

#[test]
fn what_a_kernel_exports_is_kept_when_it_is_compiled_and_compiled_for_where_it_is_gone() {
    let mut place = Place::new();
    let gate = Gate::open_in(&place);
    Source::new().gate(&gate).install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    let plain = Layout::at(place.path("out")).images();
    assert_eq!(gate.begun(), 1);
    // Days later: nothing of it is compiled for the headers.
    let words = "kernel 5.10.1 --arch x86_64 --outputs kernel,modules,headers --output";
    place.imgbuild(&format!("{words} later")).run().succeeds().does_not_say("  compile  ");
    assert_eq!(gate.begun(), 1);
    let later = Layout::at(place.path("later")).images();
    for (name, digest) in &plain {
        assert_eq!(&later[name], digest);
    }
    place.imgbuild(&format!("{words} again")).run().succeeds().does_not_say("  prepare  ");

    // A kernel of an older imgbuild, or from a cache: it is compiled once more, and the images stay.
    for kind in ["symbols", "layer"] {
        fs::remove_dir_all(place.store().join("artifacts").join(kind)).expect("it is there");
    }
    place
        .imgbuild(&format!("{words} older"))
        .run()
        .succeeds()
        .says("what Linux 5.10.1 x86_64 exports is not in the store: it is compiled for that");
    assert_eq!(gate.begun(), 2);
    assert_eq!(Layout::at(place.path("older")).images(), later);
}

#[test]
fn plan_tells_of_headers_before_and_after() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    let plan = "plan 5.10.1 --arch x86_64 --outputs headers";
    let before = place.imgbuild(plan).run().succeeds();
    let before = before.prints("     pack  headers 5.10.1 x86_64 ").prints("to do");
    before
        .prints("from the configured source, and what the kernel exports")
        .prints(format!("assemble  {HEADERS}"));
    place.imgbuild(&plan.replace("plan", "kernel")).run().succeeds();
    let json = place.imgbuild(&format!("{plan} --format json")).run().succeeds().json();
    let steps = json["steps"].as_array().unwrap_or_else(|| panic!("{json}"));
    let pack = steps.iter().find(|step| step["what"] == "headers 5.10.1 x86_64");
    assert_eq!(pack.unwrap_or_else(|| panic!("{json}"))["cached"], true);
}

#[test]
fn headers_that_are_not_whole_are_found() {
    let mut place = Place::new();
    let layout = built(&mut place);
    let image = layout.image(HEADERS, "amd64");
    let label = |name: &str| (name.to_owned(), image.label(name).to_owned());
    let labels = ["io.imgbuild.role", "io.imgbuild.kernel.release"].map(label);
    let refused = |change: &dyn Fn(&mut forge::Forged), told: &str| {
        let mut forged = forge::Forged::kernel("amd64");
        forged.name = HEADERS.into();
        forged.labels = labels.clone().into();
        forged.items = image
            .entries
            .iter()
            .map(|(path, entry)| forge::Item {
                path: path.clone(),
                kind: entry.kind,
                mode: entry.mode,
                owner: 0,
                mtime: entry.mtime,
                link: entry.link.clone().unwrap_or_default(),
                content: entry.content.clone(),
            })
            .collect();
        change(&mut forged);
        let place = Place::new();
        forge::write(&place.path("out"), &[forged]);
        place.imgbuild("validate out").run().exits(5).prints(told);
    };
    let without =
        |path: &'static str| move |image: &mut forge::Forged| image.items.retain(|item| item.path != path);
    refused(
        &without("usr/src/linux-headers-5.10.1/Module.symvers"),
        "usr/src/linux-headers-5.10.1/Module.symvers: there is none, and modules are compiled by it",
    );
    refused(
        &without("usr/lib/modules/5.10.1/build"),
        "usr/lib/modules/5.10.1/build: no link to /usr/src/linux-headers-5.10.1",
    );
    refused(
        &|image| {
            let program = fs::read("/proc/self/exe").expect("we are a program");
            image.items.push(forge::Item::file("usr/src/linux-headers-5.10.1/scripts/mod/modpost", program));
        },
        "scripts/mod/modpost: it is an x86_64 ELF: headers hold sources alone",
    );
    refused(
        &|image| drop(image.labels.remove("io.imgbuild.kernel.release")),
        "no label io.imgbuild.kernel.release",
    );
}

/// A module that is no part of the kernel's source, and needs one that is.
const OUTSIDE: &str = r#"
#include <linux/hw_random.h>
#include <linux/module.h>

static void (*volatile needed)(struct hwrng *) = hwrng_unregister;

static int __init outside_init(void)
{
	pr_info("a module from outside is at home: %d\n", needed != NULL);
	return 0;
}

static void __exit outside_exit(void)
{
}

module_init(outside_init);
module_exit(outside_exit);
MODULE_DESCRIPTION("A module from outside");
MODULE_LICENSE("GPL");
"#;

/// The tree of the toolchain that compiled the kernel, out of the store that the tests share.
fn toolchain() -> PathBuf {
    let trees = shared_store().join("artifacts/tree");
    let is_ours = |key: &String| {
        fs::read_to_string(trees.join(key).join("name")).is_ok_and(|name| name.starts_with("debian-11 "))
    };
    let key = names(&trees).into_iter().find(is_ours).expect("the kernel was compiled with it");
    trees.join(key).join("files")
}

/// The proof: a module compiled against the unpacked image, by tools that never saw the kernel's source, runs.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the toolchain's own compiler is for this machine")]
fn a_module_compiled_against_the_image_loads_into_the_kernel() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let words = "kernel 5.10.262 --flavour tiny --arch x86_64 --outputs kernel,modules,headers";
    place.imgbuild(words).run().succeeds().prints("kernel-headers-tiny:5.10.262");
    let layout = Layout::at(place.path("out"));
    let headers = place.path("headers");
    layout.image("kernel-headers-tiny:5.10.262", "amd64").unpack(&headers);
    assert!(headers.join("usr/src/linux-headers-5.10.262/usr/include/linux/kvm.h").is_file());

    place.write("module/outside.c", OUTSIDE);
    place.write("module/Makefile", "obj-m := outside.o\n");
    let command = Sandbox::tree(toolchain())
        .writable(headers.join("usr/src/linux-headers-5.10.262"), "/imgbuild/headers")
        .writable(place.path("module"), "/imgbuild/build")
        .command("make")
        .args(["-C", "/imgbuild/headers", "M=/imgbuild/build", "modules"]);
    let output = command.output(&Cancel::default()).unwrap_or_else(|error| panic!("{error:?}"));
    let output = String::from_utf8_lossy(&output).into_owned();
    assert!(output.contains("HOSTCC  scripts/mod/modpost") && !output.contains("WARNING"), "{output}");
    assert!(!output.contains("undefined"), "{output}");

    // Beside the kernel's own modules, in a volume of the same shape.
    let root = place.path("root");
    fs::create_dir(&root).expect("a new directory");
    layout.image(MODULES, "amd64").unpack(&root);
    let module = place.path("module/outside.ko");
    let info = tool("modinfo", &[module.as_os_str()]);
    assert!(
        info.contains("depends:        rng-core") && info.contains("vermagic:       5.10.262 "),
        "{info}"
    );
    fs::create_dir(root.join("lib/modules/5.10.262/extra")).expect("a new directory");
    fs::copy(&module, root.join("lib/modules/5.10.262/extra/outside.ko")).expect("a new file");
    tool("depmod", &[OsStr::new("-b"), root.as_os_str(), OsStr::new("5.10.262")]);
    let members = members(&root, "lib/modules/5.10.262");
    forge::write_packed(&place.path("volume"), &[("modules:1", "amd64", vec![layer(&members)])]);
    place
        .imgbuild("boot out --arch x86_64 --modules volume:modules:1 --load outside --console")
        .run()
        .succeeds()
        .prints("a module from outside is at home: 1")
        .prints("  outside: loaded from the volume\n");
}

/// What is in `dir`, as the members of a layer, with a link to each thing at the top.
fn members(root: &Path, dir: &str) -> Vec<Member> {
    let mut members = Vec::from(["lib", "lib/modules", dir].map(Member::directory));
    add(root, dir, &mut members);
    for name in names(&root.join(dir)) {
        members.push(Member::symlink(&name, &format!("{dir}/{name}")));
    }
    members
}

fn add(root: &Path, dir: &str, members: &mut Vec<Member>) {
    for name in names(&root.join(dir)) {
        let path = format!("{dir}/{name}");
        if root.join(&path).is_dir() {
            members.push(Member::directory(&path));
            add(root, &path, members);
        } else {
            members.push(Member::file(&path, fs::read(root.join(&path)).expect("a file")));
        }
    }
}
