//! What Firecracker and Cloud Hypervisor are given: against files, and against types that others made from the monitors' own
//! descriptions of themselves.

use std::path::Path;
use std::time::Duration;

use cloud_hypervisor_client::models::{CpusConfig, DiskConfig, MemoryConfig, NetConfig, PayloadConfig};
use firepilot_models::models::FullVmConfiguration;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::console::Goal;
use super::node::seed::{Part, Seed};
use super::run::{Disk, Guest, Kernel};
use super::{cloud_hypervisor, firecracker};
use crate::arch::Arch;

fn kernel() -> Kernel {
    Kernel { elf: "/kernel/boot/vmlinux".into(), bz_image: None }
}

fn guest(kernel: &Kernel, arch: Arch, seed: Option<Seed>) -> Guest<'_> {
    let is_node = seed.is_some();
    let disk = |file, is_read_only| Disk { file, is_read_only };
    Guest {
        arch,
        kernel,
        work: Path::new("/work"),
        disks: if is_node {
            vec![disk("root.ext4", false), disk("modules.ext4", false)]
        } else {
            vec![disk("root.ext2", false), disk("modules.ext2", true)]
        },
        memory_mib: if is_node { 1024 } else { 256 },
        processors: if is_node { 2 } else { 1 },
        timeout: Duration::from_secs(1),
        parameters: if is_node { "" } else { "init=/init" },
        acpi: false,
        seed,
        wiring: None,
        goal: Goal::Init,
    }
}

fn seed() -> Seed {
    Seed::new(Some("5.10.262"), &[Part { name: "user-data", content: b"#cloud-config\n" }])
}

/// Compares with a file of `golden/`.
fn is_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/boot/golden").join(name);
    let golden = fs_err::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "{name} is to be:\n{text}");
}

/// Reads into the others' type and writes it again: what the type does not know is lost.
fn is_known<T: DeserializeOwned + Serialize>(value: &Value) {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}"));
    assert_eq!(serde_json::to_value(&read).unwrap(), *value);
}

#[test]
fn firecracker_is_given_what_flintlock_gives_it() {
    let kernel = kernel();
    for (name, guest) in [
        ("firecracker-node.json", guest(&kernel, Arch::X86_64, Some(seed()))),
        ("firecracker-kernel.json", guest(&kernel, Arch::X86_64, None)),
        ("firecracker-arm64.json", guest(&kernel, Arch::Arm64, None)),
    ] {
        is_golden(name, &firecracker::config(&guest));
    }
    let (node, small) = (guest(&kernel, Arch::X86_64, Some(seed())), guest(&kernel, Arch::X86_64, None));
    is_golden("firecracker.arguments", &(firecracker::arguments(&node).join("\n") + "\n"));
    assert!(!firecracker::arguments(&small).contains(&"--metadata"));
}

#[test]
fn firecrackers_own_description_knows_every_field() {
    let kernel = kernel();
    for guest in [guest(&kernel, Arch::X86_64, Some(seed())), guest(&kernel, Arch::Arm64, None)] {
        is_known::<FullVmConfiguration>(&serde_json::from_str(&firecracker::config(&guest)).unwrap());
    }
}

#[test]
fn the_metadata_is_what_the_seed_says_and_no_more_than_the_service_holds() {
    let text = firecracker::metadata(&seed()).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = json["latest"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["meta-data", "user-data", "vendor-data"]);
    assert!(json["latest"]["vendor-data"].as_str().unwrap().contains("[vdb, /lib/modules/5.10.262]"));
    let large = Seed::new(None, &[Part { name: "user-data", content: &vec![b'#'; 40_000] }]);
    let error = firecracker::metadata(&large).unwrap_err().to_string();
    assert!(error.contains("Firecracker's service holds 51200"), "{error}");
}

#[test]
fn cloud_hypervisor_is_given_what_flintlock_gives_it() {
    let kernel = kernel();
    let lines = |guest: &Guest<'_>, major| cloud_hypervisor::arguments(guest, major).join("\n") + "\n";
    let node = guest(&kernel, Arch::X86_64, Some(seed()));
    is_golden("cloud-hypervisor-node.arguments", &lines(&node, Some(40)));
    is_golden("cloud-hypervisor-kernel.arguments", &lines(&guest(&kernel, Arch::X86_64, None), None));
    // Later releases want to be told that a disk is raw, or they shut its first sector off.
    let told = lines(&node, Some(51)).replace(",image_type=raw", "");
    assert_eq!((told, lines(&node, Some(51)).matches("image_type=raw").count()), (lines(&node, Some(50)), 3));
}

/// `a=b,c=on` as the fields of a description.
fn fields(option: &str) -> Value {
    let field = |part: &str| {
        let (name, value) = part.split_once('=').unwrap();
        let value = match value {
            "on" => json!(true),
            "off" => json!(false),
            "raw" => json!("Raw"),
            text => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
        };
        (name.to_owned(), value)
    };
    Value::Object(option.split(',').map(field).collect::<Map<_, _>>())
}

#[test]
fn cloud_hypervisors_own_description_knows_every_option() {
    let kernel = kernel();
    let words = cloud_hypervisor::arguments(&guest(&kernel, Arch::X86_64, Some(seed())), Some(51));
    let after = |option: &str| {
        let at = words.iter().position(|word| word == option).unwrap();
        words[at + 1..].iter().take_while(|word| !word.starts_with("--"))
    };
    let one = |option: &str| after(option).next().unwrap().clone();
    after("--disk").for_each(|disk| is_known::<DiskConfig>(&fields(disk)));
    is_known::<NetConfig>(&fields(&one("--net")));
    // What the command line calls `boot` and measures in MiB, the description calls `boot_vcpus` and measures in bytes.
    let cpus = one("--cpus").replace("boot=", "boot_vcpus=") + ",max_vcpus=2";
    is_known::<CpusConfig>(&fields(&cpus));
    let size = one("--memory").replace('M', "");
    is_known::<MemoryConfig>(&fields(&size));
    is_known::<PayloadConfig>(&json!({ "kernel": one("--kernel"), "cmdline": one("--cmdline") }));
    let known = ["--log-file", "-v", "--cmdline", "--kernel", "--cpus", "--disk", "--memory", "--net"];
    assert!(words.iter().filter(|word| word.starts_with('-')).all(|word| known.contains(&word.as_str())));
}
