//! One run of QEMU: its command line, and its console heard to the end.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fs_err::{self as fs, File};

use super::console::{Console, Goal};
use super::node::seed::{self, Seed};
use super::{Accelerator, Error};
use crate::arch::Arch;
use crate::sandbox;
use crate::step::{Level, Watch};

/// How often the wait looks up from the console.
const TICK: Duration = Duration::from_millis(50);
/// How long a guest may take to end after its last record or its panic.
const GRACE: Duration = Duration::from_secs(2);
/// How long a KVM guest may be silent before init: a broken one never speaks again.
const SILENCE: Duration = Duration::from_secs(4);
/// What QEMU prints when a KVM guest can go no further; the guest then hangs.
const BROKEN: &str = "KVM internal error";

/// What is to run.
pub(super) struct Guest<'a> {
    pub(super) arch: Arch,
    pub(super) kernel: &'a Path,
    /// The scratch directory, QEMU's working directory.
    pub(super) work: &'a Path,
    /// Files in `work`, from vda on.
    pub(super) disks: Vec<Disk>,
    pub(super) memory_mib: u32,
    pub(super) processors: u32,
    pub(super) timeout: Duration,
    /// What the kernel is told besides the console and how to end.
    pub(super) parameters: String,
    /// What the guest's metadata service says; without one there is no network at all.
    pub(super) seed: Option<Seed>,
    pub(super) goal: Goal,
}

/// A disk of a guest.
pub(super) struct Disk {
    pub(super) file: &'static str,
    pub(super) is_read_only: bool,
}

/// The console, and where it is heard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serial {
    /// By us.
    Pipe,
    /// On the user's terminal, QEMU's keys included.
    Terminal,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// QEMU ended by itself.
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
    /// What QEMU itself had to say, the last line.
    pub(super) complaint: String,
    /// What the guest asked its metadata service for.
    pub(super) asked: Vec<String>,
}

impl Run {
    /// Why the accelerator is to blame for this end, if it is: the kernel said nothing of it.
    pub(super) fn accelerator_failure(&self) -> Option<String> {
        if self.console.is_complete() || self.console.panic().is_some() {
            return None;
        }
        let why = match &self.ending {
            Ending::Exited(status) if self.first_word.is_none() || !status.success() => {
                format!("QEMU ended ({status})")
            }
            Ending::Stuck => "it hung".into(),
            Ending::Exited(_) | Ending::Reached | Ending::TimedOut => return None,
        };
        Some(if self.complaint.is_empty() { why } else { format!("{why}: {}", self.complaint) })
    }
}

/// A QEMU that does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = sandbox::end(&mut self.0);
        }
    }
}

/// Boots the guest and listens until it ends, fails or takes too long.
pub(super) fn run(guest: &Guest, accelerator: Accelerator, watch: &Watch) -> Result<Run, Error> {
    let complaints = guest.work.join("qemu.err");
    let mut command = command(guest, accelerator, Serial::Pipe);
    let server = guest.seed.clone().map(|seed| seed::Server::start(seed, guest.work)).transpose()?;
    watch.reporter.note(Level::Detail, &format!("{command:?}"));
    command.current_dir(guest.work).stdin(Stdio::null()).stdout(Stdio::piped());
    // A group of its own: a ctrl-C reaches imgbuild alone, which then ends QEMU.
    command.stderr(File::create(&complaints)?.into_parts().0).process_group(0);
    let started = Instant::now();
    let mut qemu = Running(command.spawn()?);
    let mut stdout = qemu.0.stdout.take().expect("stdout is piped");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });

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
                if reached.is_some() && guest.goal != Goal::Init {
                    break Ending::Reached;
                }
                if is_over(&console) && !was_over {
                    deadline = deadline.min(heard + GRACE);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break Ending::Exited(qemu.0.wait()?),
            Err(mpsc::RecvTimeoutError::Timeout) if accelerator == Accelerator::Kvm => {
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
    // Before QEMU is stopped: it would complain of that, too.
    let complaint = complaint(&String::from_utf8_lossy(&fs::read(&complaints)?));
    drop(qemu);
    for bytes in receiver {
        console.hear(&bytes);
    }
    let asked = server.map(|server| server.asked()).unwrap_or_default();
    Ok(Run { console, banner, first_word, reached, whole: started.elapsed(), ending, complaint, asked })
}

/// Boots the guest with the user's terminal as its console, until one of them ends it.
pub(super) fn converse(guest: &Guest, accelerator: Accelerator, watch: &Watch) -> Result<ExitStatus, Error> {
    let mut command = command(guest, accelerator, Serial::Terminal);
    watch.reporter.note(Level::Detail, &format!("{command:?}"));
    let _server = guest.seed.clone().map(|seed| seed::Server::start(seed, guest.work)).transpose()?;
    // In the terminal's own group, or it could not read a key.
    let mut qemu = command.current_dir(guest.work).spawn()?;
    loop {
        if let Some(status) = qemu.try_wait()? {
            return Ok(status);
        }
        if watch.cancel.is_cancelled() {
            qemu.kill()?;
            qemu.wait()?;
            return Err(Error::Command(sandbox::Error::Cancelled));
        }
        std::thread::sleep(TICK);
    }
}

/// Whether nothing more is expected of the guest but its end.
fn is_over(console: &Console) -> bool {
    console.is_complete() || console.panic().is_some() || console.is_frozen()
}

/// The line of QEMU's standard error that says most: its first error, or else its last word.
fn complaint(text: &str) -> String {
    let telling = |line: &&str| line.contains(BROKEN) || line.contains(": error: ");
    let vague = |line: &&str| !line.is_empty() && !line.contains(": warning: ");
    let line = text.lines().find(telling).or_else(|| text.lines().rfind(vague));
    line.unwrap_or_default().to_owned()
}

/// QEMU's command line, the guest's hardware and kernel parameters as near to Firecracker's as QEMU can.
fn command(guest: &Guest, accelerator: Accelerator, serial: Serial) -> Command {
    let kvm = accelerator == Accelerator::Kvm;
    // reboot=t, panic=-1: QEMU has no keyboard controller here, and shall end at once.
    let (program, machine, cpu, parameters) = match guest.arch {
        Arch::X86_64 => (
            "qemu-system-x86_64",
            "microvm,acpi=off",
            "max",
            "console=ttyS0 reboot=t panic=-1 pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd",
        ),
        Arch::Arm64 => {
            let cpu = if kvm { "host" } else { "cortex-a57" };
            ("qemu-system-aarch64", "virt", cpu, "console=ttyAMA0 panic=-1")
        }
    };
    let mut command = Command::new(program);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
    command.args(["-serial", if serial == Serial::Terminal { "mon:stdio" } else { "stdio" }]);
    command.args(["-M", machine, "-cpu", cpu, "-smp", &guest.processors.to_string()]);
    let tcg = if guest.processors > 1 { "tcg,thread=multi" } else { "tcg" };
    command.args(["-accel", if kvm { "kvm" } else { tcg }, "-m", &guest.memory_mib.to_string()]);
    command.args(["-global", "virtio-mmio.force-legacy=false", "-kernel"]).arg(guest.kernel);
    command.args(["-append", &format!("{parameters} {}", guest.parameters)]);
    // The guest names devices in the order of addresses; left alone, the two machines fill them contrariwise.
    let bus = |slot: usize| {
        if guest.arch == Arch::Arm64 { format!(",bus=virtio-mmio-bus.{slot}") } else { String::new() }
    };
    for (slot, Disk { file, is_read_only }) in guest.disks.iter().enumerate() {
        let access = if *is_read_only { ",readonly=on" } else { "" };
        command.args(["-drive", &format!("id=disk{slot},file={file},format=raw,if=none{access}")]);
        command.args(["-device", &format!("virtio-blk-device,drive=disk{slot}{}", bus(slot))]);
    }
    if guest.seed.is_some() {
        // Restricted: from inside, nothing of this host can be reached but the service.
        let service = format!(
            "user,id=net0,restrict=on,net=169.254.0.0/16,host=169.254.0.2,dns=169.254.0.3,dhcpstart=169.254.0.15,\
             guestfwd=tcp:{}:80-unix:{}",
            seed::ADDRESS,
            seed::SOCKET
        );
        let networks = [service, "user,id=net1,restrict=on".to_owned()];
        for (number, (network, mac)) in networks.into_iter().zip(seed::MACS).enumerate() {
            let bus = bus(guest.disks.len() + number);
            command.args(["-netdev", &network]);
            command.args(["-device", &format!("virtio-net-device,netdev=net{number},mac={mac}{bus}")]);
        }
    }
    command
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
    }

    #[test]
    fn the_accelerator_is_blamed_only_where_the_kernel_said_nothing() {
        use std::os::unix::process::ExitStatusExt;
        let run = |text: &str, ending| {
            let mut console = Console::default();
            text.lines().for_each(|line| console.feed(line.as_bytes()));
            let first_word = console.is_in_init().then_some(TICK);
            let (complaint, asked) = ("told".into(), Vec::new());
            Run { console, banner: None, first_word, reached: None, whole: TICK, ending, complaint, asked }
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
