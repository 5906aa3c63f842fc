//! Images moved into a registry, from a layout or from another registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fs_err as fs;
use oci_spec::image::Descriptor;
use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};

use super::Error;
use super::append;
use super::client::{Client, Document, MANIFEST_LIMIT, guard};
use super::reference::{Host, Reference};
use super::tree::{Entry, Tree};
use super::upload::Moved;
use crate::oci::layout::Layout;
use crate::step::{Unit, human};

/// How many blobs are moved at once.
const WORKERS: usize = 4;

/// Where an image comes from.
pub enum Source<'a> {
    /// A layout on disk.
    Layout(&'a Layout),
    /// A repository of a registry.
    Registry(&'a Client, &'a str),
}

/// A blob's file, which goes with it if it was only fetched to be sent on.
struct Held {
    path: PathBuf,
    _temporary: Option<TempPath>,
}

impl Source<'_> {
    pub(super) fn document(&self, entry: &Entry) -> Result<Document, Error> {
        match self {
            Self::Layout(layout) => {
                let path = layout.sound(&entry.digest)?;
                if fs::metadata(&path)?.len() > MANIFEST_LIMIT {
                    return Err(Error::TooLarge { what: path.display().to_string(), limit: MANIFEST_LIMIT });
                }
                Ok(Document::new(&entry.media_type, fs::read(path)?))
            }
            Self::Registry(client, repository) => client.manifest(repository, &entry.digest),
        }
    }

    fn blob(&self, blob: &Entry) -> Result<Held, Error> {
        match self {
            Self::Layout(layout) => {
                let path = layout.blob(&blob.digest);
                let size = fs::metadata(&path)?.len();
                if size != blob.size {
                    let (expected, actual) = (format!("{} bytes", blob.size), format!("{size} bytes"));
                    return Err(Error::Digest { what: path.display().to_string(), expected, actual });
                }
                Ok(Held { path, _temporary: None })
            }
            Self::Registry(client, repository) => {
                let mut file = NamedTempFile::new()?;
                client.fetch_blob(repository, blob, &mut file, &|_| {})?;
                let path = file.into_temp_path();
                Ok(Held { path: path.to_path_buf(), _temporary: Some(path) })
            }
        }
    }

    /// The bytes of a small blob: a configuration.
    pub(super) fn small(&self, blob: &Entry) -> Result<Vec<u8>, Error> {
        if blob.size > MANIFEST_LIMIT {
            return Err(Error::TooLarge { what: blob.digest.clone(), limit: MANIFEST_LIMIT });
        }
        Ok(fs::read(self.blob(blob)?.path)?)
    }

    /// The repository of the registry `host` that it is.
    fn repository(&self, host: &Host) -> Option<&str> {
        match self {
            Self::Registry(client, repository) if client.host() == host => Some(repository),
            _ => None,
        }
    }
}

/// An image as it now is in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// `registry.example/org/kernel-bin:5.10.262`.
    pub reference: String,
    /// The digest it has there: of its index, or of its only manifest.
    pub digest: String,
    /// How many blobs were sent.
    pub sent: usize,
    /// How many bytes they had.
    pub sent_bytes: u64,
    /// How many blobs were mounted from other repositories.
    pub mounted: usize,
    /// How many blobs were there.
    pub there: usize,
}

/// Which repositories of a registry have which blobs, as far as we put them there.
#[derive(Debug, Default)]
pub struct Known(Mutex<BTreeMap<String, BTreeSet<String>>>);

impl Known {
    fn of(&self, digest: &str) -> Vec<String> {
        guard(&self.0).get(digest).map(|known| known.iter().cloned().collect()).unwrap_or_default()
    }

    fn add(&self, digest: &str, repository: &str) {
        guard(&self.0).entry(digest.to_owned()).or_default().insert(repository.to_owned());
    }
}

/// Pushes the image that `root` describes in `source`. With `append`, the tag keeps its other platforms.
pub fn push(
    source: &Source<'_>,
    root: &Descriptor,
    target: &Reference,
    client: &Client,
    known: &Known,
    append: bool,
) -> Result<Pushed, Error> {
    let entry = Entry {
        media_type: root.media_type().to_string(),
        digest: root.digest().to_string(),
        size: root.size(),
        platform: None,
        what: String::new(),
    };
    let root = source.document(&entry)?;
    push_document(source, root, target, client, known, append)
}

/// Copies an image between registries, or within one.
pub fn copy(
    from: &Reference,
    from_client: &Client,
    target: &Reference,
    client: &Client,
) -> Result<Pushed, Error> {
    let wanted =
        from.wanted().ok_or_else(|| Error::reference(&from.to_string(), "it has neither tag nor digest"))?;
    let root = from_client.manifest(&from.repository, wanted)?;
    let source = Source::Registry(from_client, &from.repository);
    push_document(&source, root, target, client, &Known::default(), false)
}

fn push_document(
    source: &Source<'_>,
    root: Document,
    target: &Reference,
    client: &Client,
    known: &Known,
    append: bool,
) -> Result<Pushed, Error> {
    let repository = &target.repository;
    client.will_write(repository);
    if let Some(expected) = target.digest.as_ref().filter(|digest| **digest != root.digest) {
        let (what, expected, actual) = (target.to_string(), expected.clone(), root.digest);
        return Err(Error::Digest { what, expected, actual });
    }
    let mut pushed = Pushed {
        reference: target.to_string(),
        digest: root.digest.clone(),
        sent: 0,
        sent_bytes: 0,
        mounted: 0,
        there: 0,
    };
    let tree = Tree::read(root, &mut |entry| source.document(entry))?;
    let progress = client.watch.reporter.begin("push", &target.short(), None, Unit::Bytes);
    if let (Some(tag), false) = (&target.tag, append)
        && client.resolve(repository, tag)?.as_ref() == Some(&pushed.digest)
    {
        // A registry takes no manifest without all that it refers to.
        tree.blobs.iter().for_each(|blob| known.add(&blob.digest, repository));
        pushed.there = tree.blobs.len();
        progress.finish("there already");
        return Ok(pushed);
    }
    let blobs = Blobs {
        source,
        target,
        client,
        known,
        counts: <[AtomicUsize; 3]>::default(),
        bytes: AtomicU64::new(0),
    };
    each(client, &tree.blobs, |blob| blobs.bring(blob))?;
    for member in &tree.members {
        client.put_manifest(repository, &member.digest, member)?;
    }
    match &target.tag {
        Some(tag) if append => {
            pushed.digest = append::extend(source, &tree, tag, target, client)?;
        }
        Some(tag) => client.put_manifest(repository, tag, &tree.root)?,
        None => client.put_manifest(repository, &pushed.digest, &tree.root)?,
    }
    [pushed.sent, pushed.mounted, pushed.there] =
        blobs.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    pushed.sent_bytes = blobs.bytes.load(Ordering::Relaxed);
    progress.finish(&format!("{} {}", if append { "added," } else { "tagged," }, pushed.digest));
    Ok(pushed)
}

/// The blobs of one image on their way.
struct Blobs<'a> {
    source: &'a Source<'a>,
    target: &'a Reference,
    client: &'a Client,
    known: &'a Known,
    /// Sent, mounted, there.
    counts: [AtomicUsize; 3],
    bytes: AtomicU64,
}

impl Blobs<'_> {
    fn bring(&self, blob: &Entry) -> Result<(), Error> {
        let name = format!("{} {} {}", self.target.short(), blob.what, &blob.digest[..19]);
        let progress = self.client.watch.reporter.begin("push", &name, Some(blob.size), Unit::Bytes);
        let moved = self.moved(blob, &|sent| progress.set(sent))?;
        self.known.add(&blob.digest, &self.target.repository);
        let (at, outcome) = match moved {
            Moved::Sent => {
                self.bytes.fetch_add(blob.size, Ordering::Relaxed);
                (0, human(blob.size))
            }
            Moved::Mounted(origin) => (1, format!("mounted from {origin}")),
            Moved::There => (2, "there already".into()),
        };
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        progress.finish(&outcome);
        Ok(())
    }

    fn moved(&self, blob: &Entry, progress: &dyn Fn(u64)) -> Result<Moved, Error> {
        let (client, repository) = (self.client, &self.target.repository);
        if client.has_blob(repository, blob)? {
            return Ok(Moved::There);
        }
        let mut origins = self.known.of(&blob.digest);
        origins.extend(self.source.repository(client.host()).map(str::to_owned));
        if let Some(origin) = client.mount(repository, blob, &origins)? {
            return Ok(Moved::Mounted(origin));
        }
        let held = self.source.blob(blob)?;
        client.upload(repository, blob, &held.path, progress)?;
        Ok(Moved::Sent)
    }
}

/// Works on several things at once; the first failure ends it all.
pub(super) fn each<T: Sync>(
    client: &Client,
    items: &[T],
    work: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = work(item) {
                        // Set before the others are told, so that theirs is not the one to be shown.
                        guard(&failure).get_or_insert(error);
                        client.give_up();
                        return;
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}
