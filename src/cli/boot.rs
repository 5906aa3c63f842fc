//! `imgbuild boot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Context, Failure, Format};
use crate::arch::Arch;
use crate::boot::{Accelerator, Outcome, Report, Request};
use crate::plan;

/// Boot a built kernel under QEMU and load modules from its modules image
#[derive(Debug, Args)]
#[command(after_help = "\
The kernel gets a small init on a virtio disk and the modules image as a second disk, mounted at
/lib/modules/VERSION, as Flintlock mounts it.

Examples:
  imgbuild boot out
  imgbuild boot out --arch arm64 --load virtio_rng,overlay")]
pub(super) struct Boot {
    /// The OCI layout the images are in
    #[arg(value_name = "DIR")]
    layout: PathBuf,
    /// `x86_64` (amd64) or arm64 (aarch64) [default: the host's]
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The kernel image, such as kernel-bin:5.10.262, where the layout holds several
    #[arg(long, value_name = "NAME")]
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
    /// The guest's memory
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..))]
    memory: u32,
    /// How long the guest may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Print the guest's console too
    #[arg(long)]
    console: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
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
        let request = Request {
            arch,
            kernel: PathBuf::new(),
            bz_image: None,
            modules: None,
            load: self.load.clone(),
            timeout: Duration::from_secs(self.timeout),
            accelerator: match self.accelerator {
                Acceleration::Auto => Accelerator::Auto,
                Acceleration::Kvm => Accelerator::Kvm,
                Acceleration::Tcg => Accelerator::Tcg,
            },
            memory_mib: self.memory,
        };
        let report = plan::boot::boot(
            &self.layout,
            self.image.as_deref(),
            request,
            &context.store()?,
            &context.watch,
        )?;
        if self.console {
            context.print(&(report.console.join("\n") + "\n\n"))?;
        }
        match self.format {
            Format::Text => context.print(&text(&report)),
            Format::Json => context.print_json(&report),
        }
    }
}

fn text(report: &Report) -> String {
    let accelerator = match report.accelerator {
        Accelerator::Kvm => "KVM",
        _ => "TCG",
    };
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
