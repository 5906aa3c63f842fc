//! What is printed where: results on standard output, progress and errors on standard error.

use crate::support::Place;
use crate::support::source::{FRAGMENT, Fault, Source};

fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

#[test]
fn progress_without_a_terminal_is_plain_lines_on_standard_error() {
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    for text in [&outcome.stdout, &outcome.stderr] {
        assert!(!text.contains(['\u{1b}', '\r', '\u{8}']), "{text:?}");
    }
    let mut lines = outcome.stderr.lines().filter(|line| !line.contains("not hermetic: "));
    let stages: Vec<_> = lines.clone().filter_map(|line| line.split_whitespace().next()).collect();
    let expected = [
        "fetch",
        "unpack",
        "configure",
        "compile",
        "compile",
        "split",
        "pack",
        "pack",
        "configure",
        "compile",
        "compile",
        "split",
        "pack",
        "pack",
    ];
    assert_eq!(stages, expected, "{}", outcome.stderr);
    assert!(!outcome.stdout.contains("compile"), "{}", outcome.stdout);
    // How much, and how long.
    let fetch = lines.next().unwrap();
    assert!(fetch.contains("linux-5.10.1.tar.xz: ") && fetch.ends_with(" s"), "{fetch}");
}

#[test]
fn quiet_says_nothing_and_still_prints_the_result() {
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10.1 -q").run().succeeds();
    assert_eq!(outcome.stderr, "");
    let loud = place.imgbuild("kernel 5.10.1 --output out").run().succeeds();
    assert_eq!(outcome.stdout, loud.stdout);
    let outcome = place.imgbuild("kernel 5.10.1 -q --format json").run().succeeds();
    assert_eq!(outcome.stderr, "");
    outcome.json();
}

#[test]
fn quiet_keeps_errors() {
    let mut place = Place::new();
    Source::new().fault(Fault::Make).install(&mut place);
    let outcome = place.imgbuild("kernel 5.10.1 -q").run().fails(6);
    assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
}

#[test]
fn verbose_tells_what_kconfig_was_asked_off_in_vain() {
    let place = toys();
    place.write("kconfigs/toy.config", FRAGMENT.to_owned() + "# CONFIG_NEVER_HEARD_OF is not set\n");
    let note = "kconfigs/toy.config:5: CONFIG_NEVER_HEARD_OF: no such symbol in Linux 5.10.1";
    place.imgbuild("kernel 5.10.1 -v --output one").run().succeeds().says(note);
    place
        .imgbuild("kernel 5.10.1 --output two --store other")
        .run()
        .succeeds()
        .does_not_say("NEVER_HEARD_OF");
}

#[test]
fn quiet_and_verbose_exclude_each_other() {
    toys().imgbuild("kernel 5.10.1 -q -v").run().fails(2).says("--quiet").says("--verbose");
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let place = Place::new();
    let mut outcome = place.imgbuild("--help").run().succeeds();
    for command in ["kernel", "config", "fetch", "boot", "doctor"] {
        outcome = outcome.prints(format!("\n  {command} "));
        place.imgbuild(command).arg("--help").run().succeeds().prints("Usage: imgbuild").prints("--store");
    }
    outcome.prints("Exit codes: 0 done").prints("130 interrupted");
}

#[test]
fn the_version_is_the_packages() {
    let version = format!("imgbuild {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Place::new().imgbuild("--version").run().succeeds().stdout, version);
}

#[test]
fn a_mistyped_option_is_a_usage_error() {
    toys().imgbuild("kernel 5.10.1 --achr arm64").run().fails(2).says("--arch");
    toys().imgbuild("kernel").run().fails(2).says("<VERSION>");
    toys().imgbuild("kernel 5.10.1 --jobs 0").run().fails(2).says("--jobs");
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let place = toys();
    // `head` closes the pipe at once; whatever is printed then must not end in an error or a panic.
    let outcome = place
        .imgbuild("kernel 5.10.1 --arch all --dry-run")
        .after("{ \"$@\"; echo \"code $?\" >&2; } | head -c 1 > /dev/null; exit 0")
        .run()
        .succeeds();
    assert_eq!(outcome.stderr.trim(), "code 0");
}

#[test]
fn without_home_or_cache_directory_a_store_must_be_named() {
    let place = toys();
    let bare = |words: &str| {
        ["HOME", "XDG_CONFIG_HOME", "IMGBUILD_STORE"]
            .iter()
            .fold(place.imgbuild(words), |run, name| run.without(name))
    };
    bare("kernel 5.10.1 --dry-run")
        .run()
        .fails(2)
        .says("neither XDG_CACHE_HOME nor HOME is set")
        .says("--store");
    bare("kernel 5.10.1 --dry-run --store here").run().succeeds();
}
