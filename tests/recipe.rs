//! Recipes, flavours, fragments and locks as users write them, and what is said about their mistakes.

use crate::support::Place;
use crate::support::layout::Layout;
use crate::support::source::{FRAGMENT, RECIPE, Source, lock};

/// A place that is a catalogue of one flavour.
fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

#[test]
fn three_mistakes_of_a_recipe_are_told_at_once_each_underlined() {
    let place = Place::new();
    let recipe =
        "kind = \"kernel\"\nname = \"Mine\"\nserie = [\"5.10\"]\nextends = \"tiny\"\nbase = \"defconfig\"\n";
    place.write("my.toml", recipe);
    let outcome = place.imgbuild("kernel 5.10.262 --recipe my.toml").run().fails(3);
    let outcome = outcome
        .says("error: `my.toml` has 3 mistakes")
        .says("a name is lower-case letters")
        .says("unknown field `serie`")
        .says("did you mean `series`?")
        .says("`base` is `allnoconfig` or `alldefconfig`");
    // Each where it stands, underlined as far as it goes.
    let lines: Vec<&str> = outcome.stderr.lines().map(str::trim_end).collect();
    for (place, text, underline) in [
        ("my.toml:2:8", "name = \"Mine\"", "       ^^^^^^"),
        ("my.toml:3:1", "serie = [\"5.10\"]", "^^^^^"),
        ("my.toml:5:8", "base = \"defconfig\"", "       ^^^^^^^^^^^"),
    ] {
        assert!(lines.iter().any(|line| line.ends_with(place)), "{place}: {lines:#?}");
        let at = lines
            .iter()
            .position(|line| line.ends_with(text))
            .unwrap_or_else(|| panic!("{text}: {lines:#?}"));
        let column = lines[at].len() - text.len();
        assert_eq!(&lines[at + 1][column..], underline, "{lines:#?}");
    }
}

#[test]
fn a_recipe_that_is_no_toml_is_told_where() {
    let place = Place::new();
    place.write("my.toml", "kind = \"kernel\"\nname = \n");
    place.imgbuild("kernel 5.10.262 --recipe my.toml").run().fails(3).says("my.toml:2:");
}

#[test]
fn a_recipe_that_is_not_there_is_named() {
    let place = Place::new();
    place.imgbuild("kernel 5.10.262 --recipe no/such.toml").run().fails(2).says("no/such.toml");
}

#[test]
fn an_unknown_flavour_is_told_with_the_known_ones() {
    let place = Place::new();
    place
        .imgbuild("kernel 5.10.262 --flavour firecraker")
        .run()
        .fails(2)
        .says(
            "unknown flavour `firecraker`; known are `cloud-hypervisor`, `firecracker`, `flintlock`, `tiny`, `tracing`",
        )
        .says("hint: ")
        .says("--recipe PATH");
}

#[test]
fn an_unknown_version_is_told_with_the_pinned_ones_and_how_to_add_one() {
    let place = Place::new();
    for version in ["5.10.78", "5.11"] {
        place
            .imgbuild("kernel --locked")
            .arg(version)
            .run()
            .fails(2)
            .says(format!("kernel {version} is not pinned in `<built-in>/recipes/imgbuild.lock`"))
            .says("`5.10.77`, ")
            .says("`5.10.262`, ")
            .says("hint: add a [[kernel]] entry with version, place, path and sha256");
    }
}

#[test]
fn what_is_no_version_is_refused() {
    let place = Place::new();
    for wrong in ["5", "5.10.x", "v5.10", "5.10.1.2", "latest"] {
        place.imgbuild("kernel").arg(wrong).run().fails(2).says(format!("`{wrong}` is not a kernel version"));
    }
}

#[test]
fn an_unknown_architecture_is_told_with_the_known_ones() {
    let place = Place::new();
    let outcome = place.imgbuild("kernel 5.10.262 --flavour tiny --arch riscv64").run().fails(2);
    outcome.says("unknown architecture `riscv64`").says("x86_64").says("arm64");
}

#[test]
fn a_series_the_recipe_is_not_made_for_is_refused() {
    let place = Place::new();
    place
        .imgbuild("kernel 4.19.325 --flavour cloud-hypervisor")
        .run()
        .fails(2)
        .says("flavour `cloud-hypervisor` is made for the series `5.10`, `6.1`, not for 4.19.325")
        .says("hint: a recipe of your own can extend it");
}

#[test]
fn a_recipe_for_one_architecture_is_refused_for_the_other() {
    let place = toys();
    place.write("recipes/kernel/toy.toml", RECIPE.to_owned() + "[arch.arm64]\nfragments = []\n");
    let outcome = place.imgbuild("kernel 5.10.1 --arch x86_64").run().fails(2);
    outcome.says("flavour `toy` is not made for x86_64");
    place.imgbuild("kernel 5.10.1 --arch all").run().succeeds();
    let index = Layout::at(place.path("out")).image_index("kernel-bin:5.10.1");
    let platforms = index["manifests"].as_array().unwrap();
    assert_eq!((platforms.len(), &platforms[0]["platform"]["architecture"]), (1, &"arm64".into()));
}

#[test]
fn a_recipe_anywhere_extends_a_flavour_with_the_fragment_beside_it() {
    let place = toys();
    let recipe = "kind = \"kernel\"\nname = \"mine\"\nextends = \"toy\"\nfragments = [\"./my.config\"]\n";
    place.write("elsewhere/deep/my.toml", recipe);
    place.write("elsewhere/deep/my.config", "CONFIG_NUMBER=7\nCONFIG_EXTRA=y\n");
    place
        .imgbuild("kernel 5.10.1 --arch all --recipe elsewhere/deep/my.toml -v")
        .run()
        .succeeds()
        .says("elsewhere/deep/my.config:1: CONFIG_NUMBER =7 overrides =3 of")
        // The parent's reasons count for the child.
        .does_not_say("warning: ")
        .prints("kernel-bin-mine:5.10.1");
    let layout = Layout::at(place.path("out"));
    for architecture in ["amd64", "arm64"] {
        let image = layout.image("kernel-bin-mine:5.10.1", architecture);
        assert_eq!(image.label("io.imgbuild.flavour"), "mine");
        let config = String::from_utf8_lossy(&image.entry("boot/config-5.10.1").content).into_owned();
        for line in ["CONFIG_NUMBER=7\n", "CONFIG_EXTRA=y\n", "CONFIG_TOY=m\n"] {
            assert!(config.contains(line), "{config}");
        }
    }
    // From the recipe's own directory too, where it has another name.
    let outcome = place
        .imgbuild("kernel 5.10.1 --recipe my.toml --output out --catalogue")
        .arg(place.work())
        .dir(place.path("elsewhere/deep"))
        .run();
    outcome.succeeds();
    let again = Layout::at(place.path("elsewhere/deep/out")).image_index("kernel-bin-mine:5.10.1");
    let names = again["manifests"].as_array().unwrap().len();
    assert_eq!(names, 1);
}

#[test]
fn a_recipe_has_the_last_word_over_what_its_parent_asks_for_on_one_architecture() {
    let place = toys();
    place.write(
        "recipes/kernel/toy.toml",
        RECIPE.to_owned() + "[arch.x86_64]\nfragments = [\"arch.config\"]\n",
    );
    place.write("kconfigs/arch.config", "CONFIG_NUMBER=5\n");
    place.write(
        "my.toml",
        "kind = \"kernel\"\nname = \"mine\"\nextends = \"toy\"\nfragments = [\"./my.config\"]\n",
    );
    place.write("my.config", "CONFIG_NUMBER=7\n");
    place
        .imgbuild("kernel 5.10.1 --arch x86_64 --recipe my.toml -v")
        .run()
        .succeeds()
        .says("my.config:1: CONFIG_NUMBER =7 overrides =5 of")
        .says("arch.config:1");
    let image = Layout::at(place.path("out")).image("kernel-bin-mine:5.10.1", "amd64");
    let config = String::from_utf8_lossy(&image.entry("boot/config-5.10.1").content).into_owned();
    assert!(config.contains("CONFIG_NUMBER=7\n"), "{config}");
}

#[test]
fn a_recipe_names_its_own_images() {
    let place = toys();
    place.write(
        "my.toml",
        "kind = \"kernel\"\nname = \"mine\"\nextends = \"toy\"\n[image]\nkernel = \"acme/kernel\"\nmodules = \"acme/modules\"\n",
    );
    place.imgbuild("kernel 5.10.1 --recipe my.toml").run().succeeds().prints("acme/kernel:5.10.1");
    let images = Layout::at(place.path("out")).images();
    assert_eq!(images.into_keys().collect::<Vec<_>>(), ["acme/kernel:5.10.1", "acme/modules:5.10.1"]);
}

#[test]
fn a_circle_of_recipes_is_told() {
    let place = toys();
    for (name, parent) in [("a", "b"), ("b", "c"), ("c", "b")] {
        let recipe = format!("kind = \"kernel\"\nname = \"{name}\"\nextends = \"{parent}\"\n");
        place.write(&format!("recipes/kernel/{name}.toml"), recipe);
    }
    let catalogue = place.work();
    let outcome = place
        .imgbuild("kernel 5.10.1 --flavour a --catalogue")
        .arg(catalogue)
        .dir(place.home())
        .run()
        .fails(3);
    outcome.says("the recipes `a`, `b`, `c`, `b` extend one another in a circle");
}

#[test]
fn a_recipe_that_extends_nothing_known_is_refused() {
    let place = toys();
    place.write("my.toml", "kind = \"kernel\"\nname = \"mine\"\nextends = \"toyy\"\n");
    let outcome = place.imgbuild("kernel 5.10.1 --recipe my.toml").run().fails(3);
    outcome.says("`toyy`").says("`toy`").says("my.toml");
}

#[test]
fn a_fragment_that_is_not_there_is_underlined() {
    let place = toys();
    let recipe = "kind = \"kernel\"\nname = \"mine\"\nextends = \"toy\"\nfragments = [\"./my.config\", \"toy.config\"]\n";
    place.write("my.toml", recipe);
    let outcome = place.imgbuild("kernel 5.10.1 --recipe my.toml").run().fails(3);
    outcome.says("no fragment `./my.config`").says("my.toml:4:14").says("beside the recipe");
}

#[test]
fn mistakes_in_fragments_are_told_all_at_once_with_file_and_line() {
    let place = toys();
    place.write(
        "recipes/kernel/toy.toml",
        RECIPE.replace("[\"toy.config\"]", "[\"toy.config\", \"more.config\"]"),
    );
    place.write("kconfigs/toy.config", "CONFIG_MODULES=Y\n\nTOY=m\n");
    place.write("kconfigs/more.config", "# fine\nCONFIG_NUMBER=3 # [arm]\n");
    place
        .imgbuild("kernel 5.10.1")
        .run()
        .fails(3)
        .says("3 mistakes in the kernel fragments")
        .says("kconfigs/toy.config:1: `CONFIG_MODULES=Y`: did you mean `y`?")
        .says("kconfigs/toy.config:3: `TOY=m`: did you mean `CONFIG_TOY=m`?")
        .says("kconfigs/more.config:2: `CONFIG_NUMBER=3 # [arm]`: `arm` is not a condition")
        // Before anything is fetched.
        .does_not_say("fetch");
}

#[test]
fn the_built_in_catalogue_is_used_where_the_current_directory_has_none() {
    let place = Place::new();
    let plan = |place: &Place| place.imgbuild("kernel 5.10.262 --arch x86_64 --dry-run -v").run().succeeds();
    plan(&place).says("<built-in>").prints("symbols of firecracker on allnoconfig");
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10 --dry-run -v").run().succeeds();
    outcome.does_not_say("<built-in>").prints("symbols of toy on allnoconfig");
    // Asked for, a catalogue wins over the one that is here.
    let other = Place::new();
    let outcome = other.imgbuild("kernel 5.10 --dry-run").env("IMGBUILD_CATALOGUE", place.work()).run();
    outcome.succeeds().prints("symbols of toy on allnoconfig");
}

#[test]
fn a_catalogue_that_is_none_is_refused_with_its_path() {
    let place = Place::new();
    let outcome = place.imgbuild("kernel 5.10.262 --catalogue nowhere").run().fails(2);
    outcome.says("nowhere/recipes/imgbuild.lock");
}

#[test]
fn a_catalogue_without_a_default_flavour_asks_for_one() {
    let place = toys();
    place.write("recipes/kernel/toy.toml", RECIPE.replace("default = true\n", ""));
    let outcome = place.imgbuild("kernel 5.10.1").run().fails(3);
    outcome.says("is the default").says("hint: name one with --flavour");
    place.imgbuild("kernel 5.10.1 --flavour toy --dry-run").run().succeeds();
}

#[test]
fn a_flavour_and_a_recipe_exclude_each_other() {
    let place = toys();
    let outcome = place.imgbuild("kernel 5.10.1 --flavour toy --recipe recipes/kernel/toy.toml").run();
    outcome.fails(2).says("--recipe").says("--flavour");
}

#[test]
fn locks_with_mistakes_are_refused_with_all_of_them() {
    let place = toys();
    let good = lock(b"x");
    let twice = good.clone() + good.split_once("\n\n").unwrap().1;
    let other_place = good.replace("place = \"test\"", "place = \"tset\"");
    let cases = [
        (
            good.replace("assembly = 1", "assembly = 2"),
            "assembly 2 is not known: this imgbuild writes assembly 1",
        ),
        (twice, "kernel 5.10.1 is pinned twice"),
        (other_place, "unknown place `tset`"),
        (good.replace("sha256 = \"", "sha256 = \"Z"), "a sha256 is 64 lower-case hexadecimal digits"),
        (good.replace("v5.x/", "../"), "holds no `..`"),
        (good.replace("version = ", "versoin = "), "unknown field `versoin`"),
    ];
    for (text, said) in &cases {
        place.write("mine.lock", text);
        place.imgbuild("kernel 5.10.1 --lock mine.lock").run().fails(3).says(said).says("mine.lock:");
    }
    let all = cases[2].0.replace("assembly = 1", "assembly = 2").replace("v5.x/", "../");
    place.write("mine.lock", all);
    let outcome = place.imgbuild("fetch 5.10.1 --lock mine.lock").run().fails(3);
    outcome.says("`mine.lock` has 3 mistakes");
}

#[test]
fn a_lock_that_is_not_there_is_named() {
    let place = toys();
    place
        .imgbuild("fetch 5.10.1 --lock no.lock")
        .run()
        .fails(2)
        .says("no.lock")
        .says("hint: --lock names a file");
}

#[test]
fn a_lock_of_ones_own_adds_a_version_without_touching_the_catalogue() {
    let place = toys();
    let tarball = Source::new().version("5.10.7").tarball();
    place.write("mirror/v5.x/linux-5.10.7.tar.xz", &tarball);
    let own = fs_err::read_to_string(place.path("recipes/imgbuild.lock")).unwrap();
    let entry =
        crate::support::source::pin("5.10.7", "linux-5.10.7.tar.xz", &crate::support::sha256(&tarball));
    place.write("mine.lock", own + &entry);
    place.imgbuild("kernel 5.10.7").run().fails(2).says("5.10.7 is not pinned");
    place.imgbuild("kernel 5.10.7 --lock mine.lock").run().succeeds().prints("kernel-bin:5.10.7");
}

#[test]
fn conditions_of_a_fragment_choose_by_version_and_architecture() {
    let mut place = toys();
    Source::new().version("5.10.9").install(&mut place);
    let fragment = format!(
        "{FRAGMENT}CONFIG_NUMBER=5 # [>=5.10.5]\nCONFIG_BUS=y # [arm64]\nCONFIG_NEVER=y # [if-known]\nCONFIG_GONE=y # [<5.10]\n"
    );
    place.write("kconfigs/toy.config", fragment);
    place.imgbuild("kernel 5.10.1 5.10.9 --arch all").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let config = |version: &str, architecture| {
        let image = layout.image(&format!("kernel-bin:{version}"), architecture);
        String::from_utf8(image.entry(&format!("boot/config-{version}")).content.clone()).unwrap()
    };
    assert!(config("5.10.1", "amd64").contains("CONFIG_NUMBER=3\n"));
    assert!(config("5.10.9", "amd64").contains("CONFIG_NUMBER=5\n"));
    assert!(config("5.10.1", "arm64").contains("CONFIG_BUS=y\n"));
    assert!(config("5.10.1", "amd64").contains("# CONFIG_BUS is not set\n"));
}

/// The rows of the table in kconfigs/README.md that the fragments call for.
fn rows_of(
    dir: &std::path::Path,
    below: &str,
    rows: &mut std::collections::BTreeSet<(String, String, String)>,
) {
    for entry in fs_err::read_dir(dir).expect("the checkout") {
        let entry = entry.expect("the checkout");
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("the checkout").is_dir() {
            rows_of(&entry.path(), &format!("{name}/"), rows);
        } else if name.ends_with(".config") {
            for line in fs_err::read_to_string(entry.path()).expect("the checkout").lines() {
                let Some((symbol, rest)) = line
                    .trim_start_matches("# ")
                    .strip_prefix("CONFIG_")
                    .and_then(|line| line.split_once(['=', ' ']))
                else {
                    continue;
                };
                let Some((_, condition)) = rest.split_once("# [") else { continue };
                let condition = condition.split(']').next().unwrap_or_default();
                if condition.contains(['<', '>']) {
                    rows.insert((name.clone(), condition.to_owned(), symbol.to_owned()));
                }
            }
        }
    }
}

#[test]
fn the_symbols_that_differ_by_version_are_listed() {
    let kconfigs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kconfigs");
    let mut wanted = std::collections::BTreeSet::new();
    rows_of(&kconfigs, "", &mut wanted);
    assert!(wanted.len() > 50, "{wanted:?}");
    let readme = fs_err::read_to_string(kconfigs.join("README.md")).unwrap();
    let mut listed = std::collections::BTreeSet::new();
    for line in readme.lines() {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [file, condition, symbols] = cells[..] {
            let plain = |text: &str| text.trim_matches(['`', ' ']).to_owned();
            if file.starts_with('`') {
                listed
                    .extend(symbols.split(' ').map(|symbol| (plain(file), plain(condition), plain(symbol))));
            }
        }
    }
    assert_eq!(listed, wanted);
}
