//! `imgbuild kernel` when the build goes wrong, and what it says on the way.

use crate::support::layout::Layout;
use crate::support::source::{FRAGMENT, Fault, Gate, RECIPE, Source};
use crate::support::{Place, host, names};

fn installed(source: &Source) -> Place {
    let mut place = Place::new();
    source.install(&mut place);
    place
}

#[test]
fn the_first_compiler_error_is_shown_with_the_path_of_the_whole_log() {
    let place = installed(&Source::new().fault(Fault::Compile));
    let outcome = place.imgbuild("kernel 5.10.1 --arch x86_64").run().fails(6);
    let log = place.log();
    let outcome = outcome
        .says("error: compiling Linux 5.10.1 for x86_64 failed: init/broken.c:3:")
        .says("not_declared")
        .says(format!("hint: the whole output is in `{}`", log.display()));
    let first = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(first.contains(": error: implicit declaration"), "{first}");
    let log = fs_err::read_to_string(log).unwrap();
    assert!(log.contains("init/broken.c:3:") && log.contains("$ make "), "{log}");
    assert_eq!(place.half_made(), [""; 0]);
    assert_eq!(place.artifacts("kernel"), [""; 0]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_complaint_of_make_itself_is_shown_where_no_compiler_complained() {
    let place = installed(&Source::new().fault(Fault::Make));
    place.imgbuild("kernel 5.10.1").run().fails(6).says("No rule to make target 'no-such-target'");
}

#[test]
fn a_build_that_failed_is_tried_again_and_its_log_begun_anew() {
    let place = installed(&Source::new().fault(Fault::Compile));
    place.imgbuild("kernel 5.10.1").run().fails(6);
    let first = fs_err::read_to_string(place.log()).unwrap();
    place.imgbuild("kernel 5.10.1").run().fails(6);
    let again = fs_err::read_to_string(place.log()).unwrap();
    assert_eq!(first.matches("allnoconfig").count(), again.matches("allnoconfig").count());
}

/// Builds a faulty tree for `arch`, which is refused because of `why` and leaves nothing behind.
#[track_caller]
fn refused(fault: Fault, arch: &str, why: &str) {
    let place = installed(&Source::new().fault(fault));
    let outcome = place.imgbuild("kernel 5.10.1 --arch").arg(arch).run();
    outcome.fails(5).says("error: the build made something else than was asked for").says(why);
    assert_eq!(place.half_made(), [""; 0]);
    assert_eq!(place.artifacts("kernel"), [""; 0]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_kernel_that_calls_itself_by_another_release_is_refused() {
    refused(Fault::Release, host(), "its release is `5.10.1-dirty`, not `5.10.1`");
}

#[test]
fn a_kernel_for_the_other_architecture_is_refused() {
    refused(Fault::WrongArch, "x86_64", "boot/vmlinux for x86_64 is an arm64 ELF");
}

#[test]
fn an_arm64_kernel_that_is_no_image_is_refused() {
    refused(Fault::Gzip, "arm64", "boot/vmlinux for arm64 is a gzip file");
}

#[test]
fn a_kernel_without_the_pvh_note_its_configuration_promises_is_refused() {
    refused(Fault::NoNote, "x86_64", "PVH is on, but boot/vmlinux has no PVH note");
}

#[test]
fn a_module_of_another_release_is_refused() {
    let why = "toy.ko: its vermagic is `5.10.2 SMP mod_unload`, the kernel's release `5.10.1`";
    refused(Fault::Vermagic, host(), why);
}

#[test]
fn a_tree_of_modules_without_an_index_is_refused() {
    refused(Fault::NoDepmod, host(), "depmod made no modules.dep.bin");
}

#[test]
fn a_module_for_the_other_architecture_is_refused() {
    refused(Fault::ModuleArch, "arm64", "toy.ko: it is an x86_64 ELF");
}

#[test]
fn absences_without_a_reason_are_warned_of_and_those_with_one_are_not() {
    let place = installed(&Source::new());
    place
        .imgbuild("kernel 5.10.1 -v")
        .run()
        .succeeds()
        .does_not_say("warning: ")
        .says("CONFIG_EXTRA is off: toys are small")
        .says("CONFIG_SECOND_EXTRA is off: toys are small");

    place.write("recipes/kernel/toy.toml", RECIPE.replace(r#""EXTRA", "#, ""));
    let warning = format!(
        "warning: 5.10.1 {}: 1 symbol that alldefconfig turns on is off, and flavour toy does not say why: EXTRA;",
        host()
    );
    // From the store as well: a warning that comes once only would be missed.
    place.imgbuild("kernel 5.10.1").run().succeeds().says(warning).says("[[absent]]");

    place.write("recipes/kernel/toy.toml", RECIPE.split("[[absent]]").next().unwrap());
    let outcome = place.imgbuild("kernel 5.10.1 -q").run().succeeds();
    outcome.says("2 symbols that alldefconfig turns on are off").says("EXTRA SECOND_EXTRA");
}

#[test]
fn what_a_fragment_asks_for_ends_an_absence() {
    let place = installed(&Source::new());
    place.write("recipes/kernel/toy.toml", RECIPE.split("[[absent]]").next().unwrap());
    place.write(
        "kconfigs/toy.config",
        FRAGMENT.to_owned() + "CONFIG_EXTRA=y\n# CONFIG_SECOND_EXTRA is not set\n",
    );
    place.imgbuild("kernel 5.10.1").run().succeeds().does_not_say("warning: ");
}

#[test]
fn a_later_fragment_wins_and_says_so_when_asked() {
    let place = installed(&Source::new());
    let recipe = RECIPE.replace(r#"["toy.config"]"#, r#"["toy.config", "more.config"]"#);
    place.write("recipes/kernel/toy.toml", recipe);
    place.write("kconfigs/more.config", "# more\nCONFIG_NUMBER=5\n");
    let told = "kconfigs/more.config:2: CONFIG_NUMBER =5 overrides =3 of ";
    place.imgbuild("kernel 5.10.1 -v").run().succeeds().says(told).says("kconfigs/toy.config:3");
    place.imgbuild("kernel 5.10.1").run().succeeds().does_not_say("overrides");
    let image = Layout::at(place.path("out")).image("kernel-bin:5.10.1", oci_host());
    let config = String::from_utf8_lossy(&image.entry("boot/config-5.10.1").content).into_owned();
    assert!(config.contains("CONFIG_NUMBER=5\n"), "{config}");
}

fn oci_host() -> &'static str {
    if host() == "x86_64" { "amd64" } else { "arm64" }
}

#[test]
fn config_tells_what_is_wrong_for_every_architecture() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place.write("kconfigs/toy.config", FRAGMENT.to_owned() + "CONFIG_NOWHERE=y\n");
    let outcome = place.imgbuild("config 5.10.1 --arch all --output configs").run().fails(3);
    for arch in ["x86_64", "arm64"] {
        let sentence = format!("the configuration of Linux 5.10.1 for {arch} does not come out as asked");
        assert_eq!(outcome.stderr.matches(&sentence).count(), 1, "{}", outcome.stderr);
    }
    assert_eq!(outcome.stderr.matches("CONFIG_NOWHERE: ").count(), 2, "{}", outcome.stderr);
    assert!(!place.path("configs").exists());
}

#[test]
fn a_configuration_that_cannot_be_reproduced_is_refused_before_anything_is_compiled() {
    let place = Place::new();
    let gate = Gate::open_in(&place);
    let mut place = place;
    Source::new().gate(&gate).install(&mut place);
    place.write("kconfigs/toy.config", FRAGMENT.to_owned() + "CONFIG_DEBUG_INFO=y\n");
    place
        .imgbuild("kernel 5.10.1")
        .run()
        .fails(3)
        .says("0 misses, 1 reproducibility leak")
        .says("kconfigs/toy.config:5: CONFIG_DEBUG_INFO=y is not reproducible")
        .says("write `# CONFIG_DEBUG_INFO is not set`");
    assert_eq!(gate.begun(), 0);
    assert_eq!(place.half_made(), [""; 0]);
}

#[test]
fn a_request_that_does_not_come_true_is_refused_before_anything_is_compiled() {
    let place = Place::new();
    let gate = Gate::open_in(&place);
    let mut place = place;
    Source::new().gate(&gate).install(&mut place);
    place.write(
        "kconfigs/toy.config",
        "CONFIG_MODULES=y\nCONFIG_RIDER=y\nCONFIG_RIDRE=y\nCONFIG_ARM64_TOY=y\n",
    );
    place
        .imgbuild("kernel 5.10.1 --arch x86_64")
        .run()
        .fails(3)
        .says("kconfigs/toy.config:2: CONFIG_RIDER: asked for =y, got off: needs BUS (off)")
        .says(
            "kconfigs/toy.config:3: CONFIG_RIDRE: no such symbol in Linux 5.10.1; did you mean CONFIG_RIDER?",
        )
        .says("kconfigs/toy.config:4: CONFIG_ARM64_TOY: a symbol of arm64, not of x86_64")
        .says("3 misses");
    assert_eq!(gate.begun(), 0);
}

#[test]
fn a_pinned_file_that_is_no_archive_of_one_tree_is_refused() {
    let two =
        crate::support::source::tar_xz([("a/x".to_owned(), &b""[..]), ("b/x".to_owned(), &b""[..])], |_| 1);
    let cases =
        [(two, "it holds both `a` and `b` at its top"), (b"not xz at all".to_vec(), "cannot be unpacked")];
    for (tarball, why) in cases {
        let place = Place::new();
        place.write("mirror/linux-5.10.1.tar.xz", &tarball);
        place.write("lock", crate::support::source::lock(&tarball));
        place
            .imgbuild("kernel 5.10.1 --flavour tiny --lock lock --mirror test=mirror")
            .run()
            .fails(5)
            .says(why)
            .says("hint: its hash is right");
        assert_eq!(place.half_made(), [""; 0]);
    }
}

#[test]
fn an_archive_that_reaches_outside_its_tree_is_refused() {
    let escape = place_with_escape();
    let outside = escape.path("outside");
    escape.imgbuild("kernel 5.10.1 --flavour tiny --lock lock --mirror test=mirror").run().fails(5);
    assert!(!outside.exists());
    assert_eq!(names(&escape.store().join("work")), [""; 0]);
}

/// A pinned tarball with a link out of the tree and a file behind that link.
fn place_with_escape() -> Place {
    use std::io::Write;
    let place = Place::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "linux/out", place.work()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(1);
    builder.append_data(&mut header, "linux/out/outside", &b"x"[..]).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(&builder.into_inner().unwrap()).unwrap();
    let tarball = encoder.finish().unwrap();
    place.write("mirror/linux-5.10.1.tar.xz", &tarball);
    place.write("lock", crate::support::source::lock(&tarball));
    place
}

#[test]
fn a_store_in_a_directory_that_make_cannot_work_in_is_refused_with_a_way_out() {
    let place = installed(&Source::new());
    for name in ["with space", "with:colon"] {
        let store = place.path(name);
        let outcome = place.imgbuild("kernel 5.10.1 --store").arg(&store).run().fails(2);
        outcome.says("its make takes no spaces or colons in a path").says("--store");
    }
}

#[test]
fn a_source_is_unpacked_once_for_both_architectures_and_not_at_all_for_a_hit() {
    let place = installed(&Source::new());
    let outcome = place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    assert_eq!(outcome.stderr.matches("unpack").count(), 1, "{}", outcome.stderr);
    let outcome = place.imgbuild("kernel 5.10.1 --arch all --output again").run().succeeds();
    outcome.does_not_say("unpack").does_not_say("compile").does_not_say("pack");
    assert_eq!(Layout::at(place.path("again")).images(), Layout::at(place.path("out")).images());
}

#[test]
fn several_versions_are_built_in_one_run_and_a_series_means_its_newest() {
    let mut place = installed(&Source::new());
    Source::new().version("5.10.9").install(&mut place);
    place.imgbuild("kernel 5.10 --output newest").run().succeeds().prints("kernel-bin:5.10.9");
    let newest = Layout::at(place.path("newest")).images();
    assert_eq!(newest.into_keys().collect::<Vec<_>>(), ["kernel-bin:5.10.9", "kernel-modules:5.10.9"]);
    place.imgbuild("kernel 5.10.1 5.10.9").run().succeeds();
    let all = ["kernel-bin:5.10.1", "kernel-bin:5.10.9", "kernel-modules:5.10.1", "kernel-modules:5.10.9"];
    assert_eq!(Layout::at(place.path("out")).images().into_keys().collect::<Vec<_>>(), all);
}

#[test]
fn a_damaged_entry_of_the_store_is_said_and_made_again() {
    let place = installed(&Source::new());
    place.imgbuild("kernel 5.10.1").run().succeeds();
    let before = Layout::at(place.path("out")).images();
    let entry = place.store().join("artifacts/kernel").join(&place.artifacts("kernel")[0]);
    fs_err::write(entry.join("files/boot/vmlinux"), "damaged").unwrap();
    let outcome = place.imgbuild("kernel 5.10.1 --output again").run().succeeds();
    outcome.says("warning: the store's entry").says("is damaged; it is dropped and made again");
    assert_eq!(Layout::at(place.path("again")).images(), before);
}

#[test]
fn another_programs_directory_is_not_taken_for_a_store() {
    let place = installed(&Source::new());
    let mine = place.write("mine/thesis.txt", "three years");
    place.imgbuild("kernel 5.10.1 --store mine").run().fails(2).says("is not a store this imgbuild can use");
    assert_eq!(names(mine.parent().unwrap()), ["thesis.txt"]);
    place.write("future/format", "imgbuild store 99\n");
    let outcome = place.imgbuild("kernel 5.10.1 --store future").run().fails(2);
    outcome.says("it says `imgbuild store 99`");
}
