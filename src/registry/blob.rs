//! Blobs looked for and fetched, every one checked against its digest.

use std::io::{Seek, SeekFrom, Write};

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::Error;
use super::client::{Client, header};
use super::http::{Call, Sink, Stumble};
use super::tree::Entry;
use crate::step::hex;

impl Client {
    /// Whether a repository has a blob; one of another size does not count.
    pub(super) fn has_blob(&self, repository: &str, blob: &Entry) -> Result<bool, Error> {
        let url = self.url(&format!("{repository}/blobs/{}", blob.digest))?;
        let what = format!("look for `{}`", self.name(repository, &blob.digest));
        let call = Call::new(Method::HEAD, url, self.reading(repository), what);
        let answer = self.send(&call)?;
        match answer.status {
            StatusCode::OK => {
                let length =
                    header(&answer.headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
                Ok(length.is_none_or(|length: u64| length == blob.size))
            }
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.unexpected(&call.what, &answer)),
        }
    }

    /// Fetches a blob into an empty file, going on after breaks, and checks it.
    pub(super) fn fetch_blob(
        &self,
        repository: &str,
        blob: &Entry,
        file: &mut NamedTempFile,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let name = self.name(repository, &blob.digest);
        let url = self.url(&format!("{repository}/blobs/{}", blob.digest))?;
        let mut sink = BlobSink { file, hasher: Sha256::new(), got: 0, blob, name: &name, progress };
        let mut tries = 0;
        loop {
            let before = sink.got;
            let what = format!("read `{name}`");
            let mut call = Call::new(Method::GET, url.clone(), self.reading(repository), what);
            if before > 0 {
                call = call.header(RANGE, &format!("bytes={before}-"));
            }
            let stumble = match self.attempt(&call, Some(&mut sink)) {
                Ok(answer) if answer.status.is_success() && sink.got == blob.size => break,
                Ok(answer) if answer.status.is_success() => Stumble::again("the blob ended early"),
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => return Err(Error::NotFound(name)),
                Ok(answer) => return Err(self.unexpected(&call.what, &answer)),
                Err(stumble) => stumble,
            };
            if sink.got > before {
                tries = 0;
            }
            self.stumbled(stumble, &mut tries, &call.what)?;
        }
        let actual = format!("sha256:{}", hex(&sink.hasher.finalize()));
        if actual != blob.digest {
            return Err(Error::Digest { what: name, expected: blob.digest.clone(), actual });
        }
        file.flush()?;
        Ok(())
    }
}

/// Puts a blob's bytes into a file.
struct BlobSink<'a> {
    file: &'a mut NamedTempFile,
    hasher: Sha256,
    /// Bytes so far.
    got: u64,
    blob: &'a Entry,
    name: &'a str,
    progress: &'a dyn Fn(u64),
}

impl BlobSink<'_> {
    fn restart(&mut self) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.as_file().set_len(0)?;
        (self.hasher, self.got) = (Sha256::new(), 0);
        Ok(())
    }

    fn wrong_size(&self, actual: &str) -> Stumble {
        let expected = format!("{} bytes", self.blob.size);
        Error::Digest { what: self.name.to_owned(), expected, actual: actual.to_owned() }.into()
    }
}

impl Sink for BlobSink<'_> {
    fn begin(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<bool, Stumble> {
        match status {
            StatusCode::OK => {
                self.restart()?;
                let length =
                    header(headers, CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
                match length {
                    Some(length) if length != self.blob.size => {
                        Err(self.wrong_size(&format!("{length} bytes")))
                    }
                    _ => Ok(true),
                }
            }
            StatusCode::PARTIAL_CONTENT if starts_at(headers) == Some(self.got) => Ok(true),
            // The registry has no such range: from the start, then.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if self.got > 0 => {
                self.restart()?;
                Err(Stumble::again(format!("cannot resume ({status})")))
            }
            _ => Ok(false),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stumble> {
        self.got += bytes.len() as u64;
        if self.got > self.blob.size {
            return Err(self.wrong_size("more"));
        }
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        (self.progress)(self.got);
        Ok(())
    }
}

/// Where a partial answer begins.
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    header(headers, CONTENT_RANGE.as_str())?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
