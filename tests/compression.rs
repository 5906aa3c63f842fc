//! `--compression`: the same files in other blobs, and nothing of gzip's moves.

use std::ffi::OsStr;
use std::io::Read;

use crate::support::layout::Layout;
use crate::support::source::Source;
use crate::support::{Place, noise, sha256, tool};

const IMAGES: [&str; 2] = ["kernel-bin:5.10.1", "kernel-modules:5.10.1"];
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A toy kernel with some mebibytes in it, so that its layer has several blocks.
fn toys() -> Place {
    let mut place = Place::new();
    Source::new().load("blob").file("blob", noise(7, 3 << 20)).install(&mut place);
    place
}

#[test]
fn zstd_layers_hold_what_gzip_layers_hold() {
    let place = toys();
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let outcome =
        place.imgbuild("kernel 5.10.1 --arch all --compression zstd --output zstd").run().succeeds();
    outcome.does_not_say("compile").says("pack").prints("not compared: digests are recorded for gzip");
    let (gzip, zstd) = (Layout::at(place.path("out")), Layout::at(place.path("zstd")));
    for name in IMAGES {
        for architecture in ["amd64", "arm64"] {
            let [a, b] = [&gzip, &zstd].map(|layout| layout.image(name, architecture));
            assert_eq!(a.entries, b.entries);
            assert_eq!(a.config, b.config, "the configuration names the tar, which is the same");
            assert_eq!(b.manifest["layers"][0]["mediaType"], ZSTD);
        }
    }
    place.imgbuild("validate zstd").run().succeeds();
    let outcome = place.imgbuild("diff out zstd").run().exits(9).says("4 differences");
    let line =
        format!("manifest/layers/0/mediaType: application/vnd.oci.image.layer.v1.tar+gzip in A, {ZSTD} in B");
    assert_eq!(outcome.stdout.matches(&line).count(), 4, "{}", outcome.stdout);
    place.imgbuild("inspect zstd --image kernel-bin:5.10.1").run().succeeds().prints("  zstd, ");
}

#[test]
fn a_zstd_layer_is_a_frame_per_mebibyte() {
    let place = toys();
    place.imgbuild("kernel 5.10.1 --compression zstd").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let image = layout.image(IMAGES[0], if crate::support::host() == "x86_64" { "amd64" } else { "arm64" });
    let blob = layout.blob(image.manifest["layers"][0]["digest"].as_str().unwrap());
    let (mut rest, mut sizes) = (&blob[..], Vec::new());
    while !rest.is_empty() {
        let mut frame = zstd::stream::read::Decoder::with_buffer(rest).unwrap().single_frame();
        let mut bytes = Vec::new();
        frame.read_to_end(&mut bytes).unwrap();
        sizes.push(bytes.len());
        rest = frame.finish();
    }
    let last = sizes.pop().unwrap();
    assert!(sizes.len() >= 3 && last <= 1 << 20, "{sizes:?} {last}");
    assert_eq!(sizes, vec![1 << 20; sizes.len()]);
}

#[test]
fn each_compression_has_layers_of_its_own_in_the_store_and_gzip_keeps_its_key() {
    let place = toys();
    let keys = |words: &str| {
        let json =
            place.imgbuild(&format!("plan 5.10.1 --explain --format json {words}")).run().succeeds().json();
        let packs = json["steps"].as_array().unwrap().iter().filter(|step| step["step"] == "pack");
        packs
            .map(|step| (step["key"].clone(), step["record"].clone(), step["cached"].clone()))
            .collect::<Vec<_>>()
    };
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let (gzip, zstd) = (keys(""), keys("--compression zstd"));
    assert_eq!(keys("--compression gzip"), gzip);
    assert_eq!(keys("--compression zstd:3"), zstd);
    assert_ne!(keys("--compression zstd:4")[0].0, zstd[0].0);
    for ((key, record, cached), (other, with, to_do)) in gzip.iter().zip(&zstd) {
        assert!(record.get("compression").is_none(), "{record}");
        assert_eq!((&with["compression"], cached, to_do), (&"zstd:3".into(), &true.into(), &false.into()));
        assert_ne!(key, other);
    }
    place.imgbuild("kernel 5.10.1 --compression zstd").run().succeeds();
    assert_eq!(place.artifacts("layer").len(), 4);
    let outcome = place.imgbuild("kernel 5.10.1 --compression zstd").run().succeeds();
    outcome.does_not_say("pack ");
}

#[test]
fn the_layers_are_the_same_for_every_number_of_jobs() {
    let place = toys();
    let images = ["1", "2", "7"].map(|jobs| {
        place.imgbuild("cache gc --max-size 0").run().succeeds();
        let run = place.imgbuild("kernel 5.10.1 --compression zstd:5").option("--jobs", jobs);
        run.option("--output", jobs).run().succeeds().says("pack");
        Layout::at(place.path(jobs)).images()
    });
    assert_eq!((&images[0], &images[0]), (&images[1], &images[2]));
}

#[test]
fn what_is_no_compression_is_refused_with_those_there_are() {
    let place = toys();
    for word in ["xz", "zstd:0", "zstd:23", "gzip:9"] {
        let outcome = place.imgbuild("kernel 5.10.1 --compression").arg(word).run().fails(2);
        outcome.says(format!("unknown compression `{word}`: gzip, zstd and zstd:1 to zstd:22 are known"));
    }
    assert_eq!(place.artifacts("kernel"), [""; 0]);
}

#[test]
fn skopeo_takes_the_frames_for_one_stream() {
    let place = toys();
    place.imgbuild("kernel 5.10.1 --arch arm64 --compression zstd:1").run().succeeds();
    for name in IMAGES {
        let there = place.path(name.split(':').next().unwrap());
        let (from, to) =
            (format!("oci:{}:{name}", place.path("out").display()), format!("dir:{}", there.display()));
        let words = "--insecure-policy --override-os linux --override-arch arm64 copy --dest-decompress";
        let args: Vec<_> = words.split(' ').chain([from.as_str(), to.as_str()]).map(OsStr::new).collect();
        tool("skopeo", &args);
        let image = Layout::at(place.path("out")).image(name, "arm64");
        let diff_id = image.config["rootfs"]["diff_ids"][0].as_str().unwrap();
        let digits = diff_id.strip_prefix("sha256:").unwrap();
        assert_eq!(sha256(&fs_err::read(there.join(digits)).unwrap()), digits);
    }
}
