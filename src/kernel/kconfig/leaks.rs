//! The closed list of configuration symbols that would let a key, a seed, a path or another machine's tool into the kernel.

use std::fmt;

use super::config::Config;
use super::fragment::{Origin, Value};
use super::requested::Requested;

/// A value by which two builds of the same kernel would differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The symbol, without `CONFIG_`.
    pub symbol: &'static str,
    /// Its value.
    pub value: Value,
    /// What leaks.
    pub why: &'static str,
    /// What to do.
    pub cure: String,
    /// The request that brought it in, if one did.
    pub origin: Option<Origin>,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { symbol, value, why, cure, origin } = self;
        match origin {
            Some(origin) => write!(f, "{origin}: CONFIG_{symbol}={value} is not reproducible: {why}; {cure}"),
            None => write!(
                f,
                "CONFIG_{symbol}={value}, which no fragment asks for, is not reproducible: {why}; {cure}"
            ),
        }
    }
}

/// One entry of the list.
struct Known {
    symbol: &'static str,
    why: &'static str,
    cure: Cure,
    /// Other symbols a fragment may have asked for to get this one.
    through: &'static [&'static str],
}

enum Cure {
    /// It must be off.
    Off,
    /// It must be the empty string.
    Empty,
    /// As it says.
    Say(&'static str),
}

const fn on(symbol: &'static str, why: &'static str) -> Known {
    Known { symbol, why, cure: Cure::Off, through: &[] }
}

const fn text(symbol: &'static str, why: &'static str) -> Known {
    Known { symbol, why, cure: Cure::Empty, through: &[] }
}

const FILE: &str = "it builds in a file from outside the source tree, which no hash pins";
const SEED: &str = "each build draws a new random seed";

// BUILD_SALT is not among them: it is a constant of the configuration, and the step's key has it.
const KNOWN: [Known; 20] = [
    on(
        "MODULE_SIG_ALL",
        "modules are signed while they are installed, with a key that is not part of the inputs",
    ),
    Known {
        symbol: "MODULE_SIG_KEY",
        why: "its certificate is built into the kernel, and each build makes certs/signing_key.pem anew",
        cure: Cure::Say(
            "write `# CONFIG_MODULE_SIG is not set`, or the empty string here to leave the key out",
        ),
        through: &["MODULE_SIG", "MODULE_SIG_FORCE", "IMA_APPRAISE_MODSIG"],
    },
    on("GCC_PLUGIN_RANDSTRUCT", SEED),
    Known {
        cure: Cure::Say("write `CONFIG_RANDSTRUCT_NONE=y`"),
        through: &["RANDSTRUCT_FULL", "RANDSTRUCT_PERFORMANCE"],
        ..on("RANDSTRUCT", SEED)
    },
    on("GCC_PLUGIN_LATENT_ENTROPY", SEED),
    on("DEBUG_INFO_BTF", "it is made by whichever pahole the machine has, and no version of it is pinned"),
    Known {
        cure: Cure::Say("write `# CONFIG_DEBUG_INFO is not set`, or `CONFIG_DEBUG_INFO_NONE=y` from 5.18 on"),
        through: &["DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT", "DEBUG_INFO_DWARF4", "DEBUG_INFO_DWARF5"],
        ..on("DEBUG_INFO", "the paths of the build are in every object")
    },
    on("GCOV_KERNEL", "the paths of the object tree are compiled in"),
    // gen_kheaders.sh does set times, owners and order; but init/ writes compile.h while kernel/ packs.
    on(
        "IKHEADERS",
        "the machine's own perl, tar and xz pack its archive, which before 6.1 has compile.h in it or not, \
         as parallel make happens to go",
    ),
    on("LOCALVERSION_AUTO", "the release depends on the state of a git checkout"),
    text("LOCALVERSION", "the release must be the version alone, as it names /lib/modules/VERSION"),
    text("INITRAMFS_SOURCE", FILE),
    text("EXTRA_FIRMWARE", FILE),
    text("SYSTEM_TRUSTED_KEYS", FILE),
    text("SYSTEM_REVOCATION_KEYS", FILE),
    text("SYSTEM_BLACKLIST_HASH_LIST", FILE),
    text("CFG80211_EXTRA_REGDB_KEYDIR", FILE),
    text("ACPI_CUSTOM_DSDT_FILE", FILE),
    text("UNUSED_KSYMS_WHITELIST", FILE),
    text("BOOT_CONFIG_EMBED_FILE", FILE),
];

/// All leaks of a configuration, in the order of the list.
pub(super) fn leaks(config: &Config, requested: &Requested) -> Vec<Leak> {
    let leaking = |known: &&Known| !config.get(known.symbol).is_nothing();
    let leak = |known: &Known| {
        let asked = std::iter::once(&known.symbol)
            .chain(known.through)
            .find_map(|symbol| requested.get(symbol).filter(|request| !request.value.is_nothing()));
        Leak {
            symbol: known.symbol,
            value: config.get(known.symbol).clone(),
            why: known.why,
            cure: match known.cure {
                Cure::Off => format!("write `# CONFIG_{} is not set`", known.symbol),
                Cure::Empty => format!("write `CONFIG_{}=\"\"`", known.symbol),
                Cure::Say(cure) => cure.to_owned(),
            },
            origin: asked.map(|request| request.origin.clone()),
        }
    };
    KNOWN.iter().filter(leaking).map(leak).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fragment::parse;
    use super::*;
    use crate::arch::Arch;

    fn told(config: &str, fragment: &str) -> Vec<String> {
        let requests = parse("f.config", fragment).unwrap();
        let requested = Requested::merge(requests, &"5.10".parse().unwrap(), Arch::X86_64);
        leaks(&Config::parse(config), &requested).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_known_leak_is_found() {
        for known in &KNOWN {
            let value =
                if matches!(known.cure, Cure::Off) || known.symbol == "DEBUG_INFO" { "y" } else { "\"x\"" };
            let told = told(&format!("CONFIG_{}={value}\n", known.symbol), "");
            assert_eq!(told.len(), 1, "{}", known.symbol);
            assert!(
                told[0].starts_with(&format!("CONFIG_{}={value}, which no fragment asks for", known.symbol)),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_is_off_empty_or_constant_does_not_leak() {
        let config = "# CONFIG_MODULE_SIG_ALL is not set\nCONFIG_MODULE_SIG_KEY=\"\"\nCONFIG_LOCALVERSION=\"\"\n\
                      CONFIG_BUILD_SALT=\"5.10\"\nCONFIG_SYSTEM_TRUSTED_KEYS=\"\"\n";
        assert_eq!(told(config, ""), [""; 0]);
    }

    #[test]
    fn who_asked_is_named_even_where_another_symbol_was_asked_for() {
        let fragment =
            "# CONFIG_GCOV_KERNEL is not set\nCONFIG_DEBUG_INFO_DWARF4=y\nCONFIG_LOCALVERSION=\"-fc\"\n";
        let config = "CONFIG_DEBUG_INFO=y\nCONFIG_DEBUG_INFO_DWARF4=y\nCONFIG_LOCALVERSION=\"-fc\"\n";
        assert_eq!(
            told(config, fragment),
            [
                "f.config:2: CONFIG_DEBUG_INFO=y is not reproducible: the paths of the build are in every object; \
                 write `# CONFIG_DEBUG_INFO is not set`, or `CONFIG_DEBUG_INFO_NONE=y` from 5.18 on",
                "f.config:3: CONFIG_LOCALVERSION=\"-fc\" is not reproducible: the release must be the version alone, \
                 as it names /lib/modules/VERSION; write `CONFIG_LOCALVERSION=\"\"`",
            ]
        );
    }
}
