//! A repository of a registry as a cache: each artifact under a tag of its kind and key, as a compressed tar and an
//! account of what it is.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fs_err::{self as fs, File};
use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::oci;
use crate::oci::compression::Compression;
use crate::oci::layer::{self, Content, Entry, Packing};
use crate::oci::unpack::unpack_stream;
use crate::registry::reference::Reference;
use crate::registry::{self, Blob, Client, Parcel};
use crate::sign;
use crate::step::{Diagnose, Key, Unit, Watch, because, human};
use crate::store::{Artifact, Remote, Trouble, Wanted};

/// The media type of the account.
const ACCOUNT: &str = "application/vnd.imgbuild.cache.entry.v1+json";
/// In this annotation lies the signature of the account, base64 of its DER.
const SIGNATURE: &str = "io.imgbuild.cache.signature";
/// Fast, and a third smaller than gzip; the bytes are nobody's image.
const COMPRESSION: Compression = Compression::Zstd(3);
/// What no artifact that is kept has, in bytes: a small blob can unpack to anything.
const LARGEST: u64 = 16 << 30;

/// What an entry says it is. The digest of its content covers every file, so this is all that need be believed.
#[derive(Debug, Serialize, Deserialize)]
struct Account {
    /// The key of the list of its files.
    content: String,
    /// The digest of the record.
    key: String,
    /// The kind of artifact.
    kind: String,
    /// What people call its step.
    name: String,
    /// The record.
    record: Value,
}

/// A repository in which artifacts are kept.
pub struct Cache {
    repository: Reference,
    client: Client,
    /// Whether it is written to.
    is_written: bool,
    /// Whose entries are used; everybody's, if none is named.
    trusted: Vec<sign::Public>,
    /// What entries put there are signed with.
    key: Option<sign::Key>,
    /// It did not answer: nobody waits for it twice.
    gone: AtomicBool,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("repository", &self.repository).finish_non_exhaustive()
    }
}

impl Cache {
    /// The cache in a repository, which `client` speaks to.
    pub fn new(repository: Reference, client: Client, is_written: bool) -> Self {
        if is_written {
            Parcel::will_write(&repository, &client);
        }
        let (trusted, key) = (Vec::new(), None);
        Self { repository, client, is_written, trusted, key, gone: AtomicBool::new(false) }
    }

    /// The same, of which entries signed by one of these keys alone are used; none means that everybody's are.
    #[must_use]
    pub fn trusting(self, trusted: Vec<sign::Public>) -> Self {
        Self { trusted, ..self }
    }

    /// The same, whose entries are signed if there is a key.
    #[must_use]
    pub fn signing(self, key: Option<sign::Key>) -> Self {
        Self { key, ..self }
    }

    fn reference(&self, kind: &str, key: Key) -> Reference {
        Reference { tag: Some(format!("{kind}-{key}")), ..self.repository.clone() }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// What an error of the registry means for a cache.
    fn trouble(&self, error: &registry::Error) -> Trouble {
        match error {
            registry::Error::Digest { .. }
            | registry::Error::TooLarge { .. }
            | registry::Error::Malformed { .. }
            | registry::Error::NotFound(_) => Trouble::Lies(because(error)),
            registry::Error::Io(_) => Trouble::Away(because(error)),
            registry::Error::Denied { .. } => {
                self.gone.store(true, Ordering::Relaxed);
                Trouble::Away(format!("{}; {}", because(error), error.hint().unwrap_or_default()))
            }
            _ => {
                self.gone.store(true, Ordering::Relaxed);
                Trouble::Away(because(error))
            }
        }
    }

    /// Reads an entry's account and holds it against what is wanted; returns the key of its content.
    fn check(&self, parcel: &Parcel, wanted: &Wanted<'_>) -> Result<Key, Trouble> {
        let lies = |reason: String| Trouble::Lies(reason);
        if !self.trusted.is_empty() {
            let signature = parcel.annotations.get(SIGNATURE).and_then(|text| STANDARD.decode(text).ok());
            let is_by = |key: &sign::Public| {
                signature.as_ref().is_some_and(|signature| key.verify(&parcel.config, signature))
            };
            if !self.trusted.iter().any(is_by) {
                return Err(lies("it is not signed by a key that is trusted".into()));
            }
        }
        let account: Account = serde_json::from_slice(&parcel.config)
            .map_err(|error| lies(format!("its account cannot be read: {error}")))?;
        if account.kind != wanted.kind
            || account.key != wanted.key.to_string()
            || account.record != *wanted.record
        {
            return Err(lies(format!("it is the account of {} {}", account.kind, account.name)));
        }
        account.content.parse().map_err(|_| lies("its account names no content".into()))
    }
}

impl Remote for Cache {
    fn name(&self) -> String {
        self.repository.to_string()
    }

    fn holds(&self, kind: &str, key: Key) -> bool {
        !self.is_gone() && Parcel::is_there(&self.reference(kind, key), &self.client).unwrap_or(false)
    }

    fn fetch(
        &self,
        wanted: &Wanted<'_>,
        work: &Path,
        files: &Path,
        watch: &Watch,
    ) -> Result<Option<Key>, Trouble> {
        if self.is_gone() {
            return Ok(None);
        }
        let reference = self.reference(wanted.kind, wanted.key);
        let found = Parcel::find(ACCOUNT, &reference, &self.client).map_err(|error| self.trouble(&error))?;
        let Some(parcel) = found else { return Ok(None) };
        let content = self.check(&parcel, wanted)?;
        let (size, what) = (parcel.blob.size, format!("{} {}", wanted.kind, wanted.name));
        let progress = watch.reporter.begin("cache", &what, Some(size), Unit::Bytes);
        let mut file = NamedTempFile::new_in(work).map_err(|error| Trouble::Away(error.to_string()))?;
        parcel
            .bring(&reference, &self.client, &mut file, &|got| progress.set(got))
            .map_err(|error| self.trouble(&error))?;
        unpack(file.path(), files, watch).map_err(|error| match error {
            oci::Error::Io(error) if crate::step::io_hint(&error).is_some() => {
                Trouble::Away(error.to_string())
            }
            error => Trouble::Lies(because(&error)),
        })?;
        progress.finish(&format!("{} from {}", human(size), self.repository));
        Ok(Some(content))
    }

    fn offer(
        &self,
        wanted: &Wanted<'_>,
        artifact: &Artifact,
        replaced: bool,
        work: &Path,
        watch: &Watch,
    ) -> Result<(), Trouble> {
        if !self.is_written || self.is_gone() {
            return Ok(());
        }
        let reference = self.reference(wanted.kind, wanted.key);
        let away = |error: registry::Error| self.trouble(&error);
        if !replaced && Parcel::is_there(&reference, &self.client).map_err(away)? {
            return Ok(());
        }
        let what = format!("{} {}", wanted.kind, wanted.name);
        let progress = watch.reporter.begin("cache", &what, None, Unit::Bytes);
        let path = work.join("layer.tar.zst");
        let packed = pack(&artifact.path, &path, watch).map_err(|error| Trouble::Away(because(&error)))?;
        let account = Account {
            content: artifact.content.to_string(),
            key: wanted.key.to_string(),
            kind: wanted.kind.to_owned(),
            name: wanted.name.to_owned(),
            record: wanted.record.clone(),
        };
        let config = serde_json::to_value(&account).map_err(|error| Trouble::Away(error.to_string()))?;
        let blob = Blob {
            media_type: MediaType::ImageLayerZstd.to_string(),
            digest: format!("sha256:{}", packed.digest),
            size: packed.size,
        };
        let config = config.to_string().into_bytes();
        let signature =
            self.key.as_ref().map(|key| (SIGNATURE.to_owned(), STANDARD.encode(key.sign(&config))));
        let annotations: BTreeMap<_, _> = signature.into_iter().collect();
        let parcel = Parcel { kind: ACCOUNT, config, annotations, blob };
        parcel.put(&path, &reference, &self.client, &|sent| progress.set(sent)).map_err(away)?;
        progress.finish(&format!("{} to {}", human(packed.size), self.repository));
        Ok(())
    }
}

/// Packs an artifact's files, the same bytes for the same files.
fn pack(files: &Path, target: &Path, watch: &Watch) -> Result<oci::blocks::Packed, oci::Error> {
    let mut entries = Vec::new();
    add(files, &[], &mut entries)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    layer::write(entries, 0, target, Packing { compression: COMPRESSION, threads }, watch)
}

fn add(dir: &Path, below: &[u8], entries: &mut Vec<Entry>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = if below.is_empty() { name.into_vec() } else { [below, b"/", name.as_bytes()].concat() };
        let meta = entry.metadata()?;
        if meta.is_dir() {
            entries.push(Entry::directory(path.clone()));
            add(&entry.path(), &path, entries)?;
        } else if meta.is_symlink() {
            entries.push(Entry::symlink(path, fs::read_link(entry.path())?.into_os_string().into_vec()));
        } else {
            let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            entries.push(Entry::new(path, mode, Content::File(entry.path())));
        }
    }
    Ok(())
}

/// Unpacks what was packed so into an empty directory.
fn unpack(blob: &Path, files: &Path, watch: &Watch) -> Result<(), oci::Error> {
    let stream = zstd::Decoder::new(File::open(blob)?)?;
    let mut stream = std::io::Read::take(stream, LARGEST);
    unpack_stream(&mut stream, files, &watch.cancel)?;
    if stream.limit() == 0 {
        return Err(oci::Error::Stream(format!("it unpacks to more than {}", human(LARGEST))));
    }
    Ok(())
}
