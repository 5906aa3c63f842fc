//! A release told to people: as lines, or as a table in Markdown.

use std::fmt::Write;

use serde_json::json;

use super::{Fate, Report, Standing};
use crate::arch::Arch;
use crate::plan::release::against::{Change, Shift};
use crate::plan::release::{Cell, Joined, Outcome, State, TagState};

/// The machine of GitHub's that a cell is built on.
fn runner(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "ubuntu-24.04",
        Arch::Arm64 => "ubuntu-24.04-arm",
    }
}

/// What is to be built, as an output of a workflow's step.
pub(super) fn github(standing: &[Standing]) -> String {
    let is_due = |standing: &&Standing| !matches!(standing.state, State::Published { .. });
    let cell = |standing: &Standing| {
        let Cell { name, arch, .. } = &standing.cell;
        json!({ "cell": name, "runner": runner(*arch) })
    };
    let include: Vec<_> = standing.iter().filter(is_due).map(cell).collect();
    format!("matrix={}\n", json!({ "include": include }))
}

/// All cells, and what is to be said about them.
pub(super) fn plan(standing: &[Standing], warnings: &[String], markdown: bool) -> String {
    let row = |Standing { cell, state }: &Standing| {
        let state = match state {
            State::Published { reference, .. } => format!("published as {reference}"),
            _ if !cell.is_pinned => "to do: built each time, its packages are not pinned".into(),
            State::ToDo => "to do".into(),
            State::Unknown => "no registry was asked".into(),
        };
        [cell.name.clone(), cell.keys[0].short(), state]
    };
    let mut text = table(["cell", "key", "state"], standing.iter().map(row), markdown);
    for warning in warnings {
        let _ = if markdown { write!(text, "\n> {warning}\n") } else { writeln!(text, "warning: {warning}") };
    }
    text
}

/// What became of cells.
pub(super) fn cells(reports: &[Report], markdown: bool) -> String {
    let row = |report: &Report| {
        let (outcome, more) = match &report.fate {
            Fate::Published { images, booted } => {
                let images = images.iter().map(|image| image.reference.clone());
                let all: Vec<_> = images.chain(booted.clone()).collect();
                ("published", all.join(if markdown { "<br>" } else { "\n" }))
            }
            Fate::Skipped { reference, digest } => ("published before", format!("{reference}@{digest}")),
            Fate::ToDo => ("to do", String::new()),
            Fate::Failed { error } => ("FAILED", error.clone()),
        };
        [report.cell.clone(), outcome.to_owned(), more]
    };
    let text = table(["cell", "outcome", "images"], reports.iter().map(row), markdown);
    let is_skipped = |report: &Report| matches!(report.fate, Fate::Skipped { .. });
    if reports.iter().all(is_skipped) { text + "\nnothing to do: all of it is published\n" } else { text }
}

/// What became of images.
pub(super) fn images(joined: &[Joined], markdown: bool) -> String {
    let row = |image: &Joined| {
        let outcome = match image.outcome {
            Outcome::Published => "published",
            Outcome::There => "there already",
            Outcome::Missing => "NOT JOINED, its tags are as they were",
            Outcome::Failed => "FAILED, no tag was moved",
        };
        let mut lines: Vec<String> = image.reference.iter().cloned().collect();
        lines.extend(image.missing.iter().map(|cell| format!("missing: {cell}")));
        for tag in &image.tags {
            lines.push(match &tag.state {
                TagState::Moved => format!("{} moved", tag.tag),
                TagState::There => format!("{} there already", tag.tag),
                TagState::Due => format!("{} would be moved", tag.tag),
                TagState::Kept { digest, reason } => format!("{} stays at {digest}: {reason}", tag.tag),
            });
        }
        [image.image.clone(), outcome.to_owned(), lines.join(if markdown { "<br>" } else { "\n" })]
    };
    let text = table(["image", "outcome", "tags"], joined.iter().map(row), markdown);
    if joined.iter().all(|image| image.outcome == Outcome::There) {
        text + "\nnothing to do: every tag is where it belongs\n"
    } else {
        text
    }
}

/// How many reasons of one cell are told.
const REASONS: usize = 8;

/// The cells that are not as they were, of `total` that are released now.
pub(super) fn shifts(shifts: &[Shift], total: usize, markdown: bool) -> String {
    let row = |shift: &Shift| {
        let (change, why) = match &shift.change {
            Change::New => ("new", Vec::new()),
            Change::Gone => ("not released any more", Vec::new()),
            Change::Moved { why } if why.is_empty() => {
                ("moves", vec!["as machines of another architecture make it".to_owned()])
            }
            Change::Moved { why } => {
                let mut lines: Vec<_> = why.iter().take(REASONS).map(ToString::to_string).collect();
                let more = why.len() - lines.len();
                lines.extend((more > 0).then(|| format!("and {more} more")));
                ("moves", lines)
            }
        };
        let mut lines = vec![shift.images.join(", ")];
        lines.extend(why);
        [shift.cell.clone(), change.to_owned(), lines.join(if markdown { "<br>" } else { "\n" })]
    };
    if shifts.is_empty() {
        return format!("nothing moves: all {total} cells have the keys they had\n");
    }
    let text = table(["cell", "", "images, and why"], shifts.iter().map(row), markdown);
    let is_kept = |shift: &&Shift| shift.change != Change::Gone;
    text + &format!("\n{} of {total} cells have other keys\n", shifts.iter().filter(is_kept).count())
}

/// Three columns. As lines, what the last one has more than one line of stands below.
fn table(head: [&str; 3], rows: impl Iterator<Item = [String; 3]>, markdown: bool) -> String {
    let rows: Vec<_> = rows.collect();
    let mut text = String::new();
    if markdown {
        let plain = |cell: &str| cell.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(text, "| {} |\n|---|---|---|", head.join(" | "));
        for row in &rows {
            let _ = writeln!(text, "| {} |", row.each_ref().map(|cell| plain(cell)).join(" | "));
        }
        return text;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [a, b, c] in &rows {
        let mut lines = c.lines();
        let line = format!("{a:<first$}  {b:<second$}  {}", lines.next().unwrap_or_default());
        let _ = writeln!(text, "{}", line.trim_end());
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}
