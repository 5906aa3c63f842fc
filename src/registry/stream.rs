//! A file as a request's body: it can be opened again, is hashed while it is read, and counts what was sent.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use fs_err::File;
use sha2::{Digest, Sha256};

use super::Error;
use super::client::guard;
use super::http::Body;
use crate::step::hex;

/// What goes over one connection, as its two threads see it.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Bytes of the request's body.
    pub(super) sent: AtomicU64,
    /// Nobody waits for the answer any more.
    pub(super) left: AtomicBool,
    /// What the file has turned out to be instead.
    actual: Mutex<Option<String>>,
}

impl Traffic {
    /// What is wrong with the file that was sent.
    pub(super) fn fault(&self, body: Body<'_>) -> Option<Error> {
        let actual = guard(&self.actual).take()?;
        let Body::File { path, len, digest, .. } = body else { return None };
        let expected = digest.map_or_else(|| format!("{len} bytes"), Into::into);
        Some(Error::Digest { what: path.display().to_string(), expected, actual })
    }
}

/// A part of a file.
pub(super) struct FileBody {
    file: File,
    left: u64,
    /// The running hash, and what it has to come to.
    hash: Option<(Sha256, String)>,
    traffic: Arc<Traffic>,
}

impl FileBody {
    /// `len` bytes from `from` on, which as a whole have `digest`.
    pub(super) fn open(
        path: &Path,
        from: u64,
        len: u64,
        digest: Option<&str>,
        traffic: &Arc<Traffic>,
    ) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let hash = digest.map(|digest| (Sha256::new(), digest.to_owned()));
        Ok(Self { file, left: len, hash, traffic: Arc::clone(traffic) })
    }

    fn is_not(&self, actual: String) -> std::io::Error {
        *guard(&self.traffic.actual) = Some(actual);
        std::io::Error::other("the file is not what it should be")
    }
}

impl Read for FileBody {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.traffic.left.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("given up"));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(self.is_not(format!("{} bytes shorter", self.left)));
        }
        self.left -= read as u64;
        if let Some((hasher, expected)) = &mut self.hash {
            hasher.update(&buffer[..read]);
            if self.left == 0 {
                let actual = format!("sha256:{}", hex(&std::mem::take(hasher).finalize()));
                // The last bytes are kept back, so that the registry never has a whole blob that is wrong.
                if actual != *expected {
                    return Err(self.is_not(actual));
                }
                self.hash = None;
            }
        }
        self.traffic.sent.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(bytes: &[u8], from: u64, len: u64, digest: Option<&str>) -> Result<Vec<u8>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        fs_err::write(&path, bytes).unwrap();
        let traffic = Arc::default();
        let mut sent = Vec::new();
        let mut body = FileBody::open(&path, from, len, digest, &traffic).unwrap();
        let read = std::io::copy(&mut body, &mut sent);
        let fault = traffic.fault(Body::File { path: &path, from, len, digest });
        assert_eq!(read.is_err(), fault.is_some());
        assert_eq!(traffic.sent.load(Ordering::Relaxed), sent.len() as u64);
        fault.map_or(Ok(sent), |fault| Err(fault.to_string()))
    }

    #[test]
    fn a_whole_file_or_a_part_of_it_is_sent() {
        let digest = super::super::client::sha256(b"hello");
        assert_eq!(send(b"hello", 0, 5, Some(&digest)), Ok(b"hello".to_vec()));
        assert_eq!(send(b"hello", 2, 2, None), Ok(b"ll".to_vec()));
        let empty = super::super::client::sha256(b"");
        assert_eq!(send(b"", 0, 0, Some(&empty)), Ok(vec![]));
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_told() {
        let digest = super::super::client::sha256(b"hello");
        assert!(send(b"hellO", 0, 5, Some(&digest)).unwrap_err().contains("does not have its digest"));
        assert!(send(b"hell", 0, 5, Some(&digest)).unwrap_err().contains("1 bytes shorter"));
    }
}
