//! Cloud Hypervisor as Flintlock starts it: by its command line, metadata on a disk.

use std::process::Command;

use super::node::seed::{self, Uplink, Wiring};
use super::run::{Guest, Launch};
use super::vmm::Vmm;
use super::{Error, cidata, tap};
use crate::step::Watch;

/// Where Cloud Hypervisor logs.
const LOG: &str = "cloud-hypervisor.log";
/// What Flintlock tells the kernel.
const PARAMETERS: &str = "console=hvc0 root=/dev/vda rw reboot=k panic=1";
/// The first release that lets nobody write a disk's first sector unless it is told that the disk is raw; an ext4 without
/// a partition table has its superblock in that block.
const NAMES_TYPES: u32 = 51;

/// Writes the metadata's disk, and makes the command line.
pub(super) fn launch(guest: &Guest<'_>, watch: &Watch) -> Result<Launch, Error> {
    let program = Vmm::CloudHypervisor.program(guest.arch);
    let mut command = match &guest.seed {
        Some(seed) => {
            cidata::write(&seed.files(Wiring::Cidata, Uplink::Fixed), guest.work)?;
            tap::command(program, Vmm::CloudHypervisor, watch)?
        }
        None => Command::new(program),
    };
    let version = Vmm::CloudHypervisor.version(guest.arch);
    let major = version.and_then(|version| version.split('.').next()?.parse().ok());
    command.args(arguments(guest, major));
    Ok(Launch { command, server: None, log: Some(LOG) })
}

/// The command line, for this release.
pub(super) fn arguments(guest: &Guest<'_>, major: Option<u32>) -> Vec<String> {
    let mut parameters = PARAMETERS.to_owned();
    if !guest.parameters.is_empty() {
        parameters = format!("{parameters} {}", guest.parameters);
    }
    let kernel = guest.kernel.file(Vmm::CloudHypervisor).to_string_lossy();
    let cpus = format!("boot={}", guest.processors);
    let words = ["--log-file", LOG, "-v", "--cmdline", &parameters, "--kernel", &kernel, "--cpus", &cpus];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.push("--disk".into());
    let image_type = if major.is_some_and(|major| major >= NAMES_TYPES) { ",image_type=raw" } else { "" };
    for disk in cidata::among(&guest.disks, guest.seed.as_ref().map(|_| Wiring::Cidata)) {
        let access = if disk.is_read_only { ",readonly=on" } else { "" };
        words.push(format!("path={}{access}{image_type}", disk.file));
    }
    words.extend(["--memory".into(), format!("size={}M", guest.memory_mib)]);
    if guest.seed.is_some() {
        words.extend(["--net".into(), format!("tap={},mac={}", tap::NAMES[1], seed::MACS[1])]);
    }
    words
}
