//! `imgbuild config`: a recipe resolved and checked against a kernel source, without compiling it.

use super::Error;
use super::kernel::{Plan, accepted};
use crate::arch::Arch;
use crate::kernel;
use crate::kernel::kconfig::{self, Configure, Configured};
use crate::step::{Diagnose, Level, Unit, Watch};
use crate::store::Store;
use crate::version::Version;

/// One checked configuration.
#[derive(Debug)]
pub struct Checked {
    /// The kernel's version.
    pub version: Version,
    /// The architecture.
    pub arch: Arch,
    /// What kconfig made of the fragments.
    pub configured: Configured,
    /// What is absent, with the recipe's reason.
    pub explained: Vec<(String, String)>,
    /// What is absent without one.
    pub unexplained: Vec<String>,
}

/// Resolves and checks every kernel of `plan`.
pub fn check(plan: &Plan, store: &Store, watch: &Watch) -> Result<Vec<Checked>, Error> {
    plan.require_tools(store, watch)?;
    let accepted = accepted(&plan.recipe);
    let (mut checked, mut refused) = (Vec::new(), None);
    for (pin, cells) in &plan.sources {
        let source = plan.source(pin, store, watch)?;
        let work = store.work()?;
        for cell in cells {
            let what = format!("Linux {} {}", pin.version, cell.arch);
            let build = work.path().join(format!("build-{}", cell.arch));
            let sandbox = cell.toolchain.sandbox(&source.root, &build, plan.inputs(store), watch)?;
            let configure = Configure {
                source: &source.root,
                build: &build,
                base: &plan.recipe.base,
                requested: &cell.requested,
                sandbox: &sandbox,
                log: &work.path().join("configure.log"),
                cancel: &watch.cancel,
            };
            let progress = watch.reporter.begin("configure", &what, None, Unit::Files);
            let configured = match configure.run() {
                // What is wrong for one architecture is told beside what is wrong for the others.
                Err(error @ kconfig::Error::Refused { .. }) => {
                    if let Some(earlier) = refused.replace(error) {
                        let message = format!("{earlier}\n{}", earlier.detail().unwrap_or_default());
                        watch.reporter.note(Level::Warning, &message);
                    }
                    continue;
                }
                other => other.map_err(kernel::Error::from)?,
            };
            configured.notes.iter().for_each(|note| watch.reporter.note(Level::Detail, note));
            progress.finish(&format!("{} symbols asked for, all as asked", cell.requested.requests().len()));
            let parted = kconfig::explain(&configured.absences, &accepted);
            let explained =
                parted.explained.iter().map(|(symbol, why)| ((*symbol).into(), why.reason.clone())).collect();
            let unexplained = parted.unexplained.iter().map(|symbol| (*symbol).to_owned()).collect();
            checked.push(Checked {
                version: pin.version.clone(),
                arch: cell.arch,
                configured,
                explained,
                unexplained,
            });
        }
    }
    match refused {
        Some(error) => Err(kernel::Error::from(error).into()),
        None => Ok(checked),
    }
}
