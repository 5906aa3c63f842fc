//! Where the kernels of a source are compiled, and what they are put into.

use std::cell::OnceCell;
use std::path::PathBuf;

use fs_err as fs;
use sha2::{Digest, Sha256};

use super::Error;
use super::headers::HeadersLayer;
use super::images::Member;
use super::kernel::{Cell, Plan, read_facts};
use super::pack::{Pack, PackedLayer, Role};
use super::toolchain::Identities;
use crate::digests::Entry;
use crate::fetch::unpack::Source;
use crate::kernel::headers::{SYMBOLS, Symbols};
use crate::kernel::{Facts, Site};
use crate::lock::KernelPin;
use crate::oci::image::image;
use crate::recipe::kernel::Output;
use crate::step::{Step, Watch, hex};
use crate::store::{Artifact, Store, Work};

/// What is compiled in a build directory: the kernel.
const KERNEL: &str = "kernel";
/// Or what its headers need.
const HEADERS: &str = "headers";

/// Where the kernels of a source are compiled: brought when the first of them needs it, and shared.
pub(super) struct Workshop<'p> {
    plan: &'p Plan,
    pin: &'p KernelPin,
    toolchains: &'p Identities,
    store: &'p Store,
    watch: &'p Watch,
    opened: OnceCell<(Work, Source)>,
}

/// A compiled kernel.
pub(super) struct Compiled {
    /// Where it is in the store.
    pub(super) artifact: Artifact,
    /// What it says about itself.
    pub(super) facts: Facts,
}

impl<'p> Workshop<'p> {
    /// A workshop in which nothing is yet.
    pub(super) fn new(
        plan: &'p Plan,
        pin: &'p KernelPin,
        toolchains: &'p Identities,
        store: &'p Store,
        watch: &'p Watch,
    ) -> Self {
        Self { plan, pin, toolchains, store, watch, opened: OnceCell::new() }
    }

    /// A kernel, from the store or compiled now.
    pub(super) fn kernel(&self, cell: &Cell) -> Result<Compiled, Error> {
        let site = || self.site(cell, KERNEL);
        let step = self.plan.compile(cell, &self.toolchains[&cell.tools()], &site);
        let artifact = self.store.get_or_make(&step, self.watch)?;
        let facts = read_facts(&artifact.path)?;
        // While the build directory is there: later nobody could tell without compiling again.
        let symbols = self.symbols(cell, &site);
        if facts.modules && symbols.built.is_some() {
            self.store.get_or_make(&symbols, self.watch)?;
        }
        Ok(Compiled { artifact, facts })
    }

    /// One platform of an image of a kernel.
    pub(super) fn member(
        &self,
        cell: &Cell,
        kernel: &Compiled,
        output: Output,
        name: &str,
    ) -> Result<Member, Error> {
        let Compiled { artifact, facts } = kernel;
        let identity = &self.toolchains[&cell.tools()];
        let site = || self.site(cell, KERNEL);
        let mut record = self.plan.compile(cell, identity, &site).record();
        let layers = match output {
            Output::Kernel => vec![self.packed(cell, kernel, Role::Kernel)?],
            Output::Modules => vec![self.packed(cell, kernel, Role::Modules)?],
            // The very layers of the other two images: a registry that has those has all of this one.
            Output::Combined => {
                vec![self.packed(cell, kernel, Role::Kernel)?, self.packed(cell, kernel, Role::Modules)?]
            }
            Output::Headers => {
                let prepared = || self.site(cell, HEADERS);
                let compile = self.plan.compile(cell, identity, &prepared);
                let symbols = &self.symbols(cell, &site);
                let packing = self.plan.packing();
                let step = HeadersLayer { compile, symbols, packing, store: self.store };
                record = step.record();
                vec![PackedLayer::of(&self.store.get_or_make(&step, self.watch)?)?]
            }
        };
        let config = fs::read(artifact.path.join("boot").join(format!("config-{}", facts.release)))?;
        let mut labels = self.plan.labels(self.pin, output, &facts.release);
        let mut label = |name: &str, value: String| labels.insert(name.to_owned(), value);
        label("io.imgbuild.kernel.config", format!("sha256:{}", hex(&Sha256::digest(&config))));
        label("io.imgbuild.toolchain", cell.toolchain.label(identity));
        label("io.imgbuild.architecture", cell.arch.name().to_owned());
        let packed: Vec<_> = layers.iter().map(|layer| &layer.packed).collect();
        let image = image(cell.arch, facts.epoch, &packed, &labels);
        let digest = image.manifest.descriptor.digest().as_ref();
        let entry = Entry::new(name, cell.arch.oci(), cell.toolchain.name(), digest, &record);
        let definition = self.plan.definition(cell, identity, output, name);
        Ok(Member { arch: cell.arch, image, layers, entry, definition })
    }

    fn packed(&self, cell: &Cell, kernel: &Compiled, role: Role) -> Result<PackedLayer, Error> {
        let Compiled { artifact, facts } = kernel;
        let (content, packing) = (artifact.content, self.plan.packing());
        let flavour = &self.plan.recipe.name;
        let pack = Pack { kernel: &artifact.path, content, facts, arch: cell.arch, flavour, role, packing };
        Ok(PackedLayer::of(&self.store.get_or_make(&pack, self.watch)?)?)
    }

    /// The step that keeps what a kernel exports.
    fn symbols<'a>(&self, cell: &Cell, site: &'a dyn Fn() -> Result<Site, Error>) -> Symbols<'a, Error> {
        let built = self.opened.get().map(|(work, _)| build(work, cell, KERNEL));
        let built = built.filter(|built| built.join(SYMBOLS).is_file());
        Symbols { compile: self.plan.compile(cell, &self.toolchains[&cell.tools()], site), built }
    }

    /// Where a kernel is compiled, or its headers are made.
    fn site(&self, cell: &Cell, what: &str) -> Result<Site, Error> {
        let (work, source) = if let Some(opened) = self.opened.get() {
            opened
        } else {
            let source = self.plan.source(self.pin, self.store, self.watch)?;
            let work = self.store.work()?;
            self.opened.get_or_init(|| (work, source))
        };
        let nowhere = || unreachable!("only the key is asked for");
        let key = self.plan.compile(cell, &self.toolchains[&cell.tools()], &nowhere).key();
        let log = self.store.log(&format!("{what}-{}-{}", cell.pin.version, cell.arch), key);
        fs::write(&log, "")?;
        let build = build(work, cell, what);
        let inputs = self.plan.inputs(self.store);
        let sandbox = cell.toolchain.sandbox(&source.root, &build, inputs, self.watch)?;
        let (source, epoch, jobs) = (source.root.clone(), source.epoch, self.plan.jobs);
        Ok(Site { source, epoch, build, log, sandbox, jobs })
    }
}

/// The build directory of a kernel or of its headers.
fn build(work: &Work, cell: &Cell, what: &str) -> PathBuf {
    let room = if what == KERNEL { "build" } else { what };
    work.path().join(format!("{room}-{}", cell.arch))
}
