//! How layers are compressed. A block is compressed by itself, so what comes out depends on the block alone.

use std::fmt;
use std::io;
use std::str::FromStr;

use libdeflater::{CompressionLvl, Compressor};
use serde::{Deserialize, Serialize};

/// libdeflate's level: as small as `gzip -6` at a third of its time.
const GZIP_LEVEL: i32 = 5;
/// zstd's own default.
const ZSTD_LEVEL: u8 = 3;

/// A compression, as `--compression` names it: `gzip`, `zstd`, `zstd:19`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Compression {
    /// gzip, at the level of the assembly number; every consumer reads it.
    #[default]
    Gzip,
    /// zstd at a level from 1 to 22; containerd reads it from 1.5 on.
    Zstd(u8),
}

impl Compression {
    /// How many threads may compress at once. Packing takes at most 64 MiB, and the higher the level, the more of it
    /// each takes: 2 MiB with its block, 19 MiB at the highest. More than eight would wait for the one that reads.
    pub(super) fn threads(self) -> usize {
        match self {
            Self::Gzip | Self::Zstd(..=6) => 8,
            Self::Zstd(7 | 8) => 5,
            Self::Zstd(9..=12) => 3,
            Self::Zstd(_) => 2,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip => f.write_str("gzip"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// A compression that is none of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown compression `{0}`: gzip, zstd and zstd:1 to zstd:22 are known")]
pub struct UnknownCompression(String);

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        let unknown = || UnknownCompression(text.to_owned());
        match text.split_once(':') {
            None if text == "gzip" => Ok(Self::Gzip),
            None if text == "zstd" => Ok(Self::Zstd(ZSTD_LEVEL)),
            Some(("zstd", level)) => match level.parse() {
                Ok(level @ 1..=22) => Ok(Self::Zstd(level)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> Self {
        compression.to_string()
    }
}

impl TryFrom<String> for Compression {
    type Error = UnknownCompression;

    fn try_from(text: String) -> Result<Self, UnknownCompression> {
        text.parse()
    }
}

/// What compresses blocks in one thread.
pub(super) enum Encoder {
    Gzip(Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Gzip => {
                let level = CompressionLvl::new(GZIP_LEVEL).expect("libdeflate has this level");
                Self::Gzip(Compressor::new(level))
            }
            Compression::Zstd(level) => Self::Zstd(zstd::bulk::Compressor::new(level.into())?),
        })
    }

    /// Writes the gzip member, or the zstd frame, of a block to the beginning of `member`, and returns its size.
    pub(super) fn compress(&mut self, block: &[u8], member: &mut Vec<u8>) -> io::Result<usize> {
        let bound = match self {
            Self::Gzip(compressor) => compressor.gzip_compress_bound(block.len()),
            Self::Zstd(_) => zstd::zstd_safe::compress_bound(block.len()),
        };
        // Its memory is cleared once, not for every block.
        if member.len() < bound {
            *member = vec![0; bound];
        }
        match self {
            Self::Gzip(compressor) => {
                Ok(compressor.gzip_compress(block, member).expect("the bound is enough"))
            }
            Self::Zstd(compressor) => compressor.compress_to_buffer(block, &mut member[..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_written() {
        for (text, compression) in [
            ("gzip", Compression::Gzip),
            ("zstd:1", Compression::Zstd(1)),
            ("zstd:22", Compression::Zstd(22)),
        ] {
            assert_eq!((text.parse(), compression.to_string()), (Ok(compression), text.to_owned()));
        }
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        for text in ["", "gzip:9", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "xz"] {
            assert!(text.parse::<Compression>().unwrap_err().to_string().contains(&format!("`{text}`")));
        }
    }
}
