//! `imgbuild lock`, and the versions that other commands take from outside the lock.

mod add;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure};
use crate::arch::Arch;
use crate::document::list;
use crate::fetch::kernel_org::{KernelOrg, PLACE};
use crate::fetch::mirror::Mirrors;
use crate::lock::trees::TreePin;
use crate::lock::{Lock, SourceList};
use crate::oci::compression::Compression;
use crate::oci::layer::Packing;
use crate::plan::lock::{Entry, Error, Series, admit, keyring, survey, survey_archive, tracked, write};
use crate::plan::{self, os, toolchain};
use crate::recipe::{Catalogue, ToolchainRecipe, catalogue};
use crate::rootfs::base::pin_name;
use crate::tree::drift;
use crate::version::Version;

/// Pin the newest inputs, verified by their signatures
///
/// For `kernel.org`: asks which releases of the series that the recipes track are the newest, verifies its signed list
/// of checksums and each new tarball's own signature with the keys in keys/, and adds what is new to the lock.
///
/// For an archive of the lock's [[sources]]: verifies its signed list of source packages and adds a newer kernel's.
///
/// For a toolchain or an OS recipe (`os/NAME`): pins the packages that its archive has now, each with version and sha256.
///
/// With --add, a version is verified, pinned, and put into the list of what a recipe releases: a kernel of kernel.org's,
/// or a Kubernetes version with the programs that go with it, by the hashes that their publishers give.
///
/// Every kernel pin is compared with what is signed; none is ever replaced or removed, and comments are kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild lock --check           # exit 3: something newer is out, 5: a pin is not what is signed
  imgbuild lock kernel.org --series 5.10
  imgbuild lock debian-12 --arch all     # accept the packages that the archive has now
  imgbuild lock os/ubuntu-20.04 --arch all
  imgbuild lock --add kernel 5.10.250    # pin it, and release it
  imgbuild lock --add k8s 1.24.17 --with containerd=1.6.36
  imgbuild lock --mirror kernel.org=DIRECTORY --mirror kernel.org-releases=DIRECTORY")]
pub(super) struct LockCommand {
    /// `kernel.org`, an archive of [[sources]], a toolchain, or os/RECIPE [default: all that have kernels]
    #[arg(value_name = "INPUT")]
    inputs: Vec<String>,
    /// Change nothing; fail if something newer exists or a pin is not what its place signs
    #[arg(long)]
    check: bool,
    /// Of kernel.org, look at this series alone; may be given more than once
    #[arg(long, value_name = "SERIES")]
    series: Vec<Version>,
    /// Of a toolchain or an OS recipe, the packages for machines of these architectures [default: the host's]
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// Pin and release this very version: `--add kernel 5.10.250`, `--add k8s 1.24.17`
    #[arg(long, num_args = 2, value_names = ["KIND", "VERSION"], conflicts_with_all = ["inputs", "check", "series"])]
    add: Vec<String>,
    /// With --add, the recipe that releases it [default: the default one]
    #[arg(long, value_name = "NAME", requires = "add")]
    recipe: Option<String>,
    /// With --add k8s, the version of a program (containerd, runc, cni-plugins, crictl), or the pause image
    /// [default: those of the nearest version]
    #[arg(long, value_name = "NAME[@ARCH]=VERSION", requires = "add")]
    with: Vec<String>,
}

/// What can be pinned.
enum Input {
    KernelOrg,
    Archive(SourceList),
    Toolchain(Box<ToolchainRecipe>),
    /// The packages of an OS recipe, by the recipe's name.
    System(String),
}

/// What the inputs came to.
#[derive(Default)]
struct Findings {
    /// Sentences for the user, a line each.
    text: String,
    /// What the lock is behind in.
    newer: Vec<String>,
    /// What is to be written, with a sentence for the user.
    entries: Vec<(Entry, String)>,
}

/// What all inputs are looked at with.
struct Desk<'a> {
    context: &'a Context,
    catalogue: &'a Catalogue,
    lock: &'a Lock,
    mirrors: &'a Mirrors,
}

impl LockCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let catalogue = &context.catalogue();
        let lock = &context.lock(catalogue)?;
        let mirrors = &context.mirrors(lock)?;
        let inputs = self.inputs(catalogue, lock)?;
        // Refused before hours of downloads, not after.
        let path = if self.check { None } else { Some(path(context, catalogue)?) };
        let desk = Desk { context, catalogue, lock, mirrors };
        if let (Some(path), [kind, version]) = (&path, &self.add[..]) {
            return self.add(kind, version, path, &desk);
        }
        let mut found = Findings::default();
        for input in inputs {
            match input {
                Input::KernelOrg => self.kernel_org(None, &desk, &mut found)?,
                Input::Archive(list) => archive(&list, &desk, &mut found)?,
                Input::Toolchain(recipe) => self.toolchain(&recipe, &desk, &mut found)?,
                Input::System(name) => self.system(&name, &desk, &mut found)?,
            }
        }
        let Findings { mut text, newer, entries } = found;
        let Some(path) = path else {
            context.print(&text)?;
            let lock = lock.name().to_owned();
            return if newer.is_empty() { Ok(()) } else { Err(Error::Behind { lock, newer }.into()) };
        };
        let (entries, told): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        if !entries.is_empty() {
            write(&path, &entries)?;
        }
        told.iter().for_each(|told| text += &format!("in `{}` now: {told}\n", path.display()));
        context.print(&text)
    }

    fn inputs(&self, catalogue: &Catalogue, lock: &Lock) -> Result<Vec<Input>, Failure> {
        let archives = || lock.sources().iter().cloned().map(Input::Archive);
        if !self.series.is_empty() && self.inputs.is_empty() {
            return Ok(vec![Input::KernelOrg]);
        }
        if self.inputs.is_empty() {
            return Ok([Input::KernelOrg].into_iter().chain(archives()).collect());
        }
        let toolchains = catalogue.toolchains().map_err(plan::Error::from)?;
        let systems = catalogue.systems()?;
        let input = |name: &String| {
            if name == PLACE {
                return Ok(Input::KernelOrg);
            }
            if let Some(list) = lock.sources().iter().find(|list| list.place == *name) {
                return Ok(Input::Archive(list.clone()));
            }
            if let Some(recipe) = toolchains.iter().find(|recipe| recipe.name == *name) {
                return Ok(Input::Toolchain(Box::new(recipe.clone())));
            }
            if let Some(system) = systems.iter().find(|system| pin_name(system) == *name) {
                return Ok(Input::System(system.clone()));
            }
            let pins: Vec<_> = systems.iter().map(|system| pin_name(system)).collect();
            let known: Vec<&str> = [PLACE]
                .into_iter()
                .chain(lock.sources().iter().map(|list| list.place.as_str()))
                .chain(toolchains.iter().map(|recipe| recipe.name.as_str()))
                .chain(pins.iter().map(String::as_str))
                .collect();
            let message = format!("`{name}` is nothing that can be pinned");
            Err(Failure::Usage { message, hint: format!("there are {}", list(known)) })
        };
        self.inputs.iter().map(input).collect()
    }

    /// Looks at kernel.org's releases: at one that is to be added, or at all that are tracked.
    fn kernel_org(
        &self,
        added: Option<&Version>,
        desk: &Desk<'_>,
        found: &mut Findings,
    ) -> Result<(), Failure> {
        let Desk { context, catalogue, lock, mirrors } = desk;
        let keyring = keyring(catalogue)?;
        let downloads = context.store()?.downloads();
        let upstream = KernelOrg::new(lock, mirrors, &keyring, &downloads, &context.watch);
        let wanted: Vec<Series> = if let Some(version) = added {
            if lock.kernel(version).is_ok_and(|pin| pin.version == *version) {
                found.text += &format!("{version} is pinned already\n");
                return Ok(());
            }
            let (name, newest) = (version.series(), version.clone());
            vec![Series { name, pinned: None, newest, is_maintained: true }]
        } else {
            let series = self.series(catalogue)?;
            let all_pins = self.series.is_empty();
            let (series, agreeing) = survey(&upstream, lock, &series, all_pins, &context.watch)?;
            series.iter().for_each(|series| found.text += &line(series));
            found.text += &agree(agreeing, PLACE);
            series.into_iter().filter(Series::is_behind).collect()
        };
        for series in &wanted {
            if self.check {
                found.newer.push(match &series.pinned {
                    Some(pinned) => format!("{} is out, pinned is {pinned}", series.newest),
                    None => format!("{} is out, nothing of {} is pinned", series.newest, series.name),
                });
            } else {
                let verified = upstream.verify(&series.newest).map_err(Error::from)?;
                let told = format!(
                    "{}: list signed by {}, tarball by {}",
                    verified.pin.version, verified.sums.owner, verified.tarball.owner
                );
                found.entries.push((Entry::from(&verified), told));
            }
        }
        Ok(())
    }

    /// Looks at the packages of a toolchain's trees.
    fn toolchain(
        &self,
        recipe: &ToolchainRecipe,
        desk: &Desk<'_>,
        found: &mut Findings,
    ) -> Result<(), Failure> {
        let Desk { context, lock, mirrors, .. } = desk;
        let store = context.store()?;
        let inputs = toolchain::Inputs { lock, mirrors, store: &store };
        for arch in plan::arches(&self.arch, &Arch::ALL)? {
            let tree = toolchain::tree_of(recipe, arch, lock, mirrors);
            let pin = toolchain::refresh(&tree, inputs, &context.watch)?;
            packages(&pin, tree.pin.as_ref(), found);
        }
        Ok(())
    }

    /// Looks at the packages of an OS recipe.
    fn system(&self, name: &str, desk: &Desk<'_>, found: &mut Findings) -> Result<(), Failure> {
        let Desk { context, catalogue, mirrors, .. } = desk;
        let store = context.store()?;
        let packing = Packing { compression: Compression::Gzip, threads: 1 };
        let (system, lock) = (os::System::Named(name.to_owned()), context.lock(catalogue)?);
        let plan = os::Plan::new(&system, &[], &self.arch, catalogue, lock, (*mirrors).clone(), packing)?;
        for arch in &plan.arches {
            let pin = plan.refresh(*arch, &store, &context.watch)?;
            packages(&pin, plan.base(*arch).pin.as_ref(), found);
        }
        Ok(())
    }

    fn series(&self, catalogue: &Catalogue) -> Result<BTreeSet<String>, Failure> {
        if self.series.is_empty() {
            return Ok(tracked(catalogue)?);
        }
        Ok(self.series.iter().map(Version::series).collect())
    }
}

/// Looks at an archive's kernel sources.
fn archive(list: &SourceList, desk: &Desk<'_>, found: &mut Findings) -> Result<(), Failure> {
    let offered = survey_archive(list, desk.lock, desk.mirrors, &desk.context.watch)?;
    let (place, newest) = (&list.place, &offered.newest.version);
    found.text += &match &offered.pinned {
        Some(pinned) if offered.is_newer() => format!("{place}: {newest} is new, pinned is {pinned}\n"),
        Some(_) => format!("{place}: {newest} is the newest\n"),
        None => format!("{place}: {newest} is new, nothing is pinned\n"),
    };
    for version in &offered.gone {
        found.text +=
            &format!("{place}: {version} is pinned, but no longer there: name a mirror that keeps it\n");
    }
    found.text += &agree(offered.agreeing, place);
    // One version has one pin: kernel.org's own tarball may be there already.
    let is_known = desk.lock.kernels().iter().any(|pin| pin.version == *newest);
    if offered.is_newer() && !is_known {
        found.newer.push(format!("{place} has {newest}"));
        let told = format!("{newest} of {place}: list signed by {}", offered.signer.owner);
        found.entries.push((Entry::from(&offered), told));
    }
    Ok(())
}

/// Tells how the packages that an archive has now differ from the pinned ones.
fn packages(pin: &TreePin, pinned: Option<&TreePin>, found: &mut Findings) {
    let (name, arch, count) = (&pin.name, pin.arch, pin.packages.len());
    let moved = pinned.map(|pinned| drift(&pinned.packages, &pin.packages));
    let verdict = match &moved {
        None => "none is pinned".to_owned(),
        Some(moved) if moved.is_empty() => "all as pinned".into(),
        Some(moved) => format!("{} moved", moved.len()),
    };
    found.text += &format!("{name} on {arch}: {count} packages, {verdict}\n");
    moved.iter().flatten().for_each(|moved| found.text += &format!("  {moved}\n"));
    if moved.is_none_or(|moved| !moved.is_empty()) {
        found.newer.push(format!("the packages of {name} on {arch}: {verdict}"));
        found.entries.push((Entry::Tree(pin.clone()), format!("the {count} packages of {name} on {arch}")));
    }
}

fn agree(pins: usize, place: &str) -> String {
    let pins = if pins == 1 { "1 pin is".to_owned() } else { format!("{pins} pins are") };
    format!("{pins} what {place} signs\n")
}

/// The file that is to be changed.
fn path(context: &Context, found: &Catalogue) -> Result<PathBuf, Failure> {
    match (&context.global.lock, found) {
        (Some(path), _) => Ok(path.clone()),
        (None, Catalogue::Directory(dir)) => Ok(dir.join(catalogue::LOCK)),
        (None, _) => Err(Error::Builtin(found.name(catalogue::LOCK)).into()),
    }
}

fn line(series: &Series) -> String {
    let Series { name, pinned, newest, is_maintained } = series;
    let end = if *is_maintained { "" } else { " (no longer maintained)" };
    match pinned {
        Some(pinned) if series.is_behind() => format!("{name}: {newest} is new, pinned is {pinned}{end}\n"),
        Some(pinned) => format!("{name}: {pinned} is the newest{end}\n"),
        None => format!("{name}: {newest} is new, nothing is pinned{end}\n"),
    }
}

impl Context {
    /// Takes the versions that the lock does not pin into it, verified, unless `locked` forbids that.
    pub(super) fn admit(
        &self,
        mut lock: Lock,
        versions: &[Version],
        catalogue: &Catalogue,
        mirrors: &Mirrors,
        locked: bool,
    ) -> Result<Lock, Failure> {
        if !locked && versions.iter().any(|version| lock.kernel(version).is_err()) {
            admit(&mut lock, versions, catalogue, mirrors, &self.store()?, &self.watch)?;
        }
        Ok(lock)
    }
}
