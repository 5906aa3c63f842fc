//! `imgbuild cache`: what the store holds, cleaning it up, checking it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::support::source::{Gate, Source};
use crate::support::{Outcome, Place, names};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A place where the toy kernel is built.
fn built() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1").run().succeeds();
    place
}

fn entries(place: &Place) -> Vec<Value> {
    let json = place.imgbuild("cache ls --format json").run().succeeds().json();
    json["entries"].as_array().expect("a list of entries").clone()
}

fn kinds(entries: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().expect("a string")).collect();
    kinds.sort_unstable();
    kinds
}

/// The path of the one entry of a kind.
fn only(place: &Place, kind: &str) -> PathBuf {
    let all = place.artifacts(kind);
    assert_eq!(all.len(), 1, "{all:?}");
    place.store().join("artifacts").join(kind).join(&all[0])
}

fn age(path: &PathBuf, age: Duration) {
    let file = fs_err::File::open(path).expect("it is there");
    file.file().set_modified(SystemTime::now() - age).expect("our own file");
}

#[test]
fn the_list_tells_kind_name_size_and_last_use() {
    let place = built();
    let all = entries(&place);
    assert_eq!(
        kinds(&all),
        ["account", "account", "download", "kernel", "layer", "layer", "source", "symbols"]
    );
    let of = |name: &str| all.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{all:?}"));
    let arch = crate::support::host();
    let kernel = of(&format!("Linux 5.10.1 {arch} toy"));
    assert_eq!(kernel["key"], place.artifacts("kernel")[0].as_str());
    assert!(of(&format!("modules of Linux 5.10.1 {arch} toy"))["size"].as_u64().unwrap() > 0);
    assert_eq!(of("linux-5.10.1.tar.xz")["kind"], "download");
    assert!(of("linux-5.10.1.tar.xz")["used"].as_str().unwrap().ends_with('Z'));
    let text = place.imgbuild("cache ls").run().succeeds();
    text.prints(format!("Linux 5.10.1 {arch} toy")).prints("now").prints("8 entries in").prints("in all");
}

#[test]
fn the_list_is_sorted_by_last_use_and_a_hit_counts_as_one() {
    let place = built();
    age(&only(&place, "kernel"), 2 * DAY);
    assert_eq!(entries(&place)[0]["kind"], "kernel");
    place.imgbuild("cache ls").run().succeeds().prints("2 days ago");
    place.imgbuild("kernel 5.10.1").run().succeeds();
    assert_eq!(
        entries(&place)[0]["kind"],
        "download",
        "it was used before the others, which were used again"
    );
    place.imgbuild("cache ls").run().succeeds().does_not_print("days ago");
}

#[test]
fn gc_takes_what_is_old() {
    let place = built();
    age(&only(&place, "kernel"), 31 * DAY);
    let dry = place.imgbuild("cache gc --max-age 30d --dry-run").run().succeeds();
    dry.prints("would be removed: 1 entry");
    assert_eq!(place.artifacts("kernel").len(), 1);
    let json = place.imgbuild("cache gc --max-age 30d --format json").run().succeeds().json();
    assert_eq!(json["removed"].as_array().unwrap().len(), 1);
    assert_eq!(json["removed"][0]["kind"], "kernel");
    assert!(json["freed"].as_u64().unwrap() > 0);
    assert_eq!(
        kinds(&entries(&place)),
        ["account", "account", "download", "layer", "layer", "source", "symbols"]
    );
    assert_eq!(place.half_made(), [""; 0]);
    // What is needed again is made again.
    place
        .imgbuild("kernel 5.10.1 --verbose")
        .run()
        .succeeds()
        .says("is made anew: its entry is no longer in the store");
}

#[test]
fn gc_takes_the_least_recently_used_until_the_rest_fits() {
    let place = built();
    age(&only(&place, "kernel"), DAY);
    let total: u64 = entries(&place).iter().map(|entry| entry["size"].as_u64().unwrap()).sum();
    let all_but_one = total - 1;
    place.imgbuild(&format!("cache gc --max-size {all_but_one}")).run().succeeds().prints("removed: 1 entry");
    assert_eq!(
        kinds(&entries(&place)),
        ["account", "account", "download", "layer", "layer", "source", "symbols"]
    );
    place.imgbuild("cache gc --max-size 0B").run().succeeds().prints("removed: 7 entries").prints("0 B left");
    assert_eq!(entries(&place), [Value::Null; 0]);
    place.imgbuild("kernel 5.10.1").run().succeeds();
}

#[test]
fn gc_leaves_what_a_running_imgbuild_uses() {
    let mut place = Place::new();
    let gate = Gate::open_in(&place);
    Source::new().gate(&gate).install(&mut place);
    place.imgbuild("kernel 5.10.1").run().succeeds();
    // The first kernel of this run is found, the second one is being made.
    let gate = Gate::closed(&place);
    let other = if crate::support::host() == "arm64" { "x86_64" } else { "arm64" };
    let arches = format!("kernel 5.10.1 --arch {},{other}", crate::support::host());
    let mut run = place.imgbuild(&arches).start();
    run.until("a compilation", |_| gate.begun() == 2 && gate.child().is_some());
    let json = place.imgbuild("cache gc --max-size 0B --format json").run().succeeds().json();
    let in_use = json["in_use"].as_array().unwrap();
    // x86_64 comes first, so an arm64 host has its own kernel still before it. The source is unpacked: the download
    // is needed no more.
    let used = if crate::support::host() == "x86_64" {
        vec!["kernel", "layer", "layer", "source"]
    } else {
        vec!["source"]
    };
    assert_eq!(kinds(in_use), used);
    assert!(kinds(json["removed"].as_array().unwrap()).contains(&"download"));
    gate.open();
    run.wait().succeeds();
    place.imgbuild("cache verify").run().succeeds();
}

#[test]
fn gc_takes_stale_leftovers_and_keeps_fresh_ones() {
    let place = built();
    let put = |name: &str, days: u32| {
        let path = place.store().join(name);
        fs_err::write(&path, "half").unwrap();
        age(&path, days * DAY);
    };
    put("logs/kernel-old.log", 8);
    put("downloads/aa.part", 8);
    put("downloads/bb.part", 1);
    place
        .imgbuild("cache gc")
        .run()
        .succeeds()
        .prints("kernel-old.log")
        .prints("aa.part")
        .does_not_print("bb.part");
    assert_eq!(names(&place.store().join("logs")).len(), 1, "the fresh one");
    assert_eq!(names(&place.store().join("locks")), ["work.lock"]);
    let downloads = names(&place.store().join("downloads"));
    assert_eq!(downloads.len(), 2, "{downloads:?}");
    assert!(downloads.contains(&"bb.part".into()));
}

fn verify(place: &Place, code: i32) -> Outcome {
    let outcome = place.imgbuild("cache verify").run();
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    outcome
}

#[test]
fn verify_finds_and_drops_what_is_damaged() {
    let place = built();
    verify(&place, 0).prints("8 entries read").prints("0 damaged");
    let kernel = only(&place, "kernel");
    fs_err::write(kernel.join("files/boot/vmlinux"), "rust").unwrap();
    let download = entries(&place).into_iter().find(|entry| entry["kind"] == "download").unwrap();
    let download = place.store().join("downloads").join(download["key"].as_str().unwrap());
    let mut content = fs_err::read(&download).unwrap();
    content[7] ^= 1;
    fs_err::write(&download, content).unwrap();
    let outcome = verify(&place, 5);
    outcome
        .prints("2 damaged")
        .prints("its sha256 is")
        .prints("not those of its list")
        .says("2 entries were damaged");
    assert!(!kernel.exists() && !download.exists());
    verify(&place, 0).prints("6 entries read");
    // The source is still unpacked, so nothing is fetched.
    place.imgbuild("kernel 5.10.1").run().succeeds();
    verify(&place, 0).prints("7 entries read");
}

#[test]
fn verify_compares_a_record_with_its_key() {
    let place = built();
    let record = only(&place, "kernel").join("record.json");
    let text = fs_err::read_to_string(&record).unwrap();
    fs_err::write(&record, text.replace("5.10.1", "5.10.2")).unwrap();
    verify(&place, 5).prints("its record does not have its key");
    let json = place.imgbuild("cache verify --format json").run().succeeds().json();
    assert_eq!((json["checked"].as_u64(), json["damaged"].as_array().map(Vec::len)), (Some(7), Some(0)));
}

#[test]
fn a_store_of_a_newer_imgbuild_is_refused_and_left_alone() {
    let place = Place::new();
    fs_err::create_dir(place.store()).unwrap();
    fs_err::write(place.store().join("format"), "imgbuild store 2\n").unwrap();
    for verb in ["ls", "gc --max-size 0B", "verify"] {
        place.imgbuild(&format!("cache {verb}")).run().fails(2).says("imgbuild store 2").says("--store");
    }
    assert_eq!(names(place.store()), ["format"]);
}

#[test]
fn limits_that_are_none_are_told() {
    let place = Place::new();
    place.imgbuild("cache gc --max-size much").run().fails(2).says("10GB");
    place.imgbuild("cache gc --max-age old").run().fails(2).says("30d");
}
