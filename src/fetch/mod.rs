//! Inputs from outside: found at a place or its mirror, hashed while they stream, kept under their hash.

pub mod archive;
mod download;
pub mod kernel_org;
pub mod mirror;
pub mod openpgp;
pub mod unpack;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use fs_err::{self as fs, File};
use sha2::{Digest, Sha256};

use crate::lock::FilePin;
use crate::step::{Class, Diagnose, Level, Progress, Unit, Watch, hex, human, io_hint};
use crate::turn::{Turn, Use};
use mirror::Location;

/// An input could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's apt names no mirror of the archive.
    #[error("no mirror for `{place}`: apt on this host has no archive labelled {label}")]
    NoMirror {
        /// The place's name.
        place: String,
        /// The archive's label.
        label: String,
    },
    /// Nothing says where a place is.
    #[error("the lock has no place `{place}`, and no mirror is named for it")]
    NoPlace {
        /// The place's name.
        place: String,
    },
    /// The server says the file is not there.
    #[error("`{url}` is not there ({status})")]
    Gone {
        /// The place's name.
        place: String,
        /// The file's URL.
        url: String,
        /// What the server answered.
        status: String,
    },
    /// The file is in none of the directories.
    #[error("neither `{}` nor `{}` exists", .paths[0].display(), .paths[1].display())]
    NoFile {
        /// The place's name.
        place: String,
        /// Where it was looked for.
        paths: [PathBuf; 2],
    },
    /// The server did not deliver, however often it was asked.
    #[error("cannot fetch `{url}`: {reason} ({attempts} attempts)")]
    Unreachable {
        /// The place's name.
        place: String,
        /// The file's URL.
        url: String,
        /// The last reason.
        reason: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// What arrived is not what is pinned.
    #[error(
        "`{from}` is not what the lock pins: sha256 should be {expected}, but is {actual} ({size} bytes); it was not kept"
    )]
    Mismatch {
        /// The place's name.
        place: String,
        /// URL or path.
        from: String,
        /// The pinned sha256.
        expected: String,
        /// The sha256 of what arrived.
        actual: String,
        /// The size of what arrived, in bytes.
        size: u64,
    },
    /// What should be a short document does not end.
    #[error("`{from}` is longer than {}, which nothing of its kind is", human(*.limit))]
    TooLarge {
        /// URL or path.
        from: String,
        /// How long it may be, in bytes.
        limit: u64,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The archive cannot be unpacked.
    #[error("`{}` cannot be unpacked: {reason}", .path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Stopped by the user.
    #[error("interrupted")]
    Cancelled,
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::NoPlace { .. } => Class::Recipe,
            Self::NoMirror { .. } | Self::Gone { .. } | Self::NoFile { .. } | Self::Unreachable { .. } => {
                Class::Input
            }
            Self::Mismatch { .. } | Self::Unpack { .. } | Self::TooLarge { .. } => Class::Verification,
            Self::Io(_) => Class::Host,
            Self::Cancelled => Class::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoMirror { place, .. }
            | Self::NoPlace { place }
            | Self::Gone { place, .. }
            | Self::Unreachable { place, .. } => {
                Some(format!("name a mirror: `--mirror {place}=URL` or `--mirror {place}=DIRECTORY`"))
            }
            Self::NoFile { place, .. } => {
                Some(format!("put the file there, or leave out `--mirror {place}=…`"))
            }
            Self::Mismatch { place, .. } => Some(format!(
                "the mirror is damaged or lying, or the pin is wrong: try another one with `--mirror {place}=URL`"
            )),
            Self::TooLarge { .. } => Some("the mirror is damaged or lying: try another one".into()),
            Self::Io(error) => io_hint(error),
            Self::Unpack { .. } => Some(
                "its hash is right, so the pinned file itself is not a .tar.xz of one source tree".into(),
            ),
            Self::Cancelled => None,
        }
    }
}

/// A verified file of the store.
#[derive(Debug)]
pub struct Fetched {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it was there already.
    pub cached: bool,
    /// Keeps it from being cleaned away.
    _used: Use,
}

/// Whether the file of a pin is in `downloads`, without looking whether it is sound.
pub fn is_cached(downloads: &Path, pin: &FilePin) -> bool {
    downloads.join(&pin.sha256).is_file()
}

/// Brings the file of a pin into `downloads`, where it is kept under its sha256.
pub fn fetch(
    pin: &FilePin,
    location: impl FnOnce() -> Result<Location, Error>,
    downloads: &Path,
    watch: &Watch,
) -> Result<Fetched, Error> {
    let kept = downloads.join(&pin.sha256);
    let name = pin.path.rsplit('/').next().unwrap_or(&pin.path);
    // Two processes that want the same file: one downloads, the other waits and finds it.
    let turn = Turn::wait(&kept.with_extension("lock"), &watch.cancel, || {
        watch.reporter.note(Level::Info, &format!("another imgbuild is fetching {name}: waiting for it"));
    });
    let _turn = turn?.ok_or(Error::Cancelled)?;
    if kept.is_file() {
        let used = Use::of(&kept)?;
        let (actual, _) = hash_file(&kept, watch)?;
        if actual == pin.sha256 {
            return Ok(Fetched { path: kept, cached: true, _used: used });
        }
        let message = format!("the store's copy of {name} is damaged; it is dropped and fetched again");
        watch.reporter.note(Level::Warning, &message);
        fs::remove_file(&kept)?;
    }
    let part = kept.with_extension("part");
    let progress = watch.reporter.begin("fetch", name, pin.size, Unit::Bytes);
    let size = match location()? {
        Location::Url(url) => download::download(pin, &url, &part, progress.as_ref(), watch)?,
        Location::Path(paths) => copy(pin, &paths, &part, progress.as_ref(), watch)?,
    };
    File::open(&part)?.sync_all()?;
    fs::rename(&part, &kept)?;
    progress.finish(&format!("{}, sha256 verified", human(size)));
    let used = Use::of(&kept)?;
    Ok(Fetched { path: kept, cached: false, _used: used })
}

/// Brings a short document of a place, about which nothing is known yet: its signature has to vouch for it, or whoever
/// reviews what is pinned from it. Returns where it was found, and its bytes.
pub fn document(
    place: &str,
    location: Location,
    limit: u64,
    watch: &Watch,
) -> Result<(String, Vec<u8>), Error> {
    match location {
        Location::Url(url) => {
            let name = url.rsplit('/').next().unwrap_or(&url).to_owned();
            let progress = watch.reporter.begin("fetch", &name, None, Unit::Bytes);
            let dir = tempfile::tempdir()?;
            let part = dir.path().join("document");
            let mut sum = Sum::default();
            download::receive(place, &url, &part, &mut sum, limit, progress.as_ref(), watch)?;
            progress.finish(&human(sum.size));
            Ok((url, fs::read(&part)?))
        }
        Location::Path(paths) => {
            let found = paths.iter().find(|path| path.is_file()).cloned();
            let from = found.ok_or_else(|| Error::NoFile { place: place.to_owned(), paths })?;
            let mut bytes = Vec::new();
            File::open(&from)?.take(limit + 1).read_to_end(&mut bytes)?;
            let from = from.display().to_string();
            if bytes.len() as u64 > limit {
                return Err(Error::TooLarge { from, limit });
            }
            Ok((from, bytes))
        }
    }
}

/// Copies a local mirror's file, so that what was hashed is what is used.
fn copy(
    pin: &FilePin,
    paths: &[PathBuf; 2],
    part: &Path,
    progress: &dyn Progress,
    watch: &Watch,
) -> Result<u64, Error> {
    let found = paths.iter().find(|path| path.is_file());
    let from = found.ok_or_else(|| Error::NoFile { place: pin.place.clone(), paths: paths.clone() })?;
    let mut source = File::open(from)?;
    let mut target = File::create(part)?;
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        if watch.cancel.is_cancelled() {
            fs::remove_file(part)?;
            return Err(Error::Cancelled);
        }
        sum.add(&buffer[..read]);
        target.write_all(&buffer[..read]).inspect_err(|_| drop(fs::remove_file(part)))?;
        progress.set(sum.size);
    }
    sum.check(pin, &from.display().to_string()).inspect_err(|_| drop(fs::remove_file(part)))
}

/// The running hash and size of a file.
#[derive(Default, Clone)]
struct Sum {
    hasher: Sha256,
    size: u64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn check(self, pin: &FilePin, from: &str) -> Result<u64, Error> {
        let actual = hex(&self.hasher.finalize());
        if actual == pin.sha256 {
            return Ok(self.size);
        }
        let (place, from, expected) = (pin.place.clone(), from.to_owned(), pin.sha256.clone());
        Err(Error::Mismatch { place, from, expected, actual, size: self.size })
    }
}

fn hash_file(path: &Path, watch: &Watch) -> Result<(String, u64), Error> {
    let mut file = File::open(path)?;
    let mut sum = Sum::default();
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hex(&sum.hasher.finalize()), sum.size)),
            _ if watch.cancel.is_cancelled() => return Err(Error::Cancelled),
            n => sum.add(&buffer[..n]),
        }
    }
}
