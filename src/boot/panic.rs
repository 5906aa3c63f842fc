//! Panics: what became of the kernel, and the symbols of its configuration that would have helped.

use serde::Serialize;

use super::vmm::Vmm;
use crate::arch::Arch;
use crate::kernel::kconfig::Config;
use crate::kernel::kconfig::fragment::Value;

/// What became of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It found no root disk: the driver of the disk or of what it is behind is missing.
    NoRootDisk,
    /// It found the disk and cannot read it: the file system is missing.
    UnreadableRoot,
    /// It mounted the root, and no init is there.
    NoInit,
    /// It mounted the root, and cannot run the init there.
    InitNotRun,
    /// Init ended.
    InitEnded,
    /// Anything else.
    Other,
}

/// A kernel that gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Panic {
    /// What became of it.
    pub kind: Kind,
    /// The kernel's own reason.
    pub text: String,
    /// The symbols, without `CONFIG_`, that have to be y and are not; all that have to be where the kernel's configuration
    /// is not known. `A|B` means either.
    pub symbols: Vec<String>,
    /// Whether the configuration is known and has all of them.
    pub has_all: bool,
}

impl Panic {
    /// Classifies the kernel's reason. `file_systems` are those that the root may have.
    pub(super) fn new(
        text: &str,
        vmm: Vmm,
        arch: Arch,
        file_systems: &'static str,
        config: Option<&Config>,
    ) -> Self {
        let kind = kind(text);
        let wanted: &[&str] = match (kind, vmm, arch) {
            (Kind::NoRootDisk, Vmm::CloudHypervisor, _) => &["PCI", "ACPI", "VIRTIO_PCI", "VIRTIO_BLK"],
            (Kind::NoRootDisk, Vmm::Firecracker | Vmm::Qemu, Arch::X86_64) => {
                &["VIRTIO_MMIO", "VIRTIO_BLK", "VIRTIO_MMIO_CMDLINE_DEVICES|ACPI"]
            }
            (Kind::NoRootDisk, Vmm::Firecracker | Vmm::Qemu, Arch::Arm64) => &["VIRTIO_MMIO", "VIRTIO_BLK"],
            (Kind::UnreadableRoot, ..) => &[file_systems],
            (Kind::InitNotRun | Kind::NoInit, ..) => &["BINFMT_ELF"],
            (Kind::InitEnded, ..) => &[
                "CGROUPS",
                "DEVTMPFS",
                "TMPFS",
                "UNIX",
                "SIGNALFD",
                "TIMERFD",
                "EPOLL",
                "INOTIFY_USER",
                "FHANDLE",
            ],
            (Kind::Other, ..) => &[],
        };
        let is_on = |symbol: &str| config.is_some_and(|config| *config.get(symbol) == Value::Yes);
        let lacking = wanted.iter().filter(|either| !either.split('|').any(is_on));
        let symbols: Vec<String> = lacking.map(|symbol| (*symbol).to_owned()).collect();
        let has_all = symbols.is_empty() && !wanted.is_empty();
        Self { kind, text: text.to_owned(), symbols, has_all }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> Option<String> {
        let said = match self.kind {
            Kind::NoRootDisk => "the kernel found no disk",
            Kind::UnreadableRoot => "the kernel cannot read its root disk",
            Kind::NoInit => {
                "the root disk was mounted and has no program at /sbin/init, /etc/init, /bin/init or /bin/sh that the kernel \
                 can start"
            }
            Kind::InitNotRun => "the root disk was mounted, but the kernel would not start its init",
            Kind::InitEnded => "init ended, and said above why",
            Kind::Other => return None,
        };
        let must = |symbols: &[String]| {
            let names = symbols.iter().map(|symbol| symbol.replace('|', " or "));
            format!("{} must be y", names.collect::<Vec<_>>().join(", "))
        };
        Some(match (self.has_all, self.kind) {
            (true, Kind::NoInit) => format!("{said}: see that it is there, and of the kernel's architecture"),
            (true, _) => format!("{said}, and has all it takes for that built in: the console tells more"),
            (false, Kind::NoInit) => {
                format!("{said}: {}, and the root of its architecture", must(&self.symbols))
            }
            (false, _) => format!("{said}: {}", must(&self.symbols)),
        })
    }
}

/// What a panic's text says.
fn kind(text: &str) -> Kind {
    if text.contains("Unable to mount root fs on unknown-block(0,0)") {
        Kind::NoRootDisk
    } else if text.contains("Unable to mount root fs") {
        Kind::UnreadableRoot
    } else if text.contains("Attempted to kill init") {
        Kind::InitEnded
    } else if text.contains("No working init found") || text.contains("init failed (error -2)") {
        Kind::NoInit
    } else if text.contains("No working init") || text.contains("init failed") {
        Kind::InitNotRun
    } else {
        Kind::Other
    }
}

/// What has to be y for a console to say anything.
pub(super) fn console_symbols(vmm: Vmm, arch: Arch) -> String {
    let symbols: &[&str] = match (vmm, arch) {
        (Vmm::CloudHypervisor, _) => &["PRINTK", "TTY", "PCI", "ACPI", "VIRTIO_PCI", "VIRTIO_CONSOLE"],
        (Vmm::Firecracker, Arch::Arm64) => &["PRINTK", "TTY", "SERIAL_8250_CONSOLE", "SERIAL_OF_PLATFORM"],
        (Vmm::Qemu, Arch::Arm64) => &["PRINTK", "TTY", "SERIAL_AMBA_PL011_CONSOLE"],
        (_, Arch::X86_64) => &["PRINTK", "TTY", "SERIAL_8250_CONSOLE"],
    };
    symbols.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_DISK: &str = "VFS: Unable to mount root fs on unknown-block(0,0)";

    #[test]
    fn a_panic_is_classified_by_its_text() {
        let expected = [
            (NO_DISK, Kind::NoRootDisk, "VIRTIO_MMIO_CMDLINE_DEVICES or ACPI must be y"),
            (
                "VFS: Unable to mount root fs on unknown-block(254,0)",
                Kind::UnreadableRoot,
                "EXT2_FS or EXT4_FS must be y",
            ),
            ("Requested init /init failed (error -8).", Kind::InitNotRun, "BINFMT_ELF must be y"),
            ("Requested init /init failed (error -2).", Kind::NoInit, "no program at /sbin/init"),
            (
                "No working init found.  Try passing init= option to kernel.",
                Kind::NoInit,
                "no program at /sbin/init",
            ),
            ("Attempted to kill init! exitcode=0x00000100", Kind::InitEnded, "CGROUPS"),
        ];
        for (text, kind, part) in expected {
            let panic = Panic::new(text, Vmm::Qemu, Arch::X86_64, "EXT2_FS|EXT4_FS", None);
            assert_eq!(panic.kind, kind, "{text}");
            assert!(panic.hint().unwrap().contains(part), "{text}: {:?}", panic.hint());
        }
        let other = Panic::new("Fatal exception in interrupt", Vmm::Qemu, Arch::X86_64, "EXT4_FS", None);
        assert_eq!((other.kind, other.hint()), (Kind::Other, None));
    }

    #[test]
    fn each_monitor_has_its_disk_behind_something_else() {
        let symbols = |vmm, arch| Panic::new(NO_DISK, vmm, arch, "EXT4_FS", None).symbols.join(" ");
        assert_eq!(symbols(Vmm::CloudHypervisor, Arch::X86_64), "PCI ACPI VIRTIO_PCI VIRTIO_BLK");
        assert_eq!(
            symbols(Vmm::Firecracker, Arch::X86_64),
            "VIRTIO_MMIO VIRTIO_BLK VIRTIO_MMIO_CMDLINE_DEVICES|ACPI"
        );
        assert_eq!(symbols(Vmm::Firecracker, Arch::Arm64), "VIRTIO_MMIO VIRTIO_BLK");
        assert!(console_symbols(Vmm::CloudHypervisor, Arch::Arm64).contains("VIRTIO_CONSOLE"));
        assert!(console_symbols(Vmm::Firecracker, Arch::Arm64).contains("SERIAL_OF_PLATFORM"));
    }

    #[test]
    fn a_known_configuration_leaves_what_it_lacks() {
        let panic = |config: &str| {
            Panic::new(NO_DISK, Vmm::Firecracker, Arch::X86_64, "EXT4_FS", Some(&Config::parse(config)))
        };
        let lacking = panic("CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=m\nCONFIG_ACPI=y\n");
        assert_eq!(lacking.symbols, ["VIRTIO_BLK"]);
        assert_eq!(lacking.hint().unwrap(), "the kernel found no disk: VIRTIO_BLK must be y");
        let whole =
            panic("CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\n");
        assert!(whole.has_all && whole.hint().unwrap().contains("the console tells more"));
    }
}
