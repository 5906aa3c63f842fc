//! What is remembered of every build: the provenance of each image, in the store under the image's digest.
//!
//! A push, an SBOM or a second look can come days after the build and in another process; until then the statement that
//! belongs to the image waits here. The first build of a digest is the one that is told of.

use std::path::Path;

use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Error;
use super::images::Joined;
use crate::attest::spdx::deb;
use crate::attest::statement::{Definition, Resource, RunDetails, Statement};
use crate::lock::trees::Package;
use crate::lock::{ASSEMBLY, Base, FilePin, Lock, join};
use crate::recipe::{Copied, catalogue};
use crate::step::{Key, Step, Watch};
use crate::store::Store;

/// The build types: what the parameters of a statement mean. docs/attestations.md tells.
pub const KERNEL: &str = "https://imgbuild.io/kernel/v1";
/// A root volume.
pub const OS: &str = "https://imgbuild.io/os/v1";
/// An index of images that were built before.
pub const INDEX: &str = "https://imgbuild.io/index/v1";

/// The statement in its artifact.
const STATEMENT: &str = "statement.json";
/// The kind of artifact.
const KIND: &str = "account";

/// What was asked for: the external parameters of a statement. With these alone the image can be built again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// The command that builds this image alone, for people.
    pub command: String,
    /// The image: `kernel-bin:5.10.262`.
    pub image: String,
    /// Its architecture, as OCI has it.
    pub architecture: String,
    /// The recipe: its name, or `./NAME.toml` for one in a file of its own.
    pub recipe: String,
    /// The version of the kernel, or of Kubernetes; none for a system without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The toolchain of a kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<String>,
    /// The images of a kernel, where the recipe does not name this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// The kernel whose modules are in a root volume: `firecracker/5.10.77`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules_of: Option<String>,
    /// How layers are compressed.
    pub compression: String,
    /// The recipes, fragments and files that were read, and the lock.
    pub catalogue: Copied,
}

impl Asked {
    /// The text of the lock.
    pub fn lock(&self) -> std::io::Result<String> {
        crate::recipe::Catalogue::Copied(self.catalogue.clone()).read(catalogue::LOCK)
    }

    /// Whether the recipe was in a file of its own.
    pub fn is_own(&self) -> bool {
        self.recipe.starts_with("./")
    }
}

/// The definition of a build; `more` is what else the builder knows.
pub(super) fn definition(build_type: &str, asked: &Asked, more: Value, inputs: Vec<Resource>) -> Definition {
    let mut internal = json!({ "assembly": ASSEMBLY });
    if let (Some(internal), Value::Object(more)) = (internal.as_object_mut(), more) {
        internal.extend(more);
    }
    let mut dependencies = inputs;
    dependencies.extend(asked.catalogue.files().map(|(name, bytes)| {
        let digest = crate::step::hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes));
        Resource::new(name, "", &digest).with("role", "recipe")
    }));
    Definition {
        build_type: build_type.to_owned(),
        external_parameters: serde_json::to_value(asked).expect("the parameters have string keys"),
        internal_parameters: internal,
        resolved_dependencies: dependencies,
    }
}

/// A pinned file as a dependency: by its address, or where it has none for everybody, by `name` and `version`.
pub(super) fn file(pin: &FilePin, name: &str, version: &str, role: &str, lock: &Lock) -> Resource {
    let uri = match lock.place(&pin.place) {
        Some(Base::Url(base)) => join(base, &pin.path),
        _ => format!("pkg:generic/{name}@{version}?checksum=sha256:{}", pin.sha256),
    };
    Resource::new(pin.name(), uri, &pin.sha256)
        .with("role", role)
        .with("version", version)
        .with("place", pin.place.as_str())
        .with("path", pin.path.as_str())
}

/// The packages of a tree as dependencies; `place` is the archive they come from.
pub(super) fn packages(packages: &[Package], place: &str, role: &str) -> Vec<Resource> {
    let vendor = place.split('-').next().unwrap_or(place);
    let of = |package: &Package| {
        let Package { name, version, arch, sha256 } = package;
        Resource::new(name, deb(vendor, name, version, arch, None), sha256)
            .with("role", role)
            .with("version", version.as_str())
    };
    packages.iter().map(of).collect()
}

/// The step that keeps a statement. That it is kept once, whoever makes the image a second time, is what the key says.
struct Keep<'a> {
    digest: &'a str,
    statement: &'a Statement,
}

fn record(digest: &str) -> Value {
    json!({ "step": "account 1", "manifest": digest })
}

impl Step for Keep<'_> {
    type Error = Error;

    fn kind(&self) -> &'static str {
        KIND
    }

    fn record(&self) -> Value {
        record(self.digest)
    }

    fn name(&self) -> String {
        let name = self.statement.subject.first().map_or("", |subject| &subject.name);
        let digits = self.digest.strip_prefix("sha256:").unwrap_or(self.digest);
        format!("{name} {}", digits.get(..12).unwrap_or(digits))
    }

    fn run(&self, out: &Path, _: &Watch) -> Result<(), Error> {
        Ok(fs::write(out.join(STATEMENT), self.statement.to_bytes())?)
    }
}

/// Keeps what is known of images that were made.
pub(super) fn keep(images: &[Joined], run: &RunDetails, store: &Store, watch: &Watch) -> Result<(), Error> {
    for image in images {
        for member in &image.members {
            let digest = member.image.manifest.descriptor.digest().to_string();
            let statement = Statement::new(&image.name, &digest, member.definition.clone(), run.clone());
            store.get_or_make(&Keep { digest: &digest, statement: &statement }, watch)?;
        }
    }
    Ok(())
}

/// The statement about an image, if it was made with this store; one that is damaged or about something else is an
/// error.
pub fn kept(digest: &str, store: &Store) -> Result<Option<Statement>, super::attest::Error> {
    let Some((files, _)) = store.look(KIND, Key::of(&record(digest))) else { return Ok(None) };
    Ok(Some(Statement::parse(&fs::read(files.join(STATEMENT))?, digest)?))
}
