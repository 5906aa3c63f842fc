//! A version that the shipped lock does not pin: one entry more in a copy of it, and nothing else.

use std::path::Path;

use crate::support::Place;
use crate::support::layout::Layout;
use crate::support::real;

/// The entry; `scripts/test` fetches what it pins before the tests.
const ENTRY: &str = include_str!("support/5.10.223.toml");

#[test]
fn one_entry_in_the_lock_builds_another_version_that_boots() {
    let _alone = real::alone();
    let place = Place::with_shared_store();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/imgbuild.lock");
    let shipped = fs_err::read_to_string(shipped).unwrap();
    assert!(
        !shipped.contains("version = \"5.10.223\""),
        "the shipped lock pins it already: choose another version here"
    );
    place
        .imgbuild("kernel 5.10.223 --flavour tiny --arch x86_64 --locked")
        .run()
        .fails(2)
        .says("is not pinned");

    place.write("my.lock", shipped + ENTRY);
    place.imgbuild("kernel 5.10.223 --flavour tiny --arch x86_64 --lock my.lock").run().succeeds();
    let image = Layout::at(place.path("out")).image("kernel-bin-tiny:5.10.223", "amd64");
    assert_eq!(image.label("io.imgbuild.kernel.release"), "5.10.223");
    let outcome = place.imgbuild("boot out --arch x86_64 --load virtio_rng").run().succeeds();
    outcome.prints("Linux 5.10.223 x86_64 booted").prints("virtio_rng: loaded from the volume");
}
