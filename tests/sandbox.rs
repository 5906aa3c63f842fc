//! The sandbox outlives nobody: whoever kills imgbuild kills all that it started.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use imgbuild::sandbox::Sandbox;
use imgbuild::step::Cancel;

/// What the process inside is known by.
const MARK: &str = "IMGBUILD_TEST_MARK";

/// Whether a process with this command line runs.
fn is_running(words: &[&str]) -> bool {
    let line: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let processes = fs_err::read_dir("/proc").expect("there is /proc").flatten();
    processes.filter_map(|entry| fs_err::read(entry.path().join("cmdline")).ok()).any(|found| found == line)
}

/// Not a test by itself: the process that [`a_killed_imgbuild_leaves_nobody_behind`] kills.
#[test]
fn the_one_that_is_killed() {
    let Ok(mark) = std::env::var(MARK) else { return };
    let script = format!("setsid sleep {mark} & (setsid sleep {mark} &) ; echo begun; wait");
    let command = Sandbox::tree("/").command("sh").args(["-c", &script]);
    let _ = command.lines(&Cancel::default(), |line| println!("\n{}", String::from_utf8_lossy(line)));
}

#[test]
fn a_killed_imgbuild_leaves_nobody_behind() {
    let mark = (400_000 + std::process::id()).to_string();
    let mut child = crate::support::test_again("sandbox::the_one_that_is_killed")
        .env(MARK, &mark)
        .stdout(Stdio::piped())
        .spawn()
        .expect("we can be started again");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "begun"), "the sandbox was not entered");
    let sleep = ["sleep", &mark];
    // `begun` is said when both are forked, which may be before either is `sleep`.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_running(&sleep) {
        assert!(Instant::now() < deadline, "nothing ever ran in the sandbox");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_running(&sleep) {
        assert!(Instant::now() < deadline, "what ran in the sandbox is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
