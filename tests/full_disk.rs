//! A disk without room, at each place where imgbuild writes: a small tmpfs in a mount namespace of its own.

use crate::support::source::{Source, lock};
use crate::support::{Imgbuild, Outcome, Place, noise};

const HINT: &str = "hint: free some space, or name another disk: --store (or IMGBUILD_STORE) for the cache, --output for images";

/// Runs with a disk of `size` mounted at the place's `disk`.
fn with_disk(place: &Place, size: &str, run: Imgbuild) -> Outcome {
    let disk = place.path("disk");
    fs_err::create_dir_all(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size={size} tmpfs {}", disk.display());
    run.under(["unshare", "--user", "--map-root-user", "--mount"]).after(&mount).run()
}

/// The run says in one sentence which path the disk was too small for.
#[track_caller]
fn is_told(place: &Place, outcome: Outcome) {
    let outcome = outcome.fails(1).says("No space left on device").says(HINT);
    let error = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains(&format!("{}", place.path("disk").display())), "{error}");
    assert!(!place.path("out").exists());
}

#[test]
fn a_download_that_finds_no_room_names_the_path() {
    let place = Place::new();
    let content = noise(3, 3 << 20);
    place.write("lock", lock(&content));
    place.write("mirror/linux-5.10.1.tar.xz", &content);
    let run = place.imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror --store disk/store");
    is_told(&place, with_disk(&place, "1m", run));
    let mirror = crate::support::mirror::Mirror::of(&content);
    let run = place.imgbuild("fetch 5.10.1 --lock lock --store disk/store --mirror");
    is_told(&place, with_disk(&place, "1m", run.arg(format!("test={}", mirror.url()))));
}

#[test]
fn a_source_that_finds_no_room_to_be_unpacked_names_the_path() {
    let mut place = Place::new();
    // It packs well, so that the download has room.
    Source::new().file("large", vec![0; 8 << 20]).install(&mut place);
    let run = place.imgbuild("kernel 5.10.1 --store disk/store");
    is_told(&place, with_disk(&place, "4m", run));
}

#[test]
fn a_tree_of_many_small_files_that_finds_no_room_names_the_path() {
    let mut place = Place::new();
    let tree = (0..600).fold(Source::new(), |tree, n| tree.file(&format!("many/d{n}/f{n}"), "x"));
    tree.install(&mut place);
    let run = place.imgbuild("kernel 5.10.1 --store disk/store");
    is_told(&place, with_disk(&place, "4m,nr_inodes=300", run));
}

#[test]
fn a_compilation_that_finds_no_room_says_so() {
    let mut place = Place::new();
    Source::new().prepare("dd if=/dev/zero of=$(O)/large bs=1M count=16").install(&mut place);
    let run = place.imgbuild("kernel 5.10.1 --store disk/store");
    let outcome = with_disk(&place, "8m", run);
    assert!(matches!(outcome.code, Some(1 | 6)), "{outcome:?}");
    outcome.says("No space left on device");
    assert!(!place.path("out").exists());
}

#[test]
fn a_layer_that_finds_no_room_names_the_path() {
    let mut place = Place::new();
    // Room for everything but the layer: what does not pack well is loaded with the kernel.
    Source::new().file("init/noise", noise(5, 3 << 20)).load("init/noise").install(&mut place);
    let run = place.imgbuild("kernel 5.10.1 --store store");
    run.run().succeeds();
    // The kernel is there, the layers are not: the store's other part is on the full disk.
    let layers = place.path("store/artifacts/layer");
    fs_err::remove_dir_all(&layers).unwrap();
    fs_err::remove_dir_all(place.path("out")).unwrap();
    let work = place.path("store/work");
    let disk = place.path("disk");
    fs_err::create_dir_all(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=1m tmpfs {}", work.display());
    let outcome = place
        .imgbuild("kernel 5.10.1 --store store")
        .under(["unshare", "--user", "--map-root-user", "--mount"])
        .after(&mount)
        .run()
        .fails(1)
        .says("No space left on device")
        .says(HINT);
    assert!(outcome.stderr.contains("layer.tar.gz"), "{}", outcome.stderr);
    assert!(!place.path("out").exists());
}

#[test]
fn a_layout_that_finds_no_room_names_the_path_and_has_no_half_made_image() {
    let mut place = Place::new();
    Source::new().file("init/noise", noise(5, 3 << 20)).load("init/noise").install(&mut place);
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let run = place.imgbuild("kernel 5.10.1 --output disk/out");
    // What the disk holds is gone with its namespace, so the shell looks before it ends.
    let outcome = with_disk_and_look(&place, "1m", run);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        outcome.stdout.trim(),
        r#"{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}"#
    );
    outcome.says("disk/out").says("No space left on device");
}

/// As [`with_disk`], and prints the layout's index afterwards.
fn with_disk_and_look(place: &Place, size: &str, run: Imgbuild) -> Outcome {
    let disk = place.path("disk");
    fs_err::create_dir_all(&disk).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs {0}; \"$@\" && code=0 || code=$?; cat {0}/out/index.json; exit $code",
        disk.display()
    );
    run.under(["unshare", "--user", "--map-root-user", "--mount"]).after(&script).run()
}

#[test]
fn a_store_that_may_not_be_written_to_is_named_with_a_way_out() {
    let place = Place::new();
    place.write("lock", lock(b"x"));
    place.write("mirror/linux-5.10.1.tar.xz", "x");
    fs_err::create_dir_all(place.path("disk")).unwrap();
    let mount = format!("mount -t tmpfs -o ro tmpfs {}", place.path("disk").display());
    place
        .imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror --store disk/store")
        .under(["unshare", "--user", "--map-root-user", "--mount"])
        .after(&mount)
        .run()
        .fails(1)
        .says("disk/store")
        .says("Read-only file system")
        .says("--store");
}
