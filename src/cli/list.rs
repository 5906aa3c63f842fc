//! `imgbuild list`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Context, Failure, Format};
use crate::inspect::roles;
use crate::plan::list::{Row, State, list};

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people
    Text,
    /// For programs
    Json,
    /// Tables for a page
    Markdown,
}

/// Tell the images that the recipes make of what the lock pins
///
/// Supported images are what is released for `x86_64`; those for arm64 are experimental; legacy images are for users of
/// old releases of Flintlock and CAPMVM; all else is built on request.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild list
  imgbuild list --format markdown > docs/images.md
  imgbuild list roles")]
pub(super) struct List {
    #[command(subcommand)]
    what: Option<What>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Shape::Text)]
    format: Shape,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell the roles that `imgbuild validate --role` knows, and where their lists are from
    Roles {
        /// How the result is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
}

impl List {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        if let Some(What::Roles { format }) = &self.what {
            return print_roles(*format, context);
        }
        let catalogue = context.catalogue();
        let rows = list(&catalogue, &context.lock(&catalogue)?)?;
        match self.format {
            Shape::Text => context.print(&text(&rows)),
            Shape::Json => context.print_json(&json!({ "images": rows })),
            Shape::Markdown => context.print(&markdown(&rows)),
        }
    }
}

/// The rows of each state that has some.
fn by_state(rows: &[Row]) -> impl Iterator<Item = (State, Vec<&Row>)> {
    let of = |state| (state, rows.iter().filter(|row| row.state == state).collect::<Vec<_>>());
    State::ALL.into_iter().map(of).filter(|(_, rows)| !rows.is_empty())
}

fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.image.len()).max().unwrap_or_default();
    let parts = by_state(rows).map(|(state, rows)| {
        let line = |row: &&Row| {
            let (versions, platforms) = (row.versions.join(", "), row.platforms.join(", "));
            format!("  {:<width$}  {platforms:<12} {versions}  ({})\n", row.image, row.recipe)
        };
        format!("{}\n{}", state.title(), rows.iter().map(line).collect::<String>())
    });
    parts.collect::<Vec<_>>().join("\n")
}

fn markdown(rows: &[Row]) -> String {
    let mut page = String::from(
        "# Images\n\nWhat the recipes make of what the lock pins. This page is what `imgbuild list --format markdown` prints.\n",
    );
    for (state, rows) in by_state(rows) {
        page += &format!("\n## {}\n\n{}\n\n", state.title(), state.meaning());
        page += "| Image | Versions | Platforms | Recipe |\n| --- | --- | --- | --- |\n";
        for Row { image, versions, platforms, recipe, .. } in rows {
            page +=
                &format!("| `{image}` | {} | {} | `{recipe}` |\n", versions.join(", "), platforms.join(", "));
        }
    }
    page
}

fn print_roles(format: Format, context: &Context) -> Result<(), Failure> {
    if format == Format::Json {
        let list = |list: &roles::List| {
            json!({
                "level": list.level, "when": list.condition(), "purpose": list.purpose, "source": list.source,
                "symbols": list.symbols,
            })
        };
        let role = |role: &roles::Role| json!({ "role": role.name, "title": role.title, "lists": role.lists().map(list).collect::<Vec<_>>() });
        return context.print_json(&json!({ "roles": roles::all().iter().map(role).collect::<Vec<_>>() }));
    }
    let verbose = context.global.verbose;
    let mut text = String::new();
    for role in roles::all() {
        text += &format!("{:<20} {}\n", role.name, role.title);
        for list in role.lists().filter(|_| verbose) {
            let symbols: Vec<_> = list.symbols.iter().map(|choice| choice.join(" or ")).collect();
            let (level, symbols) = (list.level.name(), symbols.join(", "));
            let when = list.condition();
            let when = if when.is_empty() { when } else { format!(" [{when}]") };
            text += &format!("  {level:<9} {}{when}: {symbols}\n{:12}{}\n", list.purpose, "", list.source);
        }
    }
    context.print(&text)
}
