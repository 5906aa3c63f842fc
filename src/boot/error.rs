//! How a boot fails, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::console::Failure;
use super::panic::{Panic, console_symbols};
use super::vmm::Vmm;
use crate::arch::Arch;
use crate::step::{Class, Diagnose, io_hint};
use crate::{document, host, sandbox};

/// `ENODEV`: the kernel does not know the file system type.
const ENODEV: i32 = 19;
/// `ENOENT`.
const ENOENT: i32 = 2;
/// `ENOEXEC`: a module that was built for another kernel.
const ENOEXEC: i32 = 8;

/// A kernel could not be booted, or did not come as far as it was expected to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not here.
    #[error(transparent)]
    Missing(#[from] host::Missing),
    /// The compiler or `mke2fs` failed, or the user stopped the run.
    #[error(transparent)]
    Command(#[from] sandbox::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not a kernel of the architecture asked for.
    #[error("`{}` is {found}, not {wanted}", path.display())]
    WrongKernel {
        /// The file.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// An ELF that the monitor has no way into.
    #[error("`{}` has no PVH note, {}'s only way into an ELF kernel", path.display(), vmm.name())]
    NoPvh {
        /// The kernel.
        path: PathBuf,
        /// What would boot it.
        vmm: Vmm,
    },
    /// A monitor that was asked for and is not here.
    #[error("{} is not here: no `{}` on PATH", vmm.name(), vmm.word())]
    NoProgram {
        /// The monitor.
        vmm: Vmm,
    },
    /// No monitor at all.
    #[error(
        "no virtual machine monitor is here: no `firecracker`, `cloud-hypervisor` or `{}` on PATH",
        Vmm::Qemu.program(*arch)
    )]
    NoVmm {
        /// The guest's architecture.
        arch: Arch,
        /// The one that packages bring.
        missing: host::Missing,
    },
    /// A monitor that runs the host's architecture alone.
    #[error(
        "{} runs guests of the host's architecture alone: the kernel is for {guest}, this host is {}",
        vmm.name(),
        std::env::consts::ARCH
    )]
    Foreign {
        /// The monitor.
        vmm: Vmm,
        /// The guest's architecture.
        guest: Arch,
    },
    /// A monitor that has nothing but KVM.
    #[error("{} has no translator: it runs guests by KVM alone", vmm.name())]
    NoTranslator {
        /// The monitor.
        vmm: Vmm,
    },
    /// What is said does not go with the monitor.
    #[error("{what}, and {} is asked for", vmm.name())]
    Contradiction {
        /// What was said.
        what: &'static str,
        /// The monitor.
        vmm: Vmm,
    },
    /// No network interface can be made for the guest.
    #[error("{} wants a tap for the guest's network, and this host gives none: {why}", vmm.name())]
    Network {
        /// The monitor.
        vmm: Vmm,
        /// The reason.
        why: String,
    },
    /// More metadata than Firecracker's service holds.
    #[error("the guest's metadata has {size} bytes, and Firecracker's service holds {limit}")]
    Metadata {
        /// As JSON.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The modules directory is not laid out as our images are.
    #[error("`{}` is no modules volume: {why}", dir.display())]
    Volume {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Modules are to be loaded, and there is no volume to load them from.
    #[error("no modules volume to load {} from", document::list(names.iter().map(String::as_str)))]
    NoVolume {
        /// The modules asked for.
        names: Vec<String>,
    },
    /// Modules that neither the volume nor the kernel has.
    #[error("no module {} for {version}", document::list(unknown.iter().map(|(name, _)| name.as_str())))]
    UnknownModules {
        /// Each name with those that may have been meant.
        unknown: Vec<(String, Vec<String>)>,
        /// The volume's kernel release.
        version: String,
    },
    /// KVM was asked for and does not work here.
    #[error("KVM does not work here: {why}")]
    Kvm {
        /// What was to run by it.
        vmm: Vmm,
        /// The reason.
        why: String,
        /// The console's last lines.
        console: String,
    },
    /// The kernel gave up.
    #[error("the kernel panicked: {}", panic.text)]
    Panic {
        /// What became of it.
        panic: Box<Panic>,
        /// The console's last lines.
        console: String,
    },
    /// The monitor ended before init was through.
    #[error("the guest ended {}, without a panic ({}: {status})", stage(*reached_init), vmm.name())]
    Ended {
        /// The monitor.
        vmm: Vmm,
        /// The guest's architecture.
        arch: Arch,
        /// The monitor's exit status.
        status: String,
        /// Whether init had begun.
        reached_init: bool,
        /// The console's last lines, the monitor's own last.
        console: String,
    },
    /// The time was over.
    #[error("the guest was stopped {}, after {limit:?}", stage(*reached_init))]
    TimedOut {
        /// The monitor.
        vmm: Vmm,
        /// The guest's architecture.
        arch: Arch,
        /// The limit.
        limit: Duration,
        /// What the guest asked its metadata service for, if we are that.
        asked: Option<Vec<String>>,
        /// Whether init had begun.
        reached_init: bool,
        /// The console's last lines.
        console: String,
    },
    /// The root's init gave up.
    #[error("systemd gave up: it froze")]
    Frozen {
        /// The console's last lines.
        console: String,
    },
    /// A node came up, but not as a node should.
    #[error("the node is not sound: {}", faults.join("; "))]
    Unsound {
        /// What is wrong, each in a few words.
        faults: Vec<String>,
        /// What to look at first.
        hint: Option<String>,
    },
    /// Init came to its end, but not all it said arrived.
    #[error("init's account on the console is damaged")]
    Garbled {
        /// The console's last lines.
        console: String,
    },
    /// Kernel and modules do not belong together.
    #[error("the kernel is {kernel}, the modules volume is for {modules}")]
    Release {
        /// The kernel's release.
        kernel: String,
        /// The volume's.
        modules: String,
    },
    /// The guest cannot use the modules volume.
    #[error("the guest cannot use the modules volume: {failure}")]
    Mount {
        /// What failed.
        failure: Failure,
        /// The console's last lines.
        console: String,
    },
    /// Modules that would not load.
    #[error("the guest could not load {}", failed.iter().map(|(name, why)| format!("`{name}` ({why})")).collect::<Vec<_>>().join(", "))]
    Load {
        /// Each module with what failed.
        failed: Vec<(String, Failure)>,
        /// The console's last lines.
        console: String,
    },
}

/// How far a guest came that did not come to its end.
fn stage(reached_init: bool) -> &'static str {
    if reached_init { "in the middle of init" } else { "before init" }
}

/// A boot that failed, for programs.
#[derive(Debug, Serialize)]
pub struct Failed<'e> {
    /// False.
    pub booted: bool,
    /// What went wrong, in one sentence.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The panic, where there was one.
    pub panic: Option<&'e Panic>,
    /// The console's last lines.
    pub console: Vec<String>,
}

impl Error {
    /// The failure for programs; none where the fault is in what was asked for, or nothing was booted.
    pub fn failed(&self) -> Option<Failed<'_>> {
        if self.class() != Class::Boot {
            return None;
        }
        let panic = match self {
            Self::Panic { panic, .. } => Some(&**panic),
            _ => None,
        };
        let console = self.detail().unwrap_or_default().lines().map(str::to_owned).collect();
        Some(Failed { booted: false, error: self.to_string(), hint: self.hint(), panic, console })
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Missing(error) => error.class(),
            Self::Command(error) => error.class(),
            Self::Io(_) => Class::Host,
            Self::Volume { .. } | Self::NoProgram { .. } | Self::NoVmm { .. } => Class::Input,
            Self::NoVolume { .. }
            | Self::UnknownModules { .. }
            | Self::NoTranslator { .. }
            | Self::Contradiction { .. }
            | Self::Metadata { .. } => Class::Usage,
            _ => Class::Boot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(error) => error.hint(),
            Self::Command(error) => error.hint(),
            Self::Io(error) => io_hint(error),
            Self::WrongKernel { .. } => Some("`--arch` names the kernel's architecture".into()),
            Self::NoPvh { vmm, .. } => Some(format!(
                "Firecracker boots it; for {} the kernel needs PVH=y (5.0 and later), or to be built here: the store then \
                 has its bzImage",
                vmm.name()
            )),
            Self::NoProgram { vmm } => Some(format!(
                "its makers release it as one file, for a directory of PATH: {}; `--vmm qemu` does without",
                match vmm {
                    Vmm::CloudHypervisor => "https://github.com/cloud-hypervisor/cloud-hypervisor/releases",
                    _ => "https://github.com/firecracker-microvm/firecracker/releases",
                }
            )),
            Self::NoVmm { missing, .. } => missing.hint(),
            Self::Foreign { .. } => Some("`--vmm qemu` translates it".into()),
            Self::NoTranslator { .. } => Some("`--vmm qemu --accelerator tcg` translates on every host".into()),
            Self::Contradiction { .. } => Some("leave one of the two away".into()),
            Self::Network { .. } => Some(
                "it takes /dev/net/tun for all to open, and user namespaces (or root); without `--root` there is no network, and \
                 `--vmm qemu` needs neither"
                    .into(),
            ),
            Self::Metadata { .. } => Some("so it is on Flintlock's hosts too: make `--user-data` smaller".into()),
            Self::UnknownModules { unknown, .. } => {
                let near: Vec<_> = unknown.iter().flat_map(|(_, near)| near).map(String::as_str).collect();
                (!near.is_empty()).then(|| format!("near to that are {}", document::list(near)))
            }
            Self::Kvm { .. } => Some(
                "its user has to be in the group `kvm` and the machine has to allow it; without, \
                 `--vmm qemu --accelerator tcg` works on every host"
                    .into(),
            ),
            Self::Panic { panic, .. } => panic.hint(),
            Self::Ended { vmm, arch, console, .. } | Self::TimedOut { vmm, arch, console, .. }
                if console.is_empty() =>
            {
                Some(format!(
                    "the console stayed empty: {} must be y{}",
                    console_symbols(*vmm, *arch),
                    if *vmm == Vmm::Qemu { "" } else { "; or KVM runs no guests here: `--vmm qemu --accelerator tcg` tells" }
                ))
            }
            Self::TimedOut { asked: Some(asked), reached_init: true, .. } if asked.is_empty() => Some(
                "the guest has not asked for its metadata at 169.254.169.254: give it more time, with `--timeout`, or see that \
                 VIRTIO_NET is y, networkd enabled, and NoCloud among its cloud-init's datasources"
                    .into(),
            ),
            Self::TimedOut { .. } => Some("give a slow host more time, with `--timeout`".into()),
            Self::Frozen { .. } => {
                Some("what it said before tells which file system or facility the kernel lacks".into())
            }
            Self::Unsound { hint, .. } => hint.clone(),
            Self::Release { .. } => Some("take both images of one build: `--modules` names the other".into()),
            Self::Mount { failure, .. } if failure.number == ENODEV => {
                Some("neither EXT2_FS nor EXT4_FS is built into the kernel".into())
            }
            Self::Mount { failure, .. } if failure.number == ENOENT && failure.path.starts_with("/dev") => {
                Some("DEVTMPFS must be y, for the disk to have a device node".into())
            }
            Self::Load { failed, .. } if failed.iter().any(|(_, failure)| failure.number == ENOEXEC) => {
                Some("the module was built for another kernel or configuration".into())
            }
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Command(error) => error.detail(),
            Self::Kvm { console, .. }
            | Self::Panic { console, .. }
            | Self::Ended { console, .. }
            | Self::TimedOut { console, .. }
            | Self::Garbled { console }
            | Self::Frozen { console }
            | Self::Mount { console, .. }
            | Self::Load { console, .. } => (!console.is_empty()).then(|| console.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_has_class_console_and_an_account_for_programs() {
        let text = "VFS: Unable to mount root fs on unknown-block(254,0)";
        let panic = Box::new(Panic::new(text, Vmm::Firecracker, Arch::X86_64, "EXT4_FS", None));
        let error = Error::Panic { panic, console: "before\nthe end".into() };
        assert_eq!((error.class(), error.detail()), (Class::Boot, Some("before\nthe end".into())));
        let json = serde_json::to_value(error.failed().unwrap()).unwrap();
        assert_eq!(json["error"], format!("the kernel panicked: {text}"));
        assert_eq!(
            (&json["panic"]["kind"], &json["panic"]["symbols"][0]),
            (&"unreadable_root".into(), &"EXT4_FS".into())
        );
        assert_eq!((&json["booted"], &json["console"][1]), (&false.into(), &"the end".into()));
        assert!(Error::NoVolume { names: vec![] }.failed().is_none());
    }

    #[test]
    fn an_empty_console_hints_at_the_drivers_of_its_monitor() {
        let error = |vmm, console: &str| Error::TimedOut {
            vmm,
            arch: Arch::X86_64,
            limit: Duration::from_secs(3),
            asked: None,
            reached_init: false,
            console: console.into(),
        };
        assert!(error(Vmm::Qemu, "").hint().unwrap().ends_with("SERIAL_8250_CONSOLE must be y"));
        assert!(error(Vmm::CloudHypervisor, "").hint().unwrap().contains("VIRTIO_CONSOLE must be y; or KVM"));
        assert!(error(Vmm::Firecracker, "x").hint().unwrap().contains("--timeout"));
        assert_eq!(error(Vmm::Qemu, "").to_string(), "the guest was stopped before init, after 3s");
    }

    #[test]
    fn unknown_modules_are_named_with_their_neighbours() {
        let unknown = vec![("overlai".into(), vec!["overlay".into()]), ("zzz".into(), vec![])];
        let error = Error::UnknownModules { unknown, version: "5.10.262".into() };
        assert_eq!(error.to_string(), "no module `overlai`, `zzz` for 5.10.262");
        assert_eq!(error.hint().unwrap(), "near to that are `overlay`");
    }
}
