//! Credentials as docker and podman keep them, and `imgbuild login`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::registry::{Door, Fault, PASSWORD, Registry, USER};
use crate::support::{Imgbuild, Outcome, Place, images};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A place with something to push.
fn place() -> Place {
    let place = Place::new();
    images::layout(&place, "out", &[("kernel-bin:5.10.1", 1)]);
    place
}

fn push(place: &Place, registry: &Registry) -> Imgbuild {
    place.imgbuild("push out --registry").arg(format!("{}/org", registry.host()))
}

fn auth(username: &str, password: &str) -> Value {
    json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
}

fn good() -> Value {
    auth(USER, PASSWORD)
}

fn wrong() -> Value {
    auth(USER, "wr0ng-pass")
}

/// Writes a file below the home directory.
fn keep(place: &Place, path: &str, document: &Value) -> std::path::PathBuf {
    let path = place.home().join(path);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(&path, document.to_string()).unwrap();
    path
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// A credential helper that does as the script says; returns the directory it is in.
fn helper(place: &Place, name: &str, script: &str) -> String {
    let path = place.write(&format!("bin/docker-credential-{name}"), format!("#!/bin/sh\n{script}\n"));
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", path.parent().unwrap().display(), std::env::var("PATH").unwrap())
}

fn log_in(place: &Place, registry: &Registry, password: &str) -> Imgbuild {
    let input = place.write("password", password);
    place.imgbuild("login --username bob --password-stdin").arg(registry.host()).stdin(input)
}

/// Nothing of a password is told.
#[track_caller]
fn is_discreet(outcome: Outcome) -> Outcome {
    let word = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    [PASSWORD, "wr0ng-pass", &word]
        .iter()
        .fold(outcome, |outcome, secret| outcome.does_not_say(secret).does_not_print(secret))
}

#[test]
fn docker_s_file_is_read_where_docker_has_it() {
    for door in [Door::Basic, Door::Tokens] {
        let (place, registry) = (place(), Registry::new(door));
        let document = json!({ "auths": { registry.host(): good() } });
        keep(&place, ".docker/config.json", &document);
        push(&place, &registry).run().succeeds();
        let elsewhere =
            keep(&place, "elsewhere/config.json", &json!({ "auths": { registry.host(): wrong() } }));
        let dir = elsewhere.parent().unwrap();
        let outcome = place
            .imgbuild("push out --registry")
            .arg(format!("{}/other", registry.host()))
            .env("DOCKER_CONFIG", dir)
            .run();
        is_discreet(outcome.fails(7)).says("hint: the password may be wrong");
    }
}

#[test]
fn podman_s_file_is_read_where_podman_has_it() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    let document = json!({ "auths": { registry.host(): good() } });
    let path = keep(&place, "named.json", &document);
    push(&place, &registry).run().fails(7);
    push(&place, &registry).env("REGISTRY_AUTH_FILE", path).run().succeeds();
    for (variable, dir, file) in [
        ("XDG_RUNTIME_DIR", "run", "run/containers/auth.json"),
        ("XDG_CONFIG_HOME", "conf", "conf/containers/auth.json"),
    ] {
        keep(&place, file, &document);
        let run = place.imgbuild("push out --registry").arg(format!("{}/{dir}", registry.host()));
        run.env(variable, place.home().join(dir)).run().succeeds();
    }
}

#[test]
fn the_entry_for_a_part_of_a_registry_has_the_word() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    let host = registry.host();
    let document = json!({ "auths": { &host: wrong(), format!("{host}/org"): good() } });
    keep(&place, ".docker/config.json", &document);
    push(&place, &registry).run().succeeds();
    let outcome = place.imgbuild("push out --registry").arg(format!("{host}/organ")).run().fails(7);
    is_discreet(outcome).says("as `bob` from `");
}

#[test]
fn a_helper_is_asked_for_what_it_keeps() {
    for entry in ["credHelpers", "credsStore"] {
        let (place, registry) = (place(), Registry::new(Door::Tokens));
        let document = match entry {
            "credHelpers" => json!({ entry: { registry.host(): "toy" } }),
            // What docker leaves behind for what the helper keeps.
            _ => json!({ entry: "toy", "auths": { registry.host(): {} } }),
        };
        keep(&place, ".docker/config.json", &document);
        let script = format!(
            "read server; echo \"$1 $server\" >asked\necho '{{\"ServerURL\":\"x\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'"
        );
        let path = helper(&place, "toy", &script);
        is_discreet(push(&place, &registry).env("PATH", path).run().succeeds());
        let asked = fs_err::read_to_string(place.path("asked")).unwrap();
        assert_eq!(asked, format!("get {}\n", registry.host()));
    }
}

#[test]
fn a_helper_that_has_nothing_is_no_failure_and_one_that_fails_is_named() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    keep(&place, ".docker/config.json", &json!({ "credsStore": "toy" }));
    let path = helper(&place, "toy", "echo 'credentials not found in native keychain'; exit 1");
    push(&place, &registry).env("PATH", path).run().fails(7).says("(without credentials)");
    for (script, reason) in [
        (format!("echo {PASSWORD}; echo {PASSWORD} >&2; exit 1"), "failed to get credentials"),
        (format!("echo {PASSWORD}"), "answered something else than credentials"),
    ] {
        let path = helper(&place, "toy", &script);
        let outcome = push(&place, &registry).env("PATH", path).run().fails(4);
        is_discreet(outcome)
            .says(format!("`docker-credential-toy`, which `{}", place.home().display()))
            .says(reason);
    }
    keep(&place, ".docker/config.json", &json!({ "credsStore": "none" }));
    push(&place, &registry).run().fails(4).says("`docker-credential-none`").says("cannot be run");
    keep(&place, ".docker/config.json", &json!({ "credsStore": "../bin/evil" }));
    push(&place, &registry).run().fails(4).says("has no name that a helper can have");
}

#[test]
fn an_open_registry_is_not_shown_the_password() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    keep(&place, ".docker/config.json", &json!({ "auths": { registry.host(): good() } }));
    push(&place, &registry).run().succeeds();
    assert!(registry.requests().iter().all(|request| request.authorization.is_none()));
}

#[test]
fn a_file_that_cannot_be_understood_is_named_without_its_content() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    for text in [format!("{{\"auths\": {PASSWORD}"), format!("\"{PASSWORD}\"")] {
        let path = keep(&place, ".docker/config.json", &json!({}));
        fs_err::write(&path, text).unwrap();
        let outcome = push(&place, &registry).run().fails(2);
        is_discreet(outcome).says(path.display().to_string()).says("hint: correct it");
    }
}

#[test]
fn login_checks_the_password_and_keeps_it_for_the_user_alone() {
    for door in [Door::Basic, Door::Tokens] {
        let (place, registry) = (place(), Registry::new(door));
        let others = json!({ "auths": { "other.example": wrong() }, "HttpHeaders": { "x": "y" } });
        let path = keep(&place, ".docker/config.json", &others);
        is_discreet(log_in(&place, &registry, "wr0ng-pass").run().fails(7)).says("cannot ");
        assert_eq!(read(&path), others);
        // With and without the end of line that `echo` writes.
        for end in ["", "\n", "\r\n"] {
            let outcome = log_in(&place, &registry, &format!("{PASSWORD}{end}")).run().succeeds();
            is_discreet(outcome).prints(format!(
                "logged in to {} as bob; kept in `{}`\n",
                registry.host(),
                path.display()
            ));
            let mut expected = others.clone();
            expected["auths"][registry.host()] = good();
            assert_eq!(read(&path), expected);
        }
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        push(&place, &registry).run().succeeds();
    }
}

#[test]
fn login_makes_the_file_and_keeps_to_podman_s_if_that_is_named() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    log_in(&place, &registry, PASSWORD).run().succeeds();
    let docker = place.home().join(".docker/config.json");
    assert_eq!(read(&docker), json!({ "auths": { registry.host(): good() } }));
    let podman = place.home().join("deep/auth.json");
    log_in(&place, &registry, PASSWORD).env("REGISTRY_AUTH_FILE", &podman).run().succeeds();
    assert_eq!(read(&podman), read(&docker));
}

#[test]
fn login_hands_the_password_to_the_helper() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    let path = keep(&place, ".docker/config.json", &json!({ "credsStore": "toy" }));
    let search = helper(&place, "toy", "cat >\"$1\"");
    let outcome = log_in(&place, &registry, PASSWORD).env("PATH", search).run().succeeds();
    is_discreet(outcome).prints("kept in `docker-credential-toy`");
    let kept = read(&place.path("store"));
    assert_eq!(kept, json!({ "ServerURL": registry.host(), "Username": USER, "Secret": PASSWORD }));
    assert_eq!(read(&path), json!({ "credsStore": "toy" }));
}

#[test]
fn login_wants_a_password_and_a_registry() {
    let (place, registry) = (place(), Registry::new(Door::Basic));
    log_in(&place, &registry, "\n").run().fails(2).says("there is no password on standard input");
    place.imgbuild("login h.example --username bob").run().fails(2).says("--password-stdin");
    let input = place.write("password", PASSWORD);
    place
        .imgbuild("login org/x --username bob --password-stdin")
        .stdin(input)
        .run()
        .fails(2)
        .says("is no image reference");
    assert!(!place.home().join(".docker").exists());
}

#[test]
fn who_is_not_let_in_is_told_what_to_do() {
    for door in [Door::Basic, Door::Tokens] {
        let (place, registry) = (place(), Registry::new(door));
        let hint = format!("hint: `imgbuild login {} --username NAME --password-stdin`", registry.host());
        let outcome = push(&place, &registry).run().fails(7);
        outcome.says("401 Unauthorized").says("(without credentials").says(hint);
    }
}

#[test]
fn no_secret_is_repeated_even_if_the_registry_does() {
    for (door, method, part) in [
        (Door::Basic, "POST", "/uploads/"),
        (Door::Tokens, "POST", "/uploads/"),
        (Door::Tokens, "GET", "/token"),
    ] {
        let registry = Registry::new(door);
        let place = place();
        registry.log_in(&place);
        registry.faults(method, part, 100, Fault::Tattle);
        let word = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let outcome = push(&place, &registry).arg("-v").run().fails(7).says("TATTLE");
        outcome.does_not_say(PASSWORD).does_not_say(word).does_not_say("fake-token");
    }
}
