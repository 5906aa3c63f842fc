//! Places beyond this machine that keep artifacts too. They are asked before a step runs, and never believed: what
//! they give is held against its own account, and where that fails the step runs here.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use serde_json::Value;

use super::{Artifact, Error, Store, Work, seal};
use crate::step::{Check, Key, Level, Step, Watch};

/// An artifact that is looked for elsewhere, or offered to others.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its kind.
    pub kind: &'static str,
    /// The digest of its record.
    pub key: Key,
    /// What people call its step.
    pub name: &'a str,
    /// The account of all that can change it.
    pub record: &'a Value,
}

/// Why a place beyond this machine is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It cannot be asked, or cannot take anything.
    #[error("{0}")]
    Away(String),
    /// What it has is not what it should be, or is from nobody we trust.
    #[error("{0}")]
    Lies(String),
}

/// A place beyond this machine that keeps artifacts.
pub trait Remote: fmt::Debug + Send + Sync {
    /// What people call it.
    fn name(&self) -> String;

    /// Whether it says that it has an artifact; not, where it cannot be asked.
    fn holds(&self, kind: &str, key: Key) -> bool;

    /// Fills `files`, an empty directory, with an artifact, and returns the key that its content should have; none if
    /// it is not there. `work` is a scratch directory.
    fn fetch(
        &self,
        wanted: &Wanted<'_>,
        work: &Path,
        files: &Path,
        watch: &Watch,
    ) -> Result<Option<Key>, Trouble>;

    /// Puts an artifact there unless it is there already, or in its place if it is to be `replaced`. A place that is
    /// only read does nothing.
    fn offer(
        &self,
        wanted: &Wanted<'_>,
        artifact: &Artifact,
        replaced: bool,
        work: &Path,
        watch: &Watch,
    ) -> Result<(), Trouble>;
}

/// What became of asking elsewhere.
#[derive(Default)]
pub(super) struct Asked {
    /// The sealed entry and the key of its content.
    pub(super) brought: Option<(Work, Key)>,
    /// The places whose entry is of no use, by number.
    useless: Vec<usize>,
}

impl Store {
    /// The same store, with places that are asked for what is not in it, in this order.
    #[must_use]
    pub fn with_remotes(self, remotes: Vec<Arc<dyn Remote>>) -> Self {
        Self { remotes, ..self }
    }

    /// Whether a step's artifact is in the store or said to be where it can be brought from, without looking whether
    /// it is sound.
    pub fn can_have<S: Step>(&self, step: &S) -> bool {
        let key = step.key();
        self.peek(step.kind(), key) || self.elsewhere(step, key).is_some()
    }

    /// The first place beyond this machine that says it has a step's artifact.
    pub fn elsewhere<S: Step>(&self, step: &S, key: Key) -> Option<String> {
        let mut remotes = self.remotes.iter().filter(|_| step.is_shared());
        remotes.find(|remote| remote.holds(step.kind(), key)).map(|remote| remote.name())
    }

    /// Asks the places beyond this machine for an artifact.
    pub(super) fn ask(&self, wanted: &Wanted<'_>, check: Check, watch: &Watch) -> Result<Asked, Error> {
        let mut asked = Asked::default();
        for (number, remote) in self.remotes.iter().enumerate() {
            let work = self.work()?;
            let files = work.path().join("files");
            fs::create_dir(&files)?;
            let trouble = match remote.fetch(wanted, work.path(), &files, watch) {
                Ok(None) => continue,
                Ok(Some(claimed)) => {
                    let content = seal::seal(work.path(), wanted.name, wanted.record, check)?;
                    if content == claimed {
                        asked.brought = Some((work, content));
                        return Ok(asked);
                    }
                    Trouble::Lies("its files are not those that it lists".into())
                }
                Err(_) if watch.cancel.is_cancelled() => return Err(Error::Cancelled),
                Err(trouble) => trouble,
            };
            let Wanted { kind, key, name: step, .. } = wanted;
            let (name, short) = (remote.name(), key.short());
            match trouble {
                Trouble::Away(reason) => {
                    watch
                        .reporter
                        .note(Level::Info, &format!("the cache `{name}` is of no use now: {reason}"));
                }
                Trouble::Lies(reason) => {
                    let message =
                        format!("{kind} {step} ({short}) from the cache `{name}` is not used: {reason}");
                    watch.reporter.note(Level::Warning, &message);
                    asked.useless.push(number);
                }
            }
        }
        Ok(asked)
    }

    /// Offers an artifact to the places beyond this machine. That it is not taken is said, and no more.
    pub(super) fn offer(&self, wanted: &Wanted<'_>, artifact: &Artifact, asked: &Asked, watch: &Watch) {
        for (number, remote) in self.remotes.iter().enumerate() {
            let replaced = asked.useless.contains(&number);
            let offered = self
                .work()
                .map_err(|error| Trouble::Away(error.to_string()))
                .and_then(|work| remote.offer(wanted, artifact, replaced, work.path(), watch));
            if let Err(reason) = offered {
                let (kind, name) = (wanted.kind, wanted.name);
                let message =
                    format!("{kind} {name} is not put into the cache `{}`: {reason}", remote.name());
                watch.reporter.note(Level::Warning, &message);
            }
        }
    }
}
