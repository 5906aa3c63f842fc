//! A stream compressed in fixed blocks: every mebibyte of it is a gzip member, or a zstd frame, of its own.
//!
//! Where a block ends depends on the stream alone, and each is compressed by itself, so neither the number of
//! threads nor the size of a write can move a byte. Block size, encoder and level are part of the assembly number
//! (`lock::ASSEMBLY`): changing one of them raises it. Readers take the members for one stream (RFC 1952, 2.2; frames
//! RFC 8878, 3).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::compression::{Compression, Encoder};
use crate::step::hex;

/// Bytes of the stream per gzip member or zstd frame.
pub const BLOCK: usize = 1 << 20;
/// Blocks beyond one per thread: being filled, or done and waiting for an earlier one.
const SPARE: usize = 6;

/// What came of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// sha256 of the compressed bytes, 64 digits.
    pub digest: String,
    /// sha256 of the stream itself, 64 digits.
    pub diff_id: String,
    /// Size of the compressed bytes.
    pub size: u64,
    /// How it is compressed.
    #[serde(default, skip_serializing_if = "is_gzip")]
    pub compression: Compression,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_gzip(compression: &Compression) -> bool {
    *compression == Compression::Gzip
}

/// A block and what it is compressed to. Both are used again and again: memory that one thread takes and another
/// gives back piles up in the allocator.
#[derive(Default)]
struct Slot {
    block: Vec<u8>,
    /// How much of the block is filled, in bytes.
    filled: usize,
    member: Vec<u8>,
    /// How much of `member` the block was compressed to, in bytes.
    size: usize,
}

impl Slot {
    /// What is not filled of the block.
    fn room(&mut self) -> &mut [u8] {
        // A slot has its memory from its first use on: short layers never touch most of them.
        if self.block.is_empty() {
            self.block = vec![0; BLOCK];
        }
        &mut self.block[self.filled..]
    }
}

/// A block on its way to the threads, by its number.
type Job = (u64, Slot);

/// A block compressed, or why not.
struct Done {
    number: u64,
    slot: io::Result<Slot>,
}

/// A writer that compresses what it is given on several threads, in order.
///
/// There is a fixed number of blocks, which go round: whoever writes faster than the target takes it waits for one.
pub struct BlockWriter {
    slot: Slot,
    next: u64,
    hasher: Sha256,
    compression: Compression,
    jobs: Option<Sender<Job>>,
    free: Receiver<Slot>,
    workers: Vec<JoinHandle<()>>,
    collector: JoinHandle<io::Result<(String, u64)>>,
}

impl BlockWriter {
    /// Writes to `target` with `threads` compressing threads: at least one, at most what the compression allows.
    pub fn new(target: impl Write + Send + 'static, compression: Compression, threads: usize) -> Self {
        let threads = threads.clamp(1, compression.threads());
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let (done, results) = channel();
        let (release, free) = channel();
        for _ in 1..threads + SPARE {
            release.send(Slot::default()).expect("its receiver is at hand");
        }
        let worker = || {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            std::thread::spawn(move || compress(&queue, &done, compression))
        };
        let workers = (0..threads).map(|_| worker()).collect();
        let collector = std::thread::spawn(move || collect(&results, &release, target));
        Self {
            slot: Slot::default(),
            next: 0,
            hasher: Sha256::new(),
            compression,
            jobs: Some(jobs),
            free,
            workers,
            collector,
        }
    }

    /// Writes what is left and returns the digests.
    pub fn finish(mut self) -> io::Result<Packed> {
        // An empty stream is one empty member: zero bytes would be no gzip at all.
        let sent = if self.slot.filled > 0 || self.next == 0 { self.send(false) } else { Ok(()) };
        self.jobs = None;
        let broken = |_| io::Error::other("a compressing thread ended early");
        let collected = self.collector.join().map_err(broken)?;
        for worker in self.workers {
            worker.join().map_err(broken)?;
        }
        // The true reason first: what the sender saw is only that its readers are gone.
        let (digest, size) = collected?;
        sent?;
        let diff_id = hex(&self.hasher.finalize());
        Ok(Packed { digest, diff_id, size, compression: self.compression })
    }

    /// Takes what one read of `data` yields, at most `most` bytes; none is its end.
    pub fn take_from(&mut self, data: &mut dyn Read, most: u64) -> io::Result<usize> {
        let room = self.slot.room();
        let wanted = usize::try_from(most).unwrap_or(usize::MAX).min(room.len());
        loop {
            match data.read(&mut room[..wanted]) {
                Ok(n) => return self.filled(n).map(|()| n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn filled(&mut self, n: usize) -> io::Result<()> {
        self.slot.filled += n;
        if self.slot.filled == BLOCK { self.send(true) } else { Ok(()) }
    }

    fn send(&mut self, more: bool) -> io::Result<()> {
        let gone = || io::Error::other("a compressing thread ended early");
        let next = if more { self.free.recv().map_err(|_| gone())? } else { Slot::default() };
        let slot = std::mem::replace(&mut self.slot, next);
        self.hasher.update(&slot.block[..slot.filled]);
        let jobs = self.jobs.as_ref().expect("the queue is open until finish");
        jobs.send((self.next, slot)).map_err(|_| gone())?;
        self.next += 1;
        Ok(())
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.slot.room();
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.filled(n).map(|()| n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(queue: &Mutex<Receiver<Job>>, done: &Sender<Done>, compression: Compression) {
    let mut encoder = Encoder::new(compression);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, mut slot)) = job else { return };
        let compressed = match &mut encoder {
            Ok(encoder) => encoder.compress(&slot.block[..slot.filled], &mut slot.member),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        if done.send(Done { number, slot: compressed.map(|size| Slot { size, ..slot }) }).is_err() {
            return;
        }
    }
}

/// Writes the members in their order and gives their blocks back. Those that came early wait.
fn collect(
    results: &Receiver<Done>,
    release: &Sender<Slot>,
    mut target: impl Write,
) -> io::Result<(String, u64)> {
    let mut early = BTreeMap::new();
    let (mut next, mut size, mut hasher) = (0, 0, Sha256::new());
    for done in results {
        early.insert(done.number, done.slot);
        while let Some(slot) = early.remove(&next) {
            let mut slot = slot?;
            let member = &slot.member[..slot.size];
            hasher.update(member);
            target.write_all(member)?;
            size += member.len() as u64;
            next += 1;
            slot.filled = 0;
            // Nobody waits for it any more at the end.
            let _ = release.send(slot);
        }
    }
    target.flush()?;
    Ok((hex(&hasher.finalize()), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        pack_with(Compression::Gzip, data, threads, write)
    }

    fn pack_with(compression: Compression, data: &[u8], threads: usize, write: usize) -> (Packed, Vec<u8>) {
        let target = Shared::default();
        let mut writer = BlockWriter::new(target.clone(), compression, threads);
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_bytes_of_zstd_depend_on_the_stream_alone(size in 0_usize..4 * BLOCK, threads in 1_usize..9, write in 1_usize..3 * BLOCK) {
            let (data, zstd) = (sample(size), Compression::Zstd(3));
            let (packed, bytes) = pack_with(zstd, &data, threads, write);
            prop_assert_eq!((&packed, &bytes), (&pack_with(zstd, &data, 1, usize::MAX).0, &pack_with(zstd, &data, 2, BLOCK).1));
            prop_assert!(zstd::decode_all(&bytes[..]).unwrap() == data);
            prop_assert_eq!(packed.diff_id, hex(&Sha256::digest(&data)));
            prop_assert_eq!((packed.digest, packed.size), (hex(&Sha256::digest(&bytes)), bytes.len() as u64));
        }

        #[test]
        fn members_are_written_in_order_however_they_arrive(order in Just((0_u64..40).collect::<Vec<_>>()).prop_shuffle()) {
            let (done, results) = channel();
            let (release, free) = channel();
            for number in order {
                let member = vec![number.to_le_bytes()[0]; 5];
                done.send(Done { number, slot: Ok(Slot { member, size: 3, ..Slot::default() }) }).unwrap();
            }
            drop(done);
            let target = Shared::default();
            let (digest, size) = collect(&results, &release, target.clone()).unwrap();
            let expected: Vec<u8> = (0..40).flat_map(|number| [number; 3]).collect();
            prop_assert_eq!((digest, size), (hex(&Sha256::digest(&expected)), 120));
            prop_assert_eq!(&*target.0.lock().unwrap(), &expected);
            prop_assert_eq!(free.try_iter().count(), 40, "every block goes back");
        }
    }

    /// A target that takes nothing until it is told to, and counts nothing.
    struct Gate(Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the sender is gone it is open.
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_target_holds_the_writer_back() {
        let (open, gate) = channel();
        let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let threads = 3;
        let writer = std::thread::spawn(move || {
            let mut writer = BlockWriter::new(Gate(gate), Compression::Gzip, threads);
            let block = sample(BLOCK);
            for _ in 0..100 {
                writer.write_all(&block).unwrap();
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            writer.finish().unwrap()
        });
        let blocks = || written.load(std::sync::atomic::Ordering::SeqCst);
        while blocks() < threads + SPARE - 1 {
            std::thread::yield_now();
        }
        // Long enough for a writer that is not held back to be done.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(blocks(), threads + SPARE - 1, "no more blocks than there are in all");
        drop(open);
        let whole = (0..100).flat_map(|_| sample(BLOCK)).collect::<Vec<_>>();
        assert_eq!(writer.join().unwrap().diff_id, hex(&Sha256::digest(&whole)));
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

    /// The same for zstd, whose library is pinned with its encoder.
    #[test]
    fn golden_bytes_of_zstd() {
        let data = sample(3 * BLOCK + 12_345);
        let digest = |level, data| pack_with(Compression::Zstd(level), data, 3, 10_000).0.digest;
        let digests = [digest(3, &data[..]), digest(19, &data[..]), digest(3, b"")];
        assert_eq!(
            digests,
            [
                "f742a2cd0759312ea524cef31c8c804e88f3efc4c92f6e1784d89ca8437906a6",
                "433a1f086835a02a38a4f45a699991655d2bf1ed0a33e154e617f7701528517a",
                "6fb8543883dafcc2ed0934866b8b3f775231f5b0933add08bf502e9e84944cbd",
            ]
        );
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
        let mut writer = BlockWriter::new(Full, Compression::Gzip, 2);
        // Either a later write or the end tells; the true reason comes from the end.
        let _ = writer.write_all(&sample(40 * BLOCK));
        assert_eq!(writer.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
