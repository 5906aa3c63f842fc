//! Tags that follow releases: given once, or moved forward while others may move them too.

use std::collections::BTreeMap;

use oci_spec::image::ANNOTATION_VERSION;

use super::Error;
use super::append::{self, SETTLES, TRIES, annotations, current};
use super::client::{Client, Document};
use super::push::Source;
use super::reference::Reference;
use super::tree::Content;
use crate::step::Level;

/// The digest of what a reference names now; none where nothing is there.
pub fn lookup(reference: &Reference, client: &Client) -> Result<Option<String>, Error> {
    let wanted = reference.wanted().unwrap_or_default();
    match client.stands(&reference.repository, wanted)? {
        // Not every registry says the digest.
        (true, None) => Ok(current(client, &reference.repository, wanted)?.map(|document| document.digest)),
        (_, digest) => Ok(digest),
    }
}

/// Gives what lies under a digest of a repository a tag, which is the reference's.
pub fn tag(target: &Reference, digest: &str, client: &Client) -> Result<(), Error> {
    client.will_write(&target.repository);
    let document = client.manifest(&target.repository, digest)?;
    client.put_manifest(&target.repository, target.tag.as_deref().unwrap_or(digest), &document)
}

/// An index that is to be put under tags of one repository.
#[derive(Debug, Clone)]
pub struct Composed {
    document: Document,
    /// Its platforms' manifests: digests by architecture.
    pub platforms: BTreeMap<String, String>,
}

impl Composed {
    /// Its digest.
    pub fn digest(&self) -> &str {
        &self.document.digest
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.document.bytes
    }

    /// Puts it under the reference's tag.
    pub fn put(&self, target: &Reference, client: &Client) -> Result<(), Error> {
        client.will_write(&target.repository);
        let wanted = target.wanted().unwrap_or(&self.document.digest);
        client.put_manifest(&target.repository, wanted, &self.document)
    }
}

/// Joins manifests and indexes of one repository, given by digest; nothing is written. A manifest that is alone stays
/// what it is: it is for who knows no index.
pub fn compose(target: &Reference, digests: &[String], client: &Client) -> Result<Composed, Error> {
    let alone = match digests {
        [only] => Some(client.manifest(&target.repository, only)?),
        _ => None,
    };
    let alone = alone.filter(|document| matches!(document.content(), Ok(Content::Image { .. })));
    let document = alone.map_or_else(|| append::compose(target, digests, client), Ok)?;
    let source = Source::Registry(client, &target.repository);
    let digest = |value: &serde_json::Value| value["digest"].as_str().unwrap_or_default().to_owned();
    let members = append::members(&document, &source)?;
    let platforms = members.iter().map(|(platform, member)| (platform.architecture.clone(), digest(member)));
    Ok(Composed { platforms: platforms.collect(), document })
}

/// What stands under a tag that is to be moved.
#[derive(Debug)]
pub struct Standing {
    /// The version it says it is of.
    pub version: Option<String>,
    /// Whether it took the place of ours a moment ago.
    pub is_meanwhile: bool,
}

/// What became of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advanced {
    /// It names ours now.
    Moved,
    /// It named ours before.
    There,
    /// It keeps what it names.
    Kept {
        /// The digest of that.
        digest: String,
        /// The version that it says it is of.
        version: Option<String>,
        /// Whether it came while we looked.
        is_meanwhile: bool,
    },
}

/// Moves a tag to an index, if `may_replace` says so of what stands there.
///
/// Registries have no compare-and-swap. The tag is looked at right before and, a moment later, after it is moved: whoever
/// moves it meanwhile is seen, and what they put there is judged as what stood there before.
pub fn advance(
    target: &Reference,
    ours: &Composed,
    client: &Client,
    may_replace: &dyn Fn(&Standing) -> bool,
) -> Result<Advanced, Error> {
    let (repository, tag) = (&target.repository, target.tag.as_deref().unwrap_or_default());
    client.will_write(repository);
    let digest_now = || Ok::<_, Error>(current(client, repository, tag)?.map(|now| now.digest));
    let mut has_put = false;
    for _ in 0..TRIES {
        let before = current(client, repository, tag)?;
        if let Some(before) = &before {
            if before.digest == ours.document.digest {
                return Ok(if has_put { Advanced::Moved } else { Advanced::There });
            }
            if has_put {
                let message = format!("{target}: somebody else moved the tag meanwhile");
                client.watch.reporter.note(Level::Info, &message);
            }
            let said = annotations(before);
            let version = said.get(ANNOTATION_VERSION).and_then(|version| version.as_str());
            let version = version.map(str::to_owned);
            let standing = Standing { version: version.clone(), is_meanwhile: has_put };
            if !may_replace(&standing) {
                let digest = before.digest.clone();
                return Ok(Advanced::Kept { digest, version, is_meanwhile: has_put });
            }
        }
        if digest_now()? != before.map(|before| before.digest) {
            continue;
        }
        client.put_manifest(repository, tag, &ours.document)?;
        has_put = true;
        std::thread::sleep(SETTLES);
        if digest_now()?.as_ref() == Some(&ours.document.digest) {
            return Ok(Advanced::Moved);
        }
    }
    Err(Error::Contended { reference: target.to_string(), tries: TRIES })
}
