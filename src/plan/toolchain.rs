//! Which toolchain compiles which kernel, and the place it compiles in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use serde_json::{Value, json};

use super::Error;
use super::kernel::{Cell, Plan};
use crate::arch::Arch;
use crate::fetch::mirror::Mirrors;
use crate::host::{self, Tool};
use crate::kernel::toolchain as host_tools;
use crate::lock::Lock;
use crate::lock::trees::TreePin;
use crate::recipe::{Archive, Catalogue, KernelRecipe, ToolchainRecipe};
use crate::sandbox::{self, Limits, Sandbox};
use crate::step::{Cancel, Step, Watch};
use crate::store::{Artifact, Store};
use crate::tree::{self, MakeTree, Tree};
use crate::version::Version;

/// The word for this host's own tools.
pub const HOST: &str = "host";
/// How large the cache of compilations may become; ccache itself drops what is oldest.
const CACHE_SIZE: &str = "5G";

/// What a kernel is compiled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// Whatever this host has.
    Host,
    /// A pinned tree, in a sandbox.
    Tree(Box<Tree>),
}

impl Toolchain {
    /// The toolchain for a version: the one asked for, else the recipe's, else the default of the series.
    pub fn choose(
        asked: Option<&str>,
        recipe: &KernelRecipe,
        version: &Version,
        catalogue: &Catalogue,
        lock: &Lock,
        mirrors: &Mirrors,
    ) -> Result<Self, Error> {
        if asked == Some(HOST) {
            return Ok(Self::Host);
        }
        let all = catalogue.toolchains()?;
        let holds = |toolchain: &&ToolchainRecipe| {
            toolchain.kernels.as_ref().is_some_and(|range| range.holds(version))
        };
        let found = match asked.or(recipe.toolchain.as_deref()) {
            Some(name) => all.iter().find(|toolchain| toolchain.name == name),
            None => all.iter().find(holds),
        };
        let Some(found) = found else {
            let known = all.iter().map(|toolchain| toolchain.name.clone()).chain([HOST.to_owned()]).collect();
            return Err(match asked.or(recipe.toolchain.as_deref()) {
                Some(name) => Error::UnknownToolchain { asked: name.to_owned(), known },
                None => Error::NoToolchain { version: version.clone(), known },
            });
        };
        let host = Arch::host().ok_or(Error::Host)?;
        Ok(Self::Tree(Box::new(tree_of(found, host, lock, mirrors))))
    }

    /// Its name, as `--toolchain` takes it.
    pub fn name(&self) -> &str {
        match self {
            Self::Host => HOST,
            Self::Tree(tree) => &tree.recipe.name,
        }
    }

    /// Whether the lock has every package of it.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self, Self::Tree(tree) if tree.pin.is_some())
    }

    /// Whether its identity tells it from every other one: it is pinned, or it is this host's own tools, which tell their
    /// versions.
    pub(super) fn is_identified(&self) -> bool {
        *self == Self::Host || self.is_pinned()
    }

    /// The same for machines of another architecture.
    pub(super) fn on(&self, host: Arch, lock: &Lock, mirrors: &Mirrors) -> Self {
        match self {
            Self::Host => Self::Host,
            Self::Tree(tree) => Self::Tree(Box::new(tree_of(&tree.recipe, host, lock, mirrors))),
        }
    }

    /// What goes into the record of a compilation for `arch`.
    pub(super) fn identity(&self, arch: Arch, cancel: &Cancel) -> Result<Value, Error> {
        Ok(match self {
            Self::Host => host_tools::identity(arch, cancel)?,
            Self::Tree(tree) => json!({ "tree": tree.key().to_string(), "host": tree.arch.name() }),
        })
    }

    /// What images say about it; `identity` is what [`Toolchain::identity`] gave.
    pub(super) fn label(&self, identity: &Value) -> String {
        match self {
            Self::Host => format!("host: {}", identity["gcc"].as_str().unwrap_or("unknown")),
            Self::Tree(tree) => tree.recipe.name.clone(),
        }
    }

    /// The programs that compiling for `arch` needs on this host.
    pub(super) fn requirements(&self, arch: Arch, store: &Store) -> Vec<Tool> {
        match self {
            Self::Host => host_tools::requirements(arch),
            Self::Tree(tree) => {
                let is_made = store.peek("tree", tree.key());
                let needed = |tool: &Tool| !is_made || tool.program == sandbox::PROGRAM;
                tree::requirements(&tree.recipe).into_iter().filter(needed).collect()
            }
        }
    }

    /// Where a kernel is compiled from `source` in `build`: for the host its own paths, else fixed ones.
    pub(super) fn sandbox(
        &self,
        source: &Path,
        build: &Path,
        inputs: Inputs<'_>,
        watch: &Watch,
    ) -> Result<Sandbox, Error> {
        let Self::Tree(tree) = self else { return Ok(Sandbox::host()) };
        let root = make(tree, inputs, watch)?.path;
        fs_err::create_dir_all(build)?;
        let (memory_mib, processor_minutes) = (tree.recipe.memory_mib, tree.recipe.processor_minutes);
        let mut sandbox = Sandbox::tree(root)
            .read_only(source, "/imgbuild/source")
            .writable(build, "/imgbuild/build")
            .limits(Limits { memory_mib, processor_minutes });
        if tree.recipe.packages(tree.arch).contains(&"ccache") {
            let cache = "/imgbuild/ccache";
            sandbox = sandbox
                .writable(inputs.store.tool_cache("ccache")?, cache)
                .env("CCACHE_DIR", cache)
                .env("CCACHE_MAXSIZE", CACHE_SIZE)
                // Every file includes the whole configuration: one symbol moves what direct mode compares, so its
                // reading of all headers is for nothing. The preprocessed text tells who really depends on it.
                .env("CCACHE_NODIRECT", "1")
                // The tree is the compiler: its time and size on this disk say nothing.
                .env("CCACHE_COMPILERCHECK", format!("string:{}", tree.key()));
        }
        Ok(sandbox)
    }
}

/// What goes into records for the compilers, by toolchain and target.
pub(super) type Identities = BTreeMap<(String, Arch), Value>;

impl Plan {
    /// Fails if the host lacks what the planned configuring or compiling needs.
    pub fn require_tools(&self, store: &Store, watch: &Watch) -> Result<(), Error> {
        Self::require(&self.cells().collect::<Vec<_>>(), store, watch)
    }

    fn require(cells: &[&Cell], store: &Store, watch: &Watch) -> Result<(), Error> {
        let needed = cells.iter().flat_map(|cell| cell.toolchain.requirements(cell.arch, store));
        host::require(&needed.collect::<Vec<_>>())?;
        if cells.iter().any(|cell| *cell.toolchain != Toolchain::Host) {
            sandbox::require(&watch.cancel)?;
        }
        Ok(())
    }

    /// Where trees come from.
    pub(super) fn inputs<'a>(&'a self, store: &'a Store) -> Inputs<'a> {
        Inputs { lock: &self.lock, mirrors: &self.mirrors, store }
    }

    /// The identities of all compilers; what this host lacks for what is still to be compiled is told first.
    pub(super) fn toolchains(&self, store: &Store, watch: &Watch) -> Result<Identities, Error> {
        let own = self.cells().filter(|cell| *cell.toolchain == Toolchain::Host);
        Self::require(&own.collect::<Vec<_>>(), store, watch)?;
        let mut identities = Identities::new();
        for cell in self.cells() {
            if let Entry::Vacant(entry) = identities.entry(cell.tools()) {
                entry.insert(cell.toolchain.identity(cell.arch, &watch.cancel)?);
            }
        }
        let nowhere = || unreachable!("only the key is asked for");
        let is_made = |cell: &&Cell| {
            let step = self.compile(cell, &identities[&cell.tools()], &nowhere);
            store.can_have(&step)
        };
        Self::require(&self.cells().filter(|cell| !is_made(cell)).collect::<Vec<_>>(), store, watch)?;
        Ok(identities)
    }
}

/// What making a tree draws upon.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The lock.
    pub lock: &'a Lock,
    /// The mirrors.
    pub mirrors: &'a Mirrors,
    /// The store.
    pub store: &'a Store,
}

impl Inputs<'_> {
    /// Where an archive is.
    pub(super) fn base(&self, archive: &Archive, watch: &Watch) -> Result<String, Error> {
        let (place, moment) = (&archive.place, &archive.snapshot);
        Ok(self.mirrors.archive(self.lock, place, moment, &archive.probe(), watch)?)
    }
}

/// The tree of a toolchain for machines of an architecture, as the lock has it.
pub fn tree_of(recipe: &ToolchainRecipe, arch: Arch, lock: &Lock, mirrors: &Mirrors) -> Tree {
    let mut recipe = recipe.clone();
    recipe.archive = mirrors.held(&recipe.archive);
    let pin = lock.tree(&recipe.name, arch).cloned();
    Tree { recipe, arch, pin }
}

/// The tree, from the store or made now.
pub fn make(tree: &Tree, inputs: Inputs<'_>, watch: &Watch) -> Result<Artifact, Error> {
    let base = || inputs.base(&tree.recipe.archive, watch);
    let step = MakeTree { tree, lock: inputs.lock.name(), base: &base };
    debug_assert_eq!(step.key(), tree.key(), "a tree's key is its step's");
    Ok(inputs.store.get_or_make(&step, watch)?)
}

/// What the archive has for a tree now: the set to be written into a lock, by [`crate::lock::trees::with_tree`].
pub fn refresh(tree: &Tree, inputs: Inputs<'_>, watch: &Watch) -> Result<TreePin, Error> {
    host::require(&tree::requirements(&tree.recipe))?;
    let base = inputs.base(&tree.recipe.archive, watch)?;
    let work = inputs.store.work()?;
    let root = work.path().join("root");
    fs_err::create_dir(&root)?;
    let packages = tree.make(&root, &base, watch)?;
    Ok(TreePin { name: tree.recipe.name.clone(), arch: tree.arch, packages })
}
