//! What Flintlock, CAPMVM and Firecracker would say to a document: their fields, types and bounds, told apart from
//! imgbuild's own code.

use serde_json::Value;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Flag,
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// An object whose values are texts.
    Texts,
    /// A list of texts.
    List,
    /// An object with these fields: name, whether it has to be there, what it holds.
    Object(&'static [Field]),
    /// A list of such objects, with so many at least.
    Objects(usize, &'static [Field]),
    /// One of these texts.
    OneOf(&'static [&'static str]),
}

type Field = (&'static str, bool, Kind);

use Kind::{Flag, List, Number, Object, Objects, OneOf, Text, Texts};

/// types/microvm.proto, with the bounds of core/models.
const MICROVM: &[Field] = &[
    ("id", true, Text),
    ("namespace", false, Text),
    ("labels", false, Texts),
    ("vcpu", true, Number(1, 64)),
    ("memory_in_mb", true, Number(1024, 32768)),
    ("kernel", true, Object(KERNEL)),
    ("root_volume", true, Object(VOLUME)),
    ("additional_volumes", false, Objects(0, VOLUME)),
    ("interfaces", true, Objects(1, INTERFACE)),
    ("metadata", false, Texts),
    ("provider", false, OneOf(&["firecracker", "cloudhypervisor"])),
];
const KERNEL: &[Field] = &[
    ("image", true, Text),
    ("cmdline", false, Texts),
    ("filename", true, Text),
    ("add_network_config", false, Flag),
];
const VOLUME: &[Field] = &[
    ("id", true, Text),
    ("is_read_only", false, Flag),
    ("mount_point", false, Text),
    ("source", true, Object(&[("container_source", true, Text)])),
];
const INTERFACE: &[Field] = &[
    ("device_id", true, Text),
    ("type", true, Number(0, 1)),
    ("guest_mac", false, Text),
    (
        "address",
        false,
        Object(&[("address", true, Text), ("gateway", false, Text), ("nameservers", false, List)]),
    ),
    ("overrides", false, Object(&[("bridge_name", true, Text)])),
];

/// The custom resource of `infrastructure.cluster.x-k8s.io/v1alpha1`.
const TEMPLATE: &[Field] = &[
    ("apiVersion", true, OneOf(&["infrastructure.cluster.x-k8s.io/v1alpha1"])),
    ("kind", true, OneOf(&["MicrovmMachineTemplate"])),
    ("metadata", true, Object(&[("name", true, Text), ("namespace", false, Text)])),
    ("spec", true, Object(&[("template", true, Object(&[("spec", true, Object(MACHINE))]))])),
];
const MACHINE: &[Field] = &[
    ("provider", false, OneOf(&["firecracker", "cloudhypervisor"])),
    ("vcpu", true, Number(1, u64::MAX)),
    ("memoryMb", true, Number(1024, u64::MAX)),
    ("rootVolume", true, Object(MACHINE_VOLUME)),
    ("volumes", false, Objects(0, MACHINE_VOLUME)),
    ("kernel", true, Object(&[("image", true, Text), ("filename", false, Text)])),
    ("kernelCmdline", false, Texts),
    ("networkInterfaces", true, Objects(1, MACHINE_INTERFACE)),
    ("labels", false, Texts),
    ("sshPublicKeys", false, Objects(0, &[("user", true, Text), ("authorizedKeys", true, List)])),
];
const MACHINE_VOLUME: &[Field] =
    &[("id", true, Text), ("image", false, Text), ("readOnly", false, Flag), ("mountPoint", false, Text)];
const MACHINE_INTERFACE: &[Field] = &[
    ("guestDeviceName", true, Text),
    ("guestMac", false, Text),
    ("type", true, OneOf(&["macvtap", "tap"])),
    ("address", false, Text),
];

/// Firecracker's configuration file, as far as it is used here.
const FIRECRACKER: &[Field] = &[
    ("boot-source", true, Object(&[("kernel_image_path", true, Text), ("boot_args", false, Text)])),
    ("drives", true, Objects(1, DRIVE)),
    (
        "machine-config",
        false,
        Object(&[("vcpu_count", true, Number(1, 32)), ("mem_size_mib", true, Number(1, 1 << 30))]),
    ),
];
const DRIVE: &[Field] = &[
    ("drive_id", true, Text),
    ("path_on_host", true, Text),
    ("is_root_device", true, Flag),
    ("is_read_only", false, Flag),
];

/// Flintlock takes it as a machine; returns the references of its images.
#[track_caller]
pub(crate) fn microvm(value: &Value) -> Vec<String> {
    object(value, MICROVM, "microvm");
    let volumes = value["additional_volumes"].as_array().cloned().unwrap_or_default();
    let sources =
        volumes.iter().chain([&value["root_volume"]]).map(|volume| &volume["source"]["container_source"]);
    sources.chain([&value["kernel"]["image"]]).map(reference).collect()
}

/// Kubernetes takes it as a `MicrovmMachineTemplate`, and Flintlock the machine that comes of it; returns the references.
#[track_caller]
pub(crate) fn template(value: &Value) -> Vec<String> {
    object(value, TEMPLATE, "");
    let spec = &value["spec"]["template"]["spec"];
    assert!(spec["vcpu"].as_u64() <= Some(64) && spec["memoryMb"].as_u64() <= Some(32768), "{spec}");
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let images = volumes.iter().chain([&spec["rootVolume"], &spec["kernel"]]).map(|part| &part["image"]);
    images.map(reference).collect()
}

/// Firecracker takes it as its configuration; returns the files it names, the kernel first.
#[track_caller]
pub(crate) fn firecracker(value: &Value) -> Vec<String> {
    object(value, FIRECRACKER, "");
    let drives = value["drives"].as_array().expect("a list");
    assert_eq!(drives.iter().filter(|drive| drive["is_root_device"] == true).count(), 1, "{value}");
    let files = drives.iter().map(|drive| &drive["path_on_host"]);
    [&value["boot-source"]["kernel_image_path"]].into_iter().chain(files).map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A host is what containerd wants before the first `/`, a tag or digest behind.
#[track_caller]
fn reference(value: &Value) -> String {
    let text = text(value);
    let (host, path) = text.split_once('/').unwrap_or_else(|| panic!("`{text}` has no host"));
    assert!(host.contains(['.', ':']), "`{text}` has no host");
    assert!(path.contains([':', '@']) && !text.contains("://"), "`{text}` has neither tag nor digest");
    text
}

#[track_caller]
fn object(value: &Value, fields: &[Field], at: &str) {
    let object = value.as_object().unwrap_or_else(|| panic!("{at}: {value} is no object"));
    for (name, is_required, kind) in fields {
        match object.get(*name) {
            Some(value) => holds(value, *kind, &format!("{at}.{name}")),
            None => assert!(!is_required, "{at} has no {name}: {value}"),
        }
    }
    let unknown = object.keys().find(|key| !fields.iter().any(|(name, ..)| name == key));
    assert!(unknown.is_none(), "{at} has a field that its reader does not know: {unknown:?}");
}

#[track_caller]
fn holds(value: &Value, kind: Kind, at: &str) {
    let list = || value.as_array().unwrap_or_else(|| panic!("{at}: {value} is no list"));
    let fits = match kind {
        Text => value.as_str().is_some_and(|text| !text.is_empty()),
        Flag => value.is_boolean(),
        Number(least, most) => value.as_u64().is_some_and(|number| (least..=most).contains(&number)),
        Texts => value.as_object().is_some_and(|object| object.values().all(Value::is_string)),
        List => list().iter().all(Value::is_string),
        OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
        Object(fields) => {
            object(value, fields, at);
            true
        }
        Objects(least, fields) => {
            list().iter().for_each(|value| object(value, fields, at));
            list().len() >= least
        }
    };
    assert!(fits, "{at}: {value} is not {kind:?}");
}
