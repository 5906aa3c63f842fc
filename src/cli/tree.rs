//! `imgbuild tree`.

use clap::Args;

use super::push::Transport;
use super::remote::RemoteCache;
use super::{Context, Failure};
use crate::arch::Arch;
use crate::plan::{self, toolchain};

/// Make toolchains' root trees, for building offline later
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the digest of each tree's files, the number of packages the lock pins for it, and where it lies.
`imgbuild lock NAME` pins the packages.

Examples:
  imgbuild tree
  imgbuild tree debian-12 --mirror debian=apt:Debian")]
pub(super) struct Tree {
    /// Toolchains of the catalogue [default: those that are some kernels' default]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    remote: RemoteCache,
    #[command(flatten)]
    transport: Transport,
}

impl Tree {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let catalogue = context.catalogue();
        let lock = context.lock(&catalogue)?;
        let mirrors = context.mirrors(&lock)?;
        let store = self.remote.store(&self.transport, context)?;
        let inputs = toolchain::Inputs { lock: &lock, mirrors: &mirrors, store: &store };
        let all = catalogue.toolchains().map_err(plan::Error::from)?;
        let known = || all.iter().map(|recipe| recipe.name.clone()).collect::<Vec<_>>();
        if let Some(name) = self.names.iter().find(|name| !known().contains(name)) {
            return Err(plan::Error::UnknownToolchain { asked: name.clone(), known: known() }.into());
        }
        let is_meant = |name: &str, is_default| {
            if self.names.is_empty() { is_default } else { self.names.iter().any(|asked| asked == name) }
        };
        let host = Arch::host().ok_or(plan::Error::Host)?;
        for recipe in all.iter().filter(|recipe| is_meant(&recipe.name, recipe.kernels.is_some())) {
            let tree = toolchain::tree_of(recipe, host, &lock, &mirrors);
            let made = toolchain::make(&tree, inputs, &context.watch)?;
            let pinned = tree.pin.as_ref().map_or(0, |pin| pin.packages.len());
            let (name, arch) = (&recipe.name, tree.arch);
            let path = made.path.display();
            context.print(&format!("{name} {arch} {} {pinned} pinned {path}\n", made.content))?;
        }
        Ok(())
    }
}
