//! Boots a built kernel under QEMU, Firecracker or Cloud Hypervisor and says how far it came.
//!
//! The guest's root is an ext2 disk with one program, `init.c`; the modules volume is
//! the second disk, mounted where the images' consumers mount it. What init says on the console is the proof.
//! A whole root volume is `node`'s.

mod cidata;
mod cloud_hypervisor;
mod console;
mod disk;
mod error;
mod firecracker;
mod header;
pub mod node;
mod panic;
mod qemu;
mod run;
mod tap;
#[cfg(test)]
mod tests;
mod vmm;
mod volume;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::Serialize;

use crate::arch::Arch;
use crate::host::{self, Tool};
use crate::kernel::kconfig::Config;
use crate::step::{Level, Unit, Watch};

pub use console::Outcome;
use console::{Goal, Heard};
pub use error::{Error, Failed};
pub use panic::{Kind, Panic};
use run::{Disk, Ending, Guest, Kernel, Run};
pub use vmm::{Accelerator, Vmm, kvm_obstacle};
use vmm::{Choice, Way};
use volume::Volume;

/// What to boot, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The guest's architecture.
    pub arch: Arch,
    /// `boot/vmlinux` as the images have it: an ELF on `x86_64`, an Image on arm64.
    pub kernel: PathBuf,
    /// The same kernel as a bzImage: booted where `kernel` has no PVH note, since QEMU and Cloud Hypervisor have no other way
    /// into an ELF.
    pub bz_image: Option<PathBuf>,
    /// The kernel's configuration, where its image has one: a panic is then told with what is missing in it.
    pub config: Option<PathBuf>,
    /// The flavour of the kernel, where its image says so: a monitor of that name is preferred.
    pub flavour: Option<String>,
    /// The unpacked root of the modules volume: `lib/modules/V` and the links into it.
    pub modules: Option<PathBuf>,
    /// Modules to load from the volume; `-` and `_` mean the same.
    pub load: Vec<String>,
    /// How long the guest may take, start to end.
    pub timeout: Duration,
    /// What gives it its machine; whatever this host can use, unless it is named.
    pub vmm: Option<Vmm>,
    /// What runs it.
    pub accelerator: Accelerator,
    /// Whether QEMU's microvm describes its devices by ACPI, or on the kernel command line.
    pub acpi: bool,
    /// The guest's memory.
    pub memory_mib: u32,
}

impl Request {
    /// A guest of this much memory with all of this host's choosing, and its files still to be named.
    pub fn new(arch: Arch, timeout: Duration, memory_mib: u32) -> Self {
        Self {
            arch,
            kernel: PathBuf::new(),
            bz_image: None,
            config: None,
            flavour: None,
            modules: None,
            load: Vec::new(),
            timeout,
            vmm: None,
            accelerator: Accelerator::Auto,
            acpi: false,
            memory_mib,
        }
    }
}

/// What ran a guest.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The monitor.
    pub vmm: Vmm,
    /// Its release.
    pub vmm_version: Option<String>,
    /// [`Accelerator::Kvm`] or [`Accelerator::Tcg`].
    pub accelerator: Accelerator,
    /// Why that one.
    pub accelerator_reason: String,
}

/// How far a kernel came: all the way, or to the text that was waited for.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub release: String,
    /// What ran the guest.
    #[serde(flatten)]
    pub machine: Machine,
    /// From the start of the monitor to the kernel's first word.
    pub kernel_seconds: f64,
    /// From the start of the monitor to init's first word; none if the text came before.
    pub init_seconds: Option<f64>,
    /// From the start of the monitor to init's last word, or to the text.
    pub reached_seconds: f64,
    /// From the start of the monitor to its end.
    pub whole_seconds: f64,
    /// The text that was waited for.
    pub expected: Option<String>,
    /// What init said, unless a text was waited for.
    #[serde(flatten)]
    pub init: Option<Init>,
    /// Everything on the console, line by line.
    #[serde(skip)]
    pub console: Vec<String>,
}

/// What the small init found.
#[derive(Clone, Debug, Serialize)]
pub struct Init {
    /// `uname -m`.
    pub machine: String,
    /// The guest's uptime when init began.
    pub guest_seconds: f64,
    /// The file system type of the root.
    pub root_fs: String,
    /// The file system type of the modules volume, if there was one.
    pub volume_fs: Option<String>,
    /// Whether `/proc/config.gz` is there, which kubeadm asks for.
    pub config_readable: bool,
    /// The modules asked for, in that order.
    pub modules: Vec<Module>,
}

/// One module that was asked for and is in the kernel now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Name as the kernel writes it, with `_`.
    pub name: String,
    /// How it came there.
    pub outcome: Outcome,
}

/// The programs that booting a kernel of `arch` needs on this host, with QEMU, which every host can have.
pub fn requirements(arch: Arch) -> Vec<Tool> {
    Vmm::Qemu.tool(arch).into_iter().chain(makers(arch)).collect()
}

/// What makes the small init and its disks.
fn makers(arch: Arch) -> Vec<Tool> {
    let compiler = match arch {
        _ if Arch::host() == Some(arch) => ("gcc", "gcc"),
        Arch::X86_64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
        Arch::Arm64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    };
    vec![
        Tool::new(disk::mke2fs(), "e2fsprogs", "makes its disks"),
        Tool::new(compiler.0, compiler.1, "compiles its init"),
    ]
}

/// Boots what is asked for, with `work` for scratch files; to its end, or until `expect` is on the console.
pub fn boot(request: &Request, expect: Option<&str>, work: &Path, watch: &Watch) -> Result<Report, Error> {
    let Plan { kernel, volume, choice } = prepare(request, watch)?;
    host::require(&makers(request.arch))?;
    let wanted = volume::wanted(&request.load, volume.as_ref())?;

    disk::root(request.arch, volume.is_some().then_some(&wanted), work, watch)?;
    let mut disks = vec![Disk { file: disk::ROOT, is_read_only: false }];
    if let Some(dir) = &request.modules {
        disk::make(dir, &work.join(disk::MODULES), watch)?;
        disks.push(Disk { file: disk::MODULES, is_read_only: true });
    }
    let guest = Guest {
        arch: request.arch,
        kernel: &kernel,
        work,
        disks,
        memory_mib: request.memory_mib,
        processors: 1,
        timeout: request.timeout,
        parameters: "init=/init",
        acpi: request.acpi,
        seed: None,
        wiring: None,
        goal: expect.map_or(Goal::Init, |text| Goal::Text(text.to_owned())),
    };
    let (machine, run) = attempt(&guest, choice, watch)?;
    let since = |moment: Option<Duration>| seconds(moment.unwrap_or(run.whole));
    let heard = judge(&run, &guest, request, volume.as_ref())?;
    Ok(Report {
        release: run.console.release().unwrap_or_default().to_owned(),
        machine,
        kernel_seconds: since(run.banner),
        init_seconds: run.first_word.map(seconds),
        reached_seconds: since(run.reached),
        whole_seconds: seconds(run.whole),
        expected: expect.map(str::to_owned),
        init: heard.map(Init::from),
        console: run.console.lines().to_vec(),
    })
}

impl From<Heard> for Init {
    fn from(heard: Heard) -> Self {
        let module = |(name, outcome): (_, Result<_, _>)| Some(Module { name, outcome: outcome.ok()? });
        Self {
            machine: heard.machine,
            guest_seconds: heard.uptime,
            root_fs: heard.root_fs,
            volume_fs: heard.volume.and_then(Result::ok),
            config_readable: heard.config_readable,
            modules: heard.modules.into_iter().filter_map(module).collect(),
        }
    }
}

/// What is to run, and by what.
struct Plan {
    kernel: Kernel,
    volume: Option<Volume>,
    choice: Choice,
}

/// The monitor to use, a kernel that it will take, and the modules volume that belongs to it.
fn prepare(request: &Request, watch: &Watch) -> Result<Plan, Error> {
    let elf = fs::canonicalize(&request.kernel)?;
    let data = fs::read(&elf)?;
    let volume = request.modules.as_deref().map(Volume::read).transpose()?;
    let has_note = header::check(&data, request.arch, &elf)?;
    if let (Some(volume), Some(release)) = (&volume, crate::kernel::header::release(&data))
        && volume.version != release
    {
        return Err(Error::Release { kernel: release, modules: volume.version.clone() });
    }
    let mut choice = vmm::choose(request.vmm, request.accelerator, request.arch, request.flavour.as_deref())?;
    let mut bz_image = None;
    if !has_note {
        bz_image = request.bz_image.as_ref().map(fs::canonicalize).transpose()?;
        let first = choice.ways[0].vmm;
        choice.ways.retain(|way| way.vmm == Vmm::Firecracker || bz_image.is_some());
        if choice.ways.is_empty() {
            return Err(Error::NoPvh { path: elf, vmm: first });
        }
        if first != Vmm::Firecracker {
            watch.reporter.note(Level::Info, "no PVH note: the bzImage beside it is booted instead");
        }
    }
    Ok(Plan { kernel: Kernel { elf, bz_image }, volume, choice })
}

/// Runs the guest in the first way that works; says which and why.
fn attempt(guest: &Guest<'_>, choice: Choice, watch: &Watch) -> Result<(Machine, Run), Error> {
    let Choice { ways, mut reason } = choice;
    let (last, others) = ways.split_last().expect("a choice has a way");
    for way in others {
        let why = match staged(guest, *way, false, watch) {
            Err(Error::Network { why, .. }) => why,
            Err(error) => return Err(error),
            Ok(run) => match run.accelerator_failure() {
                None => return Ok((machine(*way, guest.arch, reason), run)),
                Some(why) => why,
            },
        };
        let under = if way.vmm == Vmm::Qemu { String::new() } else { format!(" under {}", way.vmm.name()) };
        reason = format!("/dev/kvm is there, but a guest died{under} in it: {why}");
        watch.reporter.note(Level::Info, &format!("booting under QEMU, TCG: {reason}"));
    }
    let run = staged(guest, *last, true, watch)?;
    // Firecracker and Cloud Hypervisor end for many reasons, and say which.
    let is_kvms = last.vmm == Vmm::Qemu || run.complaint.to_lowercase().contains("kvm");
    match run.accelerator_failure() {
        Some(why) if last.accelerator == Accelerator::Kvm && is_kvms => {
            Err(Error::Kvm { vmm: last.vmm, why, console: run.console.tail() })
        }
        _ => Ok((machine(*last, guest.arch, reason), run)),
    }
}

fn machine(way: Way, arch: Arch, reason: String) -> Machine {
    Machine {
        vmm: way.vmm,
        vmm_version: way.vmm.version(arch),
        accelerator: way.accelerator,
        accelerator_reason: reason,
    }
}

/// Runs the guest as a stage of its own.
fn staged(guest: &Guest<'_>, way: Way, is_last: bool, watch: &Watch) -> Result<Run, Error> {
    let accelerator = if way.accelerator == Accelerator::Kvm { "KVM" } else { "TCG" };
    let what = format!("{} under {}, {accelerator}", guest.arch, way.vmm.name());
    let stage = watch.reporter.begin("boot", &what, None, Unit::Files);
    let run = run::run(guest, way, is_last, watch)?;
    if run.accelerator_failure().is_some() {
        stage.finish("stopped before its end");
    } else if let Some(first) = run.first_word {
        stage.finish(&format!("init after {:.1} s", first.as_secs_f64()));
    }
    Ok(run)
}

/// Why a guest did not come to where it was to come. `file_systems` are those that its root may have.
fn failure(run: &Run, guest: &Guest<'_>, request: &Request, file_systems: &'static str) -> Error {
    let (vmm, arch, console) = (run.way.vmm, guest.arch, run.console.tail());
    if let Some(text) = run.console.panic() {
        let read = request.config.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let config = read.map(|text| Config::parse(&text));
        let panic = Box::new(Panic::new(text, vmm, arch, file_systems, config.as_ref()));
        return Error::Panic { panic, console };
    }
    if run.console.is_frozen() {
        return Error::Frozen { console };
    }
    let reached_init = run.first_word.is_some();
    if let Ending::Exited(status) = &run.ending {
        return Error::Ended { vmm, arch, status: status.to_string(), reached_init, console: run.tail() };
    }
    let asked = run.asked.clone();
    Error::TimedOut { vmm, arch, limit: guest.timeout, asked, reached_init, console }
}

/// What a finished run proves, or why it proves nothing; none where no more than a text was waited for.
fn judge(
    run: &Run,
    guest: &Guest<'_>,
    request: &Request,
    volume: Option<&Volume>,
) -> Result<Option<Heard>, Error> {
    let is_init = guest.goal == Goal::Init;
    if !run.console.is_complete() || (is_init && run.console.panic().is_some()) {
        return Err(failure(run, guest, request, "EXT2_FS|EXT4_FS"));
    }
    if !is_init {
        return Ok(None);
    }
    let console = run.console.tail();
    let Some(heard) = run.console.heard() else { return Err(Error::Garbled { console }) };
    if let Some(volume) = volume.filter(|volume| volume.version != heard.release) {
        return Err(Error::Release { kernel: heard.release, modules: volume.version.clone() });
    }
    if let Some(Err(failure)) = heard.volume {
        return Err(Error::Mount { failure, console });
    }
    let failed: Vec<_> = heard
        .modules
        .iter()
        .filter_map(|(name, outcome)| Some((name.clone(), outcome.as_ref().err()?.clone())))
        .collect();
    if failed.is_empty() { Ok(Some(heard)) } else { Err(Error::Load { failed, console }) }
}

/// Seconds to the millisecond: more would be noise.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
