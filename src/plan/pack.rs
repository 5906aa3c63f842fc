//! The step that makes a layer of a kernel artifact.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};

use super::Error;
use crate::arch::Arch;
use crate::kernel::Facts;
use crate::lock::ASSEMBLY;
use crate::oci::blocks::Packed;
use crate::oci::layer::{self, Content, Entry};
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
        Ok(Self { path: artifact.path.join("layer.tar.gz"), packed: serde_json::from_str(&text)? })
    }
}

/// Packs one role of a kernel artifact. The artifact: `layer.tar.gz` and `layer.json`.
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
    /// How many threads compress; the bytes do not depend on it.
    pub(super) threads: usize,
}

impl Step for Pack<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        "layer"
    }

    fn record(&self) -> Value {
        json!({
            "step": "layer 1",
            "assembly": ASSEMBLY,
            "content": self.content.to_string(),
            "role": self.role.name(),
        })
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
        let packed = layer::write(entries, self.facts.epoch, &out.join("layer.tar.gz"), self.threads, watch)?;
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
                let content = Content::HardLink("boot/image".into());
                entries.push(Entry { path: "boot/vmlinux".into(), mode: 0o644, content });
            }
        }
        entries
    }

    /// The tree at lib/modules/RELEASE, and at the root a relative link to each thing in it: the volume then also
    /// works mounted AT /lib/modules/RELEASE, which is where its consumers mount it.
    fn module_entries(&self) -> Result<Vec<Entry>, Error> {
        let tree = format!("lib/modules/{}", self.facts.release);
        let mut entries: Vec<Entry> = ["lib", "lib/modules", &tree].map(Entry::directory).into();
        let source = self.kernel.join("modules");
        for name in add_tree(&source, &tree, &mut entries)? {
            entries.push(Entry::symlink(&name, format!("{tree}/{name}")));
        }
        Ok(entries)
    }
}

/// Adds what is in `dir` below `path`; returns the names at its top.
fn add_tree(dir: &Path, path: &str, entries: &mut Vec<Entry>) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            std::io::Error::other(format!("`{}` in `{}` is not UTF-8", name.display(), dir.display()))
        })?;
        let below = format!("{path}/{name}");
        if entry.file_type()?.is_dir() {
            entries.push(Entry::directory(&below));
            add_tree(&entry.path(), &below, entries)?;
        } else {
            entries.push(Entry::file(&below, entry.path()));
        }
        names.push(name);
    }
    Ok(names)
}
