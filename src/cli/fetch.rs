//! `imgbuild fetch`.

use clap::Args;

use super::{Context, Failure};
use crate::plan;
use crate::version::Version;

/// Download and verify kernel sources, for building offline later
#[derive(Debug, Args)]
pub(super) struct Fetch {
    /// A version (5.10.262), or a series (5.10) for its newest pinned one
    #[arg(value_name = "VERSION", required = true)]
    versions: Vec<Version>,
    /// Fail on versions that the lock does not pin, instead of verifying them by their signatures
    #[arg(long)]
    locked: bool,
}

impl Fetch {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let catalogue = context.catalogue();
        let lock = context.lock(&catalogue)?;
        let mirrors = context.mirrors(&lock)?;
        let lock = context.admit(lock, &self.versions, &catalogue, &mirrors, self.locked)?;
        let store = context.store()?;
        for version in &self.versions {
            let pin = lock.kernel(version)?;
            let file = pin.file();
            let locate = || mirrors.locate(&lock, &file);
            let fetched = crate::fetch::fetch(&file, locate, &store.downloads(), &context.watch)
                .map_err(plan::Error::from)?;
            context.print(&format!("{} {}\n", pin.version, fetched.path.display()))?;
        }
        Ok(())
    }
}
