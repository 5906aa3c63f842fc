//! Killed in mid-run, at points picked by step: the next run gives the same digests and nothing is left over.
//!
//! strace kills imgbuild at its n-th system call of the kinds by which it changes a disk or starts a program, so that
//! points do not depend on how fast the machine is, and imgbuild itself knows nothing of being killed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::layout::Layout;
use crate::support::source::Source;
use crate::support::{Imgbuild, Place, names};

/// The system calls at which a run is killed; a question mark allows for architectures that lack one.
const CALLS: &str = "?mkdir,mkdirat,?rename,?renameat,renameat2,fsync,?unlink,unlinkat,clone3,?vfork";
/// How many points of a run are tried.
const POINTS: usize = 20;

fn toys() -> Place {
    let mut place = Place::new();
    Source::new().install(&mut place);
    place
}

/// Runs under strace, which follows the main thread alone: it is the one that takes the steps.
fn traced(run: Imgbuild, options: [&str; 2]) -> Imgbuild {
    run.under(["strace", "--quiet=all"].into_iter().chain(options))
}

/// How often each system call comes in a whole run.
fn calls(log: &Path) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for line in fs_err::read_to_string(log).expect("strace writes its log").lines() {
        if let Some((name, _)) = line.split_once('(') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// Nothing is left of a killed run once another one has ended well: not in the store, not in the layout.
#[track_caller]
fn is_clean(place: &Place, expected: &BTreeMap<String, String>) {
    place.imgbuild("cache verify").run().succeeds().prints("0 damaged");
    assert_eq!(place.half_made(), [""; 0]);
    let mut top = names(place.store());
    top.retain(|name| name != "format");
    assert_eq!(top, ["artifacts", "downloads", "locks", "logs", "records", "work"]);
    let out = place.path("out");
    assert_eq!(&Layout::at(&out).images(), expected);
    assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
    // Two indexes, and for each a manifest, a configuration and a layer.
    assert_eq!(names(&out.join("blobs/sha256")).len(), 8);
}

#[test]
fn killed_at_twenty_points_the_next_run_gives_the_same_digests() {
    let place = toys();
    let log = place.path("strace.log");
    let options = [format!("--trace={CALLS}"), format!("--output={}", log.display())];
    traced(place.imgbuild("kernel 5.10.1"), options.each_ref().map(String::as_str)).run().succeeds();
    let expected = Layout::at(place.path("out")).images();
    let calls = calls(&log);
    // Each call of each kind is a point: the n-th rename, the n-th fsync …
    let all: Vec<(&str, usize)> =
        calls.iter().flat_map(|(call, count)| (1..=*count).map(move |n| (call.as_str(), n))).collect();
    assert!(all.len() > 2 * POINTS, "{calls:?}");
    for point in 0..POINTS {
        let (call, n) = all[point * (all.len() - 1) / (POINTS - 1)];
        let place = toys();
        let inject = format!("--inject={call}:signal=SIGKILL:when={n}");
        let outcome = traced(place.imgbuild("kernel 5.10.1"), ["--output=/dev/null", &inject]).run();
        assert_eq!(outcome.signal, Some(9), "{call} {n}: {outcome:?}");
        place.imgbuild("kernel 5.10.1").run().succeeds().does_not_say("damaged");
        is_clean(&place, &expected);
    }
}
