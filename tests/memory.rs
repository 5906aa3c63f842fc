//! Packing takes at most 64 MiB, whatever the size of a layer.

use std::io::Write;

use imgbuild::oci::layer::{self, Entry, Packing};
use imgbuild::step::Watch;

/// The most memory that this process has had of its own, in bytes: without the pages of the test program itself, of which
/// there are more or fewer from run to run.
fn peak() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    };
    figure("VmHWM:") - figure("RssFile:")
}

/// Packs the same 70 MiB twice.
fn pack(compression: &str) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    let mut file = fs_err::File::create(&source).unwrap();
    // What does not get smaller takes the most.
    let block = crate::support::noise(1, 1 << 20);
    for _ in 0..70 {
        file.write_all(&block).unwrap();
    }
    let watch = Watch::silent();
    for layer in ["one", "two"] {
        // More processors than any thread is made for.
        let packing = Packing { compression: compression.parse().unwrap(), threads: 64 };
        let target = dir.path().join(layer);
        let packed = layer::write(vec![Entry::file("file", &source)], 0, &target, packing, &watch).unwrap();
        assert!(packed.size > 70 << 20, "{packed:?}");
    }
    let peak = peak();
    // The rest of the 64 MiB is for the program.
    assert!(peak < 56 << 20, "{compression}: {peak}");
}

#[test]
fn packing_takes_at_most_64_mib_whatever_the_size_and_the_compression() {
    const COMPRESSION: &str = "IMGBUILD_TEST_COMPRESSION";
    if let Ok(compression) = std::env::var(COMPRESSION) {
        return pack(&compression);
    }
    // Of each number of threads the highest level; each in a process of its own, whose peak it is.
    for compression in ["gzip", "zstd:6", "zstd:8", "zstd:12", "zstd:22"] {
        let name = "memory::packing_takes_at_most_64_mib_whatever_the_size_and_the_compression";
        let output = crate::support::test_again(name).env(COMPRESSION, compression).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{output:?}");
    }
}
