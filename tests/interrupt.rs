//! Stopping a build in its middle: nothing half-made is left, nothing runs on, and the next run is fine.

use crate::support::layout::Layout;
use crate::support::source::{Gate, Source};
use crate::support::{Place, Running, eventually, is_running, names};
use rustix::process::{Pid, Signal, kill_process};

/// A place whose made-up kernel waits at a gate in the middle of its compilation.
fn held() -> (Place, Gate) {
    let mut place = Place::new();
    let gate = Gate::closed(&place);
    Source::new().gate(&gate).install(&mut place);
    (place, gate)
}

/// Starts a build and waits until make has started a child of its own; returns that child's id.
fn start(place: &Place, gate: &Gate) -> (Running, String) {
    let mut run = place.imgbuild("kernel 5.10.1").start();
    let mut child = None;
    run.until("a child of make", |_| {
        child = gate.child();
        child.is_some()
    });
    let child = child.expect("it was waited for");
    assert!(is_running(&child));
    (run, child)
}

/// Stops a build by a signal in mid-compile.
#[track_caller]
fn stopped_by(signal: Signal) {
    let (place, gate) = held();
    let (run, child) = start(&place, &gate);
    assert!(!place.half_made().is_empty(), "a build works in the store");
    run.signal(signal);
    let outcome = run.ends().fails(130).says("error: interrupted");
    assert_eq!(outcome.signal, None);
    assert!(!is_running(&child), "what make started still runs");
    assert_eq!(place.half_made(), [""; 0]);
    assert_eq!(place.artifacts("kernel"), [""; 0]);
    assert!(!place.path("out").exists());

    gate.open();
    place.imgbuild("kernel 5.10.1").run().succeeds().does_not_say("fetch").does_not_say("waiting");
    assert_eq!(gate.begun(), 2);
    assert_eq!(Layout::at(place.path("out")).images().len(), 2);
    assert_eq!(place.half_made(), [""; 0]);
}

#[test]
fn ctrl_c_in_mid_compile_ends_everything_and_leaves_nothing() {
    stopped_by(Signal::INT);
}

#[test]
fn sigterm_in_mid_compile_ends_everything_and_leaves_nothing() {
    stopped_by(Signal::TERM);
}

#[test]
fn a_closed_terminal_in_mid_compile_ends_everything_and_leaves_nothing() {
    stopped_by(Signal::HUP);
}

#[test]
fn an_interrupted_build_leaves_an_existing_layout_as_it_was() {
    let (mut place, gate) = held();
    // Another version is in the layout already.
    Source::new().version("5.10.9").install(&mut place);
    place.imgbuild("kernel 5.10.9").run().succeeds();
    let layout = Layout::at(place.path("out"));
    let before = (layout.images(), layout.blobs(), names(&place.path("out")));
    let (run, _) = start(&place, &gate);
    run.signal(Signal::INT);
    run.ends().fails(130);
    assert_eq!((layout.images(), layout.blobs(), names(&place.path("out"))), before);
}

#[test]
fn a_child_that_ignores_the_polite_signal_is_killed() {
    let mut place = Place::new();
    let pid = place.path("pid");
    let stubborn = format!(
        "sh -c 'trap \"\" TERM INT; echo $$ > {0}.new; mv {0}.new {0}; while [ -e {0} ]; do sleep 1; done'",
        pid.display()
    );
    Source::new().prepare(&stubborn).install(&mut place);
    let mut run = place.imgbuild("kernel 5.10.1").start();
    run.until("the stubborn child", |_| pid.exists());
    run.signal(Signal::INT);
    run.ends().fails(130);
    let pid = fs_err::read_to_string(pid).unwrap();
    eventually("the end of the stubborn child", || !is_running(&pid));
    assert_eq!(place.half_made(), [""; 0]);
}

#[test]
fn after_a_kill_the_next_run_clears_what_was_left_and_is_fine() {
    let (place, gate) = held();
    let (run, child) = start(&place, &gate);
    run.signal(Signal::KILL);
    assert_eq!(run.wait().signal, Some(9));
    assert!(!place.half_made().is_empty(), "nobody was there to clear it");
    // Nobody ends make either: it stands at the gate, and goes on in a directory that is no more.
    gate.open();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    assert_eq!(place.half_made(), [""; 0]);
    assert_eq!(Layout::at(place.path("out")).images().len(), 2);
    eventually("the end of what was started first", || !is_running(&child));
}

#[test]
fn after_a_kill_the_next_run_is_fine_though_the_old_make_goes_on_writing() {
    let mut place = Place::new();
    let (gate, pid) = (place.write("busy", ""), place.path("pid"));
    // Makes and fills directories below the build directory as fast as it can.
    let busy = format!(
        "if [ -e {0} ]; then echo $$ > {1}.new; mv {1}.new {1}; cd $(O); n=0; \
         while [ -e {0} ]; do n=$((n+1)); mkdir -p $(O)/d$n/e && echo x > $(O)/d$n/e/f; done; fi",
        gate.display(),
        pid.display()
    );
    Source::new().prepare(&busy).install(&mut place);
    let mut run = place.imgbuild("kernel 5.10.1").start();
    run.until("a busy make", |_| pid.exists());
    run.signal(Signal::KILL);
    assert_eq!(run.wait().signal, Some(9));
    let busy = Pid::from_raw(fs_err::read_to_string(&pid).unwrap().trim().parse().unwrap()).unwrap();
    // Looks up a plan, which sweeps the store as every command does.
    let outcome = place.imgbuild("kernel 5.10.1 --dry-run").run();
    let _ = kill_process(busy, Signal::KILL);
    fs_err::remove_file(&gate).unwrap();
    outcome.succeeds();
    place.imgbuild("kernel 5.10.1").run().succeeds();
    assert_eq!(Layout::at(place.path("out")).images().len(), 2);
}

#[test]
fn a_run_leaves_the_half_made_work_of_another_live_one_alone() {
    let (place, gate) = held();
    let (run, _) = start(&place, &gate);
    let before = place.half_made();
    place.imgbuild("kernel 5.10.1 --dry-run").run().succeeds();
    assert_eq!(place.half_made(), before);
    gate.open();
    run.wait().succeeds();
}

#[test]
fn two_runs_at_once_on_one_store_share_the_work() {
    let (place, gate) = held();
    let (first, _) = start(&place, &gate);
    let mut second = place.imgbuild("kernel 5.10.1 --output second").start();
    second.until("a word about the other", |said| said.contains("another imgbuild is making kernel"));
    gate.open();
    first.wait().succeeds();
    second.wait().succeeds();
    assert_eq!(gate.begun(), 1, "it was compiled once");
    let images = |name| Layout::at(place.path(name)).images();
    assert_eq!(images("out"), images("second"));
}

#[test]
fn a_run_that_waits_for_another_takes_over_when_that_one_is_stopped() {
    let (place, gate) = held();
    let (first, _) = start(&place, &gate);
    let mut second = place.imgbuild("kernel 5.10.1 --output second").start();
    second.until("a word about the other", |said| said.contains("another imgbuild is making kernel"));
    first.signal(Signal::INT);
    first.ends().fails(130);
    second.until("a compilation of its own", |_| gate.begun() == 2);
    gate.open();
    second.wait().succeeds();
    assert_eq!(Layout::at(place.path("second")).images().len(), 2);
}

#[test]
fn a_run_that_waits_for_another_can_be_interrupted_itself() {
    let (place, gate) = held();
    let (first, _) = start(&place, &gate);
    let mut second = place.imgbuild("kernel 5.10.1 --output second").start();
    second.until("a word about the other", |said| said.contains("another imgbuild is making kernel"));
    second.signal(Signal::INT);
    second.ends().fails(130).says("error: interrupted");
    gate.open();
    first.wait().succeeds();
}
