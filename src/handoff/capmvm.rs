//! CAPMVM's `MicrovmMachineTemplate` as YAML, and the variables that its cluster templates ask for.

use std::collections::BTreeMap;

use serde::Serialize;

use super::flintlock::{MODULES, ROOT};
use super::{Error, Images, Interface, Link, Machine, yaml};

/// What its cluster templates fix.
pub(super) const FILENAME: &str = "boot/vmlinux";
/// Where its cluster templates mount the modules, whatever the kernel.
pub(super) const TEMPLATE_RELEASE: &str = "5.10.77";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MicrovmMachineTemplate {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: TemplateSpec,
}

#[derive(Serialize)]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

#[derive(Serialize)]
struct TemplateSpec {
    template: Template,
}

#[derive(Serialize)]
struct Template {
    spec: MicrovmMachineSpec,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MicrovmMachineSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    vcpu: u32,
    memory_mb: u32,
    root_volume: Volume,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume>,
    kernel: Kernel,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kernel_cmdline: BTreeMap<String, String>,
    network_interfaces: Vec<NetworkInterface>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(rename = "sshPublicKeys", skip_serializing_if = "Vec::is_empty")]
    ssh_public_keys: Vec<SshPublicKey>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    id: &'static str,
    image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount_point: Option<String>,
}

#[derive(Serialize)]
struct Kernel {
    image: String,
    filename: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkInterface {
    guest_device_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_mac: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SshPublicKey {
    user: String,
    authorized_keys: Vec<String>,
}

/// One template per name, one YAML document each.
pub(super) fn templates(machine: &Machine, images: &Images) -> Result<String, Error> {
    let documents = machine.names.iter().map(|name| yaml(&template(name, machine, images)));
    Ok(documents.collect::<Result<Vec<_>, _>>()?.join("---\n"))
}

fn template(name: &str, machine: &Machine, images: &Images) -> MicrovmMachineTemplate {
    let modules = images.modules.as_ref().map(|modules| Volume {
        id: MODULES,
        image: modules.image.clone(),
        mount_point: (!machine.is_cloud_hypervisor()).then(|| modules.mount_point()),
    });
    let root = images.root.clone().unwrap_or_default();
    let spec = MicrovmMachineSpec {
        provider: machine.provider.map(super::Provider::name),
        vcpu: machine.vcpu,
        memory_mb: machine.memory,
        root_volume: Volume { id: ROOT, image: root, mount_point: None },
        volumes: modules.into_iter().collect(),
        kernel: Kernel { image: images.kernel.clone(), filename: images.filename.clone() },
        kernel_cmdline: machine.cmdline.clone(),
        network_interfaces: machine.interfaces.iter().map(interface).collect(),
        labels: machine.labels.clone(),
        ssh_public_keys: machine
            .ssh
            .iter()
            .map(|(user, keys)| SshPublicKey { user: user.clone(), authorized_keys: keys.clone() })
            .collect(),
    };
    MicrovmMachineTemplate {
        api_version: "infrastructure.cluster.x-k8s.io/v1alpha1",
        kind: "MicrovmMachineTemplate",
        metadata: Metadata { name: name.to_owned(), namespace: machine.namespace.clone() },
        spec: TemplateSpec { template: Template { spec } },
    }
}

fn interface(interface: &Interface) -> NetworkInterface {
    NetworkInterface {
        guest_device_name: interface.name.clone(),
        guest_mac: interface.mac.clone(),
        kind: match interface.link {
            Link::Tap => "tap",
            Link::Macvtap => "macvtap",
        },
        address: interface.address.clone(),
    }
}

/// Lines for a shell to read: what clusterctl fills into CAPMVM's cluster templates.
pub(super) fn variables(images: &Images) -> String {
    let named = [
        ("KUBERNETES_VERSION", images.kubernetes.as_ref().map(|version| format!("v{version}"))),
        ("MVM_ROOT_IMAGE", images.root.clone()),
        ("MVM_KERNEL_IMAGE", Some(images.kernel.clone())),
        ("MVM_KERNEL_MODULES_IMAGE", images.modules.as_ref().map(|modules| modules.image.clone())),
    ];
    // References and versions have no character that a shell reads as anything else.
    let line =
        |(name, value): (&str, Option<String>)| value.map(|value| format!("export {name}=\"{value}\"\n"));
    named.into_iter().filter_map(line).collect()
}
