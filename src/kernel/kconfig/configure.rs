//! Has the kernel's own kconfig resolve what was asked for, then checks what came of it, before anything is compiled.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use fs_err as fs;

use super::absences::absences;
use super::check::{check, notes};
use super::config::Config;
use super::fragment::Mistake;
use super::leaks::{Leak, leaks};
use super::miss::Miss;
use super::requested::Requested;
use super::tree::Tree;
use crate::arch::Arch;
use crate::sandbox::{self, Command, Sandbox};
use crate::step::{Cancel, Class, Diagnose};
use crate::version::Version;

/// The configuring of one kernel.
pub struct Configure<'a> {
    /// The unpacked kernel tree; nothing is written to it.
    pub source: &'a Path,
    /// The build directory (`O=`), which gets the `.config`.
    pub build: &'a Path,
    /// The target that decides about all that is not asked for; only `all*config` heed the requests.
    pub base: &'a str,
    /// What the fragments ask for.
    pub requested: &'a Requested,
    /// Where make and its compilers run.
    pub sandbox: &'a Sandbox,
    /// Where the output of make is appended.
    pub log: &'a Path,
    /// Whether to stop.
    pub cancel: &'a Cancel,
}

/// A configuration that is all that was asked for.
#[derive(Debug)]
pub struct Configured {
    /// The resolved configuration.
    pub config: Config,
    /// The text of the `.config`.
    pub text: String,
    /// What is off here, on in `alldefconfig` with the same requests, and for a user to decide; sorted.
    pub absences: Vec<String>,
    /// What kconfig warned about, and symbols asked off that this kernel does not have.
    pub notes: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Lines of fragments that cannot be read.
    #[error("{} in the kernel fragments", count(.0.len(), "mistake"))]
    Fragments(Vec<Mistake>),
    /// The kernel made something else of the requests, or something that cannot be reproduced.
    #[error(
        "the configuration of Linux {version} for {arch} does not come out as asked: {}, {}",
        count(misses.len(), "miss"),
        count(leaks.len(), "reproducibility leak")
    )]
    Refused {
        /// The kernel.
        version: Version,
        /// Its architecture.
        arch: Arch,
        /// The requests that were not met.
        misses: Vec<Miss>,
        /// The values that cannot be reproduced.
        leaks: Vec<Leak>,
    },
    /// The kernel tree's Kconfig files cannot be read.
    #[error("the kernel tree cannot be configured: {0}")]
    Tree(io::Error),
    /// `make` failed.
    #[error(transparent)]
    Make(#[from] sandbox::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Fragments(_) | Self::Refused { .. } => Class::Recipe,
            Self::Tree(_) => Class::Input,
            Self::Make(error) => error.class(),
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Fragments(_) => "correct the lines named above".into(),
            Self::Refused { misses, .. } if misses.is_empty() => {
                "change the lines named above, or add the cure to a fragment of the recipe".into()
            }
            Self::Refused { .. } => {
                "ask for what is missing too, drop the line, or limit it: `# [>=5.4, x86_64]`, `# [if-known]`"
                    .into()
            }
            Self::Make(error) => return error.hint(),
            Self::Tree(_) | Self::Io(_) => return None,
        })
    }

    fn detail(&self) -> Option<String> {
        let lines: Vec<_> = match self {
            Self::Fragments(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
            Self::Refused { misses, leaks, .. } => {
                misses.iter().map(ToString::to_string).chain(leaks.iter().map(ToString::to_string)).collect()
            }
            Self::Make(error) => return error.detail(),
            Self::Tree(_) | Self::Io(_) => return None,
        };
        Some(lines.join("\n"))
    }
}

fn count(number: usize, what: &str) -> String {
    match (number, what) {
        (1, what) => format!("1 {what}"),
        (_, "miss") => format!("{number} misses"),
        (_, what) => format!("{number} {what}s"),
    }
}

/// `make` as it is called on a kernel tree: configuring and compiling must agree on every argument, since kconfig
/// asks the compiler what it can do.
pub fn make(sandbox: &Sandbox, source: &Path, build: &Path, arch: Arch) -> io::Result<Command> {
    // make reads a relative O= from within the source.
    let mut output = OsString::from("O=");
    output.push(sandbox.path(&std::path::absolute(build)?));
    let compilers = sandbox
        .sets("CCACHE_DIR")
        .then(|| [format!("CC=ccache {}gcc", arch.cross_compile()), "HOSTCC=ccache gcc".into()]);
    Ok(sandbox
        .command("make")
        .arg("-C")
        .arg(sandbox.path(&std::path::absolute(source)?))
        .arg(output)
        .args(compilers.into_iter().flatten())
        .args([format!("ARCH={arch}"), format!("CROSS_COMPILE={}", arch.cross_compile()), "WERROR=0".into()])
        // Set, though empty, it keeps the kernel from looking for a git checkout.
        .env("LOCALVERSION", ""))
}

impl Configure<'_> {
    /// Configures. All that is wrong with the requests comes at once.
    pub fn run(&self) -> Result<Configured, Error> {
        let Requested { version, arch, .. } = self.requested;
        let tree = Tree::read(self.source, *arch).map_err(Error::Tree)?;
        fs::create_dir_all(self.build)?;
        let text = self.requested.text(|symbol| tree.symbol(symbol).is_some());
        fs::write(self.build.join("requested.config"), text)?;

        let begun = fs::read(self.log).map_or(0, |log| log.len());
        let (config, text) = self.resolve(self.base, ".config")?;
        let (misses, leaks) = (check(self.requested, &config, &tree), leaks(&config, self.requested));
        if !misses.is_empty() || !leaks.is_empty() {
            return Err(Error::Refused { version: version.clone(), arch: *arch, misses, leaks });
        }
        let log = fs::read(self.log)?;
        let mut notes = notes(self.requested, &tree);
        notes.extend(warnings(&String::from_utf8_lossy(&log[begun.min(log.len())..])));
        // In the same directory, as kconfig's own program is compiled there; `.config` stays.
        let (by_default, _) = self.resolve("alldefconfig", "alldef.config")?;
        Ok(Configured { absences: absences(&config, &by_default, &tree), config, text, notes })
    }

    fn resolve(&self, target: &str, file: &str) -> Result<(Config, String), Error> {
        make(self.sandbox, self.source, self.build, self.requested.arch)?
            .arg(target)
            .env("KCONFIG_ALLCONFIG", "requested.config")
            .env("KCONFIG_CONFIG", file)
            .log(self.log)
            .output(self.cancel)?;
        let text = fs::read_to_string(self.build.join(file))?;
        Ok((Config::parse(&text), text))
    }
}

/// What kconfig warned about: it goes on all the same, as when a symbol is selected whose dependencies do not hold.
fn warnings(log: &str) -> Vec<String> {
    let mut warnings = Vec::<String>::new();
    let mut unmet = false;
    for line in log.lines() {
        if line.starts_with("WARNING: ") || line.contains(":warning: ") {
            unmet = line.starts_with("WARNING: ");
            warnings.push(format!("kconfig: {}", line.trim_start_matches("WARNING: ")));
        } else if unmet && line.starts_with("  ") {
            warnings.last_mut().into_iter().for_each(|last| last.extend(["; ", line.trim()]));
        } else {
            unmet = false;
        }
    }
    warnings.sort();
    warnings.dedup();
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::fragment::parse;
    use super::*;

    /// Stands in for a kernel tree: its kconfig refuses B, and turns SWAP on by default.
    const MAKEFILE: &str = "\
allnoconfig:
	@echo 'requested.config:1:warning: override: A changes choice state' >&2
	grep -v CONFIG_B $(O)/$(KCONFIG_ALLCONFIG) > $(O)/$(KCONFIG_CONFIG)
alldefconfig:
	(cat $(O)/$(KCONFIG_ALLCONFIG); echo CONFIG_SWAP=y) > $(O)/$(KCONFIG_CONFIG)
";
    const KCONFIG: &str = "config A\n\tbool \"a\"\nconfig B\n\tbool \"b\"\n\tdepends on C\nconfig C\n\tbool \"c\"\n\
                           config IKHEADERS\n\tbool \"headers\"\nconfig SWAP\n\tbool \"swap\"\n";

    fn configured(base: &str, fragment: &str) -> Result<Configured, Error> {
        let dir = tempfile::tempdir().unwrap();
        let [source, build, log] = ["source", "build", "log"].map(|name| dir.path().join(name));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("Makefile"), MAKEFILE).unwrap();
        fs::write(source.join("Kconfig"), KCONFIG).unwrap();
        let requests = parse("f", fragment).unwrap();
        let requested = Requested::merge(requests, &"5.10.262".parse().unwrap(), Arch::X86_64);
        let cancel = Cancel::default();
        let sandbox = &Sandbox::host();
        let requested = &requested;
        Configure { source: &source, build: &build, base, requested, sandbox, log: &log, cancel: &cancel }
            .run()
    }

    #[test]
    fn what_is_met_comes_back_with_its_absences_and_notes() {
        let done = configured(
            "allnoconfig",
            "CONFIG_A=y\nCONFIG_NEW=y # [if-known]\n# CONFIG_OTHERWISE is not set\n",
        )
        .unwrap();
        assert_eq!(done.text, "CONFIG_A=y\n# CONFIG_OTHERWISE is not set\n");
        assert_eq!(done.absences, ["SWAP"]);
        assert_eq!(
            done.notes,
            [
                "f:3: CONFIG_OTHERWISE: no such symbol in Linux 5.10.262",
                "kconfig: requested.config:1:warning: override: A changes choice state",
            ]
        );
    }

    #[test]
    fn misses_and_leaks_are_told_together() {
        let error = configured("allnoconfig", "CONFIG_B=y\nCONFIG_IKHEADERS=y\n").unwrap_err();
        let sentence = "the configuration of Linux 5.10.262 for x86_64 does not come out as asked: 1 miss, 1 reproducibility leak";
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.class(), Class::Recipe);
        let detail = error.detail().unwrap();
        let (miss, leak) = detail.split_once('\n').unwrap();
        assert_eq!(miss, "f:1: CONFIG_B: asked for =y, got off: needs C (off)");
        assert!(leak.starts_with("f:2: CONFIG_IKHEADERS=y is not reproducible: "), "{leak}");
    }

    #[test]
    fn a_failing_make_is_a_failed_build() {
        let error = configured("no-such-target", "CONFIG_A=y\n").unwrap_err();
        assert_eq!(error.class(), Class::Build);
        assert!(error.detail().unwrap().contains("no-such-target"));
    }

    #[test]
    fn warnings_are_gathered_each_once() {
        let log = "  HOSTCC x\nrequested.config:1:warning: a\n\nWARNING: unmet direct dependencies detected for X\n  \
                   Depends on [n]: NET [=n]\n  Selected by [y]:\n  - Y [=y]\n\n  HOSTLD y\nrequested.config:1:warning: a\n";
        let unmet = "kconfig: unmet direct dependencies detected for X; Depends on [n]: NET [=n]; Selected by [y]:; - Y [=y]";
        assert_eq!(warnings(log), ["kconfig: requested.config:1:warning: a", unmet]);
    }
}
