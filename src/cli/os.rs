//! `imgbuild os`.

use clap::Args;

use super::kernel::processors;
use super::output::Output;
use super::{Context, Failure};
use crate::oci::layer;
use crate::plan::digests;
use crate::plan::os::{Plan, System};
use crate::recipe::kernel::ModulesOf;

/// Build a root volume: an Ubuntu or Debian system, as a Kubernetes node or without
#[derive(Debug, Args)]
#[command(after_help = "\
An image is a base layer (the distribution's packages, made without a trace of this machine), a layer with
Kubernetes, containerd and their configuration, and one with what the recipe says. Images of one recipe share
the base: another Kubernetes version builds and pushes only what differs.

A recipe of your own is a file: `extends = \"ubuntu-20.04\"`, and packages, files and units that come on top.
It needs root, or an ordinary user with subordinate ids (/etc/subuid); other architectures need qemu-user.

Examples:
  imgbuild os --k8s 1.22.8
  imgbuild os --k8s 1.22.3,1.22.8 --arch all --push --registry registry.example/nodes
  imgbuild os --recipe debian-12 --output images
  imgbuild os --k8s 1.22.8 --modules-of 5.10.77
  imgbuild os --recipe ./runner.toml --dry-run")]
pub(super) struct Os {
    /// Kubernetes versions, with commas between [default: the recipe's newest]
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    k8s: Vec<String>,
    /// A recipe of the catalogue, or the path of one of your own [default: ubuntu-20.04]
    #[arg(long, value_name = "NAME|PATH")]
    recipe: Option<String>,
    /// `x86_64` (amd64), arm64 (aarch64) or all, with commas between [default: the host's]
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// A kernel whose modules go into the image, for CAPMVM up to 0.7.0; others mount them as a volume [default: the
    /// recipe's, else none]
    #[arg(long, value_name = "[FLAVOUR/]VERSION")]
    modules_of: Option<ModulesOf>,
    /// The toolchain that compiles that kernel, or `host` for this machine's own tools [default: the series']
    #[arg(long, value_name = "NAME", env = "IMGBUILD_TOOLCHAIN", hide_env_values = true)]
    toolchain: Option<String>,
    /// Fail on images that do not come to their recorded digests
    #[arg(long)]
    locked: bool,
    /// How many threads compress [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print the steps, their inputs and what is cached, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: also print each step's record, and why it is not in the store
    #[arg(long, requires = "dry_run")]
    explain: bool,
    #[command(flatten)]
    output: Output,
}

impl Os {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let catalogue = context.catalogue();
        let lock = context.lock(&catalogue)?;
        let mirrors = context.mirrors(&lock)?;
        let threads = self.jobs.map_or_else(processors, usize::from);
        let packing = layer::Packing { compression: self.output.packing.compression, threads };
        let system = System::of(self.recipe.as_deref());
        let mut plan = Plan::new(&system, &self.k8s, &self.arch, &catalogue, lock, mirrors, packing)?;
        if let Some(of) = self.modules_of.clone().or_else(|| plan.recipe.modules_of.clone()) {
            plan.take_modules(&of, self.toolchain.as_deref(), &catalogue, &context.watch)?;
        }
        let store = self.output.store(context)?;
        if self.dry_run {
            return super::plan::print_lines(
                &plan.outline(self.explain, &store)?,
                self.output.format,
                context,
            );
        }
        let prefix = self.output.prefix(context)?;
        let recorded = digests::recorded(&catalogue)?;
        let images = plan.run(&store, &self.output.layout, &recorded, self.locked, &context.watch)?;
        self.output.tell(&images, prefix.as_ref(), "imgbuild validate", context)
    }
}
