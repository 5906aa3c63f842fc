//! What the consumers refuse, held against a machine before its document is written; and what they get wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::flintlock::NAMESPACE;
use super::{Fault, Format, Images, Interface, Link, Machine, capmvm, cloud_init};
use crate::arch::Arch;
use crate::document::list;

/// What Flintlock takes (core/models/microvm.go).
const VCPU: RangeInclusive<u32> = 1..=64;
const MEMORY: RangeInclusive<u32> = 1024..=32768;
/// What Firecracker takes (`vmm_config/machine_config.rs`).
const FIRECRACKER_VCPU: u32 = 32;
/// Flintlock's own interface for metadata.
const METADATA: &str = "eth0";

/// Everything that would be refused.
pub(super) fn faults(format: Format, machine: &Machine, images: &Images) -> Vec<Fault> {
    let mut faults = Faults(Vec::new());
    faults.images(format, images);
    // The variables say nothing of a machine.
    if format != Format::CapmvmEnv {
        faults.names(format, machine);
        faults.size(machine, images);
        faults.interfaces(format, machine);
        faults.metadata(format, machine, images);
    }
    faults.0
}

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Fault { what: what.into(), hint: hint.into() });
    }

    fn images(&mut self, format: Format, images: &Images) {
        let Images { filename, .. } = images;
        if filename.is_empty() || filename.starts_with('/') || filename.split('/').any(|part| part == "..") {
            let what = format!(
                "the kernel's file name is `{filename}`: it is a path in the image, such as boot/vmlinux"
            );
            self.add(what, "`--filename boot/vmlinux`");
        }
        if format == Format::CapmvmEnv && filename != capmvm::FILENAME {
            let what = format!(
                "the kernel's file name is `{filename}`: CAPMVM's cluster templates have {} and no variable for it",
                capmvm::FILENAME
            );
            self.add(what, "`--format capmvm` writes the machine templates whole");
        }
    }

    fn names(&mut self, format: Format, machine: &Machine) {
        if machine.names.len() > 1 && !format.is_kubernetes() {
            let named = list(machine.names.iter().map(String::as_str));
            self.add(
                format!("one machine has one name, not {named}"),
                "name one: each has a document of its own",
            );
        }
        let namespace = machine.namespace.as_deref();
        let parts = machine.names.iter().map(|name| ("name", name.as_str(), format == Format::Capmvm));
        for (what, text, has_dots) in parts.chain(namespace.map(|text| ("namespace", text, false))) {
            let longest = if has_dots { 253 } else { 63 };
            let is_name =
                text.len() <= longest && text.split('.').all(is_label) && (has_dots || is_label(text));
            if !is_name {
                let what = format!(
                    "the {what} is `{text}`: it is of a-z, 0-9 and `-`, begins and ends with none of these last, and has at most {longest} characters"
                );
                self.add(
                    what,
                    if namespace == Some(text) {
                        format!("`--namespace {NAMESPACE}`")
                    } else {
                        "`--name mvm0`".into()
                    },
                );
            }
        }
    }

    fn size(&mut self, machine: &Machine, images: &Images) {
        let Machine { vcpu, memory, .. } = machine;
        let is_x86 = images.arches.contains(&Arch::X86_64);
        if !VCPU.contains(vcpu) {
            self.add(
                format!("vcpu is {vcpu}: Flintlock takes {} to {}", VCPU.start(), VCPU.end()),
                "`--vcpu 2`",
            );
        } else if !machine.is_cloud_hypervisor() && *vcpu > FIRECRACKER_VCPU {
            let what = format!("vcpu is {vcpu}: Firecracker takes at most {FIRECRACKER_VCPU}");
            self.add(what, "`--provider cloudhypervisor`, where that is what runs it");
        } else if !machine.is_cloud_hypervisor() && is_x86 && *vcpu > 1 && vcpu % 2 == 1 {
            let what = format!(
                "vcpu is {vcpu}: Firecracker takes 1 or an even number where Flintlock runs it on x86_64"
            );
            self.add(what, format!("`--vcpu {}`", vcpu + 1));
        }
        if !MEMORY.contains(memory) {
            let what =
                format!("memory is {memory} MiB: Flintlock takes {} to {}", MEMORY.start(), MEMORY.end());
            self.add(what, "`--memory 2048`");
        }
    }

    fn interfaces(&mut self, format: Format, machine: &Machine) {
        if machine.interfaces.is_empty() {
            self.add("there is no interface: Flintlock wants one at least", "`--interface eth1`");
        }
        let mut seen = BTreeSet::new();
        for interface in &machine.interfaces {
            let name = &interface.name;
            if !is_device(name) {
                let what = format!(
                    "the interface is called `{name}`: Flintlock takes a letter, then letters, digits and `_`, all small"
                );
                self.add(what, "`--interface eth1`");
            } else if name == METADATA {
                self.add(
                    format!("`{METADATA}` is Flintlock's own interface, for metadata"),
                    "begin with `--interface eth1`",
                );
            } else if !seen.insert(name) {
                self.add(
                    format!("two interfaces are called `{name}`"),
                    "name them apart: `--interface eth1 --interface eth2`",
                );
            }
            if interface.link == Link::Macvtap && !machine.is_cloud_hypervisor() {
                let what = format!("`{name}` is a macvtap: Flintlock refuses those with Firecracker");
                self.add(what, "`type=tap`; or `--provider cloudhypervisor`, where that is what runs it");
            }
            self.address(format, interface);
        }
    }

    fn address(&mut self, format: Format, interface: &Interface) {
        let Interface { name, mac, address, gateway, nameservers, bridge, .. } = interface;
        if let Some(mac) = mac.as_ref().filter(|mac| !is_mac(mac)) {
            self.add(
                format!("`{mac}` is no MAC address, for `{name}`"),
                "six pairs of digits: `mac=02:00:00:00:00:01`",
            );
        }
        for (what, text) in [("address", address), ("gateway", gateway)] {
            if let Some(text) = text.as_ref().filter(|text| !is_cidr(text)) {
                let what = format!(
                    "`{text}` is no {what} with a prefix, for `{name}`: Flintlock takes CIDR notation"
                );
                self.add(what, "write it with the network's length: `192.168.100.30/24`");
            }
        }
        if address.is_none() && (gateway.is_some() || !nameservers.is_empty()) {
            self.add(
                format!("`{name}` has a gateway or name servers, and no address they go with"),
                "add `address=192.168.100.30/24`",
            );
        }
        if format == Format::Capmvm && (gateway.is_some() || !nameservers.is_empty() || bridge.is_some()) {
            let what = format!(
                "`{name}` has a gateway, name servers or a bridge: CAPMVM's interfaces have no field for them"
            );
            self.add(
                what,
                "leave them out: DHCP brings the first two, flintlockd's `--bridge-name` says the last",
            );
        }
    }

    fn metadata(&mut self, format: Format, machine: &Machine, images: &Images) {
        if format == Format::Capmvm && machine.user_data.is_some() {
            let what = "user data of one's own: in a cluster it is kubeadm's, and a MicrovmMachineTemplate has no field for it";
            self.add(what, "`files` and `preKubeadmCommands` of the KubeadmConfigTemplate do the same");
        }
        let (Some(name), false) = (machine.names.first(), machine.is_cloud_hypervisor()) else { return };
        let Ok(metadata) = cloud_init::metadata(machine, images, name) else { return };
        let size = serde_json::json!({ "latest": metadata }).to_string().len() + cloud_init::ADDED;
        if size > cloud_init::LIMIT {
            let what = format!(
                "user data makes the metadata {size} bytes long: Firecracker holds {}",
                cloud_init::LIMIT
            );
            self.add(what, "have it fetch what is large");
        }
    }
}

/// What a document's consumer gets wrong.
pub(super) fn warnings(format: Format, machine: &Machine, images: &Images) -> Vec<String> {
    let mut warnings = Vec::new();
    if images.modules.is_none() && !images.has_modules_inside && format != Format::CapmvmEnv {
        warnings.push("there is no modules volume: the node has the modules of its root volume, if there are any for this kernel".into());
    }
    if format == Format::CapmvmEnv {
        warnings.extend(environment(images));
    }
    if let (Format::Hammertime, Some(provider)) = (format, machine.provider) {
        let name = provider.name();
        warnings.push(format!(
            "hammertime's file has no field for the provider: flintlockd has to be started with `--default-provider {name}`"
        ));
    }
    let Some(mount) = cloud_init::mounts(machine, images) else { return warnings };
    let entry = format!("[{}]", mount.map(|field| format!("\"{field}\"")).join(", "));
    let says = "under Cloud Hypervisor Flintlock takes cloud-init's own disk for the modules volume (it calls that vdb, which is vdc)";
    if format == Format::Capmvm {
        warnings.push(format!(
            "{says}, so the volume has no mountPoint here: put `mounts: [{entry}]` into kubeadmConfigSpec of the KubeadmControlPlane and into spec of the KubeadmConfigTemplate"
        ));
    } else if machine.user_data.is_some() {
        warnings.push(format!(
            "{says}, so the volume has no mount_point here: your user data has to say `mounts: [{entry}]`"
        ));
    }
    warnings
}

/// What CAPMVM's cluster templates fix.
fn environment(images: &Images) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut expression = "s/macvtap/tap/".to_owned();
    match &images.modules {
        Some(modules) if modules.release != capmvm::TEMPLATE_RELEASE => {
            let fixed = format!("/lib/modules/{}", capmvm::TEMPLATE_RELEASE);
            let mount_point = modules.mount_point();
            expression += &format!("; s,{fixed},{mount_point},");
            warnings.push(format!(
                "CAPMVM's cluster templates mount the modules at {fixed}: these belong at {mount_point}"
            ));
        }
        Some(_) => {}
        None if images.has_modules_inside => warnings.push(
            "CAPMVM's cluster templates have a modules volume, for 5.10.77, which this root volume has no use for: take it out".into(),
        ),
        None => warnings
            .push("there is no modules image: the cluster template takes one of its own, for 5.10.77".into()),
    }
    warnings.push(format!(
        "CAPMVM's cluster templates ask for macvtap, which Flintlock refuses with Firecracker: `clusterctl generate cluster … | sed '{expression}'`"
    ));
    if images.root.is_none() {
        warnings.push(
            "there is no root volume: the cluster template takes one of its own, for Kubernetes 1.23.5"
                .into(),
        );
    }
    warnings
}

/// A label of DNS (RFC 1123).
fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `^[a-z][a-z0-9_]*$`, as Flintlock has it.
fn is_device(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_inner)
}

fn is_mac(text: &str) -> bool {
    let is_pair = |pair: &str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(is_pair)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    length.chars().all(|c| c.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_prefixes() {
        for (text, fits) in [
            ("192.168.100.30/24", true),
            ("10.0.0.1/32", true),
            ("fd00::1/64", true),
            ("::/0", true),
            ("10.0.0.1", false),
            ("10.0.0.1/33", false),
            ("10.0.0.1/+8", false),
            ("10.0.0.1/", false),
            ("10.0.0/8", false),
            ("fd00::1/129", false),
            ("/8", false),
        ] {
            assert_eq!(is_cidr(text), fits, "{text}");
        }
    }

    #[test]
    fn hardware_addresses_are_six_pairs() {
        for (text, fits) in [
            ("02:00:00:00:00:01", true),
            ("AA:ff:00:00:00:01", true),
            ("02:00:00:00:00", false),
            ("02:00:00:00:00:0g", false),
            ("2:0:0:0:0:1", false),
            ("", false),
        ] {
            assert_eq!(is_mac(text), fits, "{text}");
        }
    }
}
