//! Pulling and copying: what arrives has its digest, or nothing gets its name.

use std::time::{Duration, Instant};

use crate::support::images::{self, LAYER};
use crate::support::layout::Layout;
use crate::support::registry::{Door, Fault, Registry};
use crate::support::{Outcome, Place, names, noise};

const NAME: &str = "kernel-bin:5.10.1";

/// A place with an image in `out`, and an open registry that has it.
fn pushed() -> (Place, Registry) {
    let (place, registry) = (Place::new(), Registry::new(Door::Open));
    images::layout(&place, "out", &[(NAME, 1)]);
    place.imgbuild("push out --registry").arg(format!("{}/org", registry.host())).run().succeeds();
    (place, registry)
}

fn pull(place: &Place, registry: &Registry) -> Outcome {
    place.imgbuild("pull").arg(format!("{}/org/{NAME}", registry.host())).arg("in").run()
}

/// Both layouts hold the same image.
#[track_caller]
fn is_pulled(place: &Place) {
    let (out, into) = (Layout::at(place.path("out")), Layout::at(place.path("in")));
    assert_eq!(into.images(), out.images());
    assert_eq!(into.blobs(), out.blobs());
    into.blobs().iter().for_each(|digits| drop(into.blob(&format!("sha256:{digits}"))));
    assert_eq!(names(&place.path("in")), ["blobs", "index.json", "oci-layout"]);
}

/// Nothing has a name in the layout.
#[track_caller]
fn is_not_pulled(place: &Place) {
    let into = Layout::at(place.path("in"));
    assert!(into.images().is_empty());
    into.blobs().iter().for_each(|digits| drop(into.blob(&format!("sha256:{digits}"))));
}

/// Pulls through a fault of the registry, and ends well.
#[track_caller]
fn pulled_through(method: &str, part: &str, fault: Fault) -> (Registry, Outcome) {
    let (place, registry) = pushed();
    registry.fault(method, part, fault);
    let outcome = pull(&place, &registry).succeeds();
    is_pulled(&place);
    (registry, outcome)
}

/// Pulls through a fault of the registry, and fails with this exit code.
#[track_caller]
fn fails_through(part: &str, fault: Fault, code: i32) -> Outcome {
    let (place, registry) = pushed();
    registry.faults("GET", part, 100, fault);
    let outcome = pull(&place, &registry).fails(code);
    is_not_pulled(&place);
    outcome
}

fn digest_of_layer(registry: &Registry) -> String {
    let of =
        |wanted: &str| serde_json::from_slice(&registry.manifest("org/kernel-bin", wanted).unwrap()).unwrap();
    let index: serde_json::Value = of("5.10.1");
    let manifest: serde_json::Value = of(index["manifests"][0]["digest"].as_str().unwrap());
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_pushed_is_pulled_byte_for_byte() {
    let (place, registry) = pushed();
    let outcome = pull(&place, &registry).succeeds();
    is_pulled(&place);
    assert_eq!(outcome.stdout, format!("{NAME}\n  {}\n", Layout::at(place.path("in")).images()[NAME]));
    for part in ["amd64 layer", "arm64 layer", "amd64 config", "arm64 config"] {
        assert!(outcome.stderr.contains(&format!("pull  {NAME} {part} sha256:")), "{}", outcome.stderr);
    }
    // Once more: blobs are looked at, not fetched.
    let before = registry.count("GET", "/blobs/");
    let outcome = pull(&place, &registry).succeeds();
    assert_eq!(outcome.stderr.matches("there already").count(), 4);
    assert_eq!(registry.count("GET", "/blobs/"), before);
    is_pulled(&place);
}

#[test]
fn an_image_is_pulled_by_digest_and_for_one_architecture() {
    let (place, registry) = pushed();
    let digest = Layout::at(place.path("out")).images()[NAME].clone();
    let reference = format!("{}/org/kernel-bin@{digest}", registry.host());
    place.imgbuild("pull").arg(&reference).arg("digest").run().succeeds();
    assert_eq!(Layout::at(place.path("digest")).images()[&format!("kernel-bin@{digest}")], digest);

    let outcome =
        place.imgbuild("pull").arg(&reference).arg("one").option("--arch", "aarch64").run().succeeds();
    let one = Layout::at(place.path("one"));
    assert_eq!(one.blobs().len(), 3, "{outcome:?}");
    let manifest = one.images().into_values().next().unwrap();
    let index = Layout::at(place.path("out")).image_index(NAME);
    assert_eq!(index["manifests"][1]["digest"], manifest);
}

#[test]
fn a_foreign_architecture_is_refused_with_those_there_are() {
    let (place, registry) = (Place::new(), Registry::new(Door::Open));
    images::layout_of_one(&place, "out", "amd64");
    let host = registry.host();
    place.imgbuild("push out --registry").arg(&host).run().succeeds();
    let pull = |words: &str| place.imgbuild(words).option("--arch", "arm64").run();
    pull(&format!("pull {host}/{NAME} in"))
        .fails(4)
        .says(format!("`{host}/{NAME}` has no image for arm64; it has `amd64`"))
        .says("hint: `--arch amd64`");
    is_not_pulled(&place);
    // A manifest without an index around it says in its configuration what it is for.
    let manifest = Layout::at(place.path("out")).image_index(NAME)["manifests"][0]["digest"].clone();
    let digest = manifest.as_str().unwrap();
    pull(&format!("pull {host}/kernel-bin@{digest} in")).fails(4).says("it has `amd64`");
    place.imgbuild(&format!("pull {host}/kernel-bin@{digest} in --arch amd64")).run().succeeds();
}

#[test]
fn what_is_not_there_is_named() {
    let (place, registry) = pushed();
    let host = registry.host();
    for (reference, shown) in [
        (format!("{host}/org/kernel-bin:6"), format!("`{host}/org/kernel-bin:6` is not there")),
        (format!("{host}/org/none:5.10.1"), format!("`{host}/org/none:5.10.1` is not there")),
    ] {
        place.imgbuild("pull").arg(reference).arg("in").run().fails(4).says(shown).says("hint: ");
        is_not_pulled(&place);
    }
    for reference in ["kernel-bin:5.10.1", "org/kernel-bin:5.10.1", "h.example/org/kernel-bin"] {
        place.imgbuild("pull").arg(reference).arg("new").run().fails(2);
        assert!(!place.path("new").exists());
    }
}

#[test]
fn somebody_elses_directory_is_refused_before_anything_is_asked() {
    let (place, registry) = pushed();
    place.write("in/thesis.txt", "three years");
    let before = registry.requests().len();
    pull(&place, &registry).fails(2).says("is no OCI layout");
    assert_eq!(registry.requests().len(), before);
}

#[test]
fn a_registry_that_stumbles_is_asked_again() {
    for (part, fault) in [
        ("/manifests/5", Fault::Status(503, "")),
        ("/manifests/sha256", Fault::Status(429, "Retry-After: 0\r\n")),
        ("/blobs/", Fault::Status(500, "")),
        ("/manifests/5", Fault::Cut(10)),
        ("/blobs/", Fault::Cut(0)),
    ] {
        pulled_through("GET", part, fault).1.says("trying again");
    }
}

#[test]
fn a_blob_that_breaks_goes_on_where_it_stopped() {
    let (place, registry) = pushed();
    let digest = digest_of_layer(&registry);
    registry.fault("GET", &digest, Fault::Cut(200_000));
    pull(&place, &registry).succeeds().says("trying again");
    is_pulled(&place);
    let statuses: Vec<_> = registry
        .requests()
        .iter()
        .filter(|r| r.method == "GET" && r.path.contains(&digest))
        .map(|r| r.status)
        .collect();
    assert_eq!(statuses, [200, 206]);
}

#[test]
fn after_a_failed_pull_only_what_is_missing_is_fetched() {
    let (place, registry) = pushed();
    let digest = digest_of_layer(&registry);
    registry.faults("GET", &digest, 5, Fault::Status(503, ""));
    pull(&place, &registry)
        .fails(7)
        .says("503")
        .says("(5 attempts)")
        .says("hint: run the same command again");
    is_not_pulled(&place);
    let before = registry.requests().len();
    pull(&place, &registry).succeeds();
    is_pulled(&place);
    let later = registry.requests().split_off(before);
    let blobs: Vec<_> = later.iter().filter(|request| request.path.contains("/blobs/")).collect();
    assert!(matches!(&blobs[..], [one] if one.path.ends_with(&digest)), "{blobs:?}");
}

#[test]
fn a_blob_with_other_bytes_is_refused_and_nothing_is_named() {
    let outcome = fails_through("/blobs/", Fault::Instead(noise(9, LAYER)), 5);
    outcome.says("does not have its digest").does_not_say("trying again");
}

#[test]
fn a_blob_of_another_length_is_refused() {
    for fault in [Fault::Instead(noise(9, LAYER + 1)), Fault::Instead(noise(9, LAYER - 1))] {
        fails_through("/blobs/", fault, 5).says("does not have its digest");
    }
    // A head that promises more than there is.
    fails_through("/blobs/", Fault::Length(LAYER + 1), 5).says("but is 600001 bytes");
}

#[test]
fn a_manifest_with_other_bytes_is_refused() {
    let bytes = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
    // By tag the registry's own word is all there is; by digest it is not asked.
    fails_through("/manifests/5", Fault::Instead(bytes.clone()), 5).says("does not have its digest");
    fails_through("/manifests/sha256", Fault::Instead(bytes), 5).says("does not have its digest");
}

#[test]
fn a_manifest_without_end_is_not_read() {
    let begun = Instant::now();
    fails_through("/manifests/5", Fault::Large(100_000_000), 5)
        .says("is longer than 4.2 MB, which no manifest is");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_manifest_shorter_than_it_says_is_no_manifest() {
    fails_through("/manifests/5", Fault::Length(100_000), 7).says("(5 attempts)");
}

#[test]
fn what_is_no_manifest_is_refused() {
    for (bytes, reason) in [
        (&b"<html>"[..], "is no image"),
        (br#"{"manifests":[],"config":{"digest":"sha256:","size":1}}"#, "is no image: "),
    ] {
        let (place, registry) = pushed();
        registry.fault("GET", "/manifests/5", Fault::Race("org/kernel-bin".into(), bytes.to_vec()));
        pull(&place, &registry).fails(5).says(reason).says(crate::support::sha256(bytes));
        is_not_pulled(&place);
    }
}

#[test]
fn a_redirect_is_followed_without_credentials() {
    let (place, registry) = pushed();
    let other = Registry::new(Door::Open);
    images::layout(&place, "out", &[(NAME, 1)]);
    place.imgbuild("push out --registry").arg(format!("{}/org", other.host())).run().succeeds();
    let digest = digest_of_layer(&registry);
    let to = format!("http://{}/v2/org/kernel-bin/blobs/{digest}?signature=x", other.host());
    registry.faults("GET", &digest, 9, Fault::Redirect(to));
    pull(&place, &registry).succeeds();
    is_pulled(&place);
    let seen = other.requests();
    assert_eq!(seen.last().unwrap().authorization, None);
    assert!(seen.last().unwrap().path.ends_with("signature=x"));
}

#[test]
fn a_redirect_into_private_space_is_refused() {
    let to = "https://192.168.1.1/blob?signature=hidden".to_owned();
    let outcome = fails_through("/blobs/", Fault::Redirect(to), 7);
    outcome
        .says("sends us to `https://192.168.1.1/blob`, an address that is not public")
        .does_not_say("hidden");
}

#[test]
fn within_a_registry_an_image_is_copied_without_its_blobs() {
    let (place, registry) = pushed();
    let host = registry.host();
    let before = registry.requests().len();
    let copy = format!("copy {host}/org/{NAME} {host}/release/kernel:stable --format json");
    let json = place.imgbuild(&copy).run().succeeds().json();
    assert_eq!((&json["mounted"], &json["sent"]), (&4.into(), &0.into()));
    assert!(registry.manifest("release/kernel", "stable") == registry.manifest("org/kernel-bin", "5.10.1"));
    let later = &registry.requests()[before..];
    assert!(later.iter().all(|request| request.body < 2000), "{later:?}");
}

#[test]
fn between_registries_an_image_is_copied_whole() {
    let (place, registry) = pushed();
    let other = Registry::new(Door::Open);
    let copy = format!("copy {}/org/{NAME} {}/kernel:stable", registry.host(), other.host());
    let outcome = place.imgbuild(&copy).run().succeeds();
    assert_eq!(outcome.stdout.split('@').next(), Some(&*format!("{}/kernel:stable", other.host())));
    assert!(other.manifest("kernel", "stable") == registry.manifest("org/kernel-bin", "5.10.1"));
    assert_eq!(other.blobs("kernel").len(), 4);
    let copy = format!("copy {}/org/none:1 {}/kernel:none", registry.host(), other.host());
    place.imgbuild(&copy).run().fails(4).says("org/none:1` is not there");
    assert_eq!(other.manifest("kernel", "none"), None);
}

#[test]
fn skopeo_reads_what_is_pushed() {
    let (place, registry) = pushed();
    let dir = place.path("skopeo");
    let from = format!("docker://{}/org/{NAME}", registry.host());
    let to = format!("dir:{}", dir.display());
    let words = ["copy", "--all", "--quiet", "--src-tls-verify=false", &from, &to];
    crate::support::tool("skopeo", &words.map(std::ffi::OsStr::new));
    let out = Layout::at(place.path("out"));
    assert!(fs_err::read(dir.join("manifest.json")).unwrap() == out.blob(&out.images()[NAME]));
    // Blobs have their digits for names there, manifests more than that.
    let (found, index) = (names(&dir), &out.images()[NAME]);
    for digits in out.blobs().iter().filter(|digits| !index.ends_with(*digits)) {
        assert!(found.iter().any(|name| name.starts_with(digits)), "{digits}: {found:?}");
    }
}
