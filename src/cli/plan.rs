//! `imgbuild plan`.

use clap::Args;
use serde_json::json;

use super::kernel::Selection;
use super::output::Packing;
use super::push::Transport;
use super::remote::RemoteCache;
use super::{Context, Failure, Format};
use crate::plan::kernel::Plan;
use crate::plan::outline::Line;
use crate::store::{Store, Why};

/// Tell the steps of a build, what is cached, and why the rest is not
#[derive(Debug, Args)]
#[command(after_help = "\
A step's key is the digest of its record: the account of all that can change its result. With --explain each
record is printed, and for a step that is not in the store, how its record differs from the one with which the
step of the same version, architecture and flavour was last made or found here.

Examples:
  imgbuild plan 5.10.262 --arch all
  imgbuild plan 5.10.262 --flavour tiny --explain")]
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
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl PlanCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut plan = self.selection.plan(context)?;
        plan.compression = self.packing.compression;
        let store = self.remote.store(&self.transport, context)?;
        print(&plan, self.explain, self.format, &store, context)
    }
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
