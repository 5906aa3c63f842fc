//! The whole release as the workflow makes it, with real kernels and a whole root volume, at the real docker-registry.

use std::path::Path;

use crate::support::docker::{Docker, Door};
use crate::support::signing;
use crate::support::{Imgbuild, Place, host, node, real, tool, ubuntu};
use fs_err as fs;
use serde_json::Value;

/// A copy of the catalogue that releases the tiny kernel for both architectures, and one root volume for this host's.
fn place() -> Place {
    let place = Place::with_shared_store();
    for dir in ["recipes", "kconfigs", "keys"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        tool("cp", &["-r".as_ref(), from.as_os_str(), place.work().as_os_str()]);
    }
    let edit = |path: &str, edit: &dyn Fn(&str) -> String| {
        let path = place.path(path);
        let lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(edit).collect();
        fs::write(path, lines.join("\n")).unwrap();
    };
    for name in crate::support::names(&place.path("recipes/kernel")) {
        edit(&format!("recipes/kernel/{name}"), &|line| {
            if line.starts_with("released =") { String::new() } else { line.to_owned() }
        });
    }
    edit("recipes/kernel/tiny.toml", &|line| {
        if line.starts_with("series =") {
            format!("{line}\nreleased = [\"{}\"]", real::VERSION)
        } else {
            line.to_owned()
        }
    });
    edit("recipes/os/ubuntu-20.04.toml", &|line| {
        if line.starts_with("kubernetes =") {
            format!("kubernetes = [\"1.22.8\"]\nreleased-on = [\"{}\"]", host())
        } else {
            line.to_owned()
        }
    });
    let is_other = |name: &&String| {
        Path::new(name).extension().is_some_and(|extension| extension == "toml")
            && *name != "ubuntu-20.04.toml"
    };
    for name in crate::support::names(&place.path("recipes/os")).iter().filter(is_other) {
        // Those that extend the one above would have its versions.
        edit(&format!("recipes/os/{name}"), &|line| {
            if line.starts_with("kind =") {
                format!("{line}\nkubernetes = []")
            } else if line.starts_with("kubernetes =") {
                String::new()
            } else {
                line.to_owned()
            }
        });
    }
    ubuntu::releases(&place);
    fs::rename(place.path("standin.lock"), place.path("recipes/imgbuild.lock")).unwrap();
    // With its packages pinned, the root volume has a key too.
    ubuntu::with_standin(place.imgbuild("lock os/ubuntu-20.04"), &place).run().succeeds();
    place
}

/// The files of the registry.
fn stored(place: &Place) -> String {
    tool("find", &[place.path("registry").as_os_str(), "-type".as_ref(), "f".as_ref()])
}

#[test]
fn the_whole_pipeline_and_then_again_for_nothing() {
    let _alone = real::alone();
    let place = place();
    let docker = Docker::start(&place, &Door::Open);
    let imgbuild = |words: &str| -> Imgbuild {
        let run = place.imgbuild(&format!("{words} --registry {}/org", docker.host));
        ubuntu::with_standin(run, &place)
    };
    let matrix = || -> Vec<String> {
        let line = imgbuild("plan --all --format github").run().succeeds().stdout;
        let matrix: Value = serde_json::from_str(line.trim().strip_prefix("matrix=").unwrap()).unwrap();
        let cells = matrix["include"].as_array().unwrap().clone();
        cells.iter().map(|cell| cell["cell"].as_str().unwrap().to_owned()).collect()
    };
    let (tiny, os) = (real::VERSION, node::architecture());
    let due = matrix();
    let cells = [
        format!("kernel/tiny/{tiny}/amd64"),
        format!("kernel/tiny/{tiny}/arm64"),
        format!("os/ubuntu-20.04/1.22.8/{os}"),
    ];
    assert_eq!(due, cells);
    for cell in &due {
        let done =
            imgbuild(&format!("release --attest --only {cell}")).run().succeeds().prints("  published");
        let _ = if cell.starts_with("kernel") { done.prints("init after") } else { done };
    }
    let joined = imgbuild("release --join --attest --format json").run().succeeds().json();
    let images: Vec<_> = joined["images"].as_array().unwrap().iter().map(|image| &image["image"]).collect();
    assert_eq!(images, ["capmvm-k8s-os:1.22.8", real::KERNEL, real::MODULES], "{joined}");
    // The kernels that were built apart are those that are recorded.
    let recorded = fs::read_to_string(place.path("recipes/digests.toml")).unwrap();
    for digest in joined["images"][1]["platforms"].as_object().unwrap().values() {
        assert!(recorded.contains(digest.as_str().unwrap()), "{digest}");
    }
    for (name, platforms) in [(real::KERNEL, 2), (real::MODULES, 2), ("capmvm-k8s-os:1.22.8", 1)] {
        let reference = format!("docker://{}/org/{name}", docker.host);
        let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &reference].map(AsRef::as_ref));
        let index: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(
            index["manifests"].as_array().unwrap().len(),
            platforms,
            "{name}: the index has platforms only"
        );
        for document in ["sbom", "provenance"] {
            let words = format!("{document} {}/org/{name} --arch {}", docker.host, host());
            assert!(place.imgbuild(&words).run().succeeds().json().is_object());
        }
    }
    signing::keys(&place);
    for name in [real::KERNEL, real::MODULES, "capmvm-k8s-os:1.22.8"] {
        let reference = format!("{}/org/{name}", docker.host);
        place.imgbuild(&format!("sign {reference} --key a.key --provenance")).run().succeeds();
        place.imgbuild(&format!("verify {reference} --key a.pub")).run().succeeds().prints("sbom");
    }
    let before = stored(&place);
    assert_eq!(matrix(), [""; 0]);
    imgbuild("release --attest").run().succeeds().prints("nothing to do: all of it is published");
    imgbuild("release --join --attest")
        .run()
        .succeeds()
        .prints("nothing to do: every tag is where it belongs");
    assert_eq!(stored(&place), before);
}
