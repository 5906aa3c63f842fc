//! Boots a built kernel under QEMU and says how far it came.
//!
//! The guest's root is an ext2 disk with one program, `init.c`; the modules volume is
//! the second disk, mounted where the images' consumers mount it. What init says on the console is the proof.
//! A whole root volume is `node`'s.

mod console;
mod disk;
mod error;
mod header;
pub mod node;
mod qemu;
mod volume;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use serde::Serialize;

use crate::arch::Arch;
use crate::host::{self, Tool};
use crate::step::{Level, Unit, Watch};

pub use console::Outcome;
use console::{Goal, Heard};
pub use error::Error;
use qemu::{Disk, Ending, Guest, Run};
use volume::Volume;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where it works, TCG elsewhere.
    Auto,
    /// The processor itself, by `/dev/kvm`; an error where that does not work.
    Kvm,
    /// QEMU's own translator, on every host and for every architecture.
    Tcg,
}

/// What to boot, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The guest's architecture.
    pub arch: Arch,
    /// `boot/vmlinux` as the images have it: an ELF on `x86_64`, an Image on arm64.
    pub kernel: PathBuf,
    /// The same kernel as a bzImage: booted where `kernel` has no PVH note, since QEMU has no other way into an ELF.
    pub bz_image: Option<PathBuf>,
    /// The unpacked root of the modules volume: `lib/modules/V` and the links into it.
    pub modules: Option<PathBuf>,
    /// Modules to load from the volume; `-` and `_` mean the same.
    pub load: Vec<String>,
    /// How long the guest may take, start to end.
    pub timeout: Duration,
    /// What runs it.
    pub accelerator: Accelerator,
    /// The guest's memory.
    pub memory_mib: u32,
}

/// How far a kernel came: all the way.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// What ran the guest: [`Accelerator::Kvm`] or [`Accelerator::Tcg`].
    pub accelerator: Accelerator,
    /// Why that one.
    pub accelerator_reason: String,
    /// The guest's uptime when init began.
    pub guest_seconds: f64,
    /// From the start of QEMU to init's first word.
    pub init_seconds: f64,
    /// From the start of QEMU to its end.
    pub whole_seconds: f64,
    /// The file system type of the root.
    pub root_fs: String,
    /// The file system type of the modules volume, if there was one.
    pub volume_fs: Option<String>,
    /// Whether `/proc/config.gz` is there, which kubeadm asks for.
    pub config_readable: bool,
    /// The modules asked for, in that order.
    pub modules: Vec<Module>,
    /// Everything on the console, line by line.
    #[serde(skip)]
    pub console: Vec<String>,
}

/// One module that was asked for and is in the kernel now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Name as the kernel writes it, with `_`.
    pub name: String,
    /// How it came there.
    pub outcome: Outcome,
}

/// The programs that booting a kernel of `arch` needs on this host.
pub fn requirements(arch: Arch) -> Vec<Tool> {
    let (program, package) = match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
    };
    let compiler = match arch {
        _ if Arch::host() == Some(arch) => ("gcc", "gcc"),
        Arch::X86_64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
        Arch::Arm64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    };
    vec![
        Tool::new(program, package, "runs the guest"),
        Tool::new(disk::mke2fs(), "e2fsprogs", "makes its disks"),
        Tool::new(compiler.0, compiler.1, "compiles its init"),
    ]
}

/// Boots what is asked for, with `work` for scratch files.
pub fn boot(request: &Request, work: &Path, watch: &Watch) -> Result<Report, Error> {
    host::require(&requirements(request.arch))?;
    let (kernel, volume) = check(request, watch)?;
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
        parameters: "root=/dev/vda rw init=/init".into(),
        seed: None,
        goal: Goal::Init,
    };
    let (accelerator, reason, run) = run(&guest, request.accelerator, watch)?;
    let console = run.console.lines().to_vec();
    let heard = judge(&run, request.timeout, volume.as_ref())?;
    Ok(Report {
        release: heard.release,
        machine: heard.machine,
        accelerator,
        accelerator_reason: reason,
        guest_seconds: heard.uptime,
        init_seconds: seconds(run.first_word.unwrap_or(run.whole)),
        whole_seconds: seconds(run.whole),
        root_fs: heard.root_fs,
        volume_fs: heard.volume.and_then(Result::ok),
        config_readable: heard.config_readable,
        modules: heard
            .modules
            .into_iter()
            .filter_map(|(name, outcome)| Some(Module { name, outcome: outcome.ok()? }))
            .collect(),
        console,
    })
}

/// The kernel that QEMU will take, and the modules volume that belongs to it.
fn check(request: &Request, watch: &Watch) -> Result<(PathBuf, Option<Volume>), Error> {
    let kernel = fs::canonicalize(&request.kernel)?;
    let data = fs::read(&kernel)?;
    let volume = request.modules.as_deref().map(Volume::read).transpose()?;
    let checked = match (header::check(&data, request.arch, &kernel), &request.bz_image) {
        (Err(Error::NoPvh { .. }), Some(bz_image)) => {
            watch.reporter.note(Level::Info, "no PVH note: the bzImage beside it is booted instead");
            fs::canonicalize(bz_image)?
        }
        (checked, _) => checked.map(|()| kernel)?,
    };
    match (&volume, crate::kernel::header::release(&data)) {
        (Some(volume), Some(release)) if volume.version != release => {
            Err(Error::Release { kernel: release, modules: volume.version.clone() })
        }
        _ => Ok((checked, volume)),
    }
}

/// Runs the guest by the accelerator asked for, or by the best that works; says which and why.
fn run(guest: &Guest, asked: Accelerator, watch: &Watch) -> Result<(Accelerator, String, Run), Error> {
    let reason = match (asked, kvm_obstacle(guest.arch)) {
        (Accelerator::Tcg, _) => "asked for".to_owned(),
        (Accelerator::Kvm, Some(why)) => return Err(Error::Kvm { why, console: String::new() }),
        (Accelerator::Auto, Some(why)) => why,
        (Accelerator::Auto | Accelerator::Kvm, None) => {
            let run = staged(guest, Accelerator::Kvm, watch)?;
            match (run.accelerator_failure(), asked) {
                (None, Accelerator::Kvm) => return Ok((Accelerator::Kvm, "asked for".into(), run)),
                (None, _) => return Ok((Accelerator::Kvm, "/dev/kvm works".into(), run)),
                (Some(why), Accelerator::Kvm) => return Err(Error::Kvm { why, console: run.console.tail() }),
                (Some(why), _) => {
                    let why = format!("/dev/kvm is there, but a guest died in it: {why}");
                    watch.reporter.note(Level::Info, &format!("booting under TCG: {why}"));
                    why
                }
            }
        }
    };
    Ok((Accelerator::Tcg, reason, staged(guest, Accelerator::Tcg, watch)?))
}

/// Runs the guest as a stage of its own.
fn staged(guest: &Guest, accelerator: Accelerator, watch: &Watch) -> Result<Run, Error> {
    let name = if accelerator == Accelerator::Kvm { "KVM" } else { "TCG" };
    let stage =
        watch.reporter.begin("boot", &format!("{} under QEMU, {name}", guest.arch), None, Unit::Files);
    let run = qemu::run(guest, accelerator, watch)?;
    if run.accelerator_failure().is_some() {
        stage.finish("stopped before its end");
    } else if let Some(first) = run.first_word {
        stage.finish(&format!("init after {:.1} s", first.as_secs_f64()));
    }
    Ok(run)
}

/// Why KVM is out of the question, if it is.
fn kvm_obstacle(arch: Arch) -> Option<String> {
    if Arch::host() != Some(arch) {
        return Some(format!("the guest is {arch} and this host is {}", std::env::consts::ARCH));
    }
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").err().map(|error| error.to_string())
}

/// What a finished run proves, or why it proves nothing.
fn judge(run: &Run, timeout: Duration, volume: Option<&Volume>) -> Result<Heard, Error> {
    let console = run.console.tail();
    let heard = run.console.heard();
    if let Some(text) = run.console.panic() {
        return Err(Error::Panic { text: text.to_owned(), console });
    }
    if !run.console.is_complete() {
        let reached_init = run.first_word.is_some();
        return Err(match &run.ending {
            Ending::Exited(status) => Error::Ended {
                status: status.to_string(),
                reached_init,
                console: [console.as_str(), run.complaint.as_str()].join("\n").trim().to_owned(),
            },
            _ => Error::TimedOut { limit: timeout, asked: None, reached_init, console },
        });
    }
    let Some(heard) = heard else { return Err(Error::Garbled { console }) };
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
    if failed.is_empty() { Ok(heard) } else { Err(Error::Load { failed, console }) }
}

/// Seconds to the millisecond: more would be noise.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
