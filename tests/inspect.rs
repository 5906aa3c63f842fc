//! `imgbuild inspect`: what a layout holds, as text and as JSON.

use crate::support::Place;
use crate::support::forge::{self, Forged, Item};
use crate::support::layout::Layout;
use crate::support::source::Source;
use tar::EntryType;

/// A layout of four images in `out`.
fn forged() -> Place {
    let place = Place::new();
    let images = ["amd64", "arm64"].map(|arch| [Forged::kernel(arch), Forged::modules(arch)]);
    forge::write(&place.path("out"), &images.concat());
    place
}

#[test]
fn images_platforms_layers_and_labels_are_told() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let outcome = place.imgbuild("inspect out").run().succeeds();
    assert_eq!(outcome.stderr, "");
    let json = place.imgbuild("inspect out --format json").run().succeeds().json();
    for (number, (name, digest)) in layout.images().into_iter().enumerate() {
        assert!(outcome.stdout.contains(&format!("{name}\n  index   {digest}\n")), "{}", outcome.stdout);
        let told = &json["images"][number];
        assert_eq!((&told["name"], &told["index"]), (&name.as_str().into(), &digest.as_str().into()));
        for (number, platform) in ["amd64", "arm64"].into_iter().enumerate() {
            let image = layout.image(&name, platform);
            let told = &told["platforms"][number];
            let (layer, told_layer) = (&image.manifest["layers"][0], &told["layers"][0]);
            assert_eq!(told["platform"], platform);
            assert_eq!(told["config"], image.manifest["config"]["digest"]);
            assert_eq!(told["labels"], image.config["config"]["Labels"]);
            assert_eq!(told["created"], image.config["created"]);
            assert_eq!((&told_layer["digest"], &told_layer["size"]), (&layer["digest"], &layer["size"]));
            assert_eq!(told_layer["diff_id"], image.config["rootfs"]["diff_ids"][0]);
            assert_eq!(told_layer["framing"], "gzip");
            assert!(told_layer.get("files").is_none());
            for digest in [&told["manifest"], &told_layer["digest"], &told_layer["diff_id"]] {
                assert!(outcome.stdout.contains(digest.as_str().unwrap()), "{}", outcome.stdout);
            }
        }
    }
    outcome.prints("\n    io.imgbuild.flavour=toy\n").prints("    created 2020-09-13T12:39:37Z\n");
}

#[test]
fn the_files_of_a_layer_are_listed_as_its_tar_has_them() {
    let place = forged();
    let outcome =
        place.imgbuild("inspect out --image kernel-bin:5.10.1 --arch amd64 --files").run().succeeds();
    let expected = "      drwxr-xr-x 0:0          0 2020-09-13T12:26:40Z boot
      -rw-r--r-- 0:0         11 2020-09-13T12:26:40Z boot/config-5.10.1
      -rw-r--r-- 0:0         64 2020-09-13T12:26:40Z boot/vmlinux\n";
    outcome.prints(expected).does_not_print("arm64").does_not_print("modules");
    let json = place.imgbuild("inspect out --files --format json").run().succeeds().json();
    let files = json["images"][1]["platforms"][1]["layers"][0]["files"].as_array().unwrap().clone();
    assert_eq!(files.len(), Forged::modules("arm64").items.len());
    let link = files.iter().find(|file| file["path"] == "kernel").unwrap();
    assert_eq!((&link["kind"], &link["link"]), (&"symlink".into(), &"lib/modules/5.10.1/kernel".into()));
}

#[test]
fn names_that_would_move_the_cursor_are_shown_escaped() {
    let place = Place::new();
    let mut image = Forged::kernel("amd64");
    image.items.push(Item::file("boot/\x1b[2Jx\n", ""));
    image.items.push(Item::link("boot/null", EntryType::Char, ""));
    forge::write(&place.path("out"), &[image]);
    let outcome = place.imgbuild("inspect out --files").run().succeeds();
    outcome.prints(r"boot/\u{1b}[2Jx\n").prints("crwxrwxrwx 0:0        0,0 ").does_not_print("\x1b");
}

#[test]
fn a_selection_that_fits_nothing_names_what_there_is() {
    let place = forged();
    let outcome = place.imgbuild("inspect out --image kernel-bin:9").run().fails(4);
    outcome.says("`out` has no image `kernel-bin:9`; it has `kernel-bin:5.10.1`, `kernel-modules:5.10.1`");
    forge::write(&place.path("single"), &[Forged::kernel("amd64")]);
    place.imgbuild("inspect single --arch arm64").run().fails(4).says("no image for arm64");
    place.imgbuild("inspect single --arch mips").run().fails(2).says("unknown architecture `mips`");
}

#[test]
fn what_is_no_layout_is_told() {
    let place = Place::new();
    place
        .imgbuild("inspect nowhere")
        .run()
        .fails(4)
        .says("`nowhere` is no OCI layout: it has no `oci-layout`");
    place.write("out/oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    place.write("out/index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
    place.imgbuild("inspect out").run().fails(5).says("its layout version is `2.0.0`, not 1.0.0");
    place.write("out/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    place.imgbuild("inspect out").run().succeeds().prints("`out` holds no image");
    place.write("out/index.json", "{");
    place.imgbuild("inspect out").run().fails(5).says("out/index.json` is not what OCI says it should be");
}

#[test]
fn a_missing_manifest_ends_it_and_names_the_image() {
    let place = forged();
    let json = place.imgbuild("inspect out --format json").run().succeeds().json();
    let digest = json["images"][0]["platforms"][1]["manifest"].as_str().unwrap().to_owned();
    fs_err::remove_file(place.path(format!("out/blobs/{}", digest.replace(':', "/")))).unwrap();
    let outcome = place.imgbuild("inspect out").run().fails(5);
    outcome
        .says(format!("kernel-bin:5.10.1 arm64: `out`: blob {digest} is missing"))
        .says("hint: `imgbuild validate` tells everything");
    // What was not asked for is not missed.
    place.imgbuild("inspect out --image kernel-modules:5.10.1").run().succeeds();
}
