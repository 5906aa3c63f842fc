//! One image made of parts that are pushed one after another, from several machines at once.

use std::time::Duration;

use crate::support::images;
use crate::support::layout::Layout;
use crate::support::registry::{Door, Fault, Registry};
use crate::support::source::Source;
use crate::support::{Imgbuild, Outcome, Place};
use serde_json::Value;

const NAME: &str = "kernel-bin:5.10.1";
const TAG: &str = "/manifests/5.10.1";

/// A place with `whole` for two platforms, and each alone in `amd64`, `arm64`; and the image for a third in `s390x`.
fn place() -> Place {
    let place = Place::new();
    images::layout(&place, "whole", &[(NAME, 1)]);
    for architecture in ["amd64", "arm64", "s390x"] {
        images::layout_of_one(&place, architecture, architecture);
    }
    place
}

fn push(place: &Place, registry: &Registry, words: &str) -> Outcome {
    place.imgbuild(&format!("push {words} --registry {}/org", registry.host())).run()
}

/// The architectures under the tag.
fn architectures(registry: &Registry) -> Vec<String> {
    let bytes = registry.manifest("org/kernel-bin", "5.10.1").unwrap();
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    let members = index["manifests"].as_array().unwrap();
    members.iter().map(|member| member["platform"]["architecture"].as_str().unwrap().to_owned()).collect()
}

/// Pushes by digest alone; returns the digest and the bytes it stands for.
fn by_digest(place: &Place, registry: &Registry, dir: &str) -> (String, Vec<u8>) {
    let outcome = push(place, registry, &format!("{dir} --by-digest")).succeeds();
    let digest = outcome.stdout.trim().split_once('@').unwrap().1.to_owned();
    assert_eq!(outcome.stdout, format!("{}/org/kernel-bin@{digest}\n", registry.host()));
    let bytes = registry.manifest("org/kernel-bin", &digest).unwrap();
    (digest, bytes)
}

/// Somebody else moves the tag before its so many-eth reading from now on.
fn race(registry: &Registry, reading: usize, theirs: &[u8]) {
    registry.faults("GET", TAG, reading - 1, Fault::Slow(Duration::ZERO));
    registry.fault("GET", TAG, Fault::Race("org/kernel-bin".into(), theirs.to_vec()));
}

#[test]
fn parts_appended_come_to_what_the_whole_is() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    push(&place, &registry, "arm64 --append").succeeds();
    assert_eq!(architectures(&registry), ["arm64"]);
    let outcome = push(&place, &registry, "amd64 --append").succeeds();
    assert_eq!(architectures(&registry), ["amd64", "arm64"]);
    let digest = Layout::at(place.path("whole")).images()[NAME].clone();
    assert_eq!(outcome.stdout, format!("{}/org/{NAME}@{digest}\n", registry.host()));
    // Once more changes nothing.
    let before = registry.count("PUT", TAG);
    push(&place, &registry, "amd64 --append").succeeds();
    assert_eq!(registry.count("PUT", TAG), before);
    // Without it, the tag is what the layout holds.
    push(&place, &registry, "amd64").succeeds();
    assert_eq!(architectures(&registry), ["amd64"]);
}

#[test]
fn a_platform_that_is_there_is_replaced() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    push(&place, &registry, "whole").succeeds();
    images::layout(&place, "newer", &[(NAME, 7)]);
    push(&place, &registry, "newer --append").succeeds();
    let newer = Layout::at(place.path("newer"));
    assert!(registry.manifest("org/kernel-bin", "5.10.1").unwrap() == newer.blob(&newer.images()[NAME]));
}

#[test]
fn a_manifest_without_an_index_is_joined_too() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    push(&place, &registry, "amd64").succeeds();
    // As other tools push an image for one platform.
    let member = Layout::at(place.path("amd64")).image_index(NAME)["manifests"][0].clone();
    let digest = member["digest"].as_str().unwrap();
    let copy = format!("copy {0}/org/kernel-bin@{digest} {0}/org/{NAME}", registry.host());
    place.imgbuild(&copy).run().succeeds();
    push(&place, &registry, "arm64 --append").succeeds();
    assert_eq!(architectures(&registry), ["amd64", "arm64"]);
}

#[test]
fn whoever_moves_the_tag_meanwhile_is_not_lost() {
    // Before ours is put, and right after.
    for reading in [2, 3] {
        let (place, registry) = (place(), Registry::new(Door::Open));
        let (_, theirs) = by_digest(&place, &registry, "s390x");
        push(&place, &registry, "amd64").succeeds();
        race(&registry, reading, &theirs);
        push(&place, &registry, "arm64 --append")
            .succeeds()
            .says("somebody else moved the tag; joining again");
        // Theirs came without amd64.
        assert_eq!(architectures(&registry), ["arm64", "s390x"]);
    }
}

#[test]
fn a_tag_that_never_rests_is_given_up() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let (_, theirs) = by_digest(&place, &registry, "s390x");
    for _ in 0..8 {
        race(&registry, 3, &theirs);
    }
    let outcome = push(&place, &registry, "arm64 --append").fails(7);
    outcome.says("was changed by somebody else each time it was extended (8 attempts)").says("hint: ");
}

#[test]
fn several_machines_at_once_lose_none_of_theirs() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let parts = ["amd64", "arm64", "s390x"];
    let command = |dir| place.imgbuild(&format!("push {dir} --append --registry {}/org", registry.host()));
    let runs: Vec<_> = parts.into_iter().map(|dir| command(dir).start()).collect();
    for run in runs {
        run.wait().succeeds();
    }
    assert_eq!(architectures(&registry), parts);
}

#[test]
fn what_was_pushed_by_digest_is_joined_to_what_the_whole_is() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let (amd64, _) = by_digest(&place, &registry, "amd64");
    let (arm64, _) = by_digest(&place, &registry, "arm64");
    assert_eq!(registry.manifest("org/kernel-bin", "5.10.1"), None);
    let reference = format!("{}/org/{NAME}", registry.host());
    let whole = Layout::at(place.path("whole")).images()[NAME].clone();
    for order in [[&amd64, &arm64], [&arm64, &amd64]] {
        let outcome = place.imgbuild("index").arg(&reference).arg(order[0]).arg(order[1]).run().succeeds();
        assert_eq!(outcome.stdout, format!("{reference}@{whole}\n"));
        assert_eq!(architectures(&registry), ["amd64", "arm64"]);
    }
}

#[test]
fn what_cannot_be_joined_is_told() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let (amd64, _) = by_digest(&place, &registry, "amd64");
    images::layout(&place, "newer", &[(NAME, 7)]);
    let (other, _) = by_digest(&place, &registry, "newer");
    let reference = format!("{}/org/{NAME}", registry.host());
    let join =
        |digests: &[&str]| digests.iter().fold(place.imgbuild("index").arg(&reference), Imgbuild::arg).run();
    join(&[&amd64, &other]).fails(5).says("are both for amd64");
    let missing = format!("sha256:{}", "1".repeat(64));
    join(&[&amd64, &missing]).fails(4).says(format!("{missing}` is not there"));
    join(&["latest"]).fails(2).says("a digest is `sha256:`");
    join(&[]).fails(2);
    assert_eq!(registry.manifest("org/kernel-bin", "5.10.1"), None);
}

#[test]
fn kernels_built_apart_join_to_the_digest_of_both_built_at_once() {
    let (mut place, registry) = (Place::new(), Registry::new(Door::Open));
    Source::new().install(&mut place);
    let host = registry.host();
    place.imgbuild("kernel 5.10.1 --arch all --output both").run().succeeds();
    let whole = Layout::at(place.path("both")).images()[NAME].clone();
    let mut digests = Vec::new();
    for arch in ["arm64", "x86_64"] {
        let build = format!("kernel 5.10.1 --arch {arch} --output {arch} --push --registry {host}");
        place.imgbuild(&format!("{build}/appended --append")).run().succeeds();
        let json =
            place.imgbuild(&format!("{build}/joined --by-digest --format json")).run().succeeds().json();
        digests.push(json["pushed"][0]["digest"].as_str().unwrap().to_owned());
    }
    assert!(registry.references("appended/kernel-bin").contains(&whole));
    let index = format!("index {host}/joined/{NAME} {} {}", digests[0], digests[1]);
    let outcome = place.imgbuild(&index).run().succeeds();
    assert_eq!(outcome.stdout, format!("{host}/joined/{NAME}@{whole}\n"));
}
