use fs_err as fs;

use super::*;
use crate::document::Document;
use crate::lock::Lock;
use crate::recipe::{Catalogue, Error, catalogue};
use crate::step::Diagnose;

#[test]
fn paths_stay_below_the_root() {
    assert_eq!(absolute("/etc//x/./y"), Ok("etc/x/y".into()));
    for path in ["etc/x", "/etc/../../x", "/", "/."] {
        assert!(absolute(path).is_err(), "{path}");
    }
}

#[test]
fn the_shipped_systems_are_whole() {
    let all = Catalogue::Builtin;
    let names = all.systems().unwrap();
    let expected = [
        "actions-runner",
        "capmvm-kubernetes",
        "debian-12",
        "ubuntu-20.04",
        "ubuntu-20.04-plain",
        "ubuntu-22.04",
        "ubuntu-24.04",
    ];
    assert_eq!(names, expected);
    assert_eq!(all.default_system().unwrap().name, "ubuntu-20.04");
    for name in &names {
        let recipe = all.system(name).unwrap();
        assert_eq!(&recipe.name, name);
        assert_eq!(recipe.links["etc/resolv.conf"], "../run/systemd/resolve/stub-resolv.conf");
        assert!(recipe.directories.contains("usr/lib/modules"), "{name}");
        let seed =
            String::from_utf8(recipe.files["etc/cloud/cloud.cfg.d/95-imgbuild.cfg"].bytes.clone()).unwrap();
        assert!(seed.contains("\ndatasource_list: [ NoCloud, None ]\n"), "{name}");
        for unit in [
            "systemd-networkd.service",
            "systemd-resolved.service",
            "ssh-host-keys.service",
            "late-modules.service",
        ] {
            assert!(recipe.enabled.contains(unit), "{name} does not enable {unit}");
        }
        for (unit, text) in recipe.units.iter().filter(|(unit, _)| recipe.enabled.contains(*unit)) {
            assert!(text.contains("\n[Install]\nWantedBy="), "{name}: {unit} cannot be enabled");
        }
        for arch in Arch::ALL {
            let packages = recipe.packages(arch);
            for package in
                ["cloud-init", "iproute2", "kmod", "mount", "openssh-server", "sudo", "systemd-sysv"]
            {
                assert!(packages.contains(&package), "{name} has no {package}");
            }
            assert!(!packages.iter().any(|package| package.starts_with("linux-")), "{name} has a kernel");
        }
        let places = Arch::ALL.map(|arch| recipe.archive(arch).place);
        let is_ubuntu = recipe.archive(Arch::X86_64).keyring_package() == "ubuntu-keyring";
        assert_eq!(places, if is_ubuntu { ["ubuntu", "ubuntu-ports"] } else { ["debian", "debian"] });
    }
}

#[test]
fn the_shipped_nodes_have_what_a_node_runs_and_versions_that_the_lock_knows() {
    let lock = Lock::parse("l", &Catalogue::Builtin.read(catalogue::LOCK).unwrap()).unwrap();
    for (name, suite, versions) in [
        ("ubuntu-20.04", "focal", &["1.21.8", "1.22.3", "1.22.8", "1.23.5"][..]),
        ("ubuntu-22.04", "jammy", &["1.30.14"]),
        ("ubuntu-24.04", "noble", &["1.33.11"]),
        ("debian-12", "bookworm", &[]),
    ] {
        let recipe = Catalogue::Builtin.system(name).unwrap();
        assert_eq!(recipe.archive(Arch::Arm64).suites[0], suite);
        assert_eq!(recipe.kubernetes, versions);
        for version in versions {
            assert_eq!(lock.node(version).unwrap().version, *version);
        }
        let packages = recipe.packages(Arch::X86_64);
        for package in ["conntrack", "ebtables", "ethtool", "iptables", "jq", "socat", "util-linux"] {
            assert!(packages.contains(&package), "{name} has no {package}");
        }
        assert_eq!(recipe.sysctls["net.ipv4.ip_forward"], "1");
        assert_eq!(recipe.modules, ["overlay", "br_netfilter"]);
    }
    for name in ["ubuntu-20.04-plain", "actions-runner"] {
        let plain = Catalogue::Builtin.system(name).unwrap();
        assert_eq!((plain.kubernetes.len(), plain.modules.len(), plain.sysctls.len()), (0, 0, 0), "{name}");
        assert!(!plain.packages(Arch::X86_64).contains(&"conntrack"), "{name}");
    }
}

/// What `text` means as a recipe in a file of its own, beside which lies `motd`.
fn own(text: &str) -> Result<OsRecipe, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("motd"), "welcome\n").unwrap();
    let path = dir.path().join("own.toml");
    fs::write(&path, text).unwrap();
    Catalogue::Builtin.system_file(&path)
}

#[test]
fn a_recipe_adds_to_the_one_it_extends_and_wins_over_it() {
    let text = "kind = 'os'\nname = 'own'\nextends = 'ubuntu-20.04'\nkubernetes = ['1.22.8']\n\
                packages = ['htop']\nwithout = ['jq']\nmodules = ['overlay', 'wireguard']\n\
                mask = ['systemd-resolved.service']\nenable = ['apt-daily.timer']\ndirectories = ['/srv//data']\n\
                [arch.arm64]\npackages = ['rpi-tools']\n\
                [sysctl]\n'kernel.panic' = '1'\n[links]\n'/etc/resolv.conf' = '/dev/null'\n\
                [[file]]\npath = '/etc/motd'\nsource = 'motd'\nmode = '0600'\nowner = '7:8'\n\
                [[file]]\npath = '/etc/fstab'\ncontent = 'mine'\n\
                [[unit]]\nname = 'late-modules.service'\ncontent = 'mine'\n";
    let (own, parent) = (own(text).unwrap(), Catalogue::Builtin.system("ubuntu-20.04").unwrap());
    assert_eq!((own.name.as_str(), own.image.as_str(), own.version.as_str()), ("own", "own", "20.04"));
    assert_eq!(own.kubernetes, ["1.22.8"]);
    let mut packages = parent.packages(Arch::X86_64);
    packages.retain(|package| *package != "jq");
    packages.push("htop");
    packages.sort_unstable();
    assert_eq!(own.packages(Arch::X86_64), packages);
    assert!(own.packages(Arch::Arm64).contains(&"rpi-tools"));
    assert_eq!(own.archive(Arch::Arm64), parent.archive(Arch::Arm64));
    assert_eq!(own.modules, ["overlay", "br_netfilter", "wireguard"]);
    assert!(
        own.masked.contains("systemd-resolved.service") && !own.enabled.contains("systemd-resolved.service")
    );
    assert!(own.enabled.contains("apt-daily.timer") && !own.masked.contains("apt-daily.timer"));
    assert!(own.directories.contains("srv/data") && own.directories.contains("usr/lib/modules"));
    assert_eq!(
        (own.sysctls["kernel.panic"].as_str(), own.sysctls["net.ipv4.ip_forward"].as_str()),
        ("1", "1")
    );
    assert_eq!(own.links["etc/resolv.conf"], "/dev/null");
    let motd = File {
        path: "etc/motd".into(),
        bytes: b"welcome\n".into(),
        mode: 0o600,
        owner: (7, 8),
        replace: false,
    };
    assert_eq!(own.files["etc/motd"], motd);
    assert_eq!(own.files["etc/fstab"].bytes, b"mine");
    assert_eq!(own.files["etc/hosts"], parent.files["etc/hosts"]);
    assert_eq!(own.units["late-modules.service"], "mine");
}

#[test]
fn another_archive_takes_the_place_of_the_whole_one() {
    let archive = "archive = 'debian'\nsuites = ['trixie']\ncomponents = ['main']\nsnapshot = '20260901T000000Z'\nkeyring = 'k'\n";
    let text = format!("kind = 'os'\nname = 'own'\nextends = 'ubuntu-20.04'\n{archive}");
    let recipe = own(&text).unwrap();
    for arch in Arch::ALL {
        let archive = recipe.archive(arch);
        assert_eq!((archive.place.as_str(), archive.suites[0].as_str()), ("debian", "trixie"));
    }
    let part = own("kind = 'os'\nname = 'own'\nextends = 'ubuntu-20.04'\nsuites = ['trixie']\n").unwrap_err();
    assert!(part.detail().unwrap().contains("`suites` without `archive`"), "{part:?}");
}

#[test]
fn every_mistake_is_told() {
    let text = "kind = 'kernel'\nname = 'Own Name'\nextends = 'ubuntu-20.4'\npackages = ['--option']\n\
                enable = ['node']\nmask = ['a b.service']\nmodules = ['../x']\ndirectories = ['srv']\n\
                [arch.amd64]\npackages = ['gcc']\n[sysctl]\n'net ipv4' = '1'\n[links]\n'etc/x' = 'y'\n\
                [[file]]\npath = '/etc/../../x'\ncontent = ''\n\
                [[file]]\npath = '/etc/x'\ncontent = ''\nsource = 'x'\n\
                [[file]]\npath = '/etc/x'\nsource = 'gone'\nmode = '0888'\nowner = 'root:root'\n\
                [[unit]]\nname = 'x.service'\ncontents = ''\n";
    let beside = |_: &str| Err("cannot be read".to_owned());
    let known = Known { beside: &beside, recipes: &["ubuntu-20.04".into()] };
    let told = Document::new("t", text).read(|fields| read(fields, &known)).unwrap_err().detail().unwrap();
    for expected in [
        "`kernel` is not a kind of recipe",
        "`Own Name` is no name of an image",
        "no OS recipe `ubuntu-20.4` to extend",
        "did you mean `ubuntu-20.04`?",
        "`--option` is no name",
        "`node` is no name of a unit",
        "`a b.service` is no name of a unit",
        "`../x` is no name of a kernel module",
        "`srv` is not an absolute path",
        "a recipe writes `x86_64`",
        "`net ipv4` is no kernel parameter",
        "`etc/x` is not an absolute path",
        "holds `..`, which could lead out",
        "one of `content` and `source`",
        "`gone` cannot be read",
        "`0888` is no mode",
        "`root:root` is no owner and group",
        "did you mean `content`?",
    ] {
        assert!(told.contains(expected), "{expected} is not in\n{told}");
    }
    let alone = Document::new("t", "kind = 'os'\n").read(|fields| read(fields, &known)).unwrap_err();
    let told = alone.detail().unwrap();
    for field in ["name", "version", "archive", "suites", "snapshot", "keyring", "packages"] {
        assert!(told.contains(&format!("`{field}` is missing")), "{field} is not in\n{told}");
    }
}

#[test]
fn a_source_outside_of_the_recipes_directory_is_refused() {
    let with = |source| {
        format!(
            "kind = 'os'\nname = 'own'\nextends = 'ubuntu-20.04'\n[[file]]\npath = '/x'\nsource = '{source}'\n"
        )
    };
    assert!(own(&with("motd")).is_ok());
    let told = own(&with("../../etc/passwd")).unwrap_err().detail().unwrap();
    assert!(told.contains("cannot be read") || told.contains("outside"), "{told}");
    let told = own(&with("/etc/passwd")).unwrap_err().detail().unwrap();
    assert!(told.contains("lies outside the recipe's directory"), "{told}");
}

#[test]
fn a_circle_is_told_with_all_its_recipes() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("recipes/os")).unwrap();
    for (name, parent) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let text = format!("kind = 'os'\nname = '{name}'\nextends = '{parent}'\n");
        fs::write(dir.path().join(format!("recipes/os/{name}.toml")), text).unwrap();
    }
    let error = Catalogue::Directory(dir.path().into()).system("a").unwrap_err();
    assert_eq!(error.to_string(), "the recipes `a`, `b`, `c`, `a` extend one another in a circle");
    assert_eq!(error.class(), crate::step::Class::Recipe);
}
