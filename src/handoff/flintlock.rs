//! Flintlock's `MicroVMSpec` as JSON: the field names of its protobuf, which its HTTP gateway, grpcurl and hammertime
//! all read. An interface's type is a number, since hammertime reads the file by Go's own JSON, which knows no names of
//! enums.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Error, Images, Interface, Link, Machine, cloud_init};

/// The namespace where none is named: Flintlock's own default.
pub(super) const NAMESPACE: &str = "default";
/// The volumes' names.
pub(super) const ROOT: &str = "root";
pub(super) const MODULES: &str = "modules";

/// What gRPC takes.
#[derive(Serialize)]
struct CreateMicroVmRequest {
    microvm: MicroVmSpec,
}

/// types/microvm.proto.
#[derive(Serialize)]
struct MicroVmSpec {
    id: String,
    namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    vcpu: u32,
    memory_in_mb: u32,
    kernel: Kernel,
    root_volume: Volume,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    additional_volumes: Vec<Volume>,
    interfaces: Vec<NetworkInterface>,
    metadata: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
}

#[derive(Serialize)]
struct Kernel {
    image: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cmdline: BTreeMap<String, String>,
    filename: String,
    add_network_config: bool,
}

#[derive(Serialize)]
struct Volume {
    id: &'static str,
    is_read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_point: Option<String>,
    source: VolumeSource,
}

#[derive(Serialize)]
struct VolumeSource {
    container_source: String,
}

#[derive(Serialize)]
struct NetworkInterface {
    device_id: String,
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<StaticAddress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    overrides: Option<NetworkOverrides>,
}

#[derive(Serialize)]
struct StaticAddress {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nameservers: Vec<String>,
}

#[derive(Serialize)]
struct NetworkOverrides {
    bridge_name: String,
}

/// A whole request.
pub(super) fn request(machine: &Machine, images: &Images) -> Result<String, Error> {
    Ok(json(&CreateMicroVmRequest { microvm: spec(machine, images)? }))
}

/// The specification alone.
pub(super) fn specification(machine: &Machine, images: &Images) -> Result<String, Error> {
    Ok(json(&spec(machine, images)?))
}

/// The specification as far as hammertime's Flintlock, of January 2023, knows it.
pub(super) fn hammertime(machine: &Machine, images: &Images) -> Result<String, Error> {
    Ok(json(&MicroVmSpec { provider: None, ..spec(machine, images)? }))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("keys are texts") + "\n"
}

fn spec(machine: &Machine, images: &Images) -> Result<MicroVmSpec, Error> {
    let name = machine.names.first().cloned().unwrap_or_default();
    let namespace = machine.namespace.clone().unwrap_or_else(|| NAMESPACE.into());
    let volume = |id, image: &String, mount_point| Volume {
        id,
        is_read_only: false,
        mount_point,
        source: VolumeSource { container_source: image.clone() },
    };
    let modules = images.modules.as_ref().map(|modules| {
        // Under Cloud Hypervisor Flintlock has another disk mounted there, so user data sees to it.
        let mount_point = (!machine.is_cloud_hypervisor()).then(|| modules.mount_point());
        volume(MODULES, &modules.image, mount_point)
    });
    let encoded = |text: &str| STANDARD.encode(text);
    let metadata = cloud_init::metadata(machine, images, &name)?;
    Ok(MicroVmSpec {
        labels: machine.labels.clone(),
        vcpu: machine.vcpu,
        memory_in_mb: machine.memory,
        kernel: Kernel {
            image: images.kernel.clone(),
            cmdline: machine.cmdline.clone(),
            filename: images.filename.clone(),
            add_network_config: true,
        },
        root_volume: volume(ROOT, images.root.as_ref().unwrap_or(&String::new()), None),
        additional_volumes: modules.into_iter().collect(),
        interfaces: interfaces(machine, &format!("{namespace}/{name}")),
        metadata: metadata.into_iter().map(|(key, text)| (key, encoded(&text))).collect(),
        provider: machine.provider.map(super::Provider::name),
        id: name,
        namespace,
    })
}

fn interfaces(machine: &Machine, whose: &str) -> Vec<NetworkInterface> {
    let interface = |(number, interface): (usize, &Interface)| NetworkInterface {
        device_id: interface.name.clone(),
        kind: match interface.link {
            Link::Macvtap => 0,
            Link::Tap => 1,
        },
        guest_mac: interface.mac.clone().or_else(|| {
            let is_needed = machine.is_cloud_hypervisor() || interface.name != format!("eth{}", number + 1);
            is_needed.then(|| mac(whose, &interface.name))
        }),
        address: interface.address.clone().map(|address| StaticAddress {
            address,
            gateway: interface.gateway.clone(),
            nameservers: interface.nameservers.iter().map(ToString::to_string).collect(),
        }),
        overrides: interface.bridge.clone().map(|bridge_name| NetworkOverrides { bridge_name }),
    };
    machine.interfaces.iter().enumerate().map(interface).collect()
}

/// A locally administered address, the same for the same machine and interface. Without one, Flintlock finds a tap's
/// interface in the guest by its name, which is right for eth1, eth2 … under Firecracker alone; Cloud Hypervisor
/// refuses an empty one.
fn mac(whose: &str, interface: &str) -> String {
    let digest = Sha256::digest(format!("imgbuild mac {whose}/{interface}"));
    let parts = digest[..5].iter().map(|byte| format!("{byte:02x}"));
    ["02".to_owned()].into_iter().chain(parts).collect::<Vec<_>>().join(":")
}
