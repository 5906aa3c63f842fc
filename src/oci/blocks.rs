//! gzip in fixed blocks: every mebibyte of the stream is a member of its own.
//!
//! Where a block ends depends on the stream alone, and each is compressed by itself, so neither the number of
//! threads nor the size of a write can move a byte. Block size, encoder and level are part of the assembly number
//! (`lock::ASSEMBLY`): changing one of them raises it. Readers take the members for one stream (RFC 1952, 2.2).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::step::hex;

/// Bytes of the stream per gzip member.
pub const BLOCK: usize = 1 << 20;
/// libdeflate's level: as small as `gzip -6` at a third of its time.
const LEVEL: i32 = 5;

/// What came of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// sha256 of the compressed bytes, 64 digits.
    pub digest: String,
    /// sha256 of the stream itself, 64 digits.
    pub diff_id: String,
    /// Size of the compressed bytes.
    pub size: u64,
}

/// A writer that compresses what it is given on several threads, in order.
pub struct BlockWriter {
    block: Vec<u8>,
    next: u64,
    hasher: Sha256,
    jobs: Option<SyncSender<(u64, Vec<u8>)>>,
    workers: Vec<JoinHandle<()>>,
    collector: JoinHandle<io::Result<(String, u64)>>,
}

impl BlockWriter {
    /// Writes to `target` with `threads` compressing threads, at least one.
    pub fn new(target: impl Write + Send + 'static, threads: usize) -> Self {
        let threads = threads.max(1);
        let (jobs, queue) = sync_channel(2 * threads);
        let queue = Arc::new(Mutex::new(queue));
        let (done, results) = channel();
        let worker = || {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            std::thread::spawn(move || compress(&queue, &done))
        };
        let workers = (0..threads).map(|_| worker()).collect();
        let collector = std::thread::spawn(move || collect(&results, target));
        Self {
            block: Vec::with_capacity(BLOCK),
            next: 0,
            hasher: Sha256::new(),
            jobs: Some(jobs),
            workers,
            collector,
        }
    }

    /// Writes what is left and returns the digests.
    pub fn finish(mut self) -> io::Result<Packed> {
        // An empty stream is one empty member: zero bytes would be no gzip at all.
        if !self.block.is_empty() || self.next == 0 {
            self.send()?;
        }
        self.jobs = None;
        let broken = |_| io::Error::other("a compressing thread ended early");
        for worker in self.workers {
            worker.join().map_err(broken)?;
        }
        let (digest, size) = self.collector.join().map_err(broken)??;
        Ok(Packed { digest, diff_id: hex(&self.hasher.finalize()), size })
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.hasher.update(&block);
        let jobs = self.jobs.as_ref().expect("the queue is open until finish");
        jobs.send((self.next, block)).map_err(|_| io::Error::other("a compressing thread ended early"))?;
        self.next += 1;
        Ok(())
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(queue: &Mutex<Receiver<(u64, Vec<u8>)>>, done: &Sender<(u64, Vec<u8>)>) {
    let level = CompressionLvl::new(LEVEL).expect("libdeflate has this level");
    let mut compressor = Compressor::new(level);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, block)) = job else { return };
        let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
        let size = compressor.gzip_compress(&block, &mut member).expect("the bound is enough");
        member.truncate(size);
        if done.send((number, member)).is_err() {
            return;
        }
    }
}

/// Writes the members in their order. Those that came early wait; the bounded queue keeps them few.
fn collect(results: &Receiver<(u64, Vec<u8>)>, mut target: impl Write) -> io::Result<(String, u64)> {
    let mut early = BTreeMap::new();
    let (mut next, mut size, mut hasher) = (0, 0, Sha256::new());
    for (number, member) in results {
        early.insert(number, member);
        while let Some(member) = early.remove(&next) {
            hasher.update(&member);
            target.write_all(&member)?;
            size += member.len() as u64;
            next += 1;
        }
    }
    target.flush()?;
    Ok((hex(&hasher.finalize()), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    /// A target that can be looked at while the collector owns it.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pack(data: &[u8], threads: usize, write: usize) -> (Packed, Vec<u8>) {
        let target = Shared::default();
        let mut writer = BlockWriter::new(target.clone(), threads);
        for piece in data.chunks(write.max(1)) {
            writer.write_all(piece).unwrap();
        }
        let packed = writer.finish().unwrap();
        (packed, Arc::into_inner(target.0).unwrap().into_inner().unwrap())
    }

    fn sample(size: usize) -> Vec<u8> {
        // Neither constant nor random, so that compression has something to decide.
        let byte = |n: usize| n.to_le_bytes()[0];
        (0..size).map(|i| byte(i * i / 97 % 251) ^ byte(i / 4096)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_bytes_depend_on_the_stream_alone(size in 0_usize..4 * BLOCK, threads in 1_usize..9, write in 1_usize..3 * BLOCK) {
            let data = sample(size);
            let (packed, bytes) = pack(&data, threads, write);
            prop_assert_eq!((&packed, &bytes), (&pack(&data, 1, usize::MAX).0, &pack(&data, 2, BLOCK).1));
            let mut back = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut back).unwrap();
            prop_assert!(back == data);
            prop_assert_eq!(packed.diff_id, hex(&Sha256::digest(&data)));
            prop_assert_eq!(packed.digest, hex(&Sha256::digest(&bytes)));
            prop_assert_eq!(packed.size, bytes.len() as u64);
        }
    }

    /// Fails if we ever make a change that moves a layer's bytes: then the assembly number has to rise too.
    #[test]
    fn golden_bytes() {
        let (packed, _) = pack(&sample(3 * BLOCK + 12_345), 3, 10_000);
        assert_eq!(packed.diff_id, "58ebd1b430c12417377e68cdc7f0df13b0ba8c6213989581d8d7c5e28693b2c2");
        assert_eq!(packed.digest, "3fc4a42d62a887c7e4632ce66c086602b2c267dcf06ee11aa3219dda99c89d16");
        let (empty, bytes) = pack(b"", 1, 1);
        assert_eq!(empty.digest, "30e6fa98fb48c2b132824d1ac5e2243c0be9e9082ff32598d34d7687ca7f6c7f");
        assert_eq!(bytes.len(), 23);
    }

    #[test]
    fn a_full_target_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = BlockWriter::new(Full, 2);
        // Either a later write or the end tells; the true reason comes from the end.
        let _ = writer.write_all(&sample(40 * BLOCK));
        assert_eq!(writer.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
