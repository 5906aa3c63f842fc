//! What the recipes release: a matrix of cells, each with the key it is published under, known without building.
//!
//! A cell is one recipe, one version, one architecture: `kernel/firecracker/5.10.77/amd64`. It is built on a machine of
//! its own architecture or on another one; a kernel's compiler is not the same on both, so it has a key for each.

pub mod against;
mod error;
mod join;
mod keys;
pub mod life;
mod published;
mod run;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::Value;

use super::{Error as PlanError, kernel, os};
use crate::arch::Arch;
use crate::document::nearest;
use crate::fetch::mirror::Mirrors;
use crate::lock::Lock;
use crate::oci::compression::Compression;
use crate::oci::layer::Packing;
use crate::recipe::Catalogue;
use crate::step::{Key, Watch};

pub use error::Error;
pub use join::{Joined, Outcome, Tag, TagState, join};
pub use published::{Registry, State};
pub use run::{Image, Made, Published};

/// What a recipe makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A kernel and its modules.
    Kernel,
    /// A root volume with Kubernetes.
    Os,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Os => "os",
        }
    }
}

/// One recipe, one version, one architecture.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// `kernel/firecracker/5.10.77/amd64`.
    #[serde(rename = "cell")]
    pub name: String,
    /// What it makes.
    pub kind: Kind,
    /// The recipe.
    pub recipe: String,
    /// The version of the kernel or of Kubernetes.
    pub version: String,
    /// Its architecture.
    #[serde(serialize_with = "oci_name")]
    pub arch: Arch,
    /// Whether everything that decides about it is pinned. If not, its key is that of the request alone, and it is
    /// built each time.
    #[serde(rename = "pinned")]
    pub is_pinned: bool,
    /// Its keys: as a machine of its own architecture makes it first, then as others do.
    pub keys: Vec<Key>,
    /// The repositories of its images; the first is there whenever the cell is.
    pub images: Vec<String>,
    /// What its key is made of, as a machine of its own architecture makes it.
    pub record: Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn oci_name<S: Serializer>(arch: &Arch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(arch.oci())
}

impl Cell {
    /// The tag of its images when they were made under `key`.
    pub fn tag(&self, key: Key) -> String {
        format!("{}-{}-{}", self.version, key.short(), self.arch.oci())
    }

    /// `5.10` of `5.10.77`.
    pub fn series(&self) -> String {
        series(&self.version)
    }

    /// The key under which this host publishes it.
    fn own_key(&self, host: Arch) -> Key {
        // Others than its own come second, and what is made of packages alone has one key.
        if host == self.arch { self.keys[0] } else { *self.keys.last().expect("a cell has a key") }
    }
}

/// Major and minor number of a version.
fn series(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// What cells are planned and built with.
pub struct Desk<'a> {
    /// The recipes.
    pub catalogue: &'a Catalogue,
    /// The lock.
    pub lock: &'a Lock,
    /// The mirrors.
    pub mirrors: &'a Mirrors,
    /// The toolchain that takes the place of the recipes', if any.
    pub toolchain: Option<String>,
    /// How many jobs run at once.
    pub jobs: usize,
    /// Whom to tell.
    pub watch: &'a Watch,
}

impl Desk<'_> {
    /// The plan of kernels of a recipe.
    fn kernels(
        &self,
        recipe: &str,
        versions: &[String],
        arches: &[String],
    ) -> Result<kernel::Plan, PlanError> {
        let parsed = |version: &String| version.parse().expect("it was printed by a version");
        let request = kernel::Request {
            versions: versions.iter().map(parsed).collect(),
            arches: arches.to_vec(),
            flavour: kernel::Flavour::Named(recipe.to_owned()),
            toolchain: self.toolchain.clone(),
            outputs: Vec::new(),
        };
        let (lock, mirrors) = (self.lock.clone(), self.mirrors.clone());
        kernel::Plan::new(&request, self.catalogue, lock, mirrors, self.jobs, self.watch)
    }

    /// The plan of root volumes of a recipe.
    fn systems(&self, recipe: &str, versions: &[String], arches: &[String]) -> Result<os::Plan, PlanError> {
        let packing = Packing { compression: Compression::Gzip, threads: self.jobs };
        let system = os::System::Named(recipe.to_owned());
        let (lock, mirrors) = (self.lock.clone(), self.mirrors.clone());
        os::Plan::new(&system, versions, arches, self.catalogue, lock, mirrors, packing)
    }
}

/// Everything that the recipes release.
#[derive(Debug)]
pub struct Matrix {
    /// The cells, in the order of recipes and versions.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// Reads all recipes and looks up what they release.
    pub fn new(desk: &Desk<'_>) -> Result<Self, PlanError> {
        let names = |arches: &[Arch]| arches.iter().map(|arch| arch.name().to_owned()).collect::<Vec<_>>();
        let mut cells = Vec::new();
        for name in desk.catalogue.flavours()? {
            let recipe = desk.catalogue.flavour(&name)?;
            if !recipe.released.is_empty() {
                let versions: Vec<_> = recipe.released.iter().map(ToString::to_string).collect();
                let plan = desk.kernels(&name, &versions, &names(&recipe.released_on))?;
                cells.extend(keys::kernels(&plan, desk)?);
            }
        }
        for name in desk.catalogue.systems()? {
            let recipe = desk.catalogue.system(&name)?;
            if !recipe.kubernetes.is_empty() {
                let plan = desk.systems(&name, &recipe.kubernetes, &names(&recipe.released_on))?;
                cells.extend(keys::systems(&plan, desk)?);
            }
        }
        let matrix = Self { cells };
        matrix.refuse_twins()?;
        Ok(matrix)
    }

    /// Two recipes must not release one image of one version.
    fn refuse_twins(&self) -> Result<(), PlanError> {
        let mut makers = BTreeMap::new();
        for cell in &self.cells {
            for image in &cell.images {
                let name = format!("{image}:{}", cell.version);
                match makers.insert((name.clone(), cell.arch), cell) {
                    Some(other) if other.recipe != cell.recipe => {
                        let recipes = [other.recipe.clone(), cell.recipe.clone()];
                        return Err(PlanError::Twins { image: name, recipes });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Keeps the cells that are named, whole (`kernel/tiny/5.10.1/amd64`) or by their beginning (`kernel/tiny`); all,
    /// where none is.
    pub fn keep(&mut self, only: &[String]) -> Result<(), PlanError> {
        let only: Vec<&str> = only.iter().map(|name| name.trim_matches('/')).collect();
        let only: Vec<&str> = only.into_iter().filter(|name| !name.is_empty()).collect();
        let is_in = |cell: &Cell, name: &str| {
            cell.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(unknown) = only.iter().find(|name| !self.cells.iter().any(|cell| is_in(cell, name))) {
            let beginnings = |cell: &Cell| {
                let ends: Vec<_> = cell.name.match_indices('/').map(|(at, _)| at).collect();
                let mut names: Vec<_> = ends.iter().map(|at| cell.name[..*at].to_owned()).collect();
                names.push(cell.name.clone());
                names
            };
            let known: Vec<String> = self.cells.iter().flat_map(beginnings).collect();
            let near = nearest(unknown, known.iter().map(String::as_str)).map(str::to_owned);
            return Err(PlanError::UnknownCell { asked: (*unknown).to_owned(), near });
        }
        if !only.is_empty() {
            self.cells.retain(|cell| only.iter().any(|name| is_in(cell, name)));
        }
        Ok(())
    }

    /// What is to be said about the ends of what is released.
    pub fn warnings(&self, catalogue: &Catalogue) -> Result<Vec<String>, PlanError> {
        let Some(lives) = life::Lives::read(catalogue)? else { return Ok(Vec::new()) };
        let series: std::collections::BTreeSet<_> =
            self.cells.iter().map(|cell| (cell.kind, cell.series())).collect();
        let today = life::today();
        Ok(series.into_iter().filter_map(|(kind, series)| lives.warning(kind, &series, today)).collect())
    }
}
