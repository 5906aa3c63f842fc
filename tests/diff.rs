//! `imgbuild diff`: which files of two layouts differ, and how.

use crate::support::Place;
use crate::support::forge::{self, Forged, Item};
use crate::support::source::{FRAGMENT, Source};
use tar::EntryType;

/// Two layouts, `a` of `image` and `b` of what `change` makes of it.
fn pair(image: &Forged, change: impl FnOnce(&mut Forged)) -> Place {
    let place = Place::new();
    forge::write(&place.path("a"), std::slice::from_ref(image));
    let mut other = image.clone();
    change(&mut other);
    forge::write(&place.path("b"), &[other]);
    place
}

/// The one difference that a change makes, as a line.
fn told(change: impl FnOnce(&mut Forged)) -> String {
    let place = pair(&Forged::kernel("amd64"), change);
    let outcome =
        place.imgbuild("diff a b").run().exits(9).says("`a` and `b` are not the same: 1 difference");
    let (head, line) = outcome.stdout.split_once('\n').unwrap();
    assert_eq!(head, "kernel-bin:5.10.1 amd64");
    line.trim().to_owned()
}

#[test]
fn the_same_images_are_told_in_one_sentence() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    place.imgbuild("kernel 5.10.1 --arch all --output again").run().succeeds();
    let outcome = place.imgbuild("diff out again").run().succeeds();
    assert_eq!(outcome.stdout, "`out` and `again` hold the same images\n");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_changed_option_is_found_in_the_kernel_and_in_its_configuration() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.imgbuild("kernel 5.10.1").run().succeeds();
    place.write("kconfigs/toy.config", FRAGMENT.replace("NUMBER=3", "NUMBER=4"));
    place.imgbuild("kernel 5.10.1 --output other").run().succeeds();
    let outcome = place.imgbuild("diff out other").run().exits(9);
    outcome
        .prints("  boot/config-5.10.1: bytes differ from offset ")
        .prints("  label io.imgbuild.kernel.config: sha256:")
        .does_not_print("modules.dep")
        .does_not_print("diff_ids");
}

#[test]
fn each_way_in_which_a_file_can_differ_has_its_word() {
    let vmlinux = "boot/vmlinux";
    assert_eq!(
        told(|image| image.item(vmlinux).content[40] = 1),
        "boot/vmlinux: bytes differ from offset 40 (64 B in A, 64 B in B)"
    );
    assert_eq!(
        told(|image| image.item(vmlinux).content.push(0)),
        "boot/vmlinux: bytes differ from offset 64 (64 B in A, 65 B in B)"
    );
    assert_eq!(told(|image| image.item(vmlinux).mode = 0o4600), "boot/vmlinux: mode: 0644 in A, 4600 in B");
    assert_eq!(told(|image| image.item(vmlinux).owner = 7), "boot/vmlinux: owner: 0:0 in A, 7:7 in B");
    assert_eq!(
        told(|image| image.item(vmlinux).mtime = 0),
        "boot/vmlinux: time: 2020-09-13T12:26:40Z in A, 1970-01-01T00:00:00Z in B"
    );
    assert_eq!(told(|image| image.without(vmlinux)), "boot/vmlinux: only in A");
    assert_eq!(told(|image| image.items.push(Item::file("boot/new", ""))), "boot/new: only in B");
}

#[test]
fn links_and_kinds_are_compared() {
    let modules = Forged::modules("amd64");
    let place = pair(&modules, |image| image.item("kernel").link = "elsewhere".into());
    let outcome = place.imgbuild("diff a b").run().exits(9).says("1 difference\n");
    outcome.prints("  kernel: link: lib/modules/5.10.1/kernel in A, elsewhere in B\n");
    let fifo = |image: &mut Forged| image.item("modules.dep").kind = EntryType::Fifo;
    let place = pair(&modules, fifo);
    place.imgbuild("diff a b").run().exits(9).prints("  modules.dep: kind: symlink in A, fifo in B\n");
}

#[test]
fn labels_are_compared() {
    assert_eq!(
        told(|image| image.label("io.imgbuild.flavour", "other")),
        "label io.imgbuild.flavour: none in A, other in B"
    );
}

#[test]
fn the_same_files_in_another_order_or_framing_are_told_apart_from_other_files() {
    let line = told(|image| image.items.reverse());
    assert!(line.starts_with("layer 0, not its files: sha256:"), "{line}");
    let plain = |image: &mut Forged| {
        (image.gzip, image.layer_type) = (false, "application/vnd.oci.image.layer.v1.tar".into());
    };
    let line = told(plain);
    assert!(line.contains("layers/0/mediaType: application/vnd.oci.image.layer.v1.tar+gzip in A"), "{line}");
}

#[test]
fn many_differences_are_all_told_in_the_order_of_the_files() {
    let place = pair(&Forged::kernel("amd64"), |image| {
        image.item("boot/vmlinux").content[5] ^= 1;
        image.item("boot/vmlinux").mode = 0o600;
        image.item("boot/config-5.10.1").content.clear();
        image.label("z", "1");
    });
    let json = place.imgbuild("diff a b --format json").run().exits(9).says("4 differences").json();
    let differences = json["differences"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let told: Vec<_> = differences.iter().map(|one| (text(&one["path"]), text(&one["what"]))).collect();
    let expected = [
        ("boot/config-5.10.1", "bytes"),
        ("boot/vmlinux", "mode"),
        ("boot/vmlinux", "bytes"),
        ("", "label z"),
    ];
    assert_eq!(told, expected.map(|(path, what)| (path.to_owned(), what.to_owned())));
    assert_eq!(differences[0]["offset"], 0);
    assert_eq!(differences[2]["offset"], 5);
}

#[test]
fn images_and_platforms_that_one_side_lacks_are_told() {
    let place = Place::new();
    let both = [Forged::kernel("amd64"), Forged::kernel("arm64")];
    forge::write(&place.path("a"), &both);
    forge::write(&place.path("b"), &[Forged::kernel("amd64"), Forged::modules("amd64")]);
    let outcome = place.imgbuild("diff a b").run().exits(9).says("2 differences");
    let expected = "kernel-bin:5.10.1 arm64\n  only in A\nkernel-modules:5.10.1 amd64\n  only in B\n";
    assert_eq!(outcome.stdout, expected);
}

#[test]
fn two_images_of_different_names_are_compared_when_they_are_named() {
    let mut other = Forged::kernel("amd64");
    other.name = "kernel-bin:9".into();
    let place = Place::new();
    forge::write(&place.path("a"), &[Forged::kernel("amd64"), other.clone()]);
    let outcome = place.imgbuild("diff a:kernel-bin:5.10.1 a:kernel-bin:9").run().succeeds();
    outcome.prints("hold the same images");
    forge::write(&place.path("b"), &[Forged::kernel("amd64"), other]);
    place.imgbuild("diff a:kernel-bin:9 b").run().succeeds();
    place.imgbuild("diff a b:nothing").run().fails(4).says("has no image `nothing`");
}

#[test]
fn what_cannot_be_read_is_told() {
    let place = pair(&Forged::kernel("amd64"), |image| image.item("boot/vmlinux").mode = 0o600);
    place.imgbuild("diff a nowhere").run().fails(4).says("`nowhere` is no OCI layout");
    let json = place.imgbuild("inspect b --format json").run().succeeds().json();
    let layer = json["images"][0]["platforms"][0]["layers"][0]["digest"].as_str().unwrap();
    fs_err::write(place.path(format!("b/blobs/{}", layer.replace(':', "/"))), "no gzip").unwrap();
    place.imgbuild("diff a b").run().fails(5).says(format!("blob {layer} cannot be read as a layer"));
}
