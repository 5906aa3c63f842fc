//! What of a release is in a registry already.

use serde::Serialize;

use super::{Cell, Error};
use crate::registry::reference::{Prefix, Reference};
use crate::registry::{self, Client, lookup};
use crate::step::{Key, Level};

/// How a cell stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// It is published under one of its keys.
    Published {
        /// Its first image, by tag.
        reference: String,
        /// The digest of that.
        digest: String,
    },
    /// It is to be built.
    ToDo,
    /// No registry was asked.
    Unknown,
}

/// The registry that a release goes to.
pub struct Registry {
    prefix: Prefix,
    /// How it is spoken to.
    pub client: Client,
}

/// A cell as it is published.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The key it was made under.
    pub(super) key: Key,
    /// Its first image, by tag.
    pub(super) reference: Reference,
    /// The digest of that.
    pub(super) digest: String,
}

impl Registry {
    /// The registry below a prefix; `client` speaks to its host.
    pub fn new(prefix: Prefix, client: Client) -> Self {
        Self { prefix, client }
    }

    /// An image there by tag.
    pub(super) fn reference(&self, image: &str, tag: &str) -> Result<Reference, registry::Error> {
        self.prefix.join(&format!("{image}:{tag}"))
    }

    /// The cell under one of its keys, if it is there.
    pub(super) fn find(&self, cell: &Cell) -> Result<Option<Found>, registry::Error> {
        for key in &cell.keys {
            let reference = self.reference(&cell.images[0], &cell.tag(*key))?;
            if let Some(digest) = lookup(&reference, &self.client)? {
                return Ok(Some(Found { key: *key, reference, digest }));
            }
        }
        Ok(None)
    }

    /// How a cell stands. What is not wholly pinned is to be built each time. With `is_to_be_written`, a registry that
    /// denies us is an error; else one that knows us may do so of a repository that is not there yet.
    pub fn state(&self, cell: &Cell, is_to_be_written: bool) -> Result<State, Error> {
        if !cell.is_pinned && !is_to_be_written {
            return Ok(State::ToDo);
        }
        if is_to_be_written {
            let reference = self.reference(&cell.images[0], &cell.version)?;
            self.client.will_write(&reference.repository);
        }
        match self.find(cell) {
            Ok(Some(Found { reference, digest, .. })) if cell.is_pinned => {
                Ok(State::Published { reference: reference.to_string(), digest })
            }
            Ok(_) => Ok(State::ToDo),
            Err(error @ registry::Error::Denied { known: true, .. }) if !is_to_be_written => {
                let message = format!("{error}; taken for not published: only who may push there can tell");
                self.client.watch().reporter.note(Level::Warning, &message);
                Ok(State::ToDo)
            }
            Err(error) => Err(error.into()),
        }
    }
}
