//! Images built again from what their provenance records, and from nothing else.

use std::path::Path;

use crate::support::Place;
use crate::support::layout::Layout;
use crate::support::source::{Gate, Source};
use fs_err as fs;
use imgbuild::attest::statement::Statement;
use imgbuild::fetch::mirror::Mirrors;
use imgbuild::inspect::diff::{Difference, Side};
use imgbuild::oci::layout::Layout as Read;
use imgbuild::plan::rebuild::{Error, Recorded};
use imgbuild::step::{Class, Diagnose, Watch};
use imgbuild::store::Store;
use serde_json::{Value, json};

const KERNEL: &str = "kernel-bin:5.10.1";

/// The provenance of an image for `x86_64` in `out`, and the digest that it is about.
fn provenance(place: &Place, image: &str) -> (Value, String) {
    let statement = place.imgbuild(&format!("provenance out:{image} --arch x86_64")).run().succeeds().json();
    let digest = format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap());
    (statement, digest)
}

/// Builds again with a store and nothing else of the place but its mirror; returns the digest, and how the image in `out`
/// differs from it.
fn rebuilt(
    place: &Place,
    store: &Path,
    statement: &Value,
    digest: &str,
) -> Result<(String, Vec<Difference>), Error> {
    let statement = Statement::parse(statement.to_string().as_bytes(), digest)?;
    let recorded = Recorded::of(&statement, digest)?;
    let mut mirrors = Mirrors::default();
    mirrors.add("test", place.path("mirror").to_str().unwrap());
    let watch = Watch::silent();
    let rebuilt = recorded.rebuild(&Store::open(store)?, mirrors, 2, &watch)?;
    let layout = Read::open(&place.path("out"))?;
    let original = Side { source: &layout, image: Some(recorded.asked().image.clone()) };
    let differences = rebuilt.differences(&original, &watch.cancel)?;
    Ok((rebuilt.digest.clone(), differences))
}

/// Takes recipes, fragments and lock away.
fn forget(place: &Place) {
    for dir in ["recipes", "kconfigs"] {
        fs::remove_dir_all(place.path(dir)).unwrap();
    }
}

#[test]
fn an_image_is_really_built_again_from_its_provenance_alone() {
    let mut place = Place::new();
    let gate = Gate::open_in(&place);
    Source::new().gate(&gate).install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all --compression zstd:5").run().succeeds();
    let compiled = gate.begun();
    for image in [KERNEL, "kernel-modules:5.10.1"] {
        let (statement, digest) = provenance(&place, image);
        let before = place.artifacts("kernel");
        if image == KERNEL {
            forget(&place);
        }
        // The store has the very image, and is not asked for it.
        let begun = gate.begun();
        let (again, differences) = rebuilt(&place, place.store(), &statement, &digest).unwrap();
        assert_eq!((again, differences), (digest.clone(), Vec::new()));
        assert!(gate.begun() > begun && compiled > 0, "nothing was compiled");
        assert_eq!(place.artifacts("kernel"), before);
        assert_eq!(place.half_made(), [""; 0]);
        // Nor does it have to have anything.
        let (again, _) = rebuilt(&place, &place.path("other-store"), &statement, &digest).unwrap();
        assert_eq!(again, digest);
    }
}

#[test]
fn what_comes_out_otherwise_is_told_by_file_and_kind() {
    let mut place = Place::new();
    let seed = place.write("seed", "the first day\0");
    Source::new().load(seed.to_str().unwrap()).install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let (statement, digest) = provenance(&place, KERNEL);
    place.write("seed", "the other day\0");
    let (again, differences) = rebuilt(&place, place.store(), &statement, &digest).unwrap();
    assert_ne!(again, digest);
    let first = &differences[0];
    assert_eq!(
        (first.path.as_ref().unwrap().to_string().as_str(), first.what.as_str()),
        ("boot/vmlinux", "bytes")
    );
    assert!(first.offset.is_some());
    assert!(differences.iter().all(|it| it.platform.as_deref() == Some("amd64")), "{differences:?}");
}

#[test]
fn a_recipe_of_ones_own_is_built_again_without_its_files() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    let recipe = "kind = \"kernel\"\nname = \"own\"\nextends = \"toy\"\nfragments = [\"./own.config\", \"../shared.config\"]\n";
    let file = place.write("deep/own/own.toml", recipe);
    place.write("deep/own/own.config", "CONFIG_NUMBER=5\n");
    place.write("deep/shared.config", "CONFIG_NUMBER=7\n");
    place.imgbuild("kernel 5.10.1 --arch x86_64 --recipe").arg(file).run().succeeds();
    let (statement, digest) = provenance(&place, "kernel-bin-own:5.10.1");
    forget(&place);
    fs::remove_dir_all(place.path("deep")).unwrap();
    assert_eq!(rebuilt(&place, place.store(), &statement, &digest).unwrap().0, digest);
    let config = Layout::at(place.path("out")).image("kernel-bin-own:5.10.1", "amd64");
    let config = String::from_utf8(config.entry("boot/config-5.10.1").content.clone()).unwrap();
    assert!(config.contains("CONFIG_NUMBER=7"), "{config}");
}

#[test]
fn a_provenance_that_cannot_be_followed_says_why() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch x86_64").run().succeeds();
    let (statement, digest) = provenance(&place, KERNEL);
    let asked = |change: &dyn Fn(&mut Value)| {
        let mut statement = statement.clone();
        change(&mut statement["predicate"]["buildDefinition"]);
        let error = rebuilt(&place, place.store(), &statement, &digest).unwrap_err();
        (error.class(), error.to_string() + &error.detail().unwrap_or_default())
    };
    let told = |change: &dyn Fn(&mut Value), class: Class, what: &str| {
        let (found, text) = asked(change);
        assert!(found == class && text.contains(what), "{found:?} {text}");
    };
    let parameters = |name: &'static str, value: Value| {
        move |it: &mut Value| it["externalParameters"][name] = value.clone()
    };
    told(
        &|it| it["buildType"] = json!("https://x.test/y"),
        Class::Verification,
        "build type `https://x.test/y`",
    );
    told(
        &|it| it["buildType"] = json!("https://imgbuild.io/index/v1"),
        Class::Verification,
        "about an index",
    );
    told(&|it| it["externalParameters"] = json!({}), Class::Verification, "missing field");
    told(&parameters("shell", json!("rm -rf /")), Class::Verification, "unknown field `shell`");
    told(&parameters("architecture", json!("vax")), Class::Verification, "vax");
    told(&parameters("compression", json!("lzma")), Class::Verification, "lzma");
    told(&parameters("image", json!("other:1")), Class::Verification, "and no other:1");
    told(&parameters("recipe", json!("gone")), Class::Usage, "unknown flavour `gone`");
    // No name leads to a file of this host.
    let secret = place.write("secret.toml", "kind = \"kernel\"\n");
    told(
        &parameters("recipe", json!(format!("./../{}", secret.display()))),
        Class::Usage,
        "among the files that were recorded",
    );
    let lock = |it: &mut Value| {
        it["externalParameters"]["catalogue"]["recipes/imgbuild.lock"] = json!("assembly = 99\n");
    };
    told(&lock, Class::Recipe, "assembly 99 is not known");
    let source = |it: &mut Value| {
        let lock = &mut it["externalParameters"]["catalogue"]["recipes/imgbuild.lock"];
        *lock = json!(lock.as_str().unwrap().replace("sha256 = \"", "sha256 = \"0000"));
    };
    told(&source, Class::Recipe, "64 lower-case");
}
