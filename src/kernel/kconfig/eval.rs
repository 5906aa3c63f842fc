//! What an expression of the Kconfig language is worth in a resolved configuration, and which terms of it fail.

use std::cmp::Ordering;
use std::sync::Arc;

use super::config::Config;
use super::expr::{Comparison, Expr, Operand};
use super::fragment::Value;
use super::tree::{Kind, Tree};

/// How many alternatives of a failed `||`, or symbols of a list, are named before the rest is only counted.
const NAMED: usize = 4;

/// The three values of Kconfig's logic, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tri {
    No,
    Module,
    Yes,
}

impl From<&Value> for Tri {
    fn from(value: &Value) -> Self {
        match value {
            Value::Yes => Self::Yes,
            Value::Module => Self::Module,
            Value::No | Value::Literal(_) => Self::No,
        }
    }
}

/// A kernel tree and a configuration of it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) tree: &'a Tree,
    pub(super) config: &'a Config,
    /// What is assumed of `$(cc-option,…)` and the like: that the tools can do it, or that they cannot.
    pub(super) tools: bool,
}

impl Scope<'_> {
    /// The value of an expression.
    pub(super) fn eval(self, expr: &Expr) -> Tri {
        match expr {
            Expr::Is(Operand::Word(word) | Operand::Text(word)) => match word.as_str() {
                "y" => Tri::Yes,
                // Kconfig reads a bare `m` as `m && MODULES`.
                "m" => self.symbol("MODULES").min(Tri::Module),
                word => self.symbol(word),
            },
            Expr::Is(Operand::Tools(_)) => self.assumed(),
            Expr::Compare(left, comparison, right) => match (self.text(left), self.text(right)) {
                (Some(left), Some(right)) if compare(&left, *comparison, &right) => Tri::Yes,
                (Some(_), Some(_)) => Tri::No,
                _ => self.assumed(),
            },
            Expr::Not(inner) => match self.eval(inner) {
                Tri::No => Tri::Yes,
                Tri::Module => Tri::Module,
                Tri::Yes => Tri::No,
            },
            Expr::All(terms) => terms.iter().map(|term| self.eval(term)).min().unwrap_or(Tri::Yes),
            Expr::Any(terms) => terms.iter().map(|term| self.eval(term)).max().unwrap_or(Tri::No),
        }
    }

    /// The value of a symbol.
    pub(super) fn symbol(self, name: &str) -> Tri {
        Tri::from(self.config.get(name))
    }

    fn assumed(self) -> Tri {
        if self.tools { Tri::Yes } else { Tri::No }
    }

    /// What a comparison compares; nothing where only a tool can tell.
    pub(super) fn text(self, operand: &Operand) -> Option<String> {
        match operand {
            Operand::Tools(_) => None,
            Operand::Text(text) => Some(text.clone()),
            Operand::Word(word) => Some(match (self.config.get(word), self.tree.symbol(word)) {
                (Value::Literal(text), _) => text.trim_matches('"').to_owned(),
                (Value::No, None) => word.clone(),
                (Value::No, Some(symbol)) if !matches!(symbol.kind, Some(Kind::Bool | Kind::Tristate)) => {
                    String::new()
                }
                (value, _) => value.to_string(),
            }),
        }
    }

    /// The terms of `conditions`, all of which must hold, that are worth less than `needed`, in readable form.
    pub(super) fn unmet(self, conditions: &[Arc<Expr>], needed: Tri) -> Vec<String> {
        let mut terms = Vec::new();
        for condition in conditions {
            self.collect_unmet(condition, needed, &mut terms);
        }
        terms
    }

    fn collect_unmet(self, expr: &Expr, needed: Tri, terms: &mut Vec<String>) {
        if self.eval(expr) >= needed {
            return;
        }
        if let Expr::All(parts) = expr {
            for part in parts {
                self.collect_unmet(part, needed, terms);
            }
        } else {
            let term = self.describe(expr);
            if !terms.contains(&term) {
                terms.push(term);
            }
        }
    }

    /// A failed term with the values that make it fail: `NET (off)`, `IPV6 || IPV6=n (IPV6 =m)`.
    fn describe(self, expr: &Expr) -> String {
        match expr {
            Expr::Is(Operand::Word(word)) if word == "m" => "to be a module".into(),
            Expr::Is(Operand::Word(word)) => format!("{word} ({})", self.state(word)),
            Expr::Is(Operand::Tools(text)) => format!("{text} (the compiler or another tool lacks it)"),
            _ => {
                let mut symbols = Vec::new();
                symbols_of(expr, &mut symbols);
                symbols.retain(|symbol| self.tree.symbol(symbol).is_some());
                let all_off = symbols.iter().all(|symbol| *self.config.get(symbol) == Value::No);
                let states = match symbols.as_slice() {
                    [] => "does not hold here".to_owned(),
                    [one] => format!("{one} {}", self.state(one)),
                    _ if all_off => "all off".to_owned(),
                    many => listed(many.iter().map(|symbol| format!("{symbol} {}", self.state(symbol)))),
                };
                match expr {
                    Expr::Any(parts) if parts.len() > NAMED => {
                        let named: Vec<_> = parts[..NAMED].iter().map(ToString::to_string).collect();
                        format!("{} || {} more ({states})", named.join(" || "), parts.len() - NAMED)
                    }
                    _ => format!("{expr} ({states})"),
                }
            }
        }
    }

    fn state(self, symbol: &str) -> String {
        match (self.config.get(symbol), self.tree.symbol(symbol)) {
            (Value::No, None) => "which this kernel does not have".into(),
            (value, _) => value.told(),
        }
    }
}

/// The words of an expression, each once.
fn symbols_of<'a>(expr: &'a Expr, symbols: &mut Vec<&'a str>) {
    let mut add = |operand: &'a Operand| match operand {
        Operand::Word(word) if !symbols.contains(&word.as_str()) => symbols.push(word),
        _ => {}
    };
    match expr {
        Expr::Is(operand) => add(operand),
        Expr::Compare(left, _, right) => {
            add(left);
            add(right);
        }
        Expr::Not(inner) => symbols_of(inner, symbols),
        Expr::All(terms) | Expr::Any(terms) => terms.iter().for_each(|term| symbols_of(term, symbols)),
    }
}

/// Joins names, only counting those past the first few.
pub(super) fn listed<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
    let more = names.len().saturating_sub(NAMED);
    if more > 1 {
        names.truncate(NAMED);
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// Compares as kconfig does: as numbers where both are, n < m < y where both are of these, else as text.
fn compare(left: &str, comparison: Comparison, right: &str) -> bool {
    let rank = |text: &str| {
        ["n", "m", "y"].iter().position(|value| *value == text).and_then(|rank| rank.try_into().ok())
    };
    let order = match (number(left).or_else(|| rank(left)), number(right).or_else(|| rank(right))) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.cmp(right),
    };
    match comparison {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::Unequal => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterEqual => order != Ordering::Less,
    }
}

/// A decimal or hexadecimal number.
pub(super) fn number(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::expr::Tokens;
    use super::super::tree::tests::tree;
    use super::*;

    const KCONFIG: &str = "config A\n\tbool\nconfig B\n\ttristate\nconfig C\n\ttristate\nconfig N\n\tint\n\
                           config S\n\tstring\nconfig MODULES\n\tbool\nconfig D\n\tbool\n";
    const CONFIG: &str = "CONFIG_A=y\nCONFIG_B=m\nCONFIG_N=40800\nCONFIG_S=\"text\"\nCONFIG_MODULES=y\n";

    fn expr(text: &str) -> Expr {
        Tokens::new(text, &|_| None).expr()
    }

    #[test]
    fn expressions_have_three_values() {
        let tree = tree(&[("Kconfig", KCONFIG)]);
        let config = Config::parse(CONFIG);
        let scope = Scope { tree: &tree, config: &config, tools: true };
        let cases = [
            ("A", Tri::Yes),
            ("B", Tri::Module),
            ("C", Tri::No),
            ("UNDEFINED", Tri::No),
            ("!A", Tri::No),
            ("!B", Tri::Module),
            ("!C", Tri::Yes),
            ("A && B", Tri::Module),
            ("B || C", Tri::Module),
            ("A && (C || B) && !C", Tri::Module),
            ("B=m", Tri::Yes),
            ("A > B && B >= m && C < B", Tri::Yes),
            ("B!=y", Tri::Yes),
            ("C=n", Tri::Yes),
            ("C || C=n", Tri::Yes),
            ("m", Tri::Module),
            ("N", Tri::No),
            ("N >= 9000", Tri::Yes),
            ("N < 0x10", Tri::No),
            ("S=\"text\"", Tri::Yes),
            ("S!=\"\"", Tri::Yes),
            ("$(cc-option,-m) && B", Tri::Module),
            ("\"$(CROSS)\" != \"\"", Tri::Yes),
        ];
        for (text, expected) in cases {
            assert_eq!(scope.eval(&expr(text)), expected, "{text}");
        }
        let without = Scope { tools: false, ..scope };
        assert_eq!(without.eval(&expr("A && $(cc-option,-m)")), Tri::No);
        assert_eq!(without.eval(&expr("!$(cc-option,-m)")), Tri::Yes);
    }

    #[test]
    fn unmet_terms_are_told_with_their_values() {
        let tree = tree(&[("Kconfig", KCONFIG)]);
        let config = Config::parse(CONFIG);
        let scope = Scope { tree: &tree, config: &config, tools: true };
        let cases = [
            ("A && C", "C (off)"),
            ("A && B", "B (=m)"),
            ("C && D && C", "C (off), D (off)"),
            ("C || D", "C || D (all off)"),
            ("C || A && !B", "C || A && !B (C off, A =y, B =m)"),
            ("!A", "!A (A =y)"),
            ("N < 9", "N<9 (N =40800)"),
            ("X86_32", "X86_32 (which this kernel does not have)"),
            ("C || C1 || C2 || C3 || C4 || C5", "C || C1 || C2 || C3 || 2 more (C off)"),
            ("\"a\" = \"b\"", "\"a\"=\"b\" (does not hold here)"),
            ("A && m", "to be a module"),
        ];
        for (text, expected) in cases {
            assert_eq!(scope.unmet(&[Arc::new(expr(text))], Tri::Yes).join(", "), expected, "{text}");
        }
        assert_eq!(scope.unmet(&[Arc::new(expr("A && B"))], Tri::Module), [""; 0]);
    }
}
