//! What the tests share: a user's place with a private home and store, the command run in it, and the fakes.

pub(crate) mod archive;
pub(crate) mod attested;
pub(crate) mod consumers;
pub(crate) mod containerd;
pub(crate) mod docker;
pub(crate) mod forge;
pub(crate) mod images;
pub(crate) mod keys;
pub(crate) mod layout;
pub(crate) mod machine;
pub(crate) mod mirror;
pub(crate) mod monitors;
pub(crate) mod node;
pub(crate) mod pinned;
pub(crate) mod real;
pub(crate) mod registry;
pub(crate) mod signing;
pub(crate) mod source;
pub(crate) mod ubuntu;
pub(crate) mod unpacked;
pub(crate) mod volume;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A run that takes longer hangs: a real kernel on a loaded machine takes a few minutes.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a user works: a directory of their own, a home, a store.
pub(crate) struct Place {
    dir: TempDir,
    store: PathBuf,
    env: Vec<(OsString, OsString)>,
}

impl Place {
    /// An empty place with an empty store.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("imgbuild-test-").tempdir().expect("a temporary directory");
        for part in ["home", "work"] {
            fs::create_dir(dir.path().join(part)).expect("a new directory");
        }
        Self { store: dir.path().join("store"), dir, env: Vec::new() }
    }

    /// An empty place with the store that holds real kernels, so that each is compiled once per checkout.
    pub(crate) fn with_shared_store() -> Self {
        Self { store: shared_store(), ..Self::new() }
    }

    /// The working directory.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// A path below the working directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.work().join(name)
    }

    /// The home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The store's root.
    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// Writes a file below the working directory.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file lies in a directory")).expect("a new directory");
        fs::write(&path, content).expect("a new file");
        path
    }

    /// Writes the user's settings.
    pub(crate) fn write_settings(&self, text: &str) {
        let dir = self.home().join(".config/imgbuild");
        fs::create_dir_all(&dir).expect("a new directory");
        fs::write(dir.join("config.toml"), text).expect("a new file");
    }

    /// Sets a variable for every run from now on.
    pub(crate) fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.env.push((name.into(), value.into()));
    }

    /// The command with these words as its arguments.
    pub(crate) fn imgbuild(&self, words: &str) -> Imgbuild {
        let path = std::env::var_os("PATH").expect("the tests need a PATH");
        let mut env = vec![
            ("PATH".into(), path),
            ("HOME".into(), self.home().into()),
            ("XDG_CONFIG_HOME".into(), self.home().join(".config").into()),
            ("IMGBUILD_STORE".into(), self.store.clone().into()),
        ];
        env.extend(self.env.iter().cloned());
        let program = env!("CARGO_BIN_EXE_imgbuild").into();
        Imgbuild {
            wrap: Vec::new(),
            program,
            args: words.split_whitespace().map(Into::into).collect(),
            env,
            dir: self.work(),
            stdin: None,
        }
    }

    /// What is left half-made in the store.
    pub(crate) fn half_made(&self) -> Vec<String> {
        names(&self.store.join("work"))
    }

    /// Artifacts of one kind in the store.
    pub(crate) fn artifacts(&self, kind: &str) -> Vec<String> {
        names(&self.store.join("artifacts").join(kind))
    }

    /// The one log of the store.
    pub(crate) fn log(&self) -> PathBuf {
        let logs = names(&self.store.join("logs"));
        assert_eq!(logs.len(), 1, "one log was expected, there are {logs:?}");
        self.store.join("logs").join(&logs[0])
    }
}

/// One test of this program, in a process of its own.
pub(crate) fn test_again(name: &str) -> Command {
    let mut this = Command::new(std::env::current_exe().expect("we are a program"));
    this.args(["--exact", name, "--nocapture"]);
    this
}

/// The store that holds real kernels: `$IMGBUILD_TEST_STORE`, else `target/test-store`.
pub(crate) fn shared_store() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-store");
    std::env::var_os("IMGBUILD_TEST_STORE").map_or_else(own, PathBuf::from)
}

/// A run that is not begun.
pub(crate) struct Imgbuild {
    wrap: Vec<OsString>,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    stdin: Option<PathBuf>,
}

impl Imgbuild {
    /// One more argument, spaces and all.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// An option and its value.
    pub(crate) fn option(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.arg(name).arg(value)
    }

    /// Sets a variable; it wins over those that are set already.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Takes a variable away.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.retain(|(other, _)| other != name);
        self
    }

    /// Runs in another directory.
    pub(crate) fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Reads a file as its standard input.
    pub(crate) fn stdin(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdin = Some(path.into());
        self
    }

    /// Has a shell run `script` first; the command takes the shell's place, so its process is the one started.
    pub(crate) fn after(mut self, script: &str) -> Self {
        let script = format!("{script}\nexec \"$@\"");
        self.wrap.extend(["sh", "-ec", script.as_str(), "sh"].map(Into::into));
        self
    }

    /// Has another program run the command.
    pub(crate) fn under<'w>(mut self, words: impl IntoIterator<Item = &'w str>) -> Self {
        self.wrap.extend(words.into_iter().map(Into::into));
        self
    }

    /// Begins the run.
    pub(crate) fn start(self) -> Running {
        let mut words = self.wrap.into_iter().chain([self.program]).chain(self.args);
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words).env_clear().envs(self.env).current_dir(self.dir);
        let input = self.stdin.map(|path| fs::File::open(path).expect("an input").into_parts().0);
        command.stdin(input.map_or_else(Stdio::null, Stdio::from));
        let kept = || tempfile::NamedTempFile::new().expect("a temporary file");
        let (stdout, stderr) = (kept(), kept());
        let handle = |file: &tempfile::NamedTempFile| file.reopen().expect("our own file");
        command.stdout(handle(&stdout)).stderr(handle(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Running { child, stdout, stderr, line: format!("{command:?}") }
    }

    /// Runs to the end.
    pub(crate) fn run(self) -> Outcome {
        self.start().wait()
    }
}

/// A run in progress.
pub(crate) struct Running {
    child: Child,
    stdout: tempfile::NamedTempFile,
    stderr: tempfile::NamedTempFile,
    line: String,
}

impl Running {
    /// Sends a signal to the command alone, not to what it started.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        kill_process(pid, signal).expect("our own child takes signals");
    }

    /// Waits until `condition` holds; fails if the command ends first or it takes too long.
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(self.stderr.path()).unwrap_or_default();
            if condition(&said) {
                return;
            }
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "{} ended before {what}: {ended:?}\n{said}", self.line);
            assert!(Instant::now() < deadline, "{}: not {what} in {PATIENCE:?}\n{said}", self.line);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end.
    pub(crate) fn wait(self) -> Outcome {
        self.wait_for(LIMIT)
    }

    /// Waits for an end that is due now.
    pub(crate) fn ends(self) -> Outcome {
        self.wait_for(PATIENCE)
    }

    fn wait_for(mut self, limit: Duration) -> Outcome {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status;
            }
            if begun.elapsed() > limit {
                let said = fs::read_to_string(self.stderr.path()).unwrap_or_default();
                panic!("{} has not ended after {limit:?}\n{said}", self.line);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |file: &tempfile::NamedTempFile| {
            String::from_utf8(fs::read(file.path()).expect("our own file")).expect("imgbuild prints UTF-8")
        };
        Outcome {
            code: status.code(),
            signal: status.signal(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            line: std::mem::take(&mut self.line),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a test that failed in between: nobody else would end it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    line: String,
}

impl Outcome {
    fn whole(&self) -> String {
        let Self { code, signal, stdout, stderr, line } = self;
        format!("{line}\ncode {code:?}, signal {signal:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }

    /// It ended well.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.whole());
        self
    }

    /// It ended with this exit code and an error.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.whole());
        assert!(self.stderr.contains("error: "), "{}", self.whole());
        self
    }

    /// It ended with this exit code and an error, and without a result.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.stdout, "", "{}", self.whole());
        self.exits(code)
    }

    /// Standard error has `text`.
    #[track_caller]
    pub(crate) fn says(self, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        assert!(self.stderr.contains(text), "`{text}` was not said: {}", self.whole());
        self
    }

    /// Standard error does not have `text`.
    #[track_caller]
    pub(crate) fn does_not_say(self, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        assert!(!self.stderr.contains(text), "`{text}` was said: {}", self.whole());
        self
    }

    /// Standard output has `text`.
    #[track_caller]
    pub(crate) fn prints(self, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        assert!(self.stdout.contains(text), "`{text}` was not printed: {}", self.whole());
        self
    }

    /// Standard output does not have `text`.
    #[track_caller]
    pub(crate) fn does_not_print(self, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        assert!(!self.stdout.contains(text), "`{text}` was printed: {}", self.whole());
        self
    }

    /// What was printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.whole()))
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not {what} in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs; one that is dead and not yet waited for does not.
pub(crate) fn is_running(pid: &str) -> bool {
    // The state stands behind the name, which may hold anything but ends with the last bracket.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The names in a directory, sorted; none where there is no directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("a directory that can be read").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}

/// The sha256 of bytes, as 64 digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut digits = String::new();
    for byte in Sha256::digest(bytes) {
        write!(digits, "{byte:02x}").expect("a string takes what is written");
    }
    digits
}

/// Bytes without a pattern, the same for the same seed.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend(next());
    }
    bytes.truncate(size);
    bytes
}

/// Runs another program to its end and returns what it printed; fails if it is missing or fails.
pub(crate) fn tool(program: &str, args: &[&OsStr]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("cannot start {program}, which the tests need: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// This machine's architecture, as imgbuild spells it.
pub(crate) fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}
