//! Where the images go: a new directory, a layout that holds others, and places that are not ours.

use std::collections::BTreeSet;

use crate::support::layout::Layout;
use crate::support::source::{FRAGMENT, RECIPE, Source};
use crate::support::{Place, names};

fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

/// The digests an image consists of: index, manifests, configurations, layers.
fn parts(layout: &Layout, name: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::from([layout.images()[name].clone()]);
    for member in layout.image_index(name)["manifests"].as_array().unwrap() {
        let digest = member["digest"].as_str().unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&layout.blob(digest)).unwrap();
        for part in [&manifest["config"], &manifest["layers"][0]] {
            parts.insert(part["digest"].as_str().unwrap().to_owned());
        }
        parts.insert(digest.to_owned());
    }
    parts
}

fn blobs(layout: &Layout) -> BTreeSet<String> {
    layout.blobs().into_iter().map(|name| format!("sha256:{name}")).collect()
}

#[test]
fn a_directory_with_somebody_elses_files_is_refused_before_any_work() {
    let place = toys();
    let mine = place.write("mine/thesis.txt", "three years");
    let outcome = place.imgbuild("kernel 5.10.1 --output mine").run().fails(2);
    outcome
        .says("error: `mine` holds other files and is no OCI layout")
        .says("hint: name a new or empty directory with --output")
        .does_not_say("fetch")
        .does_not_say("compile");
    assert_eq!(names(&place.path("mine")), ["thesis.txt"]);
    assert_eq!(fs_err::read_to_string(mine).unwrap(), "three years");
    assert_eq!(names(&place.store().join("downloads")), [""; 0]);
    assert_eq!(place.artifacts("kernel"), [""; 0]);
}

#[test]
fn a_file_where_the_directory_should_be_is_refused_before_any_work() {
    let place = toys();
    let mine = place.write("mine", "three years");
    let outcome = place.imgbuild("kernel 5.10.1 --output mine").run();
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    outcome.says("mine").does_not_say("fetch");
    assert_eq!(fs_err::read_to_string(mine).unwrap(), "three years");
}

#[test]
fn an_empty_directory_and_one_deep_below_nothing_are_taken() {
    let place = toys();
    fs_err::create_dir(place.path("empty")).unwrap();
    place.imgbuild("kernel 5.10.1 --output empty").run().succeeds();
    place.imgbuild("kernel 5.10.1 --output some/where/deep").run().succeeds();
    assert_eq!(Layout::at(place.path("empty")).images(), Layout::at(place.path("some/where/deep")).images());
}

#[test]
fn the_end_names_images_digests_sizes_and_the_next_command() {
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10.1 --arch all --output images").run().succeeds();
    let layout = Layout::at(place.path("images"));
    let mut expected = String::new();
    for (name, digest) in layout.images() {
        expected += &format!("{name}\n  index   {digest}\n");
        for member in layout.image_index(&name)["manifests"].as_array().unwrap() {
            let architecture = member["platform"]["architecture"].as_str().unwrap();
            let size = layout.image(&name, architecture).manifest["layers"][0]["size"].as_u64().unwrap();
            let size = if size < 1000 {
                format!("{size} B")
            } else {
                format!("{}.{} kB", size / 1000, size % 1000 / 100)
            };
            expected += &format!("  {architecture:<7} {}  {size}\n", member["digest"].as_str().unwrap());
        }
    }
    let (images, rest) = outcome.stdout.split_once("\n\n").unwrap();
    // A size is rounded to the nearest tenth, which this does not do.
    let without_sizes = |text: &str| {
        text.lines().map(|line| line.split("  ").take(2).collect::<Vec<_>>().join("  ")).collect::<Vec<_>>()
    };
    assert_eq!(without_sizes(images), without_sizes(expected.trim_end()));
    assert_eq!(images.matches(" kB").count() + images.matches(" B").count(), 4, "{images}");
    assert!(rest.contains("`images`") && rest.contains("next: imgbuild boot images"), "{rest}");
}

#[test]
fn the_end_for_programs_is_json() {
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10.1 --arch all --format json").run().succeeds();
    let json = outcome.json();
    assert_eq!(json["layout"], "out");
    let layout = Layout::at(place.path("out"));
    let images = json["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for image in images {
        let name = image["name"].as_str().unwrap();
        assert_eq!(image["digest"], layout.images()[name]);
        for (platform, architecture) in image["platforms"].as_array().unwrap().iter().zip(["amd64", "arm64"])
        {
            assert_eq!(platform["architecture"], architecture);
            let manifest = layout.image(name, architecture).manifest;
            assert_eq!(platform["size"], manifest["layers"][0]["size"]);
            let members = layout.image_index(name)["manifests"].clone();
            assert!(members.as_array().unwrap().iter().any(|member| member["digest"] == platform["digest"]));
        }
    }
}

#[test]
fn other_images_of_a_layout_stay_and_a_replaced_ones_blobs_go() {
    let mut place = toys();
    Source::new().version("5.10.9").install(&mut place);
    place.imgbuild("kernel 5.10.1 5.10.9").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let other = ["kernel-bin:5.10.9", "kernel-modules:5.10.9"].map(|name| parts(&layout, name));
    let replaced = ["kernel-bin:5.10.1", "kernel-modules:5.10.1"].map(|name| parts(&layout, name));

    place.write("kconfigs/toy.config", FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    place.imgbuild("kernel 5.10.1").run().succeeds();
    assert_eq!(layout.images().len(), 4);
    assert_eq!(["kernel-bin:5.10.9", "kernel-modules:5.10.9"].map(|name| parts(&layout, name)), other);
    let now = ["kernel-bin:5.10.1", "kernel-modules:5.10.1"].map(|name| parts(&layout, name));
    assert!(now[0] != replaced[0], "another configuration is another image");
    let all: BTreeSet<_> = other.iter().chain(&now).flatten().cloned().collect();
    assert_eq!(blobs(&layout), all, "exactly what is named is there");
    assert_eq!(names(&place.path("out")), ["blobs", "index.json", "oci-layout"]);
}

#[test]
fn a_layout_of_another_tool_keeps_its_images() {
    let place = toys();
    place.imgbuild("kernel 5.10.1 --output theirs").run().succeeds();
    let layout = Layout::at(place.path("theirs"));
    // As umoci and others write it: a manifest by name, no index between, and an entry without a name.
    let member = layout.image_index("kernel-bin:5.10.1")["manifests"][0].clone();
    let mut index = layout.index();
    let mut named = member.clone();
    named["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "theirs"});
    index["manifests"] = serde_json::json!([named, member]);
    place.write("theirs/index.json", index.to_string());
    place.write("kconfigs/toy.config", FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    place.imgbuild("kernel 5.10.1 --output theirs").run().succeeds();
    let now = layout.index();
    let kept: Vec<_> = now["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["digest"] == member["digest"])
        .collect();
    assert_eq!(kept.len(), 2, "{now:#}");
    layout.blob(member["digest"].as_str().unwrap());
}

#[test]
fn a_single_architecture_replaces_the_index_of_both() {
    let place = toys();
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    place.imgbuild("kernel 5.10.1 --arch arm64").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let platforms = layout.image_index("kernel-bin:5.10.1")["manifests"].as_array().unwrap().len();
    assert_eq!(platforms, 1);
    let all: BTreeSet<_> = layout.images().keys().flat_map(|name| parts(&layout, name)).collect();
    assert_eq!(blobs(&layout), all);
}

#[test]
fn building_twice_into_one_layout_changes_nothing() {
    let place = toys();
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let before = (layout.index(), layout.blobs());
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    assert_eq!((layout.index(), layout.blobs()), before);
}

#[test]
fn a_damaged_blob_in_the_layout_is_written_anew() {
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let before = layout.index();
    for blob in layout.blobs() {
        let path = place.path("out/blobs/sha256").join(blob);
        let mut bytes = fs_err::read(&path).unwrap();
        bytes[0] ^= 1;
        fs_err::write(path, bytes).unwrap();
    }
    place.imgbuild("kernel 5.10.1").run().succeeds();
    assert_eq!(layout.index(), before);
    for blob in layout.blobs() {
        layout.blob(&format!("sha256:{blob}"));
    }
}

#[test]
fn flavours_lie_side_by_side_in_one_layout() {
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let child = RECIPE
        .replace("name = \"toy\"", "name = \"other\"\nextends = \"toy\"")
        .replace("default = true\n", "");
    place.write("recipes/kernel/other.toml", child.replace("[\"toy.config\"]", "[]"));
    place.imgbuild("kernel 5.10.1 --flavour other").run().succeeds();
    let images: Vec<_> = Layout::at(place.path("out")).images().into_keys().collect();
    assert_eq!(
        images,
        [
            "kernel-bin-other:5.10.1",
            "kernel-bin:5.10.1",
            "kernel-modules-other:5.10.1",
            "kernel-modules:5.10.1"
        ]
    );
}

#[test]
fn files_of_the_layout_are_as_public_as_the_umask_has_them() {
    use std::os::unix::fs::PermissionsExt;
    let place = toys();
    place.imgbuild("kernel 5.10.1").after("umask 022").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let blobs = layout.blobs().into_iter().map(|blob| format!("out/blobs/sha256/{blob}"));
    for file in blobs.chain(["out/index.json".to_owned(), "out/oci-layout".to_owned()]) {
        let mode = fs_err::metadata(place.path(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{file}");
    }
}

#[test]
fn the_layout_does_not_share_its_files_with_the_store() {
    // A user may edit, copy or delete the layout as they like.
    use std::os::unix::fs::MetadataExt;
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    for blob in Layout::at(place.path("out")).blobs() {
        assert_eq!(fs_err::metadata(place.path("out/blobs/sha256").join(blob)).unwrap().nlink(), 1);
    }
}
