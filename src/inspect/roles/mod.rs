//! What a kernel is fit for: virtual machine monitors and roles, told from its configuration and its modules.
//!
//! `roles.toml` has the lists with their sources, `rules` reads them, `kernel` takes configurations out of images,
//! `judged` pairs kernels with their modules; here one configuration is held against one role.

pub mod judged;
pub mod kernel;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::arch::Arch;
use crate::document::list;
use crate::kernel::kconfig::Config;
use crate::kernel::kconfig::fragment::Value;
use crate::step::{Class, Diagnose};
use crate::version::Version;
pub use rules::{Level, List, Role, all, role};
use rules::{RULES, Takes};

/// The role whose kernels the Kubernetes version decides about too.
const KUBEADM: &str = "kubeadm";

/// No role of this name.
#[derive(Debug, thiserror::Error)]
#[error("unknown role `{asked}`; known are {}", list(.known.iter().map(String::as_str)))]
pub struct UnknownRole {
    /// What was asked for.
    pub asked: String,
    /// The nearest that there is.
    pub near: Option<String>,
    /// All that there are.
    pub known: Vec<String>,
}

impl Diagnose for UnknownRole {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(self.near.as_ref().map_or_else(
            || "`imgbuild list roles` tells what each is".into(),
            |near| format!("did you mean `{near}`?"),
        ))
    }
}

/// A kernel as far as its fitness goes.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'s> {
    /// Its resolved configuration.
    pub config: &'s Config,
    /// What it runs on.
    pub arch: Arch,
    /// Its version.
    pub version: &'s Version,
    /// The names of its modules, with `_` for `-`; none where nobody knows them.
    pub modules: Option<&'s BTreeSet<String>>,
    /// The Kubernetes version of the nodes, where it is known.
    pub kubernetes: Option<&'s Version>,
}

/// How what is lacking stands in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Built in.
    BuiltIn,
    /// A module, which is there or may be.
    Module,
    /// A module that the modules image does not have.
    NoModule,
    /// Off.
    Off,
}

/// A symbol that is lacking, or late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// The symbols, without `CONFIG_`, of which one would be enough.
    pub symbols: Vec<String>,
    /// How much they are needed.
    pub level: Level,
    /// How the best of them stands.
    pub state: State,
    /// What it would be for.
    pub purpose: &'static str,
    /// Who says so.
    pub source: &'static str,
}

impl Lack {
    /// The symbols without `CONFIG_`, for people.
    fn names(&self) -> String {
        self.symbols.join(" or ")
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.symbols.iter().map(|symbol| format!("CONFIG_{symbol}")).collect();
        let state = match self.state {
            State::BuiltIn => "=y",
            State::Module if self.level == Level::BuiltIn => "=m, which comes too late",
            State::Module => "=m",
            State::NoModule => "=m, but not in the modules image",
            State::Off => "off",
        };
        write!(f, "{} ({state})", names.join(" or "))
    }
}

/// What a kernel is for one role.
#[derive(Debug, Clone, Serialize)]
pub struct Fitness {
    /// The role.
    pub role: &'static str,
    /// The Kubernetes version that it was judged for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
    /// Whether it can be used.
    pub fit: bool,
    /// What must be there and is not, or is a module and would come too late.
    pub needs: Vec<Lack>,
    /// What is a module although it is wanted before the modules volume is mounted.
    pub late: Vec<Lack>,
    /// What is not there and need not be.
    pub optional: Vec<Lack>,
    /// Why the kernel's version is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
}

impl Fitness {
    /// The role, and the Kubernetes version where it matters: `kubeadm 1.34.1`.
    pub fn title(&self) -> String {
        self.kubernetes
            .as_ref()
            .map_or_else(|| self.role.into(), |version| format!("{} {version}", self.role))
    }

    /// The verdict in a line, with at most so many names of a kind.
    pub fn line(&self, most: usize) -> String {
        let some = |names: Vec<String>| {
            let more = names.len().saturating_sub(most);
            let shown = names.into_iter().take(most).collect::<Vec<_>>().join(", ");
            if more == 0 { shown } else { format!("{shown} and {more} more") }
        };
        if !self.fit {
            let needs = some(self.needs.iter().map(ToString::to_string).collect());
            let needs = (!needs.is_empty()).then(|| format!("needs {needs}"));
            let parts: Vec<_> = self.kernel.iter().cloned().chain(needs).collect();
            return format!("not fit: {}", parts.join("; "));
        }
        let names = |lacks: &[Lack]| some(lacks.iter().map(Lack::names).collect());
        let mut line = String::from("fit");
        if !self.late.is_empty() {
            line += &format!("; late: {}", names(&self.late));
        }
        if !self.optional.is_empty() {
            line += &format!("; {} optional missing: {}", self.optional.len(), names(&self.optional));
        }
        line
    }
}

/// Holds a kernel against a role.
pub fn judge(role: &'static Role, subject: &Subject<'_>) -> Fitness {
    let is_kubeadm = role.name == KUBEADM;
    let kubernetes = subject.kubernetes.filter(|_| is_kubeadm);
    let kernel = refused(role, kubernetes, subject);
    let mut fitness = Fitness {
        role: &role.name,
        kubernetes: kubernetes.map(ToString::to_string),
        fit: false,
        needs: Vec::new(),
        late: Vec::new(),
        optional: Vec::new(),
        kernel,
    };
    for list in role.lists() {
        // Which Kubernetes it will be is not known: it must be fit for any.
        let counts = subject.kubernetes.is_none_or(|version| list.kubernetes.holds(version, subject.arch));
        if !counts || !list.when.holds(subject.version, subject.arch) {
            continue;
        }
        for choice in &list.symbols {
            let state = choice.iter().map(|symbol| state(symbol, subject)).min().unwrap_or(State::Off);
            let lacks = match (list.level, state) {
                (_, State::BuiltIn) | (Level::Required | Level::Optional, State::Module) => continue,
                (Level::Early | Level::OptionalEarly, State::Module) => &mut fitness.late,
                (Level::Optional | Level::OptionalEarly, _) => &mut fitness.optional,
                (_, _) => &mut fitness.needs,
            };
            // Two lists may want the same.
            if !lacks.iter().any(|lack| lack.symbols == *choice) {
                let (purpose, source) = (list.purpose.as_str(), list.source.as_str());
                lacks.push(Lack { symbols: choice.clone(), level: list.level, state, purpose, source });
            }
        }
    }
    fitness.fit = fitness.needs.is_empty() && fitness.kernel.is_none();
    fitness
}

/// Why a role does not take kernels of this version.
fn refused(role: &Role, kubernetes: Option<&Version>, subject: &Subject<'_>) -> Option<String> {
    let version = subject.version;
    let told = |takes: &[Takes]| {
        let fits = takes.is_empty() || takes.iter().any(|takes| takes.takes(version));
        let taken = || takes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        (!fits).then(|| format!("takes Linux {}, not {version}", taken()))
    };
    let of_kubernetes = kubernetes.and_then(|kubernetes| {
        let row = RULES.kubeadm.iter().find(|row| row.kubernetes.holds(kubernetes, subject.arch));
        row.and_then(|row| told(&row.kernels))
    });
    told(&role.kernels).or(of_kubernetes)
}

fn state(symbol: &str, subject: &Subject<'_>) -> State {
    match (subject.config.get(symbol), subject.modules) {
        (Value::Yes, _) => State::BuiltIn,
        (Value::Module, None) => State::Module,
        (Value::Module, Some(modules)) => {
            let names = RULES.modules(symbol);
            let there = names.is_empty() || names.iter().any(|name| modules.contains(name));
            if there { State::Module } else { State::NoModule }
        }
        _ => State::Off,
    }
}
