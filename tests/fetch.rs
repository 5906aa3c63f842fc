//! Fetching from mirrors that misbehave: what arrives is what is pinned, or it is not kept.

use crate::support::mirror::{Answer, Mirror};
use crate::support::source::{Fault, Source, lock};
use crate::support::{Imgbuild, Place, names, noise, sha256};
use rustix::process::Signal;

/// Large enough for a break in the middle.
const SIZE: usize = 1 << 20;

fn content() -> Vec<u8> {
    noise(1, SIZE)
}

/// A place whose lock pins `content`.
fn pinned(content: &[u8]) -> Place {
    let place = Place::new();
    place.write("lock", lock(content));
    place
}

fn fetch(place: &Place, mirror: &Mirror) -> Imgbuild {
    place.imgbuild("fetch 5.10.1 --lock lock --mirror").arg(format!("test={}", mirror.url()))
}

/// What the store keeps of a file, apart from the lock beside it.
fn kept(place: &Place) -> Vec<String> {
    let mut names = names(&place.store().join("downloads"));
    names.retain(|name| std::path::Path::new(name).extension() != Some("lock".as_ref()));
    names
}

/// The file is in the store, whole.
#[track_caller]
fn is_kept(place: &Place, content: &[u8]) {
    let digest = sha256(content);
    assert!(fs_err::read(place.store().join("downloads").join(&digest)).unwrap() == content);
    assert_eq!(kept(place), [digest]);
}

/// Fetches through the faults given, and ends well; returns the mirror for its account.
#[track_caller]
fn fetched_through(answers: impl IntoIterator<Item = Answer>) -> (Mirror, String) {
    let content = content();
    let place = pinned(&content);
    let mirror = Mirror::answering(&content, answers, Answer::Right);
    let outcome = fetch(&place, &mirror).run().succeeds();
    is_kept(&place, &content);
    (mirror, outcome.stderr)
}

#[test]
fn a_file_is_fetched_once_and_named_with_its_place_in_the_store() {
    let content = content();
    let place = pinned(&content);
    let mirror = Mirror::of(&content);
    let path = place.store().join("downloads").join(sha256(&content));
    let line = format!("5.10.1 {}\n", path.display());
    let outcome = fetch(&place, &mirror).run().succeeds().says("sha256 verified");
    assert_eq!(outcome.stdout, line);
    is_kept(&place, &content);
    let outcome = fetch(&place, &mirror).run().succeeds().does_not_say("fetch");
    assert_eq!(outcome.stdout, line);
    let requests = mirror.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].path, "/pub/v5.x/linux-5.10.1.tar.xz");
}

#[test]
fn a_file_that_is_not_there_is_not_asked_for_twice() {
    for status in [404, 403, 410] {
        let place = pinned(&content());
        let mirror = Mirror::answering(b"", [], Answer::Status(status));
        fetch(&place, &mirror)
            .run()
            .fails(4)
            .says(format!("`{}/v5.x/linux-5.10.1.tar.xz` is not there ({status}", mirror.url()))
            .says("hint: name a mirror: `--mirror test=URL` or `--mirror test=DIRECTORY`");
        assert_eq!(mirror.requests().len(), 1);
        assert_eq!(kept(&place), [""; 0]);
    }
}

#[test]
fn a_server_that_stumbles_is_asked_again() {
    let (mirror, said) = fetched_through([Answer::Status(500), Answer::Status(503)]);
    assert_eq!(mirror.requests().len(), 3);
    assert!(said.contains("500") && said.contains("trying again"), "{said}");
}

#[test]
fn a_server_that_has_too_many_requests_is_asked_again() {
    let (mirror, _) = fetched_through([Answer::Status(429)]);
    assert_eq!(mirror.requests().len(), 2);
}

#[test]
fn a_server_that_always_fails_is_given_up() {
    let place = pinned(&content());
    let mirror = Mirror::answering(b"", [], Answer::Status(500));
    fetch(&place, &mirror)
        .run()
        .fails(4)
        .says(format!("cannot fetch `{}/v5.x/linux-5.10.1.tar.xz`: 500", mirror.url()))
        .says("(4 attempts)")
        .says("--mirror test=");
    assert_eq!(mirror.requests().len(), 4);
}

#[test]
fn a_server_nobody_listens_at_is_named() {
    let place = pinned(&content());
    // A port that was free a moment ago.
    let url = Mirror::of(b"").url();
    place
        .imgbuild("fetch 5.10.1 --lock lock --mirror")
        .arg(format!("test={url}"))
        .run()
        .fails(4)
        .says("cannot fetch `http://127.0.0.1:")
        .says("onnection refused");
}

/// The one sentence that names the file, both hashes and the size.
fn mismatch(from: &str, expected: &[u8], actual: &[u8]) -> String {
    format!(
        "`{from}` is not what the lock pins: sha256 should be {}, but is {} ({} bytes); it was not kept",
        sha256(expected),
        sha256(actual),
        actual.len()
    )
}

#[test]
fn what_is_not_the_pinned_file_is_named_with_both_hashes_and_not_kept() {
    let content = content();
    let mut tampered = content.clone();
    tampered[SIZE / 2] ^= 1;
    let garbage = b"<html>please log in</html>".to_vec();
    // A Content-Length that is honest about a file that is not whole.
    let truncated = content[..SIZE - 1].to_vec();
    for bad in [tampered, garbage, truncated, Vec::new()] {
        let place = pinned(&content);
        let mirror = Mirror::answering(&content, [], Answer::Instead(bad.clone()));
        let url = format!("{}/v5.x/linux-5.10.1.tar.xz", mirror.url());
        fetch(&place, &mirror)
            .run()
            .fails(5)
            .says(mismatch(&url, &content, &bad))
            .says("hint: the mirror is damaged");
        assert_eq!(kept(&place), [""; 0]);
        assert_eq!(mirror.requests().len(), 1);
        // The bad file stands in nobody's way.
        fetch(&place, &Mirror::of(&content)).run().succeeds();
        is_kept(&place, &content);
    }
}

#[test]
fn nothing_is_unpacked_before_the_hash_matches() {
    let mut place = Place::new();
    Source::new().install(&mut place);
    // A sound archive, but another one.
    let other = Source::new().fault(Fault::Make).tarball();
    let file = place.write("mirror/v5.x/linux-5.10.1.tar.xz", &other);
    let outcome = place.imgbuild("kernel 5.10.1").run().fails(5);
    outcome.says(format!("`{}` is not what the lock pins", file.display())).does_not_say("unpack");
    assert_eq!(place.half_made(), [""; 0]);
    assert_eq!(kept(&place), [""; 0]);
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let (mirror, said) = fetched_through([Answer::Break(300_000), Answer::Break(400_000)]);
    assert_eq!(mirror.ranges(), [None, Some(300_000), Some(700_000)]);
    let sent: Vec<_> = mirror.requests().iter().map(|request| request.sent).collect();
    assert_eq!(sent, [300_000, 400_000, SIZE - 700_000]);
    assert!(said.contains("trying again"), "{said}");
}

#[test]
fn a_connection_that_breaks_before_the_first_byte_is_begun_anew() {
    let (mirror, _) = fetched_through([Answer::Break(0)]);
    assert_eq!(mirror.ranges(), [None, None]);
}

#[test]
fn a_server_that_breaks_often_but_goes_on_is_followed_to_the_end() {
    // More breaks than there are attempts: each one brought something.
    let (mirror, _) = fetched_through(vec![Answer::Break(100_000); 6]);
    assert_eq!(mirror.requests().len(), 7);
    assert_eq!(mirror.ranges()[6], Some(600_000));
}

#[test]
fn a_server_that_ignores_the_range_is_read_from_the_start() {
    let (mirror, _) = fetched_through([Answer::Break(300_000), Answer::Whole]);
    assert_eq!(mirror.ranges(), [None, Some(300_000)]);
    assert_eq!(mirror.requests()[1].sent, SIZE);
}

#[test]
fn a_server_that_refuses_the_range_is_asked_for_the_whole() {
    let (mirror, _) = fetched_through([Answer::Break(300_000), Answer::Status(416)]);
    assert_eq!(mirror.ranges(), [None, Some(300_000), None]);
}

#[test]
fn a_server_that_answers_with_another_range_is_not_believed() {
    for lie in [Answer::Shifted(1000), Answer::Unsaid] {
        let (mirror, _) = fetched_through([Answer::Break(300_000), lie]);
        assert_eq!(mirror.ranges(), [None, Some(300_000), None]);
    }
}

#[test]
fn a_download_goes_on_in_the_next_run() {
    let content = content();
    let place = pinned(&content);
    let broken = Mirror::answering(&content, [Answer::Break(600_000)], Answer::Status(502));
    fetch(&place, &broken).run().fails(4);
    let mirror = Mirror::of(&content);
    fetch(&place, &mirror).run().succeeds();
    is_kept(&place, &content);
    assert_eq!(mirror.ranges(), [Some(600_000)]);
    assert_eq!(mirror.requests()[0].sent, SIZE - 600_000);
}

/// Stops a download in its middle by a signal, and goes on in the next run.
#[track_caller]
fn stopped_by(signal: Signal, code: Option<i32>) {
    let content = content();
    let place = pinned(&content);
    let stalled = Mirror::answering(&content, [], Answer::Stall(600_000));
    let mut run = fetch(&place, &stalled).start();
    let part = place.store().join("downloads").join(sha256(&content)).with_extension("part");
    run.until("the part on disk", |_| fs_err::metadata(&part).is_ok_and(|meta| meta.len() == 600_000));
    run.signal(signal);
    let outcome = run.wait();
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    let mirror = Mirror::of(&content);
    fetch(&place, &mirror).run().succeeds();
    is_kept(&place, &content);
    assert_eq!(mirror.ranges(), [Some(600_000)]);
}

#[test]
fn a_download_that_was_interrupted_goes_on_in_the_next_run() {
    stopped_by(Signal::INT, Some(130));
    stopped_by(Signal::TERM, Some(130));
}

#[test]
fn a_download_that_was_killed_goes_on_in_the_next_run() {
    stopped_by(Signal::KILL, None);
}

#[test]
fn a_damaged_part_from_an_earlier_run_is_fetched_anew() {
    let content = content();
    // A byte of it changed; and more of it than there is.
    let mut changed = content[..600_000].to_vec();
    changed[7] ^= 1;
    let longer = noise(2, SIZE + 1000);
    for (part, size) in [(changed, 600_000), (longer, SIZE + 1000)] {
        let place = pinned(&content);
        let digest = sha256(&content);
        // A store is made by its first use.
        place.imgbuild("fetch 9.9 --lock lock").run().fails(2);
        let broken = Mirror::answering(&content, [Answer::Break(1)], Answer::Status(502));
        fetch(&place, &broken).run().fails(4);
        fs_err::write(place.store().join("downloads").join(format!("{digest}.part")), &part).unwrap();
        let mirror = Mirror::of(&content);
        fetch(&place, &mirror).run().succeeds();
        is_kept(&place, &content);
        assert_eq!(mirror.ranges(), [Some(size), None]);
    }
}

#[test]
fn a_tampered_rest_is_fetched_anew_once_and_then_refused() {
    let content = content();
    let mut tampered = content.clone();
    tampered[SIZE - 1] ^= 1;
    let place = pinned(&content);
    let mirror = Mirror::answering(&tampered, [Answer::Break(600_000)], Answer::Right);
    fetch(&place, &mirror).run().fails(5).says(sha256(&tampered)).says(sha256(&content));
    assert_eq!(kept(&place), [""; 0]);
    assert!(mirror.requests().len() <= 3, "{:?}", mirror.requests());
}

#[test]
fn a_damaged_download_in_the_store_is_said_and_fetched_again() {
    let content = content();
    let place = pinned(&content);
    let mirror = Mirror::of(&content);
    fetch(&place, &mirror).run().succeeds();
    let mut damaged = content.clone();
    damaged[0] ^= 1;
    fs_err::write(place.store().join("downloads").join(sha256(&content)), damaged).unwrap();
    fetch(&place, &mirror)
        .run()
        .succeeds()
        .says("warning: the store's copy of linux-5.10.1.tar.xz is damaged; it is dropped and fetched again");
    is_kept(&place, &content);
    assert_eq!(mirror.ranges(), [None, None]);
}

#[test]
fn two_runs_that_want_one_file_fetch_it_once() {
    let content = content();
    let place = pinned(&content);
    let mirror = Mirror::answering(&content, [Answer::Stall(300_000)], Answer::Right);
    let part = place.store().join("downloads").join(sha256(&content)).with_extension("part");
    let mut first = fetch(&place, &mirror).start();
    first.until("the part on disk", |_| fs_err::metadata(&part).is_ok_and(|meta| meta.len() == 300_000));
    let second = fetch(&place, &mirror).start();
    first.signal(Signal::INT);
    assert_eq!(first.wait().code, Some(130));
    second.wait().succeeds();
    is_kept(&place, &content);
    assert_eq!(mirror.ranges(), [None, Some(300_000)]);
}

#[test]
fn two_files_are_named_in_the_order_asked_for() {
    let place = Place::new();
    let second = crate::support::source::pin("5.10.2", "linux-5.10.2.tar.xz", &sha256(b"second"));
    place.write("lock", lock(b"first") + &second);
    place.write("mirror/linux-5.10.1.tar.xz", "first");
    place.write("mirror/linux-5.10.2.tar.xz", "second");
    let outcome = place.imgbuild("fetch 5.10.2 5.10.1 --lock lock --mirror test=mirror").run().succeeds();
    let versions: Vec<_> = outcome.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(versions, ["5.10.2", "5.10.1"]);
}
