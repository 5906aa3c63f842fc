//! The cache on disk: downloads by hash, artifacts by the key of the step that made them.
//!
//! Below the store's root: `downloads/SHA256`, `artifacts/KIND/KEY/`, `records/KIND/` (how each step was last made
//! or found), `logs/`, `locks/`, and `work/` for what is still being made. An entry appears by one rename when it is
//! whole, is checked against its own list of files whenever it is used, and is made again if it is damaged; its time
//! is that of its last use. A work directory belongs to the process that holds its lock; those of dead processes are
//! removed by the next one.

mod last;
mod listing;
mod remote;
mod seal;
mod upkeep;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err::{self as fs, File};
use tempfile::TempDir;

use crate::step::{Class, Diagnose, Key, Level, Step, Watch, io_hint};
use crate::turn::{Turn, Use};
use remote::Asked;

pub use last::Why;
pub use remote::{Remote, Trouble, Wanted};
pub use upkeep::{Collected, Item, Leftover, Limits, Verified};

/// The layout of the store; a store of another format is refused.
const FORMAT: &str = "imgbuild store 1\n";
/// The directories of a store that are its own.
const ROOMS: [&str; 6] = ["downloads", "artifacts", "records", "locks", "logs", "work"];
/// The kinds of artifacts that are inputs of what is made: unpacked from files with a known hash.
const INPUTS: [&str; 2] = ["source", "tree"];
/// What the format file is called before it is whole.
const NEW_FORMAT: &str = "format-";

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
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where caches go.
    #[error("no place for the store: neither XDG_CACHE_HOME nor HOME is set")]
    NoHome,
    /// Stopped by the user.
    #[error("interrupted")]
    Cancelled,
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
    /// Whether it was there already, here or elsewhere.
    pub cached: bool,
}

/// The content-addressed cache.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Where what is made is put instead of among the artifacts, for work that takes nothing made before.
    fresh: Option<Arc<Work>>,
    /// The entries this process was given: they stay for as long as it has the store open.
    used: Arc<Mutex<Vec<Use>>>,
    /// Where else artifacts may be.
    remotes: Vec<Arc<dyn Remote>>,
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
        for dir in ROOMS {
            // The format file comes first, so that a store of another format is left as it is.
            Self::check_format(root)?;
            fs::create_dir_all(root.join(dir))?;
        }
        let root = fs::canonicalize(root)?;
        let store = Self { root, fresh: None, used: Arc::default(), remotes: Vec::new() };
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
                // A process that was killed here left no more than the name it was about to change.
                let foreign = |entry: std::io::Result<fs::DirEntry>| {
                    entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with(NEW_FORMAT))
                };
                if fs::read_dir(root).is_ok_and(|mut entries| entries.any(foreign)) {
                    let found = "no format file, but other files".into();
                    return Err(Error::Format { path: root.to_owned(), found });
                }
                fs::create_dir_all(root)?;
                let mut file = tempfile::Builder::new().prefix(NEW_FORMAT).tempfile_in(root)?;
                file.write_all(FORMAT.as_bytes())?;
                file.as_file().sync_all()?;
                match file.persist(&path).map_err(|error| error.error) {
                    // Another process was first, and swept ours away as it opened the store.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::check_format(root),
                    persisted => Ok(persisted.map(drop)?),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// This store for work that must not take what was made before: downloads, unpacked sources and toolchain trees are
    /// shared, each checked as always; everything else, compilers' caches too, is made now and gone with it. No other
    /// machine is asked.
    pub fn fresh(&self) -> Result<Self, Error> {
        let fresh = Some(Arc::new(self.work()?));
        Ok(Self { root: self.root.clone(), fresh, used: Arc::default(), remotes: Vec::new() })
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
        let dir = self.made().join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A scratch directory on the store's disk.
    pub fn work(&self) -> Result<Work, Error> {
        Ok(self.scratch()?)
    }

    fn scratch(&self) -> std::io::Result<Work> {
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
            // What cannot be removed (the dead process's make may still write) is left for the next sweep.
            if !alive && (fs::remove_dir_all(&dir).is_ok() || !dir.exists()) {
                let _ = fs::remove_file(&path);
            }
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(NEW_FORMAT) {
                let _ = fs::remove_file(entry.path());
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
        let entries = fs::read_dir(self.kind(kind));
        entries.into_iter().flatten().flatten().map(|entry| entry.path().join("files")).collect()
    }

    /// Where the files of an artifact are and the key of its content, without looking whether they are sound.
    pub fn look(&self, kind: &str, key: Key) -> Option<(PathBuf, Key)> {
        let entry = self.entry(kind, key);
        Some((entry.join("files"), seal::content(&entry)?))
    }

    fn entry(&self, kind: &str, key: Key) -> PathBuf {
        self.kind(kind).join(key.to_string())
    }

    /// Where the artifacts of a kind are.
    fn kind(&self, kind: &str) -> PathBuf {
        let root = if INPUTS.contains(&kind) { &self.root } else { self.made() };
        root.join("artifacts").join(kind)
    }

    /// Below which directory what is made goes.
    fn made(&self) -> &Path {
        self.fresh.as_ref().map_or(&self.root, |work| work.path())
    }

    /// The artifact of a step: from the store, from where else it may be, or made now. Processes that want the same one
    /// wait for each other.
    pub fn get_or_make<S: Step>(&self, step: &S, watch: &Watch) -> Result<Artifact, MakeError<S::Error>> {
        let (kind, name, record) = (step.kind(), step.name(), step.record());
        let key = Key::of(&record);
        let wanted = Wanted { kind, key, name: &name, record: &record };
        let (artifact, asked) = self.found_or_made(step, &wanted, watch)?;
        self.remember(kind, &name, &record).map_err(Error::Io)?;
        if step.is_shared() {
            self.offer(&wanted, &artifact, &asked, watch);
        }
        Ok(artifact)
    }

    fn found_or_made<S: Step>(
        &self,
        step: &S,
        wanted: &Wanted<'_>,
        watch: &Watch,
    ) -> Result<(Artifact, Asked), MakeError<S::Error>> {
        let Wanted { kind, key, name, record } = *wanted;
        let entry = self.entry(kind, key);
        if let Some(artifact) = self.open_entry(&entry, watch).map_err(Error::Io)? {
            return Ok((artifact, Asked::default()));
        }
        let lock = self.root.join("locks").join(format!("{key}.lock"));
        let waiting = || {
            let message = format!("another imgbuild is making {kind} {}: waiting for it", key.short());
            watch.reporter.note(Level::Info, &message);
        };
        let turn = Turn::wait(&lock, &watch.cancel, waiting).map_err(Error::Io)?;
        let _turn = turn.ok_or(Error::Cancelled)?;
        // Whoever held the lock may have made it meanwhile.
        if let Some(artifact) = self.open_entry(&entry, watch).map_err(Error::Io)? {
            return Ok((artifact, Asked::default()));
        }
        let mut asked =
            if step.is_shared() { self.ask(wanted, step.check(), watch)? } else { Asked::default() };
        let cached = asked.brought.is_some();
        let (work, content) = if let Some(brought) = asked.brought.take() {
            brought
        } else {
            if let Some(why) = self.why(kind, name, record) {
                watch.reporter.note(Level::Detail, &format!("{kind} {name} is made anew: {why}"));
            }
            let work = self.work()?;
            let files = work.path().join("files");
            fs::create_dir(&files).map_err(Error::Io)?;
            step.run(&files, watch).map_err(MakeError::Step)?;
            let content = seal::seal(work.path(), name, record, step.check()).map_err(Error::Io)?;
            (work, content)
        };
        fs::create_dir_all(entry.parent().expect("an entry lies below its kind")).map_err(Error::Io)?;
        fs::rename(work.path(), &entry).map_err(Error::Io)?;
        self.keep(Use::of(&entry).map_err(Error::Io)?);
        Ok((Artifact { path: entry.join("files"), content, cached }, asked))
    }

    fn keep(&self, entry: Use) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// An entry if it is there and whole; a damaged one is said and dropped.
    fn open_entry(&self, entry: &Path, watch: &Watch) -> std::io::Result<Option<Artifact>> {
        let used = match Use::of(entry) {
            Ok(used) => used,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(content) = seal::sound(entry)? {
            self.keep(used);
            return Ok(Some(Artifact { path: entry.join("files"), content, cached: true }));
        }
        let message =
            format!("the store's entry `{}` is damaged; it is dropped and made again", entry.display());
        watch.reporter.note(Level::Warning, &message);
        self.discard(entry)?;
        Ok(None)
    }

    /// Takes an entry away by one rename, so that no half of it is ever found, and removes it.
    fn discard(&self, entry: &Path) -> std::io::Result<()> {
        let work = self.scratch()?;
        fs::rename(entry, work.path().join("dropped"))
    }
}

/// Whether something was removed now or is gone already; not, if somebody is filling it.
fn settled(result: std::io::Result<()>) -> std::io::Result<bool> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // The directory itself goes when `dir` is dropped, or was renamed into place.
        let _ = fs::remove_file(self.dir.path().with_extension("lock"));
    }
}

#[cfg(test)]
mod tests;
