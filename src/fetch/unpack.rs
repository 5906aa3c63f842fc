//! A verified source archive unpacked: decompression on one thread, writing on another.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use fs_err::{self as fs, File};
use liblzma::read::XzDecoder;
use tar::EntryType;

use super::Error;
use crate::step::{Cancel, Unit, Watch, because, human};

/// How much decompressed data one message between the threads carries.
const CHUNK: usize = 1 << 20;

/// An unpacked source tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The tree's top directory.
    pub root: PathBuf,
    /// The time of its newest file, in seconds since 1970: the source's own date.
    pub epoch: u64,
}

/// Unpacks a `.tar.xz` that holds one top directory into `dir`.
pub fn unpack(archive: &Path, name: &str, dir: &Path, watch: &Watch) -> Result<Source, Error> {
    let wrong = |reason: String| Error::Unpack { path: archive.to_owned(), reason };
    let progress = watch.reporter.begin("unpack", name, None, Unit::Bytes);
    let (sender, receiver) = sync_channel(8);
    let mut decoder = XzDecoder::new_multi_decoder(File::open(archive)?);
    let producer = std::thread::spawn(move || {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = decoder.by_ref().take(CHUNK as u64).read_to_end(&mut chunk).map(|_| chunk);
            let last = !matches!(&read, Ok(chunk) if !chunk.is_empty());
            if sender.send(read).is_err() || last {
                break;
            }
        }
    });
    let stream = Chunks { receiver, chunk: Vec::new(), taken: 0, cancel: watch.cancel.clone() };
    let mut tar = tar::Archive::new(stream);
    tar.set_preserve_mtime(true);
    let mut top: Option<PathBuf> = None;
    let (mut epoch, mut bytes) = (0, 0);
    let failed = |error: io::Error| {
        if watch.cancel.is_cancelled() { Error::Cancelled } else { wrong(because(&error)) }
    };
    for entry in tar.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        // `git archive`, hence kernel.org, begins with the commit's id: no file of the tree.
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        let path = entry.path().map_err(failed)?.into_owned();
        let first = path.components().next().map(|part| PathBuf::from(part.as_os_str()));
        match (&top, first) {
            (_, None) => continue,
            (None, first) => top = first,
            (Some(top), Some(first)) if *top == first => {}
            (Some(top), Some(first)) => {
                let reason =
                    format!("it holds both `{}` and `{}` at its top", top.display(), first.display());
                return Err(wrong(reason));
            }
        }
        epoch = epoch.max(entry.header().mtime().map_err(failed)?);
        // A full disk is the host's failure, not the archive's.
        let unpacked = entry.unpack_in(dir).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::PermissionDenied => {
                Error::Io(io::Error::new(
                    error.kind(),
                    format!("cannot unpack into `{}`: {}", dir.display(), because(&error)),
                ))
            }
            _ => failed(error),
        })?;
        if !unpacked {
            return Err(wrong(format!("`{}` would land outside the tree", path.display())));
        }
        bytes += entry.size();
        progress.set(bytes);
    }
    let _ = producer.join();
    let root = top.map(|top| dir.join(top)).ok_or_else(|| wrong("it is empty".into()))?;
    if !fs::metadata(&root)?.is_dir() {
        return Err(wrong("it holds no directory".into()));
    }
    progress.finish(&human(bytes));
    Ok(Source { root, epoch })
}

/// The decompressed stream on the writing side.
struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    taken: usize,
    cancel: Cancel,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            if self.cancel.is_cancelled() {
                return Err(io::Error::other("interrupted"));
            }
            self.chunk = self.receiver.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            self.taken = 0;
        }
        let n = buffer.len().min(self.chunk.len() - self.taken);
        buffer[..n].copy_from_slice(&self.chunk[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::write::XzEncoder;
    use tar::{Builder, Header};

    use super::*;
    use crate::step::Watch;

    /// An archive as `git archive` writes it, of these files with these times.
    fn archive(path: &Path, files: &[(&str, u64)]) {
        let mut builder = Builder::new(XzEncoder::new(File::create(path).unwrap(), 1));
        let comment = b"52 comment=5d3fb7ac4a8e1d35bbed4ae7eb5a7bd2e6a58fbf\n";
        let mut header = Header::new_ustar();
        header.set_path("pax_global_header").unwrap();
        header.set_entry_type(EntryType::XGlobalHeader);
        header.set_size(comment.len() as u64);
        header.set_cksum();
        builder.append(&header, &comment[..]).unwrap();
        for (name, mtime) in files {
            let mut header = Header::new_ustar();
            header.set_mode(0o644);
            header.set_mtime(*mtime);
            header.set_size(1);
            builder.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap().flush().unwrap();
    }

    fn unpacked(files: &[(&str, u64)]) -> Result<(Vec<String>, u64), String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.xz");
        archive(&path, files);
        let target = dir.path().join("tree");
        fs::create_dir(&target).unwrap();
        let source = unpack(&path, "a", &target, &Watch::silent()).map_err(|error| error.to_string())?;
        let names = fs::read_dir(&source.root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok((names, source.epoch))
    }

    #[test]
    fn a_tarball_of_kernel_org_has_a_global_header_and_one_top_directory() {
        let files = [("linux-5.10.1/Makefile", 1_600_000_000), ("linux-5.10.1/README", 1_600_000_007)];
        assert_eq!(unpacked(&files), Ok((vec!["Makefile".into(), "README".into()], 1_600_000_007)));
    }

    #[test]
    fn several_tops_or_none_are_refused() {
        assert!(unpacked(&[("a/x", 0), ("b/x", 0)]).unwrap_err().contains("holds both `a` and `b`"));
        assert!(unpacked(&[]).unwrap_err().contains("it is empty"));
    }
}
