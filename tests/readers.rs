//! What was pushed, read by crane and oras: the same bytes, the same files. scripts/readers brings them.

use std::ffi::OsStr;
use std::path::Path;

use crate::support::docker::{Docker, Door};
use crate::support::layout::Layout;
use crate::support::source::Source;
use crate::support::unpacked::{expected, found};
use crate::support::{Place, tool};
use serde_json::Value;

const NAME: &str = "kernel-bin:5.10.1";
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

fn reader(name: &str, words: &str, path: &Path) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/readers").join(name);
    assert!(program.is_file(), "there is no {}: run scripts/readers", program.display());
    let words = words.split_whitespace().map(OsStr::new);
    tool(program.to_str().unwrap(), &words.chain([path.as_os_str()]).collect::<Vec<_>>())
}

/// Pushes kernels for two platforms, and each platform's image alone under a tag of its architecture. Returns where.
fn push(place: &Place, docker: &Docker, compression: &str) -> String {
    let registry = format!("{}/{compression}", docker.host);
    let command =
        format!("kernel 5.10.1 --arch all --output {compression} --push --compression {compression}");
    place.imgbuild(&command).arg("--registry").arg(&registry).run().succeeds();
    for architecture in ARCHITECTURES {
        let alone = format!("{compression}-{architecture}");
        place.imgbuild(&format!("pull {registry}/{NAME} {alone} --arch {architecture}")).run().succeeds();
        let target = format!("{NAME}={registry}/kernel-bin:{architecture}");
        place.imgbuild(&format!("push {alone} {target}")).run().succeeds();
    }
    format!("{registry}/kernel-bin")
}

fn place() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

/// A descriptor's blob and all that it refers to are in `copy`, byte for byte.
#[track_caller]
fn is_copied(layout: &Layout, digest: &str, copy: &Layout) {
    let bytes = layout.blob(digest);
    assert!(copy.blob(digest) == bytes, "{digest}");
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    for member in document["manifests"].as_array().into_iter().flatten() {
        is_copied(layout, member["digest"].as_str().unwrap(), copy);
    }
    for blob in document["layers"].as_array().into_iter().flatten().chain(document.get("config")) {
        let digest = blob["digest"].as_str().unwrap();
        assert!(copy.blob(digest) == layout.blob(digest), "{digest}");
    }
}

/// The digest of one platform's image.
fn member(layout: &Layout, architecture: &str) -> String {
    let index = layout.image_index(NAME);
    let members = index["manifests"].as_array().unwrap();
    let member = members.iter().find(|member| member["platform"]["architecture"] == architecture).unwrap();
    member["digest"].as_str().unwrap().to_owned()
}

#[test]
fn crane_finds_images_valid_and_exports_the_files_that_were_packed() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    for compression in ["gzip", "zstd"] {
        let repository = push(&place, &docker, compression);
        let layout = Layout::at(place.path(compression));
        for architecture in ARCHITECTURES {
            // One out of the index, and one alone.
            for (tag, platform) in
                [("5.10.1", format!("--platform linux/{architecture}")), (architecture, String::new())]
            {
                let reference = format!("{repository}:{tag}");
                // It reads every layer, and checks size, digest and diff id; of compressions it knows gzip alone.
                if compression == "gzip" {
                    reader("crane", &format!("validate {platform} --remote"), reference.as_ref());
                }
                let root = place.path(format!("{compression}-{architecture}-{tag}"));
                let archive = root.with_extension("tar");
                reader("crane", &format!("export {platform} {reference}"), &archive);
                fs_err::create_dir(&root).unwrap();
                tool("tar", &["-C".as_ref(), root.as_os_str(), "-xpf".as_ref(), archive.as_os_str()]);
                assert_eq!(
                    found(&root),
                    expected(&layout.image(NAME, architecture)),
                    "{reference} {platform}"
                );
            }
        }
    }
}

#[test]
fn crane_and_oras_pull_every_byte() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    for compression in ["gzip", "zstd"] {
        let repository = push(&place, &docker, compression);
        let layout = Layout::at(place.path(compression));
        let tags = ARCHITECTURES.map(|architecture| (architecture, member(&layout, architecture)));
        for (tag, digest) in [("5.10.1", layout.images()[NAME].clone())].into_iter().chain(tags) {
            let reference = format!("{repository}:{tag}");
            let by = |reader: &str| place.path(format!("{reader}-{compression}-{tag}"));
            reader("crane", &format!("pull --format oci {reference}"), &by("crane"));
            reader(
                "oras",
                &format!("copy --no-tty --from-plain-http --to-oci-layout {reference}"),
                &by("oras"),
            );
            for copy in [by("crane"), by("oras")] {
                is_copied(&layout, &digest, &Layout::at(copy));
            }
            let manifest = place.path("manifest.json");
            reader("oras", &format!("manifest fetch --plain-http {reference} --output"), &manifest);
            assert!(fs_err::read(manifest).unwrap() == layout.blob(&digest), "{reference}");
        }
    }
}
