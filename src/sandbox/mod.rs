//! One command, its surroundings fixed: a clean environment, its output in a log, its children ended with it.
//!
//! A command runs on the host with the host's tools, or inside a root tree: a [`Sandbox`] says which.

mod inside;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use fs_err::{self as fs, File};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::step::{Cancel, Class, Diagnose};
pub use inside::{Limits, PROGRAM, Sandbox, require};

/// How long a process group may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How often a waiting parent looks whether it should stop.
const TICK: Duration = Duration::from_millis(50);
/// How many bytes of a failed command's output its error carries.
const TAIL: u64 = 8 * 1024;

/// A command could not be run, failed, or was stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there or cannot be executed.
    #[error("cannot start `{program}`: {source}")]
    Start {
        /// Program as asked for.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The command ended with a failure.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended, in words.
        status: String,
        /// The last of what it printed, both streams.
        output: String,
        /// The whole of what it printed, where it was kept.
        log: Option<PathBuf>,
    },
    /// The host does not let the sandbox be built.
    #[error("this host forbids the sandbox: {reason}")]
    Forbidden {
        /// What bubblewrap said.
        reason: String,
    },
    /// The run was stopped by the user.
    #[error("interrupted")]
    Cancelled,
    /// The log or a pipe could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Start { .. } | Self::Forbidden { .. } => Class::Input,
            Self::Failed { .. } => Class::Build,
            Self::Cancelled => Class::Interrupted,
            Self::Io(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Start { .. } => {
                Some("`imgbuild doctor` lists what is missing and how to install it".into())
            }
            Self::Forbidden { .. } => Some(inside::cure()),
            Self::Failed { log: Some(log), .. } => {
                Some(format!("the whole output is in `{}`", log.display()))
            }
            _ => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Failed { output, .. } if !output.is_empty() => Some(output.clone()),
            _ => None,
        }
    }
}

/// A command to be run with nothing of the caller's environment but the search path.
#[derive(Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    dir: Option<PathBuf>,
    log: Option<PathBuf>,
    inside: Option<Sandbox>,
    leashed: bool,
}

impl Command {
    /// A command without arguments yet, on this host.
    pub fn new(program: impl Into<OsString>) -> Self {
        let fixed = [("LC_ALL", "C"), ("TZ", "UTC"), ("HOME", "/nonexistent")];
        let mut env: BTreeMap<OsString, OsString> =
            fixed.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        env.insert("PATH".into(), std::env::join_paths(search_path()).unwrap_or_default());
        Self {
            program: program.into(),
            args: Vec::new(),
            env,
            dir: None,
            log: None,
            inside: None,
            leashed: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Runs in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Appends the command line and both output streams to `log`.
    #[must_use]
    pub fn log(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// Has everything the command starts end with us, even where we are killed. It needs [`PROGRAM`].
    #[must_use]
    pub fn leashed(self) -> Self {
        Self { leashed: true, ..self }
    }

    /// The command line as one would type it.
    pub fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    /// The process to start.
    fn process(&self) -> Result<std::process::Command, Error> {
        let mut command;
        if let Some(sandbox) = &self.inside {
            command = std::process::Command::new(find(PROGRAM).unwrap_or_else(|| PROGRAM.into()));
            command
                .args(sandbox.words(&self.program, &self.args, &self.env, self.dir.as_deref())?)
                .env_clear();
        } else {
            let leash =
                ["--die-with-parent", "--unshare-pid", "--dev-bind", "/", "/", "--proc", "/proc", "--"];
            if self.leashed {
                command = std::process::Command::new(find(PROGRAM).unwrap_or_else(|| PROGRAM.into()));
                command.args(leash).arg(&self.program);
            } else {
                command = std::process::Command::new(&self.program);
            }
            command.args(&self.args).env_clear().envs(&self.env);
            if let Some(dir) = &self.dir {
                command.current_dir(dir);
            }
        }
        Ok(command)
    }

    /// Runs to the end and returns the standard output.
    pub fn output(self, cancel: &Cancel) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.lines(cancel, |line| {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        })?;
        Ok(bytes)
    }

    /// Runs to the end, handing each line of standard output (without its newline) to `each`.
    ///
    /// With a log, standard error shares the log with standard output; without one it is kept for the error alone.
    pub fn lines(self, cancel: &Cancel, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let line = self.line();
        let mut log = match &self.log {
            Some(path) => {
                let mut log = fs::OpenOptions::new().create(true).append(true).open(path)?;
                writeln!(log, "$ {line}")?;
                log
            }
            None => File::from_parts(tempfile::tempfile()?, "the captured output"),
        };
        let mut command = self.process()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(log.try_clone()?.into_parts().0);
        // A group of its own, so that everything the command starts can be ended together.
        command.process_group(0);
        let mut child = command.spawn().map_err(|source| Error::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;

        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                if line.is_ok_and(|line| sender.send(line).is_err()) {
                    break;
                }
            }
        });
        let mut kept = Ok(());
        loop {
            if cancel.is_cancelled() {
                end(&mut child)?;
                return Err(Error::Cancelled);
            }
            match receiver.recv_timeout(TICK) {
                Ok(line) => {
                    each(&line);
                    kept = kept.and_then(|()| log.write_all(&line)).and_then(|()| log.write_all(b"\n"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let _ = reader.join();
        let status = wait(&mut child, cancel)?;
        if status.success() {
            return Ok(kept?);
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let output = tail(&mut log, self.log.as_deref())?;
        if let (true, Some(reason)) = (self.inside.is_some() || self.leashed, forbidden(&output)) {
            return Err(Error::Forbidden { reason });
        }
        Err(Error::Failed { command: line, status: describe(status), output, log: self.log })
    }
}

/// What bubblewrap said about the host, if it is what failed: it begins each line with its name.
fn forbidden(output: &str) -> Option<String> {
    let reason = output.lines().rev().find_map(|line| line.strip_prefix("bwrap: "))?;
    Some(reason.to_owned())
}

/// Waits for a child whose standard output is closed already.
fn wait(child: &mut Child, cancel: &Cancel) -> Result<ExitStatus, Error> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if cancel.is_cancelled() {
            end(child)?;
            return Err(Error::Cancelled);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends a child's whole process group: SIGTERM first, SIGKILL for what is left; returns when nobody is.
pub fn end(child: &mut Child) -> Result<(), Error> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal = |signal| group.map(|group| kill_process_group(group, signal));
    signal(Signal::TERM);
    let deadline = std::time::Instant::now() + GRACE;
    while child.try_wait()?.is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(TICK);
    }
    signal(Signal::KILL);
    child.wait()?;
    // A signal is not an end yet. Zombies count too, and where the first process of a container reaps nobody they stay.
    let deadline = std::time::Instant::now() + GRACE;
    while group.is_some_and(|group| test_kill_process_group(group).is_ok())
        && std::time::Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The last of what a command printed: of the captured file, or of its log.
fn tail(captured: &mut File, log: Option<&Path>) -> Result<String, Error> {
    use std::io::Seek;
    let mut reopened;
    let file = match log {
        Some(path) => {
            reopened = File::open(path)?;
            &mut reopened
        }
        None => captured,
    };
    let end = file.seek(std::io::SeekFrom::End(0))?;
    file.seek(std::io::SeekFrom::Start(end.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(20)..].join("\n"))
}

/// How a command ended, in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended without a status".into(),
    }
}

/// Quotes a word where a shell would need it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The caller's `PATH`, and where Debian keeps programs that an ordinary user's `PATH` leaves out (depmod, mke2fs).
fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    dirs.extend(system.into_iter().filter(|dir| !dirs.contains(dir)).collect::<Vec<_>>());
    dirs
}

/// Where a command of this name is found.
pub fn find(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    search_path().into_iter().map(|dir| dir.join(program)).find(|path| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}
