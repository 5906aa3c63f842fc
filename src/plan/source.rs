//! The step that unpacks a kernel's source: once into the store, read by every kernel compiled from it.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};

use super::Error;
use super::kernel::Plan;
use crate::fetch::unpack::{Source, unpack};
use crate::lock::KernelPin;
use crate::step::{Check, Step, Watch};
use crate::store::Store;

/// The file beside the tree with the source's own date, in seconds since 1970.
const EPOCH: &str = "epoch";
/// The tree's directory.
const TREE: &str = "source";

/// Fetches and unpacks one source. The artifact: `source/` and `epoch`.
struct Unpack<'a> {
    plan: &'a Plan,
    pin: &'a KernelPin,
    store: &'a Store,
}

impl Step for Unpack<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "source"
    }

    fn record(&self) -> Value {
        json!({ "step": "source 1", "sha256": self.pin.sha256 })
    }

    fn name(&self) -> String {
        format!("linux-{}", self.pin.version)
    }

    fn check(&self) -> Check {
        Check::StampsAlone
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let fetched = self.plan.fetch(self.pin, self.store, watch)?;
        let source = unpack(&fetched.path, &self.name(), out, watch)?;
        fs::rename(source.root, out.join(TREE))?;
        Ok(fs::write(out.join(EPOCH), source.epoch.to_string())?)
    }
}

impl Plan {
    /// The unpacked source of a pin, from the store or made now. Nothing may be written to it.
    pub(super) fn source(&self, pin: &KernelPin, store: &Store, watch: &Watch) -> Result<Source, Error> {
        let artifact = store.get_or_make(&Unpack { plan: self, pin, store }, watch)?;
        let epoch = fs::read_to_string(artifact.path.join(EPOCH))?;
        let epoch = epoch.parse().map_err(std::io::Error::other)?;
        Ok(Source { root: artifact.path.join(TREE), epoch })
    }
}
