//! `imgbuild release`, and the matrix that `imgbuild plan --all` tells.

mod text;

use std::path::Path;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::kernel::processors;
use super::push::{Transport, prefix};
use super::remote::RemoteCache;
use super::{Context, Failure, attest};
use crate::fetch::mirror::Mirrors;
use crate::lock::Lock;
use crate::plan::release::against::Earlier;
use crate::plan::release::{
    self, Cell, Desk, Image, Joined, Matrix, Outcome, Published, Registry, State, join,
};
use crate::recipe::Catalogue;
use crate::registry::reference::Reference;
use crate::step::{Class, Diagnose, Level, Watch};
use crate::store::Store;

/// Which cells, and the registry they are in: shared by what tells of a release and what makes it.
#[derive(Debug, Args)]
pub(super) struct Cells {
    /// Cells or their beginnings, with commas between: kernel/firecracker/5.10.77/arm64, os [default: all]
    #[arg(long, value_name = "CELL", value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// The registry of the release: HOST[:PORT][/PATH] [default: `registry` of the settings]
    #[arg(long, value_name = "REGISTRY", env = "IMGBUILD_REGISTRY", hide_env_values = true)]
    registry: Option<String>,
}

impl Cells {
    /// The registry, if one is named.
    fn registry(&self, transport: &Transport, context: &Context) -> Result<Option<Registry>, Failure> {
        let Some(prefix) = prefix(self.registry.as_ref(), context)? else { return Ok(None) };
        let client = transport.client(&prefix.join("any:tag")?, context)?;
        Ok(Some(Registry::new(prefix, client)))
    }
}

/// How a release and its matrix are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
    /// A table, for a summary of a workflow
    Markdown,
}

/// What a release is planned with.
struct Books {
    catalogue: Catalogue,
    lock: Lock,
    mirrors: Mirrors,
}

impl Books {
    fn open(context: &Context) -> Result<Self, Failure> {
        let catalogue = context.catalogue();
        let lock = context.lock(&catalogue)?;
        let mirrors = context.mirrors(&lock)?;
        Ok(Self { catalogue, lock, mirrors })
    }

    fn desk<'a>(&'a self, toolchain: Option<&String>, jobs: Option<u16>, watch: &'a Watch) -> Desk<'a> {
        Desk {
            catalogue: &self.catalogue,
            lock: &self.lock,
            mirrors: &self.mirrors,
            toolchain: toolchain.cloned(),
            jobs: jobs.map_or_else(processors, usize::from),
            watch,
        }
    }
}

/// The matrix of all that is released; it may not be empty.
fn matrix(desk: &Desk<'_>) -> Result<Matrix, Failure> {
    let matrix = Matrix::new(desk)?;
    if matrix.cells.is_empty() {
        return Err(Failure::Usage {
            message: format!("no recipe in `{}` releases anything", desk.catalogue.name("recipes")),
            hint:
                "`released = [\"5.10.77\"]` in a kernel's recipe, `kubernetes = [\"1.22.8\"]` in a system's"
                    .into(),
        });
    }
    Ok(matrix)
}

/// Tells the matrix: `imgbuild plan --all`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Telling {
    /// As these formats have it.
    As(Format),
    /// What is to be built, as a workflow's matrix.
    Github,
}

/// A cell and how it stands.
#[derive(Serialize)]
struct Standing {
    #[serde(flatten)]
    cell: Cell,
    #[serde(flatten)]
    state: State,
}

/// Prints all cells with their keys, how they stand, and what ends.
pub(super) fn tell(
    cells: &Cells,
    transport: &Transport,
    toolchain: Option<&String>,
    telling: Telling,
    context: &Context,
) -> Result<(), Failure> {
    let books = Books::open(context)?;
    let desk = books.desk(toolchain, None, &context.watch);
    let mut matrix = matrix(&desk)?;
    matrix.keep(&cells.only)?;
    let registry = cells.registry(transport, context)?;
    let warnings = matrix.warnings(&books.catalogue)?;
    let mut standing = Vec::new();
    for cell in matrix.cells {
        let state = registry.as_ref().map(|registry| registry.state(&cell, false)).transpose()?;
        standing.push(Standing { cell, state: state.unwrap_or(State::Unknown) });
    }
    let text = match telling {
        Telling::As(Format::Json) => {
            return context.print_json(&json!({ "cells": standing, "warnings": warnings }));
        }
        Telling::As(format) => text::plan(&standing, &warnings, format == Format::Markdown),
        Telling::Github => text::github(&standing),
    };
    if let Telling::Github = telling {
        warnings.iter().for_each(|warning| context.watch.reporter.note(Level::Warning, warning));
    }
    context.print(&text)
}

/// Prints the cells that are not as an earlier plan has them: `imgbuild plan --all --against FILE`.
pub(super) fn tell_shifts(
    cells: &Cells,
    file: &Path,
    toolchain: Option<&String>,
    format: Format,
    context: &Context,
) -> Result<(), Failure> {
    let refused = |reason: String| Failure::Usage {
        message: format!("`{}` is no earlier plan: {reason}", file.display()),
        hint: "`imgbuild plan --all --format json >FILE` writes one".into(),
    };
    let text = fs_err::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    let earlier = Earlier::parse(&text).map_err(|error| refused(error.to_string()))?;
    let books = Books::open(context)?;
    let mut matrix = matrix(&books.desk(toolchain, None, &context.watch))?;
    matrix.keep(&cells.only)?;
    let shifts = earlier.shifts(&matrix.cells);
    match format {
        Format::Json => context.print_json(&json!({ "shifts": shifts })),
        format => context.print(&text::shifts(&shifts, matrix.cells.len(), format == Format::Markdown)),
    }
}

/// Build, boot and publish what the recipes release, and move the tags
///
/// A cell is one recipe, one version, one architecture: kernel/firecracker/5.10.77/amd64. Its key is known without
/// building. What is published under its key is skipped; the rest is built, booted if it is a kernel, pushed by digest
/// and given the tag VERSION-KEY-ARCH. A cell that fails keeps no other from being published.
///
/// With --join, the cells of each image are joined to an index under the tags VERSION-KEY, which stays, VERSION and
/// SERIES, which go forward and never back. An image with a cell missing keeps its tags.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is that of the first failure; with --join it is 4 where a cell is missing. The report is printed
either way.

Examples:
  imgbuild plan --all --registry registry.example/kernels
  imgbuild release --registry registry.example/kernels --only kernel/firecracker/5.10.77
  imgbuild release --registry registry.example/kernels --join
  imgbuild release --registry registry.example/kernels --dry-run --format json")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Release {
    #[command(flatten)]
    cells: Cells,
    /// Join the published cells and move the tags, instead of building
    #[arg(long)]
    join: bool,
    /// Publish kernels without booting them first
    #[arg(long, conflicts_with = "join")]
    no_boot: bool,
    /// Attach an SBOM and the provenance to every image, and with --join to every index
    #[arg(long)]
    attest: bool,
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// A toolchain of the catalogue, or `host` for this machine's own tools [default: the series']
    #[arg(long, value_name = "NAME", env = "IMGBUILD_TOOLCHAIN", hide_env_values = true)]
    toolchain: Option<String>,
    /// How many jobs make runs at once [default: one per processor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    remote: RemoteCache,
    #[command(flatten)]
    transport: Transport,
}

/// What became of a cell.
#[derive(Serialize)]
struct Report {
    cell: String,
    #[serde(flatten)]
    fate: Fate,
}

/// What becomes of cells.
#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
enum Fate {
    /// It was built and published now.
    Published { images: Vec<Published>, booted: Option<String> },
    /// It was published before.
    Skipped { reference: String, digest: String },
    /// It would be built.
    ToDo,
    /// It failed.
    Failed { error: String },
}

impl Release {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let books = Books::open(context)?;
        let desk = books.desk(self.toolchain.as_ref(), self.jobs, &context.watch);
        let mut matrix = matrix(&desk)?;
        let all = matrix.cells.clone();
        matrix.keep(&self.cells.only)?;
        let registry = self.cells.registry(&self.transport, context)?.ok_or_else(|| Failure::Usage {
            message: "nothing says which registry the release goes to".into(),
            hint:
                "`--registry registry.example/org`, IMGBUILD_REGISTRY, or `registry = \"…\"` in the settings"
                    .into(),
        })?;
        if self.join {
            let attach = |target: &Reference, digest: &str| {
                if self.attest {
                    attest::attach_to_index(target, digest, &registry.client)
                        .map_err(|failure| release::Error::Attach(Box::new(failure)))?;
                }
                Ok(())
            };
            let joined = join(&all, &matrix.cells, &registry, &attach, self.dry_run)?;
            return self.tell_joined(joined, context);
        }
        let store = self.remote.store(&self.transport, context)?;
        let mut reports = Vec::new();
        let mut first = None;
        for cell in &matrix.cells {
            let fate = self.cell(cell, &desk, &registry, &store, context).or_else(|error| {
                // Nobody who comes later would fare better.
                if matches!(&error, Failure::Release(error) if error.is_everybodys()) {
                    return Err(error);
                }
                first.get_or_insert(error.class());
                let text = error.to_string();
                context.printer.failure(&Failure::Cell { name: cell.name.clone(), error: Box::new(error) });
                Ok(Fate::Failed { error: text })
            })?;
            reports.push(Report { cell: cell.name.clone(), fate });
        }
        self.print(&json!({ "cells": reports }), context, |markdown| text::cells(&reports, markdown))?;
        let is_failed = |report: &&Report| matches!(report.fate, Fate::Failed { .. });
        let failed: Vec<_> = reports.iter().filter(is_failed).map(|report| report.cell.clone()).collect();
        unreleased("cell", failed, reports.len(), first)
    }

    /// Builds and publishes a cell, unless that is done.
    fn cell(
        &self,
        cell: &Cell,
        desk: &Desk<'_>,
        registry: &Registry,
        store: &Store,
        context: &Context,
    ) -> Result<Fate, Failure> {
        if let State::Published { reference, digest } = registry.state(cell, !self.dry_run)? {
            return Ok(Fate::Skipped { reference, digest });
        }
        if self.dry_run {
            return Ok(Fate::ToDo);
        }
        desk.watch.reporter.note(Level::Info, &format!("{}: to be published", cell.name));
        let work = store.work()?;
        let made = cell.make(desk, registry, store, &work.path().join("out"), !self.no_boot)?;
        // What cannot be told of an image is known before the first one is pushed.
        let documents = |image: &Image| attest::gather(&made.layout, image.root.digest().as_ref(), context);
        let documents: Vec<_> = if self.attest {
            made.images.iter().map(documents).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        made.push(registry)?;
        for (image, documents) in made.images.iter().zip(&documents) {
            attest::attach(documents, &image.target.repository, &registry.client)?;
        }
        let images = cell.publish(&made, registry)?;
        Ok(Fate::Published { images, booted: made.booted })
    }

    fn tell_joined(&self, mut joined: Vec<Joined>, context: &Context) -> Result<(), Failure> {
        let mut first = None;
        let mut failed = Vec::new();
        for image in &mut joined {
            match (image.outcome, image.failure.take()) {
                (Outcome::Failed, Some(error)) => {
                    first.get_or_insert(error.class());
                    let name = image.image.clone();
                    context.printer.failure(&Failure::Cell { name, error: Box::new(error.into()) });
                }
                (Outcome::Missing, _) => {
                    first.get_or_insert(Class::Input);
                }
                _ => continue,
            }
            failed.push(image.image.clone());
        }
        self.print(&json!({ "images": joined }), context, |markdown| text::images(&joined, markdown))?;
        unreleased("image", failed, joined.len(), first)
    }

    fn print(
        &self,
        json: &serde_json::Value,
        context: &Context,
        text: impl Fn(bool) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => context.print_json(json),
            format => context.print(&text(format == Format::Markdown)),
        }
    }
}

/// The error of a release that is not whole.
fn unreleased(
    what: &'static str,
    failed: Vec<String>,
    total: usize,
    class: Option<Class>,
) -> Result<(), Failure> {
    match class {
        Some(class) => Err(Failure::Unreleased { what, failed, total, class }),
        None => Ok(()),
    }
}
