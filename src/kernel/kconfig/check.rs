//! Compares what was asked for with what the kernel made of it, and says why the two differ.

use super::config::Config;
use super::eval::{Scope, Tri, number};
use super::fragment::{Request, Value};
use super::miss::{Miss, Why};
use super::requested::Requested;
use super::tree::{Kind, Symbol, Tree};

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
        Why::WrongArch { arches, asked: requested.arch }
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
        let mut by: Vec<_> =
            scope.tree.selectors(name).iter().filter(holds).map(|(by, _)| by.clone()).collect();
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
    let needed =
        if *asked == Value::Yes && symbol.kind == Some(Kind::Tristate) { Tri::Yes } else { Tri::Module };
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

#[cfg(test)]
mod tests {
    use super::super::fragment::parse;
    use super::super::tree::tests::tree;
    use super::*;
    use crate::arch::Arch;

    const KCONFIG: &str = r#"
config MODULES
	bool "modules"
config NET
	bool "net"
config BLOCK
	tristate "block"
config BTRFS_FS
	tristate "btrfs"
	depends on BLOCK
	select LIB
	select XOR if NET
config LIB
	tristate
config XOR
	bool "xor"
config HIDDEN
	tristate
config EXPERT
	bool "expert"
config DEFAULTED
	bool "defaulted" if EXPERT
	default y
config TOOLS
	bool "tools"
	depends on $(cc-option,-mfoo)
choice
	prompt "which"
config SLAB
	bool "slab"
config SLUB
	bool "slub"
endchoice
config NR_CPUS
	int "cpus"
	range 2 64 if NET
config START
	hex "start"
config NAME
	string "name"
config TWICE
	bool "one"
	depends on A && B
config TWICE
	bool "two"
	depends on EXPERT
config VIRTIO_MENU
	bool "menu"
source "arch/$(SRCARCH)/Kconfig"
"#;

    /// What is told of the requests in `fragment` where kconfig made `config` of them.
    fn told(fragment: &str, config: &str) -> Vec<String> {
        let tree = tree(&[
            ("Kconfig", KCONFIG),
            ("arch/x86/Kconfig", "config X86\n\tbool\n"),
            ("arch/arm64/Kconfig", "config ARM64_VHE\n\tbool\n"),
        ]);
        let version = "5.10.262".parse().unwrap();
        let requested = Requested::merge(parse("f", fragment).unwrap(), &version, Arch::X86_64);
        check(&requested, &Config::parse(config), &tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_to_be_met_is_met() {
        let cases = [
            ("CONFIG_NET=y", "CONFIG_NET=y"),
            ("CONFIG_BLOCK=m", "CONFIG_BLOCK=m"),
            ("# CONFIG_NET is not set", "# CONFIG_NET is not set"),
            ("# CONFIG_NET is not set", ""),
            ("# CONFIG_NR_CPUS is not set", ""),
            ("# CONFIG_NO_SUCH_THING is not set", ""),
            ("CONFIG_NR_CPUS=64", "CONFIG_NR_CPUS=64"),
            ("CONFIG_START=0x10", "CONFIG_START=0x10"),
            ("CONFIG_NAME=\"a\"", "CONFIG_NAME=\"a\""),
            ("CONFIG_NAME=\"\"", ""),
            ("CONFIG_NO_SUCH_THING=y # [if-known]", ""),
            ("CONFIG_ARM64_VHE=y # [arm64]", ""),
            ("CONFIG_LIB=m", "CONFIG_LIB=m"),
        ];
        for (fragment, config) in cases {
            assert_eq!(told(fragment, config), [""; 0], "{fragment}");
        }
    }

    #[test]
    fn every_miss_says_why() {
        let cases = [
            ("CONFIG_BTRFS_SF=m", "", "no such symbol in Linux 5.10.262; did you mean CONFIG_BTRFS_FS?"),
            ("CONFIG_QUITE_ANOTHER=y", "", "no such symbol in Linux 5.10.262"),
            (
                "CONFIG_ARM64_VHE=y",
                "",
                "a symbol of arm64, not of x86_64: give the line the condition `# [arm64]`",
            ),
            ("CONFIG_NET=m", "", "asked for =m, got off: it takes y or n: it cannot be a module"),
            ("CONFIG_NET=5", "", "asked for =5, got nothing: it takes y or n: it cannot be a module"),
            ("CONFIG_NR_CPUS=y", "CONFIG_NR_CPUS=2", "asked for =y, got =2: it takes a decimal number"),
            ("CONFIG_NAME=5", "CONFIG_NAME=\"\"", "asked for =5, got =\"\": it takes a \"string\""),
            ("CONFIG_BTRFS_FS=m", "CONFIG_MODULES=y", "asked for =m, got off: needs BLOCK (off)"),
            (
                "CONFIG_BTRFS_FS=y",
                "CONFIG_MODULES=y\nCONFIG_BLOCK=m\nCONFIG_BTRFS_FS=m",
                "asked for =y, got =m: needs BLOCK (=m)",
            ),
            ("CONFIG_BLOCK=m", "CONFIG_BLOCK=y", "asked for =m, got =y: needs MODULES (off)"),
            (
                "# CONFIG_XOR is not set",
                "CONFIG_NET=y\nCONFIG_BTRFS_FS=m\nCONFIG_XOR=y",
                "asked off, got =y: selected by BTRFS_FS",
            ),
            ("CONFIG_LIB=m", "CONFIG_BTRFS_FS=y\nCONFIG_LIB=y", "asked for =m, got =y: selected by BTRFS_FS"),
            (
                "CONFIG_LIB=y",
                "",
                "asked for =y, got off: it has no prompt (Kconfig:13), so it cannot be asked for directly: \
                 ask for what selects it (BTRFS_FS)",
            ),
            (
                "CONFIG_HIDDEN=m",
                "",
                "asked for =m, got off: it has no prompt (Kconfig:17): nobody but the kernel decides about it",
            ),
            ("# CONFIG_DEFAULTED is not set", "CONFIG_DEFAULTED=y", "asked off, got =y: needs EXPERT (off)"),
            (
                "CONFIG_TOOLS=y",
                "",
                "asked for =y, got off: needs $(cc-option,-mfoo) (the compiler or another tool lacks it)",
            ),
            (
                "CONFIG_SLAB=y",
                "CONFIG_SLUB=y",
                "asked for =y, got off: one of a choice (SLAB, SLUB), which fell on SLUB",
            ),
            (
                "# CONFIG_SLUB is not set",
                "CONFIG_SLUB=y",
                "asked off, got =y: one of a choice (SLAB, SLUB), which fell on SLUB",
            ),
            (
                "CONFIG_NR_CPUS=512",
                "CONFIG_NET=y\nCONFIG_NR_CPUS=64",
                "asked for =512, got =64: it takes 2 to 64",
            ),
            (
                "CONFIG_NR_CPUS=512",
                "CONFIG_NR_CPUS=64",
                "asked for =512, got =64: kconfig settled on it, the Kconfig files do not tell why",
            ),
            (
                "CONFIG_NAME=\"a\"",
                "CONFIG_NAME=\"b\"",
                "asked for =\"a\", got =\"b\": kconfig settled on it, the Kconfig files do not tell why",
            ),
            ("CONFIG_TWICE=y", "", "asked for =y, got off: needs EXPERT (off)"),
        ];
        for (fragment, config, message) in cases {
            let symbol = fragment.trim_start_matches("# ").split(['=', ' ']).next().unwrap();
            assert_eq!(told(fragment, config), [format!("f:1: {symbol}: {message}")], "{fragment}");
        }
    }

    #[test]
    fn all_misses_come_at_once_in_the_order_of_the_fragment() {
        let misses = told("CONFIG_XOR=y\nCONFIG_NET=y\nCONFIG_BLOCK=m\nCONFIG_EXPERT=y\n", "CONFIG_NET=y\n");
        let starts: Vec<_> = misses.iter().map(|miss| &miss[..miss.find(": ").unwrap()]).collect();
        assert_eq!(starts, ["f:1", "f:3", "f:4"]);
    }

    #[test]
    fn an_unknown_symbol_asked_off_is_noted() {
        let tree = tree(&[
            ("Kconfig", KCONFIG),
            ("arch/x86/Kconfig", ""),
            ("arch/arm64/Kconfig", "config ARM64_VHE\n"),
        ]);
        let fragment = "# CONFIG_BTRFS_SF is not set\n# CONFIG_ARM64_VHE is not set\n# CONFIG_GONE is not set # [if-known]\n";
        let requested =
            Requested::merge(parse("f", fragment).unwrap(), &"5.10".parse().unwrap(), Arch::X86_64);
        let expected = "f:1: CONFIG_BTRFS_SF: no such symbol in Linux 5.10; did you mean CONFIG_BTRFS_FS?";
        assert_eq!(notes(&requested, &tree), [expected]);
    }
}
