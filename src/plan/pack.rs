//! The step that makes a layer of a kernel artifact.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};

use super::Error;
use crate::arch::Arch;
use crate::kernel::Facts;
use crate::lock::ASSEMBLY;
use crate::oci::blocks::Packed;
use crate::oci::compression::Compression;
use crate::oci::layer::{self, Entry, Packing};
use crate::step::{Key, Step, Unit, Watch, human};
use crate::store::Artifact;

/// What an image of a kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// `boot/`: the kernel and its configuration.
    Kernel,
    /// `lib/modules/RELEASE`, and links to what is in it at the volume's root.
    Modules,
}

impl Role {
    /// The role's name in labels and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Modules => "modules",
        }
    }
}

/// A layer in the store.
#[derive(Debug, Clone)]
pub(super) struct PackedLayer {
    /// The blob.
    pub(super) path: PathBuf,
    /// Its digests and size.
    pub(super) packed: Packed,
}

impl PackedLayer {
    /// The layer an artifact of [`Pack`] holds.
    pub(super) fn of(artifact: &Artifact) -> std::io::Result<Self> {
        let text = fs::read_to_string(artifact.path.join("layer.json"))?;
        let packed: Packed = serde_json::from_str(&text)?;
        Ok(Self { path: artifact.path.join(file_name(packed.compression)), packed })
    }
}

/// What a layer is called in its artifact.
pub(super) fn file_name(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => "layer.tar.gz",
        Compression::Zstd(_) => "layer.tar.zst",
    }
}

/// Packs one role of a kernel artifact. The artifact: `layer.tar.gz` or `layer.tar.zst`, and `layer.json`.
pub(super) struct Pack<'a> {
    /// The kernel artifact's directory.
    pub(super) kernel: &'a Path,
    /// The key of its content.
    pub(super) content: Key,
    /// What it says about itself.
    pub(super) facts: &'a Facts,
    /// Its architecture.
    pub(super) arch: Arch,
    /// The flavour, for the step's name.
    pub(super) flavour: &'a str,
    /// Which part of it.
    pub(super) role: Role,
    /// How it is compressed, and on how many threads.
    pub(super) packing: Packing,
}

impl Step for Pack<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        let mut record = json!({
            "step": "layer 1",
            "assembly": ASSEMBLY,
            "content": self.content.to_string(),
            "role": self.role.name(),
        });
        // gzip came first, and its keys stay.
        if self.packing.compression != Compression::Gzip {
            record["compression"] = json!(self.packing.compression);
        }
        record
    }

    fn name(&self) -> String {
        format!("{} of Linux {} {} {}", self.role.name(), self.facts.release, self.arch, self.flavour)
    }

    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Error> {
        let what = format!("{} {} {}", self.role.name(), self.facts.release, self.arch);
        let progress = watch.reporter.begin("pack", &what, None, Unit::Bytes);
        let entries = match self.role {
            Role::Kernel => self.kernel_entries(),
            Role::Modules => self.module_entries()?,
        };
        let target = out.join(file_name(self.packing.compression));
        let packed = layer::write(entries, self.facts.epoch, &target, self.packing, watch)?;
        fs::write(out.join("layer.json"), serde_json::to_string(&packed).map_err(std::io::Error::from)?)?;
        progress.finish(&human(packed.size));
        Ok(())
    }
}

impl Pack<'_> {
    fn kernel_entries(&self) -> Vec<Entry> {
        let boot = self.kernel.join("boot");
        let config = format!("config-{}", self.facts.release);
        let mut entries =
            vec![Entry::directory("boot"), Entry::file(format!("boot/{config}"), boot.join(&config))];
        match self.arch {
            Arch::X86_64 => entries.push(Entry::file("boot/vmlinux", boot.join("vmlinux"))),
            // One file under two names: specs for arm64 have named boot/image. The link sorts after the file.
            Arch::Arm64 => {
                entries.push(Entry::file("boot/image", boot.join("vmlinux")));
                entries.push(Entry::hard_link("boot/vmlinux", "boot/image"));
            }
        }
        entries
    }

    /// The tree at lib/modules/RELEASE, and at the root a relative link to each thing in it: the volume then also
    /// works mounted AT /lib/modules/RELEASE, which is where its consumers mount it.
    fn module_entries(&self) -> Result<Vec<Entry>, Error> {
        let (mut entries, names) = module_tree(self.kernel, self.facts)?;
        let tree = format!("lib/modules/{}", self.facts.release);
        for name in names {
            let target = below(tree.as_bytes(), &name);
            entries.push(Entry::symlink(name, target));
        }
        Ok(entries)
    }
}

/// A kernel artifact's modules at lib/modules/RELEASE, and the names at the top of the tree.
pub(super) fn module_tree(kernel: &Path, facts: &Facts) -> Result<(Vec<Entry>, Vec<Vec<u8>>), Error> {
    let tree = format!("lib/modules/{}", facts.release);
    let mut entries: Vec<Entry> = ["lib", "lib/modules", &tree].map(Entry::directory).into();
    let names = add_tree(&kernel.join("modules"), tree.as_bytes(), &mut entries)?;
    Ok((entries, names))
}

/// Adds what is in `dir` below `path`; returns the names at its top.
fn add_tree(dir: &Path, path: &[u8], entries: &mut Vec<Entry>) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_vec();
        let path = below(path, &name);
        if entry.file_type()?.is_dir() {
            entries.push(Entry::directory(path.clone()));
            add_tree(&entry.path(), &path, entries)?;
        } else {
            entries.push(Entry::file(path, entry.path()));
        }
        names.push(name);
    }
    Ok(names)
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}
