//! An image built again from what its provenance records, and compared with the one that was published.
//!
//! Nothing of this host's catalogue or lock is read, and nothing that was built before is taken: a store that holds the
//! very image cannot answer for it.

use std::path::Path;

use super::account::{Asked, INDEX, KERNEL, OS};
use super::images::Built;
use super::kernel::{Flavour, Request};
use super::os::System;
use super::{Error as PlanError, kernel, os};
use crate::arch::{Arch, UnknownArch};
use crate::attest::{self, statement::Statement};
use crate::digests::Digests;
use crate::document::Mistakes;
use crate::fetch::mirror::Mirrors;
use crate::inspect::diff::{Difference, Side, diff};
use crate::inspect::{self};
use crate::lock::{self, Lock};
use crate::oci::compression::{Compression, UnknownCompression};
use crate::oci::layer::Packing;
use crate::oci::layout::Layout;
use crate::recipe::{Catalogue, catalogue};
use crate::step::{Cancel, Class, Diagnose, Level, Watch, io_hint};
use crate::store::{self, Store, Work};

/// The layout of what was built again, below a scratch directory.
const LAYOUT: &str = "rebuilt";

/// An image cannot be built again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The provenance does not tell how.
    #[error(transparent)]
    Attest(#[from] attest::Error),
    /// It tells of something that this imgbuild does not build.
    #[error("the provenance of `{subject}` cannot be followed: {reason}")]
    Foreign {
        /// The digest it is about.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// The build failed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layout cannot be read.
    #[error(transparent)]
    Inspect(#[from] inspect::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<crate::oci::Error> for Error {
    fn from(error: crate::oci::Error) -> Self {
        Self::Inspect(error.into())
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Attest(error) => error.class(),
            Self::Foreign { .. } => Class::Verification,
            Self::Plan(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Inspect(error) => error.class(),
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Attest(error) => error.hint(),
            Self::Foreign { .. } => Some(
                "only what imgbuild built can be built again by it: `imgbuild provenance` prints what is recorded".into(),
            ),
            Self::Plan(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Inspect(error) => error.hint(),
            Self::Io(error) => io_hint(error),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.detail(),
            _ => None,
        }
    }
}

/// A build as it was recorded.
#[derive(Debug)]
pub struct Recorded {
    subject: String,
    build_type: String,
    builder: String,
    asked: Asked,
    arch: Arch,
    compression: Compression,
    catalogue: Catalogue,
    lock: String,
}

impl Recorded {
    /// Reads what the provenance of the image with this digest (`sha256:…`) records.
    pub fn of(statement: &Statement, subject: &str) -> Result<Self, Error> {
        let foreign = |reason: String| Error::Foreign { subject: subject.to_owned(), reason };
        let definition = &statement.predicate.build_definition;
        let build_type = definition.build_type.clone();
        match build_type.as_str() {
            KERNEL | OS => {}
            INDEX => {
                return Err(foreign("it is about an index: each of its platforms has its own".into()));
            }
            other => return Err(foreign(format!("it is of the build type `{other}`"))),
        }
        let asked: Asked = statement.parameters(subject)?;
        let arch = asked.architecture.parse().map_err(|error: UnknownArch| foreign(error.to_string()))?;
        let compression = asked.compression.parse();
        let compression = compression.map_err(|error: UnknownCompression| foreign(error.to_string()))?;
        let catalogue = Catalogue::Copied(asked.catalogue.clone());
        let lock = catalogue.read(catalogue::LOCK).map_err(|error| foreign(error.to_string()))?;
        let version = &statement.predicate.run_details.builder.version;
        let builder = version.get("imgbuild").cloned().unwrap_or_default();
        Ok(Self {
            subject: subject.to_owned(),
            build_type,
            builder,
            asked,
            arch,
            compression,
            catalogue,
            lock,
        })
    }

    /// What was asked for.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// The lock as it was.
    pub fn lock(&self) -> Result<Lock, Error> {
        let lock = Lock::parse(&self.catalogue.name(catalogue::LOCK), &self.lock);
        Ok(lock.map_err(|mistakes: Mistakes| PlanError::from(lock::Error::from(mistakes)))?)
    }

    /// Builds it again, really: of the store, downloads, unpacked sources and toolchain trees alone are used.
    pub fn rebuild(
        &self,
        store: &Store,
        mirrors: Mirrors,
        jobs: usize,
        watch: &Watch,
    ) -> Result<Rebuilt, Error> {
        let own = env!("CARGO_PKG_VERSION");
        if self.builder != own {
            let message = format!(
                "{} was built by imgbuild {}, and this is {own}: if the digests are not the same, try that one",
                self.asked.image, self.builder
            );
            watch.reporter.note(Level::Info, &message);
        }
        let fresh = store.fresh()?;
        let work = fresh.work()?;
        let output = work.path().join(LAYOUT);
        let built = if self.build_type == KERNEL {
            self.kernel(&fresh, &output, mirrors, jobs, watch)?
        } else {
            self.system(&fresh, &output, mirrors, jobs, watch)?
        };
        let ours = |built: &&Built| built.name == self.asked.image;
        let platform = built.iter().find(ours).and_then(|built| {
            built.platforms.iter().find(|platform| platform.architecture == self.arch.oci())
        });
        let Some(platform) = platform else {
            let names = crate::document::list(built.iter().map(|built| built.name.as_str()));
            let reason = format!("what it records makes {names}, and no {}", self.asked.image);
            return Err(Error::Foreign { subject: self.subject.clone(), reason });
        };
        let digest = platform.digest.clone();
        let layout = Layout::open(&output)?;
        Ok(Rebuilt { image: self.asked.image.clone(), digest, layout, _work: work, _store: fresh })
    }

    fn kernel(
        &self,
        store: &Store,
        output: &Path,
        mirrors: Mirrors,
        jobs: usize,
        watch: &Watch,
    ) -> Result<Vec<Built>, Error> {
        let text = self.asked.version.as_deref().unwrap_or_default();
        let version = text.parse().map_err(|_| self.foreign(format!("`{text}` is no kernel version")))?;
        let flavour = if self.asked.is_own() {
            Flavour::File(self.asked.recipe.clone().into())
        } else {
            Flavour::Named(self.asked.recipe.clone())
        };
        let named = |name: &String| {
            name.parse()
                .map_err(|error: crate::recipe::kernel::UnknownOutput| self.foreign(error.to_string()))
        };
        let request = Request {
            outputs: self.asked.outputs.iter().map(named).collect::<Result<_, _>>()?,
            versions: vec![version],
            arches: vec![self.arch.name().to_owned()],
            flavour,
            toolchain: self.asked.toolchain.clone(),
        };
        let mut plan = kernel::Plan::new(&request, &self.catalogue, self.lock()?, mirrors, jobs, watch)?;
        plan.compression = self.compression;
        Ok(plan.run(store, output, &Digests::default(), false, watch)?)
    }

    fn system(
        &self,
        store: &Store,
        output: &Path,
        mirrors: Mirrors,
        threads: usize,
        watch: &Watch,
    ) -> Result<Vec<Built>, Error> {
        let system = if self.asked.is_own() {
            System::File(self.asked.recipe.clone().into())
        } else {
            System::Named(self.asked.recipe.clone())
        };
        let versions: Vec<_> = self.asked.version.iter().cloned().collect();
        let (arches, packing) =
            ([self.arch.name().to_owned()], Packing { compression: self.compression, threads });
        let lock = self.lock()?;
        let mut plan = os::Plan::new(&system, &versions, &arches, &self.catalogue, lock, mirrors, packing)?;
        if let Some(text) = &self.asked.modules_of {
            let of = text.parse().map_err(|_| self.foreign(format!("`{text}` is no kernel")))?;
            plan.take_modules(&of, self.asked.toolchain.as_deref(), &self.catalogue, watch)?;
        }
        Ok(plan.run(store, output, &Digests::default(), false, watch)?)
    }

    fn foreign(&self, reason: String) -> Error {
        Error::Foreign { subject: self.subject.clone(), reason }
    }
}

/// An image that was built again. It is gone when this is dropped.
#[derive(Debug)]
pub struct Rebuilt {
    image: String,
    /// The digest that it came to: of its manifest.
    pub digest: String,
    /// Where it is.
    pub layout: Layout,
    _work: Work,
    _store: Store,
}

impl Rebuilt {
    /// How the published image (side A) differs from what was built again (side B): files first, by path. Nothing if
    /// the digests are the same.
    pub fn differences(&self, original: &Side<'_>, cancel: &Cancel) -> Result<Vec<Difference>, Error> {
        let rebuilt = Side { source: &self.layout, image: Some(self.image.clone()) };
        let platforms = inspect::sound_images(&self.layout, &inspect::Selection::default())?;
        let differences = diff(original, &rebuilt, cancel)?;
        // The original may be an index of more platforms than the one that was built again.
        let ours: Vec<_> = platforms.iter().map(inspect::Image::platform).collect();
        let is_ours =
            |difference: &Difference| difference.platform.as_ref().is_none_or(|it| ours.contains(it));
        Ok(differences.into_iter().filter(is_ours).collect())
    }
}
