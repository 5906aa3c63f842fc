//! QEMU's command line: the hardware as near to Firecracker's as QEMU can.

use std::process::Command;

use super::node::seed::{self, Wiring};
use super::run::{Disk, Guest, Launch, Serial};
use super::vmm::{Accelerator, Vmm};
use super::{Error, cidata};
use crate::arch::Arch;

/// A QEMU ready to start, with the guest's metadata service or the disk that stands in for it.
pub(super) fn launch(guest: &Guest<'_>, accelerator: Accelerator, serial: Serial) -> Result<Launch, Error> {
    let wiring = wiring(guest);
    let server = match (&guest.seed, wiring) {
        (Some(seed), Wiring::Url) => Some(seed::Server::start(seed, guest.work)?),
        (Some(seed), Wiring::Cidata) => {
            cidata::write(&seed.files(Wiring::Cidata, seed::Uplink::Dhcp), guest.work)?;
            None
        }
        (None, _) => None,
    };
    Ok(Launch { command: command(guest, accelerator, serial), server, log: None })
}

fn wiring(guest: &Guest<'_>) -> Wiring {
    guest.wiring.unwrap_or(Wiring::of(Vmm::Qemu))
}

/// QEMU's command line, the guest's hardware and kernel parameters as near to Firecracker's as QEMU can.
fn command(guest: &Guest<'_>, accelerator: Accelerator, serial: Serial) -> Command {
    let kvm = accelerator == Accelerator::Kvm;
    // reboot=t, panic=-1: QEMU has no keyboard controller here, and shall end at once.
    let (program, machine, cpu, parameters) = match guest.arch {
        Arch::X86_64 => (
            "qemu-system-x86_64",
            if guest.acpi { "microvm,acpi=on" } else { "microvm,acpi=off" },
            "max",
            "console=ttyS0 reboot=t panic=-1 pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd",
        ),
        Arch::Arm64 => {
            let cpu = if kvm { "host" } else { "cortex-a57" };
            ("qemu-system-aarch64", "virt", cpu, "console=ttyAMA0 panic=-1")
        }
    };
    let mut command = Command::new(program);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
    command.args(["-serial", if serial == Serial::Terminal { "mon:stdio" } else { "stdio" }]);
    // With ACPI the kernel has no clock but the TSC, and measures that once, against a chip that a busy host emulates too
    // late; then it waits for ever. Time counted in instructions has them agree. It runs one processor after the other, and
    // one that waits for another does so for a whole slice of time, minutes in all: so there is but one.
    let is_counted = guest.acpi && guest.arch == Arch::X86_64 && !kvm;
    let processors = if is_counted { 1 } else { guest.processors };
    command.args(["-M", machine, "-cpu", cpu, "-smp", &processors.to_string()]);
    let tcg: &[&str] = match processors {
        _ if is_counted => &["tcg,thread=single", "-icount", "shift=auto"],
        1 => &["tcg"],
        _ => &["tcg,thread=multi"],
    };
    command.arg("-accel").args(if kvm { &["kvm"] } else { tcg });
    command.args(["-m", &guest.memory_mib.to_string()]);
    command.args(["-global", "virtio-mmio.force-legacy=false", "-kernel"]).arg(guest.kernel.file(Vmm::Qemu));
    let mut parameters = format!("{parameters} root=/dev/vda rw");
    for more in [guest.parameters, &seed::parameters(guest.seed.as_ref(), wiring(guest), seed::Uplink::Dhcp)]
    {
        parameters += if more.is_empty() { "" } else { " " };
        parameters += more;
    }
    command.args(["-append", &parameters]);
    // The guest names devices in the order of addresses; left alone, the two machines fill them contrariwise.
    let bus = |slot: usize| {
        if guest.arch == Arch::Arm64 { format!(",bus=virtio-mmio-bus.{slot}") } else { String::new() }
    };
    let disks = cidata::among(&guest.disks, guest.seed.as_ref().map(|_| wiring(guest)));
    for (slot, Disk { file, is_read_only }) in disks.iter().enumerate() {
        let access = if *is_read_only { ",readonly=on" } else { "" };
        command.args(["-drive", &format!("id=disk{slot},file={file},format=raw,if=none{access}")]);
        command.args(["-device", &format!("virtio-blk-device,drive=disk{slot}{}", bus(slot))]);
    }
    if guest.seed.is_some() {
        // Restricted: from inside, nothing of this host can be reached but the service.
        let service = format!(
            "user,id=net0,restrict=on,net=169.254.0.0/16,host=169.254.0.2,dns=169.254.0.3,dhcpstart=169.254.0.15,\
             guestfwd=tcp:{}:80-unix:{}",
            seed::ADDRESS,
            seed::SOCKET
        );
        let networks = [service, "user,id=net1,restrict=on".to_owned()];
        let networks = networks.into_iter().zip(seed::MACS).enumerate();
        // Where there is no metadata service, there is no interface to it.
        for (number, (network, mac)) in networks.skip(usize::from(wiring(guest) == Wiring::Cidata)) {
            let bus = bus(disks.len() + number);
            command.args(["-netdev", &network]);
            command.args(["-device", &format!("virtio-net-device,netdev=net{number},mac={mac}{bus}")]);
        }
    }
    command
}
