//! `imgbuild plan`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::kernel::Selection;
use super::output::Packing;
use super::push::Transport;
use super::release::{self, Cells, Telling};
use super::remote::RemoteCache;
use super::{Context, Failure, Format};
use crate::plan::kernel::Plan;
use crate::plan::outline::Line;
use crate::store::{Store, Why};

/// Tell the steps of a build, what is cached, and why the rest is not; with --all, what is released
#[derive(Debug, Args)]
#[command(
    // Without --all there has to be a version; with it, there is none to choose from.
    mut_arg("versions", |arg| arg.required(false).required_unless_present("all")),
    after_help = "\
A step's key is the digest of its record: the account of all that can change its result. With --explain each
record is printed, and for a step that is not in the store, how its record differs from the one with which the
step of the same version, architecture and flavour was last made or found here.

With --all it tells the cells of the release (recipe, version, architecture) with the keys they are published
under, whether they are, and which versions are past the end of their life or near it.

Examples:
  imgbuild plan 5.10.262 --arch all
  imgbuild plan 5.10.262 --flavour tiny --explain
  imgbuild plan --all --registry registry.example/kernels
  imgbuild plan --all --only kernel/firecracker --format github
  imgbuild plan --all --against earlier.json"
)]
pub(super) struct PlanCommand {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    packing: Packing,
    #[command(flatten)]
    remote: RemoteCache,
    #[command(flatten)]
    transport: Transport,
    /// Also print each step's record, and why it is not in the store
    #[arg(long)]
    explain: bool,
    /// Tell everything that the recipes release
    #[arg(long, conflicts_with_all = ["versions", "arch", "flavour", "recipe", "locked", "explain", "compression"])]
    all: bool,
    /// With --all: tell what has moved since an earlier `plan --all --format json`, and why
    #[arg(long, value_name = "FILE", requires = "all", conflicts_with = "only")]
    against: Option<PathBuf>,
    #[command(flatten)]
    cells: Cells,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
    format: PlanFormat,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlanFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// With --all: a table
    Markdown,
    /// With --all: what is still to be built, as `matrix=…` for `GITHUB_OUTPUT`
    Github,
}

impl PlanCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        if self.all {
            let telling = match self.format {
                PlanFormat::Text => Telling::As(release::Format::Text),
                PlanFormat::Json => Telling::As(release::Format::Json),
                PlanFormat::Markdown => Telling::As(release::Format::Markdown),
                PlanFormat::Github => Telling::Github,
            };
            let toolchain = self.selection.toolchain();
            if let Some(file) = &self.against {
                let Telling::As(format) = telling else {
                    let message =
                        "--format github says what is to be built, and --against what has moved".into();
                    return Err(Failure::Usage { message, hint: "leave one of them out".into() });
                };
                return release::tell_shifts(&self.cells, file, toolchain, format, context);
            }
            return release::tell(&self.cells, &self.transport, toolchain, telling, context);
        }
        let format = match self.format {
            PlanFormat::Text => Format::Text,
            PlanFormat::Json => Format::Json,
            PlanFormat::Markdown | PlanFormat::Github => return Err(for_all("--format markdown and github")),
        };
        if !self.cells.only.is_empty() {
            return Err(for_all("--only"));
        }
        let mut plan = self.selection.plan(context)?;
        plan.compression = self.packing.compression;
        let store = self.remote.store(&self.transport, context)?;
        print(&plan, self.explain, format, &store, context)
    }
}

fn for_all(what: &str) -> Failure {
    let message = format!("{what}: for what is released, and a version is named");
    Failure::Usage { message, hint: "`--all` in the version's place tells what is released".into() }
}

/// Prints the outline of a plan.
pub(super) fn print(
    plan: &Plan,
    explain: bool,
    format: Format,
    store: &Store,
    context: &Context,
) -> Result<(), Failure> {
    print_lines(&plan.outline(explain, store, &context.watch)?, format, context)
}

/// Prints the steps of a plan.
pub(super) fn print_lines(lines: &[Line], format: Format, context: &Context) -> Result<(), Failure> {
    match format {
        Format::Text => context.print(&lines.iter().map(text).collect::<String>()),
        Format::Json => context.print_json(&json!({ "steps": lines })),
    }
}

fn text(line: &Line) -> String {
    let state = match (line.cached, line.step) {
        (true, _) => "cached",
        (false, _) if line.elsewhere.is_some() => "elsewhere",
        (false, "assemble" | "name") => "each time",
        (false, _) => "to do",
    };
    let key = line.key.as_deref().map_or(String::new(), |key| format!("  {}", &key[..16.min(key.len())]));
    let mut text =
        format!("{:>9}  {:<44} {state:<9}{key}\n{:>9}  from {}\n", line.step, line.what, "", line.input);
    if let Some(place) = &line.elsewhere {
        text += &format!("{:>9}  in the cache {place}\n", "");
    }
    let mut more = |line: &str| text += &format!("{:>9}  {line}\n", "");
    match (&line.missed, &line.record) {
        (Some(Why::Changed(differences)), _) => {
            more("not in the store; since it was last made or found here, its record has changed:");
            differences.iter().for_each(|difference| more(&format!("  {difference}")));
        }
        (Some(Why::Gone), _) => more("not in the store any more; its record is as it was"),
        (None, Some(_)) if !line.cached => more("not in the store, and no earlier run to compare with"),
        (None, _) => {}
    }
    if let Some(record) = &line.record {
        format!("{record:#}").lines().for_each(more);
    }
    text
}
