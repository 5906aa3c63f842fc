//! A Kubernetes node's programs and their configuration, from release files: plain data, no package and no script.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use fs_err::{self as fs, File};

use super::Error;
use super::overlay::Upper;
use super::units;
use crate::arch::Arch;
use crate::lock::node::{NodeSet, PROGRAMS};
use crate::oci::archive::Archive;
use crate::oci::layer::{Content, Entry, is_file, normal};
use crate::step::Cancel;

/// What messages call the layer.
pub const LAYER: &str = "the Kubernetes layer";

/// Where the units of packages lie; a base with `lib -> usr/lib` has it so.
pub const UNITS: &str = "usr/lib/systemd/system";

/// The units that a node starts at boot.
const STARTED: [&str; 2] = ["containerd.service", "kubelet.service"];

/// containerd under systemd, as its settings want it: the cgroups of containers are containerd's own to manage, and
/// containers outlive a restart.
const CONTAINERD: &str = "\
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target local-fs.target

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
LimitNOFILE=1048576
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
";

/// The kubelet fails and is started again until kubeadm has written its configuration.
const KUBELET: &str = "\
[Unit]
Description=kubelet, the Kubernetes node agent
Documentation=https://kubernetes.io/docs/
Wants=network-online.target containerd.service
After=network-online.target containerd.service
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
";

/// A node's programs as they are brought: by the names their pins have, each with its file.
pub type Releases = BTreeMap<&'static str, PathBuf>;

/// Everything of the layer; what archives hold is unpacked below `work`.
pub fn entries(
    set: &NodeSet,
    arch: Arch,
    releases: &Releases,
    work: &Path,
    cancel: &Cancel,
) -> Result<Vec<Upper>, Error> {
    let mut entries = Vec::new();
    let program = |path: String, file: PathBuf| Entry::new(path, 0o755, Content::File(file));
    for name in PROGRAMS {
        let file = &releases[name];
        match name {
            "containerd" => {
                for (name, file) in members(file, name, "bin/", "containerd", work, cancel)? {
                    entries.push(program(format!("usr/bin/{name}"), file));
                }
            }
            "crictl" => {
                let found = members(file, name, "", "crictl", work, cancel)?;
                let crictl = found.into_iter().filter(|(name, _)| name == "crictl");
                entries.extend(crictl.map(|(name, file)| program(format!("usr/bin/{name}"), file)));
            }
            "cni-plugins" => {
                let text = |name: &str| name.contains('.') || name == "LICENSE";
                for (name, file) in members(file, name, "", "bridge", work, cancel)? {
                    if !text(&name) {
                        entries.push(program(format!("opt/cni/bin/{name}"), file));
                    }
                }
            }
            plain => entries.push(program(format!("usr/bin/{plain}"), file.clone())),
        }
    }
    for dir in ["etc/cni/net.d", "etc/kubernetes/manifests", "var/lib/kubelet"] {
        entries.push(Entry::directory(dir));
    }
    entries.extend(
        texts(set, arch)
            .into_iter()
            .map(|(path, text)| Entry::new(path, 0o644, Content::Bytes(text.into_bytes()))),
    );
    let unit_texts = [("containerd.service", CONTAINERD), ("kubelet.service", KUBELET)];
    let unit_texts = unit_texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    let links = units::links(&STARTED.map(str::to_owned).into(), &[].into(), &unit_texts, |_| UNITS.into())?;
    entries.extend(links.into_iter().map(|(path, target)| Entry::symlink(path, target)));
    Ok(entries.into_iter().map(Upper::from).collect())
}

/// The configuration files, by path.
pub fn texts(set: &NodeSet, arch: Arch) -> BTreeMap<String, String> {
    let containerd = set.version_of("containerd", arch);
    let text = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    [
        text("etc/containerd/config.toml", &containerd_config(containerd, &set.pause)),
        text(
            "etc/crictl.yaml",
            "runtime-endpoint: unix:///run/containerd/containerd.sock\nimage-endpoint: unix:///run/containerd/containerd.sock\ntimeout: 10\n",
        ),
        (format!("{UNITS}/containerd.service"), CONTAINERD.to_owned()),
        (format!("{UNITS}/kubelet.service"), KUBELET.to_owned()),
        (format!("{UNITS}/kubelet.service.d/10-kubeadm.conf"), drop_in(&set.version)),
    ]
    .into()
}

/// containerd's settings: its cgroups are made by systemd, as the kubelet's are, and its sandbox is kubeadm's.
fn containerd_config(version: &str, pause: &str) -> String {
    if parts(version) >= [2, 0] {
        return format!(
            "version = 3\n\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = '{pause}'\n\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = 'io.containerd.runc.v2'\n  \
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n    SystemdCgroup = true\n"
        );
    }
    let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\n\n[{plugin}]\n  sandbox_image = \"{pause}\"\n  [{plugin}.containerd.runtimes.runc]\n    \
         runtime_type = \"io.containerd.runc.v2\"\n    [{plugin}.containerd.runtimes.runc.options]\n      SystemdCgroup = true\n"
    )
}

/// How kubeadm has the kubelet started, with the flags that this version still has and still needs.
fn drop_in(version: &str) -> String {
    let version = parts(version);
    let mut flags = Vec::new();
    // Before 1.22 kubeadm leaves the driver to the kubelet, which then takes cgroupfs.
    if version < [1, 22] {
        flags.push("--cgroup-driver=systemd");
    }
    // Docker's shim was the default until 1.23, and the flag that chose another one is gone since 1.27.
    if version < [1, 24] {
        flags.push("--container-runtime=remote");
    }
    if version < [1, 27] {
        flags.push("--container-runtime-endpoint=unix:///run/containerd/containerd.sock");
    }
    let runtime = if flags.is_empty() {
        String::new()
    } else {
        format!("Environment=\"KUBELET_RUNTIME_ARGS={}\"\n", flags.join(" "))
    };
    let variable = if flags.is_empty() { "" } else { "$KUBELET_RUNTIME_ARGS " };
    format!(
        "[Service]\n\
         Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"\n\
         Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n{runtime}\
         # Written by kubeadm: what this node needs (KUBELET_KUBEADM_ARGS).\n\
         EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
         # For the operator of the node (KUBELET_EXTRA_ARGS).\n\
         EnvironmentFile=-/etc/default/kubelet\n\
         ExecStart=\n\
         ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS {variable}$KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n"
    )
}

/// Major and minor number of a version.
fn parts(version: &str) -> [u64; 2] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

/// Unpacks the files below `prefix` of a .tar.gz into a directory of their own; returns them by name.
fn members(
    archive: &Path,
    name: &str,
    prefix: &str,
    wanted: &'static str,
    work: &Path,
    cancel: &Cancel,
) -> Result<BTreeMap<String, PathBuf>, Error> {
    let dir = work.join(name);
    fs::create_dir(&dir)?;
    let told = |error: io::Error| io::Error::new(error.kind(), format!("the archive of {name}: {error}"));
    let mut reader = Archive::new(MultiGzDecoder::new(File::open(archive)?));
    let (mut found, mut all) = (BTreeMap::new(), Vec::new());
    while let Some(member) = reader.next_member().map_err(told)? {
        let path = String::from_utf8_lossy(&normal(&member.path)).into_owned();
        let file = path.strip_prefix(prefix).filter(|file| is_file(member.kind) && !file.contains('/'));
        if let Some(file) = file.filter(|file| !file.is_empty() && *file != "..") {
            let target = dir.join(file);
            let mut out = File::create(&target)?;
            let mut buffer = vec![0; 1 << 17];
            loop {
                if cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                match reader.read(&mut buffer).map_err(told)? {
                    0 => break,
                    n => out.write_all(&buffer[..n])?,
                }
            }
            found.insert(file.to_owned(), target);
        }
        all.push(path);
    }
    if found.contains_key(wanted) {
        return Ok(found);
    }
    Err(Error::NoMember { archive: name.to_owned(), wanted, found: all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_the_versions_own() {
        let has = |version, flag| drop_in(version).contains(flag);
        assert!(has("1.21.8", "--cgroup-driver=systemd") && !has("1.22.3", "--cgroup-driver"));
        assert!(has("1.23.5", "--container-runtime=remote") && !has("1.24.0", "--container-runtime=remote"));
        assert!(has("1.26.0", "--container-runtime-endpoint") && !has("1.30.14", "KUBELET_RUNTIME_ARGS"));
        assert!(drop_in("1.30.14").contains("$KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS"));
    }

    #[test]
    fn containerds_settings_have_its_versions_form() {
        let one = containerd_config("1.6.4", "k8s.gcr.io/pause:3.6");
        assert!(one.starts_with("version = 2") && one.contains("sandbox_image = \"k8s.gcr.io/pause:3.6\""));
        let two = containerd_config("2.1.5", "registry.k8s.io/pause:3.10");
        assert!(two.starts_with("version = 3") && two.contains("sandbox = 'registry.k8s.io/pause:3.10'"));
        for text in [one, two] {
            assert!(text.contains("SystemdCgroup = true"));
            toml::from_str::<toml::Table>(&text).unwrap();
        }
    }
}
