//! `imgbuild doctor`.

use clap::{Args, ValueEnum};

use super::{Context, Failure};
use crate::arch::Arch;
use crate::boot::Vmm;
use crate::host::{self, Tool};
use crate::kernel::toolchain;
use crate::plan::toolchain::HOST;
use crate::recipe::ToolchainRecipe;
use crate::rootfs::{base, foreign};
use crate::{boot, plan, sandbox, tree};

/// Say what this host lacks, and the one command that brings it
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// What you want to do
    #[arg(value_enum, default_values_t = [Wish::Kernel, Wish::Boot])]
    wishes: Vec<Wish>,
    /// `x86_64` (amd64), arm64 (aarch64) or all, with commas between [default: the host's]
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// The toolchain you want to build with, or `host` [default: all that are some kernels' default]
    #[arg(long, value_name = "NAME", env = "IMGBUILD_TOOLCHAIN", hide_env_values = true)]
    toolchain: Option<String>,
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
    /// Build root volumes
    Os,
}

impl Doctor {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut text = String::new();
        let mut all = Vec::new();
        let trees = self.trees(context)?;
        for arch in plan::arches(&self.arch, &Arch::ALL)? {
            for wish in &self.wishes {
                let (name, tools) = match wish {
                    Wish::Kernel if trees.is_empty() => ("build", toolchain::requirements(arch)),
                    Wish::Kernel => ("build", trees.iter().flat_map(tree::requirements).collect()),
                    Wish::Boot => ("boot", boot::requirements(arch)),
                    Wish::Os => ("build", Self::os(arch, context)?),
                };
                let what = if *wish == Wish::Os { "root volumes" } else { "kernels" };
                text += &format!("{name} {arch} {what}: {}\n", verdict(&tools));
                if *wish == Wish::Boot {
                    text += &monitors(arch);
                }
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
        // Without bubblewrap there is nothing to try.
        let is_hermetic = self.wishes.contains(&Wish::Kernel) && !trees.is_empty();
        let tried = if is_hermetic && sandbox::find(sandbox::PROGRAM).is_some() {
            let tried = sandbox::require(&context.watch.cancel);
            text += &format!(
                "sandbox: {}\n",
                tried.as_ref().map_or_else(ToString::to_string, |()| "it works".into())
            );
            tried
        } else {
            Ok(())
        };
        context.print(&text)?;
        missing?;
        Ok(tried.map_err(plan::Error::from)?)
    }

    /// What the default recipe needs for an architecture.
    fn os(arch: Arch, context: &Context) -> Result<Vec<Tool>, Failure> {
        let recipe = context.catalogue().default_system().map_err(plan::Error::from)?;
        let mut tools = base::requirements(&recipe.archive(arch));
        tools.extend(foreign::requirements(arch));
        Ok(tools)
    }

    /// The trees to build with; none for this host's own tools.
    fn trees(&self, context: &Context) -> Result<Vec<ToolchainRecipe>, Failure> {
        if self.toolchain.as_deref() == Some(HOST) {
            return Ok(Vec::new());
        }
        let all = context.catalogue().toolchains().map_err(plan::Error::from)?;
        let known = all.iter().map(|recipe| recipe.name.clone()).chain([HOST.to_owned()]).collect();
        match &self.toolchain {
            None => Ok(all.into_iter().filter(|recipe| recipe.kernels.is_some()).collect()),
            Some(name) => match all.into_iter().find(|recipe| recipe.name == *name) {
                Some(recipe) => Ok(vec![recipe]),
                None => Err(plan::Error::UnknownToolchain { asked: name.clone(), known }.into()),
            },
        }
    }
}

/// What could run a guest besides QEMU, and whether KVM is there for it: nothing of that is needed.
fn monitors(arch: Arch) -> String {
    let here = |vmm: Vmm| match (sandbox::find(vmm.program(arch)), vmm.version(arch)) {
        (None, _) => format!("no {}", vmm.name()),
        (Some(_), None) => vmm.name().to_owned(),
        (Some(_), Some(version)) => format!("{} {version}", vmm.name()),
    };
    let kvm = boot::kvm_obstacle(arch).unwrap_or_else(|| "it can be opened".into());
    let monitors = Vmm::ALL.map(here).join(", ");
    format!("  monitors: {monitors}; /dev/kvm: {kvm}\n")
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
