//! What kubelet and containerd are told: a cgroup driver, a sandbox image and flags that their versions agree on.

use toml::{Table, Value};

use super::content::Content;
use super::dpkg::Database;
use super::{Report, Volume};

const CONFIG: &str = "etc/containerd/config.toml";
/// Where systemd finds kubelet's command line, and what it reads into it.
const KUBELET: [&str; 7] = [
    "etc/systemd/system/kubelet.service",
    "usr/lib/systemd/system/kubelet.service",
    "lib/systemd/system/kubelet.service",
    "etc/default/kubelet",
    "var/lib/kubelet/kubeadm-flags.env",
    "etc/systemd/system/kubelet.service.d",
    "usr/lib/systemd/system/kubelet.service.d",
];
/// Flags that kubelet does not start with any more, and the minor version that dropped them.
const DROPPED: [(&str, u32); 5] = [
    ("--network-plugin", 24),
    ("--cni-bin-dir", 24),
    ("--cni-conf-dir", 24),
    ("--cni-cache-dir", 24),
    ("--container-runtime", 27),
];

/// Checks containerd's configuration and kubelet's flags.
pub(super) fn check(volume: &Volume<'_>, content: &Content, database: &Database, report: &mut Report) {
    let is_release =
        content.program("containerd").is_some_and(|program| !database.owns(&program.path.to_string()));
    match content.text(CONFIG) {
        Some(text) => containerd(volume, &text, is_release, report),
        None if volume.kubernetes().is_some() => report.at(
            &CONFIG,
            "there is none, and containerd's own default is another cgroup driver than kubelet's: write one with SystemdCgroup = true",
        ),
        None => {}
    }
    if let Some(version) = volume.kubernetes() {
        flags(version, content, report);
    }
}

fn containerd(volume: &Volume<'_>, text: &str, is_release: bool, report: &mut Report) {
    let config = match text.parse::<Table>() {
        Ok(config) => config,
        Err(error) => {
            return report.at(&CONFIG, format!("containerd does not start with it: {}", error.message()));
        }
    };
    if volume.kubernetes().is_none() && !is_release {
        return;
    }
    // Version 2 of the configuration, and version 3 with containerd 2.
    let plugin = |name: &str, path: &[&str]| {
        let plugin = config.get("plugins")?.get(name)?;
        path.iter().try_fold(plugin, |value, key| value.get(key))
    };
    let old = "io.containerd.grpc.v1.cri";
    let options = ["containerd", "runtimes", "runc", "options", "SystemdCgroup"];
    let cgroup = plugin(old, &options).or_else(|| plugin("io.containerd.cri.v1.runtime", &options));
    if cgroup.and_then(Value::as_bool) != Some(true) {
        let what = "SystemdCgroup of runc's options must be true: kubeadm gives kubelet the systemd driver, and with two drivers pods are killed";
        report.at(&CONFIG, what);
    }
    let sandbox = plugin(old, &["sandbox_image"])
        .or_else(|| plugin("io.containerd.cri.v1.images", &["pinned_images", "sandbox"]))
        .and_then(Value::as_str);
    match (sandbox, volume.label(super::PAUSE)) {
        (None, wanted) => {
            let wanted = wanted.unwrap_or("registry.k8s.io/pause:…, as this version's kubeadm has it");
            report.at(
                &CONFIG,
                format!(
                    "it names no sandbox image, and containerd's own is another than kubeadm's: {wanted}"
                ),
            );
        }
        (Some(found), Some(wanted)) if found != wanted => {
            report
                .at(&CONFIG, format!("its sandbox image is {found}, this version's kubeadm means {wanted}"));
        }
        _ => {}
    }
}

fn flags(version: &str, content: &Content, report: &mut Report) {
    let mut words: Vec<(String, String)> = Vec::new();
    for place in KUBELET {
        let inside = content.names(place).into_iter().map(|(name, _)| format!("{place}/{name}"));
        for path in inside.chain([place.to_owned()]) {
            let text = content.text(&path).unwrap_or_default();
            let text =
                text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])).collect::<Vec<_>>();
            let text = text.join("\n");
            let flags = text.split(|c: char| c.is_whitespace() || "\"'".contains(c));
            // What stands before a flag in `Environment="NAME=--flag"` is no part of it.
            let flags = flags.filter_map(|word| Some(&word[word.find("--")?..]));
            words.extend(flags.map(|flag| (path.clone(), flag.to_owned())));
        }
    }
    let Some(minor) = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()) else {
        return report.add(format!("the label {} says `{version}`, which is no version", super::KUBERNETES));
    };
    for (flag, dropped) in DROPPED.into_iter().filter(|(_, dropped)| minor >= *dropped) {
        for (path, _) in words.iter().filter(|(_, word)| word.split('=').next() == Some(flag)) {
            report.at(
                path,
                format!(
                    "kubelet {version} does not start with {flag}, which 1.{dropped} dropped: take it away"
                ),
            );
        }
    }
    let has = |flag: &str, value: &dyn Fn(&str) -> bool| {
        words.iter().any(|(_, word)| word.split_once('=').is_some_and(|(name, it)| name == flag && value(it)))
    };
    let is_remote = has("--container-runtime", &|value| value == "remote");
    let is_led = has("--container-runtime-endpoint", &|value| value.ends_with("/containerd.sock"));
    if minor < 24 && !(is_remote && is_led) {
        report.add(format!(
            "kubelet {version} looks for Docker unless it is told: --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock, in 10-kubeadm.conf or /etc/default/kubelet"
        ));
    }
}
