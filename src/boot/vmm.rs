//! The virtual machine monitors that can boot a guest, and which of them this host can use.

use std::process::{Command, Stdio};

use fs_err as fs;
use serde::Serialize;

use super::Error;
use crate::arch::Arch;
use crate::host::{Missing, Tool};
use crate::sandbox;

/// What gives a guest its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// QEMU: its microvm (`x86_64`) or virt (arm64) machine, the one that needs no KVM.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where it works, TCG elsewhere.
    Auto,
    /// The processor itself, by `/dev/kvm`; an error where that does not work.
    Kvm,
    /// QEMU's own translator, on every host and for every architecture.
    Tcg,
}

/// A monitor, and how it runs the guest's instructions: [`Accelerator::Kvm`] or [`Accelerator::Tcg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) vmm: Vmm,
    pub(super) accelerator: Accelerator,
}

/// The ways to try, in that order, and why the first of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) ways: Vec<Way>,
    pub(super) reason: String,
}

/// What there is to choose from.
pub(super) struct Host<'h> {
    /// Whether this program is here.
    pub(super) has: &'h dyn Fn(&str) -> bool,
    /// Why KVM is out of the question for the guest, if it is.
    pub(super) obstacle: Option<String>,
}

impl Vmm {
    /// All of them, in the order in which one is taken where several would do.
    pub const ALL: [Self; 3] = [Self::Firecracker, Self::CloudHypervisor, Self::Qemu];

    /// As its makers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Firecracker => "Firecracker",
            Self::CloudHypervisor => "Cloud Hypervisor",
        }
    }

    /// As the command line has it, and the flavours of kernels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The program that runs guests of `arch`.
    pub fn program(self, arch: Arch) -> &'static str {
        match (self, arch) {
            (Self::Qemu, Arch::X86_64) => "qemu-system-x86_64",
            (Self::Qemu, Arch::Arm64) => "qemu-system-aarch64",
            (Self::Firecracker, _) => "firecracker",
            (Self::CloudHypervisor, _) => "cloud-hypervisor",
        }
    }

    /// QEMU as a package brings it; none for the others, whose releases are one file each and in no distribution.
    pub fn tool(self, arch: Arch) -> Option<Tool> {
        let package = match (self, arch) {
            (Self::Qemu, Arch::X86_64) => "qemu-system-x86",
            (Self::Qemu, Arch::Arm64) => "qemu-system-arm",
            _ => return None,
        };
        Some(Tool::new(self.program(arch), package, "runs the guest"))
    }

    /// The number of the release on this host, `1.7.0`, if it tells.
    pub fn version(self, arch: Arch) -> Option<String> {
        let mut command = Command::new(self.program(arch));
        let output = command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        version(&String::from_utf8_lossy(&output.stdout))
    }
}

/// The number in what `--version` prints: `QEMU emulator version 7.2.17 (Debian …)`, `Firecracker v1.7.0`.
fn version(text: &str) -> Option<String> {
    let words = text.lines().next()?.split_whitespace();
    let mut numbers = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    numbers.find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned)
}

/// Why KVM is out of the question for a guest of `arch` on this host, if it is.
pub fn kvm_obstacle(arch: Arch) -> Option<String> {
    if Arch::host() != Some(arch) {
        return Some(format!("the guest is {arch} and this host is {}", std::env::consts::ARCH));
    }
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").err().map(|error| error.to_string())
}

/// How a guest is run here. `flavour` is what its kernel was made for; of several monitors that one is taken.
pub(super) fn choose(
    asked: Option<Vmm>,
    accelerator: Accelerator,
    arch: Arch,
    flavour: Option<&str>,
) -> Result<Choice, Error> {
    let host = Host { has: &|program| sandbox::find(program).is_some(), obstacle: kvm_obstacle(arch) };
    choose_on(&host, asked, accelerator, arch, flavour)
}

fn choose_on(
    host: &Host<'_>,
    asked: Option<Vmm>,
    accelerator: Accelerator,
    arch: Arch,
    flavour: Option<&str>,
) -> Result<Choice, Error> {
    let has = |vmm: Vmm| (host.has)(vmm.program(arch));
    let require = |vmm: Vmm| match vmm.tool(arch) {
        _ if has(vmm) => Ok(()),
        None => Err(Error::NoProgram { vmm }),
        Some(tool) if asked.is_none() && !Vmm::ALL.into_iter().any(has) => {
            Err(Error::NoVmm { arch, missing: Missing::of(tool) })
        }
        Some(tool) => Err(Missing::of(tool).into()),
    };
    let by = |vmm, accelerator| Way { vmm, accelerator };
    let only = |vmm, accelerator, reason: &str| Choice {
        ways: vec![by(vmm, accelerator)],
        reason: reason.to_owned(),
    };
    let told = "asked for";
    if let Some(vmm @ (Vmm::Firecracker | Vmm::CloudHypervisor)) = asked {
        if Arch::host() != Some(arch) && host.obstacle.is_some() {
            return Err(Error::Foreign { vmm, guest: arch });
        }
        if accelerator == Accelerator::Tcg {
            return Err(Error::NoTranslator { vmm });
        }
        require(vmm)?;
        return match &host.obstacle {
            Some(why) => Err(Error::Kvm { vmm, why: why.clone(), console: String::new() }),
            None => Ok(only(vmm, Accelerator::Kvm, told)),
        };
    }
    let qemu = by(Vmm::Qemu, Accelerator::Tcg);
    match (accelerator, &host.obstacle) {
        (Accelerator::Tcg, _) => {
            require(Vmm::Qemu)?;
            Ok(only(Vmm::Qemu, Accelerator::Tcg, told))
        }
        (Accelerator::Auto, Some(why)) => {
            require(Vmm::Qemu)?;
            Ok(Choice { ways: vec![qemu], reason: why.clone() })
        }
        (Accelerator::Kvm, Some(why)) => {
            Err(Error::Kvm { vmm: Vmm::Qemu, why: why.clone(), console: String::new() })
        }
        (Accelerator::Auto | Accelerator::Kvm, None) => {
            let made_for = Vmm::ALL.into_iter().filter(|vmm| flavour == Some(vmm.word()));
            let mut candidates = made_for.chain(Vmm::ALL).filter(|vmm| asked.is_none() && has(*vmm));
            let first = candidates.next().unwrap_or(Vmm::Qemu);
            require(first)?;
            let mut ways = vec![by(first, Accelerator::Kvm)];
            if accelerator == Accelerator::Auto && has(Vmm::Qemu) {
                ways.push(qemu);
            }
            let reason = if accelerator == Accelerator::Kvm { told } else { "/dev/kvm works" };
            Ok(Choice { ways, reason: reason.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_found_in_what_each_says() {
        for (text, number) in [
            ("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u13)\nCopyright", Some("7.2.17")),
            ("Firecracker v1.7.0\n\nSupported snapshot data format versions: v3.0.0", Some("1.7.0")),
            ("cloud-hypervisor v40.0", Some("40.0")),
            ("cloud-hypervisor v51.0-dirty", Some("51.0-dirty")),
            ("", None),
            ("nothing", None),
        ] {
            assert_eq!(version(text).as_deref(), number, "{text}");
        }
    }

    /// The choice on a host with these programs, as `VMM ACCELERATOR` with commas between, and its reason.
    fn chosen(
        programs: &[&str],
        obstacle: Option<&str>,
        asked: Option<Vmm>,
        accelerator: Accelerator,
        flavour: Option<&str>,
    ) -> (String, String) {
        let has = |program: &str| programs.contains(&program);
        let host = Host { has: &has, obstacle: obstacle.map(str::to_owned) };
        let arch = Arch::host().unwrap();
        match choose_on(&host, asked, accelerator, arch, flavour) {
            Ok(choice) => {
                let way = |way: &Way| format!("{} {:?}", way.vmm.word(), way.accelerator);
                (choice.ways.iter().map(way).collect::<Vec<_>>().join(", "), choice.reason)
            }
            Err(error) => (String::new(), error.to_string()),
        }
    }

    #[test]
    fn the_host_decides_unless_the_user_does() {
        use Accelerator::{Auto, Kvm, Tcg};
        let qemu = Vmm::Qemu.program(Arch::host().unwrap());
        let all = ["firecracker", "cloud-hypervisor", qemu];
        let kvm = "/dev/kvm works";
        let told = "asked for";
        let cannot = Some("no such file");
        let fc = Some(Vmm::Firecracker);
        let lacks = format!("this host lacks `{qemu}` (runs the guest)");
        let none = format!(
            "no virtual machine monitor is here: no `firecracker`, `cloud-hypervisor` or `{qemu}` on PATH"
        );
        for (programs, obstacle, asked, accelerator, flavour, ways, reason) in [
            (&all[..], None, None, Auto, None, "firecracker Kvm, qemu Tcg", kvm),
            (&all, None, None, Auto, Some("firecracker"), "firecracker Kvm, qemu Tcg", kvm),
            (&all, None, None, Auto, Some("cloud-hypervisor"), "cloud-hypervisor Kvm, qemu Tcg", kvm),
            (&all[1..], None, None, Auto, Some("firecracker"), "cloud-hypervisor Kvm, qemu Tcg", kvm),
            (&all[2..], None, None, Auto, Some("tiny"), "qemu Kvm, qemu Tcg", kvm),
            (&all[..1], None, None, Auto, None, "firecracker Kvm", kvm),
            (&all, None, None, Kvm, None, "firecracker Kvm", told),
            (&all, None, None, Tcg, None, "qemu Tcg", told),
            (&all, cannot, None, Auto, None, "qemu Tcg", "no such file"),
            (&all, None, Some(Vmm::Qemu), Auto, None, "qemu Kvm, qemu Tcg", kvm),
            (&all, None, Some(Vmm::Qemu), Kvm, None, "qemu Kvm", told),
            (&all, None, fc, Auto, Some("cloud-hypervisor"), "firecracker Kvm", told),
            (&all, cannot, fc, Auto, None, "", "KVM does not work here: no such file"),
            (&all, cannot, None, Kvm, None, "", "KVM does not work here: no such file"),
            (&all, None, fc, Tcg, None, "", "Firecracker has no translator: it runs guests by KVM alone"),
            (&all[1..], None, fc, Auto, None, "", "Firecracker is not here: no `firecracker` on PATH"),
            (&all[..2], cannot, None, Auto, None, "", &lacks),
            (&[], None, Some(Vmm::Qemu), Auto, None, "", &lacks),
            (&[], None, None, Auto, None, "", &none),
            (&[], cannot, None, Auto, None, "", &none),
        ] {
            let (got, why) = chosen(programs, obstacle, asked, accelerator, flavour);
            assert_eq!(
                (got.as_str(), why.as_str()),
                (ways, reason),
                "{programs:?} {asked:?} {accelerator:?}"
            );
        }
    }

    #[test]
    fn another_architecture_is_qemus_alone() {
        let host = Host { has: &|_| true, obstacle: Some("the guest is another".into()) };
        let other = Arch::ALL.into_iter().find(|arch| Arch::host() != Some(*arch)).unwrap();
        let choose = |asked| choose_on(&host, asked, Accelerator::Auto, other, None);
        assert!(matches!(choose(Some(Vmm::Firecracker)), Err(Error::Foreign { .. })));
        assert_eq!(choose(None).unwrap().ways, [Way { vmm: Vmm::Qemu, accelerator: Accelerator::Tcg }]);
    }
}
