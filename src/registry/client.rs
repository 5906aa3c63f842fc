//! One registry as we speak to it, and its manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::image::MediaType;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::Error;
use super::auth::Auth;
use super::http::{Answer, Body, Call, Scope, Stumble};
use super::reference::{Host, is_digest};
use crate::step::{Watch, hex};

/// How long a manifest may be, in bytes: what registries accept.
pub(super) const MANIFEST_LIMIT: u64 = 4 << 20;

/// What manifests we can read, for `Accept`.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// The header that names the digest of what was sent or taken.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Plain HTTP, to whatever host.
    pub plain_http: bool,
}

/// How patient we are.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// In this time a connection has to move [`Patience::least`] bytes, or counts as broken.
    pub(super) stall: Duration,
    /// In bytes.
    pub(super) least: u64,
    /// How often one thing is tried.
    pub(super) tries: u32,
    /// The first pause between two tries; each one is twice the one before.
    pub(super) pause: Duration,
    /// How long all pauses of a command may be together.
    pub(super) budget: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            least: 16 << 10,
            tries: 5,
            pause: Duration::from_millis(400),
            budget: Duration::from_secs(180),
        }
    }
}

impl Patience {
    /// For what can be done without: a registry that is slower than this is not worth waiting for.
    fn brief() -> Self {
        Self {
            stall: Duration::from_secs(20),
            least: 2 << 20,
            tries: 2,
            budget: Duration::from_secs(5),
            ..Self::default()
        }
    }
}

/// A registry. Connections are shared by all threads that use it.
pub struct Client {
    pub(super) host: Host,
    pub(super) options: Options,
    pub(super) patience: Patience,
    pub(super) watch: Watch,
    pub(super) auth: Auth,
    /// Where its API is, once it has answered.
    pub(super) base: OnceLock<Url>,
    /// Speaks to the registry itself.
    pub(super) agent: reqwest::blocking::Client,
    /// Speak to other hosts that it names, each held to the addresses that were checked.
    pub(super) others: Mutex<BTreeMap<String, reqwest::blocking::Client>>,
    /// Nobody asks before this time, and so much may still be waited.
    pub(super) turn: Mutex<(Instant, Duration)>,
    /// The repositories that are written to: one right, hence one token, is enough for them. Some registries deny that
    /// there is a repository to who may only read.
    pub(super) written: Mutex<BTreeSet<String>>,
    /// One of several threads has failed: the others may end.
    pub(super) given_up: AtomicBool,
}

/// A manifest or index as it is in a registry.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) bytes: Vec<u8>,
}

impl Document {
    pub(super) fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: sha256(&bytes), bytes }
    }
}

/// `sha256:…` of bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

impl Client {
    /// A client for the registry at `host`, which is not asked anything yet.
    pub fn new(host: &Host, options: &Options, watch: &Watch) -> Result<Self, Error> {
        Self::with_patience(host, options, watch, Patience::default())
    }

    /// The same with little patience: for what can be done without.
    pub fn brief(host: &Host, options: &Options, watch: &Watch) -> Result<Self, Error> {
        Self::with_patience(host, options, watch, Patience::brief())
    }

    pub(super) fn with_patience(
        host: &Host,
        options: &Options,
        watch: &Watch,
        patience: Patience,
    ) -> Result<Self, Error> {
        // The process has one provider; a second call finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            host: host.clone(),
            options: options.clone(),
            auth: Auth::default(),
            base: OnceLock::new(),
            agent: super::http::agent(|builder| builder)?,
            others: Mutex::default(),
            written: Mutex::default(),
            turn: Mutex::new((Instant::now(), patience.budget)),
            given_up: AtomicBool::new(false),
            watch: watch.clone(),
            patience,
        })
    }

    /// Which registry it speaks to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Whom it tells what it does.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// From now on, a repository is written to.
    pub fn will_write(&self, repository: &str) {
        guard(&self.written).insert(repository.to_owned());
    }

    /// The right to read a repository, or what contains it.
    pub(super) fn reading(&self, repository: &str) -> Scope {
        let is_written = guard(&self.written).contains(repository);
        if is_written { Scope::push(repository) } else { Scope::pull(repository) }
    }

    /// Has all threads that use this client end.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || self.watch.cancel.is_cancelled()
    }

    pub(super) fn refused(&self, what: &str, reason: impl Into<String>) -> Error {
        Error::Refused { registry: self.host.to_string(), what: what.to_owned(), reason: reason.into() }
    }

    /// Where the API is; asked for when it is first needed.
    fn base(&self) -> Result<&Url, Error> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        // Plain HTTP without being asked for stays on this machine, and carries no credentials before it is answered.
        let (first, second) = schemes(&self.host, &self.options);
        let address = match self.host.as_str() {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        };
        let call = |scheme: &str| {
            let url = Url::parse(&format!("{scheme}://{address}/v2/"));
            let url = url.map_err(|_| Error::reference(address, "it is no address"))?;
            Ok::<_, Error>(Call::new(Method::GET, url, Scope::default(), "reach the registry"))
        };
        let answers = |answer: &Answer| matches!(answer.status, StatusCode::OK | StatusCode::UNAUTHORIZED);
        let mut call_first = call(first)?;
        let mut answer = None;
        if let Some(second) = second {
            // A server that wants TLS says 400, or nothing.
            answer = self.attempt(&call_first, None).ok();
            if !answer.as_ref().is_some_and(answers) {
                let encrypted = call(second)?;
                match self.attempt(&encrypted, None) {
                    Ok(better) if answers(&better) => (answer, call_first) = (Some(better), encrypted),
                    // It speaks TLS, but not so that we may believe it.
                    Err(Stumble::Final(error)) => return Err(error),
                    Ok(_) | Err(Stumble::Again { .. }) => {}
                }
            }
        }
        let answer = match answer.filter(answers) {
            Some(answer) => answer,
            None => self.send(&call_first)?,
        };
        if !answers(&answer) {
            let reason =
                format!("what answers at `{}` is no registry: {}", call_first.url, self.said(&answer));
            return Err(self.refused(&call_first.what, reason));
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            self.adopt(&answer)?;
        }
        Ok(self.base.get_or_init(|| call_first.url))
    }

    /// An URL of the API: `path` below `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        let base = self.base()?;
        base.join(path).map_err(|error| self.refused("be asked", error.to_string()))
    }

    /// Fetches a manifest or index by tag or digest, and checks it.
    pub(super) fn manifest(&self, repository: &str, wanted: &str) -> Result<Document, Error> {
        let name = self.name(repository, wanted);
        let mut call = self.manifest_call(Method::GET, repository, wanted)?;
        call.limit = MANIFEST_LIMIT;
        let answer = self.send(&call)?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Error::NotFound(name)),
            _ => return Err(self.unexpected(&call.what, &answer)),
        }
        let document = Document::new(&media_type(&answer), answer.body);
        let said = header(&answer.headers, CONTENT_DIGEST).filter(|said| said.starts_with("sha256:"));
        for expected in [Some(wanted).filter(|wanted| is_digest(wanted)), said].into_iter().flatten() {
            if expected != document.digest {
                let (expected, actual) = (expected.to_owned(), document.digest);
                return Err(Error::Digest { what: name, expected, actual });
            }
        }
        Ok(document)
    }

    /// The digest of what a tag names now; none if there is no such tag, or the registry does not say.
    pub(super) fn resolve(&self, repository: &str, tag: &str) -> Result<Option<String>, Error> {
        Ok(self.stands(repository, tag)?.1)
    }

    /// Whether something is under a tag, and its digest if the registry says it.
    pub(super) fn stands(&self, repository: &str, tag: &str) -> Result<(bool, Option<String>), Error> {
        let call = self.manifest_call(Method::HEAD, repository, tag)?;
        let answer = self.send(&call)?;
        match answer.status {
            StatusCode::OK => Ok((true, header(&answer.headers, CONTENT_DIGEST).map(Into::into))),
            StatusCode::NOT_FOUND => Ok((false, None)),
            _ => Err(self.unexpected(&call.what, &answer)),
        }
    }

    fn manifest_call(&self, method: Method, repository: &str, wanted: &str) -> Result<Call<'static>, Error> {
        let url = self.url(&format!("{repository}/manifests/{wanted}"))?;
        let what = format!("read `{}`", self.name(repository, wanted));
        let call = Call::new(method, url, self.reading(repository), what);
        Ok(call.header(ACCEPT, MANIFESTS))
    }

    /// Puts a manifest or index under a tag or its digest.
    pub(super) fn put_manifest(
        &self,
        repository: &str,
        wanted: &str,
        document: &Document,
    ) -> Result<(), Error> {
        self.put_document(repository, wanted, document).map(|_| ())
    }

    /// The same; what the registry says of it is in the head of its answer.
    pub(super) fn put_document(
        &self,
        repository: &str,
        wanted: &str,
        document: &Document,
    ) -> Result<HeaderMap, Error> {
        let url = self.url(&format!("{repository}/manifests/{wanted}"))?;
        let what = format!("put `{}`", self.name(repository, wanted));
        let call = Call::new(Method::PUT, url, Scope::push(repository), what);
        let mut call = call.header(CONTENT_TYPE, &document.media_type);
        call.body = Body::Bytes(&document.bytes);
        let answer = self.send(&call)?;
        if !matches!(answer.status, StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(self.unexpected(&call.what, &answer));
        }
        check_said(&answer.headers, &self.name(repository, wanted), &document.digest)?;
        Ok(answer.headers)
    }

    /// What people call something in this registry.
    pub(super) fn name(&self, repository: &str, wanted: &str) -> String {
        let mark = if is_digest(wanted) { '@' } else { ':' };
        format!("{}/{repository}{mark}{wanted}", self.host)
    }

    /// The error for an answer that is not what was hoped for.
    pub(super) fn unexpected(&self, what: &str, answer: &Answer) -> Error {
        self.refused(what, self.said(answer))
    }

    /// What the registry said, in one line and without our own secrets.
    pub(super) fn said(&self, answer: &Answer) -> String {
        self.auth.scrub(&complaint(answer))
    }
}

/// How a registry is spoken to, and how it is tried after that.
fn schemes(host: &Host, options: &Options) -> (&'static str, Option<&'static str>) {
    match (options.plain_http, host.is_loopback()) {
        (true, _) => ("http", None),
        (false, true) => ("http", Some("https")),
        (false, false) => ("https", None),
    }
}

/// Whether the registry took what we sent under the digest we sent it by, as far as it says.
pub(super) fn check_said(headers: &HeaderMap, what: &str, expected: &str) -> Result<(), Error> {
    match header(headers, CONTENT_DIGEST) {
        Some(said) if said.starts_with("sha256:") && said != expected => {
            let (expected, actual) = (expected.to_owned(), said.to_owned());
            Err(Error::Digest { what: what.to_owned(), expected, actual })
        }
        _ => Ok(()),
    }
}

/// A header's value, if it is text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The media type of a manifest: as its head says, or where that is too general (`application/json`), as it says itself.
fn media_type(answer: &Answer) -> String {
    let said = header(&answer.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    if MANIFESTS.split(", ").any(|known| known == said) {
        return said.to_owned();
    }
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let kind =
        if document["manifests"].is_array() { MediaType::ImageIndex } else { MediaType::ImageManifest };
    document["mediaType"].as_str().map_or_else(|| kind.to_string(), Into::into)
}

/// Status and the specification's `errors`, shortened, without control characters.
fn complaint(answer: &Answer) -> String {
    let mut text = answer.status.to_string();
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    for error in document["errors"].as_array().into_iter().flatten().take(3) {
        for part in [&error["code"], &error["message"]] {
            if let Some(part) = part.as_str().filter(|part| !part.is_empty()) {
                text += ": ";
                text.extend(part.chars().filter(|c| !c.is_control()).take(200));
            }
        }
    }
    text
}

/// A mutex's content, whatever became of others who held it.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_who_asks_for_it() {
        for (host, plain_http, expected) in [
            ("registry.example", false, ("https", None)),
            ("10.0.0.1:5000", false, ("https", None)),
            ("registry.example", true, ("http", None)),
            ("localhost:5000", false, ("http", Some("https"))),
            ("[::1]:5000", false, ("http", Some("https"))),
            ("127.0.0.1:5000", true, ("http", None)),
        ] {
            assert_eq!(schemes(&host.parse().unwrap(), &Options { plain_http }), expected, "{host}");
        }
    }
}
