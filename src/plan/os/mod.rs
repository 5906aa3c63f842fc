//! `imgbuild os`: from a request to root volumes, each a base layer, a Kubernetes layer and a configuration layer.

mod check;
mod layers;
mod outline;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::{ANNOTATION_DESCRIPTION, ANNOTATION_TITLE, ANNOTATION_VERSION};
use serde_json::json;

use super::Error;
use super::account::{self, Asked};
use super::images::{self, Built, Joined, Member};
use super::kernel;
use super::pack::{PackedLayer, module_tree};
use super::toolchain::Inputs;
use super::workshop::Compiled;
use crate::arch::Arch;
use crate::attest::statement::{Definition, Run};
use crate::digests::{Digests, Entry as Recorded};
use crate::fetch::mirror::Mirrors;
use crate::lock::node::{NodeSet, PROGRAMS, Release};
use crate::lock::trees::TreePin;
use crate::lock::{Base as PlaceBase, Lock};
use crate::oci::compression::Compression;
use crate::oci::image::{Labels, image};
use crate::oci::layer::Packing;
use crate::oci::layout::Layout;
use crate::recipe::kernel::{ModulesOf, Output};
use crate::recipe::{Catalogue, Copied, Copier, OsRecipe, catalogue, copied};
use crate::rootfs::base::{Base, Made, MakeBase, pin_name};
use crate::rootfs::clean::Contents;
use crate::rootfs::overlay::Overlay;
use crate::rootfs::{configuration, kubernetes};
use crate::step::{Key, Step, Watch};
use crate::store::Store;
use check::NodeCheck;
use layers::{BaseLayer, ConfigurationLayer, KubernetesLayer, MODULES, ModulesLayer, paths};

/// Which recipe makes the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum System {
    /// The one that is the default.
    Default,
    /// One of the catalogue.
    Named(String),
    /// A file.
    File(PathBuf),
}

impl System {
    /// What an argument means: a path if it looks like one, else a name of the catalogue.
    pub fn of(argument: Option<&str>) -> Self {
        match argument {
            None => Self::Default,
            Some(path)
                if path.contains('/') || Path::new(path).extension().is_some_and(|ext| ext == "toml") =>
            {
                Self::File(path.into())
            }
            Some(name) => Self::Named(name.to_owned()),
        }
    }

    /// Its recipe.
    pub fn recipe(&self, catalogue: &Catalogue) -> Result<OsRecipe, Error> {
        Ok(match self {
            Self::Default => catalogue.default_system()?,
            Self::Named(name) => catalogue.system(name)?,
            Self::File(path) => catalogue.system_file(path)?,
        })
    }

    /// What a statement calls the recipe that this is.
    fn recorded(&self, recipe: &OsRecipe) -> String {
        match self {
            Self::File(path) => copied::own_name(path),
            Self::Default | Self::Named(_) => recipe.name.clone(),
        }
    }
}

/// A request with everything looked up and nothing done.
pub struct Plan {
    /// The recipe.
    pub recipe: OsRecipe,
    /// The Kubernetes versions, in the order asked for; one without for a system without.
    pub nodes: Vec<Option<NodeSet>>,
    /// The architectures.
    pub arches: Vec<Arch>,
    /// The lock the pins are from.
    pub lock: Lock,
    /// The mirrors to fetch from.
    pub mirrors: Mirrors,
    /// How layers are packed.
    pub packing: Packing,
    /// The kernel whose modules are in it, if any are.
    pub kernel: Option<kernel::Plan>,
    /// What the recipe is called in a statement, and the files that it was read from.
    recorded: (String, Copied),
}

impl Plan {
    /// Looks up recipe and pins. Without versions the recipe's newest is meant; `arches` as [`super::arches`] has them.
    pub fn new(
        system: &System,
        versions: &[String],
        arches: &[String],
        catalogue: &Catalogue,
        lock: Lock,
        mirrors: Mirrors,
        packing: Packing,
    ) -> Result<Self, Error> {
        let copier = Copier::default();
        let recipe = system.recipe(&catalogue.watched(&copier))?;
        let recorded = (system.recorded(&recipe), copier.copied());
        let arches = super::arches(arches, &Arch::ALL)?;
        if !versions.is_empty() && recipe.kubernetes.is_empty() {
            return Err(Error::NoKubernetes { recipe: recipe.name });
        }
        let newest = recipe.kubernetes.iter().max_by_key(|version| numbers(version)).cloned();
        let asked: Vec<_> =
            if versions.is_empty() { newest.into_iter().collect() } else { versions.to_vec() };
        let mut nodes = Vec::new();
        for version in &asked {
            let set = lock.node(version)?;
            if !recipe.kubernetes.contains(&set.version) {
                let (recipe, known) = (recipe.name, recipe.kubernetes);
                return Err(Error::OtherKubernetes { recipe, version: set.version.clone(), known });
            }
            for arch in &arches {
                releases(set, *arch, &lock)?;
            }
            if !nodes.contains(&Some(set.clone())) {
                nodes.push(Some(set.clone()));
            }
        }
        if nodes.is_empty() {
            nodes.push(None);
        }
        let mut plan = Self { recipe, nodes, arches, lock, mirrors, packing, kernel: None, recorded };
        if let Some(of) = plan.recipe.modules_of.clone() {
            plan.take_modules(&of, None, catalogue, &Watch::silent())?;
        }
        Ok(plan)
    }

    /// Has a kernel's modules in it, compiled with this toolchain or the default of its series.
    pub fn take_modules(
        &mut self,
        of: &ModulesOf,
        toolchain: Option<&str>,
        catalogue: &Catalogue,
        watch: &Watch,
    ) -> Result<(), Error> {
        let Self { recipe, arches, lock, mirrors, packing, .. } = self;
        if recipe.modules_of.is_none() && recipe.combined == recipe.image {
            let outputs = ["plain image".to_owned(), "image with modules".to_owned()];
            return Err(Error::SameName { recipe: recipe.name.clone(), name: recipe.image.clone(), outputs });
        }
        let request = kernel::Request {
            versions: vec![of.version.clone()],
            arches: arches.iter().map(|arch| arch.name().to_owned()).collect(),
            flavour: of.flavour.clone().map_or(kernel::Flavour::Default, kernel::Flavour::Named),
            toolchain: toolchain.map(str::to_owned),
            outputs: vec![Output::Modules],
        };
        let (lock, mirrors) = (lock.clone(), mirrors.clone());
        let mut plan = kernel::Plan::new(&request, catalogue, lock, mirrors, packing.threads, watch)?;
        plan.compression = packing.compression;
        for (name, bytes) in plan.recorded.1.files() {
            self.recorded.1.add(name, &String::from_utf8_lossy(&bytes));
        }
        self.kernel = Some(plan);
        Ok(())
    }

    /// The base system for an architecture.
    pub fn base(&self, arch: Arch) -> Base {
        let archive = self.mirrors.held(&self.recipe.archive(arch));
        let url = match self.lock.place(&archive.place) {
            Some(PlaceBase::Url(url)) if url.starts_with("http") => Some(url.clone()),
            _ => None,
        };
        Base {
            name: self.recipe.name.clone(),
            packages: self.recipe.packages(arch).into_iter().map(str::to_owned).collect(),
            arch,
            pin: self.lock.tree(&pin_name(&self.recipe.base), arch).cloned(),
            named: self.mirrors.named(&archive.place).map(str::to_owned),
            archive,
            url,
        }
    }

    /// What the archive has for a base now: the set to be written into a lock.
    pub fn refresh(&self, arch: Arch, store: &Store, watch: &Watch) -> Result<TreePin, Error> {
        let base = self.base(arch);
        let place = self.inputs(store).base(&base.archive, watch)?;
        let work = store.work()?;
        let (_, packages) = base.make(&work.path().join("root.tar"), &place, watch)?;
        Ok(TreePin { name: pin_name(&self.recipe.base), arch, packages })
    }

    fn inputs<'a>(&'a self, store: &'a Store) -> Inputs<'a> {
        Inputs { lock: &self.lock, mirrors: &self.mirrors, store }
    }

    /// The name of the images without their tag.
    pub(in crate::plan) fn repository(&self) -> &str {
        if self.kernel.is_some() { &self.recipe.combined } else { &self.recipe.image }
    }

    /// The name of an image: the Kubernetes version is its tag, or the distribution's.
    fn image_name(&self, node: Option<&NodeSet>) -> String {
        let (recipe, image) = (&self.recipe, self.repository());
        format!("{image}:{}", node.map_or(&recipe.version, |set| &set.version))
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
        // What can be refused is refused before minutes of work.
        Layout::check_output(output)?;
        let kernels = self.kernel.as_ref().map(|kernel| kernel.compiled(store, watch)).transpose()?;
        let run = Run::begin();
        let mut joined: BTreeMap<usize, Joined> = BTreeMap::new();
        for arch in &self.arches {
            let base = self.base(*arch);
            let place = || self.inputs(store).base(&base.archive, watch);
            let artifact =
                store.get_or_make(&MakeBase { base: &base, lock: self.lock.name(), place: &place }, watch)?;
            let made = Made::of(&artifact.path)?;
            let bottom = self.base_layer(&base, artifact.content, &made);
            let bottom = PackedLayer::of(&store.get_or_make(&bottom, watch)?)?;
            for (number, node) in self.nodes.iter().enumerate() {
                let member = self.member(
                    &base,
                    artifact.content,
                    &made.contents,
                    &bottom,
                    node.as_ref(),
                    kernels.as_ref().and_then(|kernels| kernels.get(arch)),
                    store,
                    watch,
                )?;
                let name = self.image_name(node.as_ref());
                let image = joined.entry(number).or_insert_with(|| Joined {
                    labels: self.labels(node.as_ref()),
                    members: Vec::new(),
                    alias: kernels.is_some().then(|| images::arm_name(&name)),
                    name,
                });
                image.members.push(member);
            }
        }
        let images: Vec<_> = joined.into_values().collect();
        for image in &images {
            for member in &image.members {
                NodeCheck { name: &image.name, member }.require(store, watch)?;
            }
        }
        images::judge(&images, recorded, locked, watch)?;
        account::keep(&images, &run.end(), store, watch)?;
        images::assemble(&images, recorded, output)
    }

    #[expect(clippy::too_many_arguments, reason = "what one platform of an image is made of")]
    fn member(
        &self,
        base: &Base,
        content: Key,
        contents: &Contents,
        bottom: &PackedLayer,
        node: Option<&NodeSet>,
        kernel: Option<&Compiled>,
        store: &Store,
        watch: &Watch,
    ) -> Result<Member, Error> {
        let (arch, epoch) = (base.arch, base.archive.epoch());
        let mut overlay = Overlay::new(contents);
        let mut layers = vec![bottom.clone()];
        let mut record = json!({ "base": base.record() });
        if let Some(set) = node {
            let step = self.kubernetes_layer(set, arch, epoch, content, contents, store)?;
            record["kubernetes"] = step.record();
            let artifact = store.get_or_make(&step, watch)?;
            overlay.take(kubernetes::LAYER, &paths(&artifact.path)?);
            layers.push(PackedLayer::of(&artifact)?);
        }
        let uppers = configuration::entries(&self.recipe, contents)?;
        let entries = overlay.add(configuration::LAYER, uppers)?;
        if !entries.is_empty() {
            let step =
                ConfigurationLayer { name: &self.recipe.name, arch, entries, epoch, packing: self.packing };
            record["configuration"] = step.record();
            layers.push(PackedLayer::of(&store.get_or_make(&step, watch)?)?);
        }
        if let Some(kernel) = kernel {
            let (entries, _) = module_tree(&kernel.artifact.path, &kernel.facts)?;
            let entries = overlay.add(MODULES, entries.into_iter().map(Into::into).collect())?;
            let step = ModulesLayer { kernel, arch, entries, packing: self.packing };
            record["modules"] = step.record();
            layers.push(PackedLayer::of(&store.get_or_make(&step, watch)?)?);
        }
        let mut labels = self.labels(node);
        labels.insert("io.imgbuild.architecture".into(), arch.name().into());
        if let Some(set) = node {
            for name in ["containerd", "runc"] {
                labels.insert(format!("io.imgbuild.{name}.version"), set.version_of(name, arch).to_owned());
            }
        }
        let packed: Vec<_> = layers.iter().map(|layer| &layer.packed).collect();
        let image = image(arch, epoch, &packed, &labels);
        let digest = image.manifest.descriptor.digest().as_ref();
        let entry = Recorded::new(&self.image_name(node), arch.oci(), &self.recipe.name, digest, &record);
        let definition = self.definition(base, node)?;
        Ok(Member { arch, image, layers, entry, definition })
    }

    /// What a root volume is made from.
    fn definition(&self, base: &Base, node: Option<&NodeSet>) -> Result<Definition, Error> {
        let (recipe, files) = &self.recorded;
        let mut catalogue = files.clone();
        catalogue.add(catalogue::LOCK, self.lock.text());
        let (arch, compression) = (base.arch, self.packing.compression);
        let mut command = format!("imgbuild os --recipe {recipe} --arch {arch}");
        node.iter().for_each(|set| command += &format!(" --k8s {}", set.version));
        let cells = || self.kernel.iter().flat_map(kernel::Plan::cells).filter(|cell| cell.arch == arch);
        let toolchain = cells().map(|cell| cell.toolchain.name().to_owned()).next();
        let flavour = self.kernel.as_ref().map(|kernel| &kernel.recipe.name);
        let modules_of =
            flavour.zip(cells().next()).map(|(flavour, cell)| format!("{flavour}/{}", cell.pin.version));
        if let (Some(of), Some(toolchain)) = (&modules_of, &toolchain) {
            command += &format!(" --modules-of {of} --toolchain {toolchain}");
        }
        if compression != Compression::Gzip {
            command += &format!(" --compression {compression}");
        }
        let asked = Asked {
            outputs: Vec::new(),
            modules_of,
            command,
            image: self.image_name(node),
            architecture: arch.oci().to_owned(),
            recipe: recipe.clone(),
            version: node.map(|set| set.version.clone()),
            toolchain,
            compression: compression.to_string(),
            catalogue,
        };
        let packages = base.pin.iter().flat_map(|pin| &pin.packages).cloned().collect::<Vec<_>>();
        let mut inputs = account::packages(&packages, &base.archive.place, "base");
        if let Some(set) = node {
            for release in releases(set, arch, &self.lock)? {
                let Release { name, version, file, .. } = release;
                inputs.push(account::file(file, name, version, "program", &self.lock));
            }
        }
        for (kernel, cell) in self.kernel.iter().flat_map(|kernel| cells().map(move |cell| (kernel, cell))) {
            inputs.extend(kernel.materials(cell));
        }
        let archive = &base.archive;
        let more = json!({
            "hermetic": base.pin.is_some(),
            "archive": {
                "place": archive.place,
                "snapshot": archive.snapshot,
                "suites": archive.suites,
                "components": archive.components,
            },
        });
        Ok(account::definition(account::OS, &asked, more, inputs))
    }

    /// The labels that all platforms of an image share.
    pub(in crate::plan) fn labels(&self, node: Option<&NodeSet>) -> Labels {
        let recipe = &self.recipe;
        let mut labels = Labels::new();
        let mut label = |name: &str, value: &str| drop(labels.insert(name.to_owned(), value.to_owned()));
        label(ANNOTATION_TITLE, self.repository());
        label(ANNOTATION_DESCRIPTION, &recipe.description);
        label(ANNOTATION_VERSION, node.map_or(&recipe.version, |set| &set.version));
        label("io.imgbuild.role", "os");
        label("io.imgbuild.os.recipe", &recipe.name);
        label("io.imgbuild.os.version", &recipe.version);
        if let Some(kernel) = &self.kernel {
            label("io.imgbuild.flavour", &kernel.recipe.name);
            let releases = kernel.sources.iter().map(|(pin, _)| pin.version.release());
            releases.for_each(|release| label("io.imgbuild.kernel.release", &release));
        }
        node.into_iter().for_each(|set| label("io.imgbuild.kubernetes.version", &set.version));
        node.into_iter().for_each(|set| label("io.imgbuild.kubernetes.pause", &set.pause));
        labels
    }

    /// The release files of a node's programs, for a record.
    pub(in crate::plan) fn programs(&self, set: &NodeSet, arch: Arch) -> Result<serde_json::Value, Error> {
        Ok(self.account(&releases(set, arch, &self.lock)?))
    }

    fn base_layer<'a>(&self, base: &Base, content: Key, made: &'a Made) -> BaseLayer<'a> {
        let what = format!("{} {}", base.name, base.arch);
        BaseLayer { what, content, tar: &made.tar, epoch: base.archive.epoch(), packing: self.packing }
    }

    fn kubernetes_layer<'a>(
        &'a self,
        set: &'a NodeSet,
        arch: Arch,
        epoch: u64,
        content: Key,
        contents: &'a Contents,
        store: &'a Store,
    ) -> Result<KubernetesLayer<'a>, Error> {
        let releases = releases(set, arch, &self.lock)?;
        Ok(KubernetesLayer { plan: self, set, arch, releases, epoch, content, contents, store })
    }
}

/// The release files of a node's programs.
fn releases<'l>(set: &NodeSet, arch: Arch, lock: &'l Lock) -> Result<Vec<&'l Release>, Error> {
    let of = |name: &&str| Ok(lock.release(name, set.version_of(name, arch), arch)?);
    PROGRAMS.iter().map(of).collect()
}

/// The numbers of a version, to compare it by.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}
