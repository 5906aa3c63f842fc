//! Signatures by keys: ours, which cosign reads, and cosign's, which we read. scripts/readers brings both cosigns.

use crate::support::docker::{self, Docker};
use crate::support::images;
use crate::support::layout::Layout;
use crate::support::registry::{Door, Registry};
use crate::support::signing::{self, PASSWORD, run_cosign};
use crate::support::{Outcome, Place};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use imgbuild::sign::{Key, simple};
use serde_json::json;

const NAME: &str = "kernel-bin:5.10.1";
const REPOSITORY: &str = "org/kernel-bin";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A place with keys and an image in `out`, pushed to `host`; and the image's reference by digest.
fn pushed(host: &str) -> (Place, String) {
    let place = Place::new();
    signing::keys(&place);
    images::layout(&place, "out", &[(NAME, 1)]);
    place.imgbuild(&format!("push out --registry {host}/org")).run().succeeds();
    let digest = Layout::at(place.path("out")).images()[NAME].clone();
    (place, format!("{host}/{REPOSITORY}@{digest}"))
}

fn sign(place: &Place, host: &str, words: &str) -> Outcome {
    place.imgbuild(&format!("sign {host}/org/{NAME} {words}")).env("COSIGN_PASSWORD", PASSWORD).run()
}

/// How the signature check with these keys ends, and what is said of it.
fn signature(place: &Place, reference: &str, keys: &[&str]) -> (String, String) {
    let verify = place.imgbuild(&format!("verify {reference} --format json"));
    let verify = keys.iter().fold(verify, |verify, key| verify.option("--key", format!("{key}.pub")));
    let json = verify.run().json();
    let checks = json["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["check"] == "signature").unwrap();
    (check["state"].as_str().unwrap().to_owned(), check["said"].as_str().unwrap().to_owned())
}

#[track_caller]
fn is((found, why): (String, String), state: &str, said: &str) {
    assert!(found == state && why.contains(said), "{found}, {why} is not {state}, {said}");
}

#[test]
fn cosign_takes_what_we_sign_and_we_take_what_it_signs() {
    let empty = r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}"#;
    for generation in [2, 3] {
        let place = Place::new();
        let docker = Docker::start(&place, &docker::Door::Open);
        let (inner, reference) = pushed(&docker.host);
        inner.write("none.json", empty);
        let verify = |key: &str| {
            let words = format!(
                "verify --insecure-ignore-tlog --allow-http-registry --allow-insecure-registry --key {key}.pub"
            );
            run_cosign(&inner, generation, &words, &reference)
        };
        assert!(!verify("a").status.success(), "nothing is signed yet");
        for key in ["a", "cosign"] {
            sign(&inner, &docker.host, &format!("--key {key}.key")).succeeds();
            let output = verify(key);
            assert!(
                output.status.success(),
                "cosign {generation}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        assert!(!verify("b").status.success(), "cosign {generation} takes any key");
        // Now theirs, of another image.
        images::layout(&inner, "other", &[(NAME, 7)]);
        inner.imgbuild(&format!("push other --registry {}/theirs", docker.host)).run().succeeds();
        let digest = Layout::at(inner.path("other")).images()[NAME].clone();
        let theirs = format!("{}/theirs/kernel-bin@{digest}", docker.host);
        is(signature(&inner, &theirs, &["cosign"]), "failed", "none is there");
        let words = match generation {
            2 => "sign --yes --tlog-upload=false --allow-http-registry --key cosign.key",
            _ => "sign --yes --signing-config none.json --allow-http-registry --key cosign.key",
        };
        let output = run_cosign(&inner, generation, words, &theirs);
        assert!(output.status.success(), "cosign {generation}: {}", String::from_utf8_lossy(&output.stderr));
        is(signature(&inner, &theirs, &["cosign"]), "passed", "valid, by cosign.pub");
        is(signature(&inner, &theirs, &["a"]), "failed", "signed, but by none of the keys");
        is(signature(&inner, &theirs, &[]), "unchecked", "not checked: no key; 1 is there");
    }
}

#[test]
fn a_signature_counts_for_its_key_alone() {
    for registry in [Registry::new(Door::Open), Registry::with_referrers(Door::Open)] {
        let (place, reference) = pushed(&registry.host());
        is(signature(&place, &reference, &[]), "unchecked", "not checked: no key; none is there");
        is(signature(&place, &reference, &["a"]), "failed", "none is there");
        let outcome = sign(&place, &registry.host(), "--key a.key").succeeds();
        assert_eq!(outcome.stdout, format!("{}\n", reference.replace('@', ":5.10.1@")));
        is(signature(&place, &reference, &["a"]), "passed", "valid, by a.pub");
        is(signature(&place, &reference, &["b"]), "failed", "signed, but by none of the keys");
        is(signature(&place, &reference, &["b", "a"]), "passed", "valid, by a.pub");
        is(signature(&place, &reference, &[]), "unchecked", "not checked: no key; 2 are there");
        sign(&place, &registry.host(), "--key sec1.key").succeeds();
        is(signature(&place, &reference, &["a", "sec1"]), "passed", "valid, by a.pub and sec1.pub");
    }
}

#[test]
fn the_index_is_signed_and_its_platforms_where_asked() {
    let registry = Registry::with_referrers(Door::Open);
    let (place, reference) = pushed(&registry.host());
    let index = Layout::at(place.path("out")).image_index(NAME);
    let member = index["manifests"][0]["digest"].as_str().unwrap();
    let member = format!("{}@{member}", reference.split_once('@').unwrap().0);
    sign(&place, &registry.host(), "--key a.key").succeeds();
    is(signature(&place, &member, &["a"]), "failed", "none is there");
    let json = sign(&place, &registry.host(), "--key a.key --recursive --format json").succeeds().json();
    is(signature(&place, &member, &["a"]), "passed", "valid, by a.pub");
    let key = Key::read(&place.path("a.key")).unwrap();
    assert_eq!(json["key"], key.public().id());
    assert!(reference.ends_with(json["images"][0]["digest"].as_str().unwrap()), "{json}");
}

/// Puts a signature in cosign 2's form beside an image: any payload, any signature.
fn plant(registry: &Registry, reference: &str, payload: &[u8], signature: &[u8]) {
    let digest = reference.split_once('@').unwrap().1;
    let mut layer = registry.put_blob(REPOSITORY, simple::PAYLOAD, payload);
    layer["annotations"] = json!({ simple::SIGNATURE: STANDARD.encode(signature) });
    let config = registry.put_blob(REPOSITORY, "application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    registry.put_manifest(REPOSITORY, &format!("{}.sig", digest.replace(':', "-")), &manifest);
}

#[test]
fn what_is_forged_does_not_count_and_why_is_told() {
    let registry = Registry::new(Door::Open);
    let (place, reference) = pushed(&registry.host());
    let digest = reference.split_once('@').unwrap().1;
    let key = Key::read(&place.path("a.key")).unwrap();
    let other = format!("sha256:{}", "1".repeat(64));
    let (ours, theirs) = (simple::payload("x", digest), simple::payload("x", &other));
    let good = key.sign(&ours);
    let mut bent = good.clone();
    *bent.last_mut().unwrap() ^= 1;
    for (payload, bytes, said) in [
        // Of this image, with a signature that is another's.
        (&ours[..], key.sign(&theirs), "signed, but by none of the keys"),
        (&ours, bent, "signed, but by none of the keys"),
        (&ours, Vec::new(), "signed, but by none of the keys"),
        // A good signature, carried over from another image.
        (&theirs, key.sign(&theirs), "about another digest"),
        // Signed, and says nothing.
        (b"{}", key.sign(b"{}"), "is no payload of a signature"),
        (b"not json", key.sign(b"not json"), "is no payload of a signature"),
    ] {
        plant(&registry, &reference, payload, &bytes);
        is(signature(&place, &reference, &["a"]), "failed", said);
    }
    let outcome = place.imgbuild(&format!("verify {reference} --key a.pub")).run().exits(5);
    outcome.says("is not what is claimed of it").prints("FAILED");
    plant(&registry, &reference, &ours, &good);
    is(signature(&place, &reference, &["a"]), "passed", "valid, by a.pub");
}

#[test]
fn what_is_no_key_is_told_before_anything_is_asked() {
    let place = Place::new();
    signing::keys(&place);
    place.write("garbled.key", "-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n");
    place.write("empty.key", "");
    let sign = |key: &str, password: &str| {
        let command = place.imgbuild(&format!("sign 127.0.0.1:1/org/{NAME} --key {key}"));
        if password.is_empty() { command.run() } else { command.env("COSIGN_PASSWORD", password).run() }
    };
    for (key, password, code, said) in [
        ("nothing.key", "", 4, "nothing.key"),
        ("empty.key", "", 2, "`empty.key` holds no key: it has no PEM block"),
        ("garbled.key", "", 2, "`garbled.key` holds no key: its PEM block is garbled"),
        ("a.pub", "", 2, "`a.pub` holds a public key, and a private one is wanted"),
        ("rsa.key", "", 2, "`rsa.key` holds an RSA key; signatures here are ECDSA over P-256"),
        ("p384.key", "", 2, "`p384.key` holds an ECDSA key of another curve"),
        ("cosign.key", "", 2, "`cosign.key` is encrypted, and COSIGN_PASSWORD is not set"),
        ("cosign.key", "wrong", 2, "`cosign.key` cannot be opened: the password is wrong"),
    ] {
        sign(key, password).fails(code).says(said).says("hint: ");
    }
    let verify = |key: &str| place.imgbuild(&format!("verify 127.0.0.1:1/org/{NAME} --key {key}")).run();
    verify("a.key").fails(2).says("holds a private key, and a public one is wanted");
    verify("rsa.pub").fails(2).says("holds an RSA key");
    verify("p384.pub").fails(2).says("holds an ECDSA key of another curve");
}

#[test]
fn what_is_not_there_cannot_be_signed() {
    let registry = Registry::new(Door::Open);
    let (place, reference) = pushed(&registry.host());
    let command = format!("sign {}/org/kernel-bin:9.9 --key a.key", registry.host());
    place.imgbuild(&command).run().fails(4).says("kernel-bin:9.9` is not there");
    sign(&place, &registry.host(), "--key a.key --provenance").fails(4).says("has no provenance");
    place.imgbuild("sign kernel-bin:9.9 --key a.key").run().fails(2).says("no registry host");
    // It is signed before its provenance is looked for, and that is no harm.
    is(signature(&place, &reference, &["a"]), "passed", "valid, by a.pub");
}
