//! What is in the store, cleaning it up, and checking it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err::{self as fs, File};
use serde_json::Value;

use super::listing::hash;
use super::{Error, Store, seal, settled};
use crate::step::{Key, Unit, Watch, human};
use crate::turn::{Turn, Use};

/// Logs and broken-off downloads are kept for so long at least: somebody may read or resume them.
const STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One entry: an artifact or a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The kind of artifact, or `download`.
    pub kind: String,
    /// The step's key, or the download's sha256.
    pub key: String,
    /// What people call it, where it says so.
    pub name: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
    path: PathBuf,
}

/// Something beside the entries: a log, a broken-off download, a lock file that nobody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// `log`, `partial download` or `lock file`.
    pub kind: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// What may stay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Entries may be so large together, in bytes.
    pub max_size: Option<u64>,
    /// Entries may be unused for so long.
    pub max_age: Option<Duration>,
}

/// What was cleaned away, or would be.
#[derive(Debug, Default)]
pub struct Collected {
    /// The entries, least recently used first.
    pub items: Vec<Item>,
    /// Entries beyond the limits that stay because a running imgbuild uses them.
    pub in_use: Vec<Item>,
    /// All else.
    pub leftovers: Vec<Leftover>,
    /// The size of the entries that stay, in bytes.
    pub left: u64,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many entries were read.
    pub checked: usize,
    /// Their size, in bytes.
    pub size: u64,
    /// The damaged ones, each with what is wrong with it. They are dropped.
    pub damaged: Vec<(Item, String)>,
}

impl Store {
    /// All entries, least recently used first.
    pub fn items(&self) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        for kind in entries(&self.root.join("artifacts"))? {
            for path in entries(&kind)? {
                items.extend(item(&file_name(&kind), &path)?);
            }
        }
        for path in entries(&self.downloads())? {
            if path.extension().is_none() {
                items.extend(item("download", &path)?);
            }
        }
        items.sort_by(|a, b| (a.used, &a.kind, &a.key).cmp(&(b.used, &b.kind, &b.key)));
        Ok(items)
    }

    /// The caches that tools keep for themselves (a compiler's), each with its name and size. They have limits of
    /// their own.
    pub fn tool_caches(&self) -> Result<Vec<(String, u64)>, Error> {
        let foreign = |path: &PathBuf| path.is_dir() && !super::ROOMS.contains(&file_name(path).as_str());
        let found = entries(&self.root)?.into_iter().filter(foreign);
        Ok(found.map(|path| Ok((file_name(&path), size(&path)?))).collect::<std::io::Result<_>>()?)
    }

    /// Removes what is beyond the limits, least recently used first, and what nobody needs. With `dry_run`, only
    /// says what it would be. What a running imgbuild uses stays.
    pub fn collect(&self, limits: &Limits, dry_run: bool) -> Result<Collected, Error> {
        let items = self.items()?;
        let mut collected =
            Collected { left: items.iter().map(|item| item.size).sum(), ..Collected::default() };
        let now = SystemTime::now();
        for item in items {
            let old = limits.max_age.is_some_and(|age| now.duration_since(item.used).is_ok_and(|t| t > age));
            let too_much = limits.max_size.is_some_and(|size| collected.left > size);
            if !old && !too_much {
                continue;
            }
            if self.drop_unused(&item, dry_run)? {
                collected.left -= item.size;
                collected.items.push(item);
            } else {
                collected.in_use.push(item);
            }
        }
        let age = limits.max_age.map_or(STALE, |age| age.min(STALE));
        collected.leftovers = self.leftovers(age, dry_run)?;
        Ok(collected)
    }

    /// Reads every entry and compares it with what it should be; damaged ones are dropped.
    pub fn verify(&self, watch: &Watch) -> Result<Verified, Error> {
        let items = self.items()?;
        let total = items.iter().map(|item| item.size).sum();
        let progress = watch.reporter.begin("verify", "the store", Some(total), Unit::Bytes);
        let mut verified = Verified::default();
        for item in items {
            if watch.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (size, wrong) = (item.size, fault(&item));
            if let Some(wrong) = wrong.filter(|_| item.path.exists()) {
                self.discard(&item.path)?;
                verified.damaged.push((item, wrong));
            }
            verified.checked += 1;
            verified.size += size;
            progress.set(verified.size);
        }
        progress.finish(&format!("{} entries, {}", verified.checked, human(verified.size)));
        Ok(verified)
    }

    /// Drops an entry unless somebody uses it, or has used it since it was looked at.
    fn drop_unused(&self, item: &Item, dry_run: bool) -> Result<bool, Error> {
        let lock = match item.kind.as_str() {
            "download" => item.path.with_extension("lock"),
            _ => self.root.join("locks").join(format!("{}.lock", item.key)),
        };
        let turn = Turn::try_take(&lock)?;
        let alone = if item.path.exists() { Use::alone(&item.path)? } else { None };
        let free = match (&turn, &alone) {
            (Some(_), Some(alone)) => alone.last()? == item.used,
            _ => false,
        };
        if free && !dry_run {
            self.discard(&item.path)?;
        }
        if let Some(turn) = turn {
            turn.remove()?;
        }
        Ok(free)
    }

    /// Logs and broken-off downloads older than `age`, and lock files that nobody holds.
    fn leftovers(&self, age: Duration, dry_run: bool) -> Result<Vec<Leftover>, Error> {
        let mut found = Vec::new();
        for dir in ["logs", "downloads", "locks"] {
            for path in entries(&self.root.join(dir))? {
                let size = fs::metadata(&path)?.len();
                let kind = match path.extension().and_then(|extension| extension.to_str()) {
                    // The gate of the work directories is no entry's: whoever makes one holds it for an instant.
                    Some("lock") if file_name(&path) != "work.lock" => "lock file",
                    Some("part") if is_older(&path, age)? => "partial download",
                    Some("log") if is_older(&path, age)? => "log",
                    _ => continue,
                };
                // A download is resumed under the lock of its entry; nobody takes turns with logs.
                let turn = match kind {
                    "log" => None,
                    _ => match Turn::try_take(&path.with_extension("lock"))? {
                        Some(turn) => Some(turn),
                        None => continue,
                    },
                };
                if !dry_run {
                    settled(fs::remove_file(&path))?;
                }
                if let Some(turn) = turn.filter(|_| kind != "lock file") {
                    turn.remove()?;
                }
                found.push(Leftover { kind, path, size });
            }
        }
        Ok(found)
    }
}

/// The paths in a directory, sorted; none where there is no directory.
fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_older(path: &Path, age: Duration) -> std::io::Result<bool> {
    Ok(fs::metadata(path)?.modified()?.elapsed().is_ok_and(|since| since > age))
}

/// An entry; none if it vanished meanwhile.
fn item(kind: &str, path: &Path) -> std::io::Result<Option<Item>> {
    let found = || -> std::io::Result<Item> {
        let name = fs::read_to_string(path.join(seal::NAME)).ok().filter(|name| !name.is_empty());
        let used = fs::metadata(path)?.modified()?;
        let (kind, key) = (kind.to_owned(), file_name(path));
        Ok(Item { kind, key, name, size: size(path)?, used, path: path.to_owned() })
    };
    match found() {
        Ok(item) => Ok(Some(item)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The size of a file, or of all files below a directory.
fn size(path: &Path) -> std::io::Result<u64> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        entries(path)?.iter().map(|path| size(path)).sum()
    } else {
        Ok(if meta.is_file() { meta.len() } else { 0 })
    }
}

/// What is wrong with an entry, if anything is.
fn fault(item: &Item) -> Option<String> {
    if item.kind == "download" {
        let actual = match File::open(&item.path).and_then(|mut file| hash(&mut file)) {
            Ok(actual) => actual,
            Err(error) => return Some(error.to_string()),
        };
        return (actual != item.key).then(|| format!("its sha256 is {actual}"));
    }
    let record = fs::read_to_string(item.path.join(seal::RECORD)).unwrap_or_default();
    let key = serde_json::from_str::<Value>(&record).map(|record| Key::of(&record).to_string());
    if key.ok().as_ref() != Some(&item.key) {
        return Some("its record does not have its key".into());
    }
    match seal::whole(&item.path) {
        Ok(Some(_)) => None,
        Ok(None) => Some("its files are not those of its list".into()),
        Err(error) => Some(error.to_string()),
    }
}
