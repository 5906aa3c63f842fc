//! The steps that pack the layers of a root volume.

use std::path::Path;

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Plan;
use crate::arch::Arch;
use crate::fetch;
use crate::lock::node::{NodeSet, PROGRAMS, Release};
use crate::lock::{ASSEMBLY, Base as PlaceBase};
use crate::oci::blocks::Packed;
use crate::oci::compression::Compression;
use crate::oci::layer::{self, Content, Entry, Packing};
use crate::plan::Error;
use crate::plan::pack::file_name;
use crate::plan::workshop::Compiled;
use crate::rootfs::clean::{Contents, RECORDS};
use crate::rootfs::overlay::Overlay;
use crate::rootfs::scan::Scan;
use crate::rootfs::{self, kubernetes};
use crate::step::{Check, Key, Step, Unit, Watch, hex, human};
use crate::store::Store;

/// The file with the paths of a layer, in its artifact.
const PATHS: &str = "paths.json";

/// The paths of a layer in the store.
pub(super) fn paths(artifact: &Path) -> Result<Vec<String>, Error> {
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
pub(super) struct BaseLayer<'a> {
    pub(super) what: String,
    pub(super) content: Key,
    pub(super) tar: &'a Path,
    pub(super) epoch: u64,
    pub(super) packing: Packing,
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
pub(super) struct KubernetesLayer<'a> {
    pub(super) plan: &'a Plan,
    pub(super) set: &'a NodeSet,
    pub(super) arch: Arch,
    pub(super) releases: Vec<&'a Release>,
    pub(super) epoch: u64,
    pub(super) content: Key,
    pub(super) contents: &'a Contents,
    pub(super) store: &'a Store,
}

impl Plan {
    /// Release files with their versions, hashes and where they are published.
    pub(super) fn account(&self, releases: &[&Release]) -> Value {
        let each = |release: &&Release| {
            let Release { name, version, file, .. } = release;
            let url = match self.lock.place(&file.place) {
                Some(PlaceBase::Url(base)) => Some(crate::lock::join(base, &file.path)),
                _ => None,
            };
            json!({ "name": name, "version": version, "sha256": file.sha256, "url": url })
        };
        releases.iter().map(each).collect()
    }
}

impl KubernetesLayer<'_> {
    /// What the image says its programs are.
    fn account(&self) -> Value {
        self.plan.account(&self.releases)
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
pub(super) struct ConfigurationLayer<'a> {
    pub(super) name: &'a str,
    pub(super) arch: Arch,
    pub(super) entries: Vec<Entry>,
    pub(super) epoch: u64,
    pub(super) packing: Packing,
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

/// What messages call the layer with a kernel's modules.
pub(super) const MODULES: &str = "the modules layer";

/// Packs a kernel's modules where a base has them.
pub(super) struct ModulesLayer<'a> {
    /// The kernel.
    pub(super) kernel: &'a Compiled,
    pub(super) arch: Arch,
    /// Its modules over the layers below.
    pub(super) entries: Vec<Entry>,
    pub(super) packing: Packing,
}

impl Step for ModulesLayer<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        let mut record = layer_record("root modules", self.packing, self.kernel.facts.epoch);
        record["kernel"] = self.kernel.artifact.content.to_string().into();
        let path = |entry: &Entry| String::from_utf8_lossy(&entry.path).into_owned();
        record["paths"] = self.entries.iter().map(path).collect();
        record
    }

    fn name(&self) -> String {
        format!("modules of Linux {} {} in a root", self.kernel.facts.release, self.arch)
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let what = format!("modules {} {}", self.kernel.facts.release, self.arch);
        let progress = watch.reporter.begin("pack", &what, None, Unit::Bytes);
        let packed = write(self.entries.clone(), self.kernel.facts.epoch, out, self.packing, watch)?;
        progress.finish(&human(packed.size));
        Ok(())
    }
}
