//! `imgbuild os`: the unchanged Ubuntu 20.04 recipe made into nodes, on an archive and release files that stand in for
//! the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use crate::support::layout::Layout;
use crate::support::node::architecture;
use crate::support::registry::{Door, Registry};
use crate::support::ubuntu::{os, place, store};
use crate::support::{Outcome, Place, tool};
use fs_err as fs;

/// The digests of an image's layers, the base first.
fn layers(place: &Place, output: &str, name: &str) -> Vec<String> {
    let layout = Layout::at(place.path(output));
    let index = layout.image_index(name);
    let manifest = layout.blob(index["manifests"][0]["digest"].as_str().unwrap());
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// The entries of a layer by path: mode, and the text or target.
fn entries(place: &Place, output: &str, digest: &str) -> BTreeMap<String, (u32, String)> {
    let blob = Layout::at(place.path(output)).blob(digest);
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&blob[..]));
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
        let mode = entry.header().mode().unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let target = entry.link_name().unwrap().map(|target| target.to_string_lossy().into_owned());
        found.insert(path, (mode, target.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned())));
    }
    found
}

/// A place that makes its bases where the other tests do.
fn shared() -> Place {
    let mut place = place();
    place.set("IMGBUILD_STORE", store());
    place
}

/// The first line with a digest of a kind that the command printed.
fn digest(outcome: &Outcome, kind: &str) -> String {
    let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with(kind)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn a_second_version_makes_and_pushes_only_what_differs() {
    let (place, registry) = (shared(), Registry::new(Door::Open));
    let to = format!("--push --registry {}/org", registry.host());
    os(&place, &format!("--k8s 1.22.3 {to}")).run().succeeds().prints("capmvm-k8s-os:1.22.3");
    let uploaded = registry.blobs("org/capmvm-k8s-os");
    os(&place, "--k8s 1.23.5 --dry-run").run().succeeds().prints("shared by every version");

    let second = os(&place, &format!("--k8s 1.23.5 --output second {to}")).run().succeeds();
    let second = second.does_not_say("     base  ").says("pack  Kubernetes 1.23.5").says("sound");
    let (one, two) =
        (layers(&place, "out", "capmvm-k8s-os:1.22.3"), layers(&place, "second", "capmvm-k8s-os:1.23.5"));
    assert_eq!((one.len(), two.len()), (3, 3));
    assert_eq!((&one[0], &one[2]), (&two[0], &two[2]));
    let _ = second.says(format!("layer {}: there already", &two[0][..19]));
    assert_ne!(one[1], two[1]);
    let uploaded: BTreeSet<_> = uploaded.into_iter().collect();
    let more: BTreeSet<_> = registry.blobs("org/capmvm-k8s-os").into_iter().collect();
    // The Kubernetes layer and the configuration of the image.
    assert_eq!(more.difference(&uploaded).count(), 2, "{more:?} after {uploaded:?}");

    let programs = entries(&place, "second", &two[1]);
    for path in
        ["usr/bin/kubelet", "usr/bin/containerd", "usr/bin/runc", "usr/bin/crictl", "opt/cni/bin/bridge"]
    {
        assert_eq!(programs[path].0, 0o755, "{path}");
    }
    assert!(programs["etc/containerd/config.toml"].1.contains("k8s.gcr.io/pause:3.6"));
    assert!(!programs.contains_key("opt/cni/bin/LICENSE"));
    let configuration = entries(&place, "second", &two[2]);
    assert_eq!(configuration["etc/modules-load.d/imgbuild.conf"].1, "overlay\nbr_netfilter\n");
    assert!(configuration["etc/sysctl.d/90-imgbuild.conf"].1.contains("net.ipv4.ip_forward = 1\n"));
    let wants = "etc/systemd/system/sysinit.target.wants/late-modules.service";
    assert_eq!(configuration[wants].1, "/etc/systemd/system/late-modules.service");
    assert!(configuration.contains_key("etc/cloud/cloud.cfg.d/95-imgbuild.cfg"));

    let nothing = os(&place, "--k8s 1.23.5 --output third").run().succeeds();
    assert_eq!(layers(&place, "third", "capmvm-k8s-os:1.23.5"), two);
    let _ = nothing.does_not_say("     base  ").does_not_say("     pack  ");
}

#[test]
fn an_ordinary_user_makes_the_same_image() {
    let root = shared();
    let ours = os(&root, "--k8s 1.22.8").run().succeeds();
    // Root becomes a user with further ids; scripts/test makes one.
    let place = place();
    let run = os(&place, "--k8s 1.22.8").env("TZ", "Asia/Kolkata").after("umask 077");
    let run = if tool("id", &["-u".as_ref()]).trim() == "0" {
        let ids = fs::read_to_string("/etc/subuid").unwrap();
        let user = ids.lines().next().and_then(|line| line.split(':').next());
        let user = user.expect("/etc/subuid names no user: `useradd imgbuild-tests` makes one").to_owned();
        let dir = place.work().parent().unwrap().to_owned();
        tool("chown", &["-R".as_ref(), user.as_ref(), dir.as_os_str()]);
        run.under(["setpriv", "--clear-groups", &format!("--reuid={user}"), &format!("--regid={user}")])
    } else {
        run
    };
    assert_eq!(digest(&run.run().succeeds(), "index"), digest(&ours, "index"));
}

/// A recipe of one's own in `own/own.toml`, with this text behind what every such recipe has.
fn own(place: &Place, text: &str) -> String {
    let head = "kind = \"os\"\nname = \"own\"\nextends = \"ubuntu-20.04\"\n";
    place.write("own/own.toml", format!("{head}{text}"));
    "--recipe own/own.toml".into()
}

#[test]
fn a_recipe_of_ones_own_lies_over_the_same_base() {
    let place = shared();
    place.write("own/motd", "welcome\n");
    let text = "version = \"7\"\nkubernetes = []\n\
                [[file]]\npath = \"/lib/own/motd\"\nsource = \"motd\"\nmode = \"0640\"\nowner = \"0:42\"\n\
                [[unit]]\nname = \"own.service\"\nenable = true\n\
                content = \"[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n\"\n";
    os(&place, &own(&place, text)).run().succeeds().prints("own:7");
    os(&place, "--k8s 1.22.8 --output node").run().succeeds();
    let (mine, node) = (layers(&place, "out", "own:7"), layers(&place, "node", "capmvm-k8s-os:1.22.8"));
    assert_eq!((mine.len(), &mine[0]), (2, &node[0]));
    let configuration = entries(&place, "out", &mine[1]);
    // The base has `lib` as a link.
    assert_eq!(configuration["usr/lib/own/motd"], (0o640, "welcome\n".into()));
    let wants = "etc/systemd/system/multi-user.target.wants/own.service";
    assert_eq!(configuration[wants].1, "/etc/systemd/system/own.service");

    let fight = own(&place, "[[file]]\npath = \"/usr/bin/kubelet\"\ncontent = \"mine\"\n");
    os(&place, &format!("{fight} --k8s 1.22.8"))
        .run()
        .fails(3)
        .says("`/usr/bin/kubelet` is in the Kubernetes layer and in the configuration layer too")
        .says("replace = true");
    let key = format!("-----BEGIN PRIVATE KEY-----\\n{}\\n", "A".repeat(64));
    let secret =
        own(&place, &format!("kubernetes = []\n[[file]]\npath = \"/etc/key\"\ncontent = \"{key}\"\n"));
    os(&place, &secret).run().fails(5).says("/etc/key: a private key");
}

#[test]
fn a_tampered_program_is_refused() {
    let place = shared();
    let path = place.path("releases/release/v1.21.8/bin/linux").join(architecture()).join("kubelet");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    os(&place, "--k8s 1.21.8").run().fails(5).says("kubelet");
    assert!(!place.path("out").exists());
}

#[test]
fn an_unknown_version_is_told_with_those_that_are_known() {
    let place = place();
    os(&place, "--k8s 1.22.9").run().fails(2).says("1.22.9").says("`1.22.8`").says("[[kubernetes]]");
    let other = os(&place, "--k8s 1.33.11").run().fails(2);
    let _ = other.says("`ubuntu-20.04` is for Kubernetes `1.21.8`").says("kubernetes = [\"1.33.11\"]");
    os(&place, "--recipe ubuntu-20.04-plain --k8s 1.22.8").run().fails(2).says("ubuntu-20.04-plain");
    os(&place, "--recipe ubuntu-20.4").run().fails(2).says("did you mean `ubuntu-20.04`?");
}

#[test]
fn a_containerd_that_there_is_not_is_told_before_any_work() {
    let place = place();
    let lock = fs::read_to_string(place.path("standin.lock")).unwrap();
    let own = "[kubernetes.arch.arm64]\ncontainerd = \"1.6.4\"\nrunc = \"1.1.1\"\n";
    assert!(lock.contains(own));
    place.write("standin.lock", lock.replace(own, ""));
    let outcome = os(&place, "--k8s 1.22.8 --arch arm64").run().fails(3);
    let _ = outcome.says("pins no containerd 1.5.8 for arm64").says("`1.6.4`").does_not_say("base");
}

#[test]
fn an_archive_with_other_keys_or_without_a_package_is_refused() {
    let place = place();
    let wrong = os(&place, "--k8s 1.22.8").option("--keyring", format!("ubuntu={}", keys(&place).display()));
    wrong.run().fails(5).says("is not signed as it must be");
    let gone = own(&place, "packages = [\"no-such-package\"]\n");
    os(&place, &gone).run().fails(4).says("has no package `no-such-package`");
    os(&place, "--keyring nowhere=/x").run().fails(2).says("`nowhere`, which is no place of the lock");
    os(&place, "--keyring ubuntu").run().fails(2).says("names no place and file");
    let missing = os(&place, "--k8s 1.22.8").option("--keyring", "ubuntu=/nowhere.gpg");
    missing.run().fails(4).says("/nowhere.gpg");
}

/// A keyring of somebody else's.
fn keys(place: &Place) -> std::path::PathBuf {
    let (home, keyring) = (place.path("gnupg"), place.path("theirs.gpg"));
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gpg = |words: &[&str]| {
        let common = ["--batch", "--quiet", "--homedir", home.to_str().unwrap()];
        let words: Vec<_> = common.iter().chain(words).map(std::ffi::OsStr::new).collect();
        tool("gpg", &words);
    };
    gpg(&["--passphrase", "", "--quick-gen-key", "theirs <nobody@localhost>", "ed25519", "sign", "0"]);
    gpg(&["--output", keyring.to_str().unwrap(), "--export"]);
    keyring
}

#[test]
fn what_a_recipe_says_stays_below_its_roots() {
    let place = place();
    let file = |text: &str| own(&place, &format!("[[file]]\n{text}\n"));
    os(&place, &file("path = \"/etc/../../x\"\ncontent = \"\"")).run().fails(3).says("holds `..`");
    fs::create_dir_all(place.path("own")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", place.path("own/name")).unwrap();
    let outside = "lies outside the recipe's directory";
    for source in ["name", "../standin.lock", "/etc/hostname"] {
        let words = file(&format!("path = \"/x\"\nsource = \"{source}\""));
        os(&place, &words).run().fails(3).says(outside);
    }
    for (name, parent) in [("a", "b"), ("b", "a")] {
        let text = format!("kind = \"os\"\nname = \"{name}\"\nextends = \"{parent}\"\n");
        place.write(&format!("recipes/os/{name}.toml"), text);
    }
    let circle = os(&place, "--recipe a").option("--catalogue", place.work()).run().fails(3);
    let _ = circle.says("the recipes `a`, `b`, `a` extend one another in a circle");
}

#[test]
fn another_architecture_needs_qemu_user_and_that_is_said() {
    let place = place();
    // The tools of making a base, and no others.
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["bwrap", "mmdebstrap", "newuidmap"] {
        std::os::unix::fs::symlink(Path::new("/usr/bin").join(name), bin.join(name)).unwrap();
    }
    let (foreign, tool) = if architecture() == "amd64" {
        ("arm64", "qemu-aarch64-static")
    } else {
        ("x86_64", "qemu-x86_64-static")
    };
    let run = os(&place, &format!("--recipe ubuntu-20.04-plain --arch {foreign}"));
    run.env("PATH", bin).run().fails(4).says(format!("`{tool}`")).says("qemu-user-static");
}
