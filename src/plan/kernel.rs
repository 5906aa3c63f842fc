//! `imgbuild kernel`: from a request to two multi-architecture images in an OCI layout.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use oci_spec::image::{
    ANNOTATION_DESCRIPTION, ANNOTATION_LICENSES, ANNOTATION_SOURCE, ANNOTATION_TITLE, ANNOTATION_VERSION,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Error;
use super::account::{self, Asked};
use super::images::Built;
use super::images::{self, Joined, Member};
use super::pack::{Pack, PackedLayer, Role};
use super::toolchain::{Identities, Toolchain};
use crate::arch::Arch;
use crate::attest::statement::{Definition, Run};
use crate::digests::{Digests, Entry};
use crate::fetch;
use crate::fetch::mirror::Mirrors;
use crate::fetch::unpack::Source;
use crate::kernel::kconfig::{self, Accepted, Requested, fragment};
use crate::kernel::{Compile, Facts, Site};
use crate::lock::{KernelPin, Lock};
use crate::oci::compression::Compression;
use crate::oci::image::{Labels, image};
use crate::oci::layer::Packing;
use crate::oci::layout::Layout;
use crate::recipe::kernel::Absent;
use crate::recipe::{Catalogue, Copied, Copier, KernelRecipe, catalogue, copied};
use crate::step::{Level, Step, Watch, hex};
use crate::store::{Store, Work};
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
    /// The lock the pins are from.
    pub lock: Lock,
    /// The mirrors to fetch from.
    pub mirrors: Mirrors,
    /// How layers are compressed.
    pub compression: Compression,
    /// How many jobs make runs at once, and how many threads compress.
    pub jobs: usize,
    /// What the recipe is called in a statement, and the files that it was read from.
    recorded: (String, Copied),
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
            let cells = arches.iter().map(cell).collect::<Result<_, _>>()?;
            sources.push((pin, cells));
        }
        let recorded = (recorded.0, recorded.1.copied());
        Ok(Self { recipe, sources, lock, mirrors, compression: Compression::Gzip, jobs, recorded })
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

    /// The names of the images of a source, kernel first.
    pub(super) fn image_names(&self, pin: &KernelPin) -> [(Role, String); 2] {
        let tagged = |repository: &str| format!("{repository}:{}", pin.version);
        [
            (Role::Kernel, tagged(&self.recipe.kernel_image)),
            (Role::Modules, tagged(&self.recipe.modules_image)),
        ]
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
        let workshop = Workshop { plan: self, pin, store, watch, opened: OnceCell::new() };
        let mut images = BTreeMap::new();
        for cell in cells {
            let site = || workshop.site(cell, toolchains);
            let identity = &toolchains[&cell.tools()];
            let step = self.compile(cell, identity, &site);
            let kernel = store.get_or_make(&step, watch)?;
            let facts: Facts = read_facts(&kernel.path)?;
            self.tell_absences(&facts, cell, watch);
            let config = fs::read(kernel.path.join("boot").join(format!("config-{}", facts.release)))?;
            let config_digest = format!("sha256:{}", hex(&Sha256::digest(&config)));
            for (role, name) in self.image_names(pin) {
                if role == Role::Modules && !facts.modules {
                    continue;
                }
                let content = kernel.content;
                let pack = Pack {
                    kernel: &kernel.path,
                    content,
                    facts: &facts,
                    arch: cell.arch,
                    flavour: &self.recipe.name,
                    role,
                    packing: self.packing(),
                };
                let layer = PackedLayer::of(&store.get_or_make(&pack, watch)?)?;
                let mut labels = self.labels(pin, role, &facts.release);
                labels.insert("io.imgbuild.kernel.config".into(), config_digest.clone());
                labels.insert("io.imgbuild.toolchain".into(), cell.toolchain.label(identity));
                labels.insert("io.imgbuild.architecture".into(), cell.arch.name().into());
                let image = image(cell.arch, facts.epoch, &[&layer.packed], &labels);
                let digest = image.manifest.descriptor.digest().as_ref();
                let recorded =
                    Entry::new(&name, cell.arch.oci(), cell.toolchain.name(), digest, &step.record());
                let definition = self.definition(cell, identity, &name);
                let joined = images.entry(name.clone()).or_insert_with(|| {
                    let labels = self.labels(pin, role, &facts.release);
                    Joined { name, labels, members: Vec::new() }
                });
                let layers = vec![layer];
                joined.members.push(Member { arch: cell.arch, image, layers, entry: recorded, definition });
            }
        }
        Ok(images.into_values().collect())
    }

    /// What an image of a kernel is made from.
    fn definition(&self, cell: &Cell, identity: &Value, image: &str) -> Definition {
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
        if self.compression != Compression::Gzip {
            command += &format!(" --compression {}", self.compression);
        }
        let asked = Asked {
            command,
            image: image.to_owned(),
            architecture: arch.oci().to_owned(),
            recipe: recipe.clone(),
            version: Some(version.to_string()),
            toolchain: Some(toolchain.to_owned()),
            compression: self.compression.to_string(),
            catalogue,
        };
        let source = account::file(&cell.pin.file(), "linux", &version.to_string(), "source", &self.lock);
        let mut inputs = vec![source];
        if let Toolchain::Tree(tree) = &*cell.toolchain {
            let packages = tree.pin.iter().flat_map(|pin| &pin.packages).cloned().collect::<Vec<_>>();
            inputs.extend(account::packages(&packages, &tree.recipe.archive.place, "toolchain"));
        }
        let more = serde_json::json!({
            "hermetic": matches!(&*cell.toolchain, Toolchain::Tree(tree) if tree.pin.is_some()),
            "toolchain": identity,
        });
        account::definition(account::KERNEL, &asked, more, inputs)
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
    fn labels(&self, pin: &KernelPin, role: Role, release: &str) -> Labels {
        let (repository, what) = match role {
            Role::Kernel => (&self.recipe.kernel_image, "Linux kernel (boot/vmlinux)"),
            Role::Modules => (&self.recipe.modules_image, "Linux kernel modules (lib/modules)"),
        };
        let mut labels = Labels::new();
        let mut label = |name: &str, value: String| labels.insert(name.to_owned(), value);
        label(ANNOTATION_TITLE, repository.clone());
        label(ANNOTATION_DESCRIPTION, format!("{what} for microVMs, flavour {}", self.recipe.name));
        label(ANNOTATION_VERSION, pin.version.to_string());
        label(ANNOTATION_LICENSES, LICENCE.to_owned());
        if let Some(url) = self.lock.source_url(pin) {
            label(ANNOTATION_SOURCE, url);
        }
        label("io.imgbuild.role", role.name().to_owned());
        label("io.imgbuild.flavour", self.recipe.name.clone());
        label("io.imgbuild.kernel.release", release.to_owned());
        label("io.imgbuild.kernel.source", format!("sha256:{}", pin.sha256));
        labels
    }
}

/// Where the kernels of a source are compiled: brought when the first of them needs it, and shared.
struct Workshop<'p> {
    plan: &'p Plan,
    pin: &'p KernelPin,
    store: &'p Store,
    watch: &'p Watch,
    opened: OnceCell<(Work, Source)>,
}

impl Workshop<'_> {
    fn site(&self, cell: &Cell, toolchains: &Identities) -> Result<Site, Error> {
        let (work, source) = if let Some(opened) = self.opened.get() {
            opened
        } else {
            let source = self.plan.source(self.pin, self.store, self.watch)?;
            let work = self.store.work()?;
            self.opened.get_or_init(|| (work, source))
        };
        let nowhere = || unreachable!("only the key is asked for");
        let key = self.plan.compile(cell, &toolchains[&cell.tools()], &nowhere).key();
        let log = self.store.log(&format!("kernel-{}-{}", cell.pin.version, cell.arch), key);
        fs::write(&log, "")?;
        let build = work.path().join(format!("build-{}", cell.arch));
        let inputs = self.plan.inputs(self.store);
        let sandbox = cell.toolchain.sandbox(&source.root, &build, inputs, self.watch)?;
        let (source, epoch, jobs) = (source.root.clone(), source.epoch, self.plan.jobs);
        Ok(Site { source, epoch, build, log, sandbox, jobs })
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
