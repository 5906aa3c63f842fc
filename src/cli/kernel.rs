//! `imgbuild kernel`.

use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use super::{Context, Failure};
use crate::plan::digests;
use crate::plan::kernel::{Flavour, Plan, Request};
use crate::recipe::{self, Catalogue};
use crate::version::Version;

/// Which kernels: shared by the commands that name some.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// A version (5.10.262), or a series (5.10) for its newest pinned one
    #[arg(value_name = "VERSION", required = true)]
    versions: Vec<Version>,
    /// `x86_64` (amd64), arm64 (aarch64) or all, with commas between [default: the host's]
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// A recipe of the catalogue [default: firecracker]
    #[arg(long, value_name = "NAME")]
    flavour: Option<String>,
    /// A recipe in a file of your own
    #[arg(long, value_name = "PATH", conflicts_with = "flavour")]
    recipe: Option<PathBuf>,
    /// A toolchain of the catalogue, or `host` for this machine's own tools [default: the series']
    #[arg(long, value_name = "NAME", env = "IMGBUILD_TOOLCHAIN", hide_env_values = true)]
    toolchain: Option<String>,
    /// Which images, with commas between: kernel, modules, combined (both in one, for Flintlock up to 0.4.0), headers
    /// (for modules of your own) [default: the recipe's, else kernel,modules]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    outputs: Vec<recipe::kernel::Output>,
    /// Fail on versions that the lock does not pin, and on images that do not come to their recorded digests
    #[arg(long)]
    locked: bool,
    /// How many jobs make runs at once [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Selection {
    /// The toolchain that is asked for.
    pub(super) fn toolchain(&self) -> Option<&String> {
        self.toolchain.as_ref()
    }

    /// Looks everything up.
    pub(super) fn plan(&self, context: &Context) -> Result<Plan, Failure> {
        let catalogue = context.catalogue();
        let lock = context.lock(&catalogue)?;
        let mirrors = context.mirrors(&lock)?;
        let flavour = match (&self.flavour, &self.recipe) {
            (_, Some(path)) => Flavour::File(path.clone()),
            (Some(name), None) => Flavour::Named(name.clone()),
            (None, None) => Flavour::Default,
        };
        let series = flavour.recipe(&catalogue)?.series;
        // What the recipe is not made for is refused by the plan: no need to verify it.
        let fits = |version: &&Version| series.contains(&version.series());
        let versions: Vec<Version> = self.versions.iter().filter(fits).cloned().collect();
        let lock = context.admit(lock, &versions, &catalogue, &mirrors, self.locked)?;
        let jobs = self.jobs.map_or_else(processors, usize::from);
        let (versions, arches, toolchain) =
            (self.versions.clone(), self.arch.clone(), self.toolchain.clone());
        let outputs = self.outputs.clone();
        let request = Request { versions, arches, flavour, toolchain, outputs };
        Ok(Plan::new(&request, &catalogue, lock, mirrors, jobs, &context.watch)?)
    }
}

/// How many processors there are.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Build a kernel and its modules as two multi-architecture images, or as others
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild kernel 5.10.77 --arch arm64
  imgbuild kernel 5.10 --flavour cloud-hypervisor --arch all --output images
  imgbuild kernel 5.10.77 --outputs combined,headers
  imgbuild kernel 5.10.262 --push --registry registry.example/kernels
  imgbuild kernel 5.10.262 --flavour tiny --dry-run")]
pub(super) struct Kernel {
    #[command(flatten)]
    selection: Selection,
    /// Print the steps, their inputs and what is cached, and do nothing: `imgbuild plan` with the same arguments
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

impl Kernel {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut plan = self.selection.plan(context)?;
        plan.compression = self.output.packing.compression;
        if self.dry_run {
            return super::plan::print(
                &plan,
                false,
                self.output.format,
                &self.output.store(context)?,
                context,
            );
        }
        let prefix = self.output.prefix(context)?;
        let recorded = digests::recorded(&Catalogue::find(context.global.catalogue.clone()))?;
        let locked = self.selection.locked;
        let images =
            plan.run(&self.output.store(context)?, &self.output.layout, &recorded, locked, &context.watch)?;
        self.output.tell(&images, prefix.as_ref(), "imgbuild boot", context)
    }
}
