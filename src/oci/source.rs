//! Where images are read from: a layout on disk, or whatever else has named descriptors and blobs.

use std::cell::RefCell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use oci_spec::image::{Descriptor, DigestAlgorithm, MediaType};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::Error;
use crate::step::{Cancel, hex};

/// The largest document that is read: registries refuse manifests above 4 MiB (distribution specification 1.1).
const DOCUMENT: u64 = 4 << 20;

/// A place that images can be read from.
pub trait Source {
    /// What people call it: a directory, a reference.
    fn name(&self) -> String;

    /// What has a name of its own: indexes and manifests.
    fn named(&self) -> Result<Vec<Named>, Error>;

    /// Opens a blob. Its bytes are not verified yet.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, Error>;

    /// Every blob that lies there, named or not, as far as the source can tell.
    fn blobs(&self) -> Result<Vec<Descriptor>, Error>;
}

/// A descriptor with a name.
#[derive(Debug, Clone)]
pub struct Named {
    /// `kernel-bin:5.10.262`; the digest where it was given none.
    pub name: String,
    /// What it stands for.
    pub descriptor: Descriptor,
}

/// How the tar of a layer is wrapped up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Not at all.
    Plain,
    /// As gzip members.
    Gzip,
    /// As zstd frames.
    Zstd,
}

impl Framing {
    /// The framing that a media type of OCI's or Docker's stands for; none where it is no layer's.
    pub fn of(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::ImageLayer | MediaType::ImageLayerNonDistributable => Some(Self::Plain),
            MediaType::ImageLayerGzip | MediaType::ImageLayerNonDistributableGzip => Some(Self::Gzip),
            MediaType::ImageLayerZstd | MediaType::ImageLayerNonDistributableZstd => Some(Self::Zstd),
            other => match other.as_ref() {
                "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::Plain),
                "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Self::Gzip),
                "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
                _ => None,
            },
        }
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// What is known of a stream that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// Its sha256, as `sha256:…`.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Says whether a blob is what its descriptor says.
pub fn check(source: &dyn Source, descriptor: &Descriptor, sum: &Sum) -> Result<(), Error> {
    let wrong = |reason| Err(blob_error(source, descriptor, reason));
    if *descriptor.digest().algorithm() != DigestAlgorithm::Sha256 {
        return wrong("has a digest that is no sha256".into());
    }
    if sum.size != descriptor.size() {
        return wrong(format!("has {} bytes, its descriptor says {}", sum.size, descriptor.size()));
    }
    if sum.digest != descriptor.digest().as_ref() {
        return wrong(format!("does not have its digest: it is {}", sum.digest));
    }
    Ok(())
}

/// An error about one blob; `reason` follows its digest in the sentence.
pub fn blob_error(source: &dyn Source, descriptor: &Descriptor, reason: String) -> Error {
    Error::Blob { place: source.name(), digest: descriptor.digest().to_string(), reason }
}

/// Reads a blob to its end and checks it.
pub fn read_through(source: &dyn Source, descriptor: &Descriptor, cancel: &Cancel) -> Result<(), Error> {
    let (mut reader, tally) = tallied(source.open(descriptor)?);
    drain(&mut reader, cancel)?;
    check(source, descriptor, &tally.sum())
}

/// Reads, checks and parses a document.
pub fn document<T: DeserializeOwned>(source: &dyn Source, descriptor: &Descriptor) -> Result<T, Error> {
    if descriptor.size() > DOCUMENT {
        let reason = format!("has {} bytes, more than any document may have", descriptor.size());
        return Err(blob_error(source, descriptor, reason));
    }
    let (reader, tally) = tallied(source.open(descriptor)?);
    let mut bytes = Vec::new();
    // One more than promised, so that a longer one is told from a right one.
    reader.take(descriptor.size() + 1).read_to_end(&mut bytes)?;
    check(source, descriptor, &tally.sum())?;
    let malformed =
        |error| blob_error(source, descriptor, format!("is not what its media type says: {error}"));
    serde_json::from_slice(&bytes).map_err(malformed)
}

/// A layer's tar being read, both its digests growing meanwhile.
pub struct Layer {
    reader: Tallied<Box<dyn Read>>,
    blob: Tally,
    stream: Tally,
}

impl Layer {
    /// Opens a layer; fails where its media type is none of a layer's.
    pub fn open(source: &dyn Source, descriptor: &Descriptor) -> Result<Self, Error> {
        let Some(framing) = Framing::of(descriptor.media_type()) else {
            let reason = format!("is no layer but {}", descriptor.media_type());
            return Err(blob_error(source, descriptor, reason));
        };
        let (raw, blob) = tallied(source.open(descriptor)?);
        let plain: Box<dyn Read> = match framing {
            Framing::Plain => Box::new(raw),
            Framing::Zstd => Box::new(zstd::Decoder::new(raw)?),
            Framing::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(1 << 17, raw))),
        };
        let (reader, stream) = tallied(plain);
        Ok(Self { reader, blob, stream })
    }

    /// Reads what follows the archive and returns what blob and tar came to.
    pub fn finish(mut self, cancel: &Cancel) -> Result<(Sum, Sum), Error> {
        drain(&mut self.reader, cancel)?;
        Ok((self.blob.sum(), self.stream.sum()))
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

fn drain(reader: &mut impl Read, cancel: &Cancel) -> Result<(), Error> {
    let mut buffer = vec![0; 1 << 17];
    while reader.read(&mut buffer)? > 0 {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

/// Digest and size so far, seen from outside while somebody else owns the reader.
#[derive(Clone, Default)]
struct Tally(Rc<RefCell<(Sha256, u64)>>);

impl Tally {
    fn sum(&self) -> Sum {
        let (hasher, size) = &*self.0.borrow();
        Sum { digest: format!("sha256:{}", hex(&hasher.clone().finalize())), size: *size }
    }
}

struct Tallied<R> {
    inner: R,
    tally: Tally,
}

fn tallied<R: Read>(inner: R) -> (Tallied<R>, Tally) {
    let tally = Tally::default();
    (Tallied { inner, tally: tally.clone() }, tally)
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let (hasher, size) = &mut *self.tally.0.borrow_mut();
        hasher.update(&buffer[..n]);
        *size += n as u64;
        Ok(n)
    }
}
