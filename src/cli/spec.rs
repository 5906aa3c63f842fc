//! `imgbuild spec`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::place;
use super::push::Transport;
use super::{Context, Failure};
use crate::arch::Arch;
use crate::handoff::{Format, Interface, Link, Machine, Provider};
use crate::plan::handoff::{ModulesWish, Named, Request};
use crate::registry;
use crate::registry::reference::{Prefix, Reference};
use crate::step::Level;

/// Print the document that has Flintlock, CAPMVM or hammertime run what was built
///
/// The kernel, the modules volume at its mount point, and the root volume, by the names that hosts pull them by. The
/// images are looked at where they were pushed to: whether they are there, for which architectures, the kernel's file,
/// the modules' release. What the consumer would refuse is an error here; what it gets wrong is told with the cure.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imgbuild spec out --format capmvm --name demo-control-plane --name demo-md-0 --ssh-key id.pub
  imgbuild spec out --format capmvm-env --root nodes:capmvm-k8s-os:1.22.8 --digest
  imgbuild spec out --format hammertime --root nodes --ssh-key ~/.ssh/id_ed25519.pub > spec.json
  imgbuild spec --format flintlock-http --kernel registry.example/kernel-bin:5.10.262 \\
    --modules registry.example/kernel-modules:5.10.262 --root registry.example/capmvm-k8s-os:1.22.8 \\
    --interface eth1,address=192.168.100.30/24,gateway=192.168.100.1/24,nameserver=192.168.100.1")]
pub(super) struct Spec {
    /// The OCI layout the kernel and its modules are in, and perhaps the root volume
    #[arg(value_name = "DIR", required_unless_present = "kernel", conflicts_with = "kernel")]
    layout: Option<PathBuf>,
    /// Whom it is for
    #[arg(long, value_enum)]
    format: Consumer,
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    guest: Guest,
    #[command(flatten)]
    transport: Transport,
}

/// Which images.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images")]
struct Images {
    /// The kernel image: a layout, one image of it, or a reference at a registry
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    kernel: Option<String>,
    /// The modules image, or `none` [default: the one that was built with the kernel, in the same layout]
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    modules: Option<String>,
    /// The root volume's image [default: the one in the kernel's layout]
    #[arg(long, value_name = "DIR[:IMAGE]|REFERENCE")]
    root: Option<String>,
    /// Where the images of layouts were pushed to: HOST[:PORT][/PATH] [default: `registry` of the settings]
    #[arg(long, value_name = "REGISTRY", env = "IMGBUILD_REGISTRY", hide_env_values = true)]
    registry: Option<String>,
    /// Name images by digest too, so that no later push changes what runs
    #[arg(long)]
    digest: bool,
    /// Ask no registry: look at the layouts alone, and say what was not looked at
    #[arg(long)]
    offline: bool,
    /// For hosts of one architecture alone: `x86_64` (amd64) or arm64 (aarch64)
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The kernel's file in its image
    #[arg(long, value_name = "PATH", default_value = "boot/vmlinux")]
    filename: String,
}

/// What is said of the machine.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
struct Guest {
    /// The machine's name; for capmvm the template's, and several for several templates
    #[arg(long, default_values_t = [String::from("mvm0")])]
    name: Vec<String>,
    /// Its namespace [default: `default`; for capmvm, kubectl's]
    #[arg(long)]
    namespace: Option<String>,
    /// How many processors: 1 to 64, with Firecracker 1 or an even number to 32
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    vcpu: u32,
    /// How much memory: 1024 to 32768
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// What runs it [default: what flintlockd was started with, or Firecracker]
    #[arg(long, value_enum)]
    provider: Option<Vmm>,
    /// A network interface, eth1 first: NAME[,type=tap|macvtap][,mac=MAC][,address=CIDR][,gateway=CIDR][,nameserver=IP][,bridge=NAME]
    #[arg(long, value_name = "NAME[,KEY=VALUE]", default_values_t = [String::from("eth1")])]
    interface: Vec<String>,
    /// A public key, or several, that may log in
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Whom the keys are for
    #[arg(long, value_name = "USER", default_value = "root", requires = "ssh_key")]
    ssh_user: String,
    /// Your own data for cloud-init, in place of the host name and the keys
    #[arg(long, value_name = "FILE", conflicts_with = "ssh_key")]
    user_data: Option<PathBuf>,
    /// Added to the kernel's command line
    #[arg(long, value_name = "KEY=VALUE")]
    cmdline: Vec<String>,
    /// A label of the machine
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
}

/// Whom a document is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Consumer {
    /// CAPMVM: a `MicrovmMachineTemplate`, for kubectl apply
    Capmvm,
    /// CAPMVM: the variables of its cluster templates, for clusterctl
    CapmvmEnv,
    /// Flintlock: a `CreateMicroVMRequest`, for gRPC
    Flintlock,
    /// Flintlock: the body of POST /v1alpha1/microvm
    FlintlockHttp,
    /// hammertime: the file of `hammertime create --file`
    Hammertime,
}

/// The VMMs that Flintlock knows.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Vmm {
    /// Firecracker
    Firecracker,
    /// Cloud Hypervisor
    #[value(alias = "cloud-hypervisor")]
    Cloudhypervisor,
}

impl Spec {
    pub(super) fn run(&self, context: &Context) -> Result<(), Failure> {
        let format = match self.format {
            Consumer::Capmvm => Format::Capmvm,
            Consumer::CapmvmEnv => Format::CapmvmEnv,
            Consumer::Flintlock => Format::Flintlock,
            Consumer::FlintlockHttp => Format::FlintlockHttp,
            Consumer::Hammertime => Format::Hammertime,
        };
        let machine = self.guest.machine()?;
        let request = self.request(context)?;
        let (store, options) = (context.store()?, self.transport.options());
        let document =
            crate::plan::handoff::document(&request, format, &machine, &options, &store, &context.watch)?;
        document.warnings.iter().for_each(|warning| context.watch.reporter.note(Level::Warning, warning));
        context.print(&document.text)
    }

    fn request(&self, context: &Context) -> Result<Request, Failure> {
        let images = &self.images;
        let registry = images.registry.as_ref().filter(|text| !text.is_empty());
        let registry = registry.or(context.settings.registry.as_ref());
        let parsed = images.arch.as_deref().map(str::parse::<Arch>).transpose();
        Ok(Request {
            kernel: match (&self.layout, &images.kernel) {
                (None, Some(kernel)) => named(kernel)?,
                (dir, _) => Named::Layout(dir.clone().unwrap_or_default(), None),
            },
            modules: match images.modules.as_deref() {
                None => ModulesWish::Beside,
                Some("none") => ModulesWish::None,
                Some(modules) => ModulesWish::Named(named(modules)?),
            },
            root: images.root.as_deref().map(named).transpose()?,
            prefix: registry.map(|text| Prefix::from_str(text)).transpose()?,
            filename: images.filename.clone(),
            arch: parsed.map_err(|error| Failure::Plan(error.into()))?,
            by_digest: images.digest,
            offline: images.offline,
        })
    }
}

impl Guest {
    fn machine(&self) -> Result<Machine, Failure> {
        Ok(Machine {
            names: self.name.clone(),
            namespace: self.namespace.clone(),
            vcpu: self.vcpu,
            memory: self.memory,
            provider: self.provider.map(|vmm| match vmm {
                Vmm::Firecracker => Provider::Firecracker,
                Vmm::Cloudhypervisor => Provider::CloudHypervisor,
            }),
            interfaces: self.interface.iter().map(|text| interface(text)).collect::<Result<_, _>>()?,
            labels: pairs("--label", &self.label)?,
            cmdline: pairs("--cmdline", &self.cmdline)?,
            ssh: self.ssh_key.as_ref().map(keys).transpose()?.map(|keys| (self.ssh_user.clone(), keys)),
            user_data: self.user_data.as_ref().map(|path| text("--user-data", path)).transpose()?,
        })
    }
}

/// The image that an argument names.
fn named(argument: &str) -> Result<Named, Failure> {
    let named = place::named(argument)?;
    match &named {
        // What is no directory was meant as a reference, and tools complete a short one each in its own way.
        Named::Layout(dir, Some(_)) if !dir.exists() => match Reference::from_str(argument) {
            Err(registry::Error::Reference { reason, .. }) => Err(Failure::Usage {
                message: format!("`{argument}` is neither a layout nor a reference: {reason}"),
                hint: "hosts complete no short names: write `registry.example/org/name:tag`".into(),
            }),
            _ => Ok(named),
        },
        _ => Ok(named),
    }
}

/// A file of text that an option names.
fn text(option: &str, path: &PathBuf) -> Result<String, Failure> {
    fs_err::read_to_string(path).map_err(|error| Failure::Usage {
        message: format!("what `{option}` names cannot be read: {error}"),
        hint: format!("`{option}` names a file of text"),
    })
}

/// The public keys in a file, one a line.
fn keys(path: &PathBuf) -> Result<Vec<String>, Failure> {
    let text = text("--ssh-key", path)?;
    let is_key = |line: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| line.starts_with(kind));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    if keys.is_empty() || !keys.iter().all(|key| is_key(key)) {
        let message = format!("`{}` holds no public key, or something besides", path.display());
        let hint =
            "`--ssh-key` names the public half, such as ~/.ssh/id_ed25519.pub: its lines begin with `ssh-…`";
        return Err(Failure::Usage { message, hint: hint.into() });
    }
    Ok(keys)
}

/// `KEY=VALUE` by keys.
fn pairs(option: &str, texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::Usage {
            message: format!("`{option} {text}` names no key and value"),
            hint: format!("write it as `{option} KEY=VALUE`; the value may be empty"),
        }),
    };
    texts.iter().map(pair).collect()
}

/// `eth1,type=tap,address=192.168.100.30/24`.
fn interface(text: &str) -> Result<Interface, Failure> {
    let refuse = |part: &str| {
        Failure::Usage {
        message: format!("`--interface {text}`: `{part}` is not understood"),
        hint: "after the name come type=tap or type=macvtap, mac=, address=, gateway=, nameserver=, bridge=, with commas between".into(),
    }
    };
    let mut parts = text.split(',');
    let mut interface = Interface::new(parts.next().unwrap_or_default());
    for part in parts {
        let owned = |value: &str| Some(value.to_owned());
        match part.split_once('=').ok_or_else(|| refuse(part))? {
            (_, "") => return Err(refuse(part)),
            ("type", "tap") => interface.link = Link::Tap,
            ("type", "macvtap") => interface.link = Link::Macvtap,
            ("mac", mac) => interface.mac = owned(mac),
            ("address", address) => interface.address = owned(address),
            ("gateway", gateway) => interface.gateway = owned(gateway),
            ("nameserver", server) => interface.nameservers.push(server.parse().map_err(|_| refuse(part))?),
            ("bridge", bridge) => interface.bridge = owned(bridge),
            _ => return Err(refuse(part)),
        }
    }
    Ok(interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_as_they_are_written() {
        let read = interface(
            "eth1,type=macvtap,address=10.0.0.2/8,gateway=10.0.0.1/8,nameserver=10.0.0.1,nameserver=::1",
        )
        .unwrap();
        let expected = Interface {
            link: Link::Macvtap,
            address: Some("10.0.0.2/8".into()),
            gateway: Some("10.0.0.1/8".into()),
            nameservers: vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
            ..Interface::new("eth1")
        };
        assert_eq!(read, expected);
        assert_eq!(interface("lan").unwrap(), Interface::new("lan"));
        for text in
            ["eth1,tap", "eth1,type=bridge", "eth1,mac=", "eth1,nameserver=dns", "eth1,mtu=1500", "eth1,"]
        {
            assert!(interface(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_may_have_empty_values() {
        let texts = ["quiet=", "a=b=c"].map(str::to_owned);
        let read = pairs("--cmdline", &texts).unwrap();
        assert_eq!(read, BTreeMap::from([("quiet".into(), String::new()), ("a".into(), "b=c".into())]));
        assert!(
            pairs("--cmdline", &["quiet".into()]).is_err() && pairs("--cmdline", &["=x".into()]).is_err()
        );
    }
}
