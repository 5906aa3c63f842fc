use super::*;

/// A configuration that is fit for the built-in needs of Firecracker without ACPI.
const LEGACY: &str = "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\n\
                      CONFIG_X86_MPPARSE=y\nCONFIG_KVM_GUEST=y\nCONFIG_EXT4_FS=y\n";

/// Every symbol that a role may want, with one value.
fn all_on(role: &str, value: &str) -> String {
    let symbols = super::role(role).unwrap().lists().flat_map(|list| list.symbols.iter().flatten());
    symbols.fold(String::new(), |text, symbol| text + &format!("CONFIG_{symbol}={value}\n"))
}

struct Case<'c> {
    role: &'c str,
    config: String,
    version: &'c str,
    arch: Arch,
    modules: Option<&'c [&'c str]>,
    kubernetes: Option<&'c str>,
}

impl<'c> Case<'c> {
    fn new(role: &'c str, config: impl Into<String>) -> Self {
        let (version, arch) = ("5.10.77", Arch::X86_64);
        Self { role, config: config.into(), version, arch, modules: None, kubernetes: None }
    }

    fn judge(&self) -> Fitness {
        let modules = self.modules.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let kubernetes = self.kubernetes.map(|version| version.parse().unwrap());
        let subject = Subject {
            config: &Config::parse(&self.config),
            arch: self.arch,
            version: &self.version.parse().unwrap(),
            modules: modules.as_ref(),
            kubernetes: kubernetes.as_ref(),
        };
        judge(super::role(self.role).unwrap(), &subject)
    }

    fn line(&self) -> String {
        self.judge().line(2)
    }
}

#[test]
fn what_is_missing_is_named_and_how_it_stands() {
    let line = |config: String| Case::new("firecracker-no-acpi", config).line();
    assert!(line(LEGACY.into()).starts_with("fit; 16 optional missing: SERIAL_8250_CONSOLE, PRINTK and "));
    let with = |from: &str, to: &str| line(LEGACY.replace(from, to));
    assert_eq!(with("X86_MPPARSE=y", "X86_MPPARSE=n"), "not fit: needs CONFIG_X86_MPPARSE (off)");
    // Without the root disk's driver nobody could load a module.
    let late = "not fit: needs CONFIG_VIRTIO_BLK (=m, which comes too late)";
    assert_eq!(with("VIRTIO_BLK=y", "VIRTIO_BLK=m"), late);
    let any = "not fit: needs CONFIG_EXT4_FS or CONFIG_EXT2_FS or CONFIG_XFS_FS or CONFIG_BTRFS_FS or \
               CONFIG_SQUASHFS or CONFIG_EROFS_FS (off)";
    assert_eq!(with("EXT4_FS=y", "EXT4_FS=n"), any);
    assert!(with("EXT4_FS=y", "SQUASHFS=y").starts_with("fit; "));
}

#[test]
fn a_module_is_late_missing_or_as_good_as_built_in() {
    let mut case = Case::new("ipvs", all_on("ipvs", "m"));
    assert_eq!(case.line(), "fit");
    case.modules = Some(&["ip_vs"]);
    let missing = "not fit: needs CONFIG_IP_VS_PROTO_TCP (=m, but not in the modules image), ";
    assert!(case.line().starts_with(missing), "{}", case.line());
    let mut case = Case::new("flintlock", all_on("flintlock", "m"));
    assert_eq!(case.judge().needs.len(), 2);
    case.config += "CONFIG_VIRTIO_BLK=y\nCONFIG_EXT4_FS=y\n";
    assert_eq!(case.line(), "fit; late: VIRTIO_NET, PACKET and 5 more");
    case.modules = Some(&["virtio_net", "inet"]);
    assert_eq!(case.line(), "not fit: needs CONFIG_PACKET (=m, but not in the modules image)");
}

#[test]
fn what_is_wanted_depends_on_architecture_and_version() {
    let mut case = Case::new("cloud-hypervisor", all_on("cloud-hypervisor", "y").replace("CONFIG_PVH=y", ""));
    assert_eq!(case.line(), "not fit: needs CONFIG_PVH (off)");
    case.arch = Arch::Arm64;
    assert_eq!(case.line(), "fit");
    let mut case = Case::new("kubeadm", all_on("kubeadm", "y").replace("CONFIG_NF_NAT_IPV4=y", ""));
    assert_eq!(case.line(), "fit");
    case.version = "4.19.215";
    assert_eq!(case.line(), "not fit: needs CONFIG_NF_NAT_IPV4 (off)");
    let mut case = Case::new("kubeadm", all_on("kubeadm", "y").replace("CONFIG_NFT_COUNTER=y", ""));
    assert_eq!(case.line(), "fit; 1 optional missing: NFT_COUNTER");
    case.version = "6.1.176";
    assert_eq!(case.line(), "fit");
    let case = Case::new(
        "qemu-microvm",
        all_on("qemu-microvm", "y").replace("HW_RANDOM_VIRTIO=y", "HW_RANDOM_VIRTIO=m"),
    );
    assert_eq!(case.line(), "fit; late: HW_RANDOM_VIRTIO");
}

#[test]
fn kubernetes_decides_about_kernels_and_control_groups() {
    let mut case = Case::new("kubeadm", all_on("kubeadm", "y").replace("CONFIG_CGROUP_BPF=y", ""));
    assert!(case.line().contains("needs CONFIG_CGROUP_BPF (off)"), "any version may come: {}", case.line());
    case.kubernetes = Some("1.23.5");
    assert_eq!(case.line(), "fit; 1 optional missing: CGROUP_BPF");
    case.kubernetes = Some("1.35.0");
    assert_eq!(case.line(), "not fit: needs CONFIG_CGROUP_BPF (off)");
    assert_eq!(case.judge().title(), "kubeadm 1.35.0");
    let taken = |version, kubernetes| {
        let case =
            Case { version, kubernetes: Some(kubernetes), ..Case::new("kubeadm", all_on("kubeadm", "y")) };
        case.line()
    };
    for (version, kubernetes) in [
        ("4.19.215", "1.21.8"),
        ("4.19.215", "1.33.11"),
        ("5.12", "1.33"),
        ("5.10.77", "1.34.1"),
        ("5.4.1", "1.35"),
        ("6.1.176", "1.34.1"),
        ("6.12.104", "1.36.0"),
        ("5.15.210", "1.34.0"),
    ] {
        assert_eq!(taken(version, kubernetes), "fit", "{version} {kubernetes}");
    }
    let refused = "not fit: takes Linux 5.4, 5.10, 5.15, 6.0 or newer, not 4.19.215";
    assert_eq!(taken("4.19.215", "1.34.1"), refused);
    assert!(taken("5.12", "1.34.0").ends_with("not 5.12"));
    assert_eq!(taken("4.14.1", "1.32.0"), "not fit: takes Linux 4.19 or newer, not 4.14.1");
    // Of other roles it changes nothing.
    let mut case = Case::new("ipvs", all_on("ipvs", "y"));
    (case.version, case.kubernetes) = ("5.12", Some("1.34.1"));
    assert_eq!((case.line().as_str(), case.judge().title().as_str()), ("fit", "ipvs"));
}

#[test]
fn a_role_may_take_new_kernels_alone() {
    let mut case = Case::new("cilium", all_on("cilium", "y"));
    assert_eq!(case.line(), "fit");
    case.version = "4.19.215";
    assert_eq!(case.line(), "not fit: takes Linux 5.10 or newer, not 4.19.215");
}
