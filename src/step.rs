//! The words every room speaks: what a step is, how it tells its progress, how it fails.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Why a command ended, as its exit code tells it. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The host failed us: disk, permissions, a program that cannot be started.
    Host = 1,
    /// The command line asks for something that does not exist or does not fit together.
    Usage = 2,
    /// A recipe, a fragment or the lock is wrong.
    Recipe = 3,
    /// An input (download, tool, file) is missing.
    Input = 4,
    /// Something is not what its hash, header or record says.
    Verification = 5,
    /// A build step failed.
    Build = 6,
    /// A registry cannot be reached, refuses, or answers what it must not.
    Registry = 7,
    /// A guest did not come as far as it was expected to.
    Boot = 8,
    /// The result is not the one that is recorded.
    NotReproducible = 9,
    /// Ended by SIGINT or SIGTERM.
    Interrupted = 130,
}

impl Class {
    /// The process exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// What an error adds to its sentence: its class, what to do about it, and a block to show below.
pub trait Diagnose: std::error::Error {
    /// The class, hence the exit code.
    fn class(&self) -> Class;

    /// One sentence that says what to do.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Lines to show as they are: an underlined recipe, the end of a log.
    fn detail(&self) -> Option<String> {
        None
    }
}

/// What to do about the I/O errors that have a plain cure.
pub fn io_hint(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free some space, or name another disk: --store (or IMGBUILD_STORE) for the cache, --output for images".into())
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Some("name a place you may write to: --output for images, --store for the cache".into())
        }
        _ => None,
    }
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Shown with `-v` alone.
    Detail,
    /// Shown unless `--quiet`.
    Info,
    /// Always shown; says what to do.
    Warning,
}

/// What a stage counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Files compiled or written.
    Files,
}

/// Where stages tell what they do; the one implementation that draws lives in `cli`.
pub trait Reporter: Send + Sync {
    /// A stage begins: `verb` ("fetch"), what it works on, and how much there is to do if that is known.
    fn begin(&self, verb: &str, what: &str, total: Option<u64>, unit: Unit) -> Box<dyn Progress>;

    /// A sentence beside the progress.
    fn note(&self, level: Level, message: &str);
}

/// One running stage. Dropping it unfinished means that the stage failed.
pub trait Progress: Send + Sync {
    /// So much is done.
    fn set(&self, done: u64);

    /// The stage is over; `outcome` says in a few words how ("cached", "1.1 GB").
    fn finish(&self, outcome: &str);
}

/// Asks running work to stop. Clones share one flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for; long loops look at it.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for a signal handler to set.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// What running work is given of its surroundings: whom to tell, and when to stop.
#[derive(Clone)]
pub struct Watch {
    /// Where progress goes.
    pub reporter: Arc<dyn Reporter>,
    /// Whether to stop.
    pub cancel: Cancel,
}

impl Watch {
    /// Tells nobody and stops for nobody: for those who look at results alone.
    pub fn silent() -> Self {
        Self { reporter: Arc::new(Silent), cancel: Cancel::default() }
    }
}

/// Tells nobody.
struct Silent;

impl Reporter for Silent {
    fn begin(&self, _: &str, _: &str, _: Option<u64>, _: Unit) -> Box<dyn Progress> {
        Box::new(Self)
    }
    fn note(&self, _: Level, _: &str) {}
}

impl Progress for Silent {
    fn set(&self, _: u64) {}
    fn finish(&self, _: &str) {}
}

/// The digest of everything that can change a step's result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a record. `serde_json` keeps objects sorted, so equal records have equal bytes.
    pub fn of(record: &Value) -> Self {
        Self(Sha256::digest(record.to_string().as_bytes()).into())
    }

    /// The first twelve digits, for file names and people.
    pub fn short(self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl std::str::FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NotAKey);
        }
        let digit = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(Self(key))
    }
}

/// What should be a key is not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits")]
pub struct NotAKey;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A size for people: "512 B", "11.9 MB" (powers of ten, as registries and disks count).
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// An error and its causes in one line: neither reqwest's nor tar's own sentence says what happened.
pub fn because(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let sentence = cause.to_string();
        if !text.contains(&sentence) {
            text += ": ";
            text += &sentence;
        }
        source = cause.source();
    }
    text
}

/// How an artifact is looked at before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every file is read and hashed.
    Bytes,
    /// Sizes and times of files are looked at; where they are not as they were, every file is read.
    Stamps,
    /// Sizes and times of files are looked at; where they are not as they were, the artifact is made again, which
    /// takes no longer than reading it.
    StampsAlone,
}

/// A piece of work whose result is a directory and depends on its record alone.
pub trait Step {
    /// What can go wrong in `run`.
    type Error;

    /// The kind of artifact: the store's folder for it ("kernel", "layer").
    fn kind(&self) -> &'static str;

    /// The canonical account of all that can change the result.
    fn record(&self) -> Value;

    /// How the artifact is checked when it is used.
    fn check(&self) -> Check {
        Check::Bytes
    }

    /// Whether the artifact is worth keeping where other machines find it: it takes minutes to make and less to bring,
    /// and its record names nothing but pinned inputs, so that whoever makes it makes the same.
    fn is_shared(&self) -> bool {
        false
    }

    /// What people call it: the step that had the same name at another time is the one it is compared with when it
    /// has to run again.
    fn name(&self) -> String {
        self.kind().to_owned()
    }

    /// Fills `out`, an empty directory, with the artifact.
    fn run(&self, out: &Path, watch: &Watch) -> Result<(), Self::Error>;

    /// The digest of the record.
    fn key(&self) -> Key {
        Key::of(&self.record())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_does_not_depend_on_the_order_of_fields() {
        assert_eq!(Key::of(&json!({"a": 1, "b": 2})), Key::of(&json!({"b": 2, "a": 1})));
        assert_ne!(Key::of(&json!({"a": 1})), Key::of(&json!({"a": 2})));
    }

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (122_205_276, "122.2 MB")] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn hex_is_lower_case_and_padded() {
        assert_eq!(hex(&[0, 0xAB, 0x0f]), "00ab0f");
    }
}
