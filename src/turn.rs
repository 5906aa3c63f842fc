//! Taking turns between processes: lock files that may be removed, and things that are in use.

use std::fs::TryLockError;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err::{self as fs, File};

use crate::step::Cancel;

/// How often a waiting process looks whether its turn has come, or whether it should stop.
const TICK: Duration = Duration::from_millis(100);

/// A lock file held by this process, until dropped.
#[derive(Debug)]
pub struct Turn {
    path: PathBuf,
    _file: File,
}

impl Turn {
    /// Takes the turn if nobody has it.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = File::create(path)?;
            if !try_lock(&file)? {
                return Ok(None);
            }
            // Whoever had it may have removed the file after we opened it; others would then lock another one.
            if is_at(&file, path)? {
                return Ok(Some(Self { path: path.to_owned(), _file: file }));
            }
        }
    }

    /// Waits for the turn, saying so with `told` if it has to; none if a stop was asked for meanwhile.
    pub fn wait(path: &Path, cancel: &Cancel, told: impl FnOnce()) -> Result<Option<Self>> {
        let mut told = Some(told);
        loop {
            if let Some(turn) = Self::try_take(path)? {
                return Ok(Some(turn));
            }
            if let Some(told) = told.take() {
                told();
            }
            if cancel.is_cancelled() {
                return Ok(None);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Gives the turn back and removes its file.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path)
    }
}

/// A file or directory that this process uses, until dropped: nobody removes it from the store meanwhile.
#[derive(Debug)]
pub struct Use(File);

impl Use {
    /// Begins to use what lies at `path`, and notes that it was used now.
    pub fn of(path: &Path) -> Result<Self> {
        loop {
            let file = File::open(path)?;
            file.file().lock_shared()?;
            if is_at(&file, path)? {
                // Somebody else's store may be read, but its times are not ours to set.
                let _ = file.file().set_modified(SystemTime::now());
                return Ok(Self(file));
            }
        }
    }

    /// Takes what lies at `path` for this process alone, if nobody uses it.
    pub fn alone(path: &Path) -> Result<Option<Self>> {
        let file = File::open(path)?;
        Ok((try_lock(&file)? && is_at(&file, path)?).then_some(Self(file)))
    }

    /// When it was last used.
    pub fn last(&self) -> Result<SystemTime> {
        self.0.metadata()?.modified()
    }
}

fn try_lock(file: &File) -> Result<bool> {
    match file.file().try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether an open file is still the one that lies at `path`.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_turn_and_removing_its_file_lets_the_next_one_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let first = Turn::try_take(&path).unwrap().unwrap();
        assert!(Turn::try_take(&path).unwrap().is_none());
        first.remove().unwrap();
        assert!(!path.exists());
        assert!(Turn::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn a_waiting_process_can_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let _first = Turn::try_take(&path).unwrap().unwrap();
        let cancel = Cancel::default();
        let mut told = false;
        let waited = Turn::wait(&path, &cancel, || {
            told = true;
            cancel.cancel();
        });
        assert!(waited.unwrap().is_none() && told);
    }

    #[test]
    fn what_is_used_by_several_is_nobody_s_alone() {
        let dir = tempfile::tempdir().unwrap();
        let one = Use::of(dir.path()).unwrap();
        let two = Use::of(dir.path()).unwrap();
        assert!(Use::alone(dir.path()).unwrap().is_none());
        drop((one, two));
        assert!(Use::alone(dir.path()).unwrap().is_some());
        assert!(Use::of(&dir.path().join("nothing")).is_err());
    }
}
