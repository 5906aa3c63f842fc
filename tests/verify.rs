//! `imgbuild verify`: what is claimed of an image held against keys, layers, a build of one's own, and other rebuilders.

use std::os::unix::fs::PermissionsExt;

use crate::support::docker::{self, Docker};
use crate::support::layout::Layout;
use crate::support::registry::{Door, Fault, Registry};
use crate::support::source::Source;
use crate::support::{Imgbuild, Outcome, Place, signing};
use imgbuild::sign::bundle::{self, BUNDLE, PREDICATE};
use imgbuild::sign::dsse::Envelope;
use imgbuild::sign::statement::{self, STATEMENT};
use imgbuild::sign::{Key, Public};
use serde_json::{Value, json};

const NAME: &str = "kernel-bin:5.10.1";
const REPOSITORY: &str = "org/kernel-bin";
const REBUILD: &str = "https://imgbuild.io/rebuild/v1";
const SBOM: &str = "application/spdx+json";
const PROVENANCE: &str = "application/vnd.in-toto+json";

/// A place with keys and kernels for both architectures, pushed with their documents.
fn pushed(host: &str) -> Place {
    pushed_with(host, "--attest")
}

/// The same, pushed with these words; with none, without documents.
fn pushed_with(host: &str, words: &str) -> Place {
    let mut place = Place::new();
    signing::keys(&place);
    Source::new().install(&mut place);
    push(&place, host, words);
    place
}

fn push(place: &Place, host: &str, words: &str) {
    place
        .imgbuild(&format!("kernel 5.10.1 --arch all --push --registry {host}/org {words}"))
        .run()
        .succeeds();
}

fn verify(place: &Place, host: &str, words: &str) -> Imgbuild {
    place.imgbuild(&format!("verify {host}/org/{NAME} {words}"))
}

/// The check of this name, of this platform or of the whole image, as `state: said`.
fn check(json: &Value, name: &str, platform: &str) -> String {
    let checks = json["checks"].as_array().unwrap();
    let fits =
        |check: &&Value| check["check"] == name && check["platform"].as_str().unwrap_or("") == platform;
    let found = checks.iter().find(fits).unwrap_or_else(|| panic!("no {name} of `{platform}`: {json:#}"));
    format!("{}: {}", found["state"].as_str().unwrap(), found["said"].as_str().unwrap())
}

/// The digest of a platform's manifest.
fn member(place: &Place, architecture: &str) -> String {
    let index = Layout::at(place.path("out")).image_index(NAME);
    let members = index["manifests"].as_array().unwrap();
    let member = members.iter().find(|member| member["platform"]["architecture"] == architecture).unwrap();
    member["digest"].as_str().unwrap().to_owned()
}

/// Attaches something as anybody who may push can.
fn plant(registry: &Registry, subject: &str, artifact_type: &str, bytes: &[u8], annotations: &Value) {
    let layer = registry.put_blob(REPOSITORY, artifact_type, bytes);
    let config = registry.put_blob(REPOSITORY, "application/vnd.oci.empty.v1+json", b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": artifact_type, "config": config, "layers": [layer], "annotations": annotations,
        "subject": { "mediaType": "x", "digest": subject, "size": 1 },
    });
    let digest = format!("sha256:{}", crate::support::sha256(manifest.to_string().as_bytes()));
    registry.put_manifest(REPOSITORY, &digest, &manifest);
}

/// Attaches a statement to `subject`, signed, that is about `about`.
fn plant_statement(
    registry: &Registry,
    subject: &str,
    about: &str,
    predicate: (&str, &Value),
    key: &Key,
    hint: &Public,
) {
    let statement = statement::write(about, None, predicate.0, predicate.1);
    let envelope = Envelope::seal(key, STATEMENT, &statement);
    plant(registry, subject, BUNDLE, &bundle::write(&envelope, hint), &json!({ PREDICATE: predicate.0 }));
}

/// What a rebuilder says.
fn rebuild(expires: &str) -> Value {
    json!({
        "rebuilder": { "name": "r", "key": "k", "version": {} },
        "host": { "name": "h", "os": "linux", "architecture": "x86_64", "kernel": "6" },
        "rebuiltOn": "2026-01-01T00:00:00Z", "expires": expires,
    })
}

#[test]
fn what_is_released_as_it_should_be_passes_every_check() {
    for registry in [Registry::new(Door::Open), Registry::with_referrers(Door::Open)] {
        let host = registry.host();
        let place = pushed(&host);
        place.imgbuild(&format!("sign {host}/org/{NAME} --key a.key --provenance")).run().succeeds();
        let json = verify(&place, &host, "--key a.pub --format json").run().succeeds().json();
        assert_eq!(
            (&json["verified"], check(&json, "signature", "").as_str()),
            (&json!(true), "passed: valid, by a.pub")
        );
        for platform in ["amd64", "arm64"] {
            assert_eq!(check(&json, "sbom", platform), "passed: says what is in the layers");
            let provenance = check(&json, "provenance", platform);
            assert!(
                provenance.starts_with("passed: about this digest, signed by a.pub; built by imgbuild"),
                "{provenance}"
            );
        }
        assert_eq!(json["digest"], Layout::at(place.path("out")).images()[NAME]);
        // Without a key it says what it did not look at.
        let outcome = verify(&place, &host, "").run().succeeds();
        outcome.prints("not checked: no key; 2 are there").prints("sbom");
        // One platform of it.
        let json = verify(&place, &host, "--arch arm64 --format json").run().succeeds().json();
        let platforms: Vec<_> =
            json["checks"].as_array().unwrap().iter().filter_map(|it| it["platform"].as_str()).collect();
        assert_eq!(platforms, ["arm64", "arm64"]);
    }
}

#[test]
fn what_is_missing_fails() {
    let registry = Registry::new(Door::Open);
    let host = registry.host();
    let place = pushed_with(&host, "");
    let outcome = verify(&place, &host, "--rebuild --format json").run().exits(5);
    let json = outcome.json();
    assert_eq!(check(&json, "provenance", "amd64"), "failed: none is there");
    assert_eq!(check(&json, "sbom", "arm64"), "failed: none is there");
    assert_eq!(check(&json, "rebuild", "arm64"), "failed: there is no provenance to build it from");
    outcome.says("is not what is claimed of it: 6 failed checks").says("hint: ");
    let missing = place.imgbuild(&format!("verify {host}/org/kernel-bin:9")).run();
    missing.fails(4).says("kernel-bin:9` is not there");
}

#[test]
fn documents_about_something_else_fail_and_do_no_harm_beside_good_ones() {
    let registry = Registry::with_referrers(Door::Open);
    let host = registry.host();
    let place = pushed_with(&host, "");
    let [amd64, arm64] = ["amd64", "arm64"].map(|it| member(&place, it));
    let provenance = place.imgbuild("provenance out:kernel-bin:5.10.1 --arch arm64").run().succeeds().stdout;
    let sbom = place.imgbuild("sbom out:kernel-bin:5.10.1 --arch arm64").run().succeeds().stdout;
    // Those of arm64, attached to amd64.
    plant(&registry, &amd64, PROVENANCE, provenance.as_bytes(), &json!({}));
    plant(&registry, &amd64, SBOM, sbom.as_bytes(), &json!({}));
    plant(&registry, &arm64, PROVENANCE, b"{}", &json!({}));
    plant(&registry, &arm64, SBOM, b"no json", &json!({}));
    let json = verify(&place, &host, "--format json").run().exits(5).json();
    let said = check(&json, "provenance", "amd64");
    assert!(said.starts_with("failed: ") && said.contains(&format!("is about {arm64}")), "{said}");
    assert!(
        check(&json, "sbom", "amd64").starts_with("failed: does not say what is in the layers"),
        "{json:#}"
    );
    assert!(check(&json, "provenance", "arm64").starts_with("failed: "));
    assert!(check(&json, "sbom", "arm64").starts_with("failed: "));
    // An SBOM that says one file is another.
    let mut bent: Value =
        serde_json::from_str(&place.imgbuild("sbom out:kernel-bin:5.10.1 --arch amd64").run().stdout)
            .unwrap();
    let checksum = &mut bent["files"][0]["checksums"];
    for sum in checksum.as_array_mut().unwrap() {
        let digits = sum["checksumValue"].as_str().unwrap().len();
        sum["checksumValue"] = "0".repeat(digits).into();
    }
    let path = bent["files"][0]["fileName"].as_str().unwrap().trim_start_matches("./").to_owned();
    plant(&registry, &amd64, SBOM, bent.to_string().as_bytes(), &json!({}));
    let json = verify(&place, &host, "--format json").run().exits(5).json();
    let said = check(&json, "sbom", "amd64");
    assert!(said.contains(&format!("does not say what is in the layers: {path}: ")), "{said}");
    place.imgbuild(&format!("push out {NAME} --attest --registry {host}/org")).run().succeeds();
    let json = verify(&place, &host, "--format json").run().succeeds().json();
    assert_eq!(check(&json, "sbom", "amd64"), "passed: says what is in the layers");
}

#[test]
fn a_provenance_signed_by_others_is_not_taken_for_ours() {
    let registry = Registry::with_referrers(Door::Open);
    let host = registry.host();
    let place = pushed_with(&host, "");
    place.imgbuild(&format!("sign {host}/org/{NAME} --key a.key")).run().succeeds();
    let (ours, theirs) = (Key::read(&place.path("a.key")).unwrap(), Key::read(&place.path("b.key")).unwrap());
    for arch in ["amd64", "arm64"] {
        let text = place.imgbuild(&format!("provenance out:{NAME} --arch {arch}")).run().succeeds().stdout;
        let envelope = Envelope::seal(&theirs, STATEMENT, text.as_bytes());
        let predicate = json!({ PREDICATE: "https://slsa.dev/provenance/v1" });
        // It hints at our key, which a hint is free to do.
        let bytes = bundle::write(&envelope, &ours.public());
        plant(&registry, &member(&place, arch), BUNDLE, &bytes, &predicate);
    }
    let json = verify(&place, &host, "--key a.pub --format json").run().exits(5).json();
    assert_eq!(check(&json, "provenance", "amd64"), "failed: signed, but by none of the keys");
    let json = verify(&place, &host, "--key b.pub --format json").run().exits(5).json();
    assert!(check(&json, "provenance", "amd64").starts_with("passed: about this digest, signed by b.pub"));
    assert_eq!(check(&json, "signature", ""), "failed: signed, but by none of the keys");
}

#[test]
fn a_tag_that_moves_meanwhile_is_told() {
    let registry = Registry::with_referrers(Door::Open);
    let host = registry.host();
    let place = pushed(&host);
    let theirs = registry.manifest(REPOSITORY, &member(&place, "arm64")).unwrap();
    // At the first reading it is ours, at the second theirs.
    registry.faults("GET", "/manifests/5.10.1", 1, Fault::Slow(std::time::Duration::ZERO));
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": member(&place, "arm64"),
            "size": theirs.len(), "platform": { "os": "linux", "architecture": "arm64" } }] });
    registry.fault(
        "GET",
        "/manifests/5.10.1",
        Fault::Race(REPOSITORY.into(), index.to_string().into_bytes()),
    );
    let json = verify(&place, &host, "--format json").run().exits(5).json();
    assert!(check(&json, "tag", "").starts_with("failed: moved meanwhile, to sha256:"), "{json:#}");
    assert_eq!(check(&json, "sbom", "amd64"), "passed: says what is in the layers");
}

#[test]
fn what_is_built_again_comes_out_the_same_and_is_said_so_by_those_who_did() {
    let registry = Registry::new(Door::Open);
    let host = registry.host();
    let place = pushed(&host);
    place.write("trusted/a.pub", fs_err::read(place.path("a.pub")).unwrap());
    place.write("trusted/again.pem", fs_err::read(place.path("a.pub")).unwrap());
    place.write("trusted/cosign.pub", fs_err::read(place.path("cosign.pub")).unwrap());
    place.write("trusted/README", "who is who");
    let quorum = |count: usize| {
        verify(&place, &host, &format!("--quorum {count} --trust trusted --format json")).run()
    };
    assert_eq!(check(&quorum(1).exits(5).json(), "quorum", "amd64"), "failed: 0 of 1");
    let attest = |key: &str, name: &str| -> Outcome {
        verify(&place, &host, &format!("--rebuild --attest --key {key} --as {name} --format json"))
            .env("COSIGN_PASSWORD", signing::PASSWORD)
            .run()
    };
    let json = attest("a.key", "us").succeeds().json();
    for platform in ["amd64", "arm64"] {
        assert_eq!(check(&json, "rebuild", platform), "passed: built again to the same digest");
    }
    assert_eq!(check(&quorum(1).succeeds().json(), "quorum", "arm64"), "passed: 1 of 1: trusted/a.pub");
    // The same key once more, under another name, is no second rebuilder; nor is a stranger.
    attest("a.key", "somebody-else").succeeds();
    attest("b.key", "stranger").succeeds();
    let json = quorum(2).exits(5).json();
    assert_eq!(
        check(&json, "quorum", "amd64"),
        "failed: 1 of 2: trusted/a.pub (not counted: 1 by nobody trusted)"
    );
    attest("cosign.key", "them").succeeds();
    let json = quorum(2).succeeds().json();
    let said = check(&json, "quorum", "amd64");
    assert!(said.starts_with("passed: 2 of 2: ") && said.contains("trusted/cosign.pub"), "{said}");
    // A file of several keys, with words between, is as good as a directory.
    let both = [
        "us\n",
        include_str!("support/signing/a.public.pem"),
        "them\n",
        include_str!("support/signing/cosign.public.pem"),
    ];
    place.write("both.txt", both.concat());
    verify(&place, &host, "--quorum 2 --trust both.txt").run().succeeds().prints("2 of 2");
    // Without --trust, those of --key are trusted.
    place.imgbuild(&format!("sign {host}/org/{NAME} --key b.key")).run().succeeds();
    verify(&place, &host, "--quorum 1 --key b.pub").run().succeeds().prints("1 of 1: b.pub");
}

#[test]
fn a_statement_that_is_forged_expired_or_about_another_digest_does_not_count() {
    let registry = Registry::with_referrers(Door::Open);
    let host = registry.host();
    let place = pushed(&host);
    let key = |name: &str| Key::read(&place.path(format!("{name}.key"))).unwrap();
    let (a, b) = (key("a"), key("b"));
    let [amd64, arm64] = ["amd64", "arm64"].map(|it| member(&place, it));
    let quorum = || {
        let json = verify(&place, &host, "--arch x86_64 --quorum 1 --trust a.pub --format json").run().json();
        check(&json, "quorum", "amd64")
    };
    let (good, past) = (rebuild("2999-01-01T00:00:00Z"), rebuild("2026-02-01T00:00:00Z"));
    plant_statement(&registry, &amd64, &amd64, (REBUILD, &past), &a, &a.public());
    assert_eq!(quorum(), "failed: 0 of 1 (not counted: 1 expired on 2026-02-01T00:00:00Z)");
    plant_statement(&registry, &amd64, &arm64, (REBUILD, &good), &a, &a.public());
    assert!(quorum().contains(&format!("1 about another digest, {arm64}")), "{}", quorum());
    // Another's signature under our key's hint.
    plant_statement(&registry, &amd64, &amd64, (REBUILD, &good), &b, &a.public());
    assert!(quorum().contains("1 by nobody trusted"), "{}", quorum());
    plant_statement(&registry, &amd64, &amd64, (REBUILD, &json!({})), &a, &a.public());
    assert!(quorum().contains("1 garbled"), "{}", quorum());
    plant_statement(&registry, &amd64, &amd64, (REBUILD, &rebuild("some day")), &a, &a.public());
    assert!(quorum().contains("1 without an end"), "{}", quorum());
    // Of another type.
    plant_statement(&registry, &amd64, &amd64, ("https://example.org/x", &good), &a, &a.public());
    assert!(quorum().starts_with("failed: 0 of 1"), "{}", quorum());
    plant_statement(&registry, &amd64, &amd64, (REBUILD, &good), &a, &a.public());
    assert!(quorum().starts_with("passed: 1 of 1: a.pub (not counted: "), "{}", quorum());
}

#[test]
fn what_comes_out_otherwise_is_told_by_file_and_kind_and_not_attested() {
    let registry = Registry::with_referrers(Door::Open);
    let host = registry.host();
    let mut place = Place::new();
    signing::keys(&place);
    let seed = place.write("seed", "the first day\0");
    Source::new().load(seed.to_str().unwrap()).install(&mut place);
    push(&place, &host, "--attest");
    place.write("seed", "the other day\0");
    let before = registry.references(REPOSITORY);
    let outcome = verify(&place, &host, "--rebuild --arch x86_64 --attest --key a.key").run().exits(9);
    outcome
        .says("comes out otherwise when it is built again")
        .prints("built again to another digest, sha256:")
        .prints("first difference (A published, B built again): boot/vmlinux: bytes differ from offset");
    assert_eq!(registry.references(REPOSITORY), before);
    let json = verify(&place, &host, "--rebuild --arch x86_64 --format json").run().exits(9).json();
    let checks = json["checks"].as_array().unwrap();
    let rebuild = checks.iter().find(|check| check["check"] == "rebuild").unwrap();
    assert_eq!(
        (&rebuild["difference"]["path"], &rebuild["difference"]["what"]),
        (&json!("boot/vmlinux"), &json!("bytes"))
    );
    // A failed check is worse.
    verify(&place, &host, "--rebuild --arch x86_64 --key b.pub").run().exits(5);
}

#[test]
fn what_does_not_fit_together_is_told_before_anything_is_asked() {
    let place = Place::new();
    signing::keys(&place);
    place.write("none/README", "");
    place.write("text.pub", "no key");
    for (words, code, said) in [
        ("--attest --rebuild", 2, "no private key is named"),
        ("--attest --rebuild --key a.pub", 2, "no private key is named"),
        ("--attest --rebuild --key a.key --key b.key", 2, "two private keys are named"),
        ("--quorum 2", 2, "nobody is trusted"),
        ("--quorum 2 --trust none", 2, "`none` holds no key: no file in it is named `*.pub` or `*.pem`"),
        ("--quorum 2 --trust text.pub", 2, "`text.pub` holds no key"),
        ("--quorum 2 --trust nowhere", 4, "nowhere"),
    ] {
        verify(&place, "127.0.0.1:1", words).run().fails(code).says(said).says("hint: ");
    }
    for words in
        ["--attest --key a.key", "--trust a.pub", "--identity x", "--issuer x", "--quorum 0", "--jobs 2"]
    {
        assert_eq!(verify(&place, "127.0.0.1:1", words).run().code, Some(2), "{words}");
    }
}

#[test]
fn an_identity_is_checked_by_cosign_where_it_is() {
    let registry = Registry::new(Door::Open);
    let host = registry.host();
    let place = pushed(&host);
    let digest = Layout::at(place.path("out")).images()[NAME].clone();
    let words = "--identity me@example.org --issuer https://issuer.example --format json";
    let ask = |answer: &str| {
        let bin = place.path("bin");
        let cosign = place.write(
            "bin/cosign",
            format!("#!/bin/sh\necho \"$@\" >{}\n{answer}\n", place.path("asked").display()),
        );
        fs_err::set_permissions(cosign, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        verify(&place, &host, words).env("PATH", path).run()
    };
    let json = ask("exit 0").succeeds().json();
    assert_eq!(check(&json, "identity", ""), "passed: signed by me@example.org, cosign says");
    let asked = fs_err::read_to_string(place.path("asked")).unwrap();
    let wanted = format!(
        "--certificate-identity me@example.org --certificate-oidc-issuer https://issuer.example --allow-http-registry {host}/{REPOSITORY}@{digest}\n"
    );
    assert!(asked.ends_with(&wanted), "{asked}");
    let json = ask("echo 'Error: no matching signatures' >&2; exit 10").exits(5).json();
    assert_eq!(check(&json, "identity", ""), "failed: cosign says: Error: no matching signatures");
    // Without it.
    let outcome = verify(&place, &host, words).env("PATH", place.path("nothing").into_os_string()).run();
    outcome.fails(4).says("this host has none").says("--key cosign.pub");
}

#[test]
fn cosign_reads_signed_provenances_at_a_real_registry() {
    let place = Place::new();
    let docker = Docker::start(&place, &docker::Door::Open);
    let inner = pushed(&docker.host);
    inner
        .imgbuild(&format!("sign {}/org/{NAME} --key a.key --provenance --recursive", docker.host))
        .run()
        .succeeds();
    verify(&inner, &docker.host, "--key a.pub").run().succeeds().prints("signed by a.pub");
    let reference = format!("{}/{REPOSITORY}@{}", docker.host, member(&inner, "amd64"));
    let words = |key: &str| {
        format!(
            "verify-attestation --insecure-ignore-tlog --allow-http-registry --type slsaprovenance1 --key {key}.pub"
        )
    };
    let output = signing::run_cosign(&inner, 3, &words("a"), &reference);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!signing::run_cosign(&inner, 3, &words("b"), &reference).status.success());
}
