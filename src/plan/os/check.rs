//! The check of a finished root volume, before it gets a name.

use std::io::Read;
use std::path::Path;

use fs_err as fs;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use serde_json::{Value, json};

use crate::inspect::node::{self, Volume};
use crate::oci;
use crate::oci::source::{Named, Source, blob_error};
use crate::plan::Error;
use crate::plan::images::Member;
use crate::plan::pack::PackedLayer;
use crate::sandbox;
use crate::step::{Level, Step, Unit, Watch};
use crate::store::Store;

/// What could not be checked, a line each.
const NOTES: &str = "notes";

/// Checks a whole image as `imgbuild validate` does; the artifact is what could not be checked here.
pub(super) struct NodeCheck<'a> {
    pub(super) name: &'a str,
    pub(super) member: &'a Member,
}

impl NodeCheck<'_> {
    /// Fails if the image is not sound; tells what could not be checked on this host, each time.
    pub(super) fn require(&self, store: &Store, watch: &Watch) -> Result<(), Error> {
        let artifact = store.get_or_make(self, watch)?;
        let notes = fs::read_to_string(artifact.path.join(NOTES))?;
        notes.lines().for_each(|note| watch.reporter.note(Level::Warning, note));
        Ok(())
    }
}

impl Step for NodeCheck<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "check"
    }

    fn record(&self) -> Value {
        let runs = [sandbox::PROGRAM, "qemu-x86_64-static", "qemu-aarch64-static"];
        // Another imgbuild may look more closely.
        json!({
            "step": "check 1",
            "imgbuild": env!("CARGO_PKG_VERSION"),
            "manifest": self.member.image.manifest.descriptor.digest().to_string(),
            // Without these some programs are not asked for their versions.
            "runs": runs.map(|name| sandbox::find(name).is_some()).to_vec(),
        })
    }

    fn name(&self) -> String {
        format!("{} {}", self.name, self.member.arch)
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let progress = watch.reporter.begin("check", &self.name(), None, Unit::Files);
        let Member { arch, image, layers, .. } = self.member;
        let manifest: ImageManifest = parsed(&image.manifest.bytes)?;
        let config: ImageConfiguration = parsed(&image.config.bytes)?;
        let labels = config.labels_of_config().cloned().unwrap_or_default().into_iter().collect();
        let source = Loose { name: self.name(), layers };
        let volume = Volume { source: &source, layers: manifest.layers(), arch: *arch, labels: &labels };
        let report = node::check(&volume, &watch.cancel)?;
        if !report.findings.is_empty() {
            let findings = report.findings.iter().map(ToString::to_string).collect();
            return Err(Error::Unsound { image: self.name.to_owned(), arch: *arch, findings });
        }
        let notes: Vec<_> = report.notes.iter().map(ToString::to_string).collect();
        progress.finish("sound");
        Ok(fs::write(out.join(NOTES), notes.join("\n"))?)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    Ok(serde_json::from_slice(bytes).map_err(std::io::Error::from)?)
}

/// The layers of an image that has no layout yet.
struct Loose<'a> {
    name: String,
    layers: &'a [PackedLayer],
}

impl Source for Loose<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn named(&self) -> Result<Vec<Named>, oci::Error> {
        Ok(Vec::new())
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, oci::Error> {
        let digest = descriptor.digest().digest();
        let layer = self.layers.iter().find(|layer| layer.packed.digest == digest);
        let layer = layer.ok_or_else(|| blob_error(self, descriptor, "is none of its layers".into()))?;
        Ok(Box::new(fs::File::open(&layer.path)?))
    }

    fn blobs(&self) -> Result<Vec<Descriptor>, oci::Error> {
        Ok(Vec::new())
    }
}
