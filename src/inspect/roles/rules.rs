//! The lists of `roles.toml`, read.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::UnknownRole;
use crate::arch::Arch;
use crate::document::nearest;
use crate::kernel::kconfig::fragment::Condition;
use crate::version::Version;

/// How much a list's symbols are needed, and by when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Before a root is there: a module comes too late.
    BuiltIn,
    /// Before the modules volume is mounted: a module comes late.
    Early,
    /// Built in or a module.
    Required,
    /// Not at all.
    Optional,
    /// Not at all, and of use only before the modules volume is mounted: a module comes late.
    OptionalEarly,
}

impl Level {
    /// Its name: `built-in`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "built-in",
            Self::Early => "early",
            Self::Required => "required",
            Self::Optional => "optional",
            Self::OptionalEarly => "optional-early",
        }
    }
}

/// Symbols that are needed for one purpose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    name: String,
    /// How much they are needed.
    pub level: Level,
    #[serde(default, deserialize_with = "condition")]
    pub(super) when: Condition,
    #[serde(default, deserialize_with = "condition")]
    pub(super) kubernetes: Condition,
    /// What for.
    pub purpose: String,
    /// Who says so.
    pub source: String,
    /// Symbols without `CONFIG_`; of those in one list, one is enough.
    #[serde(deserialize_with = "choices")]
    pub symbols: Vec<Vec<String>>,
}

/// A virtual machine monitor or a use of the guest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Its name: `firecracker-no-acpi`.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    #[serde(default, deserialize_with = "arch")]
    pub(super) arch: Option<Arch>,
    #[serde(rename = "lists")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "takes")]
    pub(super) kernels: Vec<Takes>,
}

impl List {
    /// When it counts, for people: `x86_64, >=5.0`; empty where it always does.
    pub fn condition(&self) -> String {
        let kubernetes = self.kubernetes.to_string();
        let kubernetes = if kubernetes.is_empty() { kubernetes } else { format!("Kubernetes {kubernetes}") };
        let parts = [self.when.to_string(), kubernetes];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    }
}

impl Role {
    /// Its lists.
    pub fn lists(&self) -> impl Iterator<Item = &'static List> {
        let list = |name: &String| RULES.lists.iter().find(|list| list.name == *name);
        self.names.iter().filter_map(list)
    }

    /// Whether there are guests of this architecture in it.
    pub fn is_for(&self, arch: Arch) -> bool {
        self.arch.is_none_or(|only| only == arch)
    }
}

/// The kernels that something takes: a series, or all from a version on.
#[derive(Debug)]
pub(super) enum Takes {
    Series(String),
    From(Version),
}

impl Takes {
    pub(super) fn takes(&self, version: &Version) -> bool {
        match self {
            Self::Series(series) => version.series() == *series,
            Self::From(from) => version >= from,
        }
    }
}

impl std::fmt::Display for Takes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Series(series) => f.write_str(series),
            Self::From(from) => write!(f, "{from} or newer"),
        }
    }
}

/// The kernels that kubeadm takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kubeadm {
    #[serde(deserialize_with = "condition")]
    pub(super) kubernetes: Condition,
    #[serde(deserialize_with = "takes")]
    pub(super) kernels: Vec<Takes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    #[serde(rename = "list")]
    lists: Vec<List>,
    #[serde(rename = "role")]
    roles: Vec<Role>,
    pub(super) kubeadm: Vec<Kubeadm>,
    modules: BTreeMap<String, String>,
}

impl Rules {
    /// The names that a symbol's module may have, `-` as `_`; none where it has none of its own.
    pub(super) fn modules(&self, symbol: &str) -> Vec<String> {
        match self.modules.get(symbol) {
            Some(names) => {
                names.split('|').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
            }
            None => vec![symbol.to_lowercase()],
        }
    }
}

pub(super) static RULES: LazyLock<Rules> =
    LazyLock::new(|| toml::from_str(include_str!("roles.toml")).expect("a test reads it"));

/// All roles, in the order they are told.
pub fn all() -> &'static [Role] {
    &RULES.roles
}

/// The role of a name.
pub fn role(name: &str) -> Result<&'static Role, UnknownRole> {
    let names = || all().iter().map(|role| role.name.as_str());
    all().iter().find(|role| role.name == name).ok_or_else(|| UnknownRole {
        asked: name.to_owned(),
        near: nearest(name, names()).map(str::to_owned),
        known: names().map(str::to_owned).collect(),
    })
}

fn condition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Condition, D::Error> {
    let words = String::deserialize(deserializer)?;
    Condition::read(&format!("[{words}]")).map_err(D::Error::custom)
}

fn choices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<String>>, D::Error> {
    let choices = Vec::<String>::deserialize(deserializer)?;
    Ok(choices.iter().map(|one| one.split('|').map(|symbol| symbol.trim().to_owned()).collect()).collect())
}

fn arch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arch>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn takes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Takes>, D::Error> {
    let read = |text: String| match text.strip_prefix(">=") {
        Some(version) => version.parse().map(Takes::From),
        None => text.parse::<Version>().map(|version| Takes::Series(version.series())),
    };
    Vec::<String>::deserialize(deserializer)?
        .into_iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_lists_and_every_list_a_role() {
        let mut unused: Vec<&str> = RULES.lists.iter().map(|list| list.name.as_str()).collect();
        for role in all() {
            assert_eq!(role.lists().count(), role.names.len(), "{}", role.name);
            unused.retain(|name| !role.names.iter().any(|used| used == name));
        }
        assert_eq!(unused, [""; 0]);
    }

    #[test]
    fn every_symbol_is_one_and_every_module_is_a_symbols() {
        let symbols: Vec<&String> =
            RULES.lists.iter().flat_map(|list| list.symbols.iter().flatten()).collect();
        let is_symbol =
            |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let wrong: Vec<_> =
            symbols.iter().filter(|symbol| !is_symbol(symbol) || symbol.starts_with("CONFIG_")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let idle: Vec<_> = RULES.modules.keys().filter(|symbol| !symbols.contains(symbol)).collect();
        assert!(idle.is_empty(), "{idle:?}");
    }

    #[test]
    fn an_unknown_role_is_told_with_the_nearest() {
        let error = role("kubeadmin").unwrap_err();
        assert_eq!(error.near.as_deref(), Some("kubeadm"));
        assert!(error.to_string().starts_with("unknown role `kubeadmin`; known are `firecracker`, "));
    }
}
