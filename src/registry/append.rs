//! Indexes joined in a registry: a platform added to a tag that has others, and an index made of what was pushed by digest.

use std::collections::BTreeMap;
use std::time::Duration;

use oci_spec::image::MediaType;
use serde_json::{Value, json};

use super::Error;
use super::client::{Client, Document};
use super::push::Source;
use super::reference::Reference;
use super::tree::{Content, Entry, Platform, Tree, entry};
use crate::step::Level;

/// How often a tag that others move is tried.
pub(super) const TRIES: u32 = 8;
/// So long after a tag was moved it is looked at again: whoever read it before us has moved it by then.
pub(super) const SETTLES: Duration = Duration::from_millis(150);

/// Adds the image `ours` to a tag, which keeps the platforms that `ours` has not. Returns the new index's digest.
///
/// Registries have no compare-and-swap. The tag is looked at right before and, a moment later, after it is moved; if
/// somebody else's index has taken the place of ours, both are joined anew.
pub(super) fn extend(
    source: &Source<'_>,
    ours: &Tree,
    tag: &str,
    target: &Reference,
    client: &Client,
) -> Result<String, Error> {
    let repository = &target.repository;
    let own = members(&ours.root, source)?;
    let annotations = annotations(&ours.root);
    let there = Source::Registry(client, repository);
    let mut last_joined = None;
    for _ in 0..TRIES {
        let before = current(client, repository, tag)?;
        let theirs = before.as_ref().map_or_else(|| Ok(Vec::new()), |before| members(before, &there))?;
        let is_ours = |platform: &Platform| own.iter().any(|(other, _)| other == platform);
        let kept = theirs.into_iter().filter(|(platform, _)| !is_ours(platform));
        let joined = index(own.iter().cloned().chain(kept).collect(), annotations.clone());
        if before.as_ref().is_some_and(|before| before.digest == joined.digest) {
            return Ok(joined.digest);
        }
        if last_joined.is_some() {
            let message = format!("{target}: somebody else moved the tag; joining again");
            client.watch.reporter.note(Level::Info, &message);
        }
        last_joined = Some(joined.digest.clone());
        let now = current(client, repository, tag)?;
        if now.map(|now| now.digest) != before.map(|before| before.digest) {
            continue;
        }
        client.put_manifest(repository, tag, &joined)?;
        std::thread::sleep(SETTLES);
        let after = current(client, repository, tag)?;
        let after = after.as_ref().map_or_else(|| Ok(Vec::new()), |after| members(after, &there))?;
        let holds = |member: &Value| after.iter().any(|(_, other)| other["digest"] == member["digest"]);
        if own.iter().all(|(_, member)| holds(member)) {
            return Ok(joined.digest);
        }
    }
    Err(Error::Contended { reference: target.to_string(), tries: TRIES })
}

/// Makes an index of manifests and indexes of one repository, given by digest, and puts it under the reference's tag,
/// or its own digest. Returns that digest.
pub fn join(target: &Reference, digests: &[String], client: &Client) -> Result<String, Error> {
    client.will_write(&target.repository);
    let document = compose(target, digests, client)?;
    client.put_manifest(&target.repository, target.tag.as_ref().unwrap_or(&document.digest), &document)?;
    Ok(document.digest)
}

/// The index of manifests and indexes of one repository, given by digest; it is put nowhere.
pub(super) fn compose(target: &Reference, digests: &[String], client: &Client) -> Result<Document, Error> {
    let repository = &target.repository;
    let source = Source::Registry(client, repository);
    let mut joined: Vec<(Platform, Value)> = Vec::new();
    let mut shared: Option<BTreeMap<String, Value>> = None;
    for digest in digests {
        if !super::reference::is_digest(digest) {
            return Err(Error::reference(digest, "a digest is `sha256:` and 64 hexadecimal digits"));
        }
        let document = client.manifest(repository, digest)?;
        for (platform, member) in members(&document, &source)? {
            match joined.iter().find(|(other, _)| *other == platform) {
                None => joined.push((platform, member)),
                Some((_, other)) if other["digest"] == member["digest"] => {}
                Some((_, other)) => {
                    let reason =
                        format!("{} and {} are both for {platform}", other["digest"], member["digest"]);
                    return Err(Error::Malformed { what: target.to_string(), reason });
                }
            }
        }
        // What all say holds for the whole: so parts of one build join to what the whole build makes.
        let own = annotations(&document);
        shared = Some(match shared {
            None => own,
            Some(shared) => shared.into_iter().filter(|(name, value)| own.get(name) == Some(value)).collect(),
        });
    }
    Ok(index(joined, shared.unwrap_or_default()))
}

/// What a tag names now.
pub(super) fn current(client: &Client, repository: &str, tag: &str) -> Result<Option<Document>, Error> {
    match client.manifest(repository, tag) {
        Ok(document) => Ok(Some(document)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The descriptors of a document's images, each with its platform: an index's entries, or the manifest itself.
pub(super) fn members(document: &Document, source: &Source<'_>) -> Result<Vec<(Platform, Value)>, Error> {
    match document.content()? {
        Content::Manifests(entries) => {
            let written: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
            let mut members = Vec::new();
            for (entry, value) in
                entries.into_iter().zip(written["manifests"].as_array().into_iter().flatten())
            {
                let platform = match entry.platform.clone() {
                    Some(platform) => platform,
                    None => platform_of(&source.document(&entry)?, source)?,
                };
                members.push((platform, value.clone()));
            }
            Ok(members)
        }
        Content::Image { .. } => {
            let platform = platform_of(document, source)?;
            let entry = entry(&document.media_type, &document.bytes, None);
            let mut fields = json!({ "os": platform.os, "architecture": platform.architecture });
            if let Some(variant) = &platform.variant {
                fields["variant"] = json!(variant);
            }
            let Entry { media_type, digest, size, .. } = entry;
            let member =
                json!({ "mediaType": media_type, "digest": digest, "size": size, "platform": fields });
            Ok(vec![(platform, member)])
        }
    }
}

/// What a manifest's configuration says it is for.
fn platform_of(manifest: &Document, source: &Source<'_>) -> Result<Platform, Error> {
    match manifest.content()? {
        Content::Image { config, .. } => {
            let malformed = |error: serde_json::Error| Error::Malformed {
                what: config.digest.clone(),
                reason: error.to_string(),
            };
            serde_json::from_slice(&source.small(&config)?).map_err(malformed)
        }
        Content::Manifests(_) => Ok(Platform::default()),
    }
}

pub(super) fn annotations(document: &Document) -> BTreeMap<String, Value> {
    let written: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
    written["annotations"].as_object().cloned().unwrap_or_default().into_iter().collect()
}

/// The index of `members`, sorted by platform, with sorted keys.
fn index(mut members: Vec<(Platform, Value)>, annotations: BTreeMap<String, Value>) -> Document {
    members.sort_by(|a, b| a.0.cmp(&b.0));
    let manifests: Vec<Value> = members.into_iter().map(|(_, member)| member).collect();
    let media_type = MediaType::ImageIndex.to_string();
    let mut index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    if !annotations.is_empty() {
        index["annotations"] = annotations.into_iter().collect::<serde_json::Map<_, _>>().into();
    }
    Document::new(&media_type, index.to_string().into_bytes())
}
