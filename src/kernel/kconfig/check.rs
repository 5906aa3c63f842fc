//! Compares what was asked for with what the kernel made of it, and says why the two differ.

use std::fmt;

use super::config::Config;
use super::eval::{Scope, Tri, listed, number};
use super::fragment::{Origin, Request, Value};
use super::requested::Requested;
use super::tree::{Kind, Symbol, Tree};

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
        asked: &'static str,
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
                write!(f, "a symbol of {}, not of {asked}: give the line a condition such as `# [arm64]`", listed(arches))
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
        let asked = if *asked == Value::No { "asked off".into() } else { format!("asked for {}", asked.told()) };
        write!(f, "{asked}, got {got}: {why}")
    }
}

/// All requests that `config` does not meet, in the order of the fragments.
pub(super) fn check(requested: &Requested, config: &Config, tree: &Tree) -> Vec<Miss> {
    let scope = Scope { tree, config, tools: true };
    let missed = |request: &&Request| {
        let got = config.get(&request.symbol);
        let left_out = request.condition.if_known && tree.symbol(&request.symbol).is_none();
        *got != request.value && !(request.value.is_nothing() && *got == Value::No) && !left_out
    };
    let miss = |request: &Request| Miss {
        symbol: request.symbol.clone(),
        origin: request.origin.clone(),
        asked: request.value.clone(),
        got: config.get(&request.symbol).clone(),
        why: match tree.symbol(&request.symbol) {
            Some(symbol) => why(request, symbol, scope),
            None => unknown(request, requested, tree),
        },
    };
    requested.requests().iter().filter(missed).map(miss).collect()
}

/// What is odd but not wrong: symbols asked off that this kernel does not have in any architecture.
pub(super) fn notes(requested: &Requested, tree: &Tree) -> Vec<String> {
    let odd = |request: &&Request| {
        request.value.is_nothing()
            && !request.condition.if_known
            && tree.symbol(&request.symbol).is_none()
            && tree.arches_with(&request.symbol).is_empty()
    };
    let note = |request: &Request| {
        format!("{}: CONFIG_{}: {}", request.origin, request.symbol, unknown(request, requested, tree))
    };
    requested.requests().iter().filter(odd).map(note).collect()
}

fn unknown(request: &Request, requested: &Requested, tree: &Tree) -> Why {
    let arches = tree.arches_with(&request.symbol);
    if arches.is_empty() {
        let did_you_mean = tree.nearest(&request.symbol).map(str::to_owned);
        Why::Unknown { version: requested.version.to_string(), did_you_mean }
    } else {
        Why::WrongArch { arches, asked: requested.arch.name() }
    }
}

fn why(request: &Request, symbol: &Symbol, scope: Scope<'_>) -> Why {
    let (name, asked) = (request.symbol.as_str(), &request.value);
    if let Some(takes) = misfit(symbol.kind, asked) {
        return Why::WrongType { takes };
    }
    let got = scope.symbol(name);
    let numeric = matches!(asked, Value::Literal(_));
    if !numeric && Tri::from(asked) < got {
        let holds = |(by, condition): &&(String, Option<_>)| {
            let worth = condition.as_ref().map_or(Tri::Yes, |condition| scope.eval(condition));
            scope.symbol(by).min(worth) > Tri::from(asked)
        };
        let mut by: Vec<_> = scope.tree.selectors(name).iter().filter(holds).map(|(by, _)| by.clone()).collect();
        by.sort();
        by.dedup();
        if !by.is_empty() {
            return Why::ForcedOn { by };
        }
        if *asked == Value::Module && !scope.config.is_on("MODULES") {
            return Why::Unmet { terms: vec!["MODULES (off)".into()] };
        }
    }
    if !symbol.has_prompt() {
        let mut selected_by: Vec<_> = scope.tree.selectors(name).iter().map(|(by, _)| by.clone()).collect();
        selected_by.sort();
        selected_by.dedup();
        return Why::NoPrompt { place: symbol.definitions[0].place.clone(), selected_by };
    }
    let needed = if *asked == Value::Yes && symbol.kind == Some(Kind::Tristate) { Tri::Yes } else { Tri::Module };
    // That the tools can do what `$(cc-option,…)` asks is doubted only where nothing else explains the miss.
    for tools in [true, false] {
        let terms = unmet(symbol, needed, Scope { tools, ..scope });
        if !terms.is_empty() {
            return Why::Unmet { terms };
        }
    }
    if let Some(choice) = symbol.definitions.iter().find_map(|definition| definition.choice) {
        let members = scope.tree.members(choice).to_vec();
        if let Some(chosen) = members.iter().find(|member| scope.symbol(member) == Tri::Yes).cloned() {
            return Why::Choice { chosen, members };
        }
    }
    out_of_range(symbol, asked, scope).unwrap_or(Why::Different)
}

/// What a symbol of this kind takes, if not such a value.
fn misfit(kind: Option<Kind>, asked: &Value) -> Option<&'static str> {
    let literal = |fits: fn(&str) -> bool| matches!(asked, Value::Literal(text) if fits(text));
    let (fits, takes) = match kind? {
        Kind::Bool => (matches!(asked, Value::Yes | Value::No), "y or n: it cannot be a module"),
        Kind::Tristate => (!matches!(asked, Value::Literal(_)), "y, m or n"),
        Kind::Int => (literal(|text| text.parse::<i128>().is_ok()), "a decimal number"),
        Kind::Hex => (literal(|text| !text.starts_with('"')), "a hexadecimal number"),
        Kind::String => (literal(|text| text.starts_with('"')), "a \"string\""),
    };
    // Asked off is an answer for any of them: the symbol shall not be there.
    (!fits && *asked != Value::No).then_some(takes)
}

/// What keeps the prompt from showing, at the definition that is nearest to it.
fn unmet(symbol: &Symbol, needed: Tri, scope: Scope<'_>) -> Vec<String> {
    let terms = symbol.definitions.iter().filter_map(|definition| {
        let conditions = [definition.depends.as_slice(), definition.prompt.as_deref()?].concat();
        Some(scope.unmet(&conditions, needed))
    });
    terms.min_by_key(Vec::len).unwrap_or_default()
}

fn out_of_range(symbol: &Symbol, asked: &Value, scope: Scope<'_>) -> Option<Why> {
    let Value::Literal(text) = asked else { return None };
    let ranges = symbol.definitions.iter().flat_map(|definition| &definition.ranges);
    let (low, high, _) = ranges.into_iter().find(|(.., condition)| {
        condition.as_ref().is_none_or(|condition| scope.eval(condition) != Tri::No)
    })?;
    let (low, high) = (scope.text(low)?, scope.text(high)?);
    let within = (number(&low)?..=number(&high)?).contains(&number(text)?);
    (!within).then_some(Why::OutOfRange { low, high })
}
