//! `imgbuild kernel --dry-run`: what would be done, and what is done already.

use crate::support::source::{FRAGMENT, Source};
use crate::support::{Place, names};
use serde_json::Value;

fn toys() -> (Place, String) {
    let mut place = Place::new();
    let sha256 = Source::new().install(&mut place);
    (place, sha256)
}

fn steps(place: &Place) -> Vec<Value> {
    let json = place.imgbuild("kernel 5.10.1 --arch all --dry-run --format json").run().succeeds().json();
    json["steps"].as_array().unwrap().clone()
}

fn cached(steps: &[Value]) -> Vec<bool> {
    steps.iter().map(|step| step["cached"].as_bool().unwrap()).collect()
}

#[test]
fn a_dry_run_tells_steps_inputs_and_hashes_and_does_nothing() {
    let (place, sha256) = toys();
    let outcome = place.imgbuild("kernel 5.10.1 --arch all --dry-run").run().succeeds();
    let lines: Vec<Vec<&str>> =
        outcome.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["fetch", "linux-5.10.1.tar.xz", "to", "do", &sha256[..16]]);
    assert_eq!(lines[1], ["from", "https://kernel.test/pub/v5.x/linux-5.10.1.tar.xz"]);
    assert_eq!(lines[2][..6], ["compile", "Linux", "5.10.1", "x86_64", "to", "do"]);
    assert_eq!(lines[3], ["from", "4", "symbols", "of", "toy", "on", "allnoconfig,", "with", "host"]);
    assert_eq!(lines[4][..6], ["compile", "Linux", "5.10.1", "arm64", "to", "do"]);
    assert_eq!(lines[5], ["from", "3", "symbols", "of", "toy", "on", "allnoconfig,", "with", "host"]);
    assert_eq!(lines[6], ["assemble", "kernel-bin:5.10.1", "each", "time"]);
    assert_eq!(lines[7], ["from", "the", "kernel", "of", "amd64", "and", "arm64"]);
    assert_eq!(lines[8], ["assemble", "kernel-modules:5.10.1", "each", "time"]);
    assert_eq!(lines.len(), 10);
    assert!(!place.path("out").exists());
    assert_eq!(names(&place.store().join("downloads")), [""; 0]);
    assert_eq!(place.artifacts("kernel"), [""; 0]);
}

#[test]
fn a_dry_run_shows_what_is_cached() {
    let (place, sha256) = toys();
    let before = steps(&place);
    let kinds: Vec<_> = before.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["fetch", "compile", "compile", "assemble", "assemble"]);
    assert_eq!(cached(&before), [false; 5]);
    assert_eq!(before[0]["key"], sha256);
    assert_eq!(before[3]["key"], Value::Null);

    place.imgbuild("fetch 5.10.1").run().succeeds();
    assert_eq!(cached(&steps(&place)), [true, false, false, false, false]);
    place.imgbuild("kernel 5.10.1 --arch arm64").run().succeeds();
    let after = steps(&place);
    assert_eq!(cached(&after), [true, false, true, false, false]);
    let keys = |steps: &[Value]| steps.iter().map(|step| step["key"].clone()).collect::<Vec<_>>();
    assert_eq!(keys(&before), keys(&after));
    let text = place.imgbuild("kernel 5.10.1 --arch arm64 --dry-run").run().succeeds();
    assert_eq!(text.stdout.matches(" cached ").count(), 2, "{}", text.stdout);
    // The key is the name of what the store keeps.
    assert_eq!(place.artifacts("kernel"), [after[2]["key"].as_str().unwrap()]);
}

#[test]
fn a_key_moves_with_what_a_fragment_asks_for_and_not_with_how_it_is_written() {
    let (place, _) = toys();
    let key = |place: &Place| steps(place)[1]["key"].clone();
    let first = key(&place);
    place.write(
        "kconfigs/toy.config",
        "# why\nCONFIG_PVH=y\nCONFIG_NUMBER=3   # a reason\n\nCONFIG_TOY=m\nCONFIG_MODULES=y\n",
    );
    assert_eq!(key(&place), first);
    place.write("kconfigs/toy.config", FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    assert_ne!(key(&place), first);
}

#[test]
fn a_key_does_not_move_with_jobs_paths_or_mirrors() {
    let (place, _) = toys();
    let first = steps(&place);
    let other = Place::new();
    let json = other
        .imgbuild("kernel 5.10.1 --arch all --dry-run --format json --toolchain host --jobs 7 --mirror test=/elsewhere")
        .option("--catalogue", place.work())
        .run()
        .succeeds()
        .json();
    assert_eq!(json["steps"].as_array().unwrap(), &first);
}

#[test]
fn a_dry_run_finds_the_mistakes_that_need_no_source() {
    let (place, _) = toys();
    place.write("kconfigs/toy.config", "CONFIG_A = y\n");
    place.imgbuild("kernel 5.10.1 --dry-run").run().fails(3).says("kconfigs/toy.config:1");
}
