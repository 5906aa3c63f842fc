//! Recorded digests: a build says whether it came to them.

use std::path::Path;

use crate::support::Place;
use crate::support::layout::Layout;
use crate::support::real;
use crate::support::source::{FRAGMENT, Source};

const RECORDED: &str = "recipes/digests.toml";

fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

/// A place whose catalogue has the digests of the toy kernel for both architectures.
fn recorded() -> Place {
    let place = toys();
    let outcome = place.imgbuild("digests 5.10.1 --arch all --write").run().succeeds();
    outcome.prints("not recorded yet").prints(format!("written to `{RECORDED}`"));
    place
}

#[test]
fn without_records_a_build_says_so_and_is_fine() {
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10.1 --locked").run().succeeds();
    assert_eq!(outcome.stdout.matches("no digest recorded to compare with").count(), 2, "{}", outcome.stdout);
    outcome.does_not_say("warning: ");
}

#[test]
fn what_was_recorded_is_found_again_from_cold() {
    let mut place = recorded();
    assert!(!place.path("out").exists(), "recording writes no image");
    place.set("IMGBUILD_STORE", place.path("another-store"));
    let outcome = place.imgbuild("kernel 5.10.1 --arch all --locked").run().succeeds();
    assert_eq!(outcome.stdout.matches("as recorded").count(), 4, "{}", outcome.stdout);
    let text = fs_err::read_to_string(place.path(RECORDED)).unwrap();
    let layout = Layout::at(place.path("out"));
    for name in layout.images().keys() {
        for member in layout.image_index(name)["manifests"].as_array().unwrap() {
            assert!(text.contains(member["digest"].as_str().unwrap()), "{text}");
        }
    }
    assert_eq!(text.matches("[[image]]").count(), 4, "{text}");
    // The key is the one that a plan tells.
    let json = place.imgbuild("plan 5.10.1 --arch all --format json").run().succeeds().json();
    assert!(text.contains(json["steps"][1]["key"].as_str().unwrap()), "{text}");
    place
        .imgbuild("digests 5.10.1 --arch all")
        .run()
        .succeeds()
        .prints("as recorded")
        .does_not_print("written");
}

#[test]
fn a_digest_that_moved_is_told_with_what_changed() {
    let place = recorded();
    place.write("kconfigs/toy.config", FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    let outcome = place.imgbuild("kernel 5.10.1").run().succeeds();
    outcome.prints("NOT as recorded").says("its key has changed in: requested");
    let json = place.imgbuild("kernel 5.10.1 --format json").run().succeeds().json();
    let verdict = &json["images"][0]["platforms"][0]["recorded"];
    assert_eq!(verdict["verdict"], "differs");
    assert_eq!(verdict["changed"], serde_json::json!(["requested"]));
}

#[test]
fn locked_writes_nothing_that_is_not_as_recorded() {
    let place = recorded();
    place.write("kconfigs/toy.config", FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    let outcome = place.imgbuild("kernel 5.10.1 --locked").run().fails(9);
    outcome
        .says("images are not what is recorded")
        .says("kernel-bin:5.10.1")
        .says("requested")
        .says("--explain");
    assert!(!place.path("out").exists());
}

#[test]
fn another_result_of_the_same_key_is_told_as_such() {
    let place = recorded();
    let text = fs_err::read_to_string(place.path(RECORDED)).unwrap();
    let moved: String = text
        .lines()
        .map(|line| match line.strip_prefix("digest = ") {
            Some(_) => format!("digest = \"sha256:{}\"\n", "0".repeat(64)),
            None => format!("{line}\n"),
        })
        .collect();
    place.write(RECORDED, moved);
    let outcome = place.imgbuild("kernel 5.10.1 --locked").run().fails(9);
    outcome.says("although nothing that decides about it has changed");
}

#[test]
fn a_recipe_of_one_s_own_with_its_own_images_has_nothing_to_compare_with() {
    let place = recorded();
    place.write(
        "my.toml",
        "kind = \"kernel\"\nname = \"mine\"\nextends = \"toy\"\nfragments = [\"./my.config\"]\n",
    );
    place.write("my.config", "CONFIG_EXTRA=y\n");
    let outcome = place.imgbuild("kernel 5.10.1 --recipe my.toml --locked").run().succeeds();
    outcome.prints("no digest recorded to compare with").does_not_print("NOT");
}

#[test]
fn records_that_cannot_be_read_are_underlined_before_any_work() {
    let place = recorded();
    place.write(RECORDED, "[[image]]\nname = 3\n");
    let outcome = place.imgbuild("kernel 5.10.1").run().fails(3);
    outcome.says("recipes/digests.toml:2").does_not_say("compile");
}

#[test]
fn the_records_built_into_the_program_cannot_be_written() {
    let place = Place::new();
    let outcome = place.imgbuild("digests 5.10.262 --flavour tiny --write").run().fails(2);
    outcome.says("built into this imgbuild").says("--catalogue").does_not_say("fetch");
}

#[test]
fn the_readme_shows_recorded_digests() {
    let read = |path| fs_err::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (readme, recorded) = (read("README.md"), read(RECORDED));
    let shown = readme.lines().filter(|line| line.ends_with("as recorded"));
    let digests: Vec<&str> = shown.filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert!(!digests.is_empty());
    for digest in digests {
        assert!(recorded.contains(&format!("digest = \"{digest}\"")), "README.md shows {digest}");
    }
}

/// Nobody moves a digest by accident: whoever means to runs the command below and says so in CHANGELOG.md.
#[test]
fn tiny_has_the_recorded_digests() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = place.imgbuild("kernel 5.10.262 --flavour tiny --arch x86_64,arm64 --format json");
    let json = run.option("--catalogue", checkout).run().succeeds().json();
    for image in json["images"].as_array().unwrap() {
        for platform in image["platforms"].as_array().unwrap() {
            let command =
                "`imgbuild digests 5.10.262 --flavour tiny --arch all --write`, and a line in CHANGELOG.md";
            assert_eq!(
                platform["recorded"]["verdict"], "same",
                "{} {}: if this is meant, {command}",
                image["name"], platform["architecture"]
            );
        }
    }
}
