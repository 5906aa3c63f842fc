//! The cells of an image joined to an index, and the tags moved to it: one for the build, which stays, and those of the
//! version and its series, which go forward and never back.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::json;

use super::published::Found;
use super::{Cell, Error, Registry};
use crate::registry::reference::Reference;
use crate::registry::{Advanced, Composed, Standing, advance, compose, lookup};
use crate::step::Key;

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its index is new, or a tag was moved.
    Published,
    /// Everything was where it belongs.
    There,
    /// A cell of it is not published: its tags are as they were.
    Missing,
    /// It could not be joined: its tags are as they were.
    Failed,
}

/// What became of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum TagState {
    /// It names the image now.
    Moved,
    /// It named the image before.
    There,
    /// It would be moved.
    Due,
    /// It names something else, and stays.
    Kept {
        /// What it names.
        digest: String,
        /// Why.
        reason: String,
    },
}

/// A tag and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Tag {
    /// The tag.
    pub tag: String,
    /// What became of it.
    #[serde(flatten)]
    pub state: TagState,
}

/// An image after its cells were joined, or not.
#[derive(Debug, Serialize)]
pub struct Joined {
    /// `kernel-bin:5.10.77`.
    pub image: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The tag of this build, with the digest of the index.
    pub reference: Option<String>,
    /// The digest of the index.
    pub digest: Option<String>,
    /// The digests of its platforms, by architecture.
    pub platforms: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The cells that are not published.
    pub missing: Vec<String>,
    /// Why it failed.
    #[serde(skip)]
    pub failure: Option<Error>,
}

impl Joined {
    fn new(image: &str, version: &str) -> Self {
        Self {
            image: format!("{image}:{version}"),
            outcome: Outcome::Missing,
            reference: None,
            digest: None,
            platforms: BTreeMap::new(),
            tags: Vec::new(),
            missing: Vec::new(),
            failure: None,
        }
    }
}

/// What is done with an index that is new, before it gets a tag: the reference is the tag of the build.
pub(super) type Before<'a> = dyn Fn(&Reference, &str) -> Result<(), Error> + 'a;

/// Joins every image of `cells` of which one is among `only`; `before` sees each new index by digest first. With
/// `is_dry`, nothing is written.
pub fn join(
    cells: &[Cell],
    only: &[Cell],
    registry: &Registry,
    before: &Before<'_>,
    is_dry: bool,
) -> Result<Vec<Joined>, Error> {
    let mut images: BTreeMap<(&str, Vec<u64>), Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        for image in &cell.images {
            images.entry((image, numbers(&cell.version))).or_default().push(cell);
        }
    }
    let meant: BTreeSet<_> = only.iter().map(|cell| cell.name.as_str()).collect();
    let mut known = BTreeMap::new();
    let mut joined = Vec::new();
    for ((image, _), members) in images {
        if !members.iter().any(|cell| meant.contains(cell.name.as_str())) {
            continue;
        }
        let mut result = Joined::new(image, &members[0].version);
        let join = Join { image, members: &members, registry, before, is_dry };
        match join.run(&mut known, &mut result) {
            Ok(true) => joined.push(result),
            // No platform has this image.
            Ok(false) => {}
            Err(error) if error.is_everybodys() => return Err(error),
            Err(error) => {
                (result.outcome, result.failure) = (Outcome::Failed, Some(error));
                joined.push(result);
            }
        }
    }
    Ok(joined)
}

/// One image of one version.
struct Join<'a> {
    image: &'a str,
    members: &'a [&'a Cell],
    registry: &'a Registry,
    before: &'a Before<'a>,
    is_dry: bool,
}

impl Join<'_> {
    /// Whether there is such an image; `known` are the cells that were looked up for others of their images.
    fn run(&self, known: &mut BTreeMap<String, Option<Found>>, result: &mut Joined) -> Result<bool, Error> {
        let (mut digests, mut keys) = (Vec::new(), BTreeMap::new());
        let mut there = false;
        for cell in self.members {
            let found = match known.get(&cell.name) {
                Some(found) => found.clone(),
                None => known.entry(cell.name.clone()).or_insert(self.registry.find(cell)?).clone(),
            };
            let digest = match &found {
                Some(found) if self.image == cell.images[0] => Some(found.digest.clone()),
                Some(found) => self.of_another_image(cell, found.key)?,
                None => None,
            };
            there |= digest.is_some() || found.is_none();
            match (digest, found) {
                (Some(digest), Some(found)) => {
                    digests.push(digest);
                    keys.insert(cell.arch.oci(), found.key);
                }
                _ => result.missing.push(cell.name.clone()),
            }
        }
        if !there {
            return Ok(false);
        }
        if result.missing.is_empty() {
            self.tag(&digests, &keys, result)?;
        }
        Ok(true)
    }

    fn of_another_image(&self, cell: &Cell, key: Key) -> Result<Option<String>, Error> {
        let reference = self.registry.reference(self.image, &cell.tag(key))?;
        Ok(lookup(&reference, &self.registry.client)?)
    }

    /// Joins what is complete, and moves its tags.
    fn tag(&self, digests: &[String], keys: &BTreeMap<&str, Key>, result: &mut Joined) -> Result<(), Error> {
        let (client, version) = (&self.registry.client, &self.members[0].version);
        let ours = compose(&self.registry.reference(self.image, version)?, digests, client)?;
        let digest = ours.digest().to_owned();
        let is_pinned = self.members.iter().all(|cell| cell.is_pinned);
        // Without a key that decides about everything, the build is what it came to.
        let build = if is_pinned {
            Key::of(&json!({ "index": 1, "cells": keys })).short()
        } else {
            digest["sha256:".len()..][..12].to_owned()
        };
        let own = format!("{version}-{build}");
        let target = self.registry.reference(self.image, &own)?;
        result.reference = Some(format!("{target}@{digest}"));
        result.digest = Some(digest.clone());
        result.platforms.clone_from(&ours.platforms);
        let standing = lookup(&target, client)?;
        if let Some(there) = standing.as_ref().filter(|there| **there != digest) {
            return Err(Error::Taken { reference: target.to_string(), there: there.clone(), ours: digest });
        }
        let was_published = standing.is_some();
        if !was_published && !self.is_dry {
            ours.put(&target.at(&digest), client)?;
            (self.before)(&target, &digest)?;
        }
        for tag in BTreeSet::from([version.clone(), self.members[0].series()]).into_iter().rev() {
            let state = self.move_tag(&tag, &ours, was_published)?;
            result.tags.push(Tag { tag, state });
        }
        // Last, since its being there means that the others were moved.
        let state = match (was_published, self.is_dry) {
            (true, _) => TagState::There,
            (false, true) => TagState::Due,
            (false, false) => {
                ours.put(&target, client)?;
                TagState::Moved
            }
        };
        result.tags.push(Tag { tag: own, state });
        let is_changed = |tag: &Tag| matches!(tag.state, TagState::Moved | TagState::Due);
        result.outcome = if result.tags.iter().any(is_changed) { Outcome::Published } else { Outcome::There };
        Ok(())
    }

    fn move_tag(&self, tag: &str, ours: &Composed, was_published: bool) -> Result<TagState, Error> {
        let target = self.registry.reference(self.image, tag)?;
        let version = numbers(&self.members[0].version);
        if self.is_dry {
            let there = lookup(&target, &self.registry.client)?;
            let is_ours = there.as_deref() == Some(ours.digest());
            return Ok(if is_ours { TagState::There } else { TagState::Due });
        }
        let may_replace = |standing: &Standing| may_replace(standing, &version, was_published);
        Ok(match advance(&target, ours, &self.registry.client, &may_replace)? {
            Advanced::Moved => TagState::Moved,
            Advanced::There => TagState::There,
            Advanced::Kept { digest, version: theirs, is_meanwhile } => {
                let reason = match theirs {
                    Some(theirs) if numbers(&theirs) > version => format!("it is {theirs}, which is newer"),
                    _ if is_meanwhile => "somebody else moved it there meanwhile".into(),
                    _ => "this build was published before, and the tag has gone on since".into(),
                };
                TagState::Kept { digest, reason }
            }
        })
    }
}

/// Whether what stands under a tag gives way to a build of this version. Builds of one version come in the order in which
/// they were first published: one that was published before and has lost the tag since does not get it back.
fn may_replace(standing: &Standing, version: &[u64], was_published: bool) -> bool {
    let is_new = !was_published && !standing.is_meanwhile;
    match standing.version.as_deref().map(numbers) {
        Some(theirs) if theirs != version => *theirs < *version,
        _ => is_new,
    }
}

/// The numbers of a version, to compare it by.
fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_forward_and_never_back() {
        let standing = |version: Option<&str>, is_meanwhile| Standing {
            version: version.map(str::to_owned),
            is_meanwhile,
        };
        for (theirs, is_meanwhile, was_published, expected) in [
            (Some("5.10.77"), false, false, true),
            (Some("5.10.77"), false, true, true),
            (Some("5.10.9"), true, true, true),
            (Some("5.10.262"), false, false, true),
            // Our own version: the build that came first stays away once it has lost the tag.
            (Some("5.10.262"), false, true, false),
            (Some("5.10.262"), true, false, false),
            (Some("5.10.265"), false, false, false),
            (Some("5.10.1000"), true, false, false),
            (None, false, false, true),
            (None, false, true, false),
            (None, true, false, false),
        ] {
            let may = may_replace(&standing(theirs, is_meanwhile), &numbers("5.10.262"), was_published);
            assert_eq!(may, expected, "{theirs:?}, meanwhile {is_meanwhile}, published {was_published}");
        }
    }
}
