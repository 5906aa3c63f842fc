//! `imgbuild list`: the images that recipes and lock make, and how well each is looked after.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Error;
use super::images::arm_name;
use crate::arch::Arch;
use crate::lock::Lock;
use crate::recipe::kernel::Output;
use crate::recipe::{Catalogue, KernelRecipe, OsRecipe};

/// How well an image is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Released, for the architecture that its users have.
    Supported,
    /// Released, for arm64.
    Experimental,
    /// For users of old releases, who cannot take the others.
    Legacy,
    /// Pinned and buildable, and not released.
    OnRequest,
}

impl State {
    /// All, in the order they are told.
    pub const ALL: [Self; 4] = [Self::Supported, Self::Experimental, Self::Legacy, Self::OnRequest];

    /// What its images are called together.
    pub fn title(self) -> &'static str {
        match self {
            Self::Supported => "Supported",
            Self::Experimental => "Experimental",
            Self::Legacy => "Legacy",
            Self::OnRequest => "On request",
        }
    }

    /// What that means, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Supported => "Released, for x86_64.",
            Self::Experimental => "Released, for arm64: built and checked as the others are, and less used.",
            Self::Legacy => {
                "Released for Flintlock up to 0.4.0 and CAPMVM up to 0.7.0, which take no modules volume. The images \
                 of others are better."
            }
            Self::OnRequest => "Pinned and not released: `imgbuild kernel` and `imgbuild os` build them.",
        }
    }
}

/// An image with its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// How well it is looked after.
    pub state: State,
    /// Its repository: `kernel-bin`.
    pub image: String,
    /// What it holds: `kernel`, `modules`, `combined`, `headers` or `os`.
    pub role: &'static str,
    /// Its tags, oldest first.
    pub versions: Vec<String>,
    /// Its platforms: `amd64`.
    pub platforms: Vec<&'static str>,
    /// The recipe that makes it.
    pub recipe: String,
}

/// Reads all recipes and looks up what they make of the lock's pins.
pub fn list(catalogue: &Catalogue, lock: &Lock) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for name in catalogue.flavours()? {
        rows.extend(kernels(&catalogue.flavour(&name)?, lock)?);
    }
    for name in catalogue.systems()? {
        rows.extend(systems(&catalogue.system(&name)?));
    }
    rows.sort_by_key(|row: &Row| row.state);
    Ok(rows)
}

fn kernels(recipe: &KernelRecipe, lock: &Lock) -> Result<Vec<Row>, Error> {
    let released = recipe.released.iter().map(|asked| Ok(&lock.kernel(asked)?.version));
    let released = released.collect::<Result<BTreeSet<_>, Error>>()?;
    let pinned = lock.kernels().iter().map(|pin| &pin.version);
    let others: BTreeSet<_> = pinned
        .filter(|version| recipe.series.contains(&version.series()) && !released.contains(version))
        .collect();
    let told = |versions: &BTreeSet<_>| versions.iter().map(ToString::to_string).collect::<Vec<String>>();
    let mut rows = Vec::new();
    for output in recipe.outputs() {
        let (image, role, is_legacy) = (recipe.image(*output), output.name(), *output == Output::Combined);
        let made = Made { image, role, recipe: &recipe.name, is_legacy };
        rows.extend(made.rows(&told(&released), &recipe.released_on, &told(&others), &recipe.arches()));
    }
    Ok(rows)
}

fn systems(recipe: &OsRecipe) -> Vec<Row> {
    let is_legacy = recipe.modules_of.is_some();
    let image = if is_legacy { &recipe.combined } else { &recipe.image };
    let made = Made { image, role: "os", recipe: &recipe.name, is_legacy };
    // A system without Kubernetes has its own version, and is not released.
    let plain = if recipe.kubernetes.is_empty() { vec![recipe.version.clone()] } else { Vec::new() };
    made.rows(&recipe.kubernetes, &recipe.released_on, &plain, &Arch::ALL)
}

/// An image that a recipe makes.
struct Made<'r> {
    image: &'r str,
    role: &'static str,
    recipe: &'r str,
    /// Whether modules are in it for users who take no volume of them.
    is_legacy: bool,
}

impl Made<'_> {
    /// Its rows: what is released, by architecture, and what is not.
    fn rows(&self, released: &[String], on: &[Arch], others: &[String], all: &[Arch]) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut row = |state, image: &str, versions: &[String], arches: &[Arch]| {
            if !versions.is_empty() && !arches.is_empty() {
                rows.push(Row {
                    state,
                    image: image.to_owned(),
                    role: self.role,
                    versions: versions.to_vec(),
                    platforms: arches.iter().map(|arch| arch.oci()).collect(),
                    recipe: self.recipe.to_owned(),
                });
            }
        };
        let (own, arm): (Vec<_>, Vec<_>) = on.iter().partition(|arch| **arch == Arch::X86_64);
        if self.is_legacy {
            row(State::Legacy, self.image, released, on);
            row(State::Legacy, &arm_name(self.image), released, &arm);
        } else {
            row(State::Supported, self.image, released, &own);
            row(State::Experimental, self.image, released, &arm);
        }
        row(State::OnRequest, self.image, others, all);
        rows
    }
}
