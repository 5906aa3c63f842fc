//! The release as the workflow makes it: plan, cells, join, and all of it again for nothing.

use std::time::Duration;

use crate::support::registry::{Door, Fault, Registry};
use crate::support::signing;
use crate::support::source::{Fault as SourceFault, RECIPE, Source};
use crate::support::{Imgbuild, Outcome, Place};
use serde_json::Value;

const AMD64: &str = "kernel/toy/5.10.1/amd64";
const ARM64: &str = "kernel/toy/5.10.1/arm64";

/// A place with the toy flavour, released in these versions (a list of TOML's).
fn place(released: &str) -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    release_versions(&place, released);
    place
}

fn release_versions(place: &Place, released: &str) {
    let recipe = RECIPE.replace("series =", &format!("released = {released}\nseries ="));
    place.write("recipes/kernel/toy.toml", recipe);
}

/// One more version in the place.
fn add(place: &mut Place, source: &Source, released: &str) {
    source.install(place);
    release_versions(place, released);
}

/// The command with the registry's `org` as where the release goes.
fn imgbuild(place: &Place, registry: &Registry, words: &str) -> Imgbuild {
    place.imgbuild(&format!("{words} --registry {}/org", registry.host()))
}

fn release(place: &Place, registry: &Registry, words: &str) -> Outcome {
    imgbuild(place, registry, &format!("release --no-boot {words}")).run()
}

fn join(place: &Place, registry: &Registry, words: &str) -> Outcome {
    imgbuild(place, registry, &format!("release --join {words}")).run()
}

/// Builds and joins everything.
fn publish(place: &Place, registry: &Registry) {
    release(place, registry, "").succeeds();
    join(place, registry, "").succeeds();
}

/// The tags of a repository, sorted.
fn tags(registry: &Registry, repository: &str) -> Vec<String> {
    let names = registry.references(&format!("org/{repository}"));
    names.into_iter().filter(|name| !name.starts_with("sha256:")).collect()
}

/// The one tag that is the version with a key of twelve digits.
fn own_tag(registry: &Registry, repository: &str, version: &str) -> String {
    let rest = |tag: &String| tag.strip_prefix(&format!("{version}-")).map(str::to_owned);
    let mut own = tags(registry, repository);
    own.retain(|tag| rest(tag).is_some_and(|rest| rest.len() == 12));
    assert_eq!(own.len(), 1, "{own:?}");
    own.remove(0)
}

fn index(registry: &Registry, repository: &str, tag: &str) -> Vec<u8> {
    registry.manifest(&format!("org/{repository}"), tag).unwrap_or_else(|| panic!("no {repository}:{tag}"))
}

/// The architectures under a tag.
fn architectures(registry: &Registry, repository: &str, tag: &str) -> Vec<String> {
    let index: Value = serde_json::from_slice(&index(registry, repository, tag)).unwrap();
    let members = index["manifests"].as_array().unwrap();
    members.iter().map(|member| member["platform"]["architecture"].as_str().unwrap().to_owned()).collect()
}

/// How many requests there were that write.
fn writes(registry: &Registry) -> usize {
    registry.requests().iter().filter(|request| !matches!(&*request.method, "GET" | "HEAD")).count()
}

fn matrix(place: &Place, registry: &Registry) -> Value {
    let outcome = imgbuild(place, registry, "plan --all --format github").run().succeeds();
    let line = outcome.stdout.trim_end().strip_prefix("matrix=").unwrap().to_owned();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn cells_are_built_joined_and_then_found() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Open));
    let due = matrix(&place, &registry);
    let runners: Vec<_> =
        due["include"].as_array().unwrap().iter().map(|cell| cell["runner"].clone()).collect();
    assert_eq!(runners, ["ubuntu-24.04", "ubuntu-24.04-arm"]);
    // As the workflow does: each cell by itself.
    for cell in due["include"].as_array().unwrap() {
        let only = format!("--only {}", cell["cell"].as_str().unwrap());
        release(&place, &registry, &only).succeeds().prints("  published");
    }
    assert_eq!(tags(&registry, "kernel-bin").len(), 2);
    join(&place, &registry, "").succeeds().prints("5.10 moved").prints("5.10.1 moved");
    for repository in ["kernel-bin", "kernel-modules"] {
        assert_eq!(architectures(&registry, repository, "5.10.1"), ["amd64", "arm64"]);
        let own = own_tag(&registry, repository, "5.10.1");
        for tag in ["5.10", &own] {
            assert!(index(&registry, repository, tag) == index(&registry, repository, "5.10.1"), "{tag}");
        }
    }
    // The index is what one build of both architectures makes.
    place.imgbuild("kernel 5.10.1 --arch all --output whole").run().succeeds();
    let whole = crate::support::layout::Layout::at(place.path("whole"));
    let digest = whole.images()["kernel-bin:5.10.1"].clone();
    assert!(registry.references("org/kernel-bin").contains(&digest));

    let before = writes(&registry);
    assert_eq!(matrix(&place, &registry)["include"], Value::Array(Vec::new()));
    release(&place, &registry, "").succeeds().prints("published before").prints("nothing to do");
    join(&place, &registry, "").succeeds().prints("nothing to do: every tag is where it belongs");
    assert_eq!(writes(&registry), before);
}

#[test]
fn what_is_released_can_be_signed_verified_and_built_again() {
    let place = place("[\"5.10.1\"]");
    signing::keys(&place);
    // With referrers and without, where a tag stands in for them.
    for registry in [Registry::with_referrers(Door::Open), Registry::new(Door::Open)] {
        release(&place, &registry, "--attest").succeeds();
        join(&place, &registry, "--attest").succeeds();
        for name in ["kernel-bin", "kernel-modules"] {
            let reference = format!("{}/org/{name}:5.10.1", registry.host());
            place.imgbuild(&format!("sign {reference} --key a.key --provenance")).run().succeeds();
            let verified = place.imgbuild(&format!("verify {reference} --key a.pub")).run().succeeds();
            let _ = verified.prints("sbom").prints("provenance");
            place.imgbuild(&format!("verify {reference} --key b.pub")).run().exits(5);
            // What the index lists are platforms, whatever is attached to it.
            assert_eq!(architectures(&registry, name, "5.10.1"), ["amd64", "arm64"]);
        }
        let reference = format!("{}/org/kernel-bin:5.10.1", registry.host());
        let rebuilt = place.imgbuild(&format!("verify {reference} --key a.pub --rebuild")).run().succeeds();
        let _ = rebuilt.prints("built again to the same digest");
        let before = writes(&registry);
        release(&place, &registry, "--attest").succeeds().prints("nothing to do");
        join(&place, &registry, "--attest").succeeds().prints("nothing to do");
        assert_eq!(writes(&registry), before);
    }
}

#[test]
fn the_plan_is_the_same_with_and_without_what_it_builds() {
    let (place, registry) = (place("[\"5.10\"]"), Registry::new(Door::Open));
    let keys = |words: &str| {
        let json =
            imgbuild(&place, &registry, &format!("plan --all --format json {words}")).run().succeeds().json();
        let cells = json["cells"].as_array().unwrap().clone();
        cells.iter().map(|cell| (cell["cell"].clone(), cell["keys"].clone())).collect::<Vec<_>>()
    };
    let before = keys("");
    assert_eq!(before.len(), 2);
    assert_eq!(place.artifacts("kernel"), [""; 0], "a plan builds nothing");
    let dry = release(&place, &registry, "--dry-run").succeeds().prints("to do");
    assert_eq!((dry.stdout.lines().count(), writes(&registry)), (2, 0));
    publish(&place, &registry);
    assert_eq!(keys(""), before);
    let json = imgbuild(&place, &registry, "plan --all --format json").run().succeeds().json();
    assert_eq!(json["cells"][0]["state"], "published");
    assert!(json["cells"][0]["reference"].as_str().unwrap().contains("/org/kernel-bin:5.10.1-"));
    // A symbol more is another kernel.
    place.write("kconfigs/toy.config", crate::support::source::FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    assert_ne!(keys(""), before);
    assert_eq!(matrix(&place, &registry)["include"].as_array().unwrap().len(), 2);
}

#[test]
fn a_cell_that_fails_leaves_the_others() {
    let mut place = place("[\"5.10.1\"]");
    let registry = Registry::new(Door::Open);
    publish(&place, &registry);
    let before = index(&registry, "kernel-bin", "5.10");
    add(
        &mut place,
        &Source::new().version("5.10.2").fault(SourceFault::WrongArch),
        "[\"5.10.1\", \"5.10.2\", \"5.10.3\"]",
    );
    add(&mut place, &Source::new().version("5.10.3"), "[\"5.10.1\", \"5.10.2\", \"5.10.3\"]");
    let failed = release(&place, &registry, "--format json").exits(5).says("error: kernel/toy/5.10.2/");
    let json = failed.json();
    let outcomes: Vec<_> =
        json["cells"].as_array().unwrap().iter().map(|cell| cell["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes[2..4], ["failed", "failed"]);
    assert_eq!(outcomes[..2], ["skipped", "skipped"]);
    assert_eq!(outcomes[4..], ["published", "published"]);
    assert_eq!(place.half_made(), [""; 0]);

    let joined = join(&place, &registry, "--format json").exits(4);
    let joined =
        joined.says("2 of 6 images not released: `kernel-bin:5.10.2`, `kernel-modules:5.10.2`").json();
    let of = |name: &str| {
        joined["images"].as_array().unwrap().iter().find(|image| image["image"] == name).unwrap().clone()
    };
    assert_eq!(of("kernel-bin:5.10.1")["outcome"], "there");
    assert_eq!(of("kernel-bin:5.10.2")["outcome"], "missing");
    assert!(of("kernel-bin:5.10.2")["missing"][0].as_str().unwrap().starts_with("kernel/toy/5.10.2/"));
    assert_eq!(of("kernel-bin:5.10.3")["outcome"], "published");
    assert_eq!(registry.manifest("org/kernel-bin", "5.10.2"), None);
    assert!(index(&registry, "kernel-bin", "5.10") == index(&registry, "kernel-bin", "5.10.3"));
    assert!(index(&registry, "kernel-bin", "5.10.1") == before);
}

#[test]
fn an_image_with_a_missing_cell_keeps_its_tags() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Open));
    publish(&place, &registry);
    let before = index(&registry, "kernel-bin", "5.10.1");
    place.write("kconfigs/toy.config", crate::support::source::FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    release(&place, &registry, &format!("--only {AMD64}")).succeeds();
    join(&place, &registry, "").exits(4).prints(format!("missing: {ARM64}")).prints("NOT JOINED");
    assert!(index(&registry, "kernel-bin", "5.10.1") == before);
    release(&place, &registry, "").succeeds().prints("published before");
    join(&place, &registry, "").succeeds();
    assert!(index(&registry, "kernel-bin", "5.10.1") != before);
}

#[test]
fn tags_never_go_back() {
    let mut place = place("[\"5.10.1\"]");
    let registry = Registry::new(Door::Open);
    publish(&place, &registry);
    add(&mut place, &Source::new().version("5.10.2"), "[\"5.10.2\"]");
    publish(&place, &registry);
    let newest = index(&registry, "kernel-bin", "5.10");
    assert!(newest == index(&registry, "kernel-bin", "5.10.2"));
    // Another build of an older version moves the version's tag alone.
    let fragment = crate::support::source::FRAGMENT;
    place.write("kconfigs/toy.config", fragment.replace("NUMBER=3", "NUMBER=4"));
    release_versions(&place, "[\"5.10.1\"]");
    let old = index(&registry, "kernel-bin", "5.10.1");
    release(&place, &registry, "").succeeds();
    join(&place, &registry, "")
        .succeeds()
        .prints("5.10 stays at sha256:")
        .prints("it is 5.10.2, which is newer");
    let rebuilt = index(&registry, "kernel-bin", "5.10.1");
    assert!(rebuilt != old && index(&registry, "kernel-bin", "5.10") == newest);
    // The build that was there before does not come back: it is known as an earlier one.
    place.write("kconfigs/toy.config", fragment);
    let again = join(&place, &registry, "--format json").succeeds().json();
    let kept = &again["images"][0]["tags"][0];
    assert_eq!((&kept["tag"], &kept["state"]), (&"5.10.1".into(), &"kept".into()), "{again}");
    assert!(kept["reason"].as_str().unwrap().contains("published before"));
    assert!(index(&registry, "kernel-bin", "5.10.1") == rebuilt);
    assert_eq!(again["images"][0]["outcome"], "there");
}

#[test]
fn the_tag_of_a_build_is_never_given_to_another() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Open));
    publish(&place, &registry);
    let own = own_tag(&registry, "kernel-bin", "5.10.1");
    let host = registry.host();
    let part = tags(&registry, "kernel-bin").into_iter().find(|tag| tag.ends_with("-arm64")).unwrap();
    place
        .imgbuild(&format!("copy {host}/org/kernel-bin:{part} {host}/org/kernel-bin:{own}"))
        .run()
        .succeeds();
    let before = index(&registry, "kernel-bin", "5.10.1");
    let writes_before = writes(&registry);
    let outcome = join(&place, &registry, "").exits(9).says(format!("kernel-bin:{own}` is sha256:"));
    let outcome = outcome.says("comes to sha256:").says("hint: ").prints("FAILED, no tag was moved");
    // The modules are as they should be.
    let _ = outcome.prints("there already").says("1 of 2 images not released: `kernel-bin:5.10.1`");
    assert_eq!(writes(&registry), writes_before);
    assert!(index(&registry, "kernel-bin", "5.10.1") == before);
}

#[test]
fn whoever_moves_a_tag_meanwhile_is_seen() {
    let mut place = place("[\"5.10.1\"]");
    let registry = Registry::new(Door::Open);
    publish(&place, &registry);
    let older = index(&registry, "kernel-bin", "5.10.1");
    add(&mut place, &Source::new().version("5.10.3"), "[\"5.10.3\"]");
    publish(&place, &registry);
    let newer = index(&registry, "kernel-bin", "5.10.3");
    add(&mut place, &Source::new().version("5.10.2"), "[\"5.10.2\"]");
    release(&place, &registry, "").succeeds();
    let race = |tag: &str, reading: usize, theirs: &[u8]| {
        let part = format!("/org/kernel-bin/manifests/{tag}");
        registry.faults("GET", &part, reading - 1, Fault::Slow(Duration::ZERO));
        registry.fault("GET", &part, Fault::Race("org/kernel-bin".into(), theirs.to_vec()));
    };
    // Somebody puts an older image there right after ours: it goes forward again.
    race("5.10.2", 3, &older);
    let said = join(&place, &registry, "--only kernel/toy/5.10.2").succeeds();
    let _ = said.says("somebody else moved the tag meanwhile");
    let ours = index(&registry, "kernel-bin", "5.10.2");
    assert!(ours != older && architectures(&registry, "kernel-bin", "5.10.2").len() == 2);
    // And a newer one stays.
    place.write("kconfigs/toy.config", crate::support::source::FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    release(&place, &registry, "").succeeds();
    race("5.10.2", 3, &newer);
    join(&place, &registry, "").succeeds().prints("5.10.2 stays at").prints("it is 5.10.3, which is newer");
    assert!(index(&registry, "kernel-bin", "5.10.2") == newer);
}

#[test]
fn joins_at_once_lose_no_cell() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Open));
    // Each machine builds one cell and joins at once: who comes last has both.
    let runs: Vec<_> = [AMD64, ARM64]
        .into_iter()
        .map(|cell| {
            let release = imgbuild(&place, &registry, &format!("release --no-boot --only {cell}"));
            (cell, release.start())
        })
        .collect();
    let joins: Vec<_> = runs
        .into_iter()
        .map(|(cell, run)| {
            run.wait().succeeds();
            imgbuild(&place, &registry, &format!("release --join --only {cell}")).start()
        })
        .collect();
    let codes: Vec<_> = joins.into_iter().map(|join| join.wait().code).collect();
    assert!(codes.contains(&Some(0)) && codes.iter().all(|code| matches!(code, Some(0 | 4))), "{codes:?}");
    for tag in ["5.10", "5.10.1", &own_tag(&registry, "kernel-bin", "5.10.1")] {
        assert_eq!(architectures(&registry, "kernel-bin", tag), ["amd64", "arm64"]);
    }
}

#[test]
fn wrong_requests_are_told() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Open));
    let unknown = release(&place, &registry, "--only kernel/toy/5.10.1/amd46").fails(2);
    let _ = unknown
        .says("no cell of the release is called `kernel/toy/5.10.1/amd46`")
        .says(format!("did you mean `{AMD64}`?"));
    imgbuild(&place, &registry, "plan --all --only kernal").run().fails(2).says("did you mean `kernel`?");
    imgbuild(&place, &registry, "plan --all --only zebra")
        .run()
        .fails(2)
        .says("`imgbuild plan --all` lists them");
    place.imgbuild("release").run().fails(2).says("nothing says which registry the release goes to");
    place.imgbuild("plan 5.10.1 --format github").run().fails(2).says("--all");
    // No registry: told as such, and no cell is called due or done.
    place.imgbuild("plan --all").run().succeeds().prints("no registry was asked");
    place.imgbuild("release --registry 127.0.0.1:1/org").run().fails(7).says("127.0.0.1:1: cannot reach");
    release_versions(&place, "[]");
    release(&place, &registry, "").fails(2).says("releases anything").says("released = ");
    release_versions(&place, "[\"6.1.2\"]");
    release(&place, &registry, "")
        .fails(3)
        .says("6.1.2 is released, and the recipe is not made for its series");
    release_versions(&place, "[\"5.10.7\"]");
    release(&place, &registry, "").fails(2).says("kernel 5.10.7 is not pinned");
    release_versions(&place, "[\"5.10.1\"]\nreleased-on = [\"mips\"]");
    release(&place, &registry, "").fails(3).says("unknown architecture `mips`");
    assert_eq!(registry.requests().len(), 0);
}

#[test]
fn two_recipes_of_one_image_are_refused() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Open));
    let twin = RECIPE.replace("\"toy\"", "\"twin\"").replace("default = true", "released = [\"5.10.1\"]");
    place.write("recipes/kernel/twin.toml", twin);
    let refused = imgbuild(&place, &registry, "plan --all").run().fails(3);
    let _ = refused.says("the recipes `toy` and `twin` both release kernel-bin:5.10.1");
}

#[test]
fn a_registry_that_denies_is_told() {
    let (place, registry) = (place("[\"5.10.1\"]"), Registry::new(Door::Basic));
    imgbuild(&place, &registry, "plan --all").run().fails(7).says("imgbuild login");
    release(&place, &registry, "").fails(7).says("imgbuild login");
    assert_eq!(place.artifacts("kernel"), [""; 0], "nothing is built for nobody");
    registry.log_in(&place);
    // Some registries deny readers what is not there yet: a plan says so, and goes on.
    registry.faults("HEAD", "/manifests/", 2, Fault::Status(403, ""));
    let told = imgbuild(&place, &registry, "plan --all --format github").run().succeeds();
    let told = told.says("warning: ").says("taken for not published").prints(AMD64);
    assert!(told.stdout.contains(ARM64));
    registry.fault("HEAD", "/manifests/", Fault::Status(403, ""));
    release(&place, &registry, "").fails(7).says("cannot read");
    publish(&place, &registry);
}

#[test]
fn versions_past_their_end_are_told() {
    let mut place = place("[\"5.10.1\"]");
    add(&mut place, &Source::new().version("5.10.2"), "[\"5.10.1\", \"5.10.2\"]");
    // Where the catalogue has no dates there is nothing to say.
    place.imgbuild("plan --all").run().succeeds().does_not_print("warning");
    let life = |ends: &str| {
        place.write("recipes/end-of-life.toml", format!("[[kernel]]\nseries = \"5.10\"\nends = \"{ends}\"\n"))
    };
    life("2001-01-01");
    let told = place
        .imgbuild("plan --all")
        .run()
        .succeeds()
        .prints("warning: Linux 5.10 has had no security fixes since 2001-01-01");
    assert_eq!(told.stdout.matches("warning").count(), 1);
    place
        .imgbuild("plan --all --format github")
        .run()
        .succeeds()
        .says("warning: Linux 5.10")
        .does_not_print("warning");
    place
        .imgbuild("plan --all --format markdown")
        .run()
        .succeeds()
        .prints("> Linux 5.10")
        .prints("|---|---|---|");
    life("2999-01-01");
    place.imgbuild("plan --all").run().succeeds().does_not_print("warning");
    place.write("recipes/end-of-life.toml", "");
    place.imgbuild("plan --all").run().succeeds().prints("does not know when it ends");
    life("soon");
    place.imgbuild("plan --all").run().fails(3).says("`soon` is no day");
}
