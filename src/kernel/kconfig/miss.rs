//! A request that was not met, and the sentence that says why.

use std::fmt;

use super::eval::listed;
use super::fragment::{Origin, Value};
use crate::arch::Arch;

/// A request that the resolved configuration does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The symbol, without `CONFIG_`.
    pub symbol: String,
    /// Who asked.
    pub origin: Origin,
    /// What was asked for.
    pub asked: Value,
    /// What came of it.
    pub got: Value,
    /// Why.
    pub why: Why,
}

/// Why a request was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// This kernel has no such symbol.
    Unknown {
        /// The kernel's version.
        version: String,
        /// A symbol with a similar name.
        did_you_mean: Option<String>,
    },
    /// Other architectures have it.
    WrongArch {
        /// Their `arch/` directories.
        arches: Vec<String>,
        /// The one that was asked.
        asked: Arch,
    },
    /// The symbol is of a type that has no such value.
    WrongType {
        /// What it takes.
        takes: &'static str,
    },
    /// It cannot be asked for directly.
    NoPrompt {
        /// Where it is defined.
        place: String,
        /// The symbols that turn it on.
        selected_by: Vec<String>,
    },
    /// Its dependencies do not hold.
    Unmet {
        /// Those that fail, with the values that make them fail.
        terms: Vec<String>,
    },
    /// Symbols that are on hold it on.
    ForcedOn {
        /// These.
        by: Vec<String>,
    },
    /// It is a member of a choice, one of which is on, and that is another one (or only this one).
    Choice {
        /// The member that is on.
        chosen: String,
        /// All members.
        members: Vec<String>,
    },
    /// The number has bounds.
    OutOfRange {
        /// The least.
        low: String,
        /// The greatest.
        high: String,
    },
    /// Nothing in the Kconfig files tells why.
    Different,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { version, did_you_mean: None } => write!(f, "no such symbol in Linux {version}"),
            Self::Unknown { version, did_you_mean: Some(other) } => {
                write!(f, "no such symbol in Linux {version}; did you mean CONFIG_{other}?")
            }
            Self::WrongArch { arches, asked } => {
                write!(f, "a symbol of {}, not of {asked}", listed(arches))?;
                let ours = Arch::ALL.iter().find(|arch| arches.iter().any(|name| name == arch.srcarch()));
                ours.map_or(Ok(()), |arch| write!(f, ": give the line the condition `# [{arch}]`"))
            }
            Self::WrongType { takes } => write!(f, "it takes {takes}"),
            Self::NoPrompt { place, selected_by } if selected_by.is_empty() => {
                write!(f, "it has no prompt ({place}): nobody but the kernel decides about it")
            }
            Self::NoPrompt { place, selected_by } => write!(
                f,
                "it has no prompt ({place}), so it cannot be asked for directly: ask for what selects it ({})",
                listed(selected_by)
            ),
            Self::Unmet { terms } => write!(f, "needs {}", terms.join(", ")),
            Self::ForcedOn { by } => write!(f, "selected by {}", listed(by)),
            Self::Choice { chosen, members } => {
                write!(f, "one of a choice ({}), which fell on {chosen}", listed(members))
            }
            Self::OutOfRange { low, high } => write!(f, "it takes {low} to {high}"),
            Self::Different => f.write_str("kconfig settled on it, the Kconfig files do not tell why"),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { symbol, origin, asked, got, why } = self;
        write!(f, "{origin}: CONFIG_{symbol}: ")?;
        if matches!(why, Why::Unknown { .. } | Why::WrongArch { .. }) {
            return why.fmt(f);
        }
        let got = match (asked, got) {
            (Value::Literal(_), Value::No) => "nothing".into(),
            (_, got) => got.told(),
        };
        let asked =
            if *asked == Value::No { "asked off".into() } else { format!("asked for {}", asked.told()) };
        write!(f, "{asked}, got {got}: {why}")
    }
}
