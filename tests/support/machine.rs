//! The images of a machine, made up, in a layout or pushed, and `imgbuild spec` of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::forge::{self, Forged, Item};
use super::registry::{Door, Registry};
use super::{Imgbuild, Outcome, Place};

/// A public key.
pub(crate) const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB user@example";
/// The kernel image.
pub(crate) const KERNEL: &str = "kernel-bin:5.10.1";
/// Its modules.
pub(crate) const MODULES: &str = "kernel-modules:5.10.1";
/// The root volume.
pub(crate) const ROOT: &str = "capmvm-k8s-os:1.22.8";

/// A root volume, as far as it is looked at.
pub(crate) fn root(arch: &str) -> Forged {
    let mut root = Forged::kernel(arch);
    root.name = ROOT.into();
    root.items = vec![Item::directory("etc"), Item::directory("usr")];
    root.labels.clear();
    root.label("io.imgbuild.role", "os");
    root.label("io.imgbuild.kubernetes.version", "1.22.8");
    root
}

/// All three images for both architectures.
pub(crate) fn images() -> Vec<Forged> {
    ["amd64", "arm64"]
        .iter()
        .flat_map(|arch| [Forged::kernel(arch), Forged::modules(arch), root(arch)])
        .collect()
}

/// A place with these images in `out`, and a public key.
pub(crate) fn place_of(images: &[Forged]) -> Place {
    let place = Place::new();
    forge::write(&place.path("out"), images);
    place.write("id.pub", format!("{KEY}\n"));
    place
}

/// The same, pushed.
pub(crate) fn pushed(images: &[Forged]) -> (Place, Registry) {
    let (mut place, registry) = (place_of(images), Registry::new(Door::Open));
    place.set("IMGBUILD_REGISTRY", format!("{}/org", registry.host()));
    place.imgbuild("push out").run().succeeds();
    (place, registry)
}

/// The same, for a registry that nobody asks.
pub(crate) fn offline(images: &[Forged]) -> Place {
    let mut place = place_of(images);
    place.set("IMGBUILD_REGISTRY", "registry.example/org");
    place
}

/// `imgbuild spec` with these words after it.
pub(crate) fn spec(place: &Place, words: &str) -> Imgbuild {
    place.imgbuild(&format!("spec {words}"))
}

/// What comes of the layout `out` with all three images, without a registry.
pub(crate) fn offered(words: &str) -> Outcome {
    spec(&offline(&images()), &format!("out --offline {words}")).run()
}

/// A text that the metadata of a machine has.
pub(crate) fn metadata(microvm: &Value, key: &str) -> String {
    let encoded = microvm["metadata"][key].as_str().expect("a made-up document");
    String::from_utf8(STANDARD.decode(encoded).expect("a made-up document")).expect("a made-up document")
}
