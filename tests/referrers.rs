//! What is attached to images: where the registry lists it, and where it does not.

use std::ffi::OsStr;
use std::path::Path;

use crate::support::containerd::Containerd;
use crate::support::docker::{self, Docker};
use crate::support::images;
use crate::support::layout::Layout;
use crate::support::registry::{Door, Fault, Registry};
use crate::support::{Outcome, Place, signing, tool};
use serde_json::{Value, json};

const NAME: &str = "kernel-bin:5.10.1";
const REPOSITORY: &str = "org/kernel-bin";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A place with keys and an image for two platforms in `out`; and the image's digest.
fn place() -> (Place, String) {
    let place = Place::new();
    signing::keys(&place);
    images::layout(&place, "out", &[(NAME, 1)]);
    let digest = Layout::at(place.path("out")).images()[NAME].clone();
    (place, digest)
}

fn push(place: &Place, registry: &Registry) {
    place.imgbuild(&format!("push out --registry {}/org", registry.host())).run().succeeds();
}

fn sign(place: &Place, host: &str, key: &str) -> Outcome {
    place.imgbuild(&format!("sign {host}/org/{NAME} --key {key}.key")).run()
}

/// What is said of the signature with this key.
fn signature(place: &Place, host: &str, key: &str) -> String {
    let verify = format!("verify {host}/org/{NAME} --key {key}.pub --format json");
    let json = place.imgbuild(&verify).run().json();
    let checks = json["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["check"] == "signature").unwrap();
    format!("{}: {}", check["state"].as_str().unwrap(), check["said"].as_str().unwrap())
}

/// The list under the fall-back tag.
fn listed(registry: &Registry, digest: &str) -> Vec<Value> {
    let bytes = registry.manifest(REPOSITORY, &digest.replace(':', "-")).unwrap();
    let index: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&index["mediaType"], &index["schemaVersion"]), (&json!(INDEX), &json!(2)));
    index["manifests"].as_array().unwrap().clone()
}

#[test]
fn a_registry_that_lists_referrers_is_left_to_it() {
    let (place, digest) = place();
    let registry = Registry::with_referrers(Door::Open);
    push(&place, &registry);
    sign(&place, &registry.host(), "a").succeeds();
    assert_eq!(registry.manifest(REPOSITORY, &digest.replace(':', "-")), None);
    assert_eq!(signature(&place, &registry.host(), "a"), "passed: valid, by a.pub");
}

#[test]
fn where_it_does_not_the_tag_of_the_digest_lists_them() {
    let (place, digest) = place();
    let registry = Registry::new(Door::Open);
    push(&place, &registry);
    sign(&place, &registry.host(), "a").succeeds();
    let entries = listed(&registry, &digest);
    let [entry] = &entries[..] else { panic!("one was expected: {entries:?}") };
    assert_eq!(entry["artifactType"], BUNDLE);
    assert_eq!(entry["annotations"]["dev.sigstore.bundle.content"], "dsse-envelope");
    let manifest = registry.manifest(REPOSITORY, entry["digest"].as_str().unwrap()).unwrap();
    assert_eq!(entry["size"], manifest.len());
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let index = registry.manifest(REPOSITORY, &digest).unwrap();
    assert_eq!(manifest["subject"], json!({ "mediaType": INDEX, "digest": digest, "size": index.len() }));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(registry.blob(REPOSITORY, manifest["config"]["digest"].as_str().unwrap()), b"{}");
    assert_eq!(signature(&place, &registry.host(), "a"), "passed: valid, by a.pub");
}

#[test]
fn the_same_thing_twice_is_there_once() {
    for registry in [Registry::new(Door::Open), Registry::with_referrers(Door::Open)] {
        let (place, _) = place();
        push(&place, &registry);
        sign(&place, &registry.host(), "a").succeeds();
        let before = registry.references(REPOSITORY);
        sign(&place, &registry.host(), "a").succeeds();
        assert_eq!(registry.references(REPOSITORY), before);
    }
}

#[test]
fn a_list_of_several_pages_is_read_to_its_end() {
    let (place, _) = place();
    let registry = Registry::with_referrers(Door::Open);
    push(&place, &registry);
    for key in ["a", "b", "sec1"] {
        sign(&place, &registry.host(), key).succeeds();
    }
    for key in ["a", "b", "sec1"] {
        assert_eq!(signature(&place, &registry.host(), key), format!("passed: valid, by {key}.pub"));
    }
    assert!(registry.count("GET", "/referrers/") > registry.count("GET", "from=2"));
    assert!(registry.count("GET", "from=2") > 0);
    // One that leads back to where it was has no end.
    let digest = Layout::at(place.path("out")).images()[NAME].clone();
    let link = format!("</v2/{REPOSITORY}/referrers/{digest}>; rel=\"next\"");
    registry.fault("GET", "/referrers/", Fault::Header("Link", link));
    let verify = format!("verify {}/org/{NAME} --key a.pub", registry.host());
    place.imgbuild(&verify).run().fails(7).says("its list has no end");
}

#[test]
fn rights_are_asked_for_as_for_a_push() {
    let (place, _) = place();
    let registry = Registry::with_referrers(Door::Tokens);
    let signed = sign(&place, &registry.host(), "a");
    signed.fails(4).says("is not there");
    registry.log_in(&place);
    push(&place, &registry);
    sign(&place, &registry.host(), "a").succeeds();
    assert_eq!(signature(&place, &registry.host(), "a"), "passed: valid, by a.pub");
}

#[test]
fn whoever_attaches_at_the_same_time_loses_nothing() {
    let (place, digest) = place();
    let registry = Registry::new(Door::Open);
    push(&place, &registry);
    let keys = ["a", "b", "sec1"];
    let command =
        |key| place.imgbuild(&format!("sign {}/org/{NAME} --key {key}.key", registry.host())).start();
    let runs: Vec<_> = keys.into_iter().map(command).collect();
    for run in runs {
        run.wait().succeeds();
    }
    assert_eq!(listed(&registry, &digest).len(), keys.len());
    for key in keys {
        assert_eq!(signature(&place, &registry.host(), key), format!("passed: valid, by {key}.pub"));
    }
    let beside = registry.manifest(REPOSITORY, &format!("{}.sig", digest.replace(':', "-"))).unwrap();
    let beside: Value = serde_json::from_slice(&beside).unwrap();
    assert_eq!(beside["layers"].as_array().unwrap().len(), keys.len());
}

#[test]
fn a_list_that_somebody_else_moves_keeps_theirs_and_gets_ours() {
    // Before ours is put, and right after.
    for reading in [2, 3] {
        let (place, digest) = place();
        let registry = Registry::new(Door::Open);
        push(&place, &registry);
        let theirs = json!({ "mediaType": "x", "digest": format!("sha256:{}", "1".repeat(64)), "size": 1,
            "artifactType": "application/theirs" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs] });
        let tag = format!("/manifests/{}", digest.replace(':', "-"));
        // The tag `.sig` begins alike, and is read later.
        registry.faults("GET", &tag, reading - 1, Fault::Slow(std::time::Duration::ZERO));
        registry.fault("GET", &tag, Fault::Race(REPOSITORY.into(), index.to_string().into_bytes()));
        // The registry is strict about what an index names.
        registry.put_manifest(REPOSITORY, theirs["digest"].as_str().unwrap(), &json!({}));
        sign(&place, &registry.host(), "a").succeeds();
        let types: Vec<_> = listed(&registry, &digest).iter().map(|it| it["artifactType"].clone()).collect();
        assert_eq!(types, ["application/theirs", BUNDLE], "at reading {reading}");
    }
}

#[test]
fn what_is_no_list_is_not_overwritten() {
    let (place, digest) = place();
    let registry = Registry::new(Door::Open);
    push(&place, &registry);
    let tag = digest.replace(':', "-");
    registry.put_manifest(REPOSITORY, &tag, &json!({ "config": {}, "layers": [] }));
    let before = registry.manifest(REPOSITORY, &tag);
    let outcome = sign(&place, &registry.host(), "a").fails(5);
    outcome.says(format!("{REPOSITORY}:{tag}")).says("a list of what is attached stands under such a tag");
    assert_eq!(registry.manifest(REPOSITORY, &tag), before);
}

#[test]
fn a_copy_takes_along_what_is_attached_where_asked() {
    let (from, to) = (Registry::with_referrers(Door::Open), Registry::new(Door::Open));
    let (place, digest) = place();
    push(&place, &from);
    place.imgbuild(&format!("sign {}/org/{NAME} --key a.key --recursive", from.host())).run().succeeds();
    let copy = format!("copy {}/org/{NAME} {}/org/{NAME}", from.host(), to.host());
    place.imgbuild(&copy).run().succeeds();
    assert_eq!(signature(&place, &to.host(), "a"), "failed: none is there");
    sign(&place, &to.host(), "b").succeeds();
    for _ in 0..2 {
        place.imgbuild(&format!("{copy} --referrers")).run().succeeds().says("6 attached");
        for key in ["a", "b"] {
            assert_eq!(signature(&place, &to.host(), key), format!("passed: valid, by {key}.pub"));
        }
        assert_eq!(listed(&to, &digest).len(), 2);
    }
}

#[test]
fn what_lies_or_is_missing_is_passed_over_and_told() {
    for registry in [Registry::new(Door::Open), Registry::with_referrers(Door::Open)] {
        let (place, digest) = place();
        push(&place, &registry);
        let host = registry.host();
        sign(&place, &host, "a").succeeds();
        let blob = registry
            .references(REPOSITORY)
            .into_iter()
            .filter_map(|name| registry.manifest(REPOSITORY, &name))
            .filter_map(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .find(|manifest| manifest["artifactType"] == BUNDLE)
            .map(|manifest| manifest["layers"][0]["digest"].as_str().unwrap().to_owned())
            .unwrap();
        // The other signature, under the tag, still counts.
        registry.fault("GET", &blob, Fault::Instead(vec![b' '; registry.blob(REPOSITORY, &blob).len()]));
        assert_eq!(signature(&place, &host, "a"), "passed: valid, by a.pub");
        registry.fault("GET", &blob, Fault::Instead(vec![b' '; registry.blob(REPOSITORY, &blob).len()]));
        let said = signature(&place, &host, "b");
        assert!(said.starts_with("failed: ") && said.contains("does not have its digest"), "{said}");
        assert!(!digest.is_empty());
    }
}

#[test]
fn the_real_registry_and_those_who_read_it_are_at_peace_with_them() {
    let (mut place, digest) = place();
    let docker = Docker::start(&place, &docker::Door::Open);
    let host = docker.host.clone();
    // A real image: others unpack it.
    crate::support::source::Source::new().install(&mut place);
    place
        .imgbuild("kernel 5.10.1 --arch all --output real --push --registry")
        .arg(format!("{host}/org"))
        .run()
        .succeeds();
    let layout = Layout::at(place.path("real"));
    let real = layout.images()[NAME].clone();
    assert_ne!(real, digest);
    place.imgbuild(&format!("sign {host}/org/{NAME} --key a.key --recursive")).run().succeeds();
    assert_eq!(signature(&place, &host, "a"), "passed: valid, by a.pub");
    let reader = |name: &str, words: &str| {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/readers").join(name);
        assert!(program.is_file(), "there is no {}: run scripts/readers", program.display());
        tool(program.to_str().unwrap(), &words.split_whitespace().map(OsStr::new).collect::<Vec<_>>())
    };
    let found = reader("oras", &format!("discover --plain-http --format json {host}/org/{NAME}"));
    assert!(found.contains(BUNDLE), "{found}");
    reader("crane", &format!("validate --remote {host}/org/{NAME}"));
    let copied = place.path("skopeo");
    let (from, to) = (format!("docker://{host}/org/{NAME}"), format!("oci:{}:x", copied.display()));
    let words = ["--insecure-policy", "copy", "--all", "--quiet", "--src-tls-verify=false", &from, &to];
    tool("skopeo", &words.map(OsStr::new));
    assert_eq!(Layout::at(copied).images()["x"], real);
    let containerd = Containerd::start(&place);
    let reference = format!("{host}/org/{NAME}");
    containerd.ctr(&[
        "images",
        "pull",
        "--plain-http",
        "--platform",
        "linux/amd64",
        "--snapshotter",
        "native",
        &reference,
    ]);
    place.imgbuild(&format!("pull {reference} again")).run().succeeds();
    assert_eq!(Layout::at(place.path("again")).images()[NAME], real);
}
