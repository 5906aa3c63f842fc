//! A blob moved into a repository: found there, mounted from another one, or sent.
//!
//! A blob is one streamed PUT from its file. After a break it goes on from where the registry says it has come to; in
//! parts it is sent only where the registry takes no whole ones.

use std::path::Path;

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::client::{Client, check_said, header};
use super::http::{Answer, Body, Call, Scope, Stumble};
use super::tree::Entry;

/// How large a part is, unless the registry wants larger ones, in bytes.
const PART: u64 = 16 << 20;
/// The header in which a registry says how small a part may be.
const PART_AT_LEAST: &str = "oci-chunk-min-length";

/// How a blob came into its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Moved {
    /// It was there.
    There,
    /// From another repository of the registry.
    Mounted(String),
    /// Sent.
    Sent,
}

/// An upload that the registry has begun.
struct Session {
    url: Url,
    /// How much of the blob the registry has, in bytes.
    has: u64,
    /// How much goes with one request; none for a whole PUT.
    part: Option<u64>,
    /// How small a part may be, in bytes.
    least: u64,
}

impl Client {
    /// Mounts a blob from one of `origins`, repositories of this registry that have it; none of them may be believed.
    pub(super) fn mount(
        &self,
        repository: &str,
        blob: &Entry,
        origins: &[String],
    ) -> Result<Option<String>, Error> {
        for origin in origins.iter().filter(|origin| *origin != repository) {
            let mut url = self.url(&format!("{repository}/blobs/uploads/"))?;
            url.query_pairs_mut().append_pair("mount", &blob.digest).append_pair("from", origin);
            let scope = Scope::push(repository).and(&Scope::pull(origin));
            let call = Call::new(Method::POST, url, scope, format!("mount `{}`", blob.digest));
            match self.send(&call) {
                Ok(answer) if answer.status == StatusCode::CREATED => return Ok(Some(origin.clone())),
                Ok(answer) => {
                    answer.location().iter().for_each(|url| self.take_back(url, repository));
                }
                // No right to read there, or no such thing as mounting: it is sent instead.
                Err(Error::Denied { .. } | Error::Refused { .. } | Error::Unreachable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Takes back an upload that the registry has begun; what becomes of it does not matter.
    fn take_back(&self, url: &Url, repository: &str) {
        let call = Call::new(Method::DELETE, url.clone(), Scope::push(repository), "take back an upload");
        let _ = self.attempt(&call, None);
    }

    /// Sends a blob from its file.
    pub(super) fn upload(
        &self,
        repository: &str,
        blob: &Entry,
        path: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let what = format!("send `{}`", self.name(repository, &blob.digest));
        let (mut tries, mut refusals, mut breaks) = (0, 0, 0);
        let mut session = self.begin(repository, &what, None)?;
        loop {
            let before = session.has;
            let progress = |sent: u64| progress(before + sent);
            let stumble = match self.go_on(&mut session, repository, blob, path, &what, &progress) {
                Ok(None) => return Ok(()),
                Ok(Some(answer)) => match answer.status.as_u16() {
                    // Whole blobs are too large for it, or for who stands before it.
                    405 | 411 | 413 | 501 if session.part.is_none() => {
                        let part = PART.max(session.least);
                        self.take_back(&session.url, repository);
                        session = self.begin(repository, &what, Some(part))?;
                        continue;
                    }
                    // It has lost the upload, or come to something else than we: once more from the start.
                    400 | 404 | 416 if refusals == 0 => {
                        refusals += 1;
                        session.has = 0;
                        Stumble::again(self.said(&answer))
                    }
                    _ => return Err(self.unexpected(&what, &answer)),
                },
                Err(stumble) => stumble,
            };
            if session.has > before {
                tries = 0;
            }
            self.stumbled(stumble, &mut tries, &what)?;
            // It may have it although its answer was lost.
            if self.has_blob(repository, blob)? {
                return Ok(());
            }
            session = match self.status(&session, repository)? {
                // `0-0` says one byte, and nothing too.
                Some((url, has)) if has > 1 && has <= blob.size => {
                    let part = session.part.or(Some(blob.size));
                    Session { url, has, part, least: session.least }
                }
                known => {
                    known.iter().for_each(|(url, _)| self.take_back(url, repository));
                    // A registry may refuse a whole blob before it has read it. The blocking reqwest then tells of a
                    // broken connection and not of the answer: twice is taken for that.
                    breaks += 1;
                    let part = session.part.filter(|part| *part < blob.size);
                    let part = part.or((breaks > 1).then_some(PART.max(session.least)));
                    self.begin(repository, &what, part)?
                }
            };
        }
    }

    /// Has the registry begin an upload.
    fn begin(&self, repository: &str, what: &str, part: Option<u64>) -> Result<Session, Error> {
        let url = self.url(&format!("{repository}/blobs/uploads/"))?;
        let call = Call::new(Method::POST, url, Scope::push(repository), what);
        let answer = self.send(&call)?;
        let location = answer.location().filter(|_| answer.status == StatusCode::ACCEPTED);
        let least = header(&answer.headers, PART_AT_LEAST).and_then(|text| text.parse().ok()).unwrap_or(0);
        let url = location.ok_or_else(|| self.unexpected(what, &answer))?;
        Ok(Session { url, has: 0, part, least })
    }

    /// Sends the rest of a blob; what is returned is the answer of a registry that does not take it.
    fn go_on(
        &self,
        session: &mut Session,
        repository: &str,
        blob: &Entry,
        path: &Path,
        what: &str,
        progress: &dyn Fn(u64),
    ) -> Result<Option<Answer>, Stumble> {
        let begun = session.has;
        while let Some(part) = session.part.filter(|_| session.has < blob.size) {
            let from = session.has;
            let len = part.min(blob.size - from);
            let beyond = |sent: u64| progress(from - begun + sent);
            let mut call = Call::new(Method::PATCH, session.url.clone(), Scope::push(repository), what)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_RANGE, &format!("{from}-{}", from + len - 1));
            call.body = Body::File { path, from, len, digest: None };
            call.progress = Some(&beyond);
            let answer = self.attempt(&call, None)?;
            if !matches!(answer.status, StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT) {
                return Ok(Some(answer));
            }
            session.url = answer.location().unwrap_or_else(|| session.url.clone());
            let has = header(&answer.headers, RANGE.as_str()).map_or(Some(from + len), end);
            match has {
                // `0-0` says one byte, and nothing too.
                Some(has) if has > from && has <= from + len && (has > 1 || len == 1) => session.has = has,
                _ => return Err(Stumble::again("it took a part of the blob and does not have it")),
            }
        }
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", &blob.digest);
        let mut call = Call::new(Method::PUT, url, Scope::push(repository), what)
            .header(CONTENT_TYPE, "application/octet-stream");
        if session.part.is_none() {
            call.body = Body::File { path, from: 0, len: blob.size, digest: Some(&blob.digest) };
            call.progress = Some(progress);
        }
        let answer = self.attempt(&call, None)?;
        if !matches!(answer.status, StatusCode::CREATED | StatusCode::NO_CONTENT) {
            return Ok(Some(answer));
        }
        check_said(&answer.headers, &self.name(repository, &blob.digest), &blob.digest)?;
        Ok(None)
    }

    /// How much of a blob the registry has, and where to send the rest; none if it does not say.
    fn status(&self, session: &Session, repository: &str) -> Result<Option<(Url, u64)>, Error> {
        let call =
            Call::new(Method::GET, session.url.clone(), Scope::push(repository), "ask how far it came");
        match self.send(&call) {
            Ok(answer) if answer.status == StatusCode::NO_CONTENT => {
                let has = header(&answer.headers, RANGE.as_str()).and_then(end);
                let url = answer.location().unwrap_or_else(|| session.url.clone());
                Ok(Some((url, has.unwrap_or(0))))
            }
            Ok(_) | Err(Error::Refused { .. } | Error::Unreachable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many bytes `0-1023` are.
fn end(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    range.split_once('-')?.1.parse::<u64>().ok()?.checked_add(1)
}
