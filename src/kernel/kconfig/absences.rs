//! What `allnoconfig` leaves off that the kernel would have turned on by default: wanted, or forgotten?

use super::config::Config;
use super::tree::Tree;

/// The symbols a user can decide about that are on by default with the same fragments, and off here; sorted.
pub(super) fn absences(resolved: &Config, by_default: &Config, tree: &Tree) -> Vec<String> {
    let decidable = |symbol: &&str| tree.symbol(symbol).is_some_and(super::tree::Symbol::has_prompt);
    by_default.on().filter(|symbol| !resolved.is_on(symbol)).filter(decidable).map(str::to_owned).collect()
}

/// Symbols that are left off on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// A symbol without `CONFIG_`, in which `*` stands for any letters.
    pub pattern: String,
    /// Why they are left off.
    pub reason: String,
}

/// Absences, parted by whether there is a reason for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<'a> {
    /// Each with the first entry that names it.
    pub explained: Vec<(&'a str, &'a Accepted)>,
    /// Those that none names.
    pub unexplained: Vec<&'a str>,
}

/// Parts `absences`.
pub fn explain<'a>(absences: &'a [String], accepted: &'a [Accepted]) -> Explained<'a> {
    let mut parted = Explained { explained: Vec::new(), unexplained: Vec::new() };
    for symbol in absences {
        match accepted.iter().find(|accepted| matches(&accepted.pattern, symbol)) {
            Some(accepted) => parted.explained.push((symbol, accepted)),
            None => parted.unexplained.push(symbol),
        }
    }
    parted
}

/// Whether `text` fits `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(head) else { return false };
    (0..=text.len()).any(|skipped| text.get(skipped..).is_some_and(|text| matches(rest, text)))
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::tree;
    use super::*;

    #[test]
    fn only_what_a_user_can_decide_is_told() {
        let tree = tree(&[(
            "Kconfig",
            "config A\n\tbool \"a\"\nconfig B\n\tbool\nconfig C\n\ttristate \"c\"\nconfig D\n\tbool \"d\"\n",
        )]);
        let ours = Config::parse("CONFIG_D=y\n# CONFIG_C is not set\n");
        let by_default = Config::parse("CONFIG_C=m\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_D=y\nCONFIG_N=5\n");
        assert_eq!(absences(&ours, &by_default, &tree), ["A", "C"]);
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        let cases = [
            ("A", "A", true),
            ("A", "AB", false),
            ("A*", "AB", true),
            ("A*", "A", true),
            ("*_VENDOR_*", "NET_VENDOR_INTEL", true),
            ("*_VENDOR_*", "NET_VENDORS", false),
            ("*A", "BAA", true),
            ("A*B*C", "AxBxBxC", true),
            ("A*B*C", "AxCxB", false),
            ("*", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn absences_are_parted_by_reason() {
        let accepted = |pattern: &str| Accepted { pattern: pattern.into(), reason: "why".into() };
        let accepted = [accepted("NET_VENDOR_*"), accepted("VT"), accepted("GONE")];
        let absences = ["NET_VENDOR_INTEL", "SWAP", "VT"].map(str::to_owned);
        let parted = explain(&absences, &accepted);
        assert_eq!(parted.unexplained, ["SWAP"]);
        assert_eq!(parted.explained, [("NET_VENDOR_INTEL", &accepted[0]), ("VT", &accepted[1])]);
    }
}
