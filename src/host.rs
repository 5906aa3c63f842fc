//! The programs of this host that imgbuild starts, and the Debian packages that bring them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use crate::sandbox;
use crate::step::{Class, Diagnose};

/// A program that some work needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tool {
    /// Name on `PATH`, or an absolute path of a file (a header) that must exist.
    pub program: Cow<'static, str>,
    /// Debian and Ubuntu package that brings it.
    pub package: Cow<'static, str>,
    /// What it is needed for, in a few words.
    pub why: &'static str,
}

impl Tool {
    /// A program, the package that brings it, and what it is needed for.
    pub fn new(
        program: impl Into<Cow<'static, str>>,
        package: impl Into<Cow<'static, str>>,
        why: &'static str,
    ) -> Self {
        Self { program: program.into(), package: package.into(), why }
    }

    /// Whether this host has it.
    pub fn is_present(&self) -> bool {
        if self.program.starts_with('/') {
            fs_err::metadata(&*self.program).is_ok()
        } else {
            sandbox::find(&self.program).is_some()
        }
    }
}

/// What this host lacks of what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing(Vec<Tool>);

impl Missing {
    /// That this tool is not here.
    pub fn of(tool: Tool) -> Self {
        Self(vec![tool])
    }

    /// The tools that are not here.
    pub fn tools(&self) -> &[Tool] {
        &self.0
    }

    /// The packages that bring them, sorted.
    pub fn packages(&self) -> Vec<&str> {
        let packages: BTreeSet<_> = self.0.iter().map(|tool| &*tool.package).collect();
        packages.into_iter().collect()
    }

    /// The one command that brings them all.
    pub fn command(&self) -> String {
        let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
        format!("{sudo}apt-get install --no-install-recommends {}", self.packages().join(" "))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|tool| format!("`{}` ({})", tool.program, tool.why)).collect();
        write!(f, "this host lacks {}", names.join(", "))
    }
}

impl std::error::Error for Missing {}

impl Diagnose for Missing {
    fn class(&self) -> Class {
        Class::Input
    }

    fn hint(&self) -> Option<String> {
        Some(format!("on Debian and Ubuntu: `{}`", self.command()))
    }
}

/// Fails with everything of `tools` that is not here.
pub fn require(tools: &[Tool]) -> Result<(), Missing> {
    let mut missing: Vec<Tool> = tools.iter().filter(|tool| !tool.is_present()).cloned().collect();
    missing.sort_unstable();
    missing.dedup_by(|a, b| a.program == b.program);
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

/// The file of a keyring: a name below `/usr/share/keyrings`, or a path as it is.
pub fn keyring_path(keyring: &str) -> String {
    if keyring.contains('/') { keyring.to_owned() } else { format!("/usr/share/keyrings/{keyring}.gpg") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_once_with_one_command() {
        let tool = |program: &'static str, package: &'static str| Tool::new(program, package, "a test");
        let tools =
            [tool("sh", "dash"), tool("no-b", "pack-b"), tool("no-a", "pack-a"), tool("no-a", "pack-a")];
        let missing = require(&tools).unwrap_err();
        assert_eq!(missing.to_string(), "this host lacks `no-a` (a test), `no-b` (a test)");
        assert!(missing.command().ends_with("apt-get install --no-install-recommends pack-a pack-b"));
        assert_eq!(require(&tools[..1]), Ok(()));
    }
}
