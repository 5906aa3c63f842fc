//! What is attached to an image: artifacts whose manifest names the image's digest as its subject.
//!
//! After the OCI distribution specification 1.1. Registries that know referrers list them; for those that do not, an
//! index under the tag `sha256-HEX` of the subject's digest does. The image itself never changes.

use std::collections::{BTreeMap, BTreeSet};

use fs_err as fs;
use oci_spec::image::MediaType;
use reqwest::header::{ACCEPT, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::Error;
use super::append::{SETTLES, TRIES, current};
use super::client::{Client, Document, MANIFEST_LIMIT, header, sha256};
use super::http::{Answer, Call};
use super::reference::is_digest;
use super::tree::{Content, Entry};
use crate::step::human;

/// The configuration of what needs none, and its media type.
const EMPTY: (&[u8], &str) = (b"{}", "application/vnd.oci.empty.v1+json");
/// In this header a registry says that it has noted a manifest's subject.
const SUBJECT: &str = "oci-subject";
/// How long what is attached may be, in bytes.
const LIMIT: u64 = 64 << 20;
/// How many pages a list may have.
const PAGES: usize = 1000;

/// What is to be attached: one blob.
#[derive(Debug, Clone)]
pub struct Attachment<'a> {
    /// What kind of thing it is.
    pub artifact_type: &'a str,
    /// The blob's media type.
    pub media_type: &'a str,
    /// The blob.
    pub bytes: &'a [u8],
    /// What the manifest says beside it.
    pub annotations: BTreeMap<String, String>,
}

/// Something that is attached to an image, as a list of referrers has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Referrer {
    /// Of its manifest.
    pub media_type: String,
    /// Of its manifest.
    pub digest: String,
    /// Of its manifest, in bytes.
    pub size: u64,
    /// What kind of thing it is.
    pub artifact_type: String,
    /// What its manifest says beside it.
    pub annotations: BTreeMap<String, String>,
    /// The digest of what it is attached to.
    pub subject: String,
}

/// A manifest, as far as it says what it is attached to.
#[derive(Debug, Deserialize)]
struct Attached {
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
    config: Entry,
    subject: Option<Entry>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Attaches something to the manifest or index `subject`, a digest in `repository`. Returns its own digest.
///
/// The same thing attached twice is there once.
pub fn attach(
    client: &Client,
    repository: &str,
    subject: &str,
    attachment: &Attachment<'_>,
) -> Result<String, Error> {
    client.will_write(repository);
    let about = client.manifest(repository, subject)?;
    let described = |media_type: &str, digest: &str, size: usize| json!({ "mediaType": media_type, "digest": digest, "size": size });
    let mut blobs = Vec::new();
    for (bytes, media_type) in [(attachment.bytes, attachment.media_type), EMPTY] {
        let digest = put(client, repository, bytes)?;
        blobs.push(described(media_type, &digest, bytes.len()));
    }
    let config = blobs.pop();
    let media_type = MediaType::ImageManifest.to_string();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "artifactType": attachment.artifact_type,
        "config": config,
        "layers": blobs,
        "subject": described(&about.media_type, &about.digest, about.bytes.len()),
    });
    if !attachment.annotations.is_empty() {
        manifest["annotations"] = json!(attachment.annotations);
    }
    let document = Document::new(&media_type, manifest.to_string().into_bytes());
    put_referrer(client, repository, subject, &document)?;
    Ok(document.digest)
}

/// Everything that is attached to the digest `subject`, or what is of one type; sorted by digest.
pub fn list(
    client: &Client,
    repository: &str,
    subject: &str,
    artifact_type: Option<&str>,
) -> Result<Vec<Referrer>, Error> {
    let entries = match asked(client, repository, subject, artifact_type)? {
        Some(entries) => entries,
        None => tagged(client, repository, subject)?,
    };
    let mut referrers = BTreeMap::new();
    for entry in entries {
        let referrer = read(client, repository, subject, &entry)?;
        if artifact_type.is_none_or(|wanted| wanted == referrer.artifact_type) {
            referrers.insert(referrer.digest.clone(), referrer);
        }
    }
    Ok(referrers.into_values().collect())
}

/// The first blob of something attached, which is about what it was listed for.
pub fn fetch(client: &Client, repository: &str, referrer: &Referrer) -> Result<Vec<u8>, Error> {
    let document = client.manifest(repository, &referrer.digest)?;
    let malformed =
        |reason: String| Error::Malformed { what: client.name(repository, &referrer.digest), reason };
    let attached: Attached =
        serde_json::from_slice(&document.bytes).map_err(|error| malformed(error.to_string()))?;
    match attached.subject {
        Some(subject) if subject.digest == referrer.subject => {}
        Some(subject) => {
            return Err(malformed(format!(
                "it is listed for {}, and is about {}",
                referrer.subject, subject.digest
            )));
        }
        None => return Err(malformed(format!("it is listed for {}, and has no subject", referrer.subject))),
    }
    let Content::Image { layers, .. } = document.content()? else {
        return Err(malformed("it is an index".into()));
    };
    let blob = layers.first().ok_or_else(|| malformed("it has no blob".into()))?;
    blob_bytes(client, repository, blob)
}

/// Copies all that is attached to the digest `subject` to the same digest in another repository, or another registry.
/// Returns how much that was.
pub fn copy(
    from: (&Client, &str),
    (client, repository): (&Client, &str),
    subject: &str,
) -> Result<usize, Error> {
    client.will_write(repository);
    let referrers = list(from.0, from.1, subject, None)?;
    for referrer in &referrers {
        let document = from.0.manifest(from.1, &referrer.digest)?;
        let Content::Image { config, layers } = document.content()? else {
            let what = from.0.name(from.1, &referrer.digest);
            return Err(Error::Malformed { what, reason: "what is attached is an index".into() });
        };
        for blob in layers.iter().chain([&config]) {
            if !client.has_blob(repository, blob)? {
                put(client, repository, &blob_bytes(from.0, from.1, blob)?)?;
            }
        }
        put_referrer(client, repository, subject, &document)?;
    }
    Ok(referrers.len())
}

/// The bytes of a blob that is no layer of files.
pub(super) fn blob_bytes(client: &Client, repository: &str, blob: &Entry) -> Result<Vec<u8>, Error> {
    if blob.size > LIMIT {
        return Err(Error::Malformed {
            what: client.name(repository, &blob.digest),
            reason: format!("what is attached is longer than {}", human(LIMIT)),
        });
    }
    let mut file = NamedTempFile::new()?;
    client.fetch_blob(repository, blob, &mut file, &|_| {})?;
    Ok(fs::read(file.path())?)
}

/// Has a small blob be in a repository. Returns its digest.
pub(super) fn put(client: &Client, repository: &str, bytes: &[u8]) -> Result<String, Error> {
    let blob = Entry {
        media_type: String::new(),
        digest: sha256(bytes),
        size: bytes.len() as u64,
        platform: None,
        what: String::new(),
    };
    if !client.has_blob(repository, &blob)? {
        let file = NamedTempFile::new()?;
        fs::write(file.path(), bytes)?;
        client.upload(repository, &blob, file.path(), &|_| {})?;
    }
    Ok(blob.digest)
}

/// Puts a manifest that has a subject, and has it be listed.
fn put_referrer(client: &Client, repository: &str, subject: &str, document: &Document) -> Result<(), Error> {
    let headers = client.put_document(repository, &document.digest, document)?;
    if header(&headers, SUBJECT) == Some(subject) {
        return Ok(());
    }
    let entry = described(document).map_err(|error| Error::Malformed {
        what: client.name(repository, &document.digest),
        reason: error.to_string(),
    })?;
    note(client, repository, subject, &entry)
}

/// A referrer's descriptor, as lists have it.
fn described(document: &Document) -> Result<Value, serde_json::Error> {
    let attached: Attached = serde_json::from_slice(&document.bytes)?;
    let mut entry = json!({
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": document.bytes.len(),
        "artifactType": attached.artifact_type.unwrap_or(attached.config.media_type),
    });
    if let Some(annotations) = attached.annotations.filter(|annotations| !annotations.is_empty()) {
        entry["annotations"] = json!(annotations);
    }
    Ok(entry)
}

/// Adds a descriptor to the index under a subject's tag.
fn note(client: &Client, repository: &str, subject: &str, entry: &Value) -> Result<(), Error> {
    let tag = tag_of(subject);
    amend(client, repository, &tag, &|before| {
        let mut index = match before {
            Some(document) => {
                let listed = entries(&document.bytes).ok_or_else(|| no_list(client, repository, subject))?;
                if listed.iter().any(|other| other["digest"] == entry["digest"]) {
                    return Ok(None);
                }
                serde_json::from_slice(&document.bytes).unwrap_or_default()
            }
            None => {
                json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": [] })
            }
        };
        if let Some(entries) = index["manifests"].as_array_mut() {
            entries.push(entry.clone());
        }
        Ok(Some(Document::new(MediaType::ImageIndex.as_ref(), index.to_string().into_bytes())))
    })
}

/// What becomes of a document: the next one, or none if it is as it should be.
type Change<'c> = dyn Fn(Option<&Document>) -> Result<Option<Document>, Error> + 'c;

/// Changes what a tag names while others may be changing it too.
///
/// As in `append`: the tag is looked at right before and, a moment later, after it is moved.
pub(super) fn amend(client: &Client, repository: &str, tag: &str, change: &Change<'_>) -> Result<(), Error> {
    for _ in 0..TRIES {
        let before = current(client, repository, tag)?;
        let Some(changed) = change(before.as_ref())? else { return Ok(()) };
        let now = current(client, repository, tag)?;
        if now.map(|now| now.digest) != before.map(|before| before.digest) {
            continue;
        }
        client.put_manifest(repository, tag, &changed)?;
        std::thread::sleep(SETTLES);
        if change(current(client, repository, tag)?.as_ref())?.is_none() {
            return Ok(());
        }
    }
    Err(Error::Contended { reference: client.name(repository, tag), tries: TRIES })
}

/// The tag under which registries without referrers keep a subject's list.
fn tag_of(subject: &str) -> String {
    subject.replacen(':', "-", 1)
}

/// What the index under a subject's tag lists.
fn tagged(client: &Client, repository: &str, subject: &str) -> Result<Vec<Value>, Error> {
    match current(client, repository, &tag_of(subject))? {
        Some(document) => entries(&document.bytes).ok_or_else(|| no_list(client, repository, subject)),
        None => Ok(Vec::new()),
    }
}

fn no_list(client: &Client, repository: &str, subject: &str) -> Error {
    Error::Malformed {
        what: client.name(repository, &tag_of(subject)),
        reason: "a list of what is attached stands under such a tag, and this is none".into(),
    }
}

/// What an index lists; none if it is no index.
fn entries(bytes: &[u8]) -> Option<Vec<Value>> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    document["manifests"].as_array().cloned()
}

/// What the registry itself lists; none if it knows no referrers.
fn asked(
    client: &Client,
    repository: &str,
    subject: &str,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Value>>, Error> {
    let mut url = client.url(&format!("{repository}/referrers/{subject}"))?;
    if let Some(wanted) = artifact_type {
        url.query_pairs_mut().append_pair("artifactType", wanted);
    }
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    let mut next = Some(url);
    while let Some(url) = next {
        let what = format!("list what is attached to `{}`", client.name(repository, subject));
        if !seen.insert(url.to_string()) || seen.len() > PAGES {
            return Err(client.refused(&what, "its list has no end"));
        }
        let call = Call::new(Method::GET, url, client.reading(repository), what);
        let mut call = call.header(ACCEPT, MediaType::ImageIndex.as_ref());
        call.limit = MANIFEST_LIMIT;
        let answer = client.send(&call)?;
        match answer.status {
            StatusCode::OK => {}
            // Who has never heard of referrers says one of these.
            StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::NOT_IMPLEMENTED
                if all.is_empty() && seen.len() == 1 =>
            {
                return Ok(None);
            }
            _ => return Err(client.unexpected(&call.what, &answer)),
        }
        match entries(&answer.body) {
            Some(entries) => all.extend(entries),
            None => return Err(client.refused(&call.what, "what it answers is no index")),
        }
        next = next_page(&answer);
    }
    Ok(Some(all))
}

/// Where the list goes on: `Link: </v2/…>; rel="next"`.
fn next_page(answer: &Answer) -> Option<Url> {
    let link = header(&answer.headers, LINK.as_str())?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.replace(['"', ' '], "").split(';').any(|parameter| parameter == "rel=next");
    is_next.then(|| answer.url.join(target).ok()).flatten()
}

/// A list's entry. What it leaves out, the manifest says.
fn read(client: &Client, repository: &str, subject: &str, entry: &Value) -> Result<Referrer, Error> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let digest = text("digest");
    if !is_digest(&digest) {
        return Err(Error::Malformed {
            what: client.name(repository, &tag_of(subject)),
            reason: "it lists a digest that is not a sha256".into(),
        });
    }
    let mut said = entry.clone();
    // go-containerregistry names the configuration's type where it has to keep the list itself.
    if ["", EMPTY.1].contains(&text("artifactType").as_str()) {
        let document = client.manifest(repository, &digest)?;
        said = described(&document).map_err(|error| Error::Malformed {
            what: client.name(repository, &digest),
            reason: error.to_string(),
        })?;
    }
    Ok(Referrer {
        media_type: text("mediaType"),
        digest,
        size: said["size"].as_u64().unwrap_or_default(),
        artifact_type: said["artifactType"].as_str().unwrap_or_default().to_owned(),
        annotations: serde_json::from_value(said["annotations"].clone()).unwrap_or_default(),
        subject: subject.to_owned(),
    })
}
