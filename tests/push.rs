//! Pushing to registries that misbehave: the whole image comes to be under its tag, or nothing does.

use std::time::{Duration, Instant};

use crate::support::images::{self, LAYER};
use crate::support::layout::Layout;
use crate::support::registry::{Door, Fault, Registry};
use crate::support::source::Source;
use crate::support::{Imgbuild, Outcome, Place, names};
use rustix::process::Signal;

const NAME: &str = "kernel-bin:5.10.1";

/// A place with one image in `out`.
fn place() -> Place {
    let place = Place::new();
    images::layout(&place, "out", &[(NAME, 1)]);
    place
}

/// A place whose user has logged in.
fn logged_in(registry: &Registry) -> Place {
    let place = place();
    registry.log_in(&place);
    place
}

fn push(place: &Place, registry: &Registry) -> Imgbuild {
    place.imgbuild("push out --registry").arg(format!("{}/org", registry.host()))
}

/// The image is in the registry, whole.
#[track_caller]
fn is_pushed(place: &Place, registry: &Registry) {
    let layout = Layout::at(place.path("out"));
    let digest = &layout.images()[NAME];
    assert!(registry.manifest("org/kernel-bin", "5.10.1").unwrap() == layout.blob(digest));
    assert_eq!(registry.blobs("org/kernel-bin").len(), 4);
    assert_eq!(registry.uploads(), 0, "an upload was left behind");
}

/// Nothing is under the tag.
#[track_caller]
fn is_not_pushed(registry: &Registry) {
    assert_eq!(registry.manifest("org/kernel-bin", "5.10.1"), None);
}

/// Pushes to an open registry through a fault, and ends well.
#[track_caller]
fn pushed_through(method: &str, part: &str, fault: Fault) -> (Registry, Outcome) {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.fault(method, part, fault);
    let outcome = push(&place, &registry).run().succeeds();
    is_pushed(&place, &registry);
    (registry, outcome)
}

/// Pushes to an open registry through a fault, and fails with this exit code.
#[track_caller]
fn fails_through(method: &str, part: &str, times: usize, fault: Fault, code: i32) -> (Registry, Outcome) {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.faults(method, part, times, fault);
    let outcome = push(&place, &registry).run().fails(code);
    is_not_pushed(&registry);
    (registry, outcome)
}

#[test]
fn an_image_is_pushed_with_all_its_platforms_and_its_tag_comes_last() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let outcome = push(&place, &registry).run().succeeds();
    is_pushed(&place, &registry);
    let digest = &Layout::at(place.path("out")).images()[NAME];
    assert_eq!(outcome.stdout, format!("{}/org/{NAME}@{digest}\n", registry.host()));
    let requests = registry.requests();
    let puts: Vec<_> = requests.iter().filter(|request| request.method == "PUT").collect();
    let (blobs, manifests) = puts.split_at(4);
    assert!(blobs.iter().all(|put| put.path.contains("/blobs/uploads/")), "{puts:?}");
    assert!(manifests[..2].iter().all(|put| put.path.contains("/manifests/sha256:")), "{puts:?}");
    assert!(manifests[2].path.ends_with("/manifests/5.10.1"), "{puts:?}");
    assert_eq!(manifests.len(), 3);
    // A stage for each blob, and one for the whole.
    for part in ["amd64 layer", "arm64 layer", "amd64 config", "arm64 config"] {
        assert!(outcome.stderr.contains(&format!("push  {NAME} {part} sha256:")), "{}", outcome.stderr);
    }
    assert!(outcome.stderr.contains(&format!("tagged, {digest}")), "{}", outcome.stderr);
}

#[test]
fn a_second_push_moves_nothing() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    push(&place, &registry).run().succeeds();
    let before = registry.requests().len();
    let outcome = push(&place, &registry).run().succeeds();
    assert!(outcome.stderr.contains("there already"), "{}", outcome.stderr);
    let later = &registry.requests()[before..];
    assert!(later.iter().all(|request| matches!(&*request.method, "GET" | "HEAD")), "{later:?}");
    assert!(later.len() <= 2, "{later:?}");
}

#[test]
fn blobs_that_are_there_are_said_and_not_sent_under_another_tag() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    push(&place, &registry).run().succeeds();
    let target = format!("{NAME}={}/org/kernel-bin:stable", registry.host());
    let outcome = place.imgbuild("push out --format json").arg(target).run().succeeds();
    let json = outcome.json();
    assert_eq!((&json["images"][0]["there"], &json["images"][0]["sent"]), (&4.into(), &0.into()));
    assert_eq!(outcome.stderr.matches("there already").count(), 4, "{}", outcome.stderr);
    assert_eq!(registry.count("POST", ""), 4);
    assert!(registry.manifest("org/kernel-bin", "stable").is_some());
}

#[test]
fn every_image_of_a_layout_or_the_named_ones_are_pushed() {
    let place = Place::new();
    images::layout(&place, "out", &[("a:1", 1), ("b:2", 2), ("c:3", 3)]);
    let registry = Registry::new(Door::Open);
    let host = registry.host();
    place.imgbuild("push out b:2").env("IMGBUILD_REGISTRY", format!("{host}/one")).run().succeeds();
    assert_eq!((registry.references("one/a").len(), registry.references("one/b").len()), (0, 4));
    place.write_settings(&format!("registry = \"{host}/deep/er\"\n"));
    place.imgbuild("push out").run().succeeds();
    for repository in ["deep/er/a", "deep/er/b", "deep/er/c"] {
        assert_eq!(registry.references(repository).len(), 4, "{repository}");
    }
    // A whole reference names an image by its end.
    place.imgbuild("push out").arg(format!("{host}/x/y/c:3")).run().succeeds();
    assert_eq!(registry.references("x/y/c").len(), 4);
    place
        .imgbuild("push out")
        .arg(format!("{host}/x/d:4"))
        .run()
        .fails(2)
        .says("`out` holds no `d:4`; it holds `a:1`, `b:2`, `c:3`")
        .says("hint: `NAME=REFERENCE`");
    place.imgbuild("push out d:4").run().fails(2).says("`out` holds no `d:4`");
}

#[test]
fn what_names_no_registry_is_refused_before_anything_is_asked() {
    let place = place();
    place.imgbuild("push out").run().fails(2).says("nothing says which registry").says("--registry");
    for (registry, reason) in [
        ("org", "`org` is no image reference: it has no registry host"),
        ("https://h.example/org", "leave the scheme out"),
        ("h.example/Org", "lower-case"),
    ] {
        place.imgbuild("push out --registry").arg(registry).run().fails(2).says(reason);
    }
    place.imgbuild("push out h.example/org/kernel-bin").run().fails(2).says("neither tag nor digest");
    let outcome = place.imgbuild("push out --registry bob:s3cret@h.example").run().fails(2);
    outcome.does_not_say("s3cret");
    place.imgbuild("push nowhere --registry h.example").run().fails(4).says("is no OCI layout");
}

#[test]
fn a_blob_that_another_repository_has_is_mounted() {
    let place = Place::new();
    images::layout(&place, "out", &[("a:1", 1), ("b:1", 1)]);
    let registry = Registry::new(Door::Tokens);
    registry.log_in(&place);
    let outcome = push(&place, &registry).option("--format", "json").run().succeeds();
    let images = outcome.json()["images"].clone();
    // The configurations differ, the layers do not.
    assert_eq!((&images[1]["mounted"], &images[1]["sent"]), (&2.into(), &2.into()), "{images}");
    assert_eq!(outcome.stderr.matches("mounted from org/a").count(), 2, "{}", outcome.stderr);
    assert_eq!(registry.blobs("org/b").len(), 4);
}

#[test]
fn where_mounting_is_refused_the_blob_is_sent() {
    for fault in [
        Fault::Status(405, ""),
        Fault::Status(401, "WWW-Authenticate: Basic\r\n"),
        Fault::Status(202, "Location: /v2/org/b/blobs/uploads/none\r\n"),
        Fault::Status(403, ""),
    ] {
        let place = Place::new();
        images::layout(&place, "out", &[("a:1", 1), ("b:1", 1)]);
        let registry = Registry::new(Door::Open);
        registry.faults("POST", "mount=", 2, fault.clone());
        let outcome = push(&place, &registry).option("--format", "json").run().succeeds();
        let json = outcome.json();
        assert_eq!(
            (&json["images"][1]["mounted"], &json["images"][1]["sent"]),
            (&0.into(), &4.into()),
            "{fault:?}"
        );
        assert_eq!(registry.blobs("org/b").len(), 4, "{fault:?}");
    }
}

#[test]
fn one_token_is_fetched_for_no_more_than_the_repository() {
    let registry = Registry::new(Door::Tokens);
    let place = logged_in(&registry);
    push(&place, &registry).run().succeeds();
    is_pushed(&place, &registry);
    let scopes: Vec<_> =
        registry.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(scopes.len(), 1, "{scopes:?}");
    assert!(
        scopes[0].path.ends_with("?scope=repository:org/kernel-bin:pull,push&service=fake"),
        "{scopes:?}"
    );
    // The password goes to the token server alone.
    let others = registry.requests().into_iter().filter(|request| request.path.starts_with("/v2/"));
    for request in others {
        let said = request.authorization.clone().unwrap_or_default();
        assert!(said.is_empty() || said.starts_with("Bearer fake-token-"), "{request:?}");
    }
}

#[test]
fn a_token_that_runs_out_in_mid_push_is_renewed() {
    for (method, part) in [
        ("POST", "/uploads/"),
        ("PUT", "/uploads/"),
        ("PUT", "/manifests/sha256"),
        ("PUT", "/manifests/5.10.1"),
    ] {
        let registry = Registry::new(Door::Tokens);
        let place = logged_in(&registry);
        registry.fault(method, part, Fault::Expire);
        push(&place, &registry).run().succeeds();
        is_pushed(&place, &registry);
        assert!(registry.tokens() > 1, "{method} {part}");
    }
}

#[test]
fn a_registry_that_stumbles_is_asked_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        for (method, part) in [
            ("GET", "/v2/"),
            ("HEAD", "/manifests/"),
            ("HEAD", "/blobs/"),
            ("POST", "/uploads/"),
            ("PUT", "/uploads/"),
            ("PUT", "/manifests/5"),
        ] {
            let (_, outcome) = pushed_through(method, part, Fault::Status(status, ""));
            // The first request goes to this machine, which is asked in two ways before it counts.
            if method != "GET" {
                outcome.says(format!("{status}")).says("trying again in 0.");
            }
        }
    }
}

#[test]
fn a_storm_of_429_is_waited_out() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.faults("HEAD", "/blobs/", 6, Fault::Status(429, "Retry-After: 1\r\n"));
    let begun = Instant::now();
    push(&place, &registry).run().succeeds().says("429");
    is_pushed(&place, &registry);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[test]
fn who_is_to_come_again_too_late_is_told_at_once() {
    let begun = Instant::now();
    let fault = Fault::Status(429, "Retry-After: 86400\r\n");
    let (_, outcome) = fails_through("HEAD", "/blobs/", 100, fault, 7);
    outcome.says("it asks to wait 86400 s").says("hint: run the same command again");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_registry_that_always_fails_is_given_up() {
    let (registry, outcome) = fails_through("PUT", "/manifests/5", 100, Fault::Status(503, ""), 7);
    outcome.says("503").says("(5 attempts)").says("hint: run the same command again");
    assert_eq!(registry.count("PUT", "/manifests/5"), 5);
}

#[test]
fn what_the_registry_refuses_is_not_tried_twice() {
    let (registry, outcome) = fails_through("PUT", "/manifests/5", 100, Fault::Status(422, ""), 7);
    outcome.says("422").says("FAULT: as asked");
    assert_eq!(registry.count("PUT", "/manifests/5"), 1);
}

#[test]
fn after_a_break_a_blob_goes_on_from_where_the_registry_has_come_to() {
    let (registry, outcome) = pushed_through("PUT", "/uploads/", Fault::Reset(300_000));
    outcome.says("trying again");
    let rest: Vec<_> = registry.requests().into_iter().filter(|request| request.method == "PATCH").collect();
    assert_eq!(rest.iter().map(|request| request.body).collect::<Vec<_>>(), [LAYER - 300_000]);
}

#[test]
fn after_a_break_of_which_the_registry_knows_nothing_a_blob_is_sent_anew() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.fault("PUT", "/uploads/", Fault::Reset(300_000));
    registry.fault("GET", "/uploads/", Fault::Status(404, ""));
    push(&place, &registry).run().succeeds();
    assert_eq!(registry.count("PATCH", ""), 0);
    assert_eq!(registry.blobs("org/kernel-bin").len(), 4);
    assert!(registry.manifest("org/kernel-bin", "5.10.1").is_some());
}

#[test]
fn a_blob_whose_thanks_were_lost_is_not_sent_twice() {
    let (registry, _) = pushed_through("PUT", "/uploads/", Fault::Length(1000));
    assert_eq!(registry.count("POST", "/uploads/"), 4);
}

#[test]
fn a_registry_that_takes_no_whole_blobs_gets_parts() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.faults("PUT", "/uploads/", 1, Fault::Status(413, ""));
    push(&place, &registry).run().succeeds();
    assert_eq!(registry.count("PATCH", ""), 1);
    assert_eq!(registry.blobs("org/kernel-bin").len(), 4);
}

#[test]
fn a_registry_that_refuses_a_blob_before_it_has_read_it_is_understood() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    // Each of the two layers is sent whole twice.
    registry.faults("PUT", "/uploads/", 4, Fault::Early(413));
    push(&place, &registry).run().succeeds();
    assert_eq!(registry.count("PATCH", ""), 2);
    assert_eq!(registry.blobs("org/kernel-bin").len(), 4);
}

#[test]
fn a_part_that_is_taken_and_lost_is_sent_again() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.faults("PUT", "/uploads/", 1, Fault::Status(413, ""));
    registry.fault("PATCH", "/uploads/", Fault::Lost);
    push(&place, &registry).run().succeeds().says("does not have it");
    assert_eq!(registry.blobs("org/kernel-bin").len(), 4);
    assert!(registry.manifest("org/kernel-bin", "5.10.1").is_some());
}

#[test]
fn a_registry_that_took_something_else_is_not_believed() {
    for part in ["/uploads/", "/manifests/sha256", "/manifests/5.10.1"] {
        let (place, registry) = (place(), Registry::new(Door::Open));
        let other = format!("sha256:{}", "0".repeat(64));
        registry.faults("PUT", part, 1, Fault::Header("Docker-Content-Digest", other.clone()));
        push(&place, &registry).run().fails(5).says("does not have its digest").says(other);
    }
}

#[test]
fn credentials_do_not_follow_to_another_host() {
    let (registry, other) = (Registry::new(Door::Basic), Registry::new(Door::Open));
    let place = logged_in(&registry);
    let elsewhere = format!("http://{}/v2/org/kernel-bin/blobs/uploads/there", other.host());
    registry.fault("POST", "/uploads/", Fault::Header("Location", elsewhere.clone()));
    // The other host takes a blob, and says so.
    let word = Fault::Status(201, "");
    other.faults("PUT", "/uploads/", 9, word);
    push(&place, &registry).run().fails(7).says("it names what is not here");
    let seen = other.requests();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].method.as_str(), &seen[0].authorization), ("PUT", &None));
    assert!(registry.requests().iter().skip(1).all(|request| request.authorization.is_some()));

    let place = logged_in(&registry);
    registry.fault("HEAD", "/manifests/", Fault::Redirect(format!("http://{}/elsewhere", other.host())));
    push(&place, &registry).run();
    let seen = other.requests();
    assert_eq!((seen[1].path.as_str(), &seen[1].authorization), ("/elsewhere", &None));
}

#[test]
fn a_registry_may_not_send_us_into_private_space() {
    for (to, reason) in [
        ("https://10.0.0.1/x", "an address that is not public"),
        ("https://169.254.169.254/latest/meta-data", "an address that is not public"),
        ("https://[fe80::1]/x", "an address that is not public"),
        ("https://[::ffff:192.168.0.1]/x", "an address that is not public"),
        ("http://198.51.100.1/x", "which is not encrypted"),
        ("ftp://127.0.0.1/x", "which is not encrypted"),
    ] {
        let secret = format!("{to}?signature=hidden");
        let (_, outcome) =
            fails_through("POST", "/uploads/", 100, Fault::Header("Location", secret.clone()), 7);
        outcome.says("sends us to `").says(reason).says("not followed").does_not_say("hidden");
        let (_, outcome) = fails_through("HEAD", "/manifests/", 100, Fault::Redirect(secret), 7);
        outcome.says(reason).does_not_say("hidden");
    }
}

#[test]
fn redirects_that_lead_nowhere_are_left() {
    let to = "/v2/org/kernel-bin/manifests/5.10.1".to_owned();
    let (registry, outcome) = fails_through("HEAD", "/manifests/", 100, Fault::Redirect(to), 7);
    outcome.says("its redirects lead nowhere");
    assert_eq!(registry.count("HEAD", "/manifests/"), 6);
}

#[test]
fn a_damaged_blob_is_noticed_before_the_registry_has_it() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let dir = place.path("out/blobs/sha256");
    for name in names(&dir) {
        let mut bytes = fs_err::read(dir.join(&name)).unwrap();
        if bytes.len() == LAYER {
            bytes[LAYER / 2] ^= 1;
            fs_err::write(dir.join(name), bytes).unwrap();
        }
    }
    let outcome = push(&place, &registry).run().fails(5);
    outcome.says("does not have its digest").says("out/blobs/sha256/").does_not_say("trying again");
    is_not_pushed(&registry);
    assert!(registry.blobs("org/kernel-bin").len() <= 2);
}

#[test]
fn a_blob_that_is_missing_or_short_is_named() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    let dir = place.path("out/blobs/sha256");
    let layers = names(&dir)
        .into_iter()
        .filter(|name| fs_err::metadata(dir.join(name)).unwrap().len() == LAYER as u64);
    let layers: Vec<_> = layers.collect();
    fs_err::write(dir.join(&layers[0]), "short").unwrap();
    push(&place, &registry).run().fails(5).says(&layers[0]).says("it should be 600000 bytes, but is 5 bytes");
    fs_err::remove_file(dir.join(&layers[0])).unwrap();
    push(&place, &registry).run().fails(1).says(&layers[0]);
    is_not_pushed(&registry);
}

#[test]
fn what_is_no_registry_is_told_as_such() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.faults("GET", "/v2/", 100, Fault::Status(404, ""));
    push(&place, &registry).run().fails(7).says("is no registry: 404");
    let gone = Registry::new(Door::Open).host();
    let outcome = place.imgbuild("push out --registry").arg(&gone).run().fails(7);
    outcome.says(format!("{gone}: cannot reach the registry")).says("onnection refused").says("hint: ");
}

#[test]
fn ctrl_c_ends_a_push_at_once_and_leaves_no_tag() {
    let (place, registry) = (place(), Registry::new(Door::Open));
    registry.faults("PUT", "/uploads/", 9, Fault::Slow(Duration::from_secs(5)));
    let mut run = push(&place, &registry).start();
    run.until("asked", |_| registry.count("POST", "/uploads/") > 0);
    let begun = Instant::now();
    run.signal(Signal::INT);
    run.ends().fails(130).says("error: interrupted");
    assert!(begun.elapsed() < Duration::from_secs(2));
    is_not_pushed(&registry);
}

#[test]
fn kernel_pushes_what_it_built_and_nothing_else() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    images::layout(&place, "out", &[("other:1", 1)]);
    let registry = Registry::new(Door::Open);
    let outcome = place.imgbuild("kernel 5.10.1 --push --registry").arg(registry.host()).run().succeeds();
    let layout = Layout::at(place.path("out")).images();
    for name in ["kernel-bin", "kernel-modules"] {
        let digest = &layout[&format!("{name}:5.10.1")];
        assert!(registry.references(name).contains(digest));
        assert!(
            outcome.stdout.contains(&format!("{}/{name}:5.10.1@{digest}\n", registry.host())),
            "{}",
            outcome.stdout
        );
    }
    assert_eq!(registry.references("other"), [""; 0]);
    let outcome = place.imgbuild("kernel 5.10.1 --push --format json --registry").arg(registry.host()).run();
    assert_eq!(outcome.succeeds().json()["pushed"][0]["sent"], 0);
}

#[test]
fn kernel_without_a_registry_to_push_to_is_refused_before_any_work() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    let outcome = place.imgbuild("kernel 5.10.1 --push").run().fails(2);
    outcome.says("nothing says which registry").does_not_say("compile");
    let outcome = place.imgbuild("kernel 5.10.1 --append").run().fails(2);
    outcome.says("say how to push, and nothing is pushed").says("hint: add `--push`");
}
