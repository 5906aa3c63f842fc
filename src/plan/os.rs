//! `imgbuild os`: from a request to root volumes, each a base layer, a Kubernetes layer and a configuration layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::image::{ANNOTATION_DESCRIPTION, ANNOTATION_TITLE, ANNOTATION_VERSION};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Error;
use super::images::{self, Built, Joined, Member};
use super::outline::{Line, line};
use super::pack::{PackedLayer, file_name};
use super::toolchain::Inputs;
use crate::arch::Arch;
use crate::digests::{Digests, Entry as Recorded};
use crate::fetch;
use crate::fetch::mirror::Mirrors;
use crate::lock::node::{NodeSet, PROGRAMS, Release};
use crate::lock::trees::TreePin;
use crate::lock::{ASSEMBLY, Base as PlaceBase, Lock};
use crate::oci::blocks::Packed;
use crate::oci::compression::Compression;
use crate::oci::image::{Labels, image};
use crate::oci::layer::{self, Content, Entry, Packing};
use crate::oci::layout::Layout;
use crate::recipe::{Catalogue, OsRecipe};
use crate::rootfs::base::{Base, Made, MakeBase, pin_name};
use crate::rootfs::clean::{Contents, RECORDS};
use crate::rootfs::overlay::Overlay;
use crate::rootfs::scan::Scan;
use crate::rootfs::{self, configuration, kubernetes};
use crate::step::{Check, Key, Step, Unit, Watch, hex, human};
use crate::store::Store;

/// The file with the paths of a layer, in its artifact.
const PATHS: &str = "paths.json";

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
            Some(path) if path.contains('/') || path.ends_with(".toml") => Self::File(path.into()),
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
        let recipe = system.recipe(catalogue)?;
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
        Ok(Self { recipe, nodes, arches, lock, mirrors, packing })
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
            pin: self.lock.tree(&pin_name(&self.recipe.name), arch).cloned(),
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
        Ok(TreePin { name: pin_name(&self.recipe.name), arch, packages })
    }

    fn inputs<'a>(&'a self, store: &'a Store) -> Inputs<'a> {
        Inputs { lock: &self.lock, mirrors: &self.mirrors, store }
    }

    /// The name of an image: the Kubernetes version is its tag, or the distribution's.
    fn image_name(&self, node: Option<&NodeSet>) -> String {
        format!("{}:{}", self.recipe.image, node.map_or(&self.recipe.version, |set| &set.version))
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
                    store,
                    watch,
                )?;
                let image = joined.entry(number).or_insert_with(|| Joined {
                    name: self.image_name(node.as_ref()),
                    labels: self.labels(node.as_ref()),
                    members: Vec::new(),
                });
                image.members.push(member);
            }
        }
        let images: Vec<_> = joined.into_values().collect();
        images::judge(&images, recorded, locked, watch)?;
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
        Ok(Member { arch, image, layers, entry })
    }

    /// The labels that all platforms of an image share.
    fn labels(&self, node: Option<&NodeSet>) -> Labels {
        let recipe = &self.recipe;
        let mut labels = Labels::new();
        let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
        label(ANNOTATION_TITLE, &recipe.image);
        label(ANNOTATION_DESCRIPTION, &recipe.description);
        label(ANNOTATION_VERSION, node.map_or(&recipe.version, |set| &set.version));
        label("io.imgbuild.role", "os");
        label("io.imgbuild.os.recipe", &recipe.name);
        label("io.imgbuild.os.version", &recipe.version);
        node.into_iter().for_each(|set| drop(label("io.imgbuild.kubernetes.version", &set.version)));
        labels
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

    /// What would be done, and what is done already; with `explain`, each step with its record.
    pub fn outline(&self, explain: bool, store: &Store) -> Result<Vec<Line>, Error> {
        let mut lines = Vec::new();
        for arch in &self.arches {
            let base = self.base(*arch);
            let nowhere = || unreachable!("an outline runs no step");
            let step: MakeBase<'_, Error> = MakeBase { base: &base, lock: self.lock.name(), place: &nowhere };
            let (kind, key) = (step.kind(), step.key());
            let pinned = base.pin.as_ref().map_or_else(
                || format!("{} as of {}, not pinned", base.archive.place, base.archive.snapshot),
                |pin| format!("{} pinned packages of {}", pin.packages.len(), base.archive.place),
            );
            let what = |what: &str| format!("{what} {arch}");
            lines.push(line("base", what(&base.name), pinned, &step, explain, store));
            let found = store.look(kind, key);
            let made = found
                .as_ref()
                .map(|(path, content)| Ok::<_, Error>((Made::of(path)?, *content)))
                .transpose()?;
            if let Some((made, content)) = &made {
                let step = self.base_layer(&base, *content, made);
                lines.push(line(
                    "pack",
                    what(&base.name),
                    "shared by every version".into(),
                    &step,
                    explain,
                    store,
                ));
            } else {
                lines.push(Line::plain(
                    "pack",
                    what(&base.name),
                    None,
                    "the base, when it is made".into(),
                    false,
                ));
            }
            for node in &self.nodes {
                self.outline_node(node.as_ref(), &base, made.as_ref(), explain, store, &mut lines)?;
            }
        }
        for node in &self.nodes {
            let platforms: Vec<_> = self.arches.iter().map(|arch| arch.oci()).collect();
            let input = format!("the layers for {}", platforms.join(" and "));
            lines.push(Line::plain("assemble", self.image_name(node.as_ref()), None, input, false));
        }
        Ok(lines)
    }

    fn outline_node(
        &self,
        node: Option<&NodeSet>,
        base: &Base,
        made: Option<&(Made, Key)>,
        explain: bool,
        store: &Store,
        lines: &mut Vec<Line>,
    ) -> Result<(), Error> {
        let (arch, epoch) = (base.arch, base.archive.epoch());
        let mut overlay = made.map(|(made, _)| Overlay::new(&made.contents));
        if let Some(set) = node {
            for release in releases(set, arch, &self.lock)? {
                let cached = fetch::is_cached(&store.downloads(), &release.file);
                let what = format!("{} {} {arch}", release.name, release.version);
                let input = format!("{} of {}", release.file.name(), release.file.place);
                lines.push(Line::plain("fetch", what, Some(release.file.sha256.clone()), input, cached));
            }
            let what = format!("Kubernetes {} {arch}", set.version);
            if let Some((made, content)) = made {
                let step = self.kubernetes_layer(set, arch, epoch, *content, &made.contents, store)?;
                let input = format!(
                    "containerd {}, runc {}",
                    set.version_of("containerd", arch),
                    set.version_of("runc", arch)
                );
                lines.push(line("pack", what, input, &step, explain, store));
                if let (Some(overlay), Some((path, _))) = (&mut overlay, store.look(step.kind(), step.key()))
                {
                    overlay.take(kubernetes::LAYER, &paths(&path)?);
                }
            } else {
                lines.push(Line::plain("pack", what, None, "the programs, over the base".into(), false));
            }
        }
        let what = format!("configuration of {} {arch}", self.recipe.name);
        if let (Some(mut overlay), Some((made, _))) = (overlay, made) {
            let entries =
                overlay.add(configuration::LAYER, configuration::entries(&self.recipe, &made.contents)?)?;
            let count = format!("{} entries of the recipe", entries.len());
            let step =
                ConfigurationLayer { name: &self.recipe.name, arch, entries, epoch, packing: self.packing };
            lines.push(line("pack", what, count, &step, explain, store));
        } else {
            lines.push(Line::plain("pack", what, None, "the recipe, over the base".into(), false));
        }
        Ok(())
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

fn paths(artifact: &Path) -> Result<Vec<String>, Error> {
    Ok(serde_json::from_slice(&fs::read(artifact.join(PATHS))?).map_err(std::io::Error::from)?)
}

/// Keeps what a step packed in its artifact.
fn keep(out: &Path, packed: &Packed, paths: &[String]) -> Result<(), Error> {
    fs::write(out.join("layer.json"), serde_json::to_string(packed).map_err(std::io::Error::from)?)?;
    Ok(fs::write(out.join(PATHS), serde_json::to_string(paths).map_err(std::io::Error::from)?)?)
}

/// What every layer's record has.
fn layer_record(role: &str, packing: Packing, epoch: u64) -> Value {
    let mut record = json!({ "step": format!("{role} layer 1"), "assembly": ASSEMBLY, "epoch": epoch });
    if packing.compression != Compression::Gzip {
        record["compression"] = json!(packing.compression);
    }
    record
}

/// Packs a base system.
struct BaseLayer<'a> {
    what: String,
    content: Key,
    tar: &'a Path,
    epoch: u64,
    packing: Packing,
}

impl Step for BaseLayer<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        let mut record = layer_record("base", self.packing, self.epoch);
        record["content"] = self.content.to_string().into();
        record
    }

    fn name(&self) -> String {
        format!("base {}", self.what)
    }

    fn check(&self) -> Check {
        Check::Stamps
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let progress = watch.reporter.begin("pack", &self.name(), None, Unit::Bytes);
        let tar = std::io::BufReader::with_capacity(1 << 18, fs::File::open(self.tar)?);
        let target = out.join(file_name(self.packing.compression));
        let packed = layer::write_stream(tar, self.epoch, &target, self.packing, watch)?;
        progress.finish(&human(packed.size));
        keep(out, &packed, &[])
    }
}

/// Brings a node's programs and packs them with their configuration.
struct KubernetesLayer<'a> {
    plan: &'a Plan,
    set: &'a NodeSet,
    arch: Arch,
    releases: Vec<&'a Release>,
    epoch: u64,
    content: Key,
    contents: &'a Contents,
    store: &'a Store,
}

impl KubernetesLayer<'_> {
    /// What the image says its programs are.
    fn account(&self) -> Value {
        let each = |release: &&Release| {
            let Release { name, version, file, .. } = release;
            let url = match self.plan.lock.place(&file.place) {
                Some(PlaceBase::Url(base)) => Some(crate::lock::join(base, &file.path)),
                _ => None,
            };
            json!({ "name": name, "version": version, "sha256": file.sha256, "url": url })
        };
        self.releases.iter().map(each).collect()
    }
}

impl Step for KubernetesLayer<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        let mut record = layer_record("kubernetes", self.plan.packing, self.epoch);
        record["base"] = self.content.to_string().into();
        record["programs"] = self.account();
        record["texts"] = json!(kubernetes::texts(self.set, self.arch));
        record
    }

    fn name(&self) -> String {
        format!("Kubernetes {} {}", self.set.version, self.arch)
    }

    fn check(&self) -> Check {
        Check::Stamps
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let Plan { lock, mirrors, packing, .. } = self.plan;
        let (mut files, mut kept) = (kubernetes::Releases::new(), Vec::new());
        for (name, release) in PROGRAMS.iter().zip(&self.releases) {
            let file = &release.file;
            let fetched = fetch::fetch(file, || mirrors.locate(lock, file), &self.store.downloads(), watch)?;
            files.insert(name, fetched.path.clone());
            kept.push(fetched);
        }
        let work = self.store.work()?;
        let mut uppers = kubernetes::entries(self.set, self.arch, &files, work.path(), &watch.cancel)?;
        let account = serde_json::to_vec_pretty(&self.account()).map_err(std::io::Error::from)?;
        uppers.push(Entry::new(format!("{RECORDS}/programs.json"), 0o644, Content::Bytes(account)).into());
        let progress = watch.reporter.begin("pack", &self.name(), None, Unit::Bytes);
        let entries = Overlay::new(self.contents).add(kubernetes::LAYER, uppers)?;
        let packed = write(entries, self.epoch, out, *packing, watch)?;
        progress.finish(&human(packed.size));
        Ok(())
    }
}

/// Packs entries and keeps their paths.
fn write(
    entries: Vec<Entry>,
    epoch: u64,
    out: &Path,
    packing: Packing,
    watch: &Watch,
) -> Result<Packed, Error> {
    let is_file = |entry: &&Entry| entry.content != Content::Directory;
    let path = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
    let paths: Vec<_> = entries.iter().filter(is_file).map(path).collect();
    let target = out.join(file_name(packing.compression));
    let packed = layer::write(entries, epoch, &target, packing, watch)?;
    keep(out, &packed, &paths)?;
    Ok(packed)
}

/// Packs what a recipe says.
struct ConfigurationLayer<'a> {
    name: &'a str,
    arch: Arch,
    entries: Vec<Entry>,
    epoch: u64,
    packing: Packing,
}

impl Step for ConfigurationLayer<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        let each = |entry: &Entry| {
            let content = match &entry.content {
                Content::Bytes(bytes) => json!({ "sha256": hex(&Sha256::digest(bytes)) }),
                Content::Symlink(target) => json!({ "link": String::from_utf8_lossy(target) }),
                _ => Value::Null,
            };
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            json!({ "path": path, "mode": entry.mode, "uid": entry.uid, "gid": entry.gid, "content": content })
        };
        let mut record = layer_record("configuration", self.packing, self.epoch);
        record["entries"] = self.entries.iter().map(each).collect();
        record
    }

    fn name(&self) -> String {
        format!("configuration of {} {}", self.name, self.arch)
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let mut scan = Scan::new();
        for entry in &self.entries {
            if let Content::Bytes(bytes) = &entry.content {
                let path = String::from_utf8_lossy(&entry.path);
                std::io::copy(&mut scan.reader(&path, &bytes[..]), &mut std::io::sink())?;
            }
        }
        let secrets = scan.findings(|_| false);
        if !secrets.is_empty() {
            return Err(rootfs::Error::Secrets(secrets).into());
        }
        let progress = watch.reporter.begin("pack", &self.name(), None, Unit::Bytes);
        let packed = write(self.entries.clone(), self.epoch, out, self.packing, watch)?;
        progress.finish(&human(packed.size));
        Ok(())
    }
}
