//! `--cache`: what one machine has made, others take from a registry; a lost or lying one costs time and nothing else.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use crate::support::docker::{self, Docker};
use crate::support::layout::Layout;
use crate::support::pinned::{bare, build, place, tree_tags};
use crate::support::registry::{Door, Fault, PASSWORD, Registry};
use crate::support::{Outcome, Place, tool};
use serde_json::{Value, json};

const REPOSITORY: &str = "org/cache";

/// A fake registry that has the trees already, so that none is sent.
fn registry(door: Door) -> Registry {
    let registry = Registry::new(door);
    for tag in tree_tags() {
        registry.put_manifest(REPOSITORY, &tag, &json!({}));
    }
    registry
}

fn cache(registry: &Registry) -> String {
    format!("{}/{REPOSITORY}", registry.host())
}

/// The images that lie in `out`.
fn images(place: &Place) -> BTreeMap<String, String> {
    Layout::at(place.path("out")).images()
}

/// A cache that another machine has filled; returns its images too.
fn filled(door: Door) -> (Registry, BTreeMap<String, String>) {
    let (registry, other) = (registry(door), place());
    build(&other, "--cache-write --cache").arg(cache(&registry)).run().succeeds().says("compile  Linux");
    (registry, images(&other))
}

/// The tag of the kernel that a cache has.
fn tag(registry: &Registry) -> String {
    let mut tags = registry.references(REPOSITORY).into_iter().filter(|name| name.starts_with("kernel-"));
    tags.next().unwrap()
}

fn manifest(registry: &Registry) -> Value {
    serde_json::from_slice(&registry.manifest(REPOSITORY, &tag(registry)).unwrap()).unwrap()
}

/// It was compiled here, and nothing half-made is left.
fn compiled(place: &Place, outcome: Outcome, expected: &BTreeMap<String, String>) -> Outcome {
    assert_eq!((&images(place), place.half_made()), (expected, vec![]));
    outcome.says("compile  Linux")
}

#[test]
fn a_second_machine_compiles_nothing_and_a_third_one_takes_the_tree() {
    let first = place();
    let docker = Docker::start(&first, &docker::Door::Open);
    let cache = format!("{}/org/cache", docker.host);
    let begin = |place: &Place, words: &str| build(place, words).option("--cache", &cache).run().succeeds();
    let put = format!("to {cache}");
    begin(&first, "--arch all --cache-write").says("compile  Linux").says(&put);
    begin(&first, "--arch all --cache-write").does_not_say(&put);

    // It has neither the tree nor a source, and no way to either.
    let second = bare();
    fs_err::remove_dir_all(second.path("mirror")).unwrap();
    let plan = second.imgbuild("plan 5.10.1 --arch all").without("IMGBUILD_TOOLCHAIN");
    let plan = plan.env("IMGBUILD_CACHE", &cache).run().succeeds();
    assert_eq!(plan.stdout.matches(&format!("in the cache {cache}")).count(), 2, "{}", plan.stdout);
    begin(&second, "--arch all").says(format!("from {cache}")).does_not_say("compile");
    assert_eq!((images(&second), second.half_made()), (images(&first), vec![]));
    second.imgbuild("cache verify").run().succeeds();

    // What it asks for nobody has made; the tree that makes it is there.
    let third = bare();
    third.write("kconfigs/toy.config", "CONFIG_MODULES=y\nCONFIG_NUMBER=4\nCONFIG_PVH=y # [x86_64]\n");
    begin(&third, "").says("cache  tree debian-11").says("compile  Linux").does_not_say(&put);
    third.imgbuild("cache verify").run().succeeds();
}

#[test]
fn a_cache_is_only_read_unless_it_is_to_be_written() {
    let (registry, expected) = filled(Door::Open);
    let place = place();
    let before = registry.requests().len();
    build(&place, "").env("IMGBUILD_CACHE", cache(&registry)).run().succeeds().does_not_say("compile");
    assert_eq!(images(&place), expected);
    build(&place, "--recipe recipes/kernel/toy.toml --arch all --cache")
        .arg(cache(&registry))
        .run()
        .succeeds();
    let requests = registry.requests().split_off(before);
    assert!(
        requests.iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())),
        "{requests:?}"
    );

    // The settings say it once and for all; nothing on the command line takes it back.
    place.write_settings(&format!("cache = [\"{}\"]\ncache-write = true\n", cache(&registry)));
    build(&place, "--arch all").run().succeeds().says("to 127.0.0.1");
    let before = registry.requests().len();
    build(&place, "--arch all --cache").arg("").run().succeeds();
    assert_eq!(registry.requests().len(), before);
}

#[test]
fn an_entry_that_lies_is_told_made_here_and_replaced() {
    let (registry, expected) = filled(Door::Open);
    let (tag, sound) = (tag(&registry), manifest(&registry));
    let config = registry.blob(REPOSITORY, sound["config"]["digest"].as_str().unwrap());
    let account: Value = serde_json::from_slice(&config).unwrap();
    let kind = sound["config"]["mediaType"].as_str().unwrap();
    let layer_kind = sound["layers"][0]["mediaType"].as_str().unwrap();
    let accounted = |change: &dyn Fn(&mut Value)| {
        let (mut account, mut manifest) = (account.clone(), sound.clone());
        change(&mut account);
        manifest["config"] = registry.put_blob(REPOSITORY, kind, account.to_string().as_bytes());
        manifest
    };
    let layered = |bytes: &[u8]| {
        let mut manifest = sound.clone();
        manifest["layers"][0] = registry.put_blob(REPOSITORY, layer_kind, bytes);
        manifest
    };
    let packed = |entries: &[(&str, tar::EntryType, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        layered(&zstd(&builder.into_inner().unwrap()))
    };
    let regular = tar::EntryType::Regular;
    for (lie, manifest) in [
        (
            "its files are not those that it lists",
            accounted(&|account| account["content"] = json!("0".repeat(64))),
        ),
        ("its account names no content", accounted(&|account| account["content"] = json!("../../x"))),
        ("it is the account of layer", accounted(&|account| account["kind"] = json!("layer"))),
        ("it is the account of kernel", accounted(&|account| account["record"]["arch"] = json!("arm64"))),
        ("it is the account of kernel", accounted(&|account| account["key"] = json!("0".repeat(64)))),
        ("its account cannot be read", accounted(&|account| *account = json!([]))),
        ("its files are not those that it lists", packed(&[("boot/vmlinux", regular, b"another kernel")])),
        ("it would land outside", packed(&[("../../../escaped", regular, b"x")])),
        ("it is no file, directory or link", packed(&[("null", tar::EntryType::Char, b"")])),
        ("Unknown frame descriptor", layered(b"no archive at all")),
        ("it does not have one blob", {
            let mut none = sound.clone();
            none["layers"] = json!([]);
            none
        }),
        ("it is of another kind", {
            let mut other = sound.clone();
            other["config"]["mediaType"] = json!("text/plain");
            other
        }),
        ("it is an index", json!({ "manifests": [] })),
        ("no image", json!({ "layers": 1 })),
    ] {
        registry.put_manifest(REPOSITORY, &tag, &manifest);
        let place = place();
        let outcome = build(&place, "--cache-write --cache").arg(cache(&registry)).run().succeeds();
        compiled(&place, outcome, &expected).says("is not used").says(lie).says("to 127.0.0.1");
        let now: Value = serde_json::from_slice(&registry.manifest(REPOSITORY, &tag).unwrap()).unwrap();
        assert_eq!(now, sound, "{lie}");
        assert!(!place.store().join("escaped").exists() && !place.path("escaped").exists());
    }
    // What is said and what comes are not the same.
    for fault in [Fault::Instead(b"short".to_vec()), Fault::Large(4 << 20)] {
        registry.faults("GET", "/blobs/", 9, fault);
        let place = place();
        let outcome = build(&place, "--cache").arg(cache(&registry)).run().succeeds();
        compiled(&place, outcome, &expected).says("does not have its digest");
        registry.no_faults();
    }
}

#[test]
fn a_cache_that_cannot_be_asked_is_told_once_and_done_without() {
    let (sound, expected) = filled(Door::Open);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broken = registry(Door::Open);
    broken.faults("GET", "/manifests/", 9, Fault::Status(500, ""));
    let denied = registry(Door::Basic);
    for host in [nobody.to_string(), broken.host(), denied.host()] {
        let place = place();
        let words = format!("--arch all --cache-write --cache {host}/{REPOSITORY}");
        let outcome = build(&place, &words).run().succeeds().says("compile  Linux");
        let told = format!("the cache `{host}/{REPOSITORY}` is of no use now: ");
        assert_eq!(outcome.stderr.matches(&told).count(), 1, "{}", outcome.stderr);
        // The next one may have it.
        let other = self::place();
        let outcome =
            build(&other, "--cache").arg(format!("{host}/{REPOSITORY},{}", cache(&sound))).run().succeeds();
        outcome.says(&told).does_not_say("compile");
        assert_eq!(images(&other), expected);
    }
}

#[test]
fn a_push_that_broke_leaves_nothing_and_the_next_run_makes_up_for_it() {
    let registry = registry(Door::Open);
    let place = place();
    registry.fault("PUT", "/manifests/", Fault::Status(400, ""));
    let run = || build(&place, "--cache-write --cache").arg(cache(&registry)).run().succeeds();
    run().says("is not put into the cache");
    assert_eq!(registry.references(REPOSITORY), tree_tags());
    run().says("to 127.0.0.1").does_not_say("compile");
    assert_eq!(manifest(&registry)["layers"].as_array().unwrap().len(), 1);
    assert_eq!(registry.uploads(), 0);
}

#[test]
fn two_that_write_at_once_do_not_disturb_each_other() {
    let registry = registry(Door::Open);
    registry.faults("PUT", "/manifests/", 2, Fault::Slow(Duration::from_millis(300)));
    let places = [place(), place()];
    let start = |place: &Place| build(place, "--cache-write --cache").arg(cache(&registry)).start();
    let running: Vec<_> = places.iter().map(start).collect();
    running.into_iter().for_each(|run| drop(run.wait().succeeds()));
    let third = place();
    build(&third, "--cache").arg(cache(&registry)).run().succeeds().does_not_say("compile");
    assert_eq!((images(&third), images(&places[0])), (images(&places[1]), images(&third)));
}

#[test]
fn passwords_stay_with_their_registry() {
    let registry = registry(Door::Tokens);
    let place = place();
    let run = || build(&place, "--verbose --cache-write --cache").arg(cache(&registry)).run().succeeds();
    let before = run().says("is not put into the cache").says("imgbuild login");
    registry.log_in(&place);
    registry.fault("PUT", "/manifests/", Fault::Tattle);
    let tattled = run().says("is not put into the cache").says("TATTLE: Bearer …");
    let after = run().says("to 127.0.0.1");
    for outcome in [before, tattled, after] {
        for secret in [PASSWORD, "fake-token", "Basic "] {
            assert!(!outcome.stderr.contains(secret), "{secret}: {}", outcome.stderr);
        }
    }
    // Nor does an entry tell where it was made.
    let config = manifest(&registry)["config"]["digest"].as_str().unwrap().to_owned();
    let config = String::from_utf8(registry.blob(REPOSITORY, &config)).unwrap();
    for private in [place.home(), place.work()] {
        assert!(!config.contains(&*private.to_string_lossy()), "{config}");
    }
}

#[test]
fn where_a_key_is_named_what_others_have_signed_is_not_used() {
    let (registry, expected) = filled(Door::Open);
    let place = place();
    let (ours, theirs) = (keys(&place, "ours"), keys(&place, "theirs"));
    let run = |words: &str| {
        fs_err::remove_dir_all(place.store().join("artifacts/kernel")).unwrap_or_default();
        build(&place, words).arg("--cache").arg(cache(&registry)).run().succeeds()
    };
    let untrusted = "is not used: it is not signed by a key that is trusted";
    // Nobody has signed it; then somebody else has; then we have.
    compiled(&place, run(&format!("--cache-trust {ours}.pub")), &expected).says(untrusted);
    run(&format!("--cache-trust {theirs}.pub --cache-write --cache-key {theirs}.key")).says("to 127.0.0.1");
    run(&format!("--cache-trust {ours}.pub")).says(untrusted);
    run(&format!("--cache-trust {ours}.pub --cache-write --cache-key {ours}.key")).says(untrusted);
    run(&format!("--cache-trust {theirs}.pub,{ours}.pub")).does_not_say("compile");
    run("").does_not_say("compile");
    // A signature is over one account, and the account over the files.
    let mut manifest = manifest(&registry);
    let config = registry.blob(REPOSITORY, manifest["config"]["digest"].as_str().unwrap());
    let mut account: Value = serde_json::from_slice(&config).unwrap();
    account["content"] = json!("0".repeat(64));
    let kind = manifest["config"]["mediaType"].as_str().unwrap().to_owned();
    manifest["config"] = registry.put_blob(REPOSITORY, &kind, account.to_string().as_bytes());
    registry.put_manifest(REPOSITORY, &tag(&registry), &manifest);
    run(&format!("--cache-trust {ours}.pub")).says(untrusted);

    let refused = |words: &str| build(&place, words).arg("--cache").arg(cache(&registry)).run();
    refused(&format!("--cache-trust {ours}.key")).fails(2).says("holds a private key");
    refused("--cache-trust nowhere.pub").fails(4).says("nowhere.pub");
}

/// Makes a pair of keys: `NAME.key` and `NAME.pub`.
fn keys(place: &Place, name: &str) -> String {
    let path = place.path(name).display().to_string();
    let (private, public) = (format!("{path}.key"), format!("{path}.pub"));
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &private]);
    openssl(&["ec", "-in", &private, "-pubout", "-out", &public]);
    path
}

fn openssl(words: &[&str]) {
    let words: Vec<_> = words.iter().map(std::ffi::OsStr::new).collect();
    tool("openssl", &words);
}

#[test]
fn what_a_host_s_own_tools_made_is_nobody_else_s() {
    let registry = registry(Door::Open);
    let place = place();
    place.imgbuild("kernel 5.10.1 --cache-write --cache").arg(cache(&registry)).run().succeeds();
    assert_eq!(registry.requests(), []);
}

#[test]
fn what_is_no_cache_is_refused() {
    let place = place();
    let refused = |words: &str| build(&place, words).run().fails(2);
    refused("--cache registry.example/org/cache:x").says("hint: `--cache registry.example/org/cache`");
    refused("--cache cache").says("it has no registry host");
    refused("--cache-write").says("none is named");
    assert!(!place.store().join("artifacts/kernel").exists());
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
