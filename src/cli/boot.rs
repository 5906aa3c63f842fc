//! `imgbuild boot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::place::Place;
use super::push::Transport;
use super::{Context, Failure, Format};
use crate::arch::Arch;
use crate::boot::node::{self, Account, Containerd, Node, Wish};
use crate::boot::{Accelerator, Outcome, Report, Request};
use crate::plan;
use crate::plan::boot::{Part, Parts};
use crate::store::Store;

/// Boot a kernel under QEMU: with a small init that loads modules, or with a whole root volume
///
/// Without `--root` the kernel gets a small init on a virtio disk, which mounts the modules image, loads modules from it
/// and ends. With `--root` it gets a whole system as Flintlock wires one under Firecracker: the root image as an ext4 at
/// /dev/vda, the modules image at /dev/vdb, mounted at /lib/modules/VERSION by cloud-init from vendor data, metadata from
/// <http://169.254.169.254/latest/>. The node then gives an account of itself: how long it took, failed units, modules,
/// containerd, cloud-init, ssh host keys. Nothing but that service can be reached from inside.
#[derive(Debug, Args)]
#[command(after_help = "\
A node that came up but is not sound is reported in full, and is an error (exit code 8) all the same.

Examples:
  imgbuild boot out
  imgbuild boot out --arch arm64 --load virtio_rng,overlay
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
    /// Wait for this text on the console, not for the node's account
    #[arg(long, value_name = "TEXT", requires = "root")]
    expect: Option<String>,
    /// Your own data for cloud-init (cloud-config, a script, or several as MIME); what gives the account is added to it
    #[arg(long, value_name = "FILE", requires = "root")]
    user_data: Option<PathBuf>,
    /// Use this terminal as the guest's console; ctrl-a x ends it
    #[arg(long, requires = "root", conflicts_with_all = ["expect", "timeout", "console", "format"])]
    interactive: bool,
    /// `x86_64` (amd64) or arm64 (aarch64) [default: the host's]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The kernel image, such as kernel-bin:5.10.262, where DIR holds several
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    image: Option<String>,
    /// What runs the guest
    #[arg(long, value_enum, default_value_t = Vmm::Qemu)]
    vmm: Vmm,
    /// How QEMU runs its instructions
    #[arg(long, value_enum, default_value_t = Acceleration::Auto, value_name = "HOW")]
    accelerator: Acceleration,
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
enum Vmm {
    /// QEMU's microvm (`x86_64`) or virt (arm64) machine
    Qemu,
}

/// How QEMU runs the guest's instructions.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Acceleration {
    /// KVM where it works, TCG elsewhere
    Auto,
    /// KVM or nothing
    Kvm,
    /// QEMU's translator
    Tcg,
}

impl Boot {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let Vmm::Qemu = self.vmm;
        let names: Vec<String> = self.arch.iter().cloned().collect();
        let arch = plan::arches(&names, &[])?.first().copied().ok_or_else(|| Failure::Usage {
            message: "one guest has one architecture".into(),
            hint: format!("name it: `--arch {}` or `--arch {}`", Arch::X86_64, Arch::Arm64),
        })?;
        let (memory, timeout) = if self.root.is_some() { (1024, 600) } else { (256, 120) };
        let request = Request {
            arch,
            kernel: PathBuf::new(),
            bz_image: None,
            modules: None,
            load: self.load.clone(),
            timeout: Duration::from_secs(self.timeout.unwrap_or(timeout)),
            accelerator: match self.accelerator {
                Acceleration::Auto => Accelerator::Auto,
                Acceleration::Kvm => Accelerator::Kvm,
                Acceleration::Tcg => Accelerator::Tcg,
            },
            memory_mib: self.memory.unwrap_or(memory),
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

    /// Boots with the small init.
    fn small(
        &self,
        parts: Parts<'_>,
        request: Request,
        store: &Store,
        context: &Context,
    ) -> Result<(), Failure> {
        let report = plan::boot::boot(parts, request, store, &context.watch)?;
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
        let node = Node { request, user_data, wish };
        if self.interactive {
            context.printer.clear();
            return Ok(plan::boot::converse(parts, root, node, store, &context.watch)?);
        }
        let report = plan::boot::boot_node(parts, root, node, store, &context.watch)?;
        self.print_console(&report.console, context)?;
        match self.format {
            Format::Text => context.print(&node_text(&report))?,
            Format::Json => context.print_json(&report)?,
        }
        report.sound().map_err(plan::boot::Error::from)?;
        Ok(())
    }

    fn print_console(&self, console: &[String], context: &Context) -> Result<(), Failure> {
        if self.console { context.print(&(console.join("\n") + "\n\n")) } else { Ok(()) }
    }
}

fn name(accelerator: Accelerator) -> &'static str {
    if accelerator == Accelerator::Kvm { "KVM" } else { "TCG" }
}

fn text(report: &Report) -> String {
    let accelerator = name(report.accelerator);
    let mut text = format!(
        "Linux {} {} booted under QEMU ({accelerator}: {})\n  init after {:.2} s ({:.2} s of the guest's clock), whole run {:.2} s\n",
        report.release,
        report.machine,
        report.accelerator_reason,
        report.init_seconds,
        report.guest_seconds,
        report.whole_seconds
    );
    text += if report.config_readable {
        "  /proc/config.gz is readable\n"
    } else {
        "  /proc/config.gz is not there: kubeadm would ask for it\n"
    };
    if let Some(volume) = &report.volume_fs {
        text += &format!("  modules volume mounted at /lib/modules/{} ({volume})\n", report.release);
    }
    for module in &report.modules {
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
        "Linux {} booted a root volume under QEMU ({}: {})\n  kernel after {:.2} s, init after {:.2} s",
        report.release,
        name(report.accelerator),
        report.accelerator_reason,
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
