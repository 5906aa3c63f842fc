//! How a boot fails, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::console::Failure;
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
    /// An ELF that QEMU has no way into.
    #[error("`{}` has no PVH note, QEMU's only way into an ELF kernel", path.display())]
    NoPvh {
        /// The kernel.
        path: PathBuf,
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
        /// The reason.
        why: String,
        /// The console's last lines.
        console: String,
    },
    /// The kernel gave up.
    #[error("the kernel panicked: {text}")]
    Panic {
        /// The kernel's reason.
        text: String,
        /// The console's last lines.
        console: String,
    },
    /// QEMU ended before init was through.
    #[error("the guest ended {}, without a panic (QEMU: {status})", stage(*reached_init))]
    Ended {
        /// QEMU's exit status.
        status: String,
        /// Whether init had begun.
        reached_init: bool,
        /// The console's last lines, QEMU's own last.
        console: String,
    },
    /// The time was over.
    #[error("the guest was stopped {}, after {limit:?}", stage(*reached_init))]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What the guest asked its metadata service for, if it has one.
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

/// What a panic's text says about the kernel's configuration.
fn advice(panic: &str) -> Option<String> {
    let advice = if panic.contains("Unable to mount root fs on unknown-block(0,0)") {
        "the kernel found no disk: VIRTIO_MMIO, VIRTIO_BLK and, on x86_64, VIRTIO_MMIO_CMDLINE_DEVICES must be y"
    } else if panic.contains("Unable to mount root fs") {
        "the kernel cannot read its root disk: EXT4_FS must be y (EXT2_FS for the small init's)"
    } else if panic.contains("Attempted to kill init") {
        "init ended, and said above why; systemd cannot live without CGROUPS, DEVTMPFS, TMPFS, UNIX, SIGNALFD, TIMERFD, EPOLL, \
         INOTIFY_USER and FHANDLE, all y"
    } else if panic.contains("/init failed (error -8)") {
        "the kernel cannot run an ELF program: BINFMT_ELF must be y"
    } else if panic.contains("No working init found") {
        "the root disk was mounted and has no program at /sbin/init, /etc/init, /bin/init or /bin/sh that the kernel can start: \
         BINFMT_ELF, and the root's architecture"
    } else if panic.contains("No working init") || panic.contains("/init failed") {
        "the root disk was mounted, but the kernel would not start its init: see the error number"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Missing(error) => error.class(),
            Self::Command(error) => error.class(),
            Self::Io(_) | Self::Kvm { .. } => Class::Host,
            Self::Volume { .. } => Class::Input,
            Self::NoVolume { .. } | Self::UnknownModules { .. } => Class::Usage,
            _ => Class::Boot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(error) => error.hint(),
            Self::Command(error) => error.hint(),
            Self::Io(error) => io_hint(error),
            Self::WrongKernel { .. } => Some("`--arch` names the kernel's architecture".into()),
            Self::NoPvh { .. } => {
                Some("Firecracker boots it; for QEMU the kernel needs PVH=y (5.0 and later), or to be built here: the store then \
                 has its bzImage".into())
            }
            Self::UnknownModules { unknown, .. } => {
                let near: Vec<_> = unknown.iter().flat_map(|(_, near)| near).map(String::as_str).collect();
                (!near.is_empty()).then(|| format!("near to that are {}", document::list(near)))
            }
            Self::Kvm { .. } => Some("TCG works on every host".into()),
            Self::Panic { text, .. } => advice(text),
            Self::Ended { console, .. } | Self::TimedOut { console, .. } if console.is_empty() => Some(
                "the console stayed empty: PRINTK, TTY and SERIAL_8250_CONSOLE (x86_64) or \
                 SERIAL_AMBA_PL011_CONSOLE (arm64) must be y"
                    .into(),
            ),
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
    fn a_panic_is_explained_from_its_text() {
        let expected = [
            ("VFS: Unable to mount root fs on unknown-block(0,0)", "VIRTIO_MMIO_CMDLINE_DEVICES"),
            ("VFS: Unable to mount root fs on unknown-block(254,0)", "EXT2_FS"),
            ("Requested init /init failed (error -8).", "BINFMT_ELF"),
            ("Requested init /init failed (error -2).", "error number"),
            ("No working init found.  Try passing init= option to kernel.", "no program at /sbin/init"),
            ("Attempted to kill init! exitcode=0x00000100", "CGROUPS"),
        ];
        for (text, part) in expected {
            let error = Error::Panic { text: text.into(), console: "the end".into() };
            assert!(error.hint().unwrap().contains(part), "{text}");
            assert_eq!((error.class(), error.detail()), (Class::Boot, Some("the end".into())));
        }
        assert_eq!(advice("Fatal exception in interrupt"), None);
    }

    #[test]
    fn an_empty_console_hints_at_the_serial_driver() {
        let error = |console: &str| Error::TimedOut {
            limit: Duration::from_secs(3),
            asked: None,
            reached_init: false,
            console: console.into(),
        };
        assert!(error("").hint().unwrap().contains("SERIAL_8250_CONSOLE"));
        assert!(error("x").hint().unwrap().contains("--timeout"));
        assert_eq!(error("").to_string(), "the guest was stopped before init, after 3s");
    }

    #[test]
    fn unknown_modules_are_named_with_their_neighbours() {
        let unknown = vec![("overlai".into(), vec!["overlay".into()]), ("zzz".into(), vec![])];
        let error = Error::UnknownModules { unknown, version: "5.10.262".into() };
        assert_eq!(error.to_string(), "no module `overlai`, `zzz` for 5.10.262");
        assert_eq!(error.hint().unwrap(), "near to that are `overlay`");
    }
}
