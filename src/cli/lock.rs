//! `imgbuild lock`, and the versions that other commands take from outside the lock.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::{Context, Failure};
use crate::fetch::kernel_org::KernelOrg;
use crate::fetch::mirror::Mirrors;
use crate::lock::Lock;
use crate::plan::lock::{Error, Series, admit, keyring, survey, tracked, write};
use crate::recipe::{Catalogue, catalogue};
use crate::version::Version;

/// Pin the newest release of each series, verified by its maintainers' signatures
///
/// Asks kernel.org which releases of the series that the recipes track are the newest, verifies its signed list of
/// checksums and each new tarball's own signature with the keys in keys/, and adds what is new to the lock, comments
/// kept. Every kernel.org pin is compared with what is signed; none is ever replaced or removed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild lock --check           # exit 3: something newer is out, 5: a pin is not what is signed
  imgbuild lock --series 5.10
  imgbuild lock --add kernel 5.10.250
  imgbuild lock --mirror kernel.org=DIRECTORY --mirror kernel.org-releases=DIRECTORY")]
pub(super) struct LockCommand {
    /// Change nothing; fail if something newer exists or a pin is not what kernel.org signs
    #[arg(long)]
    check: bool,
    /// Look at this series alone; may be given more than once
    #[arg(long, value_name = "SERIES")]
    series: Vec<Version>,
    /// Pin this very version instead of the newest ones: `--add kernel 5.10.250`
    #[arg(long, num_args = 2, value_names = ["KIND", "VERSION"], conflicts_with_all = ["check", "series"])]
    add: Vec<String>,
}

impl LockCommand {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let catalogue = context.catalogue();
        let lock = context.lock(&catalogue)?;
        let mirrors = context.mirrors(&lock)?;
        let keyring = keyring(&catalogue)?;
        let downloads = context.store()?.downloads();
        let upstream = KernelOrg::new(&lock, &mirrors, &keyring, &downloads, &context.watch);
        // Refused before hours of downloads, not after.
        let path = if self.check { None } else { Some(path(context, &catalogue)?) };
        let (mut text, mut wanted) = (String::new(), Vec::new());
        if self.add.is_empty() {
            let series = self.series(&catalogue)?;
            let all_pins = self.series.is_empty();
            let (found, agreeing) = survey(&upstream, &lock, &series, all_pins, &context.watch)?;
            found.iter().for_each(|series| text += &line(series));
            let pins = if agreeing == 1 { "1 pin is".to_owned() } else { format!("{agreeing} pins are") };
            text += &format!("{pins} what kernel.org signs\n");
            wanted.extend(found.into_iter().filter(Series::is_behind));
        } else {
            let version = self.added()?;
            if lock.kernel(&version).is_ok_and(|pin| pin.version == version) {
                return context.print(&format!("{version} is pinned already\n"));
            }
            let name = version.series();
            wanted.push(Series { name, pinned: None, newest: version, is_maintained: true });
        }
        if let Some(path) = path {
            let verify = |series: &Series| upstream.verify(&series.newest);
            let added = wanted.iter().map(verify).collect::<Result<Vec<_>, _>>().map_err(Error::from)?;
            if !added.is_empty() {
                write(&path, &added)?;
            }
            for verified in &added {
                text += &format!(
                    "added {} to `{}`: list signed by {}, tarball by {}\n",
                    verified.pin.version,
                    path.display(),
                    verified.sums.owner,
                    verified.tarball.owner
                );
            }
            return context.print(&text);
        }
        context.print(&text)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let newer = wanted.iter().map(|series| match &series.pinned {
            Some(pinned) => format!("{} is out, pinned is {pinned}", series.newest),
            None => format!("{} is out, nothing of {} is pinned", series.newest, series.name),
        });
        Err(Error::Behind { lock: lock.name().to_owned(), newer: newer.collect() }.into())
    }

    fn series(&self, catalogue: &Catalogue) -> Result<BTreeSet<String>, Failure> {
        if self.series.is_empty() {
            return Ok(tracked(catalogue)?);
        }
        Ok(self.series.iter().map(Version::series).collect())
    }

    fn added(&self) -> Result<Version, Failure> {
        let usage = |message| Failure::Usage { message, hint: "as in `--add kernel 5.10.250`".into() };
        match &self.add[..] {
            [kind, version] if kind == "kernel" => version.parse().map_err(|error| usage(format!("{error}"))),
            [kind, ..] => Err(usage(format!("`{kind}` is nothing that can be added; `kernel` is"))),
            [] => unreachable!("asked only where something is to be added"),
        }
    }
}

/// The file that is to be changed.
fn path(context: &Context, found: &Catalogue) -> Result<PathBuf, Failure> {
    match (&context.global.lock, found) {
        (Some(path), _) => Ok(path.clone()),
        (None, Catalogue::Directory(dir)) => Ok(dir.join(catalogue::LOCK)),
        (None, Catalogue::Builtin) => Err(Error::Builtin(found.name(catalogue::LOCK)).into()),
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
