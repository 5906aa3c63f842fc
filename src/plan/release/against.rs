//! A plan of what is released held against an earlier one: which images move, and what in their records moves them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Cell;
use crate::record::{Difference, differences};

/// A plan as `imgbuild plan --all --format json` told it.
#[derive(Debug, Deserialize)]
pub struct Earlier {
    cells: Vec<EarlierCell>,
}

/// As much of a cell as the comparison needs.
#[derive(Debug, Deserialize)]
struct EarlierCell {
    cell: String,
    keys: Vec<String>,
    #[serde(default)]
    images: Vec<String>,
    #[serde(default)]
    record: Value,
}

/// What became of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// It was not released before.
    New,
    /// It is not released any more.
    Gone,
    /// It has another key.
    Moved {
        /// The fields of its record that differ; none where only machines of another architecture make it otherwise.
        why: Vec<Difference>,
    },
}

/// A cell that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shift {
    /// `kernel/firecracker/5.10.77/amd64`.
    pub cell: String,
    /// The repositories of its images.
    pub images: Vec<String>,
    /// What became of it.
    #[serde(flatten)]
    pub change: Change,
}

impl Earlier {
    /// Reads a plan; fails if the text is none.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The cells that are not as they were, in the order of `now`; those that are gone come last.
    pub fn shifts(&self, now: &[Cell]) -> Vec<Shift> {
        let mut shifts = Vec::new();
        for cell in now {
            let change = match self.cells.iter().find(|earlier| earlier.cell == cell.name) {
                None => Change::New,
                Some(earlier)
                    if cell.keys.iter().map(ToString::to_string).eq(earlier.keys.iter().cloned()) =>
                {
                    continue;
                }
                Some(earlier) => {
                    Change::Moved { why: differences(&by_name(&earlier.record), &by_name(&cell.record)) }
                }
            };
            shifts.push(Shift { cell: cell.name.clone(), images: cell.images.clone(), change });
        }
        let is_gone = |earlier: &&EarlierCell| !now.iter().any(|cell| cell.name == earlier.cell);
        shifts.extend(self.cells.iter().filter(is_gone).map(|earlier| Shift {
            cell: earlier.cell.clone(),
            images: earlier.images.clone(),
            change: Change::Gone,
        }));
        shifts
    }
}

/// The same record with every list made a table, so that a difference names what differs and not the list: packages
/// (`bash 5.1 amd64 …`) and requests by their first word, programs and files by name or path.
fn by_name(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), by_name(value))).collect(),
        Value::Array(items) => {
            let mut fields = Map::new();
            for (number, item) in items.iter().enumerate() {
                let (name, value) = match item {
                    Value::String(text) => match text.split_once(' ') {
                        Some((name, rest)) => (name.to_owned(), rest.into()),
                        None => (text.clone(), true.into()),
                    },
                    Value::Object(parts) => {
                        let named = ["name", "path"].iter().find_map(|field| parts.get(*field)?.as_str());
                        (named.map_or_else(|| number.to_string(), str::to_owned), by_name(item))
                    }
                    other => (number.to_string(), other.clone()),
                };
                fields.insert(name, value);
            }
            Value::Object(fields)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::plan::release::Kind;
    use crate::step::Key;
    use serde_json::json;

    fn cell(name: &str, record: Value) -> Cell {
        Cell {
            name: name.into(),
            kind: Kind::Os,
            recipe: "r".into(),
            version: "1".into(),
            arch: Arch::X86_64,
            is_pinned: true,
            keys: vec![Key::of(&record)],
            images: vec!["image".into()],
            record,
        }
    }

    #[test]
    fn differences_name_the_package_and_the_program() {
        let record = |bash: &str, runc: &str| json!({ "base": { "packages": [format!("bash {bash} amd64"), "dash 1"], "asked": ["bash"] }, "programs": [{ "name": "runc", "version": runc }] });
        let before = [cell("a", record("5.1", "1")), cell("b", record("5.1", "1")), cell("c", json!({}))];
        let now = [cell("a", record("5.2", "2")), cell("b", record("5.1", "1")), cell("d", json!({}))];
        let text = json!({ "cells": before }).to_string();
        let shifts = Earlier::parse(&text).unwrap().shifts(&now);
        assert_eq!(shifts.iter().map(|shift| &*shift.cell).collect::<Vec<_>>(), ["a", "d", "c"]);
        let Change::Moved { why } = &shifts[0].change else { panic!("{shifts:?}") };
        let told: Vec<_> = why.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["base.packages.bash: 5.1 amd64 → 5.2 amd64", "programs.runc.version: 1 → 2"]);
        assert_eq!((&shifts[1].change, &shifts[2].change), (&Change::New, &Change::Gone));
        assert!(Earlier::parse("[]").is_err());
    }
}
