//! SBOMs and provenances: what they say, where they stand, and what becomes of those that are wrong.

use std::path::Path;

use crate::support::attested::{self, oras};
use crate::support::containerd::Containerd;
use crate::support::docker::{Docker, Door};
use crate::support::forge::{self, Item};
use crate::support::layout::Layout;
use crate::support::registry::{self, Registry};
use crate::support::source::Source;
use crate::support::volume;
use crate::support::{Place, sha256, tool};
use fs_err as fs;
use imgbuild::inspect::{Selection, sound_images};
use imgbuild::oci::layout::Layout as Read;
use imgbuild::plan::attest::check_sbom;
use imgbuild::step::Cancel;
use serde_json::{Value, json};

const KERNEL: &str = "kernel-bin:5.10.1";
const MODULES: &str = "kernel-modules:5.10.1";
const SBOM: &str = "application/spdx+json";
const PROVENANCE: &str = "application/vnd.in-toto+json";
const GPL: &str = "GPL-2.0-only WITH Linux-syscall-note";

/// A place with kernels for both architectures in `out`.
fn place() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    place
}

/// The digest of one platform's manifest.
fn member(place: &Place, name: &str, architecture: &str) -> String {
    let index = Layout::at(place.path("out")).image_index(name);
    let members = index["manifests"].as_array().unwrap();
    let member = members.iter().find(|member| member["platform"]["architecture"] == architecture).unwrap();
    member["digest"].as_str().unwrap().to_owned()
}

fn package<'d>(document: &'d Value, name: &str) -> &'d Value {
    let packages = document["packages"].as_array().unwrap();
    packages.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"))
}

fn files(document: &Value) -> Vec<&str> {
    document["files"].as_array().unwrap().iter().map(|file| file["fileName"].as_str().unwrap()).collect()
}

/// Everything of a registry below a repository: what oras sees attached to a reference, as type and digest.
fn discovered(reference: &str) -> Vec<(String, String)> {
    let text = oras("discover --plain-http --format json", reference);
    let list: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let each = |it: &Value| (text(&it["artifactType"]), text(&it["digest"]));
    let mut found: Vec<_> = list["manifests"].as_array().unwrap().iter().map(each).collect();
    found.sort();
    found
}

#[test]
fn an_sbom_passes_a_validator_and_names_files_layers_and_source() {
    let place = place();
    for (name, architecture, expected) in [
        (KERNEL, "x86_64", &["./boot/config-5.10.1", "./boot/vmlinux"][..]),
        (KERNEL, "arm64", &["./boot/config-5.10.1", "./boot/image", "./boot/vmlinux"]),
        (MODULES, "arm64", &["./lib/modules/5.10.1/kernel/drivers/toy.ko"]),
    ] {
        let command = format!("sbom out:{name} --arch {architecture}");
        let outcome = place.imgbuild(&command).run().succeeds();
        let document = attested::sbom(&place, &outcome.stdout);
        let files = files(&document);
        assert!(expected.iter().all(|path| files.contains(path)), "{files:?}");
        let source = package(&document, "linux");
        assert_eq!((&source["versionInfo"], &source["licenseDeclared"]), (&json!("5.10.1"), &json!(GPL)));
        assert_eq!(source["downloadLocation"], "https://kernel.test/pub/v5.x/linux-5.10.1.tar.xz");
        assert_eq!(outcome.stdout, place.imgbuild(&command).run().succeeds().stdout, "twice the same");
    }
    let document = place.imgbuild(&format!("sbom out:{KERNEL} --arch amd64")).run().succeeds().json();
    let layout = Layout::at(place.path("out"));
    let sum = sha256(&layout.image(KERNEL, "amd64").entry("boot/vmlinux").content);
    let file = &document["files"][1];
    assert_eq!(
        (&file["fileName"], &file["checksums"][1]["checksumValue"]),
        (&json!("./boot/vmlinux"), &json!(sum))
    );
    let digest = member(&place, KERNEL, "amd64");
    assert_eq!(
        format!(
            "sha256:{}",
            package(&document, "kernel-bin")["checksums"][0]["checksumValue"].as_str().unwrap()
        ),
        digest
    );
}

#[test]
fn an_sbom_of_a_root_volume_names_its_packages_and_programs() {
    let digest = "a".repeat(64);
    let mut image = volume::kubernetes();
    let list = format!("libtoy 2.0-1 {} {digest}\ncloud-init 25.1 all {digest}\n", image.arch);
    image.items.push(Item::file("usr/share/imgbuild/packages", list));
    image.items.push(Item::file("usr/lib/os-release", "ID=ubuntu\nVERSION_ID=\"20.04\"\n"));
    let programs =
        json!([{ "name": "runc", "version": "1.0.3", "sha256": digest, "url": "https://github.test/runc" }]);
    image.upper.push(Item::file("usr/share/imgbuild/programs.json", programs.to_string()));
    image.upper.push(volume::program("usr/bin/runc", "bytes"));
    let place = Place::new();
    forge::write(&place.path("out"), std::slice::from_ref(&image));
    let outcome = place.imgbuild("sbom out").run().succeeds();
    let document = attested::sbom(&place, &outcome.stdout);
    let purl = &package(&document, "libtoy")["externalRefs"][0]["referenceLocator"];
    assert_eq!(purl, &json!(format!("pkg:deb/ubuntu/libtoy@2.0-1?arch={}&distro=ubuntu-20.04", image.arch)));
    let runc = package(&document, "runc");
    assert_eq!(
        (&runc["downloadLocation"], &runc["licenseDeclared"]),
        (&json!("https://github.test/runc"), &json!("Apache-2.0"))
    );
    // What packages brought is told by the packages.
    assert_eq!(files(&document), ["./usr/bin/runc", "./usr/share/imgbuild/programs.json"]);

    // Without a list of its own, an image has dpkg's.
    image.without("usr/share/imgbuild/packages");
    forge::write(&place.path("foreign"), &[image]);
    let document = attested::sbom(&place, &place.imgbuild("sbom foreign").run().succeeds().stdout);
    assert_eq!(package(&document, "toy")["versionInfo"], "1:1.0-1");
    assert_eq!(package(&document, "toy").get("checksums"), None);
}

#[test]
fn a_provenance_fits_the_schemas_and_holds_all_that_was_asked_for_and_brought() {
    let place = place();
    let outcome = place.imgbuild(&format!("provenance out:{KERNEL} --arch arm64")).run().succeeds();
    let statement = attested::provenance(&place, &outcome.stdout);
    let digest = member(&place, KERNEL, "arm64");
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest["sha256:".len()..]);
    let definition = &statement["predicate"]["buildDefinition"];
    let asked = &definition["externalParameters"];
    let command = "imgbuild kernel 5.10.1 --arch arm64 --flavour toy --toolchain host";
    assert_eq!((&asked["command"], &asked["recipe"]), (&json!(command), &json!("toy")));
    let catalogue = asked["catalogue"].as_object().unwrap();
    let names: Vec<_> = catalogue.keys().collect();
    assert_eq!(names, ["kconfigs/toy.config", "recipes/imgbuild.lock", "recipes/kernel/toy.toml"]);
    for (name, text) in catalogue {
        assert_eq!(text, &json!(fs::read_to_string(place.path(name)).unwrap()), "{name}");
    }
    assert_eq!(definition["internalParameters"]["hermetic"], false);
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    let source = dependencies.iter().find(|it| it["annotations"]["role"] == "source").unwrap();
    assert_eq!(source["uri"], "https://kernel.test/pub/v5.x/linux-5.10.1.tar.xz");
    let tarball = fs::read(place.path("mirror/v5.x/linux-5.10.1.tar.xz")).unwrap();
    assert_eq!(source["digest"]["sha256"], sha256(&tarball));
    // Nothing of this machine is in it, the mirror's place neither.
    assert!(!outcome.stdout.contains(&place.work().display().to_string()), "{}", outcome.stdout);
}

#[test]
fn a_recipe_of_ones_own_is_recorded_with_what_lies_beside_it() {
    let place = place();
    let recipe = "kind = \"kernel\"\nname = \"own\"\nextends = \"toy\"\nfragments = [\"./own.config\", \"../shared.config\"]\n";
    let file = place.write("deep/own/own.toml", recipe);
    place.write("deep/own/own.config", "CONFIG_NUMBER=5\n");
    place.write("deep/shared.config", "CONFIG_NUMBER=7\n");
    place.imgbuild("kernel 5.10.1 --output own --recipe").arg(file).run().succeeds();
    let statement = place.imgbuild("provenance own:kernel-bin-own:5.10.1").run().succeeds().json();
    let asked = &statement["predicate"]["buildDefinition"]["externalParameters"];
    assert_eq!(asked["recipe"], "./own.toml");
    let names: Vec<_> = asked["catalogue"].as_object().unwrap().keys().cloned().collect();
    let expected = [
        "../shared.config",
        "./own.config",
        "./own.toml",
        "kconfigs/toy.config",
        "recipes/imgbuild.lock",
        "recipes/kernel/toy.toml",
    ];
    assert_eq!(names, expected);
}

#[test]
fn what_is_pushed_with_documents_is_found_with_them_and_is_the_same_image() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let registry = format!("{}/org", docker.host);
    let digest = Layout::at(place.path("out")).images()[KERNEL].clone();
    place.imgbuild("push out --attest --registry").arg(&registry).run().succeeds().prints(&digest);
    let reference = format!("{registry}/{KERNEL}");
    let repository = format!("{registry}/kernel-bin");
    let mut before = Vec::new();
    for about in [&digest, &member(&place, KERNEL, "amd64"), &member(&place, KERNEL, "arm64")] {
        let found = discovered(&format!("{repository}@{about}"));
        assert_eq!(found.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), [SBOM, PROVENANCE]);
        before.push(found);
    }
    for command in ["sbom", "provenance"] {
        let there = place.imgbuild(&format!("{command} {reference} --arch arm64")).run().succeeds();
        let here = place.imgbuild(&format!("{command} out:{KERNEL} --arch arm64")).run().succeeds();
        assert_eq!(there.stdout, here.stdout, "{command}");
    }
    // The index has platforms alone, and whoever pulls it sees nothing else.
    let raw = tool(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")].map(AsRef::as_ref),
    );
    assert_eq!(format!("sha256:{}", sha256(raw.as_bytes())), digest);
    let index: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    place.imgbuild(&format!("pull {reference} pulled")).run().succeeds();
    assert_eq!(Layout::at(place.path("pulled")).images()[KERNEL], digest);

    // Again, and nothing is attached twice.
    place.imgbuild("push out --attest --registry").arg(&registry).run().succeeds();
    for (about, before) in
        [&digest, &member(&place, KERNEL, "amd64"), &member(&place, KERNEL, "arm64")].into_iter().zip(before)
    {
        assert_eq!(discovered(&format!("{repository}@{about}")), before);
    }
}

#[test]
fn a_registry_that_lists_referrers_is_left_without_a_tag_for_them() {
    let place = place();
    let registry = Registry::with_referrers(registry::Door::Open);
    place.imgbuild(&format!("push out --attest --registry {}/org", registry.host())).run().succeeds();
    let tags: Vec<_> = registry.references("org/kernel-bin");
    assert!(
        tags.contains(&"5.10.1".to_owned()) && !tags.iter().any(|tag| tag.starts_with("sha256-")),
        "{tags:?}"
    );
    let reference = format!("{}/org/{KERNEL}", registry.host());
    for command in ["sbom", "provenance"] {
        let there = place.imgbuild(&format!("{command} {reference} --arch arm64")).run().succeeds();
        let here = place.imgbuild(&format!("{command} out:{KERNEL} --arch arm64")).run().succeeds();
        assert_eq!(there.stdout, here.stdout, "{command}");
    }
    // Pushed by digest, platforms have their documents and the index, which is to be joined, has none.
    let other = Registry::with_referrers(registry::Door::Open);
    place
        .imgbuild(&format!("push out --attest --by-digest --registry {}/org", other.host()))
        .run()
        .succeeds();
    let digest = Layout::at(place.path("out")).images()[KERNEL].clone();
    let about = |digest: &str| {
        let manifests = other.references("org/kernel-bin").into_iter();
        let documents = manifests.filter_map(|name| other.manifest("org/kernel-bin", &name));
        documents
            .map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
            .filter(|it| it["subject"]["digest"] == digest)
            .count()
    };
    assert_eq!((about(&digest), about(&member(&place, KERNEL, "amd64"))), (0, 2));
}

#[test]
fn consumers_are_undisturbed_by_documents() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let containerd = Containerd::start(&place);
    place.imgbuild(&format!("push out --attest --registry {}/org", docker.host)).run().succeeds();
    let (reference, digest) =
        (format!("{}/org/{KERNEL}", docker.host), Layout::at(place.path("out")).images()[KERNEL].clone());
    let common = ["--snapshotter", "native", "--platform", "linux/arm64"];
    containerd.ctr(&[&["images", "pull", "--plain-http"], &common[..], &[&reference]].concat());
    assert!(containerd.ctr(&["images", "ls"]).contains(&digest), "containerd has another digest");
    let at = place.path("mounted");
    fs::create_dir(&at).unwrap();
    let at = at.to_str().unwrap();
    containerd.ctr(&[&["images", "mount"], &common[..], &[&reference, at]].concat());
    let kernel = fs::read(containerd.sees(at).join("boot/image")).unwrap();
    assert!(kernel == Layout::at(place.path("out")).image(KERNEL, "arm64").entry("boot/image").content);
    containerd.ctr(&["images", "unmount", at]);
    let crane = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/readers/crane");
    let crane = crane.to_str().unwrap();
    assert_eq!(tool(crane, &["digest", &reference].map(AsRef::as_ref)).trim(), digest);
    tool(crane, &["validate", "--remote", &reference].map(AsRef::as_ref));
    let copy = place.path("copied");
    let to = format!("dir:{}", copy.display());
    let from = format!("docker://{reference}");
    tool("skopeo", &["copy", "--all", "--quiet", "--src-tls-verify=false", &from, &to].map(AsRef::as_ref));
    assert_eq!(format!("sha256:{}", sha256(&fs::read(copy.join("manifest.json")).unwrap())), digest);
}

#[test]
fn the_documents_about_an_index_name_its_platforms() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let registry = format!("{}/org", docker.host);
    place.imgbuild("push out --attest --registry").arg(&registry).run().succeeds();
    let digest = Layout::at(place.path("out")).images()[MODULES].clone();
    let repository = format!("{registry}/kernel-modules");
    for (kind, attached) in discovered(&format!("{repository}@{digest}")) {
        let dir = place.path("fetched");
        oras(&format!("pull --plain-http --no-tty {repository}@{attached} --output"), &dir);
        let manifest: Value =
            serde_json::from_str(&oras("manifest fetch --plain-http", format!("{repository}@{attached}")))
                .unwrap();
        assert_eq!(manifest["subject"]["digest"], digest);
        let blob = manifest["layers"][0]["digest"].as_str().unwrap();
        let text = oras("blob fetch --plain-http --output -", format!("{repository}@{blob}"));
        if kind == SBOM {
            let document = attested::sbom(&place, &text);
            assert_eq!(document["packages"].as_array().unwrap().len(), 3);
        } else {
            let statement = attested::provenance(&place, &text);
            let asked = &statement["predicate"]["buildDefinition"]["externalParameters"];
            assert_eq!(asked["platforms"]["arm64"], member(&place, MODULES, "arm64"));
        }
    }
}

#[test]
fn nothing_is_pushed_where_nothing_is_known_of_the_build() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let registry = format!("{}/org", docker.host);
    let elsewhere = place.path("elsewhere");
    let push = place.imgbuild("push out --attest --registry").arg(&registry).option("--store", &elsewhere);
    push.run()
        .fails(4)
        .says("nothing is known here of how kernel-bin:5.10.1 for amd64 was built")
        .says("--store");
    assert!(!place.path("registry/docker/registry/v2/repositories").exists());
    place.imgbuild(&format!("provenance out:{KERNEL}")).option("--store", &elsewhere).run().fails(4);
    place.imgbuild("kernel 5.10.1 --attest").run().fails(2).says("nothing is pushed");
}

#[test]
fn an_image_without_documents_and_one_with_wrong_ones_are_told() {
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let registry = format!("{}/org", docker.host);
    place.imgbuild("push out --registry").arg(&registry).run().succeeds();
    let reference = format!("{registry}/{KERNEL}");
    let ask = |command: &str| place.imgbuild(&format!("{command} {reference} --arch amd64")).run();
    ask("sbom").fails(4).says(format!("`{reference}` has no SBOM")).says("--attest");
    ask("provenance").fails(4).says(format!("`{reference}` has no provenance"));
    place.imgbuild(&format!("sbom {registry}/kernel-bin:5.10.2")).run().fails(4);

    let digest = member(&place, KERNEL, "amd64");
    let about = format!("{registry}/kernel-bin@{digest}");
    let attach = |kind: &str, name: &str, text: &str| {
        place.write(name, text);
        let path = place.work();
        let words =
            format!("attach --plain-http --no-tty --disable-path-validation --artifact-type {kind} {about}");
        oras(&words, format!("{}/{name}:{kind}", path.display()));
    };
    // Of the other platform, as somebody might who mistakes one for the other.
    let other = |command: &str| {
        place.imgbuild(&format!("{command} out:{KERNEL} --arch arm64")).run().succeeds().stdout
    };
    let arm64 = member(&place, KERNEL, "arm64");
    attach(PROVENANCE, "other.json", &other("provenance"));
    ask("provenance").fails(5).says(format!("the provenance of `{digest}` is about {arm64}"));
    attach(SBOM, "other.spdx", &other("sbom"));
    ask("sbom").fails(5).says(format!("it is about {arm64}"));
    attach(PROVENANCE, "garbled.json", "{\"_type\": 7");
    ask("provenance").fails(5);
    // The right one is found among them.
    place.imgbuild("push out --attest --registry").arg(&registry).run().succeeds();
    let statement = ask("provenance").succeeds().says("warning: passed over: ").json();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest["sha256:".len()..]);
    ask("sbom").succeeds().says("warning: passed over: ");
}

/// How an SBOM differs from what is in an image of a layout.
fn differences(dir: &Path, document: &Value) -> Vec<String> {
    let layout = Read::open(dir).unwrap();
    let images = sound_images(&layout, &Selection::default()).unwrap();
    let found = check_sbom(document.to_string().as_bytes(), &layout, &images[0], &Cancel::default());
    found.unwrap().iter().map(ToString::to_string).collect()
}

#[test]
fn an_sbom_that_says_something_else_than_the_layers_is_found_out() {
    let place = place();
    let own = place.path("own");
    place.imgbuild("kernel 5.10.1 --arch amd64 --output own").run().succeeds();
    let document = place.imgbuild(&format!("sbom own:{KERNEL}")).run().succeeds().json();
    assert_eq!(differences(&own, &document), [""; 0]);
    let mut wrong = document.clone();
    wrong["files"][1]["checksums"][1]["checksumValue"] = "0".repeat(64).into();
    let found = differences(&own, &wrong);
    assert!(
        found.len() == 1 && found[0].contains("boot/vmlinux: the SBOM has it as sha256:000"),
        "{found:?}"
    );
    let mut short = document.clone();
    short["files"].as_array_mut().unwrap().remove(0);
    let found = differences(&own, &short);
    assert!(
        found.len() == 1 && found[0].contains("boot/config-5.10.1: it is in the image and not in the SBOM"),
        "{found:?}"
    );
}
