//! An OCI layout directory: blobs by digest and `index.json`, which gives images their names.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err::{self as fs, File};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Descriptor, ImageConfiguration, ImageIndex, ImageIndexBuilder, ImageManifest,
    MediaType, Os, Sha256Digest,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::Error;
use super::image::{Blob, Labels, annotated, json};
use super::source::{Named, Source, blob_error};
use crate::arch::Arch;
use crate::step::hex;

/// What containerd's import calls an image after.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What files are called while they are written.
const HALF_WRITTEN: &str = ".imgbuild-";

/// What docker called them before there were OCI's; pulled images may still have them.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A layout on disk.
#[derive(Debug)]
pub struct Layout {
    dir: PathBuf,
    /// Held by whoever writes: two that give names at once would lose those of one.
    _writing: Option<File>,
}

/// One image of a layout for one platform.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its name in the layout: `kernel-bin:5.10.262`.
    pub name: String,
    /// Its architecture.
    pub arch: Arch,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Its labels.
    pub labels: Labels,
}

/// The file `oci-layout`.
#[derive(Deserialize)]
struct LayoutVersion {
    #[serde(rename = "imageLayoutVersion")]
    number: String,
}

impl Layout {
    /// Fails if `dir` holds anything but a layout; makes nothing yet.
    pub fn check_output(dir: &Path) -> Result<(), Error> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // A writer that was killed before it had said what this is left no more than half-written files.
        let mut foreign =
            entries.filter(|entry| !entry.as_ref().is_ok_and(|entry| is_half_written(&entry.file_name())));
        if foreign.next().is_none() || dir.join("oci-layout").is_file() {
            return Ok(());
        }
        Err(Error::NotALayout(dir.to_owned()))
    }

    /// Opens the layout at `dir` for writing, making an empty one if nothing is there; waits for other writers and
    /// clears what a killed one left half-written.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        Self::check_output(dir)?;
        fs::create_dir_all(dir)?;
        let writing = File::open(dir)?;
        writing.file().lock()?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if is_half_written(&entry.file_name()) {
                fs::remove_file(entry.path())?;
            }
        }
        let layout = Self { dir: dir.to_owned(), _writing: Some(writing) };
        if !dir.join("oci-layout").is_file() {
            layout.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        if !dir.join("index.json").is_file() {
            layout.write_index(Vec::new())?;
        }
        Ok(layout)
    }

    /// Opens the layout at `dir`.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        for missing in ["oci-layout", "index.json"] {
            if !dir.join(missing).is_file() {
                return Err(Error::NoLayout { path: dir.to_owned(), missing });
            }
        }
        let layout = Self { dir: dir.to_owned(), _writing: None };
        let version: LayoutVersion = parse(&dir.join("oci-layout"))?;
        if version.number != "1.0.0" {
            let reason = format!("its layout version is `{}`, not 1.0.0", version.number);
            return Err(Error::Malformed { path: dir.join("oci-layout"), reason });
        }
        Ok(layout)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a blob of this digest (`sha256:…`) lies.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replacen(':', "/", 1))
    }

    /// Adds a blob from bytes, which have this digest (`sha256:…`).
    pub fn put(&self, digest: &str, bytes: &[u8]) -> Result<(), Error> {
        self.replace(&format!("blobs/{}", digest.replacen(':', "/", 1)), bytes)
    }

    /// Takes a file made by [`Layout::temporary`], which has this digest, as a blob.
    pub fn keep(&self, digest: &str, file: NamedTempFile) -> Result<(), Error> {
        persist(file, &self.blob(digest))
    }

    /// Adds a blob from bytes.
    pub fn add(&self, blob: &Blob) -> Result<(), Error> {
        self.put(blob.descriptor.digest().as_ref(), &blob.bytes)
    }

    /// Adds a blob from a file; `digest` is `sha256:…`.
    pub fn add_file(&self, digest: &str, source: &Path) -> Result<(), Error> {
        let target = self.blob(digest);
        let size = fs::metadata(source)?.len();
        if fs::metadata(&target).is_ok_and(|meta| meta.len() == size) && self.sound(digest).is_ok() {
            return Ok(());
        }
        let mut file = self.temporary()?;
        std::io::copy(&mut File::open(source)?, &mut file)?;
        persist(file, &target)
    }

    /// Gives images their names, replacing what had them, and drops the blobs that nothing refers to any more.
    pub fn name(&self, images: &[(String, Descriptor)]) -> Result<(), Error> {
        let mut entries = self.index()?.manifests().clone();
        let replaced = |entry: &Descriptor| images.iter().any(|(name, _)| ref_name(entry) == Some(name));
        let old: Vec<Descriptor> = entries.iter().filter(|entry| replaced(entry)).cloned().collect();
        entries.retain(|entry| !replaced(entry));
        for (name, descriptor) in images {
            let names = [
                (ANNOTATION_REF_NAME.to_owned(), name.clone()),
                (CONTAINERD_NAME.to_owned(), format!("localhost/{name}")),
            ];
            entries.push(annotated(descriptor, names.into()));
        }
        entries.sort_by(|a, b| ref_name(a).cmp(&ref_name(b)));
        let mut kept = BTreeSet::new();
        entries.iter().for_each(|entry| self.reachable(entry, &mut kept));
        self.write_index(entries)?;
        let mut dropped = BTreeSet::new();
        old.iter().for_each(|entry| self.reachable(entry, &mut dropped));
        for digest in dropped.difference(&kept) {
            fs::remove_file(self.blob(digest))?;
        }
        Ok(())
    }

    /// What names stand for: indexes, or manifests.
    pub fn names(&self) -> Result<Vec<(String, Descriptor)>, Error> {
        let entries = self.index()?.manifests().clone();
        Ok(entries.into_iter().filter_map(|entry| Some((ref_name(&entry)?.clone(), entry))).collect())
    }

    /// Every image of the layout, one per name and platform. Members for other systems are left out.
    pub fn images(&self) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for entry in self.index()?.manifests() {
            let Some(name) = ref_name(entry) else { continue };
            let members = match entry.media_type() {
                kind if is_index(kind) => self.document::<ImageIndex>(entry)?.manifests().clone(),
                _ => vec![entry.clone()],
            };
            for member in members {
                let manifest: ImageManifest = self.document(&member)?;
                let config: ImageConfiguration = self.document(manifest.config())?;
                let Ok(arch) = config.architecture().to_string().parse::<Arch>() else { continue };
                if *config.os() != Os::Linux {
                    continue;
                }
                let labels =
                    config.config().as_ref().and_then(|config| config.labels().clone()).unwrap_or_default();
                found.push(Found {
                    name: name.clone(),
                    arch,
                    manifest,
                    labels: labels.into_iter().collect(),
                });
            }
        }
        Ok(found)
    }

    /// Checks that a blob is there and has its digest; returns its path.
    pub fn sound(&self, digest: &str) -> Result<PathBuf, Error> {
        let path = self.blob(digest);
        let mut file = File::open(&path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let actual = format!("sha256:{}", hex(&hasher.finalize()));
        if actual == digest { Ok(path) } else { Err(Error::Digest { path, actual }) }
    }

    /// The digests of a descriptor and of everything below it, as far as it is there.
    fn reachable(&self, descriptor: &Descriptor, digests: &mut BTreeSet<String>) {
        if !digests.insert(descriptor.digest().to_string()) {
            return;
        }
        let mut below = Vec::new();
        match descriptor.media_type() {
            kind if is_index(kind) => {
                below.extend(
                    self.document::<ImageIndex>(descriptor)
                        .map(|i| i.manifests().clone())
                        .unwrap_or_default(),
                );
            }
            kind if *kind == MediaType::ImageManifest || kind.as_ref() == DOCKER_MANIFEST => {
                if let Ok(manifest) = self.document::<ImageManifest>(descriptor) {
                    below.push(manifest.config().clone());
                    below.extend(manifest.layers().clone());
                }
            }
            _ => {}
        }
        below.iter().for_each(|descriptor| self.reachable(descriptor, digests));
    }

    fn index(&self) -> Result<ImageIndex, Error> {
        parse(&self.dir.join("index.json"))
    }

    fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, Error> {
        parse(&self.sound(descriptor.digest().as_ref())?)
    }

    fn write_index(&self, manifests: Vec<Descriptor>) -> Result<(), Error> {
        let index = ImageIndexBuilder::default().schema_version(2_u32).media_type(MediaType::ImageIndex);
        let index = index.manifests(manifests).build().expect("it has all its fields");
        self.replace("index.json", &json(&index))
    }

    /// Writes a file whole or not at all.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut file = self.temporary()?;
        file.write_all(bytes)?;
        persist(file, &self.dir.join(name))
    }

    /// A temporary file below the layout, as public as the user's umask lets files be.
    pub fn temporary(&self) -> std::io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(HALF_WRITTEN)
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&self.dir)
    }
}

impl Source for Layout {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }

    fn named(&self) -> Result<Vec<Named>, Error> {
        let named = |descriptor: Descriptor| {
            let name = ref_name(&descriptor).cloned().unwrap_or_else(|| descriptor.digest().to_string());
            Named { name, descriptor }
        };
        Ok(self.index()?.manifests().iter().cloned().map(named).collect())
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, Error> {
        match File::open(self.blob(descriptor.digest().as_ref())) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(blob_error(self, descriptor, "is missing".into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn blobs(&self) -> Result<Vec<Descriptor>, Error> {
        let mut blobs = Vec::new();
        for entry in fs::read_dir(self.dir.join("blobs/sha256"))? {
            let entry = entry?;
            if let Ok(digest) = entry.file_name().to_string_lossy().parse::<Sha256Digest>() {
                let unknown = MediaType::Other("application/octet-stream".into());
                blobs.push(Descriptor::new(unknown, entry.metadata()?.len(), digest));
            }
        }
        blobs.sort_by(|a, b| a.digest().as_ref().cmp(b.digest().as_ref()));
        Ok(blobs)
    }
}

fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || media_type.as_ref() == DOCKER_INDEX
}

fn is_half_written(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(HALF_WRITTEN)
}

fn persist(file: NamedTempFile, target: &Path) -> Result<(), Error> {
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let malformed =
        |error: serde_json::Error| Error::Malformed { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(&fs::read(path)?).map_err(malformed)
}

fn ref_name(descriptor: &Descriptor) -> Option<&String> {
    descriptor.annotations().as_ref()?.get(ANNOTATION_REF_NAME)
}
