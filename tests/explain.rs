//! `imgbuild plan --explain`: what a step's key is made of, and why it is not in the store.

use crate::support::source::{FRAGMENT, Source};
use crate::support::{Place, sha256};
use serde_json::{Value, json};

fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

fn steps(place: &Place) -> Vec<Value> {
    let json = place.imgbuild("plan 5.10.1 --explain --format json").run().succeeds().json();
    json["steps"].as_array().expect("a list of steps").clone()
}

fn ask_for(place: &Place, change: (&str, &str)) {
    place.write("kconfigs/toy.config", FRAGMENT.replace(change.0, change.1));
}

#[test]
fn a_plan_is_what_a_dry_run_prints() {
    let place = toys();
    let plan = place.imgbuild("plan 5.10.1 --arch all").run().succeeds().stdout;
    assert_eq!(plan, place.imgbuild("kernel 5.10.1 --arch all --dry-run").run().succeeds().stdout);
    assert!(plan.contains("compile") && !plan.contains("requested"), "{plan}");
}

#[test]
fn a_key_is_the_digest_of_the_printed_record() {
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let steps = steps(&place);
    let kinds: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["fetch", "compile", "pack", "pack", "assemble", "assemble"]);
    for step in &steps[1..4] {
        assert_eq!(step["key"], sha256(step["record"].to_string().as_bytes()));
        assert_eq!(step["cached"], true);
        assert_eq!(step.get("missed"), None);
    }
    let record = &steps[1]["record"];
    assert_eq!(record["version"], "5.10.1");
    assert_eq!(record["requested"]["TOY"], "m");
    assert_eq!(steps[2]["record"]["role"], "kernel");
}

#[test]
fn before_a_kernel_is_there_its_layers_have_no_key() {
    let place = toys();
    let steps = steps(&place);
    assert_eq!(steps[2]["step"], "pack");
    assert_eq!(steps[2]["key"], Value::Null);
    let text = place.imgbuild("plan 5.10.1 --explain").run().succeeds();
    text.prints("no earlier run to compare with")
        .prints("\"requested\": {")
        .prints("from the kernel, when it is compiled");
}

#[test]
fn a_miss_tells_which_fields_have_changed() {
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    ask_for(&place, ("NUMBER=3", "NUMBER=4"));
    place
        .imgbuild("plan 5.10.1 --explain")
        .run()
        .succeeds()
        .prints("its record has changed:")
        .prints("  requested.NUMBER: 3 → 4\n")
        .does_not_print("requested.TOY:");
    let changed = json!([{"field": "requested.NUMBER", "before": "3", "after": "4"}]);
    assert_eq!(steps(&place)[1]["missed"]["changed"], changed);
    // Looking does not count as a run.
    assert_eq!(steps(&place)[1]["missed"]["changed"], changed);
    let build = place.imgbuild("kernel 5.10.1 --verbose").run().succeeds();
    build.says(format!("Linux 5.10.1 {} toy is made anew: requested.NUMBER: 3 → 4", crate::support::host()));
    assert_eq!(steps(&place)[1].get("missed"), None);
}

#[test]
fn another_source_is_told() {
    let mut place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    fs_err::remove_file(place.path("recipes/imgbuild.lock")).unwrap();
    Source::new().file("more", "x").install(&mut place);
    let changed = steps(&place)[1]["missed"]["changed"].clone();
    assert_eq!(changed.as_array().unwrap().len(), 1, "{changed}");
    assert_eq!(changed[0]["field"], "source");
}

#[test]
fn the_comparison_is_with_the_last_run_hits_included() {
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    ask_for(&place, ("NUMBER=3", "NUMBER=4"));
    place.imgbuild("kernel 5.10.1").run().succeeds();
    // Back again: found in the store, and from now on the last one.
    ask_for(&place, ("", ""));
    place.imgbuild("kernel 5.10.1 --verbose").run().succeeds().does_not_say("made anew");
    ask_for(&place, ("NUMBER=3", "NUMBER=5"));
    place.imgbuild("plan 5.10.1 --explain").run().succeeds().prints("requested.NUMBER: 3 → 5");
    // What was asked for and is no more, and the other way round.
    ask_for(&place, ("CONFIG_NUMBER=3", "CONFIG_EXTRA=y"));
    let text = place.imgbuild("plan 5.10.1 --explain").run().succeeds();
    text.prints("requested.EXTRA: nothing → y").prints("requested.NUMBER: 3 → nothing");
}

#[test]
fn a_note_that_is_damaged_explains_nothing_and_harms_nothing() {
    let place = toys();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let records = place.store().join("records/kernel");
    for name in crate::support::names(&records) {
        fs_err::write(records.join(name), "{").unwrap();
    }
    ask_for(&place, ("NUMBER=3", "NUMBER=4"));
    place.imgbuild("plan 5.10.1 --explain").run().succeeds().prints("no earlier run to compare with");
    place.imgbuild("kernel 5.10.1").run().succeeds();
}
