//! A root volume made by hand, small and sound: programs that gcc made, a database of dpkg's, units and links.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use fs_err as fs;
use md5::{Digest, Md5};
use tar::EntryType;

use super::forge::{self, Forged, Item};
use super::node::architecture;
use super::{Outcome, Place, tool};

/// The Kubernetes version of the node.
pub(crate) const VERSION: &str = "1.22.8";
/// What dpkg says of its packages.
pub(crate) const STATUS: &str = "var/lib/dpkg/status";
/// A program that needs nothing, for either architecture: it says which version it is.
const FREE: &str = r#"
static long call(long number, long a, const char *b, long c) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register const char *x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}
#if defined(__x86_64__)
enum { WRITE = 1, EXIT = 60 };
#else
enum { WRITE = 64, EXIT = 93 };
#endif
void _start(void) {
    static const char version[] = "Program v" VERSION "\n";
    call(WRITE, 1, version, sizeof version - 1);
    call(EXIT, 0, 0, 0);
}
"#;
/// A program that needs a library, and one that needs another.
const NEEDY: &str = "void one(void); void _start(void) { one(); }";
const ONE: &str = "void two(void); void one(void) { two(); }";
const TWO: &str = "void two(void) { }";

/// Bytes of programs and libraries.
#[derive(Clone)]
pub(crate) struct Programs {
    /// Needs nothing.
    pub(crate) free: Vec<u8>,
    /// Says that it is another version.
    pub(crate) other: Vec<u8>,
    /// Needs `libone.so.1` by RUNPATH, `$ORIGIN/../lib/toy`, and a loader.
    pub(crate) needy: Vec<u8>,
    /// `libone.so.1`; needs `libtwo.so.2`.
    pub(crate) one: Vec<u8>,
    /// `libtwo.so.2`.
    pub(crate) two: Vec<u8>,
}

/// The host's compiler for an image's architecture.
fn compiler(arch: &str) -> &'static str {
    match (arch, cfg!(target_arch = "aarch64")) {
        ("amd64", false) | ("arm64", true) => "gcc",
        ("amd64", true) => "x86_64-linux-gnu-gcc",
        _ => "aarch64-linux-gnu-gcc",
    }
}

/// A program that needs nothing and prints `Program v`, this version and an end of line.
pub(crate) fn saying(arch: &str, version: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (input, output) = (dir.path().join("free.c"), dir.path().join("free"));
    fs::write(&input, FREE).expect("a new file");
    let define = format!("-DVERSION=\"{}\"", version.replace('\n', "\\n"));
    let words =
        ["-O1", "-nostdlib", "-fno-stack-protector", "-Wl,--build-id=none", "-static", "-no-pie", &define];
    let mut args: Vec<&OsStr> = words.map(OsStr::new).into();
    args.extend([input.as_os_str(), OsStr::new("-o"), output.as_os_str()]);
    tool(compiler(arch), &args);
    fs::read(output).expect("gcc made it")
}

fn compile(arch: &str) -> Programs {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let make = |source: &str, name: &str, words: &[&str]| -> Vec<u8> {
        let (input, output) = (dir.path().join(format!("{name}.c")), dir.path().join(name));
        fs::write(&input, source).expect("a new file");
        let fixed =
            ["-O1", "-nostdlib", "-fno-stack-protector", "-Wl,--build-id=none", "-Wl,--enable-new-dtags"];
        let mut args: Vec<&OsStr> = fixed.iter().chain(words).map(OsStr::new).collect();
        args.extend([input.as_os_str(), OsStr::new("-o"), output.as_os_str(), OsStr::new("-L")]);
        args.push(dir.path().as_os_str());
        tool(compiler(arch), &args);
        fs::read(output).expect("gcc made it")
    };
    let free = |version: &str| {
        let define = format!("-DVERSION=\"{version}\"");
        make(FREE, "free", &["-static", "-no-pie", &define])
    };
    let two = make(TWO, "libtwo.so.2", &["-shared", "-fPIC", "-Wl,-soname,libtwo.so.2"]);
    let one = make(
        ONE,
        "libone.so.1",
        &["-shared", "-fPIC", "-Wl,-soname,libone.so.1", "-Wl,--no-as-needed", "-l:libtwo.so.2"],
    );
    let rpath = "-Wl,-rpath,$ORIGIN/../lib/toy";
    let words = [
        "-Wl,--dynamic-linker=/lib/toy-loader",
        rpath,
        "-Wl,--no-as-needed",
        "-l:libone.so.1",
        "-Wl,--allow-shlib-undefined",
    ];
    Programs { free: free(VERSION), other: free("1.23.5"), needy: make(NEEDY, "needy", &words), one, two }
}

/// The programs of an architecture: `amd64`, `arm64`.
pub(crate) fn programs(arch: &str) -> Programs {
    static AMD64: LazyLock<Programs> = LazyLock::new(|| compile("amd64"));
    static ARM64: LazyLock<Programs> = LazyLock::new(|| compile("arm64"));
    if arch == "amd64" { AMD64.clone() } else { ARM64.clone() }
}

/// A file that may be executed.
pub(crate) fn program(path: &str, content: impl AsRef<[u8]>) -> Item {
    Item { mode: 0o755, ..Item::file(path, content) }
}

pub(crate) fn link(path: &str, target: &str) -> Item {
    Item::link(path, EntryType::Symlink, target)
}

/// A paragraph of dpkg's.
pub(crate) fn package(name: &str, version: &str, arch: &str, more: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nArchitecture: {arch}\nVersion: {version}\n{more}\n"
    )
}

/// A system without Kubernetes.
pub(crate) fn volume(arch: &str) -> Forged {
    let Programs { free, needy, one, two, .. } = programs(arch);
    let data = "some data\n";
    let sum = imgbuild::step::hex(&Md5::digest(data));
    let status = [
        package(
            "toy",
            "1:1.0-1",
            arch,
            "Depends: libtoy (>= 2.0), editor | toy-editor\nConffiles:\n /etc/toy.conf 0\n",
        ),
        package("libtoy", "2.0-1", arch, "Provides: editor\n"),
        package("cloud-init", "25.1.2-0ubuntu0~20.04.1", "all", "Depends: libtoy\n"),
        package("iproute2", "5.5.0-1ubuntu1", arch, ""),
    ]
    .concat();
    let list = "/.\n/usr\n/usr/share\n/usr/share/toy\n/usr/share/toy/data\n/usr/share/doc/toy/gone\n/etc/toy.conf\n/bin/mount\n";
    let units = "usr/lib/systemd/system";
    let wants = "etc/systemd/system/multi-user.target.wants";
    let open = |path: &str| Item { mode: 0o1777, ..Item::directory(path) };
    let mut items = vec![
        open("tmp"),
        open("var/tmp"),
        link("bin", "usr/bin"),
        link("sbin", "usr/sbin"),
        link("lib", "usr/lib"),
        Item::file("etc/group", "root:x:0:\nshadow:x:42:\n"),
        Item::file("etc/ld.so.conf", "# libraries\ninclude /etc/ld.so.conf.d/*.conf\n"),
        Item::file("etc/ld.so.conf.d/toy.conf", "/opt/toy/lib\n"),
        Item::file("etc/machine-id", ""),
        Item::file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        program("opt/toy/lib/libtwo.so.2", two),
        link("usr/bin/env", "sh"),
        program("usr/bin/ip", needy),
        program("usr/bin/kmod", "#!/usr/bin/env sh\n"),
        Item { mode: 0o4755, ..Item::file("usr/bin/mount", &free) },
        program("usr/bin/sh", &free),
        program("usr/lib/systemd/systemd", &free),
        Item::file("usr/lib/toy/libone.so.1", one),
        program("usr/lib/toy-loader", &free),
        link("usr/sbin/init", "/lib/systemd/systemd"),
        link("usr/sbin/modprobe", "../bin/kmod"),
        Item::directory("usr/share/toy"),
        Item::file("usr/share/toy/data", data),
        Item::file("var/lib/dpkg/status", status),
        Item::file("var/lib/dpkg/info/toy.list", list),
        Item::file("var/lib/dpkg/info/toy.md5sums", format!("{sum}  usr/share/toy/data\n")),
    ];
    let lists = [&format!("libtoy:{arch}"), "cloud-init", "iproute2"];
    items.extend(lists.map(|name| Item::file(&format!("var/lib/dpkg/info/{name}.list"), "/.\n")));
    for unit in ["systemd-networkd.service", "systemd-resolved.service"] {
        items.push(Item::file(&format!("{units}/{unit}"), "[Service]\n"));
        items.push(link(&format!("{wants}/{unit}"), &format!("/lib/systemd/system/{unit}")));
    }
    let mut forged = Forged::kernel(arch);
    (forged.name, forged.items) = ("node:1".into(), items);
    forged.labels.clear();
    forged.label("io.imgbuild.role", "os");
    forged
}

/// A Kubernetes node.
pub(crate) fn node(arch: &str) -> Forged {
    let mut forged = volume(arch);
    let free = programs(arch).free;
    let names = [
        "containerd",
        "containerd-shim-runc-v2",
        "runc",
        "ctr",
        "kubelet",
        "kubeadm",
        "kubectl",
        "crictl",
        "iptables",
        "nsenter",
        "conntrack",
        "ebtables",
        "ethtool",
        "socat",
        "tc",
        "touch",
        "jq",
    ];
    forged.items.extend(names.map(|name| program(&format!("usr/bin/{name}"), &free)));
    forged.items.push(program("opt/cni/bin/loopback", &free));
    for unit in ["kubelet.service", "containerd.service"] {
        forged.items.push(Item::file(&format!("usr/lib/systemd/system/{unit}"), "[Service]\n"));
        let path = format!("etc/systemd/system/multi-user.target.wants/{unit}");
        forged.items.push(link(&path, &format!("../../../../usr/lib/systemd/system/{unit}")));
    }
    let flags = "[Service]\nEnvironment=\"ARGS=--container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock\"\n";
    forged.items.push(Item::file("usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", flags));
    forged.items.push(Item::file(
        "etc/containerd/config.toml",
        config("io.containerd.grpc.v1.cri", "registry.k8s.io/pause:3.5", true),
    ));
    forged.label("io.imgbuild.kubernetes.version", VERSION);
    forged.label("io.imgbuild.kubernetes.pause", "registry.k8s.io/pause:3.5");
    forged.label("io.imgbuild.containerd.version", VERSION);
    forged
}

/// containerd's configuration.
pub(crate) fn config(plugin: &str, pause: &str, is_systemd: bool) -> String {
    let plugin = format!("plugins.\"{plugin}\"");
    format!(
        "version = 2\n[{plugin}]\nsandbox_image = \"{pause}\"\n\
         [{plugin}.containerd.runtimes.runc.options]\nSystemdCgroup = {is_systemd}\n"
    )
}

/// A program of this host that a login shell finds, and what it loads: path in the image and bytes.
pub(crate) fn shell_of_this_host() -> Vec<Item> {
    let listed = Command::new("ldd").arg("/bin/sh").output().expect("ldd comes with libc");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    let mut items = vec![program("usr/bin/sh", fs::read("/bin/sh").expect("a shell"))];
    items.extend(paths.map(|path| {
        let text = path.to_str().expect("text").trim_start_matches('/').to_owned();
        program(&text, fs::read(path).expect("a library"))
    }));
    items
}

/// What validating a layout of it comes to.
pub(crate) fn validated(image: &Forged) -> Outcome {
    let place = Place::new();
    forge::write(&place.path("out"), std::slice::from_ref(image));
    place.imgbuild("validate out").run()
}

/// The image must be unsound once it is changed, for this reason alone.
#[track_caller]
pub(crate) fn refused(mut image: Forged, change: impl FnOnce(&mut Forged), finding: &str) {
    change(&mut image);
    let outcome = validated(&image).exits(5).prints(format!("node:1 {}: {finding}", image.arch));
    outcome.says("error: `out` is not sound: 1 finding\n");
}

/// The image must be sound however it is changed.
#[track_caller]
pub(crate) fn passes(mut image: Forged, change: impl FnOnce(&mut Forged)) {
    change(&mut image);
    validated(&image).succeeds();
}

/// A system without Kubernetes, for this host.
pub(crate) fn plain() -> Forged {
    volume(architecture())
}

/// A Kubernetes node for this host.
pub(crate) fn kubernetes() -> Forged {
    node(architecture())
}

/// Puts a file in the place of another, or beside it.
pub(crate) fn put(image: &mut Forged, item: Item) {
    image.without(&item.path);
    image.items.push(item);
}

/// Replaces text in a file.
#[track_caller]
pub(crate) fn edit(image: &mut Forged, path: &str, from: &str, to: &str) {
    let item = image.item(path);
    let text = String::from_utf8(std::mem::take(&mut item.content)).expect("text");
    assert!(text.contains(from), "{text}");
    item.content = text.replace(from, to).into_bytes();
}
