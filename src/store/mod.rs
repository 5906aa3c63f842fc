//! The cache on disk: downloads by hash, artifacts by the key of the step that made them.
//!
//! Below the store's root: `downloads/SHA256`, `artifacts/KIND/KEY/`, `logs/`, `locks/`, and `work/` for what is
//! still being made. An entry appears by one rename when it is whole, is checked against its own list of files
//! whenever it is used, and is made again if it is damaged. A work directory belongs to the process that holds its
//! lock; those of dead processes are removed by the next one.

mod listing;
mod stamps;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err::{self as fs, File};
use serde_json::Value;
use tempfile::TempDir;

use crate::step::{Check, Class, Diagnose, Key, Level, Step, Watch, io_hint};
use listing::Listing;

/// The layout of the store; a store of another format is refused.
const FORMAT: &str = "imgbuild store 1\n";

/// The file beside `files/` with the list of what is in it.
const LIST: &str = "files.list";
/// The file beside `files/` with the step's record.
const RECORD: &str = "record.json";
/// The file beside `files/` with the digest of sizes and times.
const STAMPS: &str = "files.stamps";

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The directory is not a store of this format.
    #[error("`{path}` is not a store this imgbuild can use: it says `{found}`")]
    Format {
        /// The store's root.
        path: PathBuf,
        /// The first line of its format file.
        found: String,
    },
    /// Stopped by the user while waiting for another process.
    #[error("interrupted")]
    Cancelled,
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where caches go.
    #[error("no place for the store: neither XDG_CACHE_HOME nor HOME is set")]
    NoHome,
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Io(_) => Class::Host,
            Self::Format { .. } | Self::NoHome => Class::Usage,
            Self::Cancelled => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io(error) => io_hint(error),
            Self::Format { .. } | Self::NoHome => {
                Some("name another directory with --store or IMGBUILD_STORE".into())
            }
            Self::Cancelled => None,
        }
    }
}

/// A step failed, or the store did.
#[derive(Debug)]
pub enum MakeError<E> {
    /// The store.
    Store(Error),
    /// The step.
    Step(E),
}

impl<E> From<Error> for MakeError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// A whole entry of the store.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The directory the step filled.
    pub path: PathBuf,
    /// The key of the list of its files: what later steps put into their records.
    pub content: Key,
    /// Whether it was there already.
    pub cached: bool,
}

/// The content-addressed cache.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A scratch directory of this process, removed when dropped.
#[derive(Debug)]
pub struct Work {
    dir: TempDir,
    _lock: File,
}

impl Work {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Store {
    /// Where the store is by default: `$XDG_CACHE_HOME/imgbuild`, else `~/.cache/imgbuild`.
    pub fn default_root() -> Result<PathBuf, Error> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        Ok(cache.ok_or(Error::NoHome)?.join("imgbuild"))
    }

    /// Opens the store at `root`, making it if it is not there, and clears what dead processes left half-made.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for dir in ["downloads", "artifacts", "locks", "logs", "work"] {
            // The format file comes first, so that a store of another format is left as it is.
            Self::check_format(root)?;
            fs::create_dir_all(root.join(dir))?;
        }
        let store = Self { root: fs::canonicalize(root)? };
        store.sweep()?;
        Ok(store)
    }

    fn check_format(root: &Path) -> Result<(), Error> {
        let path = root.join("format");
        match fs::read_to_string(&path) {
            Ok(text) if text == FORMAT => Ok(()),
            Ok(text) => {
                let found = text.lines().next().unwrap_or_default().to_owned();
                Err(Error::Format { path: root.to_owned(), found })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
                    let found = "no format file, but other files".into();
                    return Err(Error::Format { path: root.to_owned(), found });
                }
                fs::create_dir_all(root)?;
                let mut file = tempfile::NamedTempFile::new_in(root)?;
                file.write_all(FORMAT.as_bytes())?;
                file.persist(&path).map_err(|error| error.error)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The store's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where verified downloads are kept, each under its sha256.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// The log of a step: one file per key, begun anew by whoever runs it.
    pub fn log(&self, name: &str, key: Key) -> PathBuf {
        self.root.join("logs").join(format!("{name}-{}.log", key.short()))
    }

    /// The directory of a cache that a tool keeps for itself, such as a compiler's.
    pub fn tool_cache(&self, name: &str) -> std::io::Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A scratch directory on the store's disk.
    pub fn work(&self) -> Result<Work, Error> {
        // Held while a directory has no lock of its own yet, so that nobody sweeps it away.
        let gate = self.gate()?;
        gate.file().lock_shared()?;
        let work = self.root.join("work");
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&work)?;
        // The lock lies beside the directory, so that removing the directory cannot remove the lock first.
        let lock = File::create(dir.path().with_extension("lock"))?;
        lock.file().lock()?;
        Ok(Work { dir, _lock: lock })
    }

    /// Removes the work directories whose process is gone.
    fn sweep(&self) -> Result<(), Error> {
        let gate = self.gate()?;
        if gate.file().try_lock().is_err() {
            return Ok(());
        }
        for entry in fs::read_dir(self.root.join("work"))? {
            let dir = entry?.path().with_extension("");
            let path = dir.with_extension("lock");
            let alive = File::open(&path).is_ok_and(|lock| lock.file().try_lock().is_err());
            if alive {
                continue;
            }
            // What cannot be removed (the dead process's make may still write) is left for the next sweep.
            if fs::remove_dir_all(&dir).is_ok() || !dir.exists() {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn gate(&self) -> std::io::Result<File> {
        File::create(self.root.join("locks/work.lock"))
    }

    /// The artifact of a step, without looking whether it is sound.
    pub fn peek(&self, kind: &str, key: Key) -> bool {
        self.entry(kind, key).is_dir()
    }

    /// The directories of all artifacts of a kind, without looking whether they are sound.
    pub fn artifacts(&self, kind: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("artifacts").join(kind));
        entries.into_iter().flatten().flatten().map(|entry| entry.path().join("files")).collect()
    }

    fn entry(&self, kind: &str, key: Key) -> PathBuf {
        self.root.join("artifacts").join(kind).join(key.to_string())
    }

    /// The artifact of a step: from the store, or made now. Processes that want the same one wait for each other.
    pub fn get_or_make<S: Step>(&self, step: &S, watch: &Watch) -> Result<Artifact, MakeError<S::Error>> {
        let record = step.record();
        let key = Key::of(&record);
        let entry = self.entry(step.kind(), key);
        if let Some(artifact) = Self::open_entry(&entry, watch).map_err(Error::Io)? {
            return Ok(artifact);
        }
        let lock = File::create(self.root.join("locks").join(format!("{key}.lock"))).map_err(Error::Io)?;
        if lock.file().try_lock().is_err() {
            let message =
                format!("another imgbuild is making {} {}: waiting for it", step.kind(), key.short());
            watch.reporter.note(Level::Info, &message);
            while lock.file().try_lock().is_err() {
                if watch.cancel.is_cancelled() {
                    return Err(Error::Cancelled.into());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // Whoever held the lock may have made it meanwhile.
        if let Some(artifact) = Self::open_entry(&entry, watch).map_err(Error::Io)? {
            return Ok(artifact);
        }
        let work = self.work()?;
        let files = work.path().join("files");
        fs::create_dir(&files).map_err(Error::Io)?;
        step.run(&files, watch).map_err(MakeError::Step)?;
        let content = Self::seal(work.path(), &record, step.check()).map_err(Error::Io)?;
        fs::create_dir_all(entry.parent().expect("an entry lies below its kind")).map_err(Error::Io)?;
        fs::rename(work.path(), &entry).map_err(Error::Io)?;
        Ok(Artifact { path: entry.join("files"), content, cached: false })
    }

    /// Writes the record and what the files are checked by beside `files/`, all of it synced.
    fn seal(dir: &Path, record: &Value, check: Check) -> std::io::Result<Key> {
        let files = dir.join("files");
        let mut texts = vec![(RECORD, format!("{record:#}\n"))];
        if check != Check::StampsAlone {
            // Thousands of small files are synced together: one by one takes longer than making them did.
            texts.push((LIST, Listing::of(&files, check == Check::Bytes)?.to_text()));
        }
        if check != Check::Bytes {
            texts.push((STAMPS, stamps::stamps(&files)?));
        }
        if check == Check::Stamps {
            rustix::fs::syncfs(File::open(&files)?)?;
        }
        for (name, text) in &texts {
            let mut file = File::create(dir.join(name))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        File::open(dir)?.sync_all()?;
        Ok(content(&texts[1].1))
    }

    /// An entry if it is there and whole; a damaged one is said and dropped.
    fn open_entry(entry: &Path, watch: &Watch) -> std::io::Result<Option<Artifact>> {
        if !entry.is_dir() {
            return Ok(None);
        }
        if let Some(content) = sound(entry)? {
            return Ok(Some(Artifact { path: entry.join("files"), content, cached: true }));
        }
        let message =
            format!("the store's entry `{}` is damaged; it is dropped and made again", entry.display());
        watch.reporter.note(Level::Warning, &message);
        fs::remove_dir_all(entry)?;
        Ok(None)
    }
}

/// The key of what an entry holds, if its files are what it says: by their stamps if it has them, else by the list.
fn sound(entry: &Path) -> std::io::Result<Option<Key>> {
    let read = |name: &str| fs::read_to_string(entry.join(name)).ok();
    let (list, known) = (read(LIST), read(STAMPS));
    let files = entry.join("files");
    if let (Some(known), Ok(now)) = (&known, stamps::stamps(&files))
        && *known == now
    {
        return Ok(Some(content(list.as_ref().unwrap_or(known))));
    }
    let (Some(list), Ok(listing)) = (list, Listing::of(&files, false)) else { return Ok(None) };
    if listing.to_text() != list {
        return Ok(None);
    }
    if known.is_some() {
        // Read whole and found sound, as after the store was moved: quick again from now on.
        let mut file = tempfile::NamedTempFile::new_in(entry)?;
        file.write_all(stamps::stamps(&files)?.as_bytes())?;
        file.persist(entry.join(STAMPS)).map_err(|error| error.error)?;
    }
    Ok(Some(content(&list)))
}

/// The key of a list of files.
fn content(list: &str) -> Key {
    Key::of(&serde_json::json!(list.lines().collect::<Vec<_>>()))
}

impl Drop for Work {
    fn drop(&mut self) {
        // The directory itself goes when `dir` is dropped, or was renamed into place.
        let _ = fs::remove_file(self.dir.path().with_extension("lock"));
    }
}

#[cfg(test)]
mod tests;
