//! The command line: what is asked for, what is told, and how it ends. The only room that prints.

mod attest;
mod boot;
mod cache;
mod config;
mod copy;
mod diff;
mod digests;
mod doctor;
mod export;
mod fetch;
mod gate;
mod index;
mod inspect;
mod kernel;
mod list;
mod lock;
mod login;
mod os;
mod output;
mod place;
mod plan;
mod progress;
mod pull;
mod push;
mod release;
mod remote;
mod settings;
mod sign;
mod spec;
mod tree;
mod validate;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::fetch::mirror::Mirrors;
use crate::lock::{self as lock_room, Lock};
use crate::oci;
use crate::recipe::{Catalogue, catalogue};
use crate::step::{Cancel, Class, Diagnose, Level, Watch};
use crate::store::Store;
use progress::Printer;
use settings::Settings;

/// Builds reproducible OCI images for microVMs from declarative recipes.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done, 1 the host (disk, permissions), 2 usage, 3 recipe, 4 input or tool missing,
5 verification, 6 build, 7 registry, 8 boot, 9 not reproducible, 130 interrupted."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Say more: overridden symbols, reasons for absent ones, kconfig's warnings
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// The cache of downloads, artifacts and logs [default: ~/.cache/imgbuild]
    #[arg(long, global = true, value_name = "DIR", env = "IMGBUILD_STORE", hide_env_values = true)]
    store: Option<PathBuf>,
    /// A directory with recipes/, kconfigs/ and keys/ [default: the current one if it has them, else the built-in set]
    #[arg(long, global = true, value_name = "DIR", env = "IMGBUILD_CATALOGUE", hide_env_values = true)]
    catalogue: Option<PathBuf>,
    /// The lock with the pinned inputs [default: recipes/imgbuild.lock of the catalogue]
    #[arg(long, global = true, value_name = "PATH")]
    lock: Option<PathBuf>,
    /// Take a place's files from somewhere else, with the same hashes: PLACE=URL or PLACE=DIRECTORY
    #[arg(long, global = true, value_name = "PLACE=BASE")]
    mirror: Vec<String>,
    /// Hold a place's archive to the keys in this file, such as those of a mirror of your own
    #[arg(long, global = true, value_name = "PLACE=FILE")]
    keyring: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a kernel and its modules as two multi-architecture images
    Kernel(kernel::Kernel),
    /// Build a root volume: an Ubuntu or Debian system, as a Kubernetes node or without
    Os(os::Os),
    /// Tell the steps of a build, what is cached, and why the rest is not; with --all, what is released
    Plan(plan::PlanCommand),
    /// Resolve and check a kernel configuration, without compiling
    Config(config::Config),
    /// Download and verify kernel sources, for building offline later
    Fetch(fetch::Fetch),
    /// Make toolchains' root trees, for building offline later
    Tree(tree::Tree),
    List(list::List),
    // Its help has two lengths, both with the arguments.
    Lock(lock::LockCommand),
    Release(release::Release),
    Boot(boot::Boot),
    /// Tell what images hold: platforms, layers, labels, files
    Inspect(inspect::Inspect),
    Validate(validate::Validate),
    Diff(diff::Diff),
    Export(export::ExportCommand),
    Spec(spec::Spec),
    /// Push images of a layout to a registry
    Push(push::Push),
    /// Pull an image from a registry into a layout, every digest checked
    Pull(pull::Pull),
    /// Copy an image from one registry to another, or within one
    Copy(copy::Copy),
    /// Join images that were pushed by digest into one multi-architecture image
    Index(index::Index),
    Sbom(attest::SbomCommand),
    Provenance(attest::ProvenanceCommand),
    Sign(sign::SignCommand),
    Verify(verify::VerifyCommand),
    /// Check a password at a registry and keep it where docker does
    Login(login::Login),
    /// Build images and compare them with the recorded digests, or record them
    Digests(digests::DigestsCommand),
    /// Look at the store, clean it up, check it
    Cache(cache::Cache),
    /// Say what this host lacks, and the one command that brings it
    Doctor(doctor::Doctor),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Plan(#[from] crate::plan::Error),
    #[error(transparent)]
    Boot(#[from] crate::plan::boot::Error),
    #[error(transparent)]
    Gate(#[from] crate::plan::gate::Error),
    #[error(transparent)]
    Lock(#[from] crate::plan::lock::Error),
    #[error(transparent)]
    Add(#[from] crate::plan::add::Error),
    #[error(transparent)]
    Release(#[from] crate::plan::release::Error),
    #[error("{name}: {error}")]
    Cell { name: String, error: Box<Failure> },
    #[error("{} of {} not released: {}", failed.len(), counted(*.total, what), crate::document::list(.failed.iter().map(String::as_str)))]
    Unreleased { what: &'static str, failed: Vec<String>, total: usize, class: crate::step::Class },
    #[error(transparent)]
    Inspect(#[from] crate::inspect::Error),
    #[error(transparent)]
    Export(#[from] crate::export::Error),
    #[error(transparent)]
    Attest(#[from] crate::plan::attest::Error),
    #[error(transparent)]
    Sign(#[from] crate::plan::sign::Error),
    #[error(transparent)]
    Verify(#[from] crate::plan::verify::Error),
    #[error("`{reference}` is not what is claimed of it: {}", counted(*.count, "failed check"))]
    Unverified { reference: String, count: usize },
    #[error("`{reference}` comes out otherwise when it is built again")]
    NotRebuilt { reference: String },
    #[error("`{place}` is not sound: {}", counted(*.count, "finding"))]
    Unsound { place: String, count: usize },
    #[error("`{place}` is not fit for {wanted}")]
    Unfit { place: String, wanted: String, lines: Vec<String> },
    #[error(transparent)]
    Role(#[from] crate::inspect::roles::UnknownRole),
    #[error("`{a}` and `{b}` are not the same: {}", counted(*.count, "difference"))]
    Differ { a: String, b: String, count: usize },
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    #[error(transparent)]
    Handoff(#[from] crate::plan::handoff::Error),
    #[error("{message}")]
    Usage { message: String, hint: String },
    #[error("{}", if *count == 1 { "1 entry was damaged and is dropped".into() } else { format!("{count} entries were damaged and are dropped") })]
    Damaged { count: usize },
    #[error(transparent)]
    Settings(#[from] crate::document::Mistakes),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// "1 finding", "2 findings".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What comes to the command line by way of the plan's errors.
macro_rules! by_way_of_plan {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Plan(error.into())
            }
        })*
    };
}

impl From<crate::sign::Error> for Failure {
    fn from(error: crate::sign::Error) -> Self {
        Self::Sign(error.into())
    }
}

by_way_of_plan!(oci::Error, crate::store::Error, crate::host::Missing, lock_room::Error);

impl Failure {
    fn inner(&self) -> Option<&dyn Diagnose> {
        match self {
            Self::Plan(error) => Some(error),
            Self::Boot(error) => Some(error),
            Self::Gate(error) => Some(error),
            Self::Lock(error) => Some(error),
            Self::Add(error) => Some(error),
            Self::Release(error) => Some(error),
            Self::Cell { error, .. } => Some(&**error),
            Self::Inspect(error) => Some(error),
            Self::Export(error) => Some(error),
            Self::Attest(error) => Some(error),
            Self::Sign(error) => Some(error),
            Self::Verify(error) => Some(error),
            Self::Registry(error) => Some(error),
            Self::Handoff(error) => Some(error),
            Self::Settings(error) => Some(error),
            Self::Role(error) => Some(error),
            Self::Usage { .. }
            | Self::Damaged { .. }
            | Self::Unsound { .. }
            | Self::Unfit { .. }
            | Self::Differ { .. }
            | Self::Unverified { .. }
            | Self::NotRebuilt { .. }
            | Self::Unreleased { .. }
            | Self::Io(_) => None,
        }
    }
}

impl Diagnose for Failure {
    fn class(&self) -> Class {
        match (self.inner(), self) {
            (Some(error), _) => error.class(),
            (None, Self::Io(_)) => Class::Host,
            (
                None,
                Self::Damaged { .. } | Self::Unsound { .. } | Self::Unfit { .. } | Self::Unverified { .. },
            ) => Class::Verification,
            (None, Self::Differ { .. } | Self::NotRebuilt { .. }) => Class::NotReproducible,
            (None, Self::Unreleased { class, .. }) => *class,
            (None, _) => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match (self.inner(), self) {
            (Some(error), _) => error.hint(),
            (None, Self::Usage { hint, .. }) => Some(hint.clone()),
            (None, Self::Io(error)) => crate::step::io_hint(error),
            (None, Self::Unreleased { what: "image", .. }) => Some(
                "`imgbuild release` builds what is missing, and the same command joins it; the other images are joined".into(),
            ),
            (None, Self::Unverified { .. }) => Some("do not use it before you know why".into()),
            (None, Self::NotRebuilt { .. }) => Some(
                "`imgbuild provenance` tells which imgbuild built it: another version may come out otherwise"
                    .into(),
            ),
            (None, Self::Unreleased { .. }) => {
                Some("the same command goes on with what failed: everything else is published".into())
            }
            (None, Self::Damaged { .. }) => Some(
                "they are made or fetched again when they are needed; a disk that does this twice is failing"
                    .into(),
            ),
            (None, Self::Unfit { .. }) => {
                Some("ask for the symbols in a fragment of the kernel's recipe; `imgbuild validate -v` tells what each is for".into())
            }
            (None, _) => None,
        }
    }

    fn detail(&self) -> Option<String> {
        if let Self::Unfit { lines, .. } = self {
            return Some(lines.join("\n"));
        }
        self.inner().and_then(Diagnose::detail)
    }
}

/// What every command is given.
struct Context {
    global: Global,
    settings: Settings,
    watch: Watch,
    printer: Arc<Printer>,
}

/// The two halves of `PLACE=VALUE`.
fn named(argument: &str) -> Option<(&str, &str)> {
    argument.split_once('=').filter(|(_, value)| !value.is_empty())
}

impl Context {
    fn store(&self) -> Result<Store, Failure> {
        let root = match self.global.store.as_ref().or(self.settings.store.as_ref()) {
            Some(root) => root.clone(),
            None => Store::default_root()?,
        };
        Ok(Store::open(&root)?)
    }

    fn catalogue(&self) -> Catalogue {
        let catalogue = Catalogue::find(self.global.catalogue.clone());
        self.watch.reporter.note(Level::Detail, &format!("recipes from `{}`", catalogue.name("recipes")));
        catalogue
    }

    fn lock(&self, catalogue: &Catalogue) -> Result<Lock, Failure> {
        let (name, text) = match &self.global.lock {
            Some(path) => (path.display().to_string(), fs_err::read_to_string(path)),
            None => (catalogue.name(catalogue::LOCK), catalogue.read(catalogue::LOCK)),
        };
        let text = text.map_err(|error| Failure::Usage {
            message: error.to_string(),
            hint: "--lock names a file; --catalogue a directory that has recipes/imgbuild.lock".into(),
        })?;
        Ok(Lock::parse(&name, &text).map_err(lock_room::Error::from)?)
    }

    /// The mirrors named on the command line, in the environment and in the settings, strongest first.
    fn mirrors(&self, lock: &Lock) -> Result<Mirrors, Failure> {
        let mut mirrors = Mirrors::default();
        let known = || crate::document::list(lock.places());
        for argument in &self.global.mirror {
            let (place, base) = named(argument).ok_or_else(|| Failure::Usage {
                message: format!("`--mirror {argument}` names no place and base"),
                hint: "write it as `--mirror kernel.org=URL` or `=DIRECTORY`".into(),
            })?;
            mirrors.add(place, base);
        }
        for argument in &self.global.keyring {
            let (place, file) = named(argument).ok_or_else(|| Failure::Usage {
                message: format!("`--keyring {argument}` names no place and file"),
                hint: "write it as `--keyring ubuntu=FILE`".into(),
            })?;
            mirrors.trust(place, &std::path::absolute(file)?.display().to_string());
        }
        for place in lock.places() {
            if let Ok(base) = std::env::var(Mirrors::variable(place))
                && !base.is_empty()
            {
                mirrors.add(place, &base);
            }
        }
        for (place, base) in &self.settings.mirrors {
            mirrors.add(place, base);
        }
        let unknown = mirrors.places().find(|place| lock.place(place).is_none());
        if let Some(place) = unknown {
            let message =
                format!("a mirror or a keyring is named for `{place}`, which is no place of the lock");
            return Err(Failure::Usage { message, hint: format!("the places are {}", known()) });
        }
        Ok(mirrors)
    }

    /// Prints a result on standard output.
    fn print(&self, text: &str) -> Result<(), Failure> {
        self.printer.clear();
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // Whoever reads us has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }

    fn print_json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        self.print(&(serde_json::to_string_pretty(value).map_err(std::io::Error::from)? + "\n"))
    }
}

/// Parses the arguments, runs the command, prints how it failed if it did.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let printer = Arc::new(Printer::new(cli.global.verbose, cli.global.quiet));
    let cancel = Cancel::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // Without the handler a signal ends us at once: nothing half-made is visible then either.
        let _ = signal_hook::flag::register(signal, cancel.flag());
    }
    let watch = Watch { reporter: printer.clone(), cancel };
    let result = Settings::load().and_then(|settings| {
        let context = Context { global: cli.global, settings, watch, printer: printer.clone() };
        match cli.command {
            Command::Kernel(command) => command.run(&context),
            Command::Os(command) => command.run(&context),
            Command::Plan(command) => command.run(&context),
            Command::Config(command) => command.run(&context),
            Command::Fetch(command) => command.run(&context),
            Command::Tree(command) => command.run(&context),
            Command::List(command) => command.run(&context),
            Command::Lock(command) => command.run(&context),
            Command::Release(command) => command.run(&context),
            Command::Boot(command) => command.run(&context),
            Command::Inspect(command) => command.run(&context),
            Command::Validate(command) => command.run(&context),
            Command::Diff(command) => command.run(&context),
            Command::Export(command) => command.run(&context),
            Command::Spec(command) => command.run(&context),
            Command::Push(command) => command.run(&context),
            Command::Pull(command) => command.run(&context),
            Command::Copy(command) => command.run(&context),
            Command::Index(command) => command.run(&context),
            Command::Sbom(command) => command.run(&context),
            Command::Provenance(command) => command.run(&context),
            Command::Sign(command) => command.run(&context),
            Command::Verify(command) => command.run(&context),
            Command::Login(command) => command.run(&context),
            Command::Digests(command) => command.run(&context),
            Command::Cache(command) => command.run(&context),
            Command::Doctor(command) => command.run(&context),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            printer.failure(&failure);
            ExitCode::from(failure.class().code())
        }
    }
}
