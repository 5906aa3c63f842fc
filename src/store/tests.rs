use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::step::{Cancel, Check, Progress, Reporter, Unit};

/// Keeps what it is told.
#[derive(Default)]
struct Notes(std::sync::Mutex<Vec<String>>);

impl Notes {
    fn says(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|note| note.contains(text))
    }
}

impl Progress for Notes {
    fn set(&self, _: u64) {}
    fn finish(&self, _: &str) {}
}

impl Reporter for Notes {
    fn begin(&self, _: &str, _: &str, _: Option<u64>, _: Unit) -> Box<dyn Progress> {
        Box::new(Self::default())
    }
    fn note(&self, _: Level, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[derive(Default)]
struct Count {
    runs: AtomicUsize,
    fails: bool,
    check: Option<Check>,
}

impl Step for Count {
    type Error = &'static str;
    fn kind(&self) -> &'static str {
        "count"
    }
    fn record(&self) -> Value {
        json!({"number": 7})
    }
    fn check(&self) -> Check {
        self.check.unwrap_or(Check::Bytes)
    }
    fn run(&self, out: &Path, _: &Watch) -> Result<(), Self::Error> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        fs::create_dir(out.join("dir")).unwrap();
        fs::write(out.join("dir/file"), "seven").unwrap();
        std::os::unix::fs::symlink("dir/file", out.join("link")).unwrap();
        if self.fails { Err("it failed") } else { Ok(()) }
    }
}

fn fixture() -> (TempDir, Store, Arc<Notes>, Watch) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let notes = Arc::new(Notes::default());
    let watch = Watch { reporter: notes.clone(), cancel: Cancel::default() };
    (dir, store, notes, watch)
}

#[test]
fn a_step_runs_once() {
    let (_dir, store, _, watch) = fixture();
    let step = Count::default();
    let made = store.get_or_make(&step, &watch).unwrap();
    let found = store.get_or_make(&step, &watch).unwrap();
    assert_eq!((made.cached, found.cached), (false, true));
    assert_eq!(made.content, found.content);
    assert_eq!(fs::read_to_string(found.path.join("link")).unwrap(), "seven");
    assert_eq!(step.runs.load(Ordering::Relaxed), 1);
}

#[test]
fn a_damaged_entry_is_said_and_made_again() {
    let (_dir, store, notes, watch) = fixture();
    let step = Count::default();
    let made = store.get_or_make(&step, &watch).unwrap();
    for damage in ["files/dir/file", "files.list"] {
        fs::write(made.path.parent().unwrap().join(damage), "eight").unwrap();
        assert!(!store.get_or_make(&step, &watch).unwrap().cached, "{damage}");
        let said = std::mem::take(&mut *notes.0.lock().unwrap());
        assert!(said[0].contains("is damaged"), "{damage}: {said:?}");
        assert_eq!(said[1], "count count is made anew: its entry is no longer in the store");
    }
    fs::write(made.path.join("extra"), "").unwrap();
    assert!(!store.get_or_make(&step, &watch).unwrap().cached);
}

#[test]
fn a_failed_step_leaves_nothing() {
    let (_dir, store, _, watch) = fixture();
    let step = Count { fails: true, ..Count::default() };
    assert!(matches!(store.get_or_make(&step, &watch), Err(MakeError::Step("it failed"))));
    assert!(!store.peek(step.kind(), step.key()));
    assert_eq!(fs::read_dir(store.root().join("work")).unwrap().count(), 0);
}

#[test]
fn threads_that_want_the_same_artifact_share_the_work() {
    let (_dir, store, _, watch) = fixture();
    let step = Count::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| store.get_or_make(&step, &watch).unwrap());
        }
    });
    assert_eq!(step.runs.load(Ordering::Relaxed), 1);
}

#[test]
fn a_dead_process_s_work_is_cleared_and_a_living_one_s_kept() {
    let (_dir, store, _, _) = fixture();
    let living = store.work().unwrap();
    let dead = store.root().join("work/run-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.with_extension("lock"), "").unwrap();
    Store::open(store.root()).unwrap();
    assert!(living.path().is_dir());
    assert!(!dead.exists() && !dead.with_extension("lock").exists());
}

#[test]
fn somebody_else_s_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("diary"), "dear").unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::Format { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let newer = tempfile::tempdir().unwrap();
    fs::write(newer.path().join("format"), "imgbuild store 2\n").unwrap();
    let error = Store::open(newer.path()).unwrap_err();
    assert!(error.to_string().contains("imgbuild store 2"), "{error}");
}

/// Writes the same bytes again: what has other times then, as after the store was copied, is no damage in itself.
fn touch(path: &Path) {
    let text = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn by_stamps_a_touched_file_is_read_and_a_changed_one_made_again() {
    let (_dir, store, notes, watch) = fixture();
    let step = Count { check: Some(Check::Stamps), ..Count::default() };
    let made = store.get_or_make(&step, &watch).unwrap();
    for _ in 0..2 {
        touch(&made.path.join("dir/file"));
        let found = store.get_or_make(&step, &watch).unwrap();
        assert!(found.cached);
        assert_eq!(found.content, made.content);
    }
    assert!(notes.0.lock().unwrap().is_empty());
    fs::write(made.path.join("dir/file"), "eight").unwrap();
    assert!(!store.get_or_make(&step, &watch).unwrap().cached);
    assert!(notes.says("is damaged"));
}

#[test]
fn by_stamps_alone_a_touched_file_is_made_again() {
    let (_dir, store, notes, watch) = fixture();
    let step = Count { check: Some(Check::StampsAlone), ..Count::default() };
    let made = store.get_or_make(&step, &watch).unwrap();
    assert!(store.get_or_make(&step, &watch).unwrap().cached);
    touch(&made.path.join("dir/file"));
    assert!(!store.get_or_make(&step, &watch).unwrap().cached);
    assert!(notes.says("is damaged"));
    fs::remove_file(made.path.join("dir/file")).unwrap();
    assert!(!store.get_or_make(&step, &watch).unwrap().cached);
}
