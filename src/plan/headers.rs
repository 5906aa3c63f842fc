//! The step that packs what external modules are compiled against.

use std::path::Path;

use fs_err as fs;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Error;
use super::pack::file_name;
use crate::kernel::headers::{self, File, Source, Symbols};
use crate::kernel::{Compile, Site};
use crate::lock::ASSEMBLY;
use crate::oci::compression::Compression;
use crate::oci::layer::{self, Content, Entry, Packing};
use crate::step::{Step, Unit, Watch, hex, human};
use crate::store::Store;

/// Prepares and packs the headers of a kernel. The artifact is a layer, as [`super::pack::Pack`] makes them.
pub(super) struct HeadersLayer<'a> {
    /// The kernel; its site is where the headers are made.
    pub(super) compile: Compile<'a, Error>,
    /// What keeps its exported symbols.
    pub(super) symbols: &'a Symbols<'a, Error>,
    /// How it is compressed.
    pub(super) packing: Packing,
    /// The store.
    pub(super) store: &'a Store,
}

impl Step for HeadersLayer<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        let mut record = self.compile.record();
        record["step"] = "headers layer 1".into();
        record["assembly"] = ASSEMBLY.into();
        record["makefile"] = hex(&Sha256::digest(headers::PROGRAMS)).into();
        if self.packing.compression != Compression::Gzip {
            record["compression"] = serde_json::json!(self.packing.compression);
        }
        record
    }

    fn name(&self) -> String {
        format!("headers of {}", self.compile.name())
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let symbols = self.store.get_or_make(self.symbols, watch)?;
        let site: Site = (self.compile.site)()?;
        let files = headers::tree(&self.compile, &site, &symbols.path, watch)?;
        let what = format!("headers {} {}", self.compile.version.release(), self.compile.arch);
        let progress = watch.reporter.begin("pack", &what, None, Unit::Bytes);
        let release = self.compile.version.release();
        let target = out.join(file_name(self.packing.compression));
        let entries = entries(&release, files);
        let packed = layer::write(entries, site.epoch, &target, self.packing, watch)?;
        fs::write(out.join("layer.json"), serde_json::to_string(&packed).map_err(std::io::Error::from)?)?;
        progress.finish(&human(packed.size));
        Ok(())
    }
}

/// The tree where Debian has it, and the link by which module makefiles find it. All below `usr`, which is where `lib`
/// leads in every system of today, so that the image can be copied into a root.
fn entries(release: &str, files: impl IntoIterator<Item = (String, File)>) -> Vec<Entry> {
    let top = format!("usr/src/linux-headers-{release}");
    let mut entries = vec![Entry::symlink(format!("usr/lib/modules/{release}/build"), format!("/{top}"))];
    for (path, file) in files {
        let content = match file.source {
            Source::Path(path) => Content::File(path),
            Source::Text(text) => Content::Bytes(text.into()),
        };
        let mode = if file.is_program { 0o755 } else { 0o644 };
        entries.push(Entry::new(format!("{top}/{path}"), mode, content));
    }
    let mut directories = std::collections::BTreeSet::new();
    for Entry { path, .. } in &entries {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        directories.extend(slashes.map(|(at, _)| path[..at].to_vec()));
    }
    entries.extend(directories.into_iter().map(Entry::directory));
    entries
}
