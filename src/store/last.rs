//! How each step was last made or found, so that a miss can be explained.

use std::fmt;
use std::path::PathBuf;

use fs_err as fs;
use serde::Serialize;
use serde_json::Value;

use super::Store;
use crate::record::{Difference, differences};

/// How many differences a sentence names.
const SHOWN: usize = 4;

/// Why a step has to run although one of its name was made or found before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its record has changed in these fields.
    Changed(Vec<Difference>),
    /// Its entry was cleaned away or damaged.
    Gone,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("its entry is no longer in the store"),
            Self::Changed(differences) => {
                let shown: Vec<_> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
                f.write_str(&shown.join(", "))?;
                match differences.len() - shown.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl Store {
    fn last(&self, kind: &str, name: &str) -> PathBuf {
        let plain = |c: char| if c.is_alphanumeric() || ".-_".contains(c) { c } else { '-' };
        let name: String = name.chars().map(plain).collect();
        self.made().join("records").join(kind).join(name + ".json")
    }

    /// Notes the record that the step of this name has now; nothing is written if it is the one noted already.
    pub(super) fn remember(&self, kind: &str, name: &str, record: &Value) -> std::io::Result<()> {
        let path = self.last(kind, name);
        let text = format!("{record:#}\n");
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        let work = self.scratch()?;
        let whole = work.path().join("record.json");
        fs::write(&whole, text)?;
        fs::create_dir_all(path.parent().expect("a record lies below its kind"))?;
        fs::rename(whole, path)
    }

    /// Why a step that is not in the store has to run; none if no step of its name was ever made or found here.
    pub fn why(&self, kind: &str, name: &str, record: &Value) -> Option<Why> {
        let text = fs::read_to_string(self.last(kind, name)).ok()?;
        // A note that cannot be read explains nothing.
        let last: Value = serde_json::from_str(&text).ok()?;
        let found = differences(&last, record);
        Some(if found.is_empty() { Why::Gone } else { Why::Changed(found) })
    }
}
