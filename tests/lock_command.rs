//! `imgbuild lock` and versions outside the lock, against a mirror of kernel.org with keys made up for the test.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::keys::{DAY, Key, Kind, Manner};
use fs_err as fs;
use pgp::crypto::hash::HashAlgorithm;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const LOCK: &str = "\
# A lock with comments.
assembly = 1

[places]
\"kernel.org\" = \"http://127.0.0.1:1\" # nobody there
\"kernel.org-releases\" = \"http://127.0.0.1:1\"
other = \"http://127.0.0.1:1\"
";

const RECIPE: &str = "\
kind = \"kernel\"
name = \"toy\"
default = true
series = [\"5.10\"]
fragments = [\"toy.config\"]
";

fn sha256(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in Sha256::digest(bytes) {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}

/// A catalogue, a mirror and a store of their own.
struct World {
    dir: TempDir,
    sums: Key,
    tarballs: Key,
}

/// How a run ended.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl World {
    /// With sound keys.
    fn new() -> Self {
        Self::with(Key::new(), Key::new())
    }

    /// 5.10.98 is pinned, 5.10.99 is the newest; all is well signed by these keys.
    fn with(sums: Key, tarballs: Key) -> Self {
        let dir = tempfile::Builder::new().prefix("imgbuild-test-").tempdir().unwrap();
        let world = Self { dir, sums, tarballs };
        world.write("catalogue/recipes/kernel/toy.toml", RECIPE);
        world.write("catalogue/kconfigs/toy.config", "CONFIG_64BIT=y\n");
        world.list(&[(&world.sums, "sums"), (&world.tarballs, "tarball")]);
        world.write("catalogue/recipes/imgbuild.lock", LOCK.to_owned() + &World::pin("5.10.98"));
        for version in ["5.10.98", "5.10.99"] {
            world.release(version, &world.tarballs, Manner::default());
        }
        world.sign_sums(&world.sums, Manner::default(), &World::sums_text());
        world.write(
            "mirror/releases.json",
            r#"{"releases": [{"version": "5.10.99", "moniker": "longterm"}]}"#,
        );
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Lists keys for roles, with their material.
    fn list(&self, keys: &[(&Key, &str)]) {
        let mut roles = String::new();
        for (key, role) in keys {
            let fingerprint = key.fingerprint();
            let owner = format!("the {role} signer");
            roles += &format!("[[key]]\nrole = '{role}'\nowner = '{owner}'\nfingerprint = '{fingerprint}'\n");
            self.write(&format!("catalogue/keys/{fingerprint}.asc"), key.armored());
        }
        self.write("catalogue/keys/roles.toml", roles);
    }

    fn tar(version: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        let content = format!("VERSION = {version}\n");
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("linux-{version}/Makefile"), content.as_bytes()).unwrap();
        builder.into_inner().unwrap()
    }

    fn xz(version: &str) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&Self::tar(version)).unwrap();
        encoder.finish().unwrap()
    }

    /// Puts a tarball and its signature on the mirror.
    fn release(&self, version: &str, key: &Key, manner: Manner) {
        self.write(&format!("mirror/linux/kernel/v5.x/linux-{version}.tar.xz"), Self::xz(version));
        self.sign_tarball(version, key, manner);
    }

    fn sign_tarball(&self, version: &str, key: &Key, manner: Manner) {
        let signature = key.detach(&Self::tar(version), manner);
        self.write(&format!("mirror/linux/kernel/v5.x/linux-{version}.tar.sign"), signature);
    }

    /// The right list.
    fn sums_text() -> String {
        let line = |version| format!("{}  linux-{version}.tar.xz\n", sha256(&Self::xz(version)));
        format!("{}{}{}  ChangeLog-5.10.99\n", line("5.10.98"), line("5.10.99"), "0".repeat(64))
    }

    fn sign_sums(&self, key: &Key, manner: Manner, text: &str) {
        self.write("mirror/linux/kernel/v5.x/sha256sums.asc", key.clearsign(text, manner));
    }

    fn pin(version: &str) -> String {
        format!(
            "\n# why {version}\n[[kernel]]\nversion = \"{version}\"\nplace = \"kernel.org\"\npath = \
             \"linux/kernel/v5.x/linux-{version}.tar.xz\"\nsha256 = \"{}\"\n",
            sha256(&Self::xz(version))
        )
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.path("catalogue/recipes/imgbuild.lock")).unwrap()
    }

    /// Runs imgbuild with the mirror.
    fn run(&self, words: &str) -> Outcome {
        let mirror = self.path("mirror");
        let named = |place: &str| format!("{place}={}", mirror.display());
        let (tarballs, releases) = (named("kernel.org"), named("kernel.org-releases"));
        self.bare(&format!("{words} --mirror {tarballs} --mirror {releases}"))
    }

    /// Runs imgbuild without one.
    fn bare(&self, words: &str) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
        command.args(words.split_whitespace()).current_dir(self.dir.path()).stdin(Stdio::null()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path("home"));
        command.env("IMGBUILD_STORE", self.path("store")).env("IMGBUILD_CATALOGUE", self.path("catalogue"));
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// `imgbuild lock` fails like this, and so does the first use of the newest release; the lock stays as it is.
    #[track_caller]
    fn refuses(&self, code: i32, texts: &[&str]) {
        let before = self.lock();
        for words in ["lock", "fetch 5.10.99"] {
            self.run(words).fails(code).says(texts);
        }
        assert_eq!(self.lock(), before);
    }
}

impl Outcome {
    #[track_caller]
    fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains("error: "), "{}", self.stderr);
        self
    }

    #[track_caller]
    fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` was not said:\n{}\n{}", self.stdout, self.stderr);
        }
        self
    }
}

#[test]
fn the_newest_release_is_verified_and_pinned_in_place() {
    let world = World::new();
    let before = world.lock();
    let checked = world.run("lock --check").fails(3).says(&["5.10.99 is out, pinned is 5.10.98"]);
    assert!(checked.stdout.contains("1 pin is what kernel.org signs"), "{}", checked.stdout);
    assert_eq!(world.lock(), before);
    let locked = world.run("lock").succeeds();
    assert!(locked.stdout.contains("5.10: 5.10.99 is new, pinned is 5.10.98"), "{}", locked.stdout);
    assert!(locked.stdout.contains("list signed by the sums signer, tarball by the tarball signer"));
    let after = world.lock();
    let added = after.strip_prefix(&before).expect("all that was there is there as it was");
    let size = World::xz("5.10.99").len();
    let expected = World::pin("5.10.99") + &format!("size = {size}\n");
    let comment = added.lines().find(|line| line.starts_with('#')).unwrap();
    assert!(comment.contains(&world.sums.fingerprint()) && comment.contains(&world.tarballs.fingerprint()));
    assert_eq!(added.replace(comment, "# why 5.10.99"), expected);
    // Nothing is new any more.
    world.run("lock --check").succeeds();
    world.run("lock").succeeds();
    assert_eq!(world.lock(), after);
    world.run("fetch 5.10.99 --locked").succeeds();
}

#[test]
fn one_version_is_added_by_its_name() {
    let world = World::new();
    world.release("5.10.97", &world.tarballs, Manner::default());
    let text = World::sums_text() + &format!("{}  linux-5.10.97.tar.xz\n", sha256(&World::xz("5.10.97")));
    world.sign_sums(&world.sums, Manner::default(), &text);
    world.run("lock --add kernel 5.10.97").succeeds();
    assert!(world.lock().find("5.10.97").unwrap() < world.lock().find("5.10.98").unwrap());
    assert!(world.run("lock --add kernel 5.10.97").succeeds().stdout.contains("is pinned already"));
    world.run("lock --add image 5.10.97").fails(2).says(&["`image` is nothing that can be added"]);
    world.run("lock --add kernel 5.10.x").fails(2).says(&["is not a kernel version"]);
}

#[test]
fn a_version_outside_the_lock_is_verified_on_first_use_and_not_written() {
    let world = World::new();
    let before = world.lock();
    world.run("fetch 5.10.99 --locked").fails(2).says(&["5.10.99 is not pinned", "5.10.98"]);
    world.run("kernel 5.10.99 --locked").fails(2).says(&["5.10.99 is not pinned"]);
    let note = [
        "5.10.99 is not in the lock",
        "tarball by the tarball signer",
        "`imgbuild lock --add kernel 5.10.99`",
    ];
    let first = world.run("fetch 5.10.99").succeeds().says(&note);
    assert!(first.stdout.starts_with("5.10.99 "), "{}", first.stdout);
    // Remembered: no mirror is asked again, unless the keys are others.
    let again = world.bare("fetch 5.10.99").succeeds();
    assert!(!again.stderr.contains("not in the lock"), "{}", again.stderr);
    world.list(&[(&world.sums, "sums"), (&world.tarballs, "tarball"), (&Key::new(), "tarball")]);
    world.run("fetch 5.10.99").succeeds().says(&note);
    assert_eq!(world.lock(), before);
    world.run("fetch 5.11").fails(2).says(&["5.11 is not pinned"]);
}

#[test]
fn a_series_that_is_announced_no_more_is_looked_up_in_the_signed_list() {
    let world = World::new();
    world.write("mirror/releases.json", r#"{"releases": [{"version": "6.17"}, {"version": "6.18-rc1"}]}"#);
    let locked = world.run("lock --series 5.10").succeeds();
    assert!(locked.stdout.contains("5.10: 5.10.99 is new, pinned is 5.10.98 (no longer maintained)"));
    world.run("lock --series 5.9").fails(2).says(&["no release of the series 5.9"]);
}

#[test]
fn a_signature_of_a_key_that_nobody_listed_is_refused() {
    let world = World::new();
    let stranger = Key::new();
    world.sign_sums(&stranger, Manner::default(), &World::sums_text());
    let named = format!("signed by {}, a key nobody listed", stranger.fingerprint());
    world.refuses(5, &["sha256sums.asc` is refused", &named]);
    world.sign_sums(&world.sums, Manner::default(), &World::sums_text());
    world.sign_tarball("5.10.99", &stranger, Manner::default());
    world.refuses(5, &["linux-5.10.99.tar.sign` is refused", &named]);
}

#[test]
fn an_expired_key_is_refused() {
    let expired = Kind { expires: 900 * DAY, ..Kind::default() };
    World::with(Key::of(expired), Key::new())
        .refuses(5, &["sha256sums.asc` is refused", "expired on", "fresh file"]);
    World::with(Key::new(), Key::of(expired)).refuses(5, &["5.10.99.tar.sign` is refused", "expired on"]);
}

#[test]
fn a_revoked_key_is_refused() {
    let revoked = Kind { revoked: true, ..Kind::default() };
    World::with(Key::of(revoked), Key::new()).refuses(5, &["sha256sums.asc` is refused", "is revoked"]);
    World::with(Key::new(), Key::of(revoked)).refuses(5, &["5.10.99.tar.sign` is refused", "is revoked"]);
}

#[test]
fn a_key_signs_only_what_its_role_says() {
    let world = World::new();
    world.sign_sums(&world.tarballs, Manner::default(), &World::sums_text());
    world.refuses(5, &["whose key signs kernel tarballs (role `tarball`), not lists of checksums"]);
    world.sign_sums(&world.sums, Manner::default(), &World::sums_text());
    world.sign_tarball("5.10.99", &world.sums, Manner::default());
    world.refuses(5, &["whose key signs lists of checksums (role `sums`), not kernel tarballs"]);
}

#[test]
fn a_weak_hash_is_refused() {
    let rsa = Kind { rsa: true, ..Kind::default() };
    let world = World::with(Key::new(), Key::of(rsa));
    for (hash, name) in [(HashAlgorithm::Sha1, "SHA1"), (HashAlgorithm::Md5, "MD5")] {
        world.sign_tarball("5.10.99", &world.tarballs, Manner { hash, ..Manner::default() });
        world.refuses(5, &[&format!("its signature is by {name}, which can be forged")]);
    }
}

#[test]
fn a_good_signature_over_another_version_is_refused() {
    let world = World::new();
    let file = |name: &str| world.path(&format!("mirror/linux/kernel/v5.x/linux-{name}"));
    fs::copy(file("5.10.98.tar.sign"), file("5.10.99.tar.sign")).unwrap();
    world.refuses(5, &["is not over this content"]);
    // And with the tarball that it is over.
    fs::copy(file("5.10.98.tar.xz"), file("5.10.99.tar.xz")).unwrap();
    fs::remove_dir_all(world.path("store")).unwrap();
    let named =
        ["is not what kernel.org signed as linux-5.10.99.tar.xz", "which is the one of linux-5.10.98.tar.xz"];
    world.refuses(5, &named);
    assert!(!world.path("store/downloads").join(sha256(&World::xz("5.10.98"))).exists());
}

#[test]
fn a_list_with_the_right_hash_for_the_wrong_file_is_refused() {
    let world = World::new();
    let text = World::sums_text().replace("linux-5.10.99", "linux-5.10.9x").replace("5.10.98", "5.10.99");
    let text = text.replace("5.10.9x", "5.10.98");
    world.sign_sums(&world.sums, Manner::default(), &text);
    world.run("lock").fails(5).says(&[
        "`",
        "does not pin what kernel.org signs: `5.10.98`",
        "pinned is",
        "signed is",
    ]);
    world.run("fetch 5.10.99").fails(5).says(&["which is the one of linux-5.10.98.tar.xz"]);
}

#[test]
fn a_changed_list_is_refused() {
    let world = World::new();
    let path = world.path("mirror/linux/kernel/v5.x/sha256sums.asc");
    let right = fs::read_to_string(&path).unwrap();
    let other = sha256(b"other");
    let changed = right.replace(&sha256(&World::xz("5.10.99")), &other);
    fs::write(&path, &changed).unwrap();
    world.refuses(5, &["the signature of", "is not over this content"]);
    // Text that only looks signed.
    fs::write(&path, format!("{other}  linux-5.10.99.tar.xz\n{right}")).unwrap();
    world.refuses(5, &["it is not a clearsigned document"]);
    fs::write(&path, World::sums_text()).unwrap();
    world.refuses(5, &["it is not a clearsigned document"]);
}

#[test]
fn a_list_without_the_version_is_told() {
    let world = World::new();
    let right = World::sums_text();
    let text: Vec<_> = right.lines().filter(|line| !line.contains("x-5.10.99")).collect();
    world.sign_sums(&world.sums, Manner::default(), &text.join("\n"));
    world.refuses(4, &["has no linux-5.10.99.tar.xz", "the mirror is behind"]);
}

#[test]
fn garbage_instead_of_the_releases_is_told() {
    let world = World::new();
    for garbage in ["<html>", "{}", r#"{"releases": []}"#] {
        world.write("mirror/releases.json", garbage);
        world.run("lock").fails(5).says(&["is not kernel.org's list of releases", "kernel.org-releases=URL"]);
    }
}

#[test]
fn a_missing_key_is_named_with_its_place() {
    let world = World::new();
    for (key, what) in [(&world.sums, "lists of checksums"), (&world.tarballs, "kernel tarballs")] {
        let file = format!("catalogue/keys/{}.asc", key.fingerprint());
        fs::remove_file(world.path(&file)).unwrap();
        let named = format!("no public key for {what}");
        world.run("lock").fails(4).says(&[&named, &key.fingerprint(), &file]);
        // The version is not there, as long as nothing can be verified.
        world.run("fetch 5.10.99").fails(2).says(&["5.10.99 is not pinned", &named, "pinned are `5.10.98`"]);
        world.write(&file, key.armored());
    }
    world.write(&format!("catalogue/keys/{}.asc", world.sums.fingerprint()), world.tarballs.armored());
    world.run("lock").fails(5).says(&["is not the key it should be: its fingerprint is"]);
    fs::remove_file(world.path("catalogue/keys/roles.toml")).unwrap();
    world.run("lock").fails(4).says(&["keys/roles.toml` does not exist"]);
    world.run("fetch 5.10.99").fails(2).says(&["5.10.99 is not pinned"]);
    world.write("catalogue/keys/roles.toml", "[[key]]\nrole = 'kings'\nowner = 'o'\nfingerprint = 'abc'\n");
    world.run("lock").fails(3).says(&["unknown role `kings`", "40 upper-case hexadecimal digits"]);
}

#[test]
fn each_place_that_does_not_answer_is_named() {
    let world = World::new();
    let words = "lock --check";
    world.bare(words).fails(4).says(&[
        "--mirror kernel.org=URL",
        "--mirror kernel.org-releases=URL",
        "127.0.0.1:1/releases.json",
    ]);
    let only = format!("{words} --mirror kernel.org-releases={}", world.path("mirror").display());
    world.bare(&only).fails(4).says(&["sha256sums.asc"]);
}

#[test]
fn a_lock_that_cannot_be_changed_is_told_first() {
    let world = World::new();
    let text = world.lock().replace("\"kernel.org-releases\" = \"http://127.0.0.1:1\"\n", "");
    world.write("old.lock", text);
    world
        .bare("lock --lock old.lock")
        .fails(3)
        .says(&["has no place `kernel.org-releases`", "https://www.kernel.org"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_imgbuild"));
    command.args(["lock"]).current_dir(world.dir.path()).env("IMGBUILD_STORE", world.path("store"));
    let output = command.env_remove("IMGBUILD_CATALOGUE").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("is built into this program and cannot be changed"), "{stderr}");
}
