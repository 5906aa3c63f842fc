//! Which mirror is taken: directories, settings, variables, the command line.

use crate::support::mirror::Mirror;
use crate::support::source::lock;
use crate::support::{Place, sha256};

const CONTENT: &[u8] = b"a source";

fn pinned() -> Place {
    let place = Place::new();
    place.write("lock", lock(CONTENT));
    place
}

fn is_kept(place: &Place) -> bool {
    place.store().join("downloads").join(sha256(CONTENT)).is_file()
}

#[test]
fn a_directory_is_searched_by_the_files_path_and_by_its_name() {
    for file in ["mirror/v5.x/linux-5.10.1.tar.xz", "mirror/linux-5.10.1.tar.xz"] {
        for prefix in ["", "file://"] {
            let place = pinned();
            place.write(file, CONTENT);
            let mirror = format!("test={prefix}{}", place.path("mirror").display());
            place.imgbuild("fetch 5.10.1 --lock lock --mirror").arg(mirror).run().succeeds();
            assert!(is_kept(&place), "{prefix}{file}");
        }
    }
}

#[test]
fn a_relative_directory_is_below_the_current_one() {
    let place = pinned();
    place.write("mirror/linux-5.10.1.tar.xz", CONTENT);
    place.imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror").run().succeeds();
    assert!(is_kept(&place));
}

#[test]
fn a_directory_without_the_file_is_told_with_both_paths() {
    let place = pinned();
    place.write("mirror/other", "");
    place
        .imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror")
        .run()
        .fails(4)
        .says("neither `mirror/v5.x/linux-5.10.1.tar.xz` nor `mirror/linux-5.10.1.tar.xz` exists")
        .says("hint: put the file there, or leave out `--mirror test=…`");
}

#[test]
fn a_mirror_directorys_file_is_checked_too_and_left_where_it_is() {
    let place = pinned();
    let bad = place.write("mirror/linux-5.10.1.tar.xz", "tampered");
    let outcome = place.imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror").run().fails(5);
    outcome.says(sha256(CONTENT)).says(sha256(b"tampered"));
    assert!(!is_kept(&place));
    assert_eq!(fs_err::read(bad).unwrap(), b"tampered");
}

#[test]
fn the_command_line_wins_over_the_variable_and_the_variable_over_the_settings() {
    let mirrors = [0; 4].map(|_| Mirror::of(CONTENT));
    let [first, second, variable, settings] = &mirrors;
    let asked = || mirrors.each_ref().map(|mirror| mirror.requests().len());
    let place = pinned();
    place.write_settings(&format!("[mirror]\ntest = \"{}\"\n", settings.url()));
    let begin = |number: u32| {
        let store = place.path(format!("store-{number}"));
        place.imgbuild("fetch 5.10.1 --lock lock").option("--store", store)
    };
    begin(1).run().succeeds();
    assert_eq!(asked(), [0, 0, 0, 1]);
    begin(2).env("IMGBUILD_MIRROR_TEST", variable.url()).run().succeeds();
    assert_eq!(asked(), [0, 0, 1, 1]);
    begin(3)
        .env("IMGBUILD_MIRROR_TEST", variable.url())
        .option("--mirror", format!("test={}", first.url()))
        .option("--mirror", format!("test={}", second.url()))
        .run()
        .succeeds();
    let counts = asked();
    assert_eq!((counts[2], counts[3]), (1, 1), "neither the variable nor the settings were asked again");
    assert_eq!(counts[0] + counts[1], 1, "one of the two on the command line was");
}

#[test]
fn an_empty_variable_names_no_mirror() {
    let place = pinned();
    let settings = Mirror::of(CONTENT);
    place.write_settings(&format!("[mirror]\ntest = \"{}\"\n", settings.url()));
    place.imgbuild("fetch 5.10.1 --lock lock").env("IMGBUILD_MIRROR_TEST", "").run().succeeds();
    assert_eq!(settings.requests().len(), 1);
}

#[test]
fn a_mirror_for_an_unknown_place_is_refused_with_the_known_ones() {
    let place = pinned();
    place
        .imgbuild("fetch 5.10.1 --lock lock --mirror kernal.org=/srv")
        .run()
        .fails(2)
        .says("`kernal.org`")
        .says("the places are `test`");
    place.write_settings("[mirror]\n\"kernal.org\" = \"/srv\"\n");
    place.imgbuild("fetch 5.10.1 --lock lock").run().fails(2).says("`kernal.org`");
}

#[test]
fn a_mirror_without_a_base_is_refused() {
    let place = pinned();
    for wrong in ["test", "test="] {
        let outcome = place.imgbuild("fetch 5.10.1 --lock lock --mirror").arg(wrong).run().fails(2);
        outcome.says(format!("`--mirror {wrong}` names no place and base")).says("--mirror kernel.org=URL");
    }
}

#[test]
fn mistakes_in_the_settings_are_underlined() {
    let place = pinned();
    place.write_settings("[mirrors]\ntest = \"/srv\"\n");
    let outcome = place.imgbuild("fetch 5.10.1 --lock lock").run().fails(3);
    outcome
        .says("config.toml` has a mistake")
        .says("unknown field `mirrors`")
        .says("did you mean `mirror`?")
        .says("^^^^^^^");
}

#[test]
fn the_settings_may_name_the_store_and_the_command_line_wins() {
    let place = pinned();
    place.write("mirror/linux-5.10.1.tar.xz", CONTENT);
    let (mine, other) = (place.path("mine"), place.path("other"));
    place.write_settings(&format!("store = \"{}\"\n", mine.display()));
    let fetch = || place.imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror").without("IMGBUILD_STORE");
    let kept = |store: &std::path::Path| store.join("downloads").join(sha256(CONTENT)).is_file();
    fetch().run().succeeds();
    assert!(kept(&mine));
    fetch().option("--store", &other).run().succeeds();
    assert!(kept(&other));
}

#[test]
fn without_any_word_about_it_the_store_is_in_the_cache_directory() {
    let place = pinned();
    place.write("mirror/linux-5.10.1.tar.xz", CONTENT);
    let fetch = || place.imgbuild("fetch 5.10.1 --lock lock --mirror test=mirror").without("IMGBUILD_STORE");
    fetch().run().succeeds();
    assert!(place.home().join(".cache/imgbuild/downloads").join(sha256(CONTENT)).is_file());
    fetch().env("XDG_CACHE_HOME", place.path("cache")).run().succeeds();
    assert!(place.path("cache/imgbuild/downloads").join(sha256(CONTENT)).is_file());
}
