//! `imgbuild boot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::place::Place;
use super::push::Transport;
use super::{Context, Failure, Format};
use crate::arch::Arch;
use crate::boot::node::{self, Account, Containerd, Node, Wiring, Wish};
use crate::boot::{Accelerator, Machine, Outcome, Report, Request};
use crate::plan::boot::{Part, Parts};
use crate::store::Store;
use crate::{boot, plan};

/// Boot a kernel: with a small init that loads modules, or with a whole root volume
///
/// Without `--root` the kernel gets a small init on a virtio disk, which mounts the modules image, loads modules from it
/// and ends. With `--root` it gets a whole system as Flintlock wires one: the root image as an ext4 at /dev/vda, the modules
/// image at /dev/vdb, mounted at /lib/modules/VERSION by cloud-init from vendor data, metadata from
/// <http://169.254.169.254/latest/> (Firecracker, QEMU) or from a disk labelled cidata (Cloud Hypervisor; the modules are at
/// /dev/vdc then). The node then gives an account of itself: how long it took, failed units, modules, containerd,
/// cloud-init, ssh host keys. Nothing but its metadata can be reached from inside.
///
/// Firecracker and Cloud Hypervisor need /dev/kvm and the host's own architecture. With `--root` they need /dev/net/tun too,
/// for an interface in a network namespace of the guest's own, and, unless you are root, user namespaces.
#[derive(Debug, Args)]
#[command(after_help = "\
A node that came up but is not sound is reported in full, and is an error (exit code 8) all the same.

Examples:
  imgbuild boot out
  imgbuild boot out --arch arm64 --load virtio_rng,overlay
  imgbuild boot out --vmm firecracker
  imgbuild boot out --root node-layout
  imgbuild boot out --root registry.example/os/node:1.22.8 --load ip_vs --format json
  imgbuild boot out --root node-layout:node:12 --expect 'login:'
  imgbuild boot --kernel out:kernel-bin:5.10.262 --modules out:kernel-modules:5.10.262 --root node-layout --interactive")]
pub(super) struct Boot {
    /// The OCI layout the kernel and its modules are in
    #[arg(value_name = "DIR", required_unless_present = "kernel", conflicts_with = "kernel")]
    layout: Option<PathBuf>,
    /// The kernel image: a layout, one image of it, or a reference at a registry
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    kernel: Option<String>,
    /// The modules image [default: the one that was built with the kernel, in the same layout]
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    modules: Option<String>,
    /// The image of a root volume to boot
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    root: Option<String>,
    /// Wait for this text on the console, not for the small init's end or the node's account
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
    /// Your own data for cloud-init (cloud-config, a script, or several as MIME); what gives the account is added to it
    #[arg(long, value_name = "FILE", requires = "root")]
    user_data: Option<PathBuf>,
    /// Use this terminal as the guest's console; ctrl-a x ends it (QEMU), or a reboot or halt in the guest
    #[arg(long, requires = "root", conflicts_with_all = ["expect", "timeout", "console", "format"])]
    interactive: bool,
    /// `x86_64` (amd64) or arm64 (aarch64) [default: the host's]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The kernel image, such as kernel-bin:5.10.262, where DIR holds several
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    image: Option<String>,
    /// What gives the guest its machine [default: what this host can use: one with KVM if that works, the kernel's flavour
    /// first, else QEMU]
    #[arg(long, value_enum)]
    vmm: Option<Vmm>,
    /// How its instructions are run
    #[arg(long, value_enum, default_value_t = Acceleration::Auto, value_name = "HOW")]
    accelerator: Acceleration,
    /// How a root volume is told of itself [default: url; cidata under Cloud Hypervisor]
    #[arg(long, value_enum, value_name = "HOW", requires = "root")]
    seed: Option<Seed>,
    /// Whether QEMU's microvm (`x86_64`) tells of its devices by ACPI [default: off]
    #[arg(long, value_enum, value_name = "SWITCH")]
    acpi: Option<Switch>,
    /// Modules to load from the modules image, with commas between
    #[arg(long, value_name = "MODULE", value_delimiter = ',')]
    load: Vec<String>,
    /// The guest's memory [default: 256, with a root volume 1024]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    memory: Option<u32>,
    /// How long the guest may take [default: 120, with a root volume 600]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print the guest's console too
    #[arg(long)]
    console: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    transport: Transport,
}

/// The virtual machine monitors that can boot a guest.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Vmm {
    /// QEMU's microvm (`x86_64`) or virt (arm64) machine, with or without KVM
    Qemu,
    /// Firecracker, by its configuration file
    Firecracker,
    /// Cloud Hypervisor, by its command line
    CloudHypervisor,
}

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Acceleration {
    /// KVM where it works, TCG elsewhere
    Auto,
    /// KVM or nothing
    Kvm,
    /// QEMU's translator
    Tcg,
}

/// How a guest is told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Seed {
    /// By a service at a URL, as under Firecracker
    Url,
    /// By a disk labelled cidata at /dev/vdb, as under Cloud Hypervisor
    Cidata,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// On
    On,
    /// Off
    Off,
}

impl Vmm {
    /// The monitor that is meant.
    pub(super) fn meant(self) -> boot::Vmm {
        match self {
            Self::Qemu => boot::Vmm::Qemu,
            Self::Firecracker => boot::Vmm::Firecracker,
            Self::CloudHypervisor => boot::Vmm::CloudHypervisor,
        }
    }
}

impl Boot {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let vmm = self.monitor()?;
        let names: Vec<String> = self.arch.iter().cloned().collect();
        let arch = plan::arches(&names, &[])?.first().copied().ok_or_else(|| Failure::Usage {
            message: "one guest has one architecture".into(),
            hint: format!("name it: `--arch {}` or `--arch {}`", Arch::X86_64, Arch::Arm64),
        })?;
        if self.acpi.is_some() && arch != Arch::X86_64 {
            return Err(Failure::Usage {
                message: format!("`--acpi` is for the microvm of QEMU, which is no {arch}"),
                hint: "leave it away: arm64 guests have a device tree".into(),
            });
        }
        let (memory, timeout) = if self.root.is_some() { (1024, 600) } else { (256, 120) };
        let timeout = Duration::from_secs(self.timeout.unwrap_or(timeout));
        let request = Request {
            load: self.load.clone(),
            vmm,
            acpi: self.acpi == Some(Switch::On),
            accelerator: match self.accelerator {
                Acceleration::Auto => Accelerator::Auto,
                Acceleration::Kvm => Accelerator::Kvm,
                Acceleration::Tcg => Accelerator::Tcg,
            },
            ..Request::new(arch, timeout, self.memory.unwrap_or(memory))
        };
        let open = |place: &String| context.place_for(place, &self.transport, Some(arch));
        let kernel = match (&self.layout, &self.kernel) {
            (None, Some(place)) => open(place)?,
            (dir, _) => Place::open(&dir.clone().unwrap_or_default(), self.image.clone())?,
        };
        let modules = self.modules.as_ref().map(open).transpose()?;
        let root = self.root.as_ref().map(open).transpose()?;
        let parts = Parts { kernel: kernel.part(), modules: modules.as_ref().map(Place::part) };
        let store = context.store()?;
        match &root {
            Some(root) => self.node(parts, root.part(), request, &store, context),
            None => self.small(parts, request, &store, context),
        }
    }

    /// The monitor asked for. What only QEMU can do asks for it.
    fn monitor(&self) -> Result<Option<boot::Vmm>, Failure> {
        let asked = self.vmm.map(Vmm::meant);
        let refuse = |what| match asked {
            None | Some(boot::Vmm::Qemu) => Ok(Some(boot::Vmm::Qemu)),
            Some(vmm) => Err(plan::boot::Error::from(boot::Error::Contradiction { what, vmm }).into()),
        };
        match (asked, self.seed, self.acpi) {
            (_, _, Some(_)) => refuse("`--acpi` is for QEMU"),
            (Some(boot::Vmm::CloudHypervisor), Some(Seed::Cidata), _)
            | (Some(boot::Vmm::Firecracker), Some(Seed::Url), _)
            | (_, None, None) => Ok(asked),
            (_, Some(Seed::Cidata), None) => refuse("Firecracker's guests have their metadata from a URL"),
            (_, Some(Seed::Url), None) => refuse("Cloud Hypervisor's guests have their metadata from a disk"),
        }
    }

    /// Boots with the small init.
    fn small(
        &self,
        parts: Parts<'_>,
        request: Request,
        store: &Store,
        context: &Context,
    ) -> Result<(), Failure> {
        let report = plan::boot::boot(parts, request, self.expect.as_deref(), store, &context.watch);
        let report = self.told(report, context)?;
        self.print_console(&report.console, context)?;
        match self.format {
            Format::Text => context.print(&text(&report)),
            Format::Json => context.print_json(&report),
        }
    }

    /// Boots a root volume.
    fn node(
        &self,
        parts: Parts<'_>,
        root: Part<'_>,
        request: Request,
        store: &Store,
        context: &Context,
    ) -> Result<(), Failure> {
        let wish = self.expect.clone().map_or(Wish::Account, Wish::Text);
        let read = |file| {
            fs_err::read(file).map_err(|error| Failure::Usage {
                message: format!("the user data cannot be read: {error}"),
                hint: "`--user-data` names a file that cloud-init understands, such as a `#cloud-config`"
                    .into(),
            })
        };
        let user_data = self.user_data.as_ref().map(read).transpose()?;
        let wiring = self.seed.map(|seed| if seed == Seed::Url { Wiring::Url } else { Wiring::Cidata });
        let node = Node { request, user_data, wiring, wish };
        if self.interactive {
            context.printer.clear();
            return Ok(plan::boot::converse(parts, root, node, store, &context.watch)?);
        }
        let report = plan::boot::boot_node(parts, root, node, store, &context.watch);
        let report = self.told(report, context)?;
        self.print_console(&report.console, context)?;
        match self.format {
            Format::Text => context.print(&node_text(&report))?,
            Format::Json => context.print_json(&report)?,
        }
        report.sound().map_err(plan::boot::Error::from)?;
        Ok(())
    }

    /// Tells programs of a boot that failed, too.
    fn told<R>(&self, report: Result<R, plan::boot::Error>, context: &Context) -> Result<R, Failure> {
        if let (Format::Json, Err(plan::boot::Error::Boot(error))) = (self.format, &report)
            && let Some(failed) = error.failed()
        {
            context.print_json(&failed)?;
        }
        Ok(report?)
    }

    fn print_console(&self, console: &[String], context: &Context) -> Result<(), Failure> {
        if self.console { context.print(&(console.join("\n") + "\n\n")) } else { Ok(()) }
    }
}

/// `QEMU 7.2.17 (TCG: why)`.
fn under(machine: &Machine) -> String {
    let accelerator = if machine.accelerator == Accelerator::Kvm { "KVM" } else { "TCG" };
    let version = machine.vmm_version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
    format!("{}{version} ({accelerator}: {})", machine.vmm.name(), machine.accelerator_reason)
}

fn text(report: &Report) -> String {
    let machine = report.init.as_ref().map_or_else(String::new, |init| format!(" {}", init.machine));
    let mut text = format!(
        "Linux {}{machine} booted under {}\n  kernel after {:.2} s",
        report.release,
        under(&report.machine),
        report.kernel_seconds
    );
    if let Some(seconds) = report.init_seconds {
        text += &format!(", init after {seconds:.2} s");
    }
    if let Some(expected) = &report.expected {
        return text + &format!(", `{expected}` after {:.2} s\n", report.reached_seconds);
    }
    let Some(init) = &report.init else { return text + "\n" };
    text += &format!(
        " ({:.2} s of the guest's clock), whole run {:.2} s\n",
        init.guest_seconds, report.whole_seconds
    );
    text += if init.config_readable {
        "  /proc/config.gz is readable\n"
    } else {
        "  /proc/config.gz is not there: kubeadm would ask for it\n"
    };
    if let Some(volume) = &init.volume_fs {
        text += &format!("  modules volume mounted at /lib/modules/{} ({volume})\n", report.release);
    }
    for module in &init.modules {
        let outcome = match module.outcome {
            Outcome::Loaded => "loaded from the volume",
            Outcome::AlreadyThere => "there already, another module depends on it",
            Outcome::BuiltIn => "built into the kernel",
        };
        text += &format!("  {}: {outcome}\n", module.name);
    }
    text
}

fn node_text(report: &node::Report) -> String {
    let mut text = format!(
        "Linux {} booted a root volume under {}\n  kernel after {:.2} s, init after {:.2} s",
        report.release,
        under(&report.machine),
        report.kernel_seconds,
        report.init_seconds,
    );
    text += &match &report.expected {
        Some(expected) => format!(", `{expected}` after {:.2} s\n", report.reached_seconds),
        None => format!(", all of it after {:.2} s\n", report.reached_seconds),
    };
    if let Some(node) = &report.node {
        text += &account(node);
    }
    for fault in &report.faults {
        text += &format!("  fault: {fault}\n");
    }
    text
}

fn account(node: &Account) -> String {
    let mut lines = vec![match node.multi_user_seconds {
        Some(seconds) => {
            format!("{}: multi-user after {seconds:.1} s of the guest's clock, {}", node.system, node.state)
        }
        None => format!("{}: never came to multi-user, {}", node.system, node.state),
    }];
    for unit in &node.failed_units {
        lines.push(format!("failed: {}", unit.name));
        lines.extend(unit.said.lines().map(|line| format!("  {line}")));
    }
    let source = node.cloud_init.datasource.as_deref().unwrap_or("no datasource");
    let vendor = if node.vendor_data { "and vendor data applied" } else { "applied, vendor data not" };
    lines.push(format!("cloud-init: {}, {source}; user data {vendor}", node.cloud_init.status));
    if let Some(volume) = &node.volume_fs {
        lines.push(format!("modules volume mounted at /lib/modules/{} ({volume})", node.release));
    }
    let asked = node.modules.iter().map(|module| (&module.name, Some(&module.outcome)));
    let modules = node.node_modules.iter().map(|(name, outcome)| (name, outcome.as_ref())).chain(asked);
    lines.extend(modules.map(|(name, outcome)| {
        let outcome = outcome.map_or("not in the kernel", String::as_str);
        format!(
            "{name}: {}",
            match outcome {
                "loaded" => "loaded from the volume",
                "already_there" => "loaded during the boot",
                "built_in" => "built into the kernel",
                other => other,
            }
        )
    }));
    lines.extend(node.containerd.as_ref().map(|containerd| match containerd {
        Containerd { version: Some(version), .. } => format!("containerd {version} answers"),
        Containerd { complaint, .. } => {
            format!("containerd does not answer: {}", complaint.as_deref().unwrap_or("no version"))
        }
    }));
    let keys = &node.ssh_host_keys;
    lines.push(match (keys.files.len(), keys.new) {
        (0, _) => "no ssh host keys".into(),
        (count, true) => format!("ssh host keys made at this boot: {count}"),
        (count, false) => format!("ssh host keys: {count}, older than this boot"),
    });
    lines.push(format!(
        "/proc/config.gz is {}",
        if node.config_readable { "readable" } else { "not there: kubeadm would ask for it" }
    ));
    format!("  {}\n", lines.join("\n  "))
}
