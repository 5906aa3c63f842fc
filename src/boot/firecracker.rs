//! Firecracker as Flintlock starts it: a configuration file, no API, metadata in its own service.

use std::process::Command;

use fs_err as fs;
use serde::Serialize;

use super::node::seed::{self, Seed, Uplink, Wiring};
use super::run::{Guest, Launch};
use super::vmm::Vmm;
use super::{Error, tap};
use crate::arch::Arch;
use crate::step::Watch;

/// The configuration's name in the scratch directory.
const CONFIG: &str = "firecracker.json";
/// What the metadata service holds.
const METADATA: &str = "metadata.json";
/// Where Firecracker logs.
const LOG: &str = "firecracker.log";
/// How much the metadata service takes, in bytes, unless Firecracker is told otherwise; Flintlock does not tell it.
const LIMIT: usize = 51_200;
/// What Flintlock tells the kernel; Firecracker adds the root.
const PARAMETERS: &str =
    "console=ttyS0 reboot=k panic=1 pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd";

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Config<'g> {
    boot_source: BootSource<'g>,
    drives: Vec<Drive<'g>>,
    #[serde(rename = "machine-config")]
    machine: Machine,
    network_interfaces: Vec<Interface>,
    logger: Logger,
    #[serde(rename = "mmds-config", skip_serializing_if = "Option::is_none")]
    mmds: Option<Mmds>,
}

#[derive(Serialize)]
struct BootSource<'g> {
    kernel_image_path: &'g str,
    boot_args: String,
}

#[derive(Serialize)]
struct Drive<'g> {
    #[serde(rename = "drive_id")]
    id: &'g str,
    path_on_host: &'g str,
    is_root_device: bool,
    is_read_only: bool,
    cache_type: &'static str,
}

#[derive(Serialize)]
struct Machine {
    vcpu_count: u32,
    mem_size_mib: u32,
    smt: bool,
    track_dirty_pages: bool,
}

#[derive(Serialize)]
struct Interface {
    iface_id: &'static str,
    host_dev_name: &'static str,
    guest_mac: &'static str,
}

#[derive(Serialize)]
struct Logger {
    log_path: &'static str,
    level: &'static str,
    show_level: bool,
    show_log_origin: bool,
}

#[derive(Serialize)]
struct Mmds {
    version: &'static str,
    network_interfaces: [&'static str; 1],
}

/// Writes what Firecracker reads, and makes its command line.
pub(super) fn launch(guest: &Guest<'_>, watch: &Watch) -> Result<Launch, Error> {
    if let Some(seed) = &guest.seed {
        fs::write(guest.work.join(METADATA), metadata(seed)?)?;
    }
    fs::write(guest.work.join(CONFIG), config(guest))?;
    // Before 1.8 Firecracker would not make it.
    fs::write(guest.work.join(LOG), "")?;
    let program = Vmm::Firecracker.program(guest.arch);
    // The metadata service is behind a network interface, and that wants a tap; without metadata there is neither.
    let mut command = if guest.seed.is_some() {
        tap::command(program, Vmm::Firecracker, watch)?
    } else {
        Command::new(program)
    };
    command.args(arguments(guest));
    Ok(Launch { command, server: None, log: Some(LOG) })
}

pub(super) fn arguments(guest: &Guest<'_>) -> Vec<&'static str> {
    let mut words = vec!["--id", "imgbuild-boot", "--boot-timer", "--no-api", "--config-file", CONFIG];
    if guest.seed.is_some() {
        words.extend(["--metadata", METADATA]);
    }
    words
}

/// The configuration file.
pub(super) fn config(guest: &Guest<'_>) -> String {
    let mut boot_args = PARAMETERS.to_owned();
    for more in [guest.parameters, &seed::parameters(guest.seed.as_ref(), Wiring::Url, Uplink::Fixed)] {
        boot_args += if more.is_empty() { "" } else { " " };
        boot_args += more;
    }
    let drives = guest.disks.iter().enumerate().map(|(number, disk)| Drive {
        id: disk.file.split('.').next().unwrap_or_default(),
        path_on_host: disk.file,
        is_root_device: number == 0,
        is_read_only: disk.is_read_only,
        cache_type: "Unsafe",
    });
    let interfaces = ["eth0", "eth1"].into_iter().zip(tap::NAMES).zip(seed::MACS);
    let interfaces = interfaces.map(|((iface_id, host_dev_name), guest_mac)| Interface {
        iface_id,
        host_dev_name,
        guest_mac,
    });
    let kernel = guest.kernel.file(Vmm::Firecracker).to_string_lossy();
    let config = Config {
        boot_source: BootSource { kernel_image_path: &kernel, boot_args },
        drives: drives.collect(),
        machine: Machine {
            vcpu_count: guest.processors,
            mem_size_mib: guest.memory_mib,
            smt: guest.arch == Arch::X86_64,
            track_dirty_pages: false,
        },
        network_interfaces: if guest.seed.is_some() { interfaces.collect() } else { Vec::new() },
        logger: Logger { log_path: LOG, level: "Info", show_level: true, show_log_origin: true },
        mmds: guest.seed.as_ref().map(|_| Mmds { version: "V1", network_interfaces: ["eth0"] }),
    };
    serde_json::to_string_pretty(&config).expect("it has string keys alone") + "\n"
}

/// What the metadata service is filled with.
pub(super) fn metadata(seed: &Seed) -> Result<String, Error> {
    let files = seed.files(Wiring::Url, Uplink::Fixed);
    let latest: serde_json::Map<_, _> = files
        .into_iter()
        .map(|(name, content)| (name.to_owned(), String::from_utf8_lossy(&content).into()))
        .collect();
    let text = serde_json::json!({ "latest": latest }).to_string();
    if text.len() > LIMIT { Err(Error::Metadata { size: text.len(), limit: LIMIT }) } else { Ok(text) }
}
