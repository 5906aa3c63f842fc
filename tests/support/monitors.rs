//! Stand-ins for Firecracker and Cloud Hypervisor, and a host that seems to have KVM.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::node::{Member, layer};
use super::source::Source;
use super::{Imgbuild, Place, forge, host, is_running, names};

/// What the small init says of a made-up kernel.
pub(crate) const SMALL: &str = "[    0.000000] Linux version 5.10.1 (imgbuild@imgbuild) #1\n\n@imgbuild init 0.580 @\n\
    @imgbuild release 5.10.1 @\n@imgbuild machine x86_64 @\n@imgbuild root ext2 @\n@imgbuild config yes @\n\
    @imgbuild volume ext2 @\n@imgbuild end 6 @\n";
/// What a system says on its way up.
pub(crate) const SYSTEM: &str = "[    0.000000] Linux version 5.10.1 (imgbuild@imgbuild) #1\n\
    [    0.500000] Run /sbin/init as init process\nnode login: ";
/// What a kernel says that finds no disk.
pub(crate) const NO_DISK: &str = "[    0.000000] Linux version 5.10.1 (imgbuild@imgbuild) #1\n\
    [    0.320000] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n";
/// Notes its arguments, its process and what it may reach, and says what it is told to.
const PROGRAM: &str = "#!/bin/sh\n\
    if [ \"$1\" = --version ]; then echo \"$VERSION\"; exit; fi\n\
    for word; do printf '%s\\n' \"$word\"; done > \"$NOTES/arguments\"\n\
    cp ./*.json cidata.img \"$NOTES\" 2>/dev/null\n\
    tail -n +3 /proc/net/dev | cut -d : -f 1 | tr -d ' ' > \"$NOTES/interfaces\"\n\
    echo $$ > \"$NOTES/process\"\n\
    cat \"$NOTES/console\"\n\
    [ ! -e \"$NOTES/last-word\" ] || { cat \"$NOTES/last-word\" >&2; exit 1; }\n\
    exec sleep 1000\n";
/// A /dev whose kvm can be opened, and runs nothing.
pub(crate) const DEV: &str = "d=$(mktemp -d); mount -t tmpfs none $d; mkdir $d/net\n\
    for name in null zero urandom kvm net/tun; do touch $d/$name; done\n\
    for name in null zero urandom; do mount --bind /dev/$name $d/$name; done\n\
    for name in kvm net/tun; do mount --bind /dev/null $d/$name; done\n\
    mount --rbind $d /dev";

/// A made-up kernel of the host's architecture in `out`, a root volume in `node`, the stand-ins on PATH.
pub(crate) struct Host {
    /// Where all of it is.
    pub(crate) place: Place,
}

impl Host {
    /// With these words on the console of whatever is booted.
    pub(crate) fn new(console: &str) -> Self {
        let mut place = Place::new();
        Source::new().install(&mut place);
        place.imgbuild("kernel 5.10.1 --arch").arg(host()).run().succeeds();
        let architecture = if host() == "arm64" { "arm64" } else { "amd64" };
        forge::write_packed(&place.path("node"), &[("node:1", architecture, vec![layer(&system())])]);
        for name in ["firecracker", "cloud-hypervisor"] {
            let program = place.write(&format!("programs/{name}"), PROGRAM);
            fs_err::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("our own file");
        }
        place.write("notes/console", console);
        Self { place }
    }

    /// A run with the stand-ins on PATH, where KVM can be opened.
    pub(crate) fn boot(&self, words: &str) -> Imgbuild {
        self.imgbuild(&format!("boot {words}"))
    }

    /// The same, of any command.
    pub(crate) fn imgbuild(&self, words: &str) -> Imgbuild {
        let path = std::env::var("PATH").expect("the tests need a PATH");
        let path = format!("{}:{path}", self.place.path("programs").display());
        let run = self.place.imgbuild(words).env("PATH", path);
        let version =
            if words.contains("cloud-hypervisor") { "cloud-hypervisor v40.0" } else { "Firecracker v1.7.0" };
        let run = run.env("NOTES", self.place.path("notes")).env("VERSION", version);
        run.under(["unshare", "--user", "--map-root-user", "--mount"]).after(DEV)
    }

    /// What a stand-in noted.
    pub(crate) fn note(&self, name: &str) -> String {
        fs_err::read_to_string(self.place.path("notes").join(name)).expect("what a stand-in noted")
    }

    /// A file that a stand-in was given.
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.note(name)).expect("JSON")
    }

    /// Nothing is left of the run: no process, no scratch file.
    pub(crate) fn is_clean(&self) {
        assert!(!is_running(self.note("process").trim()), "the stand-in was ended");
        assert_eq!(self.place.half_made(), [""; 0]);
        assert_eq!(names(&self.place.path("")).iter().filter(|name| name.contains("json")).count(), 0);
    }
}

fn system() -> Vec<Member> {
    let program = |path: &str| Member { mode: 0o755, ..Member::file(path, "\x7fELF") };
    vec![program("sbin/init"), program("usr/bin/cloud-init")]
}
