//! `imgbuild kernel`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::push::{Destination, lines};
use super::{Context, Failure, Format};
use crate::digests::Verdict;
use crate::oci::compression::Compression;
use crate::plan::digests;
use crate::plan::images::Built;
use crate::plan::kernel::{Flavour, Plan, Request};
use crate::recipe::Catalogue;
use crate::step::human;
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
    /// Fail on versions that the lock does not pin, and on images that do not come to their recorded digests
    #[arg(long)]
    locked: bool,
    /// How many jobs make runs at once [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Selection {
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
        let request = Request { versions, arches, flavour, toolchain };
        Ok(Plan::new(&request, &catalogue, lock, mirrors, jobs, &context.watch)?)
    }
}

/// How many processors there are.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How images are packed: shared by the commands that build some, and by those that tell how.
#[derive(Debug, Args)]
pub(super) struct Packing {
    /// How layers are compressed: gzip, zstd or zstd:LEVEL (1 to 22) [default: gzip, which every consumer reads]
    #[arg(long, value_name = "NAME[:LEVEL]", default_value_t, hide_default_value = true)]
    pub(super) compression: Compression,
}

/// Build a kernel and its modules as two multi-architecture images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild kernel 5.10.77 --arch arm64
  imgbuild kernel 5.10 --flavour cloud-hypervisor --arch all --output images
  imgbuild kernel 5.10.262 --push --registry registry.example/kernels
  imgbuild kernel 5.10.262 --flavour tiny --dry-run")]
pub(super) struct Kernel {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    packing: Packing,
    /// The OCI layout the images are put into
    #[arg(long, short, value_name = "DIR", default_value = "out")]
    output: PathBuf,
    /// Print the steps, their inputs and what is cached, and do nothing: `imgbuild plan` with the same arguments
    #[arg(long)]
    dry_run: bool,
    /// Push the images too
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    destination: Destination,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Kernel {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut plan = self.selection.plan(context)?;
        plan.compression = self.packing.compression;
        if self.dry_run {
            return super::plan::print(&plan, false, self.format, context);
        }
        // What can be refused is refused before an hour of work.
        let prefix = if self.push {
            Some(self.destination.required(context)?)
        } else {
            self.destination.refuse()?;
            None
        };
        let recorded = digests::recorded(&Catalogue::find(context.global.catalogue.clone()))?;
        let locked = self.selection.locked;
        let images = plan.run(&context.store()?, &self.output, &recorded, locked, &context.watch)?;
        let pushed = match &prefix {
            Some(prefix) => Some(self.destination.push_built(&self.output, prefix, &images, context)?),
            None => None,
        };
        let next = format!("imgbuild boot {}", self.output.display());
        match (self.format, pushed) {
            (Format::Text, None) => {
                context.print(&result(&images, self.packing.compression, &self.output, &next))
            }
            (Format::Text, Some(pushed)) => context.print(&format!(
                "{}\npushed:\n{}",
                result(&images, self.packing.compression, &self.output, &next),
                lines(&pushed)
            )),
            (Format::Json, pushed) => {
                let mut result = json!({ "layout": self.output, "images": images });
                pushed.into_iter().for_each(|pushed| result["pushed"] = json!(pushed));
                context.print_json(&result)
            }
        }
    }
}

/// What was built, for people, and what to do next.
pub(super) fn result(images: &[Built], compression: Compression, output: &Path, next: &str) -> String {
    let mut text = String::new();
    for image in images {
        text += &format!("{}\n  {:<7} {}\n", image.name, "index", image.digest);
        for platform in &image.platforms {
            let recorded = match platform.recorded {
                Verdict::Same => "as recorded",
                Verdict::None if compression != Compression::Gzip => {
                    "not compared: digests are recorded for gzip"
                }
                Verdict::None => "no digest recorded to compare with",
                Verdict::Differs { .. } => "NOT as recorded",
            };
            let size = human(platform.size);
            text += &format!("  {:<7} {}  {size}  {recorded}\n", platform.architecture, platform.digest);
        }
    }
    let dir = output.display();
    text + &format!("\nwritten to `{dir}`, an OCI layout; next: {next}\n")
}
