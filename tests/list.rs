//! `imgbuild list`: what is supported, experimental, legacy or built on request, and the roles of kernels.

use crate::support::Place;
use crate::support::source::Source;
use serde_json::{Value, json};

/// A catalogue of one flavour with two pinned versions, of which this is released.
fn catalogue(released: &str) -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    Source::new().version("5.10.9").install(&mut place);
    let recipe = crate::support::source::RECIPE.replace("series =", &format!("{released}\nseries ="));
    place.write("recipes/kernel/toy.toml", recipe);
    place
}

/// The rows of an image: state, versions, platforms.
fn rows(list: &Value, image: &str) -> Vec<Value> {
    let rows = list["images"].as_array().unwrap().iter().filter(|row| row["image"] == image);
    rows.map(|row| json!([row["state"], row["versions"], row["platforms"]])).collect()
}

#[test]
fn the_page_of_images_is_what_the_recipes_make() {
    let outcome = Place::new().imgbuild("list --format markdown").run().succeeds();
    let page = include_str!("../docs/images.md");
    assert_eq!(outcome.stdout, page, "run `imgbuild list --format markdown > docs/images.md`");
}

#[test]
fn what_users_have_today_is_supported_and_its_arm64_is_an_experiment() {
    let list = Place::new().imgbuild("list --format json").run().succeeds().json();
    for image in ["kernel-bin", "kernel-modules"] {
        let rows = rows(&list, image);
        assert_eq!((&rows[0][0], &rows[0][2]), (&json!("supported"), &json!(["amd64"])));
        assert_eq!((&rows[1][0], &rows[1][2]), (&json!("experimental"), &json!(["arm64"])));
        for version in ["4.19.215", "5.10.77"] {
            assert!(rows[0][1].as_array().unwrap().contains(&version.into()), "{image}: {rows:?}");
        }
    }
    let systems = rows(&list, "capmvm-k8s-os");
    assert_eq!(systems[0], json!(["supported", ["1.21.8", "1.22.3", "1.22.8", "1.23.5"], ["amd64"]]));
    let tiny = rows(&list, "kernel-bin-tiny");
    assert_eq!((tiny.len(), &tiny[0][0], &tiny[0][2]), (1, &json!("on-request"), &json!(["amd64", "arm64"])));
    assert_eq!(rows(&list, "debian-os"), [json!(["on-request", ["12"], ["amd64", "arm64"]])]);
}

#[test]
fn a_version_is_released_or_built_on_request() {
    let list = |released: &str| catalogue(released).imgbuild("list --format json").run().succeeds().json();
    let both = json!(["on-request", ["5.10.1", "5.10.9"], ["amd64", "arm64"]]);
    assert_eq!(rows(&list(""), "kernel-bin"), [both]);
    let newest = list("released = [\"5.10\"]\nreleased-on = [\"x86_64\"]");
    let supported = json!(["supported", ["5.10.9"], ["amd64"]]);
    let other = json!(["on-request", ["5.10.1"], ["amd64", "arm64"]]);
    assert_eq!(rows(&newest, "kernel-modules"), [supported, other]);
    let outcome = catalogue("released = [\"5.10.1\"]").imgbuild("list").run().succeeds();
    let expected = "Supported
  kernel-bin      amd64        5.10.1  (toy)
  kernel-modules  amd64        5.10.1  (toy)

Experimental
  kernel-bin      arm64        5.10.1  (toy)
  kernel-modules  arm64        5.10.1  (toy)

On request
  kernel-bin      amd64, arm64 5.10.9  (toy)
  kernel-modules  amd64, arm64 5.10.9  (toy)
";
    assert_eq!(outcome.stdout, expected);
}

#[test]
fn a_release_of_what_is_not_pinned_is_no_list() {
    let outcome = catalogue("released = [\"5.10.2\"]").imgbuild("list --format json").run().fails(2);
    outcome.says("kernel 5.10.2 is not pinned in `recipes/imgbuild.lock`");
}

#[test]
fn the_roles_are_told_with_their_lists_and_sources() {
    let place = Place::new();
    let outcome = place.imgbuild("list roles").run().succeeds();
    outcome
        .prints("kubeadm              Kubernetes node by kubeadm, with containerd\n")
        .does_not_print("CONFIG");
    let outcome = place.imgbuild("list roles -v").run().succeeds();
    let expected = "  built-in  QEMU's only way into an ELF kernel [x86_64]: PVH\n            QEMU docs/system/i386/microvm.rst\n";
    outcome.prints(expected).prints("version 2 [Kubernetes >=1.35]: CGROUP_BPF\n");
    let json = place.imgbuild("list roles --format json").run().succeeds().json();
    assert_eq!(json["roles"][0]["role"], "firecracker");
    assert_eq!(json["roles"][0]["lists"][0]["when"], "x86_64");
    assert_eq!(json["roles"][0]["lists"][0]["level"], "built-in");
}

#[test]
fn a_list_that_there_is_not_is_refused_with_what_there_is() {
    Place::new().imgbuild("list rolls").run().exits(2).says("'roles'");
}
