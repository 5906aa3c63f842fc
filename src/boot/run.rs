//! One run of a guest: its monitor started, its console heard to the end.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fs_err::{self as fs, File};

use super::console::{Console, Goal};
use super::node::seed::{Seed, Server, Wiring};
use super::vmm::{Accelerator, Vmm, Way};
use super::{Error, cloud_hypervisor, firecracker, qemu};
use crate::arch::Arch;
use crate::sandbox;
use crate::step::{Level, Watch};

/// How often the wait looks up from the console.
const TICK: Duration = Duration::from_millis(50);
/// How long a guest may take to end after its last record or its panic.
const GRACE: Duration = Duration::from_secs(2);
/// The same where the monitor starts a guest anew that ends: shorter than `panic=1`.
const MOMENT: Duration = Duration::from_millis(500);
/// How long a KVM guest may be silent before init: a broken one never speaks again.
const SILENCE: Duration = Duration::from_secs(4);
/// What QEMU prints when a KVM guest can go no further; the guest then hangs.
const BROKEN: &str = "KVM internal error";

/// What is to run.
pub(super) struct Guest<'a> {
    pub(super) arch: Arch,
    pub(super) kernel: &'a Kernel,
    /// The scratch directory, the monitor's working directory.
    pub(super) work: &'a Path,
    /// Files in `work`: the root first.
    pub(super) disks: Vec<Disk>,
    pub(super) memory_mib: u32,
    pub(super) processors: u32,
    pub(super) timeout: Duration,
    /// What the kernel is told besides the console, the root and how to end.
    pub(super) parameters: &'static str,
    /// Whether QEMU's microvm describes its devices by ACPI.
    pub(super) acpi: bool,
    /// What the guest is told of itself; without it there is no network at all.
    pub(super) seed: Option<Seed>,
    /// How it is told; each monitor has a way of its own.
    pub(super) wiring: Option<Wiring>,
    pub(super) goal: Goal,
}

/// A kernel as files.
pub(super) struct Kernel {
    /// What Firecracker boots, and who finds a PVH note in it.
    pub(super) elf: PathBuf,
    /// What the others boot where there is no note.
    pub(super) bz_image: Option<PathBuf>,
}

impl Kernel {
    /// The file that a monitor boots.
    pub(super) fn file(&self, vmm: Vmm) -> &Path {
        self.bz_image.as_ref().filter(|_| vmm != Vmm::Firecracker).unwrap_or(&self.elf)
    }
}

/// A disk of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) file: &'static str,
    pub(super) is_read_only: bool,
}

/// The console, and where it is heard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Serial {
    /// By us.
    Pipe,
    /// On the user's terminal, QEMU's keys included.
    Terminal,
}

/// A monitor ready to start, with what has to live as long as it does.
pub(super) struct Launch {
    pub(super) command: Command,
    pub(super) server: Option<Server>,
    /// Where it logs, in the guest's scratch directory, if not on its standard error.
    pub(super) log: Option<&'static str>,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The monitor ended by itself.
    Exited(ExitStatus),
    /// The guest said what it was to say.
    Reached,
    /// The time was over.
    TimedOut,
    /// A KVM guest stopped in the middle.
    Stuck,
}

/// What is left of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) way: Way,
    pub(super) console: Console,
    /// From the start to the kernel's first word.
    pub(super) banner: Option<Duration>,
    /// From the start to init's first word.
    pub(super) first_word: Option<Duration>,
    /// From the start to where the guest was to come.
    pub(super) reached: Option<Duration>,
    /// From the start to the end.
    pub(super) whole: Duration,
    pub(super) ending: Ending,
    /// What the monitor itself had to say, the last line.
    pub(super) complaint: String,
    /// What the guest asked its metadata service for, where that is ours.
    pub(super) asked: Option<Vec<String>>,
}

impl Run {
    /// Why the accelerator is to blame for this end, if it is: the kernel said nothing of it.
    pub(super) fn accelerator_failure(&self) -> Option<String> {
        if self.console.is_complete() || self.console.panic().is_some() {
            return None;
        }
        let why = match &self.ending {
            Ending::Exited(status) if self.first_word.is_none() || !status.success() => {
                format!("{} ended ({status})", self.way.vmm.name())
            }
            Ending::Stuck => "it hung".into(),
            Ending::Exited(_) | Ending::Reached | Ending::TimedOut => return None,
        };
        Some(if self.complaint.is_empty() { why } else { format!("{why}: {}", self.complaint) })
    }

    /// The console's last lines, and the monitor's own last word.
    pub(super) fn tail(&self) -> String {
        [self.console.tail().as_str(), self.complaint.as_str()].join("\n").trim().to_owned()
    }
}

/// A monitor that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = sandbox::end(&mut self.0);
        }
    }
}

/// Makes the monitor's files and its command line.
fn launch(guest: &Guest<'_>, way: Way, serial: Serial, watch: &Watch) -> Result<Launch, Error> {
    let mut launch = match way.vmm {
        Vmm::Qemu => qemu::launch(guest, way.accelerator, serial)?,
        Vmm::Firecracker => firecracker::launch(guest, watch)?,
        Vmm::CloudHypervisor => cloud_hypervisor::launch(guest, watch)?,
    };
    watch.reporter.note(Level::Detail, &format!("{:?}", launch.command));
    launch.command.current_dir(guest.work);
    Ok(launch)
}

/// Boots the guest and listens until it ends, fails or takes too long. `is_last` says that no other way will be tried.
pub(super) fn run(guest: &Guest<'_>, way: Way, is_last: bool, watch: &Watch) -> Result<Run, Error> {
    let complaints = guest.work.join("monitor.err");
    let Launch { mut command, server, log } = launch(guest, way, Serial::Pipe, watch)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // A group of its own: a ctrl-C reaches imgbuild alone, which then ends the monitor.
    command.stderr(File::create(&complaints)?.into_parts().0).process_group(0);
    let started = Instant::now();
    let mut monitor = Running(command.spawn()?);
    let mut stdout = monitor.0.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });

    // A guest that ends is started anew by Cloud Hypervisor: what it says then is not waited for.
    let is_restarted = way.vmm == Vmm::CloudHypervisor;
    let grace = if is_restarted { MOMENT } else { GRACE };
    // Silence alone proves nothing of a monitor that the user named: the kernel may have no console.
    let is_tried = way.accelerator == Accelerator::Kvm && (way.vmm == Vmm::Qemu || !is_last);
    let silence = SILENCE.min(guest.timeout / 2);
    let mut console = Console::new(guest.goal.clone());
    let (mut banner, mut first_word, mut reached) = (None, None, None);
    let mut deadline = started + guest.timeout;
    let mut heard = started;
    let ending = loop {
        if watch.cancel.is_cancelled() {
            return Err(Error::Command(sandbox::Error::Cancelled));
        }
        match receiver.recv_timeout(TICK) {
            Ok(bytes) => {
                let was_over = is_over(&console);
                console.hear(&bytes);
                heard = Instant::now();
                for (is_so, since) in [
                    (console.release().is_some(), &mut banner),
                    (console.is_in_init(), &mut first_word),
                    (console.is_complete(), &mut reached),
                ] {
                    if is_so {
                        since.get_or_insert(heard - started);
                    }
                }
                // A root volume has more to say after the text that was waited for, but nobody who listens.
                if reached.is_some() && (guest.goal != Goal::Init || is_restarted) {
                    break Ending::Reached;
                }
                if is_over(&console) && !was_over {
                    deadline = deadline.min(heard + grace);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break Ending::Exited(monitor.0.wait()?),
            Err(mpsc::RecvTimeoutError::Timeout) if is_tried => {
                let is_silent = first_word.is_none() && heard.elapsed() > silence;
                if is_silent || fs::read_to_string(&complaints)?.contains(BROKEN) {
                    break Ending::Stuck;
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() > deadline {
            break Ending::TimedOut;
        }
    };
    // Before the monitor is stopped: it would complain of that, too.
    let mut said = String::from_utf8_lossy(&fs::read(&complaints)?).into_owned();
    if let Some(log) = log.map(|log| guest.work.join(log)).filter(|log| log.exists()) {
        said += &String::from_utf8_lossy(&fs::read(log)?);
    }
    drop(monitor);
    for bytes in receiver {
        console.hear(&bytes);
    }
    let asked = server.map(|server| server.asked());
    let (complaint, whole) = (complaint(&said), started.elapsed());
    Ok(Run { way, console, banner, first_word, reached, whole, ending, complaint, asked })
}

/// Boots the guest with the user's terminal as its console, until one of them ends it.
pub(super) fn converse(guest: &Guest<'_>, way: Way, watch: &Watch) -> Result<ExitStatus, Error> {
    let Launch { mut command, server: _server, .. } = launch(guest, way, Serial::Terminal, watch)?;
    // In the terminal's own group, or it could not read a key.
    let mut monitor = command.spawn()?;
    loop {
        if let Some(status) = monitor.try_wait()? {
            return Ok(status);
        }
        if watch.cancel.is_cancelled() {
            monitor.kill()?;
            monitor.wait()?;
            return Err(Error::Command(sandbox::Error::Cancelled));
        }
        std::thread::sleep(TICK);
    }
}

/// Whether nothing more is expected of the guest but its end.
fn is_over(console: &Console) -> bool {
    console.is_complete() || console.panic().is_some() || console.is_frozen()
}

/// The line of what a monitor said that says most: its first error, or else its last word that is no warning.
fn complaint(text: &str) -> String {
    const TELLING: [&str; 6] = [BROKEN, ": error: ", "ERROR", ":Error:", "Error: ", "error: "];
    const VAGUE: [&str; 5] = [": warning: ", "WARN", "INFO", "DEBUG", ":Info:"];
    let telling = |line: &&str| TELLING.iter().any(|word| line.contains(word));
    let vague = |line: &&str| line.is_empty() || VAGUE.iter().any(|word| line.contains(word));
    let line = text.lines().find(telling).or_else(|| text.lines().rfind(|line| !vague(line)));
    line.unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_tells_more_than_an_abort() {
        let abort = "qemu: error: failed to set MSR 0x10a\nqemu: kvm.c:3183: Assertion `ret' failed.\n";
        assert_eq!(complaint(abort), "qemu: error: failed to set MSR 0x10a");
        assert_eq!(
            complaint("qemu: warning: a\nKVM internal error. Suberror: 1\nRAX=0\n"),
            "KVM internal error. Suberror: 1"
        );
        assert_eq!(complaint("Could not access KVM\nlast\n\n"), "last");
        assert_eq!(complaint("qemu: warning: no feature\n"), "");
        let log = "2026-01-01T00:00:00 [anonymous-instance:main] Running Firecracker v1.7.0\n\
                   2026-01-01T00:00:00 [anonymous-instance:main:ERROR:src/main.rs:1] no tap: EPERM\n\
                   2026-01-01T00:00:00 [anonymous-instance:main] Firecracker exiting with error.\n";
        assert!(complaint(log).ends_with("no tap: EPERM"));
    }

    #[test]
    fn the_accelerator_is_blamed_only_where_the_kernel_said_nothing() {
        use std::os::unix::process::ExitStatusExt;
        let way = Way { vmm: Vmm::Qemu, accelerator: Accelerator::Kvm };
        let run = |text: &str, ending| {
            let mut console = Console::default();
            text.lines().for_each(|line| console.feed(line.as_bytes()));
            let first_word = console.is_in_init().then_some(TICK);
            let (complaint, asked, whole) = ("told".into(), None, TICK);
            Run { way, console, banner: None, first_word, reached: None, whole, ending, complaint, asked }
                .accelerator_failure()
        };
        let exited = |raw| Ending::Exited(ExitStatus::from_raw(raw));
        assert_eq!(run("", exited(0)).unwrap(), "QEMU ended (exit status: 0): told");
        assert_eq!(run("[0.0] Linux", exited(6)).unwrap(), "QEMU ended (signal: 6 (SIGABRT)): told");
        assert_eq!(run("@imgbuild init 0.1 @", Ending::Stuck).unwrap(), "it hung: told");
        assert!(run("@imgbuild init 0.1 @", exited(6)).is_some());
        assert!(run("@imgbuild init 0.1 @", exited(0)).is_none());
        assert!(run("[0.0] Kernel panic - not syncing: no", exited(0)).is_none());
        assert!(run("@imgbuild end 0 @", Ending::TimedOut).is_none());
        assert!(run("[0.0] Linux", Ending::TimedOut).is_none());
    }
}
