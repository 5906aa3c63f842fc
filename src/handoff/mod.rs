//! Documents that hand our images to those who run them: Flintlock, CAPMVM, hammertime.
//!
//! A machine is described once, by [`Machine`] and [`Images`]; each consumer's document is that in the consumer's own
//! words, held to the rules of its sources (flintlock@7112122, cluster-api-provider-microvm@ca7084d,
//! hammertime@7da37d2). Nothing here asks a registry or reads an image.

mod capmvm;
mod cloud_init;
mod flintlock;
mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::arch::Arch;
use crate::step::{Class, Diagnose};

/// Whom the document is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A `MicrovmMachineTemplate` per name, for `kubectl apply`.
    Capmvm,
    /// The variables of CAPMVM's cluster templates, for `clusterctl generate cluster`.
    CapmvmEnv,
    /// A `CreateMicroVMRequest`, for gRPC.
    Flintlock,
    /// The body of `POST /v1alpha1/microvm`, Flintlock's HTTP gateway: the specification alone.
    FlintlockHttp,
    /// The file of `hammertime create --file`.
    Hammertime,
}

impl Format {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capmvm => "capmvm",
            Self::CapmvmEnv => "capmvm-env",
            Self::Flintlock => "flintlock",
            Self::FlintlockHttp => "flintlock-http",
            Self::Hammertime => "hammertime",
        }
    }

    /// Whether Kubernetes names the machines.
    fn is_kubernetes(self) -> bool {
        matches!(self, Self::Capmvm | Self::CapmvmEnv)
    }
}

/// Which VMM Flintlock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Firecracker, Flintlock's default.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
}

impl Provider {
    /// Flintlock's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloudhypervisor",
        }
    }
}

/// How the host's end of an interface is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A tap device on a bridge.
    Tap,
    /// A macvtap device on a parent interface.
    Macvtap,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// `eth1`.
    pub name: String,
    /// The host's end.
    pub link: Link,
    /// `02:…`; else whatever the consumer chooses.
    pub mac: Option<String>,
    /// `192.168.100.30/24`; else DHCP.
    pub address: Option<String>,
    /// The gateway that goes with the address, `192.168.100.1/24`: Flintlock wants its prefix too.
    pub gateway: Option<String>,
    /// Name servers that go with the address.
    pub nameservers: Vec<IpAddr>,
    /// The host's bridge, where it is not the one flintlockd was started with.
    pub bridge: Option<String>,
}

impl Interface {
    /// An interface of this name on a tap device, with DHCP.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            link: Link::Tap,
            mac: None,
            address: None,
            gateway: None,
            nameservers: Vec::new(),
            bridge: None,
        }
    }
}

/// What is said of a machine beside its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name, and its host name; several for several templates.
    pub names: Vec<String>,
    /// The namespace, where one is named.
    pub namespace: Option<String>,
    /// How many processors.
    pub vcpu: u32,
    /// Its memory in MiB.
    pub memory: u32,
    /// The VMM, where one is named.
    pub provider: Option<Provider>,
    /// Its interfaces, from `eth1` on.
    pub interfaces: Vec<Interface>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What is added to the kernel's command line.
    pub cmdline: BTreeMap<String, String>,
    /// The user who may log in, and the public keys.
    pub ssh: Option<(String, Vec<String>)>,
    /// cloud-init's user data, where it is the user's own.
    pub user_data: Option<String>,
}

impl Machine {
    /// Whether Cloud Hypervisor runs it.
    fn is_cloud_hypervisor(&self) -> bool {
        self.provider == Some(Provider::CloudHypervisor)
    }
}

/// The images of a machine, each by the reference a host pulls it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The kernel's.
    pub kernel: String,
    /// The file in it.
    pub filename: String,
    /// The modules', and the release they are for, where they are a volume of their own.
    pub modules: Option<Modules>,
    /// The root volume's.
    pub root: Option<String>,
    /// Whether the root volume has the kernel's modules in it.
    pub has_modules_inside: bool,
    /// The Kubernetes version in the root volume, `1.22.8`.
    pub kubernetes: Option<String>,
    /// The architectures that all of them are for.
    pub arches: Vec<Arch>,
}

/// A modules image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modules {
    /// The reference.
    pub image: String,
    /// `5.10.262`.
    pub release: String,
}

impl Modules {
    /// Where the volume is mounted.
    fn mount_point(&self) -> String {
        format!("/lib/modules/{}", self.release)
    }
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its text, with a newline at its end.
    pub text: String,
    /// What its consumer gets wrong, and how to live with it.
    pub warnings: Vec<String>,
}

/// Something that a consumer would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What, and what would do: "memory is 512 MiB: Flintlock takes 1024 to 32768".
    pub what: String,
    /// What to type.
    pub hint: String,
}

/// A document cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The consumer would refuse it, for these reasons.
    #[error("{}", faults(.0))]
    Refused(Vec<Fault>),
    /// The consumer cannot do without a root volume.
    #[error("a {0} document needs a root volume, and no image of one is named")]
    NoRoot(&'static str),
    /// The library that writes YAML gave up.
    #[error("the document cannot be written as YAML: {0}")]
    Yaml(String),
}

fn faults(faults: &[Fault]) -> String {
    match faults {
        [fault] => fault.what.clone(),
        faults => format!("{} values would be refused", faults.len()),
    }
}

impl Diagnose for Error {
    fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::NoRoot(_) => Class::Usage,
            Self::Yaml(_) => Class::Host,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(faults) => faults.first().map(|fault| fault.hint.clone()),
            Self::NoRoot(_) => Some(
                "`--root DIR[:IMAGE]` or `--root REFERENCE` names one; `imgbuild os --k8s VERSION` builds one".into(),
            ),
            Self::Yaml(_) => None,
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Refused(faults) if faults.len() > 1 => {
                let line = |fault: &Fault| format!("  {}\n", fault.what);
                Some(faults.iter().map(line).collect::<String>().trim_end().to_owned())
            }
            _ => None,
        }
    }
}

/// Writes a machine down for a consumer.
pub fn document(format: Format, machine: &Machine, images: &Images) -> Result<Document, Error> {
    if images.root.is_none() && format != Format::CapmvmEnv {
        return Err(Error::NoRoot(format.name()));
    }
    let faults = rules::faults(format, machine, images);
    if !faults.is_empty() {
        return Err(Error::Refused(faults));
    }
    let text = match format {
        Format::Capmvm => capmvm::templates(machine, images)?,
        Format::CapmvmEnv => capmvm::variables(images),
        Format::Flintlock => flintlock::request(machine, images)?,
        Format::FlintlockHttp => flintlock::specification(machine, images)?,
        Format::Hammertime => flintlock::hammertime(machine, images)?,
    };
    Ok(Document { text, warnings: rules::warnings(format, machine, images) })
}

/// A value as YAML, with a newline at its end.
fn yaml(value: &impl serde::Serialize) -> Result<String, Error> {
    // A key or a reference stays on its line.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(value, options);
    let text = text.map_err(|error| Error::Yaml(error.to_string()))?;
    Ok(text.trim_end().to_owned() + "\n")
}
