//! `imgbuild doctor`.

use clap::{Args, ValueEnum};

use super::{Context, Failure};
use crate::arch::Arch;
use crate::host::{self, Tool};
use crate::kernel::toolchain;
use crate::{boot, plan};

/// Say what this host lacks, and the one command that brings it
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// What you want to do
    #[arg(value_enum, default_values_t = [Wish::Kernel, Wish::Boot])]
    wishes: Vec<Wish>,
    /// `x86_64` (amd64), arm64 (aarch64) or all, with commas between [default: the host's]
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// Print the names of the missing packages alone, for a script to install
    #[arg(long)]
    packages: bool,
}

/// What a user may want to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wish {
    /// Build kernels
    Kernel,
    /// Boot them
    Boot,
}

impl Doctor {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut text = String::new();
        let mut all = Vec::new();
        for arch in plan::arches(&self.arch, &Arch::ALL)? {
            for wish in &self.wishes {
                let (name, tools) = match wish {
                    Wish::Kernel => ("build", toolchain::requirements(arch)),
                    Wish::Boot => ("boot", boot::requirements(arch)),
                };
                text += &format!("{name} {arch} kernels: {}\n", verdict(&tools));
                all.extend(tools);
            }
        }
        let missing = host::require(&all);
        if self.packages {
            let packages = missing
                .err()
                .map(|missing| missing.packages().into_iter().map(str::to_owned).collect::<Vec<_>>())
                .unwrap_or_default();
            let end = if packages.is_empty() { "" } else { "\n" };
            return context.print(&(packages.join("\n") + end));
        }
        context.print(&text)?;
        Ok(missing?)
    }
}

fn verdict(tools: &[Tool]) -> String {
    match host::require(tools) {
        Ok(()) => "everything is here".into(),
        Err(missing) => {
            let names: Vec<_> = missing.tools().iter().map(|tool| &*tool.program).collect();
            format!("missing {}", names.join(", "))
        }
    }
}
