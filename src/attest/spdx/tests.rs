use super::*;

const IMAGE: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const CREATED: &str = "2026-07-30T10:56:00Z";

fn digits(digit: &str) -> String {
    digit.repeat(64)
}

fn labels(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn package(name: &str, version: &str, digit: &str) -> Package {
    let (name, version) = (name.to_owned(), version.to_owned());
    Package { name, version, arch: "amd64".into(), sha256: Some(digits(digit)) }
}

fn file(path: &str, layer: usize) -> File {
    File { path: path.into(), sha1: "1".repeat(40), sha256: digits("2"), layer }
}

/// A node with two layers.
fn contents() -> Contents {
    let program = Program {
        name: "runc".into(),
        version: "1.0.3".into(),
        sha256: digits("e"),
        url: Some("https://github.test/runc.amd64".into()),
    };
    Contents {
        files: vec![file("usr/bin/runc", 1), file("usr/bin/r+unc", 1)],
        packages: vec![package("libstdc++6", "1:10.2~a+b", "c"), package("zlib1g", "1.2", "d")],
        packages_layer: 0,
        distribution: Some(("ubuntu".into(), "20.04".into())),
        programs: vec![program],
        programs_layer: 1,
    }
}

fn written(contents: &Contents, labels: &Labels, inputs: &[Resource]) -> Vec<u8> {
    let layers = [format!("sha256:{}", digits("b")), format!("sha256:{}", digits("9"))];
    let subject =
        Subject { name: "node:1.22.8", digest: IMAGE, architecture: "amd64", layers: &layers, labels };
    document(&subject, contents, inputs, CREATED)
}

#[test]
fn a_document_tells_layers_packages_programs_files_source_and_tools() {
    let labels = labels(&[
        ("io.imgbuild.kernel.source", &format!("sha256:{}", digits("f"))),
        ("org.opencontainers.image.version", "5.10.1"),
        ("org.opencontainers.image.source", "https://k.test/linux-5.10.1.tar.xz"),
        ("org.opencontainers.image.licenses", "GPL-2.0-only"),
    ]);
    let tool = Resource::new("gcc-10", deb("debian", "gcc-10", "10.2", "amd64", None), &digits("3"));
    let inputs = [tool.with("role", "toolchain").with("version", "10.2"), Resource::new("x", "y", "z")];
    let bytes = written(&contents(), &labels, &inputs);
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let named = |name: &str| {
        let packages = document["packages"].as_array().unwrap();
        packages.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    let purl = |name: &str| named(name)["externalRefs"][0]["referenceLocator"].as_str().unwrap().to_owned();
    assert_eq!(purl("node"), format!("pkg:oci/node@sha256%3A{}?arch=amd64&tag=1.22.8", digits("a")));
    assert_eq!(
        purl("libstdc++6"),
        "pkg:deb/ubuntu/libstdc%2B%2B6@1%3A10.2~a%2Bb?arch=amd64&distro=ubuntu-20.04"
    );
    assert_eq!(purl("gcc-10"), "pkg:deb/debian/gcc-10@10.2?arch=amd64");
    assert_eq!(named("linux")["downloadLocation"], "https://k.test/linux-5.10.1.tar.xz");
    assert_eq!(named("runc")["downloadLocation"], "https://github.test/runc.amd64");
    assert_eq!(
        (&named("layer 1 of 2")["filesAnalyzed"], &named("layer 2 of 2")["filesAnalyzed"]),
        (&json!(false), &json!(true))
    );
    let related = |a: &str, how: &str, b: &str| {
        let id = |name: &str| named(name)["SPDXID"].clone();
        let wanted = json!({ "spdxElementId": id(a), "relationshipType": how, "relatedSpdxElement": id(b) });
        assert!(document["relationships"].as_array().unwrap().contains(&wanted), "{wanted}");
    };
    related("node", "CONTAINS", "layer 1 of 2");
    related("layer 1 of 2", "CONTAINS", "libstdc++6");
    related("layer 2 of 2", "CONTAINS", "runc");
    related("node", "GENERATED_FROM", "linux");
    related("gcc-10", "BUILD_TOOL_OF", "node");
    assert_eq!(document["creationInfo"]["created"], CREATED);
    let namespace = format!("https://imgbuild.io/spdx/node%3A1.22.8/amd64/{}", digits("a"));
    assert_eq!(document["documentNamespace"], namespace);
    // Nothing of the build but its time is in it.
    assert_eq!(bytes, written(&contents(), &labels, &inputs));
    let ids = document["packages"].as_array().unwrap().iter().chain(document["files"].as_array().unwrap());
    let ids: Vec<_> = ids.map(|it| it["SPDXID"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    let allowed = |id: &&str| id.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    assert!(ids.iter().all(allowed), "{ids:?}");
}

#[test]
fn claims_that_are_not_true_are_told() {
    let claims = |contents: &Contents| Claims::parse(&written(contents, &Labels::new(), &[]), "x").unwrap();
    let truth = contents();
    assert_eq!(claims(&truth).differ(&claims(&truth)), []);
    let told = |change: fn(&mut Contents)| {
        let mut false_one = truth.clone();
        change(&mut false_one);
        let found = claims(&false_one).differ(&claims(&truth));
        let line = |(path, what): &(Option<String>, String)| format!("{path:?} {what}");
        found.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    assert!(
        told(|it| it.files[0].sha256 = digits("0"))
            .contains("\"usr/bin/runc\") the SBOM has it as sha256:000")
    );
    assert!(told(|it| drop(it.files.pop())).contains("in the image and not in the SBOM"));
    assert!(told(|it| it.packages[1].version = "1.3".into()).contains("zlib1g@1.3?arch=amd64"));
    assert!(told(|it| it.programs.clear()).contains("pkg:generic/runc@1.0.3"));
    let mut other = claims(&truth);
    other.image = "sha256:0".into();
    assert!(other.differ(&claims(&truth))[0].1.contains("describes sha256:0"));
}

#[test]
fn what_is_no_document_is_refused() {
    for (text, reason) in [
        ("", "none"),
        ("[]", "no SPDX 2.3 document"),
        (r#"{"spdxVersion":"SPDX-2.2"}"#, "no SPDX 2.3 document"),
        (r#"{"spdxVersion":"SPDX-2.3"}"#, "which image it describes"),
    ] {
        let error = Claims::parse(text.as_bytes(), "x").unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn an_index_lists_its_platforms() {
    let members = [("amd64".to_owned(), format!("sha256:{}", digits("b")))];
    let document: Value =
        serde_json::from_slice(&index_document("kernel-bin:5.10.1", IMAGE, &members, CREATED)).unwrap();
    assert_eq!(document["packages"].as_array().unwrap().len(), 2);
    assert_eq!(document["relationships"][0]["relationshipType"], "VARIANT_OF");
}
