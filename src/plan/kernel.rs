//! `imgbuild kernel`: from a request to two multi-architecture images in an OCI layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use oci_spec::image::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_SOURCE, ANNOTATION_TITLE, ANNOTATION_VERSION,
};
use serde_json::Value;

use super::Error;
use super::account::{self, Asked};
use super::images::Built;
use super::images::{self, Joined};
use super::outputs;
use super::toolchain::{Identities, Toolchain};
use super::workshop::{Compiled, Workshop};
use crate::arch::Arch;
use crate::attest::statement::{Definition, Resource, Run};
use crate::digests::Digests;
use crate::fetch;
use crate::fetch::mirror::Mirrors;
use crate::kernel::kconfig::{self, Accepted, Requested, fragment};
use crate::kernel::{Compile, Facts, Site};
use crate::lock::{KernelPin, Lock};
use crate::oci::compression::Compression;
use crate::oci::image::Labels;
use crate::oci::layer::Packing;
use crate::oci::layout::Layout;
use crate::recipe::kernel::{Absent, Output};
use crate::recipe::{Catalogue, Copied, Copier, KernelRecipe, catalogue, copied};
use crate::step::{Level, Watch};
use crate::store::Store;
use crate::version::Version;

/// The licence of the kernel, as its COPYING names it.
const LICENCE: &str = "GPL-2.0-only WITH Linux-syscall-note";

/// Which recipe makes the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flavour {
    /// The one that is the default.
    Default,
    /// One of the catalogue.
    Named(String),
    /// A file.
    File(PathBuf),
}

impl Flavour {
    /// Its recipe.
    pub fn recipe(&self, catalogue: &Catalogue) -> Result<KernelRecipe, Error> {
        Ok(match self {
            Self::Default => catalogue.default_flavour()?,
            Self::Named(name) => catalogue.flavour(name)?,
            Self::File(path) => catalogue.kernel_file(path)?,
        })
    }

    /// What a statement calls the recipe that this is.
    fn recorded(&self, recipe: &KernelRecipe) -> String {
        match self {
            Self::File(path) => copied::own_name(path),
            Self::Default | Self::Named(_) => recipe.name.clone(),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Versions or series.
    pub versions: Vec<Version>,
    /// Architectures by any of their names, or `all`.
    pub arches: Vec<String>,
    /// The recipe.
    pub flavour: Flavour,
    /// The toolchain's name, or `host`; none for the recipe's, or the default of each series.
    pub toolchain: Option<String>,
    /// The images; none for the recipe's.
    pub outputs: Vec<Output>,
}

/// One kernel to be built.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Its source.
    pub pin: KernelPin,
    /// Its architecture.
    pub arch: Arch,
    /// What its fragments ask for.
    pub requested: Arc<Requested>,
    /// What compiles it.
    pub toolchain: Arc<Toolchain>,
}

impl Cell {
    /// What decides about the compiler: the toolchain's name and the target.
    pub(super) fn tools(&self) -> (String, Arch) {
        (self.toolchain.name().to_owned(), self.arch)
    }
}

/// A request with everything looked up and nothing done.
pub struct Plan {
    /// The recipe.
    pub recipe: KernelRecipe,
    /// The sources, each with its kernels, in the order asked for.
    pub sources: Vec<(KernelPin, Vec<Cell>)>,
    /// The images each kernel is put into, sorted.
    pub outputs: Vec<Output>,
    /// The lock the pins are from.
    pub lock: Lock,
    /// The mirrors to fetch from.
    pub mirrors: Mirrors,
    /// How layers are compressed.
    pub compression: Compression,
    /// How many jobs make runs at once, and how many threads compress.
    pub jobs: usize,
    /// What the recipe is called in a statement, and the files that it was read from.
    pub(super) recorded: (String, Copied),
}

impl Plan {
    /// Looks up recipe, pins and fragments.
    pub fn new(
        request: &Request,
        catalogue: &Catalogue,
        lock: Lock,
        mirrors: Mirrors,
        jobs: usize,
        watch: &Watch,
    ) -> Result<Self, Error> {
        let copier = Copier::default();
        let catalogue = &catalogue.watched(&copier);
        let recipe = request.flavour.recipe(catalogue)?;
        let recorded = (request.flavour.recorded(&recipe), copier.clone());
        let arches = super::arches(&request.arches, &recipe.arches())?;
        let outputs = outputs::meant(&request.outputs, &recipe)?;
        let mut sources: Vec<(KernelPin, Vec<Cell>)> = Vec::new();
        for version in &request.versions {
            let pin = lock.kernel(version)?.clone();
            if !recipe.series.contains(&pin.version.series()) {
                let (flavour, series, version) = (recipe.name.clone(), recipe.series.clone(), pin.version);
                return Err(Error::Series { flavour, series, version });
            }
            if sources.iter().any(|(other, _)| *other == pin) {
                continue;
            }
            let asked = request.toolchain.as_deref();
            let toolchain =
                Arc::new(Toolchain::choose(asked, &recipe, &pin.version, catalogue, &lock, &mirrors)?);
            let cell = |arch: &Arch| cell(&recipe, &pin, *arch, &toolchain, watch);
            let cells = arches.iter().map(cell).collect::<Result<Vec<_>, _>>()?;
            if !request.outputs.is_empty() || recipe.names_outputs() {
                cells.iter().try_for_each(|cell| outputs::require_modules(&outputs, &recipe, cell))?;
            }
            sources.push((pin, cells));
        }
        let recorded = (recorded.0, recorded.1.copied());
        Ok(Self { recipe, sources, outputs, lock, mirrors, compression: Compression::Gzip, jobs, recorded })
    }

    /// How layers are packed.
    pub(super) fn packing(&self) -> Packing {
        Packing { compression: self.compression, threads: self.jobs }
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.sources.iter().flat_map(|(_, cells)| cells)
    }

    /// The step that compiles a kernel.
    pub(super) fn compile<'a>(
        &self,
        cell: &Cell,
        toolchain: &Value,
        site: &'a dyn Fn() -> Result<Site, Error>,
    ) -> Compile<'a, Error> {
        Compile {
            version: cell.pin.version.clone(),
            arch: cell.arch,
            flavour: self.recipe.name.clone(),
            source_sha256: cell.pin.sha256.clone(),
            base: self.recipe.base.clone(),
            requested: Arc::clone(&cell.requested),
            toolchain: toolchain.clone(),
            pinned: cell.toolchain.is_pinned(),
            site,
        }
    }

    /// The names of the images of a source.
    pub(super) fn image_names(&self, pin: &KernelPin) -> Vec<(Output, String)> {
        let named = |output: &Output| (*output, format!("{}:{}", self.recipe.image(*output), pin.version));
        self.outputs.iter().map(named).collect()
    }

    /// The images of a source and what they say of themselves, as far as that is known without building.
    pub(super) fn labelled(&self, pin: &KernelPin) -> BTreeMap<String, Labels> {
        self.image_names(pin).into_iter().map(|(role, name)| (name, self.labels(pin, role, ""))).collect()
    }

    /// Builds everything and puts the images into the layout at `output`, unless `locked` and they are not what is
    /// recorded.
    pub fn run(
        &self,
        store: &Store,
        output: &Path,
        recorded: &Digests,
        locked: bool,
        watch: &Watch,
    ) -> Result<Vec<Built>, Error> {
        // What can be refused is refused before an hour of work.
        Layout::check_output(output)?;
        let run = Run::begin();
        let images = self.build(store, watch)?;
        images::judge(&images, recorded, locked, watch)?;
        account::keep(&images, &run.end(), store, watch)?;
        images::assemble(&images, recorded, output)
    }

    /// Builds everything, or finds it in the store.
    pub(super) fn build(&self, store: &Store, watch: &Watch) -> Result<Vec<Joined>, Error> {
        let toolchains = self.toolchains(store, watch)?;
        if self.cells().any(|cell| *cell.toolchain == Toolchain::Host) {
            let message = "not hermetic: with this host's own tools the digests are this machine's";
            watch.reporter.note(Level::Info, message);
        }
        std::thread::scope(|scope| {
            // The next sources come while the first one is being built; whoever needs them fetches again and
            // finds them, or the reason why not.
            scope.spawn(|| {
                for (pin, _) in self.sources.iter().skip(1) {
                    let _ = self.fetch(pin, store, watch);
                }
            });
            let mut images = Vec::new();
            for (pin, cells) in &self.sources {
                images.extend(self.build_source(pin, cells, &toolchains, store, watch)?);
            }
            Ok(images)
        })
    }

    /// The kernel for each architecture, for what lies over a root volume.
    pub(super) fn compiled(&self, store: &Store, watch: &Watch) -> Result<BTreeMap<Arch, Compiled>, Error> {
        let toolchains = self.toolchains(store, watch)?;
        let mut kernels = BTreeMap::new();
        for (pin, cells) in &self.sources {
            let workshop = Workshop::new(self, pin, &toolchains, store, watch);
            for cell in cells {
                kernels.insert(cell.arch, workshop.kernel(cell)?);
            }
        }
        Ok(kernels)
    }

    /// Brings a source into the store.
    pub fn fetch(&self, pin: &KernelPin, store: &Store, watch: &Watch) -> Result<fetch::Fetched, Error> {
        let file = pin.file();
        Ok(fetch::fetch(&file, || self.mirrors.locate(&self.lock, &file), &store.downloads(), watch)?)
    }

    fn build_source(
        &self,
        pin: &KernelPin,
        cells: &[Cell],
        toolchains: &Identities,
        store: &Store,
        watch: &Watch,
    ) -> Result<Vec<Joined>, Error> {
        let workshop = Workshop::new(self, pin, toolchains, store, watch);
        let mut images = BTreeMap::new();
        for cell in cells {
            let kernel = workshop.kernel(cell)?;
            self.tell_absences(&kernel.facts, cell, watch);
            for (output, name) in self.image_names(pin) {
                if output != Output::Kernel && !kernel.facts.modules {
                    continue;
                }
                let member = workshop.member(cell, &kernel, output, &name)?;
                let joined = images.entry(name.clone()).or_insert_with(|| {
                    let labels = self.labels(pin, output, &kernel.facts.release);
                    let alias = (output == Output::Combined).then(|| images::arm_name(&name));
                    Joined { name, labels, members: Vec::new(), alias }
                });
                joined.members.push(member);
            }
        }
        Ok(images.into_values().collect())
    }

    /// What an image of a kernel is made from.
    pub(super) fn definition(
        &self,
        cell: &Cell,
        identity: &Value,
        output: Output,
        image: &str,
    ) -> Definition {
        let (recipe, files) = &self.recorded;
        let toolchain = cell.toolchain.name();
        let own = format!("recipes/toolchains/{toolchain}.toml");
        let mut catalogue = files.clone();
        catalogue.retain(|name| name == own || !name.starts_with("recipes/toolchains/"));
        catalogue.add(catalogue::LOCK, self.lock.text());
        let (version, arch) = (&cell.pin.version, cell.arch);
        let how = if recipe.starts_with("./") { "--recipe" } else { "--flavour" };
        let mut command =
            format!("imgbuild kernel {version} --arch {arch} {how} {recipe} --toolchain {toolchain}");
        // Where the recipe alone would not make it.
        let outputs: Vec<_> = [output].into_iter().filter(|it| !self.recipe.outputs().contains(it)).collect();
        outputs.iter().for_each(|output| command += &format!(" --outputs {}", output.name()));
        if self.compression != Compression::Gzip {
            command += &format!(" --compression {}", self.compression);
        }
        let asked = Asked {
            outputs: outputs.iter().map(|output| output.name().to_owned()).collect(),
            modules_of: None,
            command,
            image: image.to_owned(),
            architecture: arch.oci().to_owned(),
            recipe: recipe.clone(),
            version: Some(version.to_string()),
            toolchain: Some(toolchain.to_owned()),
            compression: self.compression.to_string(),
            catalogue,
        };
        let inputs = self.materials(cell);
        let more = serde_json::json!({
            "hermetic": matches!(&*cell.toolchain, Toolchain::Tree(tree) if tree.pin.is_some()),
            "toolchain": identity,
        });
        account::definition(account::KERNEL, &asked, more, inputs)
    }

    /// What a kernel is compiled from, and with.
    pub(super) fn materials(&self, cell: &Cell) -> Vec<Resource> {
        let version = cell.pin.version.to_string();
        let mut inputs = vec![account::file(&cell.pin.file(), "linux", &version, "source", &self.lock)];
        if let Toolchain::Tree(tree) = &*cell.toolchain {
            let packages = tree.pin.iter().flat_map(|pin| &pin.packages).cloned().collect::<Vec<_>>();
            inputs.extend(account::packages(&packages, &tree.recipe.archive.place, "toolchain"));
        }
        inputs
    }

    fn tell_absences(&self, facts: &Facts, cell: &Cell, watch: &Watch) {
        let accepted = accepted(&self.recipe);
        let parted = kconfig::explain(&facts.absences, &accepted);
        for (symbol, accepted) in &parted.explained {
            watch.reporter.note(Level::Detail, &format!("CONFIG_{symbol} is off: {}", accepted.reason));
        }
        if !parted.unexplained.is_empty() {
            let shown: Vec<_> = parted.unexplained.iter().take(8).copied().collect();
            let more = parted.unexplained.len() - shown.len();
            watch.reporter.note(
                Level::Warning,
                &format!(
                    "{} {}: {} that alldefconfig turns on {} off, and flavour {} does not say why: {}{}; ask for them \
                     in a fragment, or accept them with an [[absent]] entry (`imgbuild config` lists them all)",
                    cell.pin.version,
                    cell.arch,
                    if shown.len() + more == 1 { "1 symbol".into() } else { format!("{} symbols", shown.len() + more) },
                    if shown.len() + more == 1 { "is" } else { "are" },
                    self.recipe.name,
                    shown.join(" "),
                    if more > 0 { format!(" and {more} more") } else { String::new() },
                ),
            );
        }
    }

    /// The labels that all platforms of an image share.
    pub(super) fn labels(&self, pin: &KernelPin, output: Output, release: &str) -> Labels {
        let what = match output {
            Output::Kernel => "Linux kernel (boot/vmlinux)",
            Output::Modules => "Linux kernel modules (lib/modules)",
            Output::Combined => "Linux kernel and its modules (boot/vmlinux, lib/modules)",
            Output::Headers => "Linux headers, for modules to be compiled against (usr/src),",
        };
        let mut labels = Labels::new();
        let mut label = |name: &str, value: String| labels.insert(name.to_owned(), value);
        label(ANNOTATION_TITLE, self.recipe.image(output).to_owned());
        label(ANNOTATION_DESCRIPTION, format!("{what} for microVMs, flavour {}", self.recipe.name));
        label(ANNOTATION_VERSION, pin.version.to_string());
        label(ANNOTATION_LICENSES, LICENCE.to_owned());
        if let Some(url) = self.lock.source_url(pin) {
            label(ANNOTATION_SOURCE, url);
        }
        label("io.imgbuild.role", output.name().to_owned());
        label("io.imgbuild.flavour", self.recipe.name.clone());
        label("io.imgbuild.kernel.release", release.to_owned());
        label("io.imgbuild.kernel.source", format!("sha256:{}", pin.sha256));
        labels
    }
}

/// Parses and merges a recipe's fragments for one kernel.
fn cell(
    recipe: &KernelRecipe,
    pin: &KernelPin,
    arch: Arch,
    toolchain: &Arc<Toolchain>,
    watch: &Watch,
) -> Result<Cell, Error> {
    if !recipe.arches().contains(&arch) {
        return Err(Error::NotForArch { flavour: recipe.name.clone(), arch });
    }
    let (mut requests, mut mistakes) = (Vec::new(), Vec::new());
    for file in recipe.fragments(arch) {
        match fragment::parse(&file.name, &file.text) {
            Ok(parsed) => requests.extend(parsed),
            Err(found) => mistakes.extend(found),
        }
    }
    if !mistakes.is_empty() {
        return Err(crate::kernel::Error::from(kconfig::Error::Fragments(mistakes)).into());
    }
    let requested = Requested::merge(requests, &pin.version, arch);
    for overridden in requested.overrides() {
        watch.reporter.note(Level::Detail, &overridden.to_string());
    }
    Ok(Cell { pin: pin.clone(), arch, requested: Arc::new(requested), toolchain: Arc::clone(toolchain) })
}

/// The absences a recipe accepts, in the kernel room's words.
pub(super) fn accepted(recipe: &KernelRecipe) -> Vec<Accepted> {
    let of = |absent: &Absent| {
        let reason = absent.reason.clone();
        absent.symbols.clone().into_iter().map(move |pattern| Accepted { pattern, reason: reason.clone() })
    };
    recipe.absent.iter().flat_map(of).collect()
}

pub(super) fn read_facts(kernel: &Path) -> std::io::Result<Facts> {
    Ok(serde_json::from_str(&fs::read_to_string(kernel.join("kernel.json"))?)?)
}
